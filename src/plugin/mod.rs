//! The kubectl plugin `kubectl k8sensus`: shows ElectionGroups, explains what needs action, and acts on them.
//!
//! - [`fetch`] reads the objects of a group. Parts that may not be read do not hide the others.
//! - [`picture`] computes what is shown from these objects, and [`show`] makes text of it for a given width. Both are
//!   pure.
//! - [`act`] and [`step_down`] change a group, [`logs`] and [`kubectl`] reach the pod that leads.
//! - [`failure`] has everything that can go wrong, as one sentence with a remedy.
//!
//! The leader is that of the Lease, which the pods write, rather than that of the status, which is as old as the
//! operator's last reconcile. So reads work while the operator is away.

use std::ffi::OsString;
use std::process::ExitCode;

use k8sensus_runtime::{cli, tls};
use {k8sensus_api as api, k8sensus_protocol as protocol};

pub mod act;
pub mod commands;
pub mod connect;
pub mod failure;
pub mod fetch;
pub mod flags;
pub mod kubectl;
pub mod logs;
pub mod output;
pub mod picture;
pub mod show;
pub mod step_down;

/// Runs the plugin with these arguments, of which the first is the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match cli::parse::<flags::Arguments>(arguments) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    tls::use_ring();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return cli::failure(format_args!("cannot start the async runtime: {error}")),
    };
    match runtime.block_on(commands::run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => cli::failure(failure),
    }
}
