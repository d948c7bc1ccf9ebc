//! Runs the checker over a family, and says what it found in words.

use std::fmt;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model, Path, Property};

use super::family::Family;
use super::happening::Happening;
use super::laws::Law;
use super::world::{SECOND, World};

/// A family as the checker sees it.
#[derive(Clone)]
struct Election(Family);

impl Model for Election {
    type State = World;
    type Action = Happening;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.0)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Happening>) {
        if world.broken.is_some() || self.is_over(world) {
            return;
        }
        let urgent = world.urgent();
        if urgent.is_empty() {
            actions.push(Happening::Pass);
        }
        actions.extend(world.leisurely(&self.0, urgent.is_empty()));
        actions.extend(urgent);
        if world.faults > 0 && world.now <= self.0.faults_until * SECOND {
            actions.extend(world.faults(&self.0));
        }
    }

    fn next_state(&self, world: &World, happening: Happening) -> Option<World> {
        let mut next = world.clone();
        next.happen(&self.0, happening);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let keeps = |name, condition| Property::<Self>::always(name, condition);
        vec![
            keeps("S1: at most one candidate believes that it leads", |_, w| w.broken != Some(Law::OneBelieves)),
            keeps("S1: at most one work runs", |_, w| w.broken != Some(Law::OneWorks)),
            keeps("S2: a fenced resource takes terms in their order", |_, w| w.broken != Some(Law::Fenced)),
            keeps("S3: the token rises with each term", |_, w| w.broken != Some(Law::TokenRises)),
            keeps("S4: an identity is one incarnation", |_, w| w.broken != Some(Law::OneIncarnation)),
            keeps("S5: the work ends before the release", |_, w| w.broken != Some(Law::WorkEndsFirst)),
            keeps("rule 2: in doubt after standing still", |_, w| w.broken != Some(Law::DoubtAfterAPause)),
            keeps("rule 3: only one's own Lease is released", |_, w| w.broken != Some(Law::OnlyOnesOwn)),
            keeps("rule 3: only who is ready leads", |_, w| w.broken != Some(Law::OnlyTheReady)),
            keeps("rule 4: no grace for the deposed", |_, w| w.broken != Some(Law::NoGraceForTheDeposed)),
            keeps("rule 5: a stranger's term is waited for", |_, w| w.broken != Some(Law::StrangersToo)),
            keeps("rule 8: no request outlasts the leadership", |_, w| w.broken != Some(Law::WithinTheBudget)),
            keeps("rule 8: one failure costs no leadership", |_, w| w.broken != Some(Law::OneFailureIsSurvived)),
            keeps(LIVE, |model, w| !model.is_over(w) || w.broken.is_some() || w.recovers(&model.0, |_, _| {})),
            Property::sometimes(LIVELY, |_, w: &World| w.terms > 1),
        ]
    }
}

const LIVE: &str = "when the faults are over, somebody leads";
const LIVELY: &str = "the Lease changes hands";

impl Election {
    fn is_over(&self, world: &World) -> bool {
        world.now >= self.0.horizon * SECOND
    }
}

/// What a check has found.
pub struct Report {
    pub family: &'static str,
    pub states: usize,
    pub depth: usize,
    pub took: Duration,
    /// What did not hold, and the shortest way there.
    pub broken: Option<(&'static str, Vec<String>)>,
    /// Whether leadership ever passed on: a model in which nothing happens proves nothing.
    #[allow(dead_code, reason = "flawed copies need not be lively")]
    pub is_lively: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, states, depth, took, .. } = self;
        write!(f, "{family}: {states} states, {depth} steps deep, {:.1} s", took.as_secs_f64())
    }
}

/// Looks at every state of `family`, or at those up to the first that is bad.
pub fn check(family: Family) -> Report {
    let name = family.name;
    let model = Election(family);
    let start = Instant::now();
    let checker = model.clone().checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let took = start.elapsed();
    let mut found = checker.discoveries();
    let is_lively = found.remove(LIVELY).is_some();
    let broken = found.into_iter().next().map(|(law, path)| (law, trace(&model.0, law, path)));
    Report { family: name, states: checker.unique_state_count(), depth: checker.max_depth(), took, broken, is_lively }
}

fn trace(family: &Family, law: &str, path: Path<World, Happening>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut tell = |world: &World, happening: Happening| {
        // Time's own steps show in the times.
        if happening != Happening::Pass {
            lines.push(format!("{:>7.3} s  {}", world.now as f64 / SECOND as f64, world.describe(happening)));
        }
    };
    let steps = path.into_vec();
    for (world, happening) in &steps {
        if let Some(happening) = happening {
            tell(world, *happening);
        }
    }
    if let (true, Some((last, _))) = (law == LIVE, steps.last()) {
        last.recovers(family, tell);
    }
    lines
}
