//! The candidate with the sample task: what the original k8sensus does, line for line.

use tokio::task::JoinHandle;
use tracing::info;

use super::sample;
use crate::campaign::{self, ConnectError, Notice, Options, Term};
use crate::election::Moment;
use crate::runtime::clock::Clock;
use crate::runtime::shutdown::Shutdown;

/// Campaigns, and says the sample task's line every 10 s while leading, until SIGTERM or SIGINT; then releases.
///
/// # Errors
/// [`ConnectError`] if `config` makes no client.
pub async fn run(config: &kube::Config, options: Options, mut shutdown: Shutdown) -> Result<(), ConnectError> {
    let me = options.candidate.identity().to_owned();
    println!("Creating lease using the following metadata:");
    println!("Lease Name: {}", options.lease.name);
    println!("Pod Name: {me}");
    println!("Namespace: {}", options.lease.namespace);
    let clock = options.clock.clone();
    let (handle, mut notices) = campaign::start(config, options)?;
    let mut work: Option<(Term, JoinHandle<()>)> = None;
    loop {
        let notice = tokio::select! {
            signal = shutdown.requested() => {
                info!("{signal}: leaving the election");
                handle.shutdown();
                continue;
            }
            notice = notices.recv() => notice,
        };
        match notice {
            Some(Notice::Lead(term)) => {
                info!("I'm the new leader! 😋");
                let clock = clock.clone();
                work = Some((term, tokio::spawn(async move { sample_task(&*clock).await })));
            }
            Some(Notice::Stop { .. }) => {
                if let Some((term, task)) = work.take() {
                    task.abort();
                    // The task has no step that must not be cut; but only its end is the end of the work.
                    let _ = task.await;
                    handle.work_ended(&term);
                    info!("Evicted as leader: finding new leaders..");
                }
            }
            Some(Notice::Holder(holder)) if !holder.is_empty() && holder != me => info!("New leader is: {holder}"),
            Some(Notice::Holder(_)) => {}
            Some(Notice::Finished) | None => return Ok(()),
        }
    }
}

async fn sample_task(clock: &dyn Clock) {
    let mut next = Moment::since_boot(clock.since_boot());
    loop {
        info!("{}", sample::LINE);
        next = next + sample::PERIOD;
        clock.sleep_until(next.elapsed_since_boot()).await;
    }
}
