//! `cargo demo`: a local Kubernetes that demonstrates k8sensus.

#![allow(
    clippy::disallowed_methods,
    reason = "a local cluster is a developer tool that waits for real processes in real time"
)]

mod demo;
mod status;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use clap::{Parser, Subcommand};
use k8sensus_local::{
    Cluster, DEFAULT_NAME, Error, IMAGE, Mode, Profile, down, forbid_installation, instances, product_image,
    workspace_root,
};

/// A real Kubernetes on this machine, built from source: etcd, the control plane and a node that runs pods.
///
/// Without a command it runs the demonstration. The first run builds the components, which takes about ten minutes;
/// later runs start within seconds. As root on Debian or Ubuntu, missing packages are installed with apt-get.
#[derive(Parser)]
#[command(name = "cargo demo --", bin_name = "cargo demo --", version)]
struct Arguments {
    /// Name of the instance; several can run side by side
    #[arg(long, global = true, default_value = DEFAULT_NAME)]
    name: String,

    /// Never install packages; print what is missing instead. K8SENSUS_NO_INSTALL=1 does the same
    #[arg(long, global = true)]
    no_install: bool,

    #[command(subcommand)]
    command: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Show an election, a graceful handover and a failover on a local cluster (default)
    Demo,
    /// Start a cluster, or whatever part of it is not running
    Up {
        /// Run only etcd, API server and controller manager, on loopback: needs no root, runs no pods
        #[arg(long)]
        control_plane: bool,
    },
    /// Stop a cluster and remove everything that it created
    Down {
        /// Stop every cluster of this user
        #[arg(long)]
        all: bool,
    },
    /// Show all clusters and their components
    Status,
    /// Print the path of the administrator's kubeconfig
    Kubeconfig,
    /// Build the release image of k8sensus and write it to an OCI archive
    Image {
        /// Path of the archive [default: target/k8sensus-image.tar in the workspace]
        #[arg(long)]
        output: Option<PathBuf>,
        /// Also load the image into the running cluster; this image is larger and builds in half the time
        #[arg(long)]
        load: bool,
    },
    /// Run kubectl against the cluster
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run helm against the cluster
    Helm {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    // So that `… | head` ends the program silently instead of with a panic at the next line.
    // SAFETY: nothing else runs yet, and the default disposition is always valid.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    // Accepts `cargo demo up` as well as `cargo demo -- up`.
    let mut command_line: Vec<_> = std::env::args_os().collect();
    if command_line.get(1).is_some_and(|argument| argument == "--") {
        command_line.remove(1);
    }
    let arguments = Arguments::parse_from(command_line);
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(Arguments { name, no_install, command }: Arguments) -> Result<(), Error> {
    if no_install {
        forbid_installation();
    }
    match command.unwrap_or(Action::Demo) {
        Action::Demo => demo::run(&name),
        Action::Up { control_plane } => {
            up(&name, if control_plane { Mode::ControlPlane } else { Mode::Node }).map(drop)
        }
        Action::Down { all } => stop(&name, all),
        Action::Status => {
            print!("{}", status::table());
            Ok(())
        }
        Action::Kubeconfig => {
            println!("{}", Cluster::open(&name)?.kubeconfig().display());
            Ok(())
        }
        Action::Image { output, load } => image(&name, output, load),
        Action::Kubectl { arguments } => become_command(Cluster::open(&name)?.kubectl().args(arguments)),
        Action::Helm { arguments } => become_command(Cluster::open(&name)?.helm()?.args(arguments)),
    }
}

fn up(name: &str, mode: Mode) -> Result<Cluster, Error> {
    let start = Instant::now();
    let builder = match mode {
        Mode::ControlPlane => Cluster::control_plane(),
        Mode::Node => Cluster::node(),
    };
    let cluster = builder.name(name).up()?;
    let seconds = start.elapsed().as_secs_f64();
    let what = format!("{} {name:?} at {}", mode.name(), cluster.server());
    match cluster.found_running() {
        None => println!("{what} is ready after {seconds:.1} s"),
        Some([]) => println!("{what} is already running"),
        Some(restarted) => {
            let names: Vec<_> = restarted.iter().map(|component| component.program()).collect();
            println!("{what} is already running; restarted in {seconds:.1} s: {}", names.join(", "));
        }
    }
    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
    Ok(cluster)
}

fn stop(name: &str, all: bool) -> Result<(), Error> {
    let names = if all { instances().into_iter().map(|(name, _)| name).collect() } else { vec![name.to_owned()] };
    for name in names {
        let start = Instant::now();
        if down(&name)? {
            println!("{name:?} is down after {:.1} s", start.elapsed().as_secs_f64());
        } else {
            println!("{name:?} was not running");
        }
    }
    Ok(())
}

fn image(name: &str, output: Option<PathBuf>, load: bool) -> Result<(), Error> {
    let output = output.unwrap_or_else(default_archive);
    let digest = product_image(&output, if load { Profile::Demo } else { Profile::Dist })?;
    println!("{IMAGE} {digest} in {}", output.display());
    if load {
        Cluster::open(name)?.load_image(&output)?;
        println!("loaded into {name:?}");
    }
    Ok(())
}

fn default_archive() -> PathBuf {
    workspace_root().join("target/k8sensus-image.tar")
}

/// Replaces this process with another program, which gets the signals and the terminal and sets the exit code.
fn become_command(command: &mut Command) -> Result<(), Error> {
    Err(Error::Io { doing: "running", path: command.get_program().into(), source: command.exec() })
}
