//! What a machine must have before the local Kubernetes or the tests can run, and how it gets there.
//!
//! As root on Debian or Ubuntu [`ensure`] installs what is missing with apt-get. Elsewhere it returns one line for each
//! missing thing, with the command that installs it. [`need`] is the only list of packages in the repository.
//!
//! This package has no dependencies. `cargo demo` builds and runs it first, so that a missing package is named within
//! seconds and not after the whole workspace was compiled.

mod go;
mod install;
mod machine;
pub mod need;
mod programs;
pub mod recipe;

pub use go::lacking_go;
pub use install::{NO_INSTALL, ensure, forbid_installation};
pub use machine::Machine;
pub use programs::{PAUSE, cache, find, is_program, on_path, pause, search_path};

use need::Need;
use recipe::{CNI, CONTAINERD, HELM, KUBERNETES, ProgramSet, RUNC};

/// The program sets that a node consists of.
pub const NODE_SETS: [&ProgramSet; 4] = [&CNI, &RUNC, &CONTAINERD, &KUBERNETES];

/// Makes sure that a control plane, or with `node` a node, can be built and run; `sets` are its programs.
///
/// # Errors
/// One line for each thing that is missing, with what to do.
pub fn ensure_cluster(sets: &[&ProgramSet], node: bool) -> Result<(), Vec<String>> {
    let (needs, others) = of_cluster(sets, node);
    ensure(&Machine::this(), &needs, others)
}

/// Makes sure that the tests find all that they run: the node's needs where this user may start one, and the programs
/// that the samples and the fixtures consist of.
///
/// # Errors
/// One line for each thing that is missing, with what to do.
pub fn ensure_tests() -> Result<(), Vec<String>> {
    let node = Machine::this().is_root();
    let sets: Vec<_> = if node { NODE_SETS.into_iter().chain([&HELM]).collect() } else { vec![&KUBERNETES, &HELM] };
    let (mut needs, others) = of_cluster(&sets, node);
    needs.extend(need::TESTS);
    ensure(&Machine::this(), &needs, others)
}

fn of_cluster(sets: &[&ProgramSet], node: bool) -> (Vec<&'static Need>, Vec<String>) {
    let (mut needs, mut others) = (Vec::new(), Vec::new());
    if node {
        needs.extend(need::NODE);
        if !Machine::this().is_root() {
            others.push(
                "root, for a node's namespaces: run as root, or use the control-plane mode (`up --control-plane`)"
                    .to_owned(),
            );
        }
    }
    let to_build: Vec<_> = sets.iter().filter(|set| find(set).is_none()).collect();
    if to_build.iter().any(|set| set.cgo) || (node && !is_program(&pause())) {
        needs.push(&need::C_COMPILER);
    }
    if to_build.iter().any(|set| set.cgo) {
        needs.push(&need::SECCOMP);
    }
    let newest = to_build.iter().map(|set| set.go_version()).max_by_key(|version| go::numbers(version));
    others.extend(newest.and_then(|wanted| lacking_go(wanted, "Kubernetes and its parts")));
    (needs, others)
}
