//! The help texts, word for word: a reference, and a review of each change.

use std::process::Command;

use crate::support::CANDIDATE;

fn help(arguments: &[&str]) -> String {
    let output = Command::new(CANDIDATE).args(arguments).arg("--help").env_clear().output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_program_explains_itself() {
    insta::assert_snapshot!("help", help(&[]));
}

#[test]
fn the_observer_explains_itself() {
    insta::assert_snapshot!("help_observe", help(&["observe"]));
}

#[test]
fn the_sidecar_explains_itself() {
    insta::assert_snapshot!("help_run", help(&["run"]));
}
