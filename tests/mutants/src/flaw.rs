// The type of a flaw. The build script includes this file.

/// A change of the code that breaks one rule.
#[derive(Debug)]
#[allow(dead_code, reason = "the build script reads some of its fields")]
pub struct Flaw {
    pub name: &'static str,
    /// The rule of the election's contract.
    pub rule: u8,
    /// The path below `src`.
    pub file: &'static str,
    /// The replaced code, which occurs once in the file: an expression, or whole statements.
    pub original: &'static str,
    pub flawed: &'static str,
    pub found_by: FoundBy,
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
