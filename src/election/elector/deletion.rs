//! The deletion of a Lease that only an operator creates.
//!
//! The Lease that the operator recreates makes every candidate wait. So the leader of the deleted Lease stops
//! gracefully, and acquires the new Lease once its work has ended.

use std::time::Duration;

use super::super::event::{Action, Loss};
use super::super::moment::Moment;
use super::super::state::{Known, Role};
use super::super::timing::Timing;
use super::Elector;

impl Elector {
    /// Stops the leader of a deleted Lease gracefully: no candidate can acquire the Lease before it is recreated and
    /// its duration has passed. This extends the time to stop, but not the validity of the term ([`Action::Valid`]).
    pub(super) fn notice_deletion(&mut self, actions: &mut Vec<Action>) {
        let (Role::Leading { valid_until } | Role::Leaving { valid_until }) = self.role else { return };
        let Some((wait, renewed)) = self.wait_after_deletion().zip(self.renewed) else { return };
        let stop_at = renewed + Timing::work_limit(wait).saturating_sub(self.timing.stop_grace());
        if matches!(self.role, Role::Leading { .. }) {
            actions.push(Action::Stop { loss: Loss::LeaseDeleted, kill_at: None });
        }
        // A Lease that is recreated with a shorter duration shortens the time.
        let stop_at = if self.deleted_while_held { valid_until.min(stop_at) } else { stop_at };
        self.role = Role::Leaving { valid_until: stop_at };
        self.deleted_while_held = true;
    }

    /// Returns the minimum wait of every candidate from the deletion of the Lease to its next acquisition. `None` if
    /// the Lease was not deleted, or if candidates may create it: then they wait only for a holder that they observed.
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

    /// Whether another candidate may already lead.
    pub(super) fn is_deposed(&self) -> bool {
        !self.holds() && self.wait_after_deletion().is_none()
    }

    /// Whether every candidate still waits for this process, whose Lease was deleted and recreated. After that time,
    /// another candidate may have led unobserved, and the record may come from a further deletion.
    pub(super) fn is_awaited(&self, now: Moment) -> bool {
        let wait = self.wait_after_deletion().filter(|_| self.deleted_while_held);
        wait.zip(self.renewed).is_some_and(|(wait, renewed)| now < renewed + Timing::work_limit(wait))
    }
}
