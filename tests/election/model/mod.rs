//! A model of the election around the very same [`Elector::step`] that runs in production, for exhaustive checking.
//!
//! Time is exact: it goes on from one moment at which something is due to the next, and stops at each full second, so
//! that whatever is late can come then. All that is in time happens in every order. Faults come out of a small budget,
//! at any point. That makes each [`Family`] finite, and its check complete: no bad state within its bounds is missed.
//!
//! The model is written against `crate::subject`, so that it can be run on the product and on its flawed copies.
//!
//! [`Elector::step`]: crate::subject::election::Elector::step

mod calm;
mod family;
mod happening;
mod laws;
mod member;
mod report;
mod server;
mod world;

pub use family::Family;
pub use report::check;
