//! Finds programs of a cluster that already exist.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::recipe::{PAUSE_FOLDER, ProgramSet};

/// The program that holds a pod's namespaces.
pub const PAUSE: &str = "pause";

/// Returns the path of that program once it is built.
pub fn pause() -> PathBuf {
    cache().join(PAUSE_FOLDER).join(PAUSE)
}

/// Returns every program of the set, or `None` if one is missing.
pub fn find(set: &ProgramSet) -> Option<BTreeMap<String, PathBuf>> {
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

/// Returns the folder of built programs, which are keyed by version. It is below `$K8SENSUS_CACHE`, else below
/// `k8sensus` in the user's cache folder.
pub fn cache() -> PathBuf {
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("K8SENSUS_CACHE")
        .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("k8sensus")))
        .or_else(|| Some(folder("HOME")?.join(".cache/k8sensus")))
        .unwrap_or_else(|| {
            let state = folder("K8SENSUS_STATE");
            state.unwrap_or_else(|| format!("/var/tmp/k8sensus-{}", crate::machine::user()).into()).join(".cache")
        })
        .join("programs")
}

/// Returns `PATH` and the system folders that are often missing from an unprivileged user's `PATH`.
pub fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders =
        env::split_paths(&path).chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from));
    env::join_paths(folders).unwrap_or(path)
}

pub fn on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&search_path()).map(|folder| folder.join(program)).find(|file| is_program(file))
}

pub fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Returns whether the program reports this version.
fn reports(file: &Path, program: &str, version: &str) -> bool {
    let arguments: &[&str] = match program {
        "kubectl" => &["version", "--client"],
        "helm" => &["version", "--short"],
        "containerd-shim-runc-v2" => &["-v"],
        _ => &["--version"],
    };
    let output = Command::new(file).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output();
    output.is_ok_and(|output| names_version(&String::from_utf8_lossy(&output.stdout), version))
}

/// Returns whether the text contains exactly this version: 1.5.2 does not match 1.5.20, 11.5.2 or 1.5.2-rc.1.
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
    fn versions_are_found_in_program_output() {
        assert!(names_version("Kubernetes v1.37.2\n", "v1.37.2"));
        assert!(names_version("etcd Version: 3.7.0\nGit SHA: none\n", "v3.7.0"));
        assert!(names_version("containerd github.com/containerd/containerd/v2 2.4.2+unknown \n", "v2.4.2"));
        assert!(names_version("v4.3.1+gdeadbee\n", "v4.3.1"));
        assert!(names_version("runc version 1.5.2\nspec: 1.3.0\n", "v1.5.2"));
    }

    #[test]
    fn longer_or_unreleased_version_does_not_match() {
        for text in ["runc version 1.5.20", "v11.5.2", "1.5.2-rc.1", "CNI bridge plugin version unknown"] {
            assert!(!names_version(text, "v1.5.2"), "{text}");
        }
    }
}
