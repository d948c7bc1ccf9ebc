//! `cargo demo`: a local Kubernetes that shows what k8sensus does.

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

/// A real Kubernetes on this machine, from its own components: etcd, the control plane and a node that runs pods.
///
/// Without a command: the demonstration. The first run builds the components, which takes some ten minutes; later ones
/// start within seconds. As root on Debian or Ubuntu, packages that are missing are installed with apt-get.
#[derive(Parser)]
#[command(name = "cargo demo --", bin_name = "cargo demo --", version)]
struct Arguments {
    /// Which instance; several can run side by side
    #[arg(long, global = true, default_value = DEFAULT_NAME)]
    name: String,

    /// Never install packages; say what is missing instead. K8SENSUS_NO_INSTALL=1 does the same
    #[arg(long, global = true)]
    no_install: bool,

    #[command(subcommand)]
    command: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Show an election, a graceful handover and a failover on a local cluster (default)
    Demo,
    /// Make sure that a cluster runs
    Up {
        /// Only etcd, API server and controller manager, on loopback: needs no root, runs no pods
        #[arg(long)]
        control_plane: bool,
    },
    /// Take a cluster down and remove everything it made
    Down {
        /// Every cluster of this user
        #[arg(long)]
        all: bool,
    },
    /// Show all clusters and their components
    Status,
    /// Print the path of the administrator's kubeconfig
    Kubeconfig,
    /// Build the product's image as it is released, and write it as an OCI archive
    Image {
        /// The archive [default: target/k8sensus-image.tar in the workspace]
        #[arg(long)]
        output: Option<PathBuf>,
        /// Load it into the running cluster, too; it is built in half the time then, and is larger
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
    // Let `… | head` end the program, as it does others, instead of a panic at the next line.
    // SAFETY: nothing else runs yet, and the default disposition is always valid.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    // `cargo demo up` and `cargo demo -- up` are the same to a person.
    let mut words: Vec<_> = std::env::args_os().collect();
    if words.get(1).is_some_and(|word| word == "--") {
        words.remove(1);
    }
    let arguments = Arguments::parse_from(words);
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
        Action::Down { all } => take_down(&name, all),
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
        Some([]) => println!("{what} runs already"),
        Some(restarted) => {
            let names: Vec<_> = restarted.iter().map(|component| component.program()).collect();
            println!("{what} runs already; started again after {seconds:.1} s: {}", names.join(", "));
        }
    }
    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
    Ok(cluster)
}

fn take_down(name: &str, all: bool) -> Result<(), Error> {
    let names = if all { instances().into_iter().map(|(name, _)| name).collect() } else { vec![name.to_owned()] };
    for name in names {
        let start = Instant::now();
        if down(&name)? {
            println!("{name:?} is down after {:.1} s", start.elapsed().as_secs_f64());
        } else {
            println!("{name:?} was not up");
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

/// Gives way to another program, so that signals, the terminal and the exit code are that program's.
fn become_command(command: &mut Command) -> Result<(), Error> {
    Err(Error::Io { doing: "running", path: command.get_program().into(), source: command.exec() })
}
