use std::path::{Path, PathBuf};

use clap::Args;

use crate::campaign::LeaseName;
use crate::flags::{FlagError, lease_name};
use crate::protocol::environment;

/// The format of printed changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// One aligned line per change.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The Lease to watch and the form of the output.
#[derive(Clone, Debug)]
pub struct Options {
    /// The Lease.
    pub lease: LeaseName,
    /// The form of a line.
    pub output: Output,
    /// Whether renewals are printed.
    pub renewals: bool,
    /// Whether to end with the first line that shows whether there is a live holder.
    pub once: bool,
}

/// The flags of `observe`.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct ObserveFlags {
    /// Name of the Lease to watch
    #[arg(long, env = environment::LEASE_NAME, default_value = "", hide_default_value = true)]
    lease_name: String,
    /// Namespace of the Lease
    #[arg(long, env = environment::LEASE_NAMESPACE, default_value = "default")]
    lease_namespace: String,
    /// Format of printed changes
    #[arg(long, default_value = "text")]
    output: Output,
    /// Also print renewals
    #[arg(long)]
    renewals: bool,
    /// Print the current state and exit: 0 if the holder is alive, 1 if there is no live holder or that is unknown.
    /// Waits for the holder's next renewal, at most the Lease's duration
    #[arg(long)]
    once: bool,
    /// Kubeconfig file; by default KUBECONFIG, else the pod's service account
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

impl ObserveFlags {
    /// Returns the kubeconfig from the flags.
    pub fn kubeconfig(&self) -> Option<&Path> {
        self.kubeconfig.as_deref()
    }

    /// Returns the options, checked.
    ///
    /// # Errors
    /// [`FlagError`], before any request to the API server.
    pub fn options(&self) -> Result<Options, FlagError> {
        let lease = lease_name(&self.lease_namespace, &self.lease_name)?;
        Ok(Options { lease, output: self.output, renewals: self.renewals, once: self.once })
    }
}
