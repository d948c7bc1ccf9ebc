//! The life of the command, as the election's stop orders and its own probes and hooks determine it.

use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use rustix::process::Signal;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::app::AppSpec;
use super::app::health::{AppChange, ProbeRunner};
use super::app::probe::Prober;
use super::app::signal::name_of;
use super::children::{Children, Exit, Reaped};
use super::killer::{ADVICE, Killer};
use super::message::TerminationMessage;
use super::stops::{StopOrders, log_holder};
use crate::campaign::{Builder, Campaign, LeaderGuard, Stop, Term};
use crate::election::{Loss, Moment};
use crate::protocol::environment;
use crate::runtime::clock::{Clock, SystemClock};

/// The part of the grace that is reserved for the release of the Lease, at most: the kubelet counts the same grace.
const RELEASE_RESERVE: Duration = Duration::from_millis(500);
/// The part of the grace that is reserved for the command when a preStop hook does not end.
const AFTER_HOOK_RESERVE: Duration = Duration::from_secs(2);
/// How long a start may still take after a stop was requested, at most: a command that has not started cannot end in
/// order.
const LONGEST_START: Duration = Duration::from_secs(2);

/// The environment that describes the election to the command.
pub(super) struct Environment {
    lease_name: String,
    pod_name: String,
    namespace: String,
}

impl Environment {
    pub(super) fn of(campaign: &Builder) -> Self {
        Self {
            lease_name: campaign.lease().name.clone(),
            pod_name: campaign.holder_identity().to_owned(),
            namespace: campaign.lease().namespace.clone(),
        }
    }

    fn for_term(&self, term: &Term) -> [(&'static str, String); 5] {
        [
            (environment::LEADER, "true".to_owned()),
            (environment::FENCING_TOKEN, term.token().to_owned()),
            (environment::LEASE_NAME, self.lease_name.clone()),
            (environment::POD_NAME, self.pod_name.clone()),
            (environment::POD_NAMESPACE, self.namespace.clone()),
        ]
    }
}

/// A term during which the command, or something it started, runs.
pub(super) struct Work {
    guard: LeaderGuard,
    pub(super) stops: StopOrders,
    /// When the command's end was first requested.
    stopping: Option<Moment>,
}

/// The command, its probes and hooks, and the term in which they run.
pub(super) struct Supervisor {
    command: Vec<OsString>,
    app: Arc<AppSpec>,
    environment: Environment,
    prober: Prober,
    pub(super) children: Children,
    killer: Killer,
    clock: SystemClock,
    pub(super) campaign: Arc<Campaign>,
    pub(super) probe_runner: ProbeRunner,
    pub(super) work: Option<Work>,
    /// The start of the command in progress.
    pub(super) starting: Option<oneshot::Receiver<io::Result<()>>>,
    /// The preStop hook in progress.
    pub(super) pre_stop: Option<BoxFuture<'static, ()>>,
    pub(super) exit: Exit,
    /// The signal that requested the end of this process.
    stop_request: Option<Signal>,
    /// The reason why the command did not come up, and how long its stop may take.
    failure: Option<(String, Duration)>,
}

impl Supervisor {
    pub(super) fn new(
        command: Vec<OsString>,
        app: Arc<AppSpec>,
        environment: Environment,
        children: Children,
        campaign: Arc<Campaign>,
        probe_runner: ProbeRunner,
        prober: Prober,
    ) -> io::Result<Self> {
        let clock = SystemClock;
        Ok(Self {
            command,
            app,
            environment,
            prober,
            killer: Killer::start(children.clone(), clock)?,
            clock,
            children,
            campaign,
            probe_runner,
            work: None,
            starting: None,
            pre_stop: None,
            exit: Exit { code: 0 },
            stop_request: None,
            failure: None,
        })
    }

    pub(super) fn log_holder(&self, holder: &str) {
        log_holder(holder, &self.environment.pod_name);
    }

    /// Leaves the election because of `signal` to this process.
    pub(super) fn request_stop(&mut self, signal: Signal) {
        info!("{}: leaving the election", name_of(signal));
        self.stop_request = Some(signal);
        self.campaign.leave();
    }

    /// Writes what the kubelet has to report. If the Lease could not be released, the proof stays in the message.
    pub(super) fn finish_message(&mut self, message: Option<TerminationMessage>) {
        let Some(message) = message else { return };
        let holds = self.campaign.watch().borrow().holder.as_deref() == Some(&self.environment.pod_name);
        let written = match (self.failure.take(), holds) {
            (Some((why, _)), false) => message.replace(&why),
            (Some((why, _)), true) => message.add(&why),
            (None, false) => message.remove_incarnation(),
            (None, true) => Ok(()),
        };
        if let Err(error) = written {
            warn!("cannot update the termination message: {error}");
        }
    }

    /// Starts the command in the term of `guard`.
    pub(super) fn start(&mut self, guard: LeaderGuard) {
        // The term may have ended since the guard was handed out.
        if self.stop_request.is_some() || guard.stops().borrow().is_some() || !guard.is_valid() {
            return guard.end();
        }
        self.exit = Exit { code: 0 };
        // Before the start, since a command that is slow to start has to be killed on time as well.
        self.killer.begin(&guard);
        self.starting = Some(self.children.start(&self.command, &self.environment.for_term(&guard)));
        self.work = Some(Work { stops: StopOrders::of(&guard), guard, stopping: None });
    }

    /// Applies the result of the start in progress.
    pub(super) fn finish_start(&mut self, result: io::Result<()>) -> io::Result<()> {
        let name = self.command.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
        if let Err(error) = result {
            self.fail_start(&name, &error);
            return Ok(());
        }
        // The command may have ended already, unnoticed while its start was in progress.
        self.reap()?;
        let Some(Work { guard, stopping, .. }) = &self.work else { return Ok(()) };
        info!("leading with fencing token {}: started {name}", guard.token());
        let stop = *guard.stops().borrow();
        match (stopping, stop) {
            (Some(since), Some(Stop { loss: Loss::LeaseDeleted | Loss::Requested, .. })) => {
                // From now on it has its whole grace to end in order.
                self.killer.begin(guard);
                self.stop_with_grace(*since, self.now());
            }
            (Some(_), _) => self.send_stop_signal(),
            (None, _) => self.probe_runner.started(),
        }
        Ok(())
    }

    fn fail_start(&mut self, name: &str, error: &io::Error) {
        // The same codes as in a shell.
        self.exit = Exit { code: if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 } };
        let why = format!("cannot start {name}: {error}; check the command and the image's file system");
        error!("{why}; releasing the lease");
        self.failure = Some((why, Duration::ZERO));
        self.campaign.leave();
        self.killer.done();
        if let Some(Work { guard, .. }) = self.work.take() {
            guard.end();
        }
    }

    /// Applies a change reported by the app's probes and hooks.
    pub(super) fn apply_app_change(&mut self, change: AppChange) {
        let Some(work) = &self.work else { return };
        match change {
            AppChange::Ready(ready) => {
                if work.stopping.is_none() {
                    info!("the command is {}", if ready { "ready" } else { "not ready" });
                }
                work.guard.show_ready(ready);
            }
            AppChange::Failed { why, grace } => {
                error!("{why}: stopping the command and leaving the election");
                self.exit = Exit { code: 1 };
                self.failure = Some((why, grace));
                self.campaign.leave();
            }
        }
    }

    /// Applies a stop order. The killer gets the same order and enforces its deadline.
    pub(super) fn stop(&mut self, Stop { loss, kill_at }: Stop) {
        let now = self.now();
        let Some(work) = &mut self.work else { return };
        let first = work.stopping.is_none();
        work.stopping.get_or_insert(now);
        self.probe_runner.stopping();
        match loss {
            Loss::LeaseDeleted | Loss::Requested if first => {
                if loss == Loss::LeaseDeleted {
                    warn!("the lease was deleted: stopping the command");
                }
                if self.starting.is_some() {
                    let limit = LONGEST_START.min(self.grace());
                    self.killer.kill_at(now + limit);
                    info!("releasing leadership: the command has {} s to finish starting", limit.as_secs_f64());
                } else {
                    self.stop_with_grace(now, now);
                }
            }
            // The stop is in progress.
            Loss::LeaseDeleted | Loss::Requested => {}
            Loss::DeadlinePassed => {
                warn!("no renewal within the renew deadline: stopping the command");
                self.pre_stop = None;
                if kill_at.is_none_or(|at| at > now) {
                    self.send_stop_signal();
                }
            }
            Loss::Deposed => {
                warn!("the lease is no longer held by this process: killing the command");
                self.pre_stop = None;
            }
        }
    }

    /// Returns how long the command may take to end after a requested stop, hook included.
    fn grace(&self) -> Duration {
        let grace = self.failure.as_ref().map_or_else(|| self.app.grace(), |(_, grace)| *grace);
        grace.saturating_sub(RELEASE_RESERVE.min(grace / 10))
    }

    /// Runs the preStop hook and then sends the signal, all within the grace that started at `since`.
    fn stop_with_grace(&mut self, since: Moment, now: Moment) {
        let end = since + self.grace();
        let grace = end.since(now);
        self.killer.kill_at(end);
        info!("releasing leadership: the command has {} s to end", grace.as_secs_f64());
        let Some(hook) = self.app.pre_stop() else { return self.send_stop_signal() };
        let (prober, work) = (self.prober.clone(), self.prober.hook(hook));
        let limit = grace.saturating_sub(AFTER_HOOK_RESERVE.min(grace / 2));
        self.pre_stop = Some(Box::pin(async move {
            match prober.within(limit, work).await {
                Some(Ok(())) => {}
                Some(Err(why)) => warn!("the preStop hook failed: {why}"),
                None => {
                    warn!("the preStop hook was abandoned after {} s: the grace is nearly over", limit.as_secs_f64())
                }
            }
        }));
    }

    /// Sends the stop signal.
    pub(super) fn send_stop_signal(&mut self) {
        let requested = self.stop_request.filter(|signal| [Signal::INT, Signal::QUIT].contains(signal));
        let signal = self.app.stop_signal().or(requested).unwrap_or(Signal::TERM);
        info!("sending {} to the command", name_of(signal));
        if let Err(error) = self.children.signal(signal) {
            // Without the signal the command would work on until its grace is over, unaware of the stop.
            error!("cannot send {} to the command: {error}; {ADVICE}", name_of(signal));
            self.killer.kill_at(self.now());
        }
    }

    /// Forwards a signal of this process to the command.
    pub(super) fn forward(&self, signal: Signal) {
        if let Err(error) = self.children.signal(signal) {
            warn!("cannot forward {} to the command: {error}; {ADVICE}", name_of(signal));
        }
    }

    fn now(&self) -> Moment {
        Moment::since_boot(self.clock.since_boot())
    }

    /// Reaps ended children, and ends the term once nothing of the command is left.
    pub(super) fn reap(&mut self) -> io::Result<()> {
        let reaped = self.children.reap()?;
        if self.work.is_none() {
            return Ok(());
        }
        match reaped {
            Reaped::Running { command_ended: false } => {}
            // The command itself is gone; processes that it left behind would work on without a leader.
            Reaped::Running { command_ended: true } => {
                self.probe_runner.stopping();
                self.pre_stop = None;
                self.killer.kill_at(self.now());
            }
            Reaped::AllGone => {
                let Some(Work { guard, stopping, .. }) = self.work.take() else { return Ok(()) };
                self.probe_runner.ended();
                self.pre_stop = None;
                self.killer.done();
                let exit = self.children.take_exit();
                // A command that did not come up may have ended before it was stopped; the failure is still the reason.
                if stopping.is_none() && self.failure.is_none() {
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
