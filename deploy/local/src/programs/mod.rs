//! Finds the programs of a cluster, and builds those that are missing.
//!
//! The order is: the folder named by `KUBEBUILDER_ASSETS`, the cache, `PATH` at the right version, a build from Go
//! modules. Release files are not downloaded: that would need hosts that many sandboxes and CI networks block, and a
//! digest of every file for every architecture. The module proxy with `go.sum` is verified and works everywhere.

mod build;
mod source;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use source::go_program;

pub(crate) use k8sensus_prerequisites::recipe::{CNI, HELM, KUBERNETES, ProgramSet};
use k8sensus_prerequisites::{NODE_SETS, ensure_cluster, find, is_program, pause};
pub(crate) use k8sensus_prerequisites::{PAUSE, search_path};

use crate::error::Error;
use crate::instance::Mode;

/// Returns the programs of instances of this mode, each with its file; builds what is missing.
pub(crate) fn for_mode(mode: Mode) -> Result<BTreeMap<String, PathBuf>, Error> {
    match mode {
        Mode::ControlPlane => obtain(&[&KUBERNETES], mode),
        Mode::Node => obtain(&NODE_SETS, mode),
    }
}

pub(crate) fn helm() -> Result<PathBuf, Error> {
    let mut found = obtain(&[&HELM], Mode::ControlPlane)?;
    Ok(found.remove("helm").unwrap_or_default())
}

fn obtain(sets: &[&ProgramSet], mode: Mode) -> Result<BTreeMap<String, PathBuf>, Error> {
    let mut found = BTreeMap::new();
    let mut missing = Vec::new();
    for set in sets {
        match find(set) {
            Some(programs) => found.extend(programs),
            None => missing.push(*set),
        }
    }
    let pause = pause();
    let pause_missing = mode == Mode::Node && !is_program(&pause);
    // Checked before any build, so that a missing `ip` is not reported only after ten minutes.
    ensure_cluster(sets, mode == Mode::Node).map_err(|missing| Error::Prerequisites { missing })?;
    for (done, set) in missing.iter().enumerate() {
        build::set(set, done + 1, missing.len())?;
        found.extend(find(set).unwrap_or_default());
    }
    if pause_missing {
        build::pause(&pause)?;
    }
    if mode == Mode::Node {
        found.insert(PAUSE.to_owned(), pause);
    }
    Ok(found)
}
