//! A candidate's process with its clocks and its work. It can be frozen.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc::UnboundedReceiver;

use super::network::Network;
use super::plan::Plan;
use super::world::Shared;
use crate::subject::campaign::{Campaign, Clients, LeaderGuard, Stop};
use crate::subject::election::{Loss, Moment};
use crate::subject::runtime::clock::Clock;

/// A signal to a process.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    Terminate,
    StepDown,
}

/// A local clock with its own rate and offset.
pub struct LocalClock {
    world: Shared,
    member: usize,
    rate: u64,
    ahead: u64,
}

impl LocalClock {
    pub fn new(world: &Shared, member: usize) -> Self {
        let rate = world.lock().plan.rates[member];
        Self { world: world.clone(), member, rate, ahead: 1_000_000 * (member as u64 + 1) }
    }
}

impl Clock for LocalClock {
    fn since_boot(&self) -> Duration {
        let elapsed = self.world.elapsed().as_micros() as u64;
        Duration::from_micros(self.ahead + elapsed * self.rate / 1_000)
    }

    fn wall_micros(&self) -> i64 {
        let step = self.world.lock().members[self.member].wall_step;
        1_770_000_000_000_000 + self.world.elapsed().as_micros() as i64 + step * 1_000
    }

    fn sleep_until(&self, deadline: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        if self.since_boot() >= deadline {
            return Box::pin(std::future::ready(()));
        }
        let local = (deadline.as_micros() as u64).saturating_sub(self.ahead);
        let at = self.world.at(Duration::from_micros(local * 1_000 / self.rate + 1));
        Box::pin(tokio::time::sleep_until(at))
    }
}

/// Polls the process unless it is frozen.
pub struct Freezable<F> {
    pub world: Shared,
    pub member: usize,
    pub process: Pin<Box<F>>,
}

impl<F: Future> Future for Freezable<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let wakes = {
            let mut world = self.world.lock();
            let member = &mut world.members[self.member];
            if member.frozen {
                member.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            std::mem::take(&mut member.waking)
        };
        let polled = self.process.as_mut().poll(context);
        if wakes {
            self.world.check_waking(self.member);
        }
        polled
    }
}

/// Returns a candidate's identity.
pub fn name_of(plan: &Plan, member: usize) -> String {
    format!("otter-{}", if plan.twins && member == 1 { 0 } else { member })
}

/// Runs one life of a candidate, from its start to its exit.
pub async fn run_process(world: Shared, member: usize, life: u64, signals: UnboundedReceiver<Signal>) {
    let clock: Arc<dyn Clock> = Arc::new(LocalClock::new(&world, member));
    let client = || Client::new(Network { world: world.clone(), member, life }, "river");
    let clients = Clients { requests: client(), watch: client() };
    let (identity, timing, create, in_place, has_lock) = {
        let plan = &world.lock().plan;
        let has_lock = !(plan.in_place && plan.twins && member == 1);
        (name_of(plan, member), plan.timing, plan.create, plan.in_place, has_lock)
    };
    let mut builder = Campaign::builder("river", "weir")
        .identity(identity)
        .incarnation(if has_lock { format!("uid-{member}/app/{life}") } else { format!("uid-0/-/{life}") })
        .revision(format!("r{}", member % 2))
        .timing(timing)
        .create_lease(create)
        .clock(clock.clone());
    if in_place && has_lock {
        builder = builder.dead_predecessors(format!("uid-{member}/app/"));
    }
    let (campaign, driver) = builder.split(clients).expect("nothing is missing");
    futures::future::join(driver, run_owner(world, member, campaign, clock, signals)).await;
}

/// Runs the owner of the campaign, which works while it leads.
async fn run_owner(
    world: Shared,
    member: usize,
    campaign: Campaign,
    clock: Arc<dyn Clock>,
    mut signals: UnboundedReceiver<Signal>,
) {
    loop {
        tokio::select! {
            biased;
            Some(signal) = signals.recv() => handle_signal(&campaign, signal),
            guard = campaign.lead() => match guard {
                Some(guard) => work(&world, member, guard, &campaign, &*clock, &mut signals).await,
                None => return,
            },
        }
    }
}

fn handle_signal(campaign: &Campaign, signal: Signal) {
    match signal {
        Signal::Terminate => campaign.leave(),
        Signal::StepDown => campaign.step_down(),
    }
}

/// Works until it must stop, takes some of the allowed time, and reports its end.
async fn work(
    world: &Shared,
    member: usize,
    guard: LeaderGuard,
    campaign: &Campaign,
    clock: &dyn Clock,
    signals: &mut UnboundedReceiver<Signal>,
) {
    let mut stops = guard.stops();
    stops.mark_changed();
    // Mode Exec checks once more before it starts the command.
    if !guard.is_valid() {
        world.lock().members[member].has_ended_term = true;
        return guard.end();
    }
    world.start_work(member, guard.term());
    let mut end: Option<Moment> = None;
    loop {
        tokio::select! {
            biased;
            Ok(()) = stops.changed() => if let Some(stop) = *stops.borrow_and_update() {
                end = Some(planned_end(world, member, stop, end, clock));
            },
            () = sleep_until(clock, end) => break,
            Some(signal) = signals.recv() => handle_signal(campaign, signal),
        }
    }
    world.end_work(member);
    guard.end();
}

/// Returns when the work will end: at `kill_at` at the latest, if there is one.
fn planned_end(world: &Shared, member: usize, stop: Stop, planned: Option<Moment>, clock: &dyn Clock) -> Moment {
    let now = Moment::since_boot(clock.since_boot());
    world.note(|| format!("otter-{member} must stop: {:?}", stop.loss));
    let (uses_whole_grace, pause) = {
        let mut world = world.lock();
        if stop.loss == Loss::Deposed && stop.kill_at.is_none_or(|kill_at| kill_at > now) {
            world.fail(format!("otter-{member} is deposed, but may keep working until {:?}", stop.kill_at));
        }
        (world.random.chance(50), world.random.below(6_000))
    };
    let own_end = planned.unwrap_or(now + Duration::from_millis(pause));
    match stop.kill_at {
        Some(kill_at) if uses_whole_grace => kill_at,
        Some(kill_at) => kill_at.min(own_end),
        None => own_end,
    }
}

async fn sleep_until(clock: &dyn Clock, at: Option<Moment>) {
    match at {
        Some(at) => clock.sleep_until(at.elapsed_since_boot()).await,
        None => std::future::pending().await,
    }
}
