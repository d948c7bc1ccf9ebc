//! The kubelet's handling of probes and hooks, replayed for the app: a pure state machine.
//!
//! # Guarantees
//! - In this order: postStart, then the startup probe, then the readiness probe. Each begins only after the previous
//!   one has passed, and no earlier than its initial delay after the app's start.
//! - Only one of them runs at a time.
//! - Where no app runs, both of the kubelet's probes pass: the candidate is a standby. After a stop order liveness
//!   passes, so that the kubelet does not cut the app's own end short, and readiness fails.

use std::sync::Arc;
use std::time::Duration;

use super::spec::{AppSpec, Probe};
use crate::election::Moment;

/// An event in the life of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The app was started.
    Started,
    /// The postStart hook has ended.
    PostStart(Result<(), String>),
    /// The requested probe has a result.
    Probed(Result<(), String>),
    /// The requested probe could not be run, with the reason. It counts neither as a failure nor as a success, as in
    /// the kubelet.
    NotProbed(String),
    /// The app was ordered to stop.
    Stopping,
    /// Nothing of the app is left.
    Ended,
    /// Time has passed. Harmless at any time.
    Tick,
}

/// An order to the [`ProbeRunner`](super::health::ProbeRunner).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Run the postStart hook, then report [`Event::PostStart`].
    PostStart,
    /// Run this probe once, then report [`Event::Probed`].
    Probe(Kind),
    /// Report whether the app is ready. Given only when that changes; at the start it is not ready.
    Ready(bool),
    /// The app did not come up: stop it within `grace`, and leave the election.
    Fail {
        /// What went wrong.
        why: String,
        /// How long the stop may take.
        grace: Duration,
    },
}

/// A probe that runs without a request of the kubelet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Runs until it has passed once.
    Startup,
    /// Runs as long as the app does.
    Readiness,
}

/// The answer to a liveness probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It passes, with the reason.
    Passes(&'static str),
    /// It has the result of the app's own probe.
    AskApp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing runs.
    Standby,
    /// The postStart hook runs.
    Hook,
    /// The startup probe has not passed yet.
    Startup,
    /// The app is up.
    Serving,
    /// The app was ordered to stop.
    Stopping,
}

/// The state of one app, through any number of starts.
#[derive(Clone, Debug)]
pub struct Replay {
    spec: Arc<AppSpec>,
    stage: Stage,
    started: Moment,
    /// When the current probe is due next; `None` while it runs or there is none.
    due: Option<Moment>,
    /// When it last started.
    sent: Moment,
    /// The latest result, and how many equal results came in a row.
    streak: (bool, u32),
    ready: bool,
    /// The reason why it is not ready.
    problem: String,
}

impl Replay {
    /// Creates the state before the first start.
    pub fn new(spec: Arc<AppSpec>) -> Self {
        let never = Moment::since_boot(Duration::ZERO);
        Self {
            spec,
            stage: Stage::Standby,
            started: never,
            due: None,
            sent: never,
            streak: (false, 0),
            ready: false,
            problem: String::new(),
        }
    }

    /// Applies an event at `now` and returns the orders that follow, in this order. An event that does not fit the
    /// state (the late result of a probe) changes nothing.
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
            (Stage::Hook | Stage::Startup | Stage::Serving, Event::Stopping) => {
                self.enter(Stage::Stopping, &mut orders)
            }
            (_, Event::Ended) => self.enter(Stage::Standby, &mut orders),
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

    /// Returns when [`Event::Tick`] is due, if at all.
    pub fn next_wake(&self) -> Option<Moment> {
        self.due
    }

    /// Returns the answer to a liveness probe.
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

    /// Returns the answer to a readiness probe: the reason why it passes or fails.
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
                self.set_ready(true, orders);
            }
        }
    }

    fn await_probe(&mut self, stage: Stage, delay: Duration, now: Moment, problem: &str) {
        self.stage = stage;
        self.streak = (false, 0);
        problem.clone_into(&mut self.problem);
        self.due = Some(now.max(self.started + delay));
    }

    /// Returns the probe of this stage, with its name.
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
            self.problem = format!("the {name} probe could not be run: {why}");
        }
    }

    fn probed(&mut self, now: Moment, result: Result<(), String>, orders: &mut Vec<Order>) {
        let startup = self.stage == Stage::Startup;
        let spec = self.spec.clone();
        let Some((probe, name)) = self.probe(&spec) else { return };
        let passed = result.is_ok();
        self.streak = (passed, if self.streak.0 == passed { self.streak.1.saturating_add(1) } else { 1 });
        self.due = Some(now.max(self.sent + probe.period()));
        if let Err(why) = result {
            self.problem = format!("the {name} probe failed: {why}");
        }
        match (startup, passed) {
            (true, true) if self.streak.1 >= probe.success_threshold() => self.begin_serving(now, orders),
            (true, false) if self.streak.1 >= probe.failure_threshold() => {
                let why = format!("{} (the last of {} tries in a row)", self.problem, self.streak.1);
                self.fail(why, probe.grace().unwrap_or_else(|| spec.grace()), orders);
            }
            (false, true) if self.streak.1 >= probe.success_threshold() => self.set_ready(true, orders),
            (false, false) if self.streak.1 >= probe.failure_threshold() => self.set_ready(false, orders),
            _ => {}
        }
    }

    fn fail(&mut self, why: String, grace: Duration, orders: &mut Vec<Order>) {
        self.enter(Stage::Stopping, orders);
        orders.push(Order::Fail { why, grace });
    }

    /// Enters a stage in which the app does not serve.
    fn enter(&mut self, stage: Stage, orders: &mut Vec<Order>) {
        self.stage = stage;
        self.due = None;
        self.set_ready(false, orders);
    }

    fn set_ready(&mut self, ready: bool, orders: &mut Vec<Order>) {
        if self.ready != ready {
            self.ready = ready;
            orders.push(Order::Ready(ready));
        }
    }
}
