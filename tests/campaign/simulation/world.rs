//! The shared world of a run: who is cut off, frozen or at work, and what must never be seen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::plan::{Plan, Random, Weather};
use super::process::Signal;
use super::server::{Change, Server, Write};
use crate::subject::campaign::Term;

/// Whether a candidate reaches the server.
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
    /// No longer frozen, but it has not yet had its turn.
    pub waking: bool,
    pub waker: Option<Waker>,
    /// Milliseconds.
    pub wall_step: i64,
    pub term: Option<Term>,
    pub working: bool,
    /// It was answered with the Lease.
    pub saw_lease: bool,
    /// Requests without an answer so far, watches aside.
    pub asking: u32,
    /// It was frozen in this life.
    pub was_frozen: bool,
    /// It was frozen at this time with nothing under way.
    pub frozen_idle: Option<Duration>,
    pub signals: mpsc::UnboundedSender<Signal>,
    /// In this life its owner told it to give up leadership, or it gave up by itself.
    pub told: bool,
}

impl Member {
    pub fn tell(&mut self, signal: Signal) {
        self.told = true;
        let _ = self.signals.send(signal);
    }

    /// At work, and able to do something.
    fn acts(&self) -> bool {
        self.working && !self.frozen && !self.waking
    }
}

/// How often each thing happened.
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
    /// Requests on their way that may create the Lease.
    pub creating: u64,
    pub watch_generation: u64,
    pub outage: bool,
    pub violation: Option<String>,
    history: Option<Vec<String>>,
    highest_token: u64,
    calm: bool,
}

/// The world in the hands of all that lives in it.
#[derive(Clone)]
pub struct Shared {
    world: Arc<Mutex<World>>,
    start: Instant,
    /// Wakes in the order of waiting, unlike tokio's `watch`, which would make no two runs of a seed alike.
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

    /// Something of the world has changed: what waits for it looks again.
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

    /// Waits until `look` finds something.
    pub async fn wait_for<T>(&self, mut look: impl FnMut(&mut World) -> Option<T>) -> T {
        loop {
            // Enlisted before the look, so that no change falls in between.
            let mut change = std::pin::pin!(self.changes.notified());
            change.as_mut().enable();
            let found = look(&mut self.lock());
            if let Some(found) = found {
                return found;
            }
            change.await;
        }
    }

    /// A line of the history, if one is kept.
    pub fn note(&self, line: impl FnOnce() -> String) {
        let at = self.elapsed();
        if let Some(history) = &mut self.lock().history {
            history.push(format!("{:>9.3} s  {}", at.as_secs_f64(), line()));
        }
    }

    pub fn take_history(&self) -> Vec<String> {
        self.lock().history.take().unwrap_or_default()
    }

    pub fn begin_work(&self, member: usize, term: &Term) {
        self.note(|| format!("otter-{member} begins to work with token {}", term.token()));
        let mut world = self.lock();
        let token: u64 = term.token().parse().unwrap_or(0);
        if token <= world.highest_token {
            let highest = world.highest_token;
            world.blame(format!("S3: otter-{member} leads with token {token}, but {highest} was seen before"));
        }
        world.highest_token = world.highest_token.max(token);
        world.counts.count(true, "terms");
        world.members[member].term = Some(term.clone());
        world.members[member].working = true;
        world.judge_work();
    }

    pub fn end_work(&self, member: usize) {
        self.note(|| format!("otter-{member} has ended its work"));
        let mut world = self.lock();
        world.members[member].working = false;
        world.members[member].term = None;
    }

    /// Rule 4: who was shown that the Lease is another's, or nobody's, believes no longer.
    pub fn expect_obedience(&self, member: usize, life: u64, change: &Change) {
        let world = self.lock();
        let Some(term) = world.members[member].term.clone() else { return };
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
            let obeys = present.life != life || present.frozen || present.waking || !term.is_valid();
            if !obeys {
                world.blame(format!(
                    "rule 4: otter-{member} saw version {version}, which is not its own, and believes on"
                ));
            }
        });
    }

    /// Rule 1: only the answer to the very write extends a term. The next try comes 250 ms later at the soonest.
    pub fn expect_no_extension(&self, member: usize, term: Term, left: Duration) {
        let shared = self.clone();
        tokio::spawn(async move {
            #[expect(clippy::disallowed_methods, reason = "the simulation's own time")]
            tokio::time::sleep(Duration::from_millis(100)).await;
            if term.remaining() > left {
                shared.lock().blame(format!("rule 1: otter-{member} believes an answer that is none"));
            }
        });
    }

    /// Rule 2: who wakes late doubts until a write succeeds. The longest renewal interval is 6 s.
    pub fn judge_waking(&self, member: usize) {
        let now = self.elapsed();
        let mut world = self.lock();
        let Some(since) = world.members[member].frozen_idle.take() else { return };
        let believes = world.members[member].term.as_ref().is_some_and(Term::is_valid);
        if believes && now - since > Duration::from_secs(8) {
            world.blame(format!("rule 2: otter-{member} wakes after {:?} and believes on", now - since));
        }
    }

    /// Judged at moments in which nothing is about to happen.
    pub fn judge(&self) {
        self.lock().judge_work();
    }
}

impl World {
    pub fn weather(&self) -> Weather {
        if self.calm { Weather::default() } else { self.plan.weather }
    }

    pub fn calm_down(&mut self) {
        self.calm = true;
    }

    /// Whoever deletes the Lease while a candidate that may create it has not seen it, or is about to create it, gives up
    /// the guarantee (documented): a creation expects no version.
    pub fn all_saw_the_lease(&self) -> bool {
        self.creating == 0 && self.members.iter().all(|member| member.saw_lease)
    }

    pub fn blame(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// S1 and S4: who believes that it leads, and who is at work. A frozen process does nothing.
    fn judge_work(&mut self) {
        let those = |what: fn(&Member) -> bool| -> Vec<usize> {
            self.members.iter().enumerate().filter(|(_, member)| what(member)).map(|(i, _)| i).collect()
        };
        let working = those(Member::acts);
        let believing = those(|member| member.term.as_ref().is_some_and(Term::is_valid));
        if working.len() > 1 {
            self.blame(format!("S1: at work at once: {working:?}"));
        }
        if believing.len() > 1 {
            self.blame(format!("S1: each believes that it leads: {believing:?}"));
        }
    }

    /// What a write of the Lease must not do.
    pub fn judge_write(&mut self, by: usize, life: u64, write: &Write, lease: &Value) {
        self.counts.count(*write == Write::Renewed, "renewals");
        self.counts.count(matches!(write, Write::Released { .. }), "releases");
        self.counts.count(matches!(write, Write::Acquired { free: true }), "elections by release");
        self.counts.count(matches!(write, Write::Acquired { free: false }), "elections by expiry");
        self.counts.count(*write == Write::Created, "Leases created");
        if *write == Write::Created {
            // Another Lease than before.
            self.members.iter_mut().for_each(|member| member.saw_lease = false);
        }
        match write {
            Write::Released { anothers: true, .. } => {
                self.blame(format!("rule 3: otter-{by} has released what another holds"));
            }
            Write::Released { .. } if self.members[by].life == life && self.members[by].acts() => {
                self.blame(format!("S5: otter-{by} has released while it works"));
            }
            Write::Released { asked: false, .. } if self.members[by].life == life && !self.members[by].told => {
                self.blame(format!("rule 3: otter-{by} has released a term that nobody asked to end"));
            }
            Write::Created | Write::Acquired { .. } => {
                let others = self.members.iter().enumerate().filter(|(i, member)| *i != by && member.acts());
                let others: Vec<usize> = others.map(|(i, _)| i).collect();
                if !others.is_empty() {
                    self.blame(format!("S1: otter-{by} takes the Lease while at work: {others:?}"));
                }
            }
            Write::Released { .. } | Write::Renewed => {}
        }
        let spec = &lease["spec"];
        let whole = ["holderIdentity", "leaseDurationSeconds", "acquireTime", "renewTime", "leaseTransitions"];
        if let Some(missing) = whole.iter().find(|field| spec[**field].is_null()) {
            self.blame(format!("otter-{by} has written a Lease without {missing}"));
        }
    }
}
