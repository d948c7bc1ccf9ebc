//! Finds the programs of a cluster, and builds those that are nowhere to be found.
//!
//! In this order: the folder named by `KUBEBUILDER_ASSETS`, the cache, `PATH` at the right version, a build from Go
//! modules. There is no download of release files: it would need hosts that many sandboxes and CI networks close, and a
//! digest of every file for every architecture, where the module proxy and `go.sum` are one verified way that works
//! everywhere.

mod build;
mod prerequisites;
mod recipe;
mod source;

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub use source::go_program;

pub(crate) use recipe::{CNI, CONTAINERD, HELM, KUBERNETES, ProgramSet, RUNC};

use crate::error::Error;
use crate::instance::Mode;

pub(crate) const PAUSE: &str = "pause";

/// The programs that instances of this mode consist of, each with its file; builds what is missing.
pub(crate) fn for_mode(mode: Mode) -> Result<BTreeMap<String, PathBuf>, Error> {
    match mode {
        Mode::ControlPlane => obtain(&[&KUBERNETES], mode),
        Mode::Node => obtain(&[&CNI, &RUNC, &CONTAINERD, &KUBERNETES], mode),
    }
}

pub(crate) fn helm() -> Result<PathBuf, Error> {
    let mut found = obtain(&[&HELM], Mode::ControlPlane)?;
    Ok(found.remove("helm").unwrap_or_default())
}

fn obtain(sets: &[&'static ProgramSet], mode: Mode) -> Result<BTreeMap<String, PathBuf>, Error> {
    let mut found = BTreeMap::new();
    let mut missing = Vec::new();
    for set in sets {
        match find(set) {
            Some(programs) => found.extend(programs),
            None => missing.push(*set),
        }
    }
    let pause = cache().join(recipe::PAUSE_FOLDER).join(PAUSE);
    let pause_missing = mode == Mode::Node && !is_program(&pause);
    // Before any build: who waits ten minutes must not learn only then that `ip` is not installed.
    prerequisites::check(mode, &missing, pause_missing)?;
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

/// Every program of the set, or none if one of them is nowhere.
fn find(set: &ProgramSet) -> Option<BTreeMap<String, PathBuf>> {
    let assets = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let cached = cache().join(set.folder());
    let mut found = BTreeMap::new();
    for program in set.programs {
        let file = assets
            .iter()
            .chain([&cached])
            .map(|folder| folder.join(program))
            .find(|file| is_program(file))
            .or_else(|| on_path(program).filter(|file| reports(file, program, set.version_of(program))))?;
        found.insert((*program).to_owned(), std::path::absolute(&file).unwrap_or(file));
    }
    Some(found)
}

/// `$K8SENSUS_CACHE`, else `k8sensus` in the user's cache folder; the programs are below it, keyed by version.
fn cache() -> PathBuf {
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("K8SENSUS_CACHE")
        .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("k8sensus")))
        .or_else(|| Some(folder("HOME")?.join(".cache/k8sensus")))
        .unwrap_or_else(|| crate::folder::state_root().join(".cache"))
        .join("programs")
}

/// `PATH`, and the system folders that a login without root privileges often leaves out.
pub(crate) fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders =
        env::split_paths(&path).chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from));
    env::join_paths(folders).unwrap_or(path)
}

pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&search_path()).map(|folder| folder.join(program)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Whether the program says that it is of this version.
fn reports(file: &Path, program: &str, version: &str) -> bool {
    let question: &[&str] = match program {
        "kubectl" => &["version", "--client"],
        "helm" => &["version", "--short"],
        "containerd-shim-runc-v2" => &["-v"],
        _ => &["--version"],
    };
    let output = Command::new(file).args(question).stdin(Stdio::null()).stderr(Stdio::null()).output();
    output.is_ok_and(|output| names_version(&String::from_utf8_lossy(&output.stdout), version))
}

/// Whether the version stands in the text as a whole: 1.5.2 is not in 1.5.20, 11.5.2 or 1.5.2-rc.1.
fn names_version(text: &str, version: &str) -> bool {
    let version = version.trim_start_matches('v');
    text.split(|c: char| c.is_whitespace() || c == ',').any(|word| {
        let word = word.trim_start_matches('v');
        let core = word.split_once('+').map_or(word, |(core, _)| core);
        core == version
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_the_programs_print() {
        assert!(names_version("Kubernetes v1.37.2\n", "v1.37.2"));
        assert!(names_version("etcd Version: 3.7.0\nGit SHA: none\n", "v3.7.0"));
        assert!(names_version("containerd github.com/containerd/containerd/v2 2.4.2+unknown \n", "v2.4.2"));
        assert!(names_version("v4.3.1+gdeadbee\n", "v4.3.1"));
        assert!(names_version("runc version 1.5.2\nspec: 1.3.0\n", "v1.5.2"));
    }

    #[test]
    fn a_longer_or_unreleased_version_is_another_one() {
        for text in ["runc version 1.5.20", "v11.5.2", "1.5.2-rc.1", "CNI bridge plugin version unknown"] {
            assert!(!names_version(text, "v1.5.2"), "{text}");
        }
    }
}
