use std::path::{Path, PathBuf};

use clap::Args;

use crate::campaign::LeaseName;
use crate::candidate::flags::{FlagError, lease_name};
use crate::protocol::environment;

/// How changes are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// One aligned line a change.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What to watch and how to print it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The Lease.
    pub lease: LeaseName,
    /// The form of a line.
    pub output: Output,
    /// Whether renewals are printed.
    pub renewals: bool,
    /// Whether to end with the first line that tells whether there is a live holder.
    pub once: bool,
}

/// What the observer is told.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct ObserveFlags {
    /// Name of the Lease to watch
    #[arg(long, env = environment::LEASE_NAME, default_value = "", hide_default_value = true)]
    lease_name: String,
    /// Namespace of the Lease
    #[arg(long, env = environment::LEASE_NAMESPACE, default_value = "default")]
    lease_namespace: String,
    /// How changes are printed
    #[arg(long, default_value = "text")]
    output: Output,
    /// Print renewals, too
    #[arg(long)]
    renewals: bool,
    /// Print the present state and exit: 0 if the holder was seen alive, 1 if there is none or it cannot be told. Waits
    /// for the holder's next renewal, at most the Lease's duration
    #[arg(long)]
    once: bool,
    /// Kubeconfig file; by default KUBECONFIG, else the pod's service account
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

impl ObserveFlags {
    /// The kubeconfig that was named.
    pub fn kubeconfig(&self) -> Option<&Path> {
        self.kubeconfig.as_deref()
    }

    /// The checked options.
    ///
    /// # Errors
    /// [`FlagError`], before anything was asked of the API server.
    pub fn options(&self) -> Result<Options, FlagError> {
        let lease = lease_name(&self.lease_namespace, &self.lease_name)?;
        Ok(Options { lease, output: self.output, renewals: self.renewals, once: self.once })
    }
}
