//! What follows when the faults are over: no fault more, nobody stands still, everything takes place at once.

use super::family::{Family, Fault};
use super::happening::Happening;
use super::world::{Life, SECOND, World};

/// Two leases and a bit: one may have passed when a standby that missed the last renewal learns of it, or when who
/// stepped down has abstained; then another.
const LIMIT: u64 = 15 * SECOND;
/// As much longer do candidates wait that were told that nobody is to lead: a lease.
const SUSPENDED: u64 = 6 * SECOND;

impl World {
    /// Whether somebody leads in the end. `tell` is shown each step.
    ///
    /// The Lease's annotations go on being changed every second, as harmless programs do.
    pub fn recovers(&self, family: &Family, mut tell: impl FnMut(&World, Happening)) -> bool {
        let mut world = self.clone();
        let start = world.now;
        let mut annotated = start;
        world.faults = u8::MAX;
        // Where all programs are silent nobody leads, and where one asks the others keep nobody from it.
        if let Some(first) = world.members.iter().position(|member| member.life != Life::Finished)
            && world.members.iter().all(|member| !member.is_ready || member.life == Life::Finished)
        {
            world.happen(family, Happening::Befall(Fault::Ask, first));
        }
        let limit = LIMIT + if family.allows(Fault::Suspend) { SUSPENDED } else { 0 };
        for _ in 0..10_000 {
            let leads = |i| world.believes(i) && world.members[i].life == Life::Up;
            if (0..world.members.len()).any(leads) || world.members.iter().all(|m| m.life == Life::Finished) {
                return true;
            }
            let mut next = world.urgent();
            next.extend(world.leisurely(family, true));
            // An operator who helps would hide that nobody helps himself.
            next.retain(|next| *next != Happening::ReleaseDead);
            let next = if let Some(&next) = next.first() {
                next
            } else if world.lease.is_some() && world.now >= annotated + SECOND {
                annotated = world.now;
                Happening::Edit(Fault::Annotate)
            } else if world.now > start + limit {
                return false;
            } else {
                Happening::Pass
            };
            tell(&world, next);
            world.faults = u8::MAX;
            world.happen(family, next);
            if world.broken.is_some() {
                return false;
            }
        }
        false // time no longer goes on
    }
}
