//! Generated files match their sources.

use std::fs;
use std::process::Command;

use crate::support::{OPERATOR, root, shared};

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn operator_prints_the_committed_crd() {
    let output = Command::new(OPERATOR).arg("crd").output().unwrap();
    assert!(output.status.success());
    let path = "crds/electiongroups.k8sensus.dev.yaml";
    assert!(
        String::from_utf8(output.stdout).unwrap() == read(path),
        "{path} is stale: cargo run --bin k8sensus-operator -- crd > {path}"
    );
}

#[test]
fn chart_contains_the_committed_crd() {
    let (source, copy) =
        ("crds/electiongroups.k8sensus.dev.yaml", "charts/k8sensus/files/electiongroups.k8sensus.dev.yaml");
    assert!(read(source) == read(copy), "stale: cp {source} {copy}");
}

#[test]
fn kustomize_base_matches_the_rendered_chart() {
    let path = "deploy/base/operator.yaml";
    let base = read(path);
    let mut lines = base.splitn(3, '\n');
    let (_, command, committed) = (lines.next(), lines.next().unwrap(), lines.next().unwrap());
    let command = command.strip_prefix("# helm ").expect("the second line names the command");
    let helm = shared().helm().unwrap().args(command.split(' ')).current_dir(root()).output().unwrap();
    assert!(helm.status.success(), "{}", String::from_utf8_lossy(&helm.stderr));
    assert!(
        String::from_utf8(helm.stdout).unwrap() == committed,
        "{path} is stale: regenerate it with the command in its second line"
    );
}

#[test]
fn helm_lint_passes() {
    let lint =
        shared().helm().unwrap().args(["lint", "--strict", "charts/k8sensus"]).current_dir(root()).output().unwrap();
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
}

#[test]
fn chart_and_crate_have_the_same_version() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = read("charts/k8sensus/Chart.yaml");
    assert!(
        chart.contains(&format!("appVersion: {version}")) || chart.contains(&format!("appVersion: \"{version}\"")),
        "{chart}"
    );
}

#[test]
fn image_is_built_from_the_package_of_the_programs() {
    let package = read("src/bin/Cargo.toml").lines().find_map(|line| line.strip_prefix("name = ")).map(str::to_owned);
    let package = package.expect("a package has a name");
    let build = format!("cargo build --locked --package {} --bins", package.trim_matches('"'));
    assert!(read("deploy/image/Dockerfile").contains(&build), "deploy/image/Dockerfile must have: {build}");
}
