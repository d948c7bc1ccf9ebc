//! Runs the checker on a family and reports the result.

use std::fmt;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model, Path, Property};

use super::family::Family;
use super::laws::Law;
use super::step::Step;
use super::world::{SECOND, World};

/// The model of a family, for the checker.
#[derive(Clone)]
struct Election(Family);

impl Model for Election {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.0)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Step>) {
        if world.broken.is_some() || self.is_over(world) {
            return;
        }
        let urgent = world.urgent();
        if urgent.is_empty() {
            actions.push(Step::Pass);
        }
        actions.extend(world.optional(&self.0, urgent.is_empty()));
        actions.extend(urgent);
        if world.faults > 0 && world.now <= self.0.faults_until * SECOND {
            actions.extend(world.faults(&self.0));
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        next.advance(&self.0, step);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let keeps = |name, condition| Property::<Self>::always(name, condition);
        vec![
            keeps("at most one candidate believes that it leads", |_, w| w.broken != Some(Law::OneLeader)),
            keeps("at most one work runs", |_, w| w.broken != Some(Law::OneWork)),
            keeps("a fenced resource accepts writes in the order of terms", |_, w| w.broken != Some(Law::Fenced)),
            keeps("the token rises with each term", |_, w| w.broken != Some(Law::TokenRises)),
            keeps("an identity is one incarnation", |_, w| w.broken != Some(Law::OneIncarnation)),
            keeps("the work ends before the release", |_, w| w.broken != Some(Law::WorkEndsFirst)),
            keeps("not valid after a pause", |_, w| w.broken != Some(Law::InvalidAfterPause)),
            keeps("only the holder releases the Lease", |_, w| w.broken != Some(Law::OnlyOwnReleased)),
            keeps("only a ready candidate leads", |_, w| w.broken != Some(Law::OnlyReadyLead)),
            keeps("a deposed leader has no grace", |_, w| w.broken != Some(Law::NoGraceIfDeposed)),
            keeps("a foreign holder's term is respected", |_, w| w.broken != Some(Law::ForeignTermRespected)),
            keeps("no request outlasts the term", |_, w| w.broken != Some(Law::WithinTheTerm)),
            keeps("one failure does not end leadership", |_, w| w.broken != Some(Law::OneFailureIsSurvived)),
            keeps(LIVE, |model, w| !model.is_over(w) || w.broken.is_some() || w.recovers(&model.0, |_, _| {})),
            Property::sometimes(LIVELY, |_, w: &World| w.terms > 1),
        ]
    }
}

const LIVE: &str = "a candidate leads after the faults";
const LIVELY: &str = "the Lease changes hands";

impl Election {
    fn is_over(&self, world: &World) -> bool {
        world.now >= self.0.horizon * SECOND
    }
}

/// The result of a check.
pub struct Report {
    pub family: &'static str,
    pub states: usize,
    pub depth: usize,
    pub duration: Duration,
    /// The broken law, and the shortest trace to it.
    pub broken: Option<(&'static str, Vec<String>)>,
    /// Whether the Lease ever changed hands. Otherwise the check proves nothing.
    #[allow(dead_code, reason = "mutants need not be lively")]
    pub is_lively: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, states, depth, duration, .. } = self;
        write!(f, "{family}: {states} states, {depth} steps deep, {:.1} s", duration.as_secs_f64())
    }
}

/// Checks every state of `family`, up to the first bad one.
pub fn check(family: Family) -> Report {
    let name = family.name;
    let model = Election(family);
    let start = Instant::now();
    let checker = model.clone().checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let duration = start.elapsed();
    let mut found = checker.discoveries();
    let is_lively = found.remove(LIVELY).is_some();
    let broken = found.into_iter().next().map(|(law, path)| (law, trace(&model.0, law, path)));
    let states = checker.unique_state_count();
    Report { family: name, states, depth: checker.max_depth(), duration, broken, is_lively }
}

fn trace(family: &Family, law: &str, path: Path<World, Step>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut show = |world: &World, step: Step| {
        // The times show it.
        if step != Step::Pass {
            lines.push(format!("{:>7.3} s  {}", world.now as f64 / SECOND as f64, world.describe(step)));
        }
    };
    let steps = path.into_vec();
    for (world, step) in &steps {
        if let Some(step) = step {
            show(world, *step);
        }
    }
    if let (true, Some((last, _))) = (law == LIVE, steps.last()) {
        last.recovers(family, show);
    }
    lines
}
