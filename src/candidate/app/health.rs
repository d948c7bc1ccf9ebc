//! The app's probes and hooks at work: [`replay`](super::replay) decides, [`probe`](super::probe) asks, and the kubelet gets its
//! answers.
//!
//! The kubelet asks `/app-health/liveness` and `/app-health/readiness` instead of the app. Liveness is the app's own answer to
//! a question that is put to it there and then, shared by all who ask meanwhile; readiness is what the candidate's own
//! probes, run with the user's periods and thresholds, have found.
//!
//! Everybody who reaches the pod may ask. So the app's liveness probe runs at most twice in its period: in between the last
//! result is repeated. The kubelet alone, which asks once in a period, gets a result of its own each time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, Shared};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::probe::{ProbeError, Prober};
use super::replay::{Event, Kind, Liveness, Order, Replay};
use super::spec::AppSpec;
use crate::candidate::serve::{AppHealth, ProbeKind};
use crate::election::Moment;
use crate::runtime::clock::{Clock, sleep_until};

type Answer = Shared<BoxFuture<'static, Result<String, String>>>;

/// What its supervisor is told of the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Whether it is ready has changed.
    Ready(bool),
    /// It did not come up: stop it within `grace`, and give up.
    Failed {
        /// What went wrong.
        why: String,
        /// How long the stop may take.
        grace: Duration,
    },
}

/// Carries out the app's probes and hooks.
pub struct ProbeRunner {
    shared: Arc<State>,
    orders: VecDeque<Order>,
    under_way: Option<BoxFuture<'static, Event>>,
}

/// Answers the kubelet.
pub struct Answers(Arc<State>);

struct State {
    spec: Arc<AppSpec>,
    prober: Prober,
    clock: Arc<dyn Clock>,
    replay: Mutex<Replay>,
    /// The last liveness probe of this app, whether it is under way or not.
    liveness: Mutex<Option<LivenessRun>>,
    /// What the log was told of each probe last.
    told: Mutex<[Option<ProbeError>; 3]>,
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
    /// Of an app that does not run yet.
    pub fn new(spec: Arc<AppSpec>, prober: Prober, clock: Arc<dyn Clock>) -> Self {
        let replay = Mutex::new(Replay::new(spec.clone()));
        let shared = State { spec, prober, clock, replay, liveness: Mutex::default(), told: Mutex::default() };
        Self { shared: Arc::new(shared), orders: VecDeque::new(), under_way: None }
    }

    /// What the kubelet is answered.
    pub fn answers(&self) -> Answers {
        Answers(self.shared.clone())
    }

    /// The app was started.
    pub fn started(&mut self) {
        *lock(&self.shared.told) = Default::default();
        *lock(&self.shared.liveness) = None;
        self.step(Event::Started);
    }

    /// The app was told to stop: nothing more is asked of it.
    pub fn stopping(&mut self) {
        self.under_way = None;
        self.orders.retain(|order| !matches!(order, Order::PostStart | Order::Probe(_)));
        self.step(Event::Stopping);
    }

    /// Nothing of the app is left.
    pub fn ended(&mut self) {
        self.under_way = None;
        self.step(Event::Ended);
        self.orders.clear();
    }

    /// Works on until there is news. Cancel safe.
    pub async fn news(&mut self) -> News {
        loop {
            while let Some(order) = self.orders.pop_front() {
                match order {
                    Order::PostStart => self.under_way = self.post_start(),
                    Order::Probe(kind) => self.under_way = self.probe(kind),
                    Order::Ready(ready) => return News::Ready(ready),
                    Order::Fail { why, grace } => return News::Failed { why, grace },
                }
            }
            let event = match &mut self.under_way {
                Some(work) => {
                    let event = work.await;
                    self.under_way = None;
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
        let asked = shared.prober.probe(probe.as_ref()?);
        let work = async move {
            let answer = asked.await;
            shared.tell(name, slot, &answer);
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

    /// Into the log, where it is another answer than the last one.
    fn tell(&self, name: &str, slot: usize, answer: &Result<String, ProbeError>) {
        let why = answer.as_ref().err();
        let last = std::mem::replace(&mut lock(&self.told)[slot], why.cloned());
        match why {
            Some(why) if last.as_ref() == Some(why) => {}
            Some(ProbeError::NotRun(why)) => warn!("the {name} probe says nothing: {why}"),
            Some(ProbeError::Failed(why)) => warn!("the {name} probe failed: {why}"),
            None if last.is_some() => info!("the {name} probe passes again"),
            _ => {}
        }
    }

    /// The result of the app's liveness probe: of the run that is under way or was begun less than half a period ago, else of a
    /// new one. It runs to its end also when nobody waits for it: a client that hangs up at once must not start the next one.
    fn ask(this: &Arc<Self>) -> Option<Answer> {
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
        question: BoxFuture<'static, Result<String, ProbeError>>,
    ) -> Result<String, String> {
        let answer = question.await;
        // What an app says that was told to stop meanwhile, or is gone, is no reason to restart anything.
        let liveness = self.replay().liveness(self.now());
        match liveness {
            Liveness::Passes(why) => Ok(why.to_owned()),
            Liveness::AskApp => {
                self.tell("liveness", 2, &answer);
                match answer {
                    // The kubelet, too, throws such a result away.
                    Err(ProbeError::NotRun(why)) => Ok(format!("the probe says nothing: {why}")),
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
                    Liveness::AskApp => match State::ask(state) {
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
