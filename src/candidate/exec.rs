//! Runs a command only while this process leads.
//!
//! # Guarantees
//! - The command starts after the Lease was acquired. From then on its probes and hooks run, see [`app`](super::app).
//! - A requested stop (SIGTERM, SIGINT or SIGQUIT to this process, a step-down) runs the preStop hook and then sends
//!   the stop signal: the user's, else the one that this process received, else SIGTERM. SIGKILL follows after
//!   `terminationGracePeriodSeconds` in all, less a tenth of it, at most 0.5 s, in which the Lease can still be
//!   released before the kubelet kills this process. A hook that is still running 2 s before that (or half of the grace
//!   before, if that is shorter) is abandoned, so that the command gets its signal. A command that is still starting
//!   (its file system does not answer) is killed after 2 s, or after the grace if that is shorter.
//! - When leadership is lost, the command gets the stop signal without a hook, and SIGKILL no later than the end of the
//!   stop grace: before any other candidate may lead. When another holder is observed, the command gets SIGKILL at
//!   once.
//! - The Lease is released only after the kernel has confirmed that nothing is left of the command's process tree, nor
//!   of its probes and hooks. If that never happens (a process stuck in the kernel), the Lease is left to expire.
//!   `killer.rs` describes what happens to processes of another user, which this process may not signal.
//! - SIGHUP, SIGUSR1, SIGUSR2 and SIGWINCH are forwarded to the command while it runs; a standby ignores them.
//! - If a termination message path is set, the process writes its incarnation there before it takes part. The kubelet's
//!   report of a container that was killed as a whole then proves the leader's death. After an orderly end the process
//!   removes that line, and writes the reason if the command could not be started or did not come up.
//!
//! # Caveats
//! Work that the command handed to something outside of its process tree is not stopped. Where the candidate is not PID
//! 1 of a container and is itself killed with SIGKILL, the command dies with it unless it changed its user, but
//! processes that the command started may survive. There, too, the children of a kubeconfig's credential plugins may be
//! reaped in the plugins' stead; a renewal that used such a plugin then fails and is retried. Where the candidate alone
//! is frozen (SIGSTOP to this one process, not to its container), its command is not stopped: it works on beside the
//! next leader until the candidate wakes. A frozen container or machine freezes both.

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
use super::lock;
use super::message::TerminationMessage;
use super::serve::{Answers, ListenError};
use super::signals::{ForwardedSignals, StopSignals};
use super::stops::next_stop;
use super::supervisor::{Environment, Supervisor};
use crate::campaign::{Builder, Metrics, StartError};
use crate::protocol::environment;
use crate::runtime::clock::SystemClock;
use crate::runtime::shutdown::Shutdown;

/// Where the app is probed if the pod's address is unknown.
const LOOPBACK: &str = "127.0.0.1";

/// The arguments of `exec`: the command and its surroundings.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct ExecArgs {
    /// The container's termination message file; set by the operator
    #[arg(long, env = environment::TERMINATION_MESSAGE_PATH, hide = true)]
    termination_message_path: Option<PathBuf>,
    /// A file of this pod alone to lock, so that a restarted container need not wait for its lease to expire
    #[arg(long, env = environment::LOCK_PATH, hide = true)]
    lock_path: Option<PathBuf>,
    /// The container's own probes and hooks as JSON; set by the operator
    #[arg(long, env = environment::APP, value_name = "JSON", value_parser = AppSpec::parse, default_value = "{}", hide = true)]
    app: AppSpec,
    /// The pod's address, to which the probes go
    #[arg(long, env = environment::POD_IP, default_value = "", hide = true)]
    pod_ip: String,
    #[command(flatten)]
    http: HttpFlags,
    /// The command and its arguments, after --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// A reason why the command could not be run under an election.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The campaign cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The HTTP server cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The kernel refused what is needed to detect the end of the command.
    #[error("cannot watch over child processes: {0}")]
    Children(#[from] io::Error),
}

/// Takes part in `campaign` and runs the command while leading. Returns when the command has ended by itself, or has
/// been stopped after SIGTERM, SIGINT or SIGQUIT. The exit code is that of a command that ended by itself, 128 + signal
/// if a signal ended it; 127 if there is no such program, 126 if it could not be started otherwise; 1 if its postStart
/// hook or its startup probe failed; 0 after a requested stop.
///
/// # Errors
/// [`ExecError`]. If it occurs during a term, the Lease is left to expire, since it is unknown what still runs.
pub async fn exec(
    config: &kube::Config,
    campaign: Builder,
    args: ExecArgs,
    shutdown: Shutdown,
) -> Result<ExitCode, ExecError> {
    let ExecArgs { termination_message_path, lock_path, app, pod_ip, http, command } = args;
    let mut child_signals = signal(SignalKind::child())?;
    let mut stop_signals = StopSignals::listen(shutdown)?;
    let mut forwarded = ForwardedSignals::listen()?;
    let children = Children::adopt_orphans()?;
    let clock = SystemClock;
    let server = http.http_port.map(|port| http.bind(port)).transpose()?;
    let campaign = lock::campaign(campaign, lock_path.as_deref());
    let environment = Environment::of(&campaign);
    // Written before this process can lead: a leader without it could die without proof.
    let message = termination_message_path.and_then(|path| write_message(&path, &campaign));
    let metrics = Metrics::default();
    let campaign = match campaign.metrics(metrics.clone()).start(config) {
        Ok(campaign) => Arc::new(campaign),
        Err(error) => {
            // This process never led, so there is nothing to prove and only the reason counts.
            let _ = message.map(TerminationMessage::remove_incarnation);
            return Err(error.into());
        }
    };
    let mut holders = campaign.holders();
    let app = Arc::new(app);
    let address = if pod_ip.is_empty() { LOOPBACK } else { &pod_ip };
    let prober = Prober::new(address, Arc::new(children.clone()), Arc::new(clock));
    let probe_runner = ProbeRunner::new(app.clone(), prober.clone(), Arc::new(clock));
    let _serving = server.map(|server| {
        let health = Arc::new(probe_runner.answers());
        server.serve(Answers::beside_command(campaign.clone(), health, &metrics))
    });
    let starts = children.clone();
    let mut supervisor = Supervisor::new(command, app, environment, children, campaign, probe_runner, prober)?;
    loop {
        tokio::select! {
            // A stop order comes before anything new starts.
            biased;
            signal = stop_signals.next() => supervisor.request_stop(signal),
            stop = next_stop(supervisor.work.as_mut().map(|work| &mut work.stops)) => supervisor.stop(stop),
            result = start_result(&mut supervisor.starting) => supervisor.finish_start(result)?,
            _ = child_signals.recv() => supervisor.reap()?,
            () = starts.start_ended() => supervisor.reap()?,
            signal = forwarded.next() => supervisor.forward(signal),
            () = hook_end(&mut supervisor.pre_stop) => supervisor.send_stop_signal(),
            change = supervisor.probe_runner.next_change() => supervisor.apply_app_change(change),
            guard = supervisor.campaign.lead() => match guard {
                Some(guard) => supervisor.start(guard),
                None => {
                    supervisor.finish_message(message);
                    return Ok(ExitCode::from(supervisor.exit.code));
                }
            },
            Some(holder) = holders.next() => supervisor.log_holder(&holder),
        }
    }
}

fn write_message(path: &Path, campaign: &Builder) -> Option<TerminationMessage> {
    let written = TerminationMessage::write_incarnation(path, campaign.holder_incarnation()?);
    let warn = |error: &io::Error| {
        warn!(
            "cannot write the termination message {}: {error}; if this container is killed while it leads, its lease must expire",
            path.display()
        );
    };
    written.inspect_err(warn).ok()
}

/// Waits for the result of the start in progress; forever if there is none. Cancel safe.
async fn start_result(starting: &mut Option<oneshot::Receiver<io::Result<()>>>) -> io::Result<()> {
    match starting {
        Some(start) => {
            let result = start.await;
            *starting = None;
            result.map_err(io::Error::other)?
        }
        None => std::future::pending().await,
    }
}

/// Waits for the end of the hook in progress; forever if there is none.
async fn hook_end(hook: &mut Option<futures::future::BoxFuture<'static, ()>>) {
    match hook {
        Some(work) => {
            work.await;
            *hook = None;
        }
        None => std::future::pending().await,
    }
}
