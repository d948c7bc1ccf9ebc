//! The calm after the faults: no further fault, no paused candidate, and every step happens as soon as it can.

use super::family::{Family, Fault};
use super::step::Step;
use super::world::{Life, SECOND, World};

/// A bit more than two lease durations: one until a standby observes a missed renewal, or until a candidate has
/// abstained; then another.
const LIMIT: u64 = 15 * SECOND;
/// The additional wait under suspension: one lease duration.
const SUSPENDED: u64 = 6 * SECOND;

impl World {
    /// Whether a candidate leads in the end. Calls `trace` before each step.
    ///
    /// Meanwhile an annotation of the Lease changes every second.
    pub fn recovers(&self, family: &Family, mut trace: impl FnMut(&World, Step)) -> bool {
        let mut world = self.clone();
        let start = world.now;
        let mut annotated = start;
        world.faults = u8::MAX;
        // Without a ready program no candidate leads. A single ready one must be enough.
        if let Some(first) = world.members.iter().position(|member| member.life != Life::Finished)
            && world.members.iter().all(|member| !member.is_ready || member.life == Life::Finished)
        {
            world.advance(family, Step::HitCandidate(Fault::Ready, first));
        }
        let limit = LIMIT + if family.allows(Fault::Suspend) { SUSPENDED } else { 0 };
        for _ in 0..10_000 {
            let leads = |i| world.believes_leading(i) && world.members[i].life == Life::Up;
            if (0..world.members.len()).any(leads) || world.members.iter().all(|m| m.life == Life::Finished) {
                return true;
            }
            let mut next = world.urgent();
            next.extend(world.optional(family, true));
            // The candidates must recover without the operator's help.
            next.retain(|next| *next != Step::ReleaseDead);
            let next = if let Some(&next) = next.first() {
                next
            } else if world.lease.is_some() && world.now >= annotated + SECOND {
                annotated = world.now;
                Step::HitLease(Fault::Annotate)
            } else if world.now > start + limit {
                return false;
            } else {
                Step::Pass
            };
            trace(&world, next);
            world.faults = u8::MAX;
            world.advance(family, next);
            if world.broken.is_some() {
                return false;
            }
        }
        false // time no longer advances
    }
}
