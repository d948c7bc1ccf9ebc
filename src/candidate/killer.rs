//! SIGKILL on time, from a thread of its own: whatever the rest of this process waits for.
//!
//! # Guarantees
//! - Once a term's time to kill has come, all that is left of the command gets SIGKILL, again and again until nothing is left.
//! - What this process may not signal, since it runs as another user, dies with PID 1 of the container. So there this process ends
//!   itself: at once when leadership is lost, a moment later when something was only asked to end. Where it is not PID 1, it says so
//!   and holds on to the Lease as long as it can.
//! - What SIGKILL does not end within [`GIVE_UP`] is stuck in the kernel. This process ends, and the Lease is left to expire.

use std::io;
use std::time::Duration;

use rustix::process::{Pid, getpid};
use tokio::sync::watch;
use tracing::error;

use super::children::{Children, KillScope};
use crate::campaign::{Stop, Term};
use crate::election::Moment;
use crate::runtime::clock::{Clock, sleep_until};
use crate::runtime::{end_reason, telemetry};

/// The time between two rounds while something is left.
const AGAIN: Duration = Duration::from_millis(50);
/// How long what cannot be killed may take to end by itself, while nobody else may lead.
const BEYOND_REACH: Duration = Duration::from_secs(1);
/// How long the kernel may take to end what was killed. A process with much memory takes seconds.
const GIVE_UP: Duration = Duration::from_secs(10);
/// What to do about processes that may not be signalled.
pub(super) const ADVICE: &str = "add the capability KILL to the container's securityContext, or set runAsUser to the user that the command changes to";

/// The thread that kills.
pub(super) struct Killer(watch::Sender<Option<Work>>);

#[derive(Clone)]
struct Work {
    stops: watch::Receiver<Option<Stop>>,
    /// When what was asked to end in good order has had its time.
    kill_at: Option<Moment>,
}

impl Killer {
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(children: Children, clock: impl Clock) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (sender, work) = watch::channel(None);
        let name = "killer".to_owned();
        std::thread::Builder::new().name(name).spawn(move || runtime.block_on(watch_over(work, &children, &clock)))?;
        Ok(Self(sender))
    }

    /// Something runs in `term`; the orders to end that term are heeded from now on.
    pub(super) fn begin(&self, term: &Term) {
        self.0.send_replace(Some(Work { stops: term.stops(), kill_at: None }));
    }

    /// What runs is to be dead at `moment`. If that has passed, a round of SIGKILL follows at once.
    pub(super) fn kill_at(&self, moment: Moment) {
        self.0.send_modify(|work| {
            if let Some(work) = work {
                work.kill_at = work.kill_at.map_or(Some(moment), |at| Some(at.min(moment)));
            }
        });
    }

    /// Nothing is left.
    pub(super) fn done(&self) {
        self.0.send_replace(None);
    }
}

async fn watch_over(mut work: watch::Receiver<Option<Work>>, children: &Children, clock: &dyn Clock) {
    let now = || Moment::since_boot(clock.since_boot());
    let (mut of, mut first, mut next) = (None, None, None);
    loop {
        let Some(Work { mut stops, kill_at }) = work.borrow_and_update().clone() else {
            match work.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        };
        if !of.as_ref().is_some_and(|of| stops.same_channel(of)) {
            (of, first, next) = (Some(stops.clone()), None, None);
        }
        let lost = (*stops.borrow_and_update()).and_then(|stop| stop.kill_at);
        let due = [lost, kill_at].into_iter().flatten().min().max(next);
        tokio::select! {
            changed = work.changed() => match changed {
                Ok(()) => next = None,
                Err(_) => return,
            },
            Ok(()) = stops.changed() => {}
            () = sleep_until(clock, due.map(Moment::elapsed_since_boot)) => {
                let now = now();
                kill(children, lost.is_some_and(|at| at <= now), now.since(*first.get_or_insert(now)));
                next = Some(now + AGAIN);
            }
        }
    }
}

/// One round; the first was `since` ago.
fn kill(children: &Children, lost: bool, since: Duration) {
    match children.kill_all() {
        Ok(KillScope::All) if since < GIVE_UP => {}
        Ok(KillScope::All) => {
            give_up(format_args!(
                "processes of the command have not ended {} s after SIGKILL: they are stuck in the kernel, so look at the volumes \
                 and devices that they use; ending without a release, so the lease must expire",
                GIVE_UP.as_secs()
            ));
        }
        Ok(KillScope::SomeForeign) if getpid() != Pid::INIT => {
            if since.is_zero() {
                error!("the command has processes of another user, which this one may not end: end them by hand");
            }
        }
        Ok(KillScope::SomeForeign) if lost || since >= BEYOND_REACH => {
            give_up(format_args!(
                "the command has processes of another user, which this one may not end: ending the whole container; {ADVICE}"
            ));
        }
        Ok(KillScope::SomeForeign) => {}
        Err(error) => {
            give_up(format_args!("cannot end what the command left behind: {error}; ending without a release"))
        }
    }
}

/// Ends this process. As PID 1 of a container it takes all others along, whoever they belong to.
fn give_up(why: std::fmt::Arguments<'_>) {
    error!("{why}");
    // Beside the line that proves this process dead.
    end_reason::leave(&why.to_string());
    telemetry::flush();
    std::process::exit(1);
}
