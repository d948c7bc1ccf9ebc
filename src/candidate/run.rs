//! The program without a command: a candidate with the sample task, which behaves like the original k8sensus, line for
//! line. The command `run` is in [`sidecar`](super::sidecar).

use tracing::info;

use super::sample;
use crate::campaign::{Builder, Callbacks, StartError, Term};
use crate::election::Moment;
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::shutdown::Shutdown;

/// Campaigns, and logs the sample task's line every 10 s while leading, until SIGTERM or SIGINT; then releases the
/// Lease.
///
/// # Errors
/// [`StartError`], before any request to the API server.
pub async fn run(config: &kube::Config, campaign: Builder, mut shutdown: Shutdown) -> Result<(), StartError> {
    let me = campaign.holder_identity().to_owned();
    println!("Creating lease using the following metadata:");
    println!("Lease Name: {}", campaign.lease().name);
    println!("Pod Name: {me}");
    println!("Namespace: {}", campaign.lease().namespace);
    let shutdown = async {
        let signal = shutdown.requested().await;
        info!("{signal}: leaving the election");
    };
    campaign.start(config)?.run(Original { me }, shutdown).await;
    Ok(())
}

/// The original program's reactions to its election.
struct Original {
    me: String,
}

impl Callbacks for Original {
    async fn on_started_leading(&self, _: Term) {
        info!("I'm the new leader! 😋");
        let clock = SystemClock;
        let mut next = Moment::since_boot(clock.since_boot());
        loop {
            info!("{}", sample::LINE);
            next = next + sample::PERIOD;
            clock.sleep_until(next.elapsed_since_boot()).await;
        }
    }

    fn on_stopped_leading(&self) {
        info!("Evicted as leader: finding new leaders..");
    }

    fn on_new_leader(&self, identity: &str) {
        if identity != self.me {
            info!("New leader is: {identity}");
        }
    }
}
