//! The architecture: allowed imports between modules, generated files, and that no test file is forgotten.

mod directions;
mod generated;
mod language;
mod modules;
mod tests;
