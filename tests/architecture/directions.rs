//! The allowed imports between modules, checked against the sources.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::root;

/// The folders of `src` that each folder may import.
const MAY_IMPORT: [(&str, &[&str]); 10] = [
    ("protocol", &[]),
    ("api", &[]),
    ("election", &["protocol"]),
    ("group", &["api", "election", "protocol"]),
    ("runtime", &["protocol"]),
    ("campaign", &["election", "protocol", "runtime"]),
    ("candidate", &["campaign", "election", "protocol", "runtime"]),
    ("operator", &["api", "campaign", "election", "group", "protocol", "runtime"]),
    ("plugin", &["api", "protocol", "runtime"]),
    ("bin", &["api", "campaign", "candidate", "election", "operator", "plugin", "protocol", "runtime"]),
];

/// Crates that the pure modules must not use.
const IO: [&str; 8] = ["tokio", "futures", "axum", "tower", "http", "rustix", "tracing", "kube"];

pub(super) fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Returns the text without comments, so that documentation may mention any module.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Returns the names that directly follow `crate::` or `k8sensus::`, and those of crates such as `k8sensus_group`.
fn modules_in(code: &str) -> BTreeSet<String> {
    let name =
        |rest: &str| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_owned();
    ["crate::", "k8sensus::", "k8sensus_"]
        .iter()
        .flat_map(|prefix| code.split(prefix).skip(1))
        .map(name)
        .filter(|n| !n.is_empty())
        .collect()
}

#[test]
fn modules_import_only_modules_below_them() {
    let src = root().join("src");
    let modules: BTreeSet<String> = fs::read_dir(&src)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    let with_rule = MAY_IMPORT.iter().map(|(module, _)| (*module).to_owned()).collect();
    assert_eq!(modules, with_rule, "each module needs a rule here");
    let mut wrong = Vec::new();
    for (module, allowed) in MAY_IMPORT {
        for path in sources(&src.join(module)) {
            for found in modules_in(&code(&path)).iter().filter(|found| modules.contains(*found)) {
                if found != module && !allowed.contains(&found.as_str()) {
                    wrong.push(format!("{} imports {found}", path.strip_prefix(&src).unwrap().display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pure_modules_do_no_io() {
    let mut wrong = Vec::new();
    for module in ["api", "election", "group", "protocol"] {
        for path in sources(&root().join("src").join(module)) {
            let code = code(&path);
            for name in IO {
                // The derive macro of the resource comes from kube and does no IO.
                let derive = module == "api" && name == "kube";
                let used = code.contains(&format!("use {name}::")) || code.contains(&format!(" {name}::"));
                if used && !derive {
                    wrong.push(format!("{} uses {name}", path.display()));
                }
            }
            if module == "election" {
                let foreign = code.lines().filter(|line| line.starts_with("use ")).find(|line| {
                    !["use std::", "use super::", "use crate::protocol", "use k8sensus_protocol as protocol;"]
                        .iter()
                        .any(|ours| line.starts_with(ours))
                });
                wrong.extend(
                    foreign.map(|line| format!("{}: {line}: election may use only std and protocol", path.display())),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_the_clock_module_reads_clocks() {
    let mut wrong = Vec::new();
    for path in sources(&root().join("src")) {
        if path.ends_with("runtime/clock.rs") {
            continue;
        }
        let code = code(&path);
        for call in ["Instant::now", "SystemTime::now", "Timestamp::now", "tokio::time::", "clock_gettime"] {
            if code.contains(call) {
                wrong.push(format!("{} calls {call}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_file_exceeds_its_line_limit() {
    for folder in ["src", "deploy/local/src", "tests/election/model", "tests/mutants"] {
        for path in sources(&root().join(folder)) {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            // A longer file should be split, except for a state machine that reads as a whole.
            let limit = if path.ends_with("election/elector.rs") { 600 } else { 400 };
            assert!(lines <= limit, "{} has {lines} lines", path.display());
        }
    }
}

/// Names that processes and objects share are constants in `protocol`; those of the resource itself are in `api`.
#[test]
fn shared_names_are_defined_once() {
    let src = root().join("src");
    let mut copies = Vec::new();
    for path in sources(&src) {
        let file = path.strip_prefix(&src).unwrap();
        if file.starts_with("protocol") || file.starts_with("api") {
            continue;
        }
        let code = code(&path);
        let without_tests = code.split("#[cfg(test)]").next().unwrap_or_default();
        for start in ["\"K8SENSUS_", "\"POD_", "\"k8sensus.dev/", "\"/.k8sensus", "\"k8sensus-sidecar", "\"/app-health"]
        {
            if without_tests.contains(start) {
                copies.push(format!("{}: {start}…\"", file.display()));
            }
        }
    }
    assert!(copies.is_empty(), "use the constants of src/protocol instead: {copies:#?}");
}
