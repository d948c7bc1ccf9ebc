//! Programs that append stamps to a file while they lead. A bench may include this file by its path.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Returns an unmodified client-go candidate that stamps while it leads; `tests/fixtures/client-go/main.go` has its
/// flags.
///
/// # Panics
/// If it cannot be built; the message names what is missing.
pub fn client_go() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let source = Path::new(ROOT).join("tests/fixtures/client-go");
    PROGRAM.get_or_init(|| k8sensus_local::go_program(&source).unwrap_or_else(|error| panic!("{error}")))
}

/// Returns the program that `k8sensus exec` runs: `stamper FILE IDENTITY`.
///
/// # Panics
/// If it cannot be built; the compiler's messages are on standard error.
pub fn stamper() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| example("stamper"))
}

/// Returns a client of a Service: `traffic ADDRESS:PORT`.
///
/// # Panics
/// If it cannot be built; the compiler's messages are on standard error.
pub fn traffic() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| example("traffic"))
}

fn example(name: &str) -> PathBuf {
    // `cargo test --test all` builds no examples, and a stale example would be worse than none.
    let output = k8sensus_local::cargo()
        .args(["build", "--quiet", "--locked", "--example", name])
        .args(["--message-format", "json-render-diagnostics"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("cargo: {error}"));
    assert!(output.status.success(), "cargo build --example {name}: {}", output.status);
    let messages = String::from_utf8_lossy(&output.stdout);
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut programs = messages.filter(|message| message["target"]["name"] == name);
    let program = programs.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    program.expect("cargo reports the path of the example")
}
