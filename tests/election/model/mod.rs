//! A model of the election for exhaustive checking. It runs the same [`Elector::step`] as production.
//!
//! Time advances from one due moment to the next, and stops at each full second, when late messages may arrive. Steps
//! that are due at the same time happen in every order. Faults come from a small budget, at any point. Therefore each
//! [`Family`] is finite and its check is complete: it misses no bad state within its bounds.
//!
//! The model uses `crate::subject`, so that it runs on the original and on its mutants.
//!
//! [`Elector::step`]: crate::subject::election::Elector::step

mod calm;
mod family;
mod laws;
mod member;
mod report;
mod server;
mod step;
mod world;

pub use family::Family;
pub use report::check;
