//! The shared world of a run: the state of the candidates, and the rules that must hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::plan::{Plan, Random, Weather};
use super::process::Signal;
use super::server::{Change, RECREATED, Server, Write, holder};
use crate::subject::campaign::Term;

/// The connection of a candidate to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    Open,
    Refused,
    Silent,
}

#[derive(Debug)]
pub struct Member {
    pub life: u64,
    pub reach: Reach,
    pub frozen: bool,
    /// Thawed, but not polled yet.
    pub waking: bool,
    pub waker: Option<Waker>,
    /// The offset of the wall clock, in milliseconds.
    pub wall_step: i64,
    pub term: Option<Term>,
    pub working: bool,
    /// Whether it got the Lease in an answer.
    pub saw_lease: bool,
    /// The number of requests in flight, without watches.
    pub open_requests: u32,
    /// Whether it was frozen in this life.
    pub was_frozen: bool,
    /// The time at which it was frozen without a request in flight.
    pub frozen_idle: Option<Duration>,
    pub signals: mpsc::UnboundedSender<Signal>,
    /// Whether its owner has ended leadership in this life.
    pub has_ended_term: bool,
}

impl Member {
    pub fn send(&mut self, signal: Signal) {
        self.has_ended_term = true;
        let _ = self.signals.send(signal);
    }

    /// Whether its work runs and can act.
    fn acts(&self) -> bool {
        self.working && !self.frozen && !self.waking
    }
}

/// The number of occurrences of each kind of event.
#[derive(Clone, Debug, Default)]
pub struct Counts(pub BTreeMap<&'static str, u64>);

impl Counts {
    pub fn count(&mut self, happened: bool, what: &'static str) {
        *self.0.entry(what).or_default() += u64::from(happened);
    }

    pub fn add(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            *self.0.entry(what).or_default() += times;
        }
    }
}

pub struct World {
    pub plan: Plan,
    pub random: Random,
    pub server: Server,
    pub members: Vec<Member>,
    pub counts: Counts,
    pub requests: u64,
    /// The number of requests in flight that may create the Lease.
    pub creating: u64,
    pub watch_generation: u64,
    pub outage: bool,
    pub violation: Option<String>,
    history: Option<Vec<String>>,
    highest_token: u64,
    calm: bool,
}

/// A shared handle of the world.
#[derive(Clone)]
pub struct Shared {
    world: Arc<Mutex<World>>,
    start: Instant,
    /// Wakes in the order of waiting. tokio's `watch` does not, so runs of a seed would differ.
    changes: Arc<Notify>,
}

impl Shared {
    pub fn new(seed: u64, record: bool) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random);
        let world = World {
            plan,
            random,
            server: Server::default(),
            members: Vec::new(),
            counts: Counts::default(),
            requests: 0,
            creating: 0,
            watch_generation: 0,
            outage: false,
            violation: None,
            history: record.then(Vec::new),
            highest_token: 0,
            calm: false,
        };
        #[expect(clippy::disallowed_methods, reason = "the simulation's own time")]
        let start = Instant::now();
        Self { world: Arc::new(Mutex::new(world)), start, changes: Arc::default() }
    }

    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub fn at(&self, elapsed: Duration) -> Instant {
        self.start + elapsed
    }

    /// Wakes all tasks that wait for a change of the world.
    pub fn changed(&self) {
        self.changes.notify_waiters();
    }

    pub fn reach(&self, member: usize) -> Reach {
        self.lock().members[member].reach
    }

    pub async fn reachable(&self, member: usize) {
        self.wait_for(|world| (world.members[member].reach == Reach::Open).then_some(())).await;
    }

    pub async fn outage_over(&self) {
        self.wait_for(|world| (!world.outage).then_some(())).await;
    }

    /// Waits until `find` returns a value.
    pub async fn wait_for<T>(&self, mut find: impl FnMut(&mut World) -> Option<T>) -> T {
        loop {
            // Enabled before the check, so that no change is missed.
            let mut change = std::pin::pin!(self.changes.notified());
            change.as_mut().enable();
            let found = find(&mut self.lock());
            if let Some(found) = found {
                return found;
            }
            change.await;
        }
    }

    /// Adds a line to the history, if it is recorded.
    pub fn note(&self, line: impl FnOnce() -> String) {
        let at = self.elapsed();
        if let Some(history) = &mut self.lock().history {
            history.push(format!("{:>9.3} s  {}", at.as_secs_f64(), line()));
        }
    }

    pub fn take_history(&self) -> Vec<String> {
        self.lock().history.take().unwrap_or_default()
    }

    pub fn start_work(&self, member: usize, term: &Term) {
        self.note(|| format!("otter-{member} starts to work with token {}", term.token()));
        let mut world = self.lock();
        let token: u64 = term.token().parse().unwrap_or(0);
        if token <= world.highest_token {
            let highest = world.highest_token;
            world.fail(format!("otter-{member} leads with token {token}, but {highest} was seen before"));
        }
        world.highest_token = world.highest_token.max(token);
        world.counts.count(true, "terms");
        world.members[member].term = Some(term.clone());
        world.members[member].working = true;
        world.check_work();
    }

    pub fn end_work(&self, member: usize) {
        self.note(|| format!("otter-{member} has ended its work"));
        let mut world = self.lock();
        world.members[member].working = false;
        world.members[member].term = None;
    }

    /// Requires that a candidate that observed another holder, or none, no longer believes that it leads. A deletion is
    /// different where only an operator creates the Lease: no candidate may follow before it has waited for the
    /// recreated Lease, so the term lasts until its deadline.
    pub fn expect_end_of_term(&self, member: usize, life: u64, change: &Change) {
        let world = self.lock();
        let Some(term) = world.members[member].term.clone() else { return };
        // Also a change that arrives after the deletion that followed it.
        let is_deletion = |it: &Change| it.kind == "DELETED" || holder(&it.object) == RECREATED;
        let is_deleted = world.server.changes.iter().any(|it| it.version >= change.version && is_deletion(it));
        if is_deleted && !world.plan.create {
            return;
        }
        let acquired = term.token().parse().unwrap_or(u64::MAX);
        if change.version <= acquired || change.author == Some((member, life)) || world.members[member].life != life {
            return;
        }
        let (shared, version) = (self.clone(), change.version);
        drop(world);
        tokio::spawn(async move {
            #[expect(clippy::disallowed_methods, reason = "the simulation's own time")]
            tokio::time::sleep(Duration::from_millis(100)).await;
            let mut world = shared.lock();
            let present = &world.members[member];
            let is_over = present.life != life || present.frozen || present.waking || !term.is_valid();
            if !is_over {
                world.fail(format!(
                    "otter-{member} observed the foreign version {version}, and its term is still valid"
                ));
            }
        });
    }

    /// Requires that an invalid answer does not extend the term: only the acknowledgment of the write does. The next
    /// retry comes at least 250 ms later.
    pub fn expect_no_extension(&self, member: usize, term: Term, left: Duration) {
        let shared = self.clone();
        tokio::spawn(async move {
            #[expect(clippy::disallowed_methods, reason = "the simulation's own time")]
            tokio::time::sleep(Duration::from_millis(100)).await;
            if term.remaining() > left {
                shared.lock().fail(format!("an invalid answer extends the term of otter-{member}"));
            }
        });
    }

    /// Requires that a term is not valid after a late wake-up until a write succeeds. The longest renew interval is
    /// 6 s.
    pub fn check_waking(&self, member: usize) {
        let now = self.elapsed();
        let mut world = self.lock();
        let Some(since) = world.members[member].frozen_idle.take() else { return };
        let believes = world.members[member].term.as_ref().is_some_and(Term::is_valid);
        if believes && now - since > Duration::from_secs(8) {
            world.fail(format!("otter-{member} wakes after {:?}, and its term is still valid", now - since));
        }
    }

    /// Checks the rules of the whole state.
    pub fn check(&self) {
        self.lock().check_work();
    }
}

impl World {
    pub fn weather(&self) -> Weather {
        if self.calm { Weather::default() } else { self.plan.weather }
    }

    pub fn calm_down(&mut self) {
        self.calm = true;
    }

    /// Whether a deletion of the Lease keeps the guarantee: no candidate is about to create the Lease without having
    /// seen it (documented: a creation expects no version).
    pub fn deletion_is_safe(&self) -> bool {
        self.creating == 0 && self.members.iter().all(|member| member.saw_lease)
    }

    pub fn fail(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// Requires that at most one candidate has a valid term, and that at most one works. A frozen process does nothing.
    fn check_work(&mut self) {
        let select = |what: fn(&Member) -> bool| -> Vec<usize> {
            self.members.iter().enumerate().filter(|(_, member)| what(member)).map(|(i, _)| i).collect()
        };
        let working = select(Member::acts);
        let believing = select(|member| member.term.as_ref().is_some_and(Term::is_valid));
        if working.len() > 1 {
            self.fail(format!("several candidates work: {working:?}"));
        }
        if believing.len() > 1 {
            self.fail(format!("several terms are valid: {believing:?}"));
        }
    }

    /// Checks the rules for a write of the Lease.
    pub fn check_write(&mut self, by: usize, life: u64, write: &Write, lease: &Value) {
        self.counts.count(*write == Write::Renewed, "renewals");
        self.counts.count(matches!(write, Write::Released { .. }), "releases");
        self.counts.count(matches!(write, Write::Acquired { free: true }), "elections by release");
        self.counts.count(matches!(write, Write::Acquired { free: false }), "elections by expiry");
        self.counts.count(*write == Write::Created, "Leases created");
        if *write == Write::Created {
            // This is a new Lease.
            self.members.iter_mut().for_each(|member| member.saw_lease = false);
        }
        match write {
            Write::Released { foreign: true, .. } => {
                self.fail(format!("otter-{by} has released the Lease of another holder"));
            }
            Write::Released { .. } if self.members[by].life == life && self.members[by].acts() => {
                self.fail(format!("otter-{by} has released the Lease while it works"));
            }
            Write::Released { requested: false, .. }
                if self.members[by].life == life && !self.members[by].has_ended_term =>
            {
                self.fail(format!("otter-{by} has released the Lease without a request to end its term"));
            }
            Write::Created | Write::Acquired { .. } => {
                let others = self.members.iter().enumerate().filter(|(i, member)| *i != by && member.acts());
                let others: Vec<usize> = others.map(|(i, _)| i).collect();
                if !others.is_empty() {
                    self.fail(format!("otter-{by} acquires the Lease while others work: {others:?}"));
                }
            }
            Write::Released { .. } | Write::Renewed => {}
        }
        let spec = &lease["spec"];
        let whole = ["holderIdentity", "leaseDurationSeconds", "acquireTime", "renewTime", "leaseTransitions"];
        if let Some(missing) = whole.iter().find(|field| spec[**field].is_null()) {
            self.fail(format!("otter-{by} has written a Lease without {missing}"));
        }
    }
}
