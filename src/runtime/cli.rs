//! The common start of all programs.

use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::Runtime;

use super::kubeconfig::Source;
use super::shutdown::Shutdown;
use super::tls::use_ring;
use super::{end_reason, kubeconfig, telemetry};

/// Parses the arguments. Otherwise returns the exit code: 2 after one line about a mistake, 0 after `--help` and
/// `--version`.
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

/// Reports a wrong call, before anything was done: one line to stderr and to the termination message, exit code 2.
pub fn misuse(what: impl std::fmt::Display) -> ExitCode {
    report(what);
    ExitCode::from(2)
}

/// Reports surroundings in which the program cannot run: one line to stderr and to the termination message, exit code
/// 1.
pub fn failure(what: impl std::fmt::Display) -> ExitCode {
    report(what);
    ExitCode::FAILURE
}

fn report(what: impl std::fmt::Display) {
    // eprintln would panic if stderr is closed.
    let _ = writeln!(io::stderr(), "error: {what}");
    end_reason::leave(&what.to_string());
}

/// Runs `program` on `runtime`, with signal handlers installed and the cluster's configuration loaded from `source`.
/// Writes the last log lines before it returns.
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
    // Do not wait for watches that hang in a read: their results are no longer needed.
    runtime.shutdown_background();
    telemetry::flush();
    code
}
