//! What is published: the library with the crates that it needs, and nothing else.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::root;

/// The packages that are published, each with the folder of its sources.
const PUBLISHED: [(&str, &str); 4] = [
    ("k8sensus", ""),
    ("k8sensus-election", "src/election"),
    ("k8sensus-protocol", "src/protocol"),
    ("k8sensus-runtime", "src/runtime"),
];

/// What Cargo itself adds to each package, and what each of ours has besides its sources.
const ACCOMPANYING: [&str; 6] =
    [".cargo_vcs_info.json", "Cargo.lock", "Cargo.toml", "Cargo.toml.orig", "LICENSE", "README.md"];

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn packages() -> Vec<Value> {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--no-deps", "--locked", "--format-version", "1"])).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

#[test]
fn only_the_library_and_its_crates_are_published() {
    let packages = packages();
    let published = packages.iter().filter(|package| package["publish"].is_null());
    let mut names: Vec<_> = published.map(|package| package["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, PUBLISHED.map(|(name, _)| name), "any other package needs publish = false");
}

#[test]
fn published_packages_describe_themselves_and_need_only_published_ones() {
    for package in packages().iter().filter(|package| package["publish"].is_null()) {
        let name = &package["name"];
        for field in ["description", "license", "readme", "repository", "rust_version"] {
            assert!(package[field].is_string(), "{name} has no {field}");
        }
        for field in ["categories", "keywords"] {
            assert!(!package[field].as_array().unwrap().is_empty(), "{name} has no {field}");
        }
        // A dependency for tests may have no version: Cargo leaves it out of the package.
        let dependencies = package["dependencies"].as_array().unwrap();
        for dependency in dependencies.iter().filter(|other| other["path"].is_string() && other["kind"].is_null()) {
            let is_published = PUBLISHED.iter().any(|(published, _)| dependency["name"] == *published);
            assert!(is_published && dependency["req"] != "*", "{name} depends on {dependency}");
        }
    }
}

#[test]
fn published_packages_contain_only_their_sources_readme_and_license() {
    for (name, folder) in PUBLISHED {
        let list = cargo(&["package", "--list", "--locked", "--allow-dirty", "--package", name]);
        let is_source = |file: &str| match name {
            "k8sensus" => file == "src/lib.rs" || file.starts_with("src/campaign/") && file.ends_with(".rs"),
            _ => file.ends_with(".rs"),
        };
        let foreign: Vec<_> = list.lines().filter(|file| !is_source(file) && !ACCOMPANYING.contains(file)).collect();
        assert!(foreign.is_empty(), "{name} also contains {foreign:#?}");
        for needed in ["LICENSE", "README.md"] {
            assert!(list.lines().any(|file| file == needed), "{name} lacks {needed}");
            assert!(Path::new(root()).join(folder).join(needed).is_file(), "{needed} of {name} leads nowhere");
        }
    }
}
