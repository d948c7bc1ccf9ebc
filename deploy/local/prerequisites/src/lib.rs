//! The prerequisites of the local Kubernetes and of the tests, and their installation.
//!
//! As root on Debian or Ubuntu [`ensure`] installs missing packages with apt-get. Elsewhere it returns one line for
//! each, with the command that installs it. [`need`] is the only list of packages in the repository.
//!
//! This package has no dependencies. `cargo demo` builds and runs it first, so that a missing package is reported
//! within seconds and not after a build of the whole workspace.

mod go;
mod install;
mod machine;
pub mod need;
mod programs;
pub mod recipe;

pub use go::missing_go_message;
pub use install::{NO_INSTALL, ensure, forbid_installation};
pub use machine::Machine;
pub use programs::{PAUSE, cache, find, is_program, on_path, pause, search_path};

use need::Need;
use recipe::{CNI, CONTAINERD, HELM, KUBERNETES, ProgramSet, RUNC};

/// The program sets of a node.
pub const NODE_SETS: [&ProgramSet; 4] = [&CNI, &RUNC, &CONTAINERD, &KUBERNETES];

/// Makes sure that a control plane, or with `node` a node, can be built and run; `sets` are its programs.
///
/// # Errors
/// One line for each missing prerequisite, with the remedy.
pub fn ensure_cluster(sets: &[&ProgramSet], node: bool) -> Result<(), Vec<String>> {
    let (needs, others) = of_cluster(sets, node);
    ensure(&Machine::this(), &needs, others)
}

/// Makes sure that the tests have what they run: the needs of a node if this user may start one, and the programs of
/// the samples and fixtures.
///
/// # Errors
/// One line for each missing prerequisite, with the remedy.
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
                "root, needed for a node's namespaces: run as root, or use a control plane (`up --control-plane`)"
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
    others.extend(newest.and_then(|wanted| missing_go_message(wanted, "Kubernetes and its parts")));
    (needs, others)
}
