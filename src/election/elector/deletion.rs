//! What follows from the deletion of a Lease that only an operator creates.
//!
//! The operator makes every candidate wait for a Lease that it creates again, so the leader of the deleted Lease stops in good order, and acquires the new
//! one once its work has ended.

use std::time::Duration;

use super::Elector;
use crate::election::event::{Action, Loss};
use crate::election::moment::Moment;
use crate::election::state::{Known, Role};
use crate::election::timing::Timing;

impl Elector {
    /// A Lease that was deleted ends leadership, but not at once: nobody can acquire it before it was created again and its wait
    /// has passed. What may be relied on as leadership ([`Action::Valid`]) is not extended, only the time to stop.
    pub(super) fn notice_deletion(&mut self, actions: &mut Vec<Action>) {
        let (Role::Leading { valid_until } | Role::Leaving { valid_until }) = self.role else { return };
        let Some((wait, renewed)) = self.wait_after_deletion().zip(self.renewed) else { return };
        let stop_at = renewed + Timing::work_limit(wait).saturating_sub(self.timing.stop_grace());
        if matches!(self.role, Role::Leading { .. }) {
            actions.push(Action::Stop { loss: Loss::LeaseDeleted, kill_at: None });
        }
        // A Lease that was created again with a shorter wait shortens the time.
        let stop_at = if self.deleted_while_held { valid_until.min(stop_at) } else { stop_at };
        self.role = Role::Leaving { valid_until: stop_at };
        self.deleted_while_held = true;
    }

    /// How long every candidate waits, at least, from the deletion of the Lease until it may acquire it. `None` if the Lease was
    /// not deleted, or if candidates may create it: then they wait only for a holder that they have seen.
    pub(super) fn wait_after_deletion(&self) -> Option<Duration> {
        if self.may_create {
            return None;
        }
        match &self.known {
            Known::Nothing => None,
            Known::Absent { .. } => Some(self.timing.recreation_wait()),
            Known::Lease { snapshot, .. } if snapshot.record.is_recreated() => {
                let wait = snapshot.record.duration()?.min(self.timing.recreation_wait());
                (wait >= self.timing.lease_duration()).then_some(wait)
            }
            Known::Lease { .. } => None,
        }
    }

    /// Whether another candidate may lead already.
    pub(super) fn is_deposed(&self) -> bool {
        !self.holds() && self.wait_after_deletion().is_none()
    }

    /// Whether every candidate still waits for this process, whose Lease was deleted and made again. Later, another may have
    /// acquired it without having been seen, and the record may be of a further deletion.
    pub(super) fn is_awaited(&self, now: Moment) -> bool {
        let wait = self.wait_after_deletion().filter(|_| self.deleted_while_held);
        wait.zip(self.renewed).is_some_and(|(wait, renewed)| now < renewed + Timing::work_limit(wait))
    }
}
