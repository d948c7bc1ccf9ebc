//! The election beside an app: tells it by HTTP whether it leads, and keeps what it told.
//!
//! # Guarantees
//! - Leadership is promised for short times only, see [`serve`](super::serve). While a promise lasts the Lease is not released.
//! - After SIGTERM, a step-down or a lost Lease nothing is promised any more. The Lease is released when the last promise has run
//!   out, or at once when the app says that it has stopped; until then it is renewed.
//! - It takes the Lease only while the app asks, and gives leadership up when the app has fallen silent, see
//!   [`activity`](super::activity): an app that does not run cannot lead.
//! - An app that says by itself that it has stopped gives leadership up; this candidate then abstains for a lease duration.
//!
//! # Caveats
//! The app must ask again before its promise has run out, and stop to lead when it gets no other: nobody stops it.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{info, warn};

use super::activity::Activity;
use super::flags::HttpFlags;
use super::heard::{Stops, say_holder, told_to_stop};
use super::promise::{Heard, Promises};
use super::serve::{Answers, LeadershipSource, Leading, ListenError};
use crate::campaign::{Builder, LeaderGuard, Metrics, StartError, Stop, Term};
use crate::election::{Loss, Moment};
use crate::runtime::clock::{Clock, SystemClock, sleep_until};
use crate::runtime::shutdown::Shutdown;

/// Why no app can be served.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// The campaign cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The server's port cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// Takes part in `campaign` and serves the app on the port of `http` until SIGTERM or SIGINT; then keeps the last promise and releases. No
/// promise lasts longer than `longest_promise`. Returns 0.
///
/// # Errors
/// [`SidecarError`], before anything was asked of the API server.
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
    let desk = Arc::new(PromiseState::new(longest_promise, Arc::new(clock)));
    info!("the program has not asked yet: taking no part in the election until it does");
    let _serving = server.serve(Answers::beside_app(campaign.clone(), desk.clone(), &metrics));
    let mut holders = campaign.holders();
    let mut work: Option<Work> = None;
    loop {
        if let Some(is_active) = desk.new_activity() {
            match is_active {
                true => info!("the program asks: ready to lead"),
                false => {
                    warn!("the program has stopped asking: not ready to lead, giving leadership up if there is any")
                }
            }
            campaign.set_ready_to_lead(is_active);
        }
        tokio::select! {
            // An order to stop counts before anything else is begun.
            biased;
            signal = shutdown.requested() => {
                info!("{signal}: leaving the election");
                desk.close();
                campaign.leave();
            }
            stop = told_to_stop(work.as_mut().map(|work| &mut work.stops)) => {
                desk.close();
                say_stop(stop);
            }
            () = desk.heard.notified() => {}
            () = sleep_until(&clock, desk.silent_at().map(Moment::elapsed_since_boot)) => {}
            () = sleep_until(&clock, desk.kept_at().map(Moment::elapsed_since_boot)) => {
                let why = if desk.end() { "the app has stopped" } else { "the last promise has run out" };
                if let Some(Work { guard, .. }) = work.take() {
                    info!("{why}: giving the lease up");
                    guard.end();
                }
            }
            guard = campaign.lead() => match guard {
                Some(guard) => {
                    info!("leading with fencing token {}", guard.token());
                    desk.begin(guard.term().clone());
                    let stops = Stops::of(&guard);
                    work = Some(Work { guard, stops });
                }
                None => return Ok(ExitCode::SUCCESS),
            },
            Some(holder) = holders.next() => say_holder(&holder, campaign.identity()),
        }
    }
}

/// A term that the app may be told of.
struct Work {
    guard: LeaderGuard,
    stops: Stops,
}

fn say_stop(stop: Stop) {
    match stop.loss {
        Loss::LeaseDeleted => warn!("the lease was deleted: nothing is promised any more"),
        Loss::Requested => info!("giving leadership up: nothing is promised any more"),
        Loss::DeadlinePassed => warn!("no renewal within the renew deadline: nothing is promised any more"),
        Loss::Deposed => warn!("the lease is no longer held by this process: nothing is promised any more"),
    }
}

/// Where the app's questions and the election's orders meet.
struct PromiseState {
    state: Mutex<State>,
    /// The app has said something that changes when the Lease may be given up.
    heard: Notify,
    clock: Arc<dyn Clock>,
}

struct State {
    term: Option<Term>,
    promises: Promises,
    activity: Activity,
    /// Whether the election knows the app as one that asks.
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
        Self { state: Mutex::new(state), heard: Notify::new(), clock }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Moment {
        Moment::since_boot(self.clock.since_boot())
    }

    /// Whether the app asks, if that is news.
    fn new_activity(&self) -> Option<bool> {
        let mut state = self.state();
        let is_active = state.activity.is_active(self.now());
        (std::mem::replace(&mut state.is_active, is_active) != is_active).then_some(is_active)
    }

    /// When the app that asks will have fallen silent.
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

    fn kept_at(&self) -> Option<Moment> {
        self.state().promises.kept_at()
    }

    /// Whether the app had said that it has stopped.
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
        state.activity.asked(self.now());
        // A program that turns out to ask often is known to be silent sooner.
        if !state.is_active || state.activity.silent_at() < silent_at {
            self.heard.notify_one();
        }
        let term = state.term.clone()?;
        // The order may have come just now.
        if term.stops().borrow().is_some() {
            return None;
        }
        // Before the remainder is read, so that their sum is never beyond the term's end.
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
        let heard = self.state().promises.stopped(token);
        Ok(match heard {
            Heard::Stopped => {
                self.heard.notify_one();
                "leadership is given up"
            }
            Heard::OtherTerm => "this candidate does not lead in that term: there is nothing to give up",
            Heard::Untold => "nobody was told of the present term: to give it up all the same, name its fencingToken",
        })
    }
}
