// The type of a flaw. The build script includes this file.

/// A change of the code that breaks one rule.
#[derive(Debug)]
#[allow(dead_code, reason = "the build script reads some of its fields")]
pub struct Flaw {
    pub name: &'static str,
    pub rule: Rule,
    /// The path below `src`.
    pub file: &'static str,
    /// The replaced code, which occurs once in the file: an expression, or whole statements.
    pub original: &'static str,
    pub flawed: &'static str,
    pub found_by: FoundBy,
}

/// A rule on which the guarantees of `src/election` rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A term ends at the send of its last acknowledged write plus the renew deadline.
    TermCountsFromSend,
    /// After a pause a leader is not valid until a write succeeds, and its deadlines stay where they were.
    PausesCount,
    /// On a request the leader stops its work, and releases its own Lease after that.
    WorkEndsBeforeRelease,
    /// A candidate that is not ready acquires no Lease and does not keep one.
    OnlyReadyLead,
    /// A leader stops at once if another incarnation holds the Lease, or none, and in time if the Lease was deleted.
    DeposedStops,
    /// A candidate waits for a term that it observes, then acquires by compare-and-swap. No wait lasts forever.
    WaitThenSwap,
    /// The fencing token rises from term to term.
    TokenRises,
    /// A candidate that observed the deletion of the Lease waits before it creates the Lease.
    CreationWaits,
    /// No request outlasts the term, and one failed request does not end it.
    RetriesWithinTerm,
    /// A Lease is acquired before its expiry only on proof that its holder is dead.
    DeathIsProven,
}

impl Rule {
    #[allow(dead_code, reason = "the build script does not read it")]
    pub const ALL: [Self; 10] = [
        Self::TermCountsFromSend,
        Self::PausesCount,
        Self::WorkEndsBeforeRelease,
        Self::OnlyReadyLead,
        Self::DeposedStops,
        Self::WaitThenSwap,
        Self::TokenRises,
        Self::CreationWaits,
        Self::RetriesWithinTerm,
        Self::DeathIsProven,
    ];
}

/// The kind of test that must find the flaw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// The exhaustive model of the election, in this family of faults.
    Model(&'static str),
    /// The model, in this family, but not a thousand seeds of the simulation: its programs are always ready, and its
    /// clocks seldom need the margin after a deletion.
    ModelAlone(&'static str),
    /// The simulation of the campaign, by seeds.
    Simulation,
}

// Code in `election` that several flaws replace.

pub const LOSS: &str = r#"match self.role {
            Role::Leading { .. } | Role::Leaving { .. } if self.is_deposed() => Some((Loss::Deposed, now)),
            Role::Leading { valid_until } | Role::Leaving { valid_until } if now >= valid_until => {
                Some((Loss::DeadlinePassed, valid_until + self.timing.stop_grace()))
            }
            Role::Lost { kill_at } if kill_at > now && self.is_deposed() => Some((Loss::Deposed, now)),
            _ => None,
        }"#;

pub const IS_MINE: &str = r#"snapshot.record.holder == self.candidate.identity()
            && snapshot.incarnation.as_deref() == Some(self.candidate.incarnation())
            // A client that knows no incarnations keeps the annotation, but its renewTime is not this process's.
            && snapshot.record.renew_time.is_some_and(|time| {
                Some(time) == self.confirmed_time || self.pending.as_ref().is_some_and(|(_, pending)| *pending == time)
            })"#;

pub const STOP_AFTER_DELETION: &str = "renewed + Timing::work_limit(wait).saturating_sub(self.timing.stop_grace())";

pub const TAKEABLE_AT: &str = "Some(*takeable_at + self.candidate.hold_back(&snapshot.preference, &self.timing))";
