//! The command `run`, an election beside an app: reports over HTTP whether this process leads, and keeps the promises
//! that it made.
//!
//! # Guarantees
//! - Leadership is promised for short times only, see [`serve`](super::serve). The Lease is not released during a
//!   promise.
//! - After SIGTERM, a step-down or a lost Lease no more promises are made. The Lease is released when the last promise
//!   has expired, or immediately when the app reports that it has stopped; until then it is renewed.
//! - It acquires the Lease only while the app asks, and releases it when the app has fallen silent, see
//!   [`activity`](super::activity): an app that does not run cannot lead.
//! - An app that reports on its own that it has stopped releases the Lease; this candidate then abstains until it
//!   observes another holder, for a lease duration at most.
//!
//! # Caveats
//! The app must ask again before its promise expires, and stop leading when it gets no other: the candidate cannot stop
//! it.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{info, warn};

use super::activity::Activity;
use super::flags::HttpFlags;
use super::promise::{Promises, StopOutcome};
use super::serve::{Answers, LeadershipSource, Leading, ListenError};
use super::stops::{StopOrders, log_holder, next_stop};
use crate::campaign::{Builder, LeaderGuard, Metrics, StartError, Stop, Term};
use crate::election::{Loss, Moment};
use crate::runtime::clock::{Clock, SystemClock, sleep_until};
use crate::runtime::shutdown::Shutdown;

/// A reason why no app can be served.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// The campaign cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The server's port cannot be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// Takes part in `campaign` and serves the app on the port of `http` until SIGTERM or SIGINT; then waits for the last
/// promise to expire and releases the Lease. No promise lasts longer than `longest_promise`. Returns 0.
///
/// # Errors
/// [`SidecarError`], before any request to the API server.
pub async fn run(
    config: &kube::Config,
    campaign: Builder,
    http: &HttpFlags,
    longest_promise: Duration,
    mut shutdown: Shutdown,
) -> Result<ExitCode, SidecarError> {
    let server = http.bind(http.http_port.unwrap_or(HttpFlags::DEFAULT_PORT))?;
    if let Ok(port) = server.port() {
        info!("listening on port {port}");
    }
    let metrics = Metrics::default();
    let campaign = Arc::new(campaign.metrics(metrics.clone()).ready_to_lead(false).start(config)?);
    let clock = SystemClock;
    let promises = Arc::new(PromiseState::new(longest_promise, Arc::new(clock)));
    info!("the program has not asked yet: taking no part in the election until it does");
    let _serving = server.serve(Answers::beside_app(campaign.clone(), promises.clone(), &metrics));
    let mut holders = campaign.holders();
    let mut work: Option<Work> = None;
    loop {
        if let Some(is_active) = promises.new_activity() {
            match is_active {
                true => info!("the program asks: ready to lead"),
                false => {
                    warn!("the program has stopped asking: not ready to lead, releasing leadership if it is held")
                }
            }
            campaign.set_ready_to_lead(is_active);
        }
        tokio::select! {
            // A stop order comes before anything new starts.
            biased;
            signal = shutdown.requested() => {
                info!("{signal}: leaving the election");
                promises.close();
                campaign.leave();
            }
            stop = next_stop(work.as_mut().map(|work| &mut work.stops)) => {
                promises.close();
                log_stop(stop);
            }
            () = promises.changed.notified() => {}
            () = sleep_until(&clock, promises.silent_at().map(Moment::elapsed_since_boot)) => {}
            () = sleep_until(&clock, promises.releasable_at().map(Moment::elapsed_since_boot)) => {
                let why = if promises.end() { "the app has stopped" } else { "the last promise has expired" };
                if let Some(Work { guard, .. }) = work.take() {
                    info!("{why}: releasing the lease");
                    guard.end();
                }
            }
            guard = campaign.lead() => match guard {
                Some(guard) => {
                    info!("leading with fencing token {}", guard.token());
                    promises.begin(guard.term().clone());
                    let stops = StopOrders::of(&guard);
                    work = Some(Work { guard, stops });
                }
                None => return Ok(ExitCode::SUCCESS),
            },
            Some(holder) = holders.next() => log_holder(&holder, campaign.identity()),
        }
    }
}

/// A term in which the app may be promised leadership.
struct Work {
    guard: LeaderGuard,
    stops: StopOrders,
}

fn log_stop(stop: Stop) {
    match stop.loss {
        Loss::LeaseDeleted => warn!("the lease was deleted: no more promises"),
        Loss::Requested => info!("releasing leadership: no more promises"),
        Loss::DeadlinePassed => warn!("no renewal within the renew deadline: no more promises"),
        Loss::Deposed => warn!("the lease is no longer held by this process: no more promises"),
    }
}

/// The state that the app's requests and the election's stop orders share.
struct PromiseState {
    state: Mutex<State>,
    /// Notified when a request changes how long the Lease must be held.
    changed: Notify,
    clock: Arc<dyn Clock>,
}

struct State {
    term: Option<Term>,
    promises: Promises,
    activity: Activity,
    /// Whether the election considers the app active.
    is_active: bool,
}

impl PromiseState {
    fn new(longest_promise: Duration, clock: Arc<dyn Clock>) -> Self {
        let state = State {
            term: None,
            promises: Promises::of_at_most(longest_promise),
            // The longest promise is the retry period.
            activity: Activity::new(longest_promise),
            is_active: false,
        };
        Self { state: Mutex::new(state), changed: Notify::new(), clock }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Moment {
        Moment::since_boot(self.clock.since_boot())
    }

    /// Returns whether the app is active, if that has changed.
    fn new_activity(&self) -> Option<bool> {
        let mut state = self.state();
        let is_active = state.activity.is_active(self.now());
        (std::mem::replace(&mut state.is_active, is_active) != is_active).then_some(is_active)
    }

    /// Returns when the active app counts as silent.
    fn silent_at(&self) -> Option<Moment> {
        let state = self.state();
        state.activity.silent_at().filter(|_| state.is_active)
    }

    fn begin(&self, term: Term) {
        let mut state = self.state();
        state.promises.begin(term.token());
        state.term = Some(term);
    }

    fn close(&self) {
        self.state().promises.close();
    }

    fn releasable_at(&self) -> Option<Moment> {
        self.state().promises.releasable_at()
    }

    /// Ends the term. Returns whether the app had reported that it stopped.
    fn end(&self) -> bool {
        let mut state = self.state();
        state.term = None;
        state.promises.end()
    }
}

impl LeadershipSource for Arc<PromiseState> {
    fn leading(&self) -> Option<Leading> {
        let mut state = self.state();
        let silent_at = state.activity.silent_at();
        state.activity.record(self.now());
        // The silence of a program that turns out to ask often is noticed sooner.
        if !state.is_active || state.activity.silent_at() < silent_at {
            self.changed.notify_one();
        }
        let term = state.term.clone()?;
        // The stop order may have come just now.
        if term.stops().borrow().is_some() {
            return None;
        }
        // Read before the remaining time, so that their sum is never beyond the term's end.
        let now = self.now();
        let valid_for = state.promises.make(now, term.remaining())?;
        Some(Leading { fencing_token: term.token().to_owned(), lease_transitions: term.transitions(), valid_for })
    }

    fn ready(&self) -> Result<(), &'static str> {
        if self.state().activity.is_active(self.now()) {
            return Ok(());
        }
        Err(
            "the program does not ask whether it leads, so it could not lead: expected GET / on the loopback interface from time to time",
        )
    }

    fn stopped(&self, token: Option<&str>) -> Result<&'static str, &'static str> {
        let outcome = self.state().promises.stopped(token);
        Ok(match outcome {
            StopOutcome::Stopped => {
                self.changed.notify_one();
                "leadership is released"
            }
            StopOutcome::OtherTerm => "this candidate does not lead in that term: there is nothing to release",
            StopOutcome::NothingPromised => "nothing was promised in this term: name its fencingToken to release it",
        })
    }
}
