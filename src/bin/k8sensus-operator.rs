//! The operator: parses its arguments and hands over to `k8sensus_operator`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use k8sensus::campaign::{self, Campaign, TimingFlags};
use k8sensus_operator as operator;
use k8sensus_protocol::environment;
use k8sensus_runtime::cli;
use k8sensus_runtime::kubeconfig::Source;
use k8sensus_runtime::telemetry::{self, LogFormat};

/// Manages ElectionGroups: one active, the rest ready.
#[derive(Parser)]
#[command(name = "k8sensus-operator", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Reconcile ElectionGroups
    Run(Box<Run>),
    /// Print the CustomResourceDefinition
    Crd,
}

#[derive(clap::Args)]
struct Run {
    /// Image that modes Exec and Sidecar take the candidate program from
    #[arg(long, env = environment::CANDIDATE_IMAGE, default_value = "", hide_default_value = true)]
    candidate_image: String,
    /// Version that the candidate program of that image states; the status of a group reports a leader that states
    /// another one
    #[arg(long, env = environment::CANDIDATE_VERSION, default_value = env!("CARGO_PKG_VERSION"), value_name = "VERSION")]
    candidate_version: String,
    /// Name of the Lease by which the operator's replicas elect their leader
    #[arg(long, env = environment::LEASE_NAME, default_value = "k8sensus-operator")]
    lease_name: String,
    /// Namespace of that Lease
    #[arg(long, env = environment::POD_NAMESPACE, default_value = "default")]
    lease_namespace: String,
    /// Identity in that election; by default the downward API's metadata.name
    #[arg(long, env = environment::POD_NAME, default_value = "", hide_default_value = true)]
    identity: String,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, env = environment::LISTEN, default_value = "0.0.0.0:8080", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// How many groups are reconciled at the same time
    #[arg(long, env = environment::CONCURRENCY, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..), value_name = "NUMBER")]
    concurrency: u16,
    /// Namespaces whose groups are reconciled, separated by commas; by default all, which needs rights in the whole
    /// cluster
    #[arg(long, env = environment::NAMESPACES, value_delimiter = ',', value_name = "NAMESPACE")]
    namespaces: Vec<String>,
    /// Format of log lines
    #[arg(long, env = environment::LOG_FORMAT, default_value = "text")]
    log_format: LogFormat,
    /// Kubeconfig file; by default KUBECONFIG, else the pod's service account
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    timing: TimingFlags,
}

fn main() -> ExitCode {
    match cli::parse::<Arguments>(std::env::args_os()) {
        Ok(Arguments { command: Command::Run(run) }) => start(*run),
        Ok(Arguments { command: Command::Crd }) => {
            print!("{}", k8sensus_api::crd_yaml());
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

fn start(run: Run) -> ExitCode {
    let (options, kubeconfig) = match options(&run) {
        Ok(options) => (options, run.kubeconfig),
        Err(what) => return cli::misuse(what),
    };
    telemetry::init(run.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    cli::run(runtime, Source::Surroundings(kubeconfig.as_deref()), async |config, shutdown| {
        operator::run(config, options, shutdown).await.map_or_else(cli::failure, |()| ExitCode::SUCCESS)
    })
}

fn options(run: &Run) -> Result<operator::Options, String> {
    if run.candidate_image.is_empty() {
        return Err("candidate image not found: set --candidate-image or K8SENSUS_CANDIDATE_IMAGE".to_owned());
    }
    if run.lease_name.is_empty() || run.lease_namespace.is_empty() {
        return Err("--lease-name and --lease-namespace must not be empty".to_owned());
    }
    if run.identity.is_empty() {
        return Err("pod name not found: set the environment variable POD_NAME from the downward API's metadata.name"
            .to_owned());
    }
    let mut namespaces = run.namespaces.clone();
    namespaces.retain(|namespace| !namespace.is_empty());
    namespaces.sort();
    namespaces.dedup();
    let timing = run.timing.timing().map_err(|error| error.to_string())?;
    Ok(operator::Options {
        campaign: Campaign::builder(&run.lease_namespace, &run.lease_name)
            .identity(&run.identity)
            .incarnation(campaign::incarnation("-", "operator"))
            .timing(timing),
        candidate_image: run.candidate_image.clone(),
        candidate_version: run.candidate_version.clone(),
        listen: run.listen,
        namespaces,
        concurrency: run.concurrency,
    })
}
