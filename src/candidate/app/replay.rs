//! What is due after the start of an app, and how probes are answered meanwhile: a pure state machine.
//!
//! # Guarantees
//! - In this order: postStart, then the startup probe, then the readiness probe. Each begins only after the one before it
//!   passed, and no earlier than its initial delay after the app's start.
//! - One thing at a time is under way.
//! - Where no app runs, both probes pass: a standby stands by. From the order to stop on liveness passes, so that nobody cuts the
//!   app's own end short, and readiness does not.

use std::sync::Arc;
use std::time::Duration;

use super::spec::{AppSpec, Probe};
use crate::election::Moment;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The app was started.
    Started,
    /// The postStart hook has ended.
    PostStart(Result<(), String>),
    /// The probe that was asked for has been answered.
    Probed(Result<(), String>),
    /// The probe that was asked for could not be run, and why. It counts neither as a failure nor as a success, as to the
    /// kubelet.
    NotProbed(String),
    /// The app was told to stop.
    Stopping,
    /// Nothing of the app is left.
    Ended,
    /// Time has passed. Harmless at any time.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Run the postStart hook, then report [`Event::PostStart`].
    PostStart,
    /// Run this probe once, then report [`Event::Probed`].
    Probe(Kind),
    /// Tell the others whether the app is ready. Said only when it changes; at the start it is not.
    Ready(bool),
    /// The app did not come up: stop it, within `grace`, and give up.
    Fail {
        /// What went wrong.
        why: String,
        /// How long the stop may take.
        grace: Duration,
    },
}

/// The probes that are run without being asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Until it passed once.
    Startup,
    /// As long as the app runs.
    Readiness,
}

/// What a liveness probe is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It passes, and why.
    Passes(&'static str),
    /// As the app itself answers.
    AskApp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing runs.
    Standby,
    /// The postStart hook is under way.
    Hook,
    /// The startup probe has not passed yet.
    Startup,
    /// The app is up.
    Serving,
    /// The app was told to stop.
    Stopping,
}

/// One app's life, over and over.
#[derive(Clone, Debug)]
pub struct Replay {
    spec: Arc<AppSpec>,
    stage: Stage,
    started: Moment,
    /// When the present probe is to be run next, `None` while it is under way or there is none.
    due: Option<Moment>,
    /// When it was last begun.
    sent: Moment,
    /// The last results in a row that were alike, and which.
    row: (bool, u32),
    ready: bool,
    /// Why it is not ready.
    problem: String,
}

impl Replay {
    /// Nothing runs yet.
    pub fn new(spec: Arc<AppSpec>) -> Self {
        let never = Moment::since_boot(Duration::ZERO);
        Self {
            spec,
            stage: Stage::Standby,
            started: never,
            due: None,
            sent: never,
            row: (false, 0),
            ready: false,
            problem: String::new(),
        }
    }

    /// Takes an event in at `now`; says what is to be done, in this order. An event that does not fit (the late answer of a probe)
    /// changes nothing.
    pub fn step(&mut self, now: Moment, event: Event) -> Vec<Order> {
        let mut orders = Vec::new();
        match (self.stage, event) {
            (Stage::Standby, Event::Started) => self.start(now, &mut orders),
            (Stage::Hook, Event::PostStart(Ok(()))) => self.begin_startup(now, &mut orders),
            (Stage::Hook, Event::PostStart(Err(why))) => {
                self.fail(format!("the postStart hook failed: {why}"), self.spec.grace(), &mut orders);
            }
            (Stage::Startup | Stage::Serving, Event::Probed(result)) if self.due.is_none() => {
                self.probed(now, result, &mut orders);
            }
            (Stage::Startup | Stage::Serving, Event::NotProbed(why)) if self.due.is_none() => self.not_probed(now, why),
            (Stage::Hook | Stage::Startup | Stage::Serving, Event::Stopping) => self.go(Stage::Stopping, &mut orders),
            (_, Event::Ended) => self.go(Stage::Standby, &mut orders),
            _ => {}
        }
        if self.due.is_some_and(|due| now >= due) {
            self.due = None;
            self.sent = now;
            let kind = if self.stage == Stage::Startup { Kind::Startup } else { Kind::Readiness };
            orders.push(Order::Probe(kind));
        }
        orders
    }

    /// When [`Event::Tick`] is wanted, if at all.
    pub fn next_wake(&self) -> Option<Moment> {
        self.due
    }

    /// The answer to a liveness probe.
    pub fn liveness(&self, now: Moment) -> Liveness {
        match self.stage {
            Stage::Standby => Liveness::Passes("standing by"),
            Stage::Hook | Stage::Startup => Liveness::Passes("starting"),
            Stage::Stopping => Liveness::Passes("stopping"),
            Stage::Serving => match &self.spec.liveness_probe {
                None => Liveness::Passes("running"),
                Some(probe) if now < self.started + probe.initial_delay() => Liveness::Passes("in its initial delay"),
                Some(_) => Liveness::AskApp,
            },
        }
    }

    /// The answer to a readiness probe: why it passes, or why it does not.
    pub fn readiness(&self) -> Result<&str, &str> {
        match self.stage {
            Stage::Standby => Ok("standing by"),
            Stage::Hook => Err("starting: the postStart hook has not ended"),
            Stage::Serving if self.ready => Ok("ready"),
            Stage::Startup | Stage::Serving => Err(&self.problem),
            Stage::Stopping => Err("stopping"),
        }
    }

    fn start(&mut self, now: Moment, orders: &mut Vec<Order>) {
        self.started = now;
        if self.spec.post_start().is_some() {
            self.stage = Stage::Hook;
            orders.push(Order::PostStart);
        } else {
            self.begin_startup(now, orders);
        }
    }

    fn begin_startup(&mut self, now: Moment, orders: &mut Vec<Order>) {
        match self.spec.startup_probe.as_ref().map(Probe::initial_delay) {
            Some(delay) => {
                self.await_probe(Stage::Startup, delay, now, "starting: the startup probe has not passed yet")
            }
            None => self.begin_serving(now, orders),
        }
    }

    fn begin_serving(&mut self, now: Moment, orders: &mut Vec<Order>) {
        match self.spec.readiness_probe.as_ref().map(Probe::initial_delay) {
            Some(delay) => self.await_probe(Stage::Serving, delay, now, "the readiness probe has not passed yet"),
            None => {
                self.stage = Stage::Serving;
                self.due = None;
                self.show(true, orders);
            }
        }
    }

    fn await_probe(&mut self, stage: Stage, delay: Duration, now: Moment, problem: &str) {
        self.stage = stage;
        self.row = (false, 0);
        problem.clone_into(&mut self.problem);
        self.due = Some(now.max(self.started + delay));
    }

    /// What is run at this stage, and its name.
    fn probe<'a>(&self, spec: &'a AppSpec) -> Option<(&'a Probe, &'static str)> {
        match self.stage {
            Stage::Startup => Some((spec.startup_probe.as_ref()?, "startup")),
            _ => Some((spec.readiness_probe.as_ref()?, "readiness")),
        }
    }

    fn not_probed(&mut self, now: Moment, why: String) {
        let spec = self.spec.clone();
        let Some((probe, name)) = self.probe(&spec) else { return };
        self.due = Some(now.max(self.sent + probe.period()));
        if !self.ready {
            self.problem = format!("the {name} probe says nothing: {why}");
        }
    }

    fn probed(&mut self, now: Moment, result: Result<(), String>, orders: &mut Vec<Order>) {
        let startup = self.stage == Stage::Startup;
        let spec = self.spec.clone();
        let Some((probe, name)) = self.probe(&spec) else { return };
        let passed = result.is_ok();
        self.row = (passed, if self.row.0 == passed { self.row.1.saturating_add(1) } else { 1 });
        self.due = Some(now.max(self.sent + probe.period()));
        if let Err(why) = result {
            self.problem = format!("the {name} probe failed: {why}");
        }
        match (startup, passed) {
            (true, true) if self.row.1 >= probe.success_threshold() => self.begin_serving(now, orders),
            (true, false) if self.row.1 >= probe.failure_threshold() => {
                let why = format!("{} (the last of {} tries in a row)", self.problem, self.row.1);
                self.fail(why, probe.grace().unwrap_or_else(|| spec.grace()), orders);
            }
            (false, true) if self.row.1 >= probe.success_threshold() => self.show(true, orders),
            (false, false) if self.row.1 >= probe.failure_threshold() => self.show(false, orders),
            _ => {}
        }
    }

    fn fail(&mut self, why: String, grace: Duration, orders: &mut Vec<Order>) {
        self.go(Stage::Stopping, orders);
        orders.push(Order::Fail { why, grace });
    }

    /// The app is not, or not any more.
    fn go(&mut self, stage: Stage, orders: &mut Vec<Order>) {
        self.stage = stage;
        self.due = None;
        self.show(false, orders);
    }

    fn show(&mut self, ready: bool, orders: &mut Vec<Order>) {
        if self.ready != ready {
            self.ready = ready;
            orders.push(Order::Ready(ready));
        }
    }
}
