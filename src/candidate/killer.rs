//! SIGKILL on time, from a thread of its own, whatever the rest of this process waits for.
//!
//! # Guarantees
//! - Once a term's kill deadline has come, everything that is left of the command gets SIGKILL, repeatedly until
//!   nothing is left.
//! - A process of another user, which this process may not signal, dies with PID 1 of the container. So as PID 1 this
//!   process ends itself: at once when leadership is lost, a moment later after a requested stop. Where it is not PID
//!   1, it logs an error and holds the Lease as long as it can.
//! - A process that SIGKILL does not end within [`GIVE_UP`] is stuck in the kernel. This process ends, and the Lease is
//!   left to expire.

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

/// The time between two rounds of SIGKILL.
const ROUND_PERIOD: Duration = Duration::from_millis(50);
/// How long a process that may not be killed has to end by itself after a requested stop.
const FOREIGN_GRACE: Duration = Duration::from_secs(1);
/// How long the kernel may take to end killed processes. A process with much memory takes seconds.
const GIVE_UP: Duration = Duration::from_secs(10);
/// The remedy for processes that may not be signalled.
pub(super) const ADVICE: &str = "add the capability KILL to the container's securityContext, or set runAsUser to the user that the command changes to";

/// The thread that kills.
pub(super) struct Killer(watch::Sender<Option<Work>>);

#[derive(Clone)]
struct Work {
    stops: watch::Receiver<Option<Stop>>,
    /// When the grace of a requested stop is over.
    kill_at: Option<Moment>,
}

impl Killer {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn start(children: Children, clock: impl Clock) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (sender, work) = watch::channel(None);
        let name = "killer".to_owned();
        std::thread::Builder::new().name(name).spawn(move || runtime.block_on(enforce(work, &children, &clock)))?;
        Ok(Self(sender))
    }

    /// Enforces the stop orders of `term` from now on.
    pub(super) fn begin(&self, term: &Term) {
        self.0.send_replace(Some(Work { stops: term.stops(), kill_at: None }));
    }

    /// Kills the command at `moment`; at once if that has passed.
    pub(super) fn kill_at(&self, moment: Moment) {
        self.0.send_modify(|work| {
            if let Some(work) = work {
                work.kill_at = work.kill_at.map_or(Some(moment), |at| Some(at.min(moment)));
            }
        });
    }

    /// Ends the enforcement, since nothing of the command is left.
    pub(super) fn done(&self) {
        self.0.send_replace(None);
    }
}

async fn enforce(mut work: watch::Receiver<Option<Work>>, children: &Children, clock: &dyn Clock) {
    let now = || Moment::since_boot(clock.since_boot());
    let (mut term, mut first, mut next) = (None, None, None);
    loop {
        let Some(Work { mut stops, kill_at }) = work.borrow_and_update().clone() else {
            match work.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        };
        if !term.as_ref().is_some_and(|term| stops.same_channel(term)) {
            (term, first, next) = (Some(stops.clone()), None, None);
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
                next = Some(now + ROUND_PERIOD);
            }
        }
    }
}

/// Runs one round of SIGKILL; the first one was `since` ago.
fn kill(children: &Children, lost: bool, since: Duration) {
    match children.kill_all() {
        Ok(KillScope::All) if since < GIVE_UP => {}
        Ok(KillScope::All) => {
            give_up(format_args!(
                "processes of the command have not ended {} s after SIGKILL: they are stuck in the kernel, so check the volumes \
                 and devices that they use; ending without a release, so the lease must expire",
                GIVE_UP.as_secs()
            ));
        }
        Ok(KillScope::SomeForeign) if getpid() != Pid::INIT => {
            if since.is_zero() {
                error!("the command has processes of another user, which this process may not end: end them by hand");
            }
        }
        Ok(KillScope::SomeForeign) if lost || since >= FOREIGN_GRACE => {
            give_up(format_args!(
                "the command has processes of another user, which this process may not end: ending the whole container; {ADVICE}"
            ));
        }
        Ok(KillScope::SomeForeign) => {}
        Err(error) => {
            give_up(format_args!("cannot end what the command left behind: {error}; ending without a release"))
        }
    }
}

/// Ends this process. As PID 1 of a container it ends all other processes with it, of any user.
fn give_up(why: std::fmt::Arguments<'_>) {
    error!("{why}");
    // Added to the line that proves this process dead.
    end_reason::leave(&why.to_string());
    telemetry::flush();
    std::process::exit(1);
}
