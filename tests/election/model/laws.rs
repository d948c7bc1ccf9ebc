//! What must hold in every state.

use super::world::{End, Life, World};

/// Named as the invariants and rules of the election's contract are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Law {
    /// S1: one candidate at most believes that it leads.
    OneBelieves,
    /// S1: one work at most runs, unless one of them stands still or is just waking.
    OneWorks,
    /// S2: a fenced resource takes no write of a term after one of a later term, and refuses no valid leader.
    Fenced,
    /// S3: each term's token is higher than that of all before it, over deletion of the Lease, too.
    TokenRises,
    /// S4: of two processes with one identity, one at most believes that it leads.
    OneIncarnation,
    /// S5: a release is written when the work has ended.
    WorkEndsFirst,
    /// Rule 2: who finds that it stood still believes nothing before a write is acknowledged.
    DoubtAfterAPause,
    /// Rule 3: only one's own Lease is released.
    OnlyOnesOwn,
    /// Rule 4: who is shown that the Lease is not its own has no grace.
    NoGraceForTheDeposed,
    /// Rule 3: a candidate that is not ready takes no Lease, and ends what it leads.
    OnlyTheReady,
    /// Rule 5: who took the Lease in another way is waited for like everybody.
    StrangersToo,
    /// Rule 8: no request of a leader lasts longer than its leadership.
    WithinTheBudget,
    /// Rule 8: one request that fails costs no leadership.
    OneFailureIsSurvived,
}

impl World {
    /// Looks at the state as a whole; what concerns single steps is looked at where they are made.
    pub fn judge(&mut self) {
        let believers: Vec<usize> = (0..self.members.len()).filter(|&i| self.believes(i)).collect();
        if let [a, b, ..] = believers[..] {
            let identity = |i: usize| self.members[i].elector.candidate().identity();
            let law = if identity(a) == identity(b) { Law::OneIncarnation } else { Law::OneBelieves };
            self.break_law(law);
        }
        let at_work = self.members.iter().filter(|member| member.work.is_some() && member.life == Life::Up);
        if at_work.count() > 1 {
            self.break_law(Law::OneWorks);
        }
        for i in 0..self.members.len() {
            self.write_to_the_resource(i);
        }
    }

    /// Living work that does not stand still writes whenever it can.
    fn write_to_the_resource(&mut self, i: usize) {
        let believes = self.believes(i);
        let member = &self.members[i];
        let Some(work) = member.work.as_ref().filter(|_| member.runs()) else { return };
        if work.token < self.resource.token {
            self.resource.has_refused = true;
            if believes {
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

    /// After a step in which candidate `i` was shown a Lease that another holds, or none.
    pub fn judge_deposed(&mut self, i: usize) {
        let now = self.local(i);
        let has_grace = |end: End| !matches!(end, End::By(kill_at) if kill_at <= now);
        if self.members[i].work.as_ref().is_some_and(|work| has_grace(work.end)) {
            self.break_law(Law::NoGraceForTheDeposed);
        }
    }
}
