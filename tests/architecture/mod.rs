//! The house itself: which room may know which, what is generated, and that no test file is forgotten.

mod directions;
mod generated;
mod tests;
