//! The candidate program: an election in front of a task, of a command, or beside an app.
//!
//! Each command of the program has a module:
//! - without a command: [`run`] leads with the sample task, as the original Go program of this name does.
//! - `exec`: [`exec`] runs any command only while its process leads.
//! - `run`: [`sidecar`] reports to an app beside it whether it leads.
//! - `observe`: [`observe`] prints the leader and takes no part in the election.
//! - `install`: [`install`] copies this program to a place from which a container without it can start it.
//! - `sample`: [`sample`] prints a line every 10 s, without an election.
//!
//! [`serve`] is the HTTP server of `exec` and `run`. [`lock`] proves that the previous process of a container is dead.

use k8sensus::campaign;
use {k8sensus_election as election, k8sensus_protocol as protocol, k8sensus_runtime as runtime};

mod access;
pub mod activity;
pub mod app;
mod children;
pub mod exec;
mod flags;
pub mod install;
mod killer;
pub mod lock;
mod message;
mod node;
pub mod observe;
pub mod promise;
mod response;
pub mod run;
pub mod sample;
pub mod serve;
pub mod sidecar;
mod signals;
mod starter;
mod stops;
mod supervisor;

pub use flags::{CandidateFlags, FlagError, HttpFlags};
