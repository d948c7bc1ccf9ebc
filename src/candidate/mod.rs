//! The candidate program: an election in front of a task, of a command, or beside an app.
//!
//! [`run`] leads with the sample task, as the original Go program of this name does. [`exec`] runs any command only while
//! its process leads, [`sidecar`] tells an app beside it whether it leads; [`serve`] is what both say by HTTP. [`observe`] prints
//! who leads and takes no part. [`install`] puts this very program where a container without it can start it. [`lock`] proves that
//! what ran before in a container is dead.

mod access;
pub mod activity;
pub mod app;
mod children;
pub mod exec;
mod flags;
mod heard;
pub mod install;
mod killer;
pub mod lock;
mod message;
mod node;
pub mod observe;
pub mod promise;
pub mod run;
pub mod sample;
pub mod serve;
pub mod sidecar;
mod signals;
mod starter;
mod supervisor;

pub use flags::{CandidateFlags, FlagError, HttpFlags};
