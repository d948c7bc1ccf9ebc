//! Runs a command only while this process leads.
//!
//! # Guarantees
//! - The command starts after the Lease was acquired. From then on its probes and hooks are carried out, see [`app`](super::app).
//! - A stop that was asked for (SIGTERM, SIGINT or SIGQUIT to this process, a step-down) runs the preStop hook, then sends the
//!   stop signal: the user's, else the one that this process got, else SIGTERM. After `terminationGracePeriodSeconds` in all,
//!   less a tenth of at most 0.5 s in which the Lease can still be released before the kubelet kills this process, SIGKILL. A
//!   hook that runs on is given up 2 s before that, so that the command hears of its end. A command that is still being started
//!   (its file system does not answer) is killed after 2 s, if its start has not ended by then.
//! - When leadership is lost the command gets the stop signal without a hook, and SIGKILL at the end of the stop grace at the
//!   latest: before any other candidate may lead. When another holder shows, it gets SIGKILL at once.
//! - The Lease is released only after the kernel said that nothing of the command's process tree is left, nor of its probes and
//!   hooks. If that never comes (a process stuck in the kernel), the Lease is left to expire; the killer
//!   (`killer.rs`) says what becomes of processes of another user, which this one may not signal.
//! - SIGHUP, SIGUSR1, SIGUSR2 and SIGWINCH are passed on to the command while it runs; a standby ignores them.
//! - Where it is told the container's termination message, it leaves its incarnation there before it takes part, so that the
//!   kubelet's report of a container that was killed as a whole proves the leader's death. After an end in good order it takes
//!   that back, and says why where the command could not be started or did not come up.
//!
//! # Caveats
//! Work that the command handed to something outside of its process tree is not stopped. Where the candidate is not
//! PID 1 of a container and is itself killed with SIGKILL, the command dies with it unless it changed its user, but what the
//! command started may not. There, too, the children of credential plugins of a kubeconfig may be reaped in their stead, and a
//! renewal that asked one fails and is tried again.
//! Where the candidate alone is frozen (SIGSTOP to this one process, not to its container), nobody stops its command: that works
//! on beside the next leader until the candidate wakes. A frozen container or machine freezes both.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing::warn;

use super::app::AppSpec;
use super::app::health::ProbeRunner;
use super::app::probe::Prober;
use super::children::Children;
use super::flags::HttpFlags;
use super::heard::told_to_stop;
use super::lock;
use super::message::TerminationMessage;
use super::serve::{Answers, ListenError};
use super::signals::{Asked, PassedOn};
use super::supervisor::{Environment, Supervisor};
use crate::campaign::{Builder, Metrics, StartError};
use crate::protocol::environment;
use crate::runtime::clock::SystemClock;
use crate::runtime::shutdown::Shutdown;

/// Where the app is asked if nobody says which address the pod has.
const LOOPBACK: &str = "127.0.0.1";

/// What is to be run, and what is around it.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct ExecArgs {
    /// The file that the kubelet reads when the container has ended; the operator names it in its pods
    #[arg(long, env = environment::TERMINATION_MESSAGE_PATH, hide = true)]
    termination_message_path: Option<PathBuf>,
    /// A file of the pod's own to lock, so that a container that starts again need not wait for its lease
    #[arg(long, env = environment::LOCK_PATH, hide = true)]
    lock_path: Option<PathBuf>,
    /// The container's own probes and hooks as JSON; the operator hands them over
    #[arg(long, env = environment::APP, value_name = "JSON", value_parser = AppSpec::parse, default_value = "{}", hide = true)]
    app: AppSpec,
    /// The pod's address, where the probes go
    #[arg(long, env = environment::POD_IP, default_value = "", hide = true)]
    pod_ip: String,
    #[command(flatten)]
    http: HttpFlags,
    /// The command and its arguments, after --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Why the command could not be run under an election.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The campaign cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The HTTP server cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The kernel refused what is needed to know when the command is gone.
    #[error("cannot watch over child processes: {0}")]
    Children(#[from] io::Error),
}

/// Takes part in `campaign` and runs the command while leading. Returns when the command has ended by itself, or after
/// SIGTERM, SIGINT or SIGQUIT when it was stopped. The exit code is that of a command that ended by itself, 128 + signal if a
/// signal ended it; 127 if there is no such program, 126 if it could not be started otherwise; 1 if its postStart hook or its
/// startup probe failed; 0 after a stop that was asked for.
///
/// # Errors
/// [`ExecError`]. Where it comes in mid-term the Lease is left to expire, since nobody knows what still runs.
pub async fn exec(
    config: &kube::Config,
    campaign: Builder,
    orders: ExecArgs,
    shutdown: Shutdown,
) -> Result<ExitCode, ExecError> {
    let ExecArgs { termination_message_path, lock_path, app, pod_ip, http, command } = orders;
    let mut child_signals = signal(SignalKind::child())?;
    let mut asked = Asked::listen(shutdown)?;
    let mut passed_on = PassedOn::listen()?;
    let children = Children::adopt_orphans()?;
    let clock = SystemClock;
    let server = http.http_port.map(|port| http.bind(port)).transpose()?;
    let campaign = lock::campaign(campaign, lock_path.as_deref());
    let environment = Environment::of(&campaign);
    // Before anything can be led: a leader without it could die unproved.
    let message = termination_message_path.and_then(|path| leave_message(&path, &campaign));
    let metrics = Metrics::default();
    let campaign = match campaign.metrics(metrics.clone()).start(config) {
        Ok(campaign) => Arc::new(campaign),
        Err(error) => {
            // Nothing was led, so there is nothing to prove beside the reason.
            let _ = message.map(TerminationMessage::take_back);
            return Err(error.into());
        }
    };
    let mut holders = campaign.holders();
    let app = Arc::new(app);
    let address = if pod_ip.is_empty() { LOOPBACK } else { &pod_ip };
    let prober = Prober::new(address, Arc::new(children.clone()), Arc::new(clock));
    let attendant = ProbeRunner::new(app.clone(), prober.clone(), Arc::new(clock));
    let _serving = server.map(|server| {
        let health = Arc::new(attendant.answers());
        server.serve(Answers::beside_command(campaign.clone(), health, &metrics))
    });
    let starts = children.clone();
    let mut supervisor = Supervisor::new(command, app, environment, children, campaign, attendant, prober)?;
    loop {
        tokio::select! {
            // An order to stop counts before anything else is begun.
            biased;
            signal = asked.next() => supervisor.asked(signal),
            stop = told_to_stop(supervisor.work.as_mut().map(|work| &mut work.stops)) => supervisor.stop(stop),
            started = answer_of(&mut supervisor.starting) => supervisor.started(started)?,
            _ = child_signals.recv() => supervisor.reap()?,
            () = starts.start_ended() => supervisor.reap()?,
            signal = passed_on.next() => supervisor.pass_on(signal),
            () = ended(&mut supervisor.pre_stop) => supervisor.tell_to_stop(),
            news = supervisor.attendant.news() => supervisor.hear(news),
            guard = supervisor.campaign.lead() => match guard {
                Some(guard) => supervisor.start(guard),
                None => {
                    supervisor.settle(message);
                    return Ok(ExitCode::from(supervisor.exit.code));
                }
            },
            Some(holder) = holders.next() => supervisor.say_holder(&holder),
        }
    }
}

fn leave_message(path: &Path, campaign: &Builder) -> Option<TerminationMessage> {
    let left = TerminationMessage::leave(path, campaign.holder_incarnation()?);
    let warn = |error: &io::Error| {
        warn!(
            "cannot write the termination message {}: {error}; if this container is killed as a leader, its lease must expire",
            path.display()
        );
    };
    left.inspect_err(warn).ok()
}

/// The answer of the start that is under way, if there is one. Cancel safe.
async fn answer_of(starting: &mut Option<oneshot::Receiver<io::Result<()>>>) -> io::Result<()> {
    match starting {
        Some(start) => {
            let answer = start.await;
            *starting = None;
            answer.map_err(io::Error::other)?
        }
        None => std::future::pending().await,
    }
}

/// The end of the hook that is under way, if there is one.
async fn ended(hook: &mut Option<futures::future::BoxFuture<'static, ()>>) {
    match hook {
        Some(work) => {
            work.await;
            *hook = None;
        }
        None => std::future::pending().await,
    }
}
