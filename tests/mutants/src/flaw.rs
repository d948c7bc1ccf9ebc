// What a flaw is. Shared with the build script, which includes this text.

/// One way to break one rule.
#[derive(Debug)]
#[allow(dead_code, reason = "the build script reads some of its fields")]
pub struct Flaw {
    pub name: &'static str,
    /// Of the election's contract.
    pub rule: u8,
    /// Below `src`.
    pub file: &'static str,
    /// Occurs once in the file: an expression, or whole statements.
    pub original: &'static str,
    pub flawed: &'static str,
    pub found_by: FoundBy,
}

/// Which kind of test has to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// The model of the election, exhaustively, in this family of faults.
    Model(&'static str),
    /// A simulation of the campaign on its wire, by seeds.
    Simulation,
}

// Places in `election/elector.rs` that several flaws change.

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
            // A client that knows no incarnations keeps the annotation; but these times are none of ours.
            && snapshot.record.renew_time.is_some_and(|time| {
                Some(time) == self.shown || self.pending.as_ref().is_some_and(|(_, pending)| *pending == time)
            })"#;

pub const STOP_AFTER_DELETION: &str = "renewed + Timing::work_limit(wait).saturating_sub(self.timing.stop_grace())";

pub const TAKEABLE_AT: &str = "Some(*takeable_at + self.candidate.hold_back(&snapshot.preference, &self.timing))";
