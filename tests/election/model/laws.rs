//! The laws that must hold in every state.

use super::world::{End, Life, World};

/// What the module docs of `src/election` guarantee, as statements that the model can check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Law {
    /// At most one candidate believes that it leads.
    OneLeader,
    /// The work of at most one candidate runs, apart from candidates that are paused or waking.
    OneWork,
    /// A fenced resource accepts no write of a term after a write of a later term, and refuses no valid leader.
    Fenced,
    /// Each term's token is higher than all earlier ones, even if the Lease is deleted in between.
    TokenRises,
    /// Of several processes with one identity, at most one believes that it leads.
    OneIncarnation,
    /// A release is written only after the work has ended.
    WorkEndsFirst,
    /// After a pause a candidate does not believe that it leads before a write is acknowledged.
    InvalidAfterPause,
    /// Only the holder releases the Lease.
    OnlyOwnReleased,
    /// A leader that observes another holder, or none, has no grace.
    NoGraceIfDeposed,
    /// A candidate that is not ready acquires no Lease and stops leading.
    OnlyReadyLead,
    /// The term of a foreign holder is respected.
    ForeignTermRespected,
    /// No request of a leader outlasts its term.
    WithinTheTerm,
    /// One failed request does not end leadership.
    OneFailureIsSurvived,
}

impl World {
    /// Checks the whole state. Single steps are checked where they happen.
    pub fn check_state(&mut self) {
        let believers: Vec<usize> = (0..self.members.len()).filter(|&i| self.believes_leading(i)).collect();
        if let [a, b, ..] = believers[..] {
            let identity = |i: usize| self.members[i].elector.candidate().identity();
            let law = if identity(a) == identity(b) { Law::OneIncarnation } else { Law::OneLeader };
            self.break_law(law);
        }
        let at_work = self.members.iter().filter(|member| member.work.is_some() && member.life == Life::Up);
        if at_work.count() > 1 {
            self.break_law(Law::OneWork);
        }
        for i in 0..self.members.len() {
            self.write_to_the_resource(i);
        }
    }

    /// Writes to the resource for candidate `i`, if its work runs.
    fn write_to_the_resource(&mut self, i: usize) {
        let believes_leading = self.believes_leading(i);
        let member = &self.members[i];
        let Some(work) = member.work.as_ref().filter(|_| member.runs()) else { return };
        if work.token < self.resource.token {
            self.resource.has_refused = true;
            if believes_leading {
                self.break_law(Law::Fenced);
            }
            return;
        }
        let (token, term) = (work.token, work.order);
        if term < self.resource.term {
            self.break_law(Law::Fenced);
        }
        self.resource.token = token;
        self.resource.term = term;
    }

    /// Checks candidate `i` after it observed a Lease that it does not hold, or none.
    pub fn check_deposed(&mut self, i: usize) {
        let now = self.local(i);
        let has_grace = |end: End| !matches!(end, End::By(kill_at) if kill_at <= now);
        if self.members[i].work.as_ref().is_some_and(|work| has_grace(work.end)) {
            self.break_law(Law::NoGraceIfDeposed);
        }
    }
}
