//! Runs a command only while this process leads.
//!
//! # Guarantees
//! - The command starts after the Lease was acquired.
//! - When leadership is lost it gets SIGTERM, and SIGKILL at the end of the stop grace at the latest: before any other
//!   candidate may lead. When another holder shows, it gets SIGKILL at once.
//! - The Lease is released only after the kernel said that nothing of the command's process tree is left. If that never
//!   comes (a process stuck in the kernel), the Lease is left to expire.
//! - Where it is told the container's termination message, it leaves its incarnation there before it takes part, so that the
//!   kubelet's report of a container that was killed as a whole proves the leader's death. After an end in good order it takes
//!   that back.
//!
//! # Caveats
//! Work that the command handed to something outside of its process tree is not stopped. Where the candidate is not
//! PID 1 of a container and is itself killed with SIGKILL, the command dies with it, but what the command started may not.
//! Where the candidate alone is frozen (SIGSTOP to this one process, not to its container), nobody stops its command: that works
//! on beside the next leader until the candidate wakes. A frozen container or machine freezes both.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::children::{Children, Exit, Reaped};
use super::message::TerminationMessage;
use crate::campaign::{Builder, Campaign, LeaderGuard, StartError, Stop, Term};
use crate::election::{Loss, Moment};
use crate::runtime::clock::{Clock, SystemClock, sleep_until};
use crate::runtime::shutdown::Shutdown;

/// The time between two rounds of SIGKILL while something is left.
const KILL_AGAIN: Duration = Duration::from_millis(50);

/// Why the command could not be run under an election.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The campaign cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The kernel refused what is needed to know when the command is gone.
    #[error("cannot watch over child processes: {0}")]
    Children(#[from] io::Error),
}

/// Takes part in `campaign` and runs `command` while leading. Returns when the command has ended by itself, or after
/// SIGTERM or SIGINT when it was stopped. The exit code is that of a command that ended by itself, 128 + signal if a
/// signal ended it; 127 if it could not be started; 0 after a stop that was asked for. `termination_message` is the file that
/// the kubelet reads when the container has ended; only what runs in a pod may name one.
///
/// # Errors
/// [`ExecError`]. Where it comes in mid-term the Lease is left to expire, since nobody knows what still runs.
pub async fn exec(
    config: &kube::Config,
    campaign: Builder,
    command: Vec<OsString>,
    termination_message: Option<&Path>,
    mut shutdown: Shutdown,
) -> Result<ExitCode, ExecError> {
    let mut child_signals = signal(SignalKind::child())?;
    let children = Children::adopt_orphans()?;
    let clock = SystemClock;
    let environment = Environment::of(&campaign);
    // Before anything can be led: a leader without it could die unproved.
    let message = termination_message.and_then(|path| leave_message(path, &campaign));
    let campaign = campaign.start(config)?;
    let mut holders = campaign.holders();
    let mut supervisor =
        Supervisor { command, environment, children, campaign, kill_at: None, work: None, exit: Exit { code: 0 } };
    loop {
        tokio::select! {
            // An order to stop counts before anything else is begun.
            biased;
            signal = shutdown.requested() => {
                info!("{signal}: leaving the election");
                supervisor.campaign.leave();
            }
            stop = told_to_stop(&mut supervisor.work) => supervisor.stop(stop, &clock),
            _ = child_signals.recv() => supervisor.reap(&clock)?,
            () = sleep_until(&clock, supervisor.kill_at.map(Moment::elapsed_since_boot)) => supervisor.kill(&clock)?,
            guard = supervisor.campaign.lead() => match guard {
                Some(guard) => supervisor.start(guard),
                None => {
                    supervisor.take_back(message);
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

/// The next order to end the work, whether the first or one with an earlier end.
async fn told_to_stop(work: &mut Option<Work>) -> Stop {
    if let Some(work) = work {
        while work.stops.changed().await.is_ok() {
            if let Some(stop) = *work.stops.borrow_and_update() {
                return stop;
            }
        }
    }
    std::future::pending().await
}

/// What the command is told of its election.
struct Environment {
    lease_name: String,
    pod_name: String,
    namespace: String,
}

impl Environment {
    fn of(campaign: &Builder) -> Self {
        Self {
            lease_name: campaign.lease().name.clone(),
            pod_name: campaign.holder_identity().to_owned(),
            namespace: campaign.lease().namespace.clone(),
        }
    }

    fn during(&self, term: &Term) -> [(&'static str, String); 5] {
        [
            ("K8SENSUS_LEADER", "true".to_owned()),
            ("K8SENSUS_FENCING_TOKEN", term.token().to_owned()),
            ("K8SENSUS_LEASE_NAME", self.lease_name.clone()),
            ("POD_NAME", self.pod_name.clone()),
            ("POD_NAMESPACE", self.namespace.clone()),
        ]
    }
}

/// A term during which something of the command runs.
struct Work {
    guard: LeaderGuard,
    stops: watch::Receiver<Option<Stop>>,
    /// The command's end was asked for.
    stopping: bool,
}

/// The command's life under the election's orders.
struct Supervisor {
    command: Vec<OsString>,
    environment: Environment,
    children: Children,
    campaign: Campaign,
    kill_at: Option<Moment>,
    work: Option<Work>,
    exit: Exit,
}

impl Supervisor {
    fn say_holder(&self, holder: &str) {
        match holder {
            "" => info!("no leader"),
            holder if holder == self.environment.pod_name => {}
            holder => info!("leader is {holder}"),
        }
    }

    /// A Lease that could not be released is left with its proof.
    fn take_back(&self, message: Option<TerminationMessage>) {
        let holds = self.campaign.watch().borrow().holder.as_deref() == Some(&self.environment.pod_name);
        if let Some(message) = message.filter(|_| !holds)
            && let Err(error) = message.take_back()
        {
            warn!("cannot take the termination message back: {error}");
        }
    }

    fn start(&mut self, guard: LeaderGuard) {
        let name = self.command.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
        // Much may have happened since it was handed out.
        if !guard.is_valid() {
            return guard.end();
        }
        self.exit = Exit { code: 0 };
        match self.children.start(&self.command, &self.environment.during(&guard)) {
            Ok(()) => {
                info!("leading with fencing token {}: started {name}", guard.token());
                let mut stops = guard.stops();
                stops.mark_changed();
                self.work = Some(Work { guard, stops, stopping: false });
            }
            Err(error) => {
                self.exit = Exit { code: 127 };
                self.campaign.leave();
                guard.end();
                error!("cannot start {name}: {error}; releasing the lease (check command and the image's file system)");
            }
        }
    }

    fn stop(&mut self, Stop { loss, kill_at }: Stop, clock: &dyn Clock) {
        let Some(work) = &mut self.work else { return };
        work.stopping = true;
        if kill_at.is_none_or(|at| at > Moment::since_boot(clock.since_boot())) {
            self.children.terminate();
        }
        self.kill_at = [self.kill_at, kill_at].into_iter().flatten().min();
        match loss {
            Loss::Requested => info!("giving leadership up: the command was sent SIGTERM"),
            Loss::DeadlinePassed => warn!("no renewal within the renew deadline: stopping the command"),
            Loss::Deposed => warn!("the lease is no longer held by this process: killing the command"),
        }
    }

    fn kill(&mut self, clock: &dyn Clock) -> io::Result<()> {
        self.children.kill_all()?;
        self.kill_at = Some(Moment::since_boot(clock.since_boot()) + KILL_AGAIN);
        self.reap(clock)
    }

    fn reap(&mut self, clock: &dyn Clock) -> io::Result<()> {
        let reaped = self.children.reap()?;
        if self.work.is_none() {
            return Ok(());
        }
        match reaped {
            Reaped::Running { command_ended: false } => {}
            // The command itself is gone; what it left behind would work on without a leader.
            Reaped::Running { command_ended: true } => {
                self.children.kill_all()?;
                self.kill_at = Some(Moment::since_boot(clock.since_boot()) + KILL_AGAIN);
            }
            Reaped::AllGone => {
                let Some(Work { guard, stopping, .. }) = self.work.take() else { return Ok(()) };
                self.kill_at = None;
                let exit = self.children.take_exit();
                if !stopping {
                    self.campaign.leave();
                    self.exit = exit.unwrap_or(self.exit);
                    info!("the command ended by itself with code {}: leaving the election", self.exit.code);
                }
                guard.end();
            }
        }
        Ok(())
    }
}
