//! The user's spec, checked: it becomes a [`Group`](group::Group), or an [`Invalid`](invalid::Invalid) that names the
//! field.

pub mod group;
pub mod injection;
pub mod invalid;
pub mod leader_service;

mod check;
mod pod;
pub(crate) mod probe;
mod schema_check;
mod timing;

pub use schema_check::{drop_nulls, prepare};
