//! The command line. Flags have the names and meanings that they have in kubectl.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Shows, explains and moves the leadership of ElectionGroups.
///
/// Reads need no running operator.
#[derive(Parser)]
#[command(name = "kubectl-k8sensus", bin_name = "kubectl k8sensus", version)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub common: Common,
}

/// The flags of every command.
#[derive(Args, Clone, Debug, Default)]
pub struct Common {
    /// Namespace of the group; by default that of the kubeconfig's context
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "CONTEXT")]
    pub context: Option<String>,
    /// Kubeconfig file; by default KUBECONFIG, else ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// User to impersonate, such as system:serviceaccount:NAMESPACE:NAME
    #[arg(long = "as", global = true, value_name = "USER")]
    pub as_user: Option<String>,
    /// Group to impersonate; may be repeated
    #[arg(long = "as-group", global = true, value_name = "GROUP")]
    pub as_group: Vec<String>,
    /// Longest wait for a response of the API server, such as 5s or 1m; 0 means no limit
    #[arg(long, global = true, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pub request_timeout: Duration,
}

#[derive(Subcommand)]
pub enum Command {
    /// Show one group: its leader, standbys, Lease, what needs action, and the last changes
    Status {
        /// Name of the group; without it, all groups of the namespace are listed
        group: Option<String>,
        #[command(flatten)]
        list: ListFlags,
    },
    /// List groups
    #[command(visible_alias = "ls")]
    List(ListFlags),
    /// Show the changes of leadership that the operator has recorded, newest first
    History {
        /// Name of the group
        group: String,
        /// Format of the output
        #[arg(short, long, value_name = "FORMAT")]
        output: Option<Output>,
    },
    /// Request that the leader hands over to a ready standby
    StepDown {
        /// Name of the group
        group: String,
        /// Wait until another pod leads, or report why none does
        #[arg(long)]
        wait: bool,
        /// Longest wait, such as 30s or 5m
        #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration)]
        timeout: Duration,
        /// Say what would happen, without a request
        #[arg(long)]
        dry_run: bool,
    },
    /// Stop the program: set spec.suspend to true
    Suspend(Change),
    /// Start the program again: set spec.suspend to false
    Resume(Change),
    /// Keep the operator from changing the group's objects: set spec.paused to true
    Pause(Change),
    /// Let the operator change the group's objects again: set spec.paused to false
    Unpause(Change),
    /// Replace all pods, one after the other, by an annotation of the pod template
    Restart(Change),
    /// Print the log of the leader's pod
    Logs(Logs),
    /// Run a command in the leader's pod, with `kubectl exec`
    Exec {
        #[command(flatten)]
        target: Target,
        /// Container; by default the one that leads
        #[arg(short, long)]
        container: Option<String>,
        /// Pass the standard input on
        #[arg(short = 'i', long)]
        stdin: bool,
        /// The standard input is a terminal
        #[arg(short, long)]
        tty: bool,
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Forward local ports to the leader's pod, with `kubectl port-forward`
    PortForward {
        #[command(flatten)]
        target: Target,
        /// Ports, as kubectl has them: 8080, 8080:80 or :80
        #[arg(required = true, value_name = "[LOCAL:]REMOTE")]
        ports: Vec<String>,
    },
    /// Print a script that completes this command in a shell
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Print the version of this plugin, and of the operator's candidates in the cluster
    Version,
}

/// A format of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A JSON document
    Json,
    /// A YAML document
    Yaml,
    /// More columns
    Wide,
    /// Only the names, for other commands
    Name,
}

/// The flags of commands that list.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct ListFlags {
    /// The groups of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Format of the output
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Output>,
}

/// A group to be changed.
#[derive(Args, Clone, Debug)]
pub struct Change {
    /// Name of the group
    pub group: String,
    /// Say what would happen, and let the API server only check the change
    #[arg(long)]
    pub dry_run: bool,
}

/// A group whose leader is meant.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// Name of the group
    pub group: String,
    /// The pod that leads, which is also the default
    #[arg(long)]
    leader: bool,
}

/// The flags of `logs`.
#[derive(Args, Clone, Debug)]
pub struct Logs {
    #[command(flatten)]
    pub target: Target,
    /// Continue with new lines, and with the next leader's when leadership moves
    #[arg(short, long)]
    pub follow: bool,
    /// Container; by default the one that leads
    #[arg(short, long)]
    pub container: Option<String>,
    /// Number of lines from the end of the log; by default all
    #[arg(long, value_name = "LINES")]
    pub tail: Option<u32>,
    /// Only lines that are newer than this, such as 5m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub since: Option<Duration>,
    /// Begin each line with its time
    #[arg(long)]
    pub timestamps: bool,
    /// The log of the container's former run
    #[arg(short, long, conflicts_with = "follow")]
    pub previous: bool,
}

/// Parses a duration as kubectl does: seconds, or a number with a unit.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a duration such as 30s or 5m, found {text:?}");
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    parsed.try_into().map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn duration_is_read_as_in_kubectl() {
        for (text, seconds) in [("0", 0.0), ("7", 7.0), ("90s", 90.0), ("2m", 120.0), ("1h30m", 5400.0), ("500ms", 0.5)]
        {
            assert_eq!(duration(text).map(|found| found.as_secs_f64()), Ok(seconds), "{text}");
        }
        for text in ["", "-1s", "soon", "5 parsecs"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
