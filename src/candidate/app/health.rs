//! Runs the app's probes and hooks: [`replay`](super::replay) decides, [`probe`](super::probe) probes the app, and the
//! kubelet gets the answers.
//!
//! The kubelet probes `/app-health/liveness` and `/app-health/readiness` instead of the app. Liveness is the result of
//! the app's own probe, run on that request and shared by all concurrent requests. Readiness is the result of the
//! candidate's periodic probes, with the user's periods and thresholds.
//!
//! Every client that reaches the pod may send such requests. So the app's liveness probe runs at most twice in its
//! period, and requests in between get the last result. The kubelet alone, which probes once in a period, gets a fresh
//! result each time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, Shared};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::probe::{ProbeError, Prober};
use super::replay::{Event, Kind, Liveness, Order, Replay};
use super::spec::AppSpec;
use crate::election::Moment;
use crate::runtime::clock::{Clock, sleep_until};
use crate::serve::{AppHealth, ProbeKind};

type Answer = Shared<BoxFuture<'static, Result<String, String>>>;

/// A change of the app that its supervisor has to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppChange {
    /// The app became ready or unready.
    Ready(bool),
    /// The app did not come up: stop it within `grace`, and leave the election.
    Failed {
        /// The reason.
        why: String,
        /// How long the stop may take.
        grace: Duration,
    },
}

/// Runs the app's probes and hooks.
pub struct ProbeRunner {
    shared: Arc<State>,
    orders: VecDeque<Order>,
    in_progress: Option<BoxFuture<'static, Event>>,
}

/// The answers to the kubelet's probes.
pub struct Answers(Arc<State>);

struct State {
    spec: Arc<AppSpec>,
    prober: Prober,
    clock: Arc<dyn Clock>,
    replay: Mutex<Replay>,
    /// The last run of the liveness probe of this app, finished or not.
    liveness: Mutex<Option<LivenessRun>>,
    /// The last logged error of each probe.
    logged_errors: Mutex<[Option<ProbeError>; 3]>,
}

/// One run of the liveness probe.
struct LivenessRun {
    started: Moment,
    answer: Answer,
    task: JoinHandle<()>,
}

impl Drop for LivenessRun {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ProbeRunner {
    /// Creates the runner of an app that does not run yet.
    pub fn new(spec: Arc<AppSpec>, prober: Prober, clock: Arc<dyn Clock>) -> Self {
        let replay = Mutex::new(Replay::new(spec.clone()));
        let shared = State { spec, prober, clock, replay, liveness: Mutex::default(), logged_errors: Mutex::default() };
        Self { shared: Arc::new(shared), orders: VecDeque::new(), in_progress: None }
    }

    /// Returns the answers to the kubelet's probes.
    pub fn answers(&self) -> Answers {
        Answers(self.shared.clone())
    }

    /// Starts the hooks and probes of an app that was just started.
    pub fn started(&mut self) {
        *lock(&self.shared.logged_errors) = Default::default();
        *lock(&self.shared.liveness) = None;
        self.step(Event::Started);
    }

    /// Stops probing an app that was ordered to stop.
    pub fn stopping(&mut self) {
        self.in_progress = None;
        self.orders.retain(|order| !matches!(order, Order::PostStart | Order::Probe(_)));
        self.step(Event::Stopping);
    }

    /// Resets the state after the app has ended.
    pub fn ended(&mut self) {
        self.in_progress = None;
        self.step(Event::Ended);
        self.orders.clear();
    }

    /// Runs probes and hooks until something changes. Cancel safe.
    pub async fn next_change(&mut self) -> AppChange {
        loop {
            while let Some(order) = self.orders.pop_front() {
                match order {
                    Order::PostStart => self.in_progress = self.post_start(),
                    Order::Probe(kind) => self.in_progress = self.probe(kind),
                    Order::Ready(ready) => return AppChange::Ready(ready),
                    Order::Fail { why, grace } => return AppChange::Failed { why, grace },
                }
            }
            let event = match &mut self.in_progress {
                Some(work) => {
                    let event = work.await;
                    self.in_progress = None;
                    event
                }
                None => {
                    let wake = self.shared.replay().next_wake();
                    sleep_until(&*self.shared.clock, wake.map(Moment::elapsed_since_boot)).await;
                    Event::Tick
                }
            };
            self.step(event);
        }
    }

    fn step(&mut self, event: Event) {
        let orders = self.shared.replay().step(self.shared.now(), event);
        self.orders.extend(orders);
    }

    fn post_start(&self) -> Option<BoxFuture<'static, Event>> {
        let hook = self.shared.prober.hook(self.shared.spec.post_start()?);
        Some(hook.map(Event::PostStart).boxed())
    }

    fn probe(&self, kind: Kind) -> Option<BoxFuture<'static, Event>> {
        let shared = self.shared.clone();
        let (name, slot, probe) = match kind {
            Kind::Startup => ("startup", 0, &shared.spec.startup_probe),
            Kind::Readiness => ("readiness", 1, &shared.spec.readiness_probe),
        };
        let run = shared.prober.probe(probe.as_ref()?);
        let work = async move {
            let answer = run.await;
            shared.log_probe(name, slot, &answer);
            match answer {
                Err(ProbeError::NotRun(why)) => Event::NotProbed(why),
                answer => Event::Probed(answer.map(drop).map_err(|error| error.to_string())),
            }
        };
        Some(work.boxed())
    }
}

impl State {
    fn now(&self) -> Moment {
        Moment::since_boot(self.clock.since_boot())
    }

    fn replay(&self) -> MutexGuard<'_, Replay> {
        lock(&self.replay)
    }

    /// Logs the result of a probe, if it differs from the last one.
    fn log_probe(&self, name: &str, slot: usize, answer: &Result<String, ProbeError>) {
        let why = answer.as_ref().err();
        let last = std::mem::replace(&mut lock(&self.logged_errors)[slot], why.cloned());
        match why {
            Some(why) if last.as_ref() == Some(why) => {}
            Some(ProbeError::NotRun(why)) => warn!("the {name} probe could not be run: {why}"),
            Some(ProbeError::Failed(why)) => warn!("the {name} probe failed: {why}"),
            None if last.is_some() => info!("the {name} probe passes again"),
            _ => {}
        }
    }

    /// Returns the result of the app's liveness probe: of the run that is in progress or started less than half a
    /// period ago, else of a new run. A run goes on even when its client has hung up: otherwise, each such client would
    /// start another one.
    fn liveness_result(this: &Arc<Self>) -> Option<Answer> {
        let probe = this.spec.liveness_probe.as_ref()?;
        let (mut last, now) = (lock(&this.liveness), this.now());
        if let Some(last) = last.as_ref()
            && (last.answer.peek().is_none() || now.since(last.started) < probe.period() / 2)
        {
            return Some(last.answer.clone());
        }
        let answer = Self::run_liveness_probe(this.clone(), this.prober.probe(probe)).boxed().shared();
        let task = tokio::spawn(answer.clone().map(drop));
        *last = Some(LivenessRun { started: now, answer: answer.clone(), task });
        Some(answer)
    }

    async fn run_liveness_probe(
        self: Arc<Self>,
        run: BoxFuture<'static, Result<String, ProbeError>>,
    ) -> Result<String, String> {
        let answer = run.await;
        // The result for an app that was ordered to stop meanwhile, or is gone, is no reason to restart anything.
        let liveness = self.replay().liveness(self.now());
        match liveness {
            Liveness::Passes(why) => Ok(why.to_owned()),
            Liveness::AskApp => {
                self.log_probe("liveness", 2, &answer);
                match answer {
                    // The kubelet also discards such a result.
                    Err(ProbeError::NotRun(why)) => Ok(format!("the probe could not be run: {why}")),
                    answer => answer.map_err(|error| error.to_string()),
                }
            }
        }
    }
}

impl AppHealth for Answers {
    fn check(&self, probe: ProbeKind) -> BoxFuture<'static, Result<String, String>> {
        let state = &self.0;
        match probe {
            ProbeKind::Readiness => {
                let answer = state.replay().readiness().map(str::to_owned).map_err(str::to_owned);
                futures::future::ready(answer).boxed()
            }
            ProbeKind::Liveness => {
                let liveness = state.replay().liveness(state.now());
                match liveness {
                    Liveness::Passes(why) => futures::future::ok(why.to_owned()).boxed(),
                    Liveness::AskApp => match State::liveness_result(state) {
                        Some(answer) => answer.boxed(),
                        None => futures::future::ok("running".to_owned()).boxed(),
                    },
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
