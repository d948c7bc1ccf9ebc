//! The candidate: parses its arguments and hands over to `k8sensus_candidate`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use k8sensus_candidate::{CandidateFlags, HttpFlags, exec, install, observe, run, sample, sidecar};
use k8sensus_runtime::clock::SystemClock;
use k8sensus_runtime::kubeconfig::Source;
use k8sensus_runtime::{cli, end_reason, telemetry};

/// One active, the rest ready: campaigns for a Kubernetes Lease.
///
/// Without a command it runs a sample task while it leads, as the original k8sensus does.
#[derive(Parser)]
#[command(name = "k8sensus", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    flags: CandidateFlags,
}

#[derive(Subcommand)]
enum Command {
    /// Report to an app beside this process, over HTTP, whether it leads
    Run {
        #[command(flatten)]
        flags: Box<CandidateFlags>,
        #[command(flatten)]
        http: HttpFlags,
    },
    /// Run a command only while this process leads
    Exec {
        #[command(flatten)]
        flags: Box<CandidateFlags>,
        #[command(flatten)]
        args: Box<exec::ExecArgs>,
    },
    /// Print each change of leadership of a Lease, without taking part in the election
    Observe(observe::ObserveFlags),
    /// Copy this program to a file from which other containers can start it
    Install { target: PathBuf },
    /// Print a line every 10 seconds, without an election
    Sample,
}

fn main() -> ExitCode {
    // Before the arguments are parsed, since a mistake in them is also a reason.
    if std::env::args_os().nth(1).is_some_and(|command| command == "exec" || command == "run") {
        end_reason::enable();
    }
    let arguments = match cli::parse::<Arguments>(with_two_dashes(std::env::args_os())) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match arguments.command {
        Some(Command::Install { target }) => match install::install(&target) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => cli::failure(error),
        },
        Some(Command::Observe(flags)) => observe(&flags),
        Some(Command::Sample) => sample::forever(),
        Some(Command::Run { flags, http }) => beside_app(&flags, http),
        Some(Command::Exec { flags, args }) => campaign(&flags, Some(*args)),
        None => campaign(&arguments.flags, None),
    }
}

fn campaign(flags: &CandidateFlags, args: Option<exec::ExecArgs>) -> ExitCode {
    let campaign = match flags.campaign() {
        Ok(campaign) => campaign,
        Err(error) => return cli::misuse(error),
    };
    telemetry::init_with(telemetry::LogFormat::Text, flags.log_filter());
    if args.is_none() {
        println!("🚢🏗️ k8sensus is running!");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    cli::run(runtime, flags.source(), async |config, shutdown| match args {
        Some(args) => exec::exec(&config, campaign, args, shutdown).await.unwrap_or_else(cli::failure),
        None => run::run(&config, campaign, shutdown).await.map_or_else(cli::failure, |()| ExitCode::SUCCESS),
    })
}

fn beside_app(flags: &CandidateFlags, http: HttpFlags) -> ExitCode {
    let (campaign, longest_promise) = match flags.campaign().and_then(|it| Ok((it, flags.longest_promise()?))) {
        Ok(checked) => checked,
        Err(error) => return cli::misuse(error),
    };
    telemetry::init_with(telemetry::LogFormat::Text, flags.log_filter());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    cli::run(runtime, flags.source(), async |config, shutdown| {
        sidecar::run(&config, campaign, &http, longest_promise, shutdown).await.unwrap_or_else(cli::failure)
    })
}

fn observe(flags: &observe::ObserveFlags) -> ExitCode {
    let options = match flags.options() {
        Ok(options) => options,
        Err(error) => return cli::misuse(error),
    };
    telemetry::init(telemetry::LogFormat::Text);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    cli::run(runtime, Source::Surroundings(flags.kubeconfig()), async |config, shutdown| {
        let clock = Arc::new(SystemClock);
        observe::watch::observe(&config, options, clock, shutdown).await.unwrap_or_else(cli::failure)
    })
}

/// Rewrites `-lease-name…` to `--lease-name…`: Go's flag package, which the original program used, accepts both.
/// Arguments after `--` belong to the command.
fn with_two_dashes(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let mut ours = true;
    arguments.map(move |argument| {
        ours &= argument != "--";
        match argument.to_str() {
            Some(text) if ours && text.starts_with("-lease-name") => format!("-{text}").into(),
            _ => argument,
        }
    })
}
