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
