//! What all programs do alike at their start.

use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::Runtime;

use super::kubeconfig::Source;
use super::shutdown::Shutdown;
use super::{end_reason, kubeconfig, telemetry};

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

/// One line to stderr and into the termination message, exit code 2: the program was called wrongly, nothing was done.
pub fn misuse(what: impl std::fmt::Display) -> ExitCode {
    report(what);
    ExitCode::from(2)
}

/// One line to stderr and into the termination message, exit code 1: the surroundings do not allow the program to run.
pub fn failure(what: impl std::fmt::Display) -> ExitCode {
    report(what);
    ExitCode::FAILURE
}

fn report(what: impl std::fmt::Display) {
    // Not eprintln: it panics where stderr is closed.
    let _ = writeln!(io::stderr(), "error: {what}");
    end_reason::leave(&what.to_string());
}

/// Runs `program` on `runtime`, with signals listened for and the cluster's configuration from `source` at hand. The last log lines are
/// written before it returns.
pub fn run<F: Future<Output = ExitCode>>(
    runtime: io::Result<Runtime>,
    source: Source<'_>,
    program: impl FnOnce(kube::Config, Shutdown) -> F,
) -> ExitCode {
    use_ring();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failure(format_args!("cannot start the async runtime: {error}")),
    };
    let code = runtime.block_on(async {
        let shutdown = match Shutdown::listen() {
            Ok(shutdown) => shutdown,
            Err(error) => return failure(format_args!("cannot listen for signals: {error}")),
        };
        match kubeconfig::load(source).await {
            Ok(config) => program(config, shutdown).await,
            Err(error) => failure(error),
        }
    });
    // Watches may hang in a read; nothing that they could bring is wanted any more.
    runtime.shutdown_background();
    telemetry::flush();
    code
}

/// rustls picks no cryptography by itself when several could be linked in.
pub fn use_ring() {
    // Fails only if a provider is installed already, and then there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
