//! The command's life under the election's orders.

use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use rustix::process::Signal;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::app::AppSpec;
use super::app::health::{News, ProbeRunner};
use super::app::probe::Prober;
use super::app::signal::name_of;
use super::children::{Children, Exit, Reaped};
use super::heard::{Stops, say_holder};
use super::killer::{ADVICE, Killer};
use super::message::TerminationMessage;
use crate::campaign::{Builder, Campaign, LeaderGuard, Stop, Term};
use crate::election::{Loss, Moment};
use crate::protocol::environment;
use crate::runtime::clock::{Clock, SystemClock};

/// What is kept of the grace for the release of the Lease, at most: the kubelet counts the same grace.
const FOR_RELEASE: Duration = Duration::from_millis(500);
/// What is kept of the grace for the command when a preStop hook does not end.
const AFTER_HOOK: Duration = Duration::from_secs(2);
/// How long the command's start may still take once it is to end, at most: there is nothing yet that could end in good order.
const LONGEST_START: Duration = Duration::from_secs(2);

/// What the command is told of its election.
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

    fn during(&self, term: &Term) -> [(&'static str, String); 5] {
        [
            (environment::LEADER, "true".to_owned()),
            (environment::FENCING_TOKEN, term.token().to_owned()),
            (environment::LEASE_NAME, self.lease_name.clone()),
            (environment::POD_NAME, self.pod_name.clone()),
            (environment::POD_NAMESPACE, self.namespace.clone()),
        ]
    }
}

/// A term during which something of the command runs.
pub(super) struct Work {
    guard: LeaderGuard,
    pub(super) stops: Stops,
    /// When the command's end was asked for.
    stopping: Option<Moment>,
}

pub(super) struct Supervisor {
    command: Vec<OsString>,
    app: Arc<AppSpec>,
    environment: Environment,
    prober: Prober,
    pub(super) children: Children,
    killer: Killer,
    clock: SystemClock,
    pub(super) campaign: Arc<Campaign>,
    pub(super) attendant: ProbeRunner,
    pub(super) work: Option<Work>,
    /// The start of the command that is under way.
    pub(super) starting: Option<oneshot::Receiver<io::Result<()>>>,
    /// The preStop hook that is under way.
    pub(super) pre_stop: Option<BoxFuture<'static, ()>>,
    pub(super) exit: Exit,
    /// What this process was asked to end with.
    asked: Option<Signal>,
    /// Why the command did not come up, and how long its stop may take.
    failure: Option<(String, Duration)>,
}

impl Supervisor {
    pub(super) fn new(
        command: Vec<OsString>,
        app: Arc<AppSpec>,
        environment: Environment,
        children: Children,
        campaign: Arc<Campaign>,
        attendant: ProbeRunner,
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
            attendant,
            work: None,
            starting: None,
            pre_stop: None,
            exit: Exit { code: 0 },
            asked: None,
            failure: None,
        })
    }

    pub(super) fn say_holder(&self, holder: &str) {
        say_holder(holder, &self.environment.pod_name);
    }

    /// This process was asked to end.
    pub(super) fn asked(&mut self, signal: Signal) {
        info!("{}: leaving the election", name_of(signal));
        self.asked = Some(signal);
        self.campaign.leave();
    }

    /// Leaves behind what the kubelet is to report. A Lease that could not be released is left with its proof.
    pub(super) fn settle(&mut self, message: Option<TerminationMessage>) {
        let Some(message) = message else { return };
        let holds = self.campaign.watch().borrow().holder.as_deref() == Some(&self.environment.pod_name);
        let written = match (self.failure.take(), holds) {
            (Some((why, _)), false) => message.replace(&why),
            (Some((why, _)), true) => message.add(&why),
            (None, false) => message.take_back(),
            (None, true) => Ok(()),
        };
        if let Err(error) = written {
            warn!("cannot bring the termination message up to date: {error}");
        }
    }

    pub(super) fn start(&mut self, guard: LeaderGuard) {
        // Much may have happened since it was handed out.
        if self.asked.is_some() || guard.stops().borrow().is_some() || !guard.is_valid() {
            return guard.end();
        }
        self.exit = Exit { code: 0 };
        // Before it can start: what is long in starting is stopped as well.
        self.killer.begin(&guard);
        self.starting = Some(self.children.start(&self.command, &self.environment.during(&guard)));
        self.work = Some(Work { stops: Stops::of(&guard), guard, stopping: None });
    }

    /// The start that was under way has succeeded or failed.
    pub(super) fn started(&mut self, result: io::Result<()>) -> io::Result<()> {
        let name = self.command.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
        if let Err(error) = result {
            self.not_started(&name, &error);
            return Ok(());
        }
        // It may have ended already; while it was being started nobody could know.
        self.reap()?;
        let Some(Work { guard, stopping, .. }) = &self.work else { return Ok(()) };
        info!("leading with fencing token {}: started {name}", guard.token());
        let stop = *guard.stops().borrow();
        match (stopping, stop) {
            (Some(since), Some(Stop { loss: Loss::LeaseDeleted | Loss::Requested, .. })) => {
                // From now on it has its whole time to end in good order.
                self.killer.begin(guard);
                self.stop_in_good_order(*since, self.now());
            }
            (Some(_), _) => self.tell_to_stop(),
            (None, _) => self.attendant.started(),
        }
        Ok(())
    }

    fn not_started(&mut self, name: &str, error: &io::Error) {
        // As a shell has it.
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

    /// What the app's probes and hooks brought.
    pub(super) fn hear(&mut self, news: News) {
        let Some(work) = &self.work else { return };
        match news {
            News::Ready(ready) => {
                if work.stopping.is_none() {
                    info!("the command is {}", if ready { "ready" } else { "not ready" });
                }
                work.guard.show_ready(ready);
            }
            News::Failed { why, grace } => {
                error!("{why}: stopping the command and leaving the election");
                self.exit = Exit { code: 1 };
                self.failure = Some((why, grace));
                self.campaign.leave();
            }
        }
    }

    /// What is to be killed later is the killer's, who heard of it as well.
    pub(super) fn stop(&mut self, Stop { loss, kill_at }: Stop) {
        let now = self.now();
        let Some(work) = &mut self.work else { return };
        let first = work.stopping.is_none();
        work.stopping.get_or_insert(now);
        self.attendant.stopping();
        match loss {
            Loss::LeaseDeleted | Loss::Requested if first => {
                if loss == Loss::LeaseDeleted {
                    warn!("the lease was deleted: stopping the command in good order");
                }
                if self.starting.is_some() {
                    let limit = LONGEST_START.min(self.grace());
                    self.killer.kill_at(now + limit);
                    info!(
                        "giving leadership up: the command is being started, and has {} s for that",
                        limit.as_secs_f64()
                    );
                } else {
                    self.stop_in_good_order(now, now);
                }
            }
            // The stop is under way.
            Loss::LeaseDeleted | Loss::Requested => {}
            Loss::DeadlinePassed => {
                warn!("no renewal within the renew deadline: stopping the command");
                self.pre_stop = None;
                if kill_at.is_none_or(|at| at > now) {
                    self.tell_to_stop();
                }
            }
            Loss::Deposed => {
                warn!("the lease is no longer held by this process: killing the command");
                self.pre_stop = None;
            }
        }
    }

    /// How long the command may take to end, hook included, when that is asked for.
    fn grace(&self) -> Duration {
        let grace = self.failure.as_ref().map_or_else(|| self.app.grace(), |(_, grace)| *grace);
        grace.saturating_sub(FOR_RELEASE.min(grace / 10))
    }

    /// The preStop hook, then the signal; all of it within the grace, which has begun at `since`.
    fn stop_in_good_order(&mut self, since: Moment, now: Moment) {
        let end = since + self.grace();
        let grace = end.since(now);
        self.killer.kill_at(end);
        info!("giving leadership up: the command has {} s to end", grace.as_secs_f64());
        let Some(hook) = self.app.pre_stop() else { return self.tell_to_stop() };
        let (prober, work) = (self.prober.clone(), self.prober.hook(hook));
        let limit = grace.saturating_sub(AFTER_HOOK.min(grace / 2));
        self.pre_stop = Some(Box::pin(async move {
            match prober.within(limit, work).await {
                Some(Ok(())) => {}
                Some(Err(why)) => warn!("the preStop hook failed: {why}"),
                None => {
                    warn!("the preStop hook was given up after {} s: the grace is nearly over", limit.as_secs_f64())
                }
            }
        }));
    }

    /// Sends the stop signal.
    pub(super) fn tell_to_stop(&mut self) {
        let theirs = self.asked.filter(|asked| [Signal::INT, Signal::QUIT].contains(asked));
        let signal = self.app.stop_signal().or(theirs).unwrap_or(Signal::TERM);
        info!("sending {} to the command", name_of(signal));
        if let Err(error) = self.children.signal(signal) {
            // It would work on until its time is over, and never know.
            error!("cannot send {} to the command: {error}; {ADVICE}", name_of(signal));
            self.killer.kill_at(self.now());
        }
    }

    /// A signal that this process got for the command.
    pub(super) fn pass_on(&self, signal: Signal) {
        if let Err(error) = self.children.signal(signal) {
            warn!("cannot pass {} on to the command: {error}; {ADVICE}", name_of(signal));
        }
    }

    fn now(&self) -> Moment {
        Moment::since_boot(self.clock.since_boot())
    }

    pub(super) fn reap(&mut self) -> io::Result<()> {
        let reaped = self.children.reap()?;
        if self.work.is_none() {
            return Ok(());
        }
        match reaped {
            Reaped::Running { command_ended: false } => {}
            // The command itself is gone; what it left behind would work on without a leader.
            Reaped::Running { command_ended: true } => {
                self.attendant.stopping();
                self.pre_stop = None;
                self.killer.kill_at(self.now());
            }
            Reaped::AllGone => {
                let Some(Work { guard, stopping, .. }) = self.work.take() else { return Ok(()) };
                self.attendant.ended();
                self.pre_stop = None;
                self.killer.done();
                let exit = self.children.take_exit();
                // What did not come up may have ended before it was stopped: that is still the reason.
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
