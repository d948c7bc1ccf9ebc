//! The architecture: allowed imports between modules, the library's public surface and packages, generated files, and
//! that no test file is forgotten.

mod directions;
mod generated;
mod helm;
mod language;
mod modules;
mod packages;
mod public_api;
mod tests;
