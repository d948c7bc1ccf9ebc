//! What all programs do alike at their start.

use std::process::ExitCode;

use clap::Parser;

/// Parses the arguments or ends the program: exit code 2 and one line for a mistake, 0 for `--help` and `--version`.
pub fn parse<T: Parser>(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<T, ExitCode> {
    T::try_parse_from(arguments).map_err(|error| {
        if !error.use_stderr() {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        let text = error.to_string();
        let line: Vec<&str> =
            text.lines().map(str::trim).take_while(|l| !l.starts_with("Usage:")).filter(|l| !l.is_empty()).collect();
        misuse(line.join(" ").trim_start_matches("error: "))
    })
}

/// One line to stderr, exit code 2: the program was called wrongly, nothing was done.
pub fn misuse(what: impl std::fmt::Display) -> ExitCode {
    eprintln!("error: {what}");
    ExitCode::from(2)
}

/// One line to stderr, exit code 1: the surroundings do not allow the program to run.
pub fn failure(what: impl std::fmt::Display) -> ExitCode {
    eprintln!("error: {what}");
    ExitCode::FAILURE
}

/// rustls picks no cryptography by itself when several could be linked in.
pub fn use_ring() {
    // Fails only if a provider is installed already, and then there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
