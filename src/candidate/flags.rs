use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::node;
use super::serve::{ListenError, Server};
use crate::campaign::{Builder, Campaign, LeaseName, TimingFlags, incarnation};
use crate::election::InvalidTiming;
use crate::protocol::environment;
use crate::runtime::kubeconfig::Source;

/// What every form of the candidate is told about its election.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct CandidateFlags {
    /// Name of the Lease to campaign for
    #[arg(long, env = environment::LEASE_NAME, default_value = "", hide_default_value = true)]
    lease_name: String,
    /// Namespace of the Lease
    #[arg(long, env = environment::LEASE_NAMESPACE, default_value = "default")]
    lease_namespace: String,
    /// Whether to create the Lease where there is none
    #[arg(long, env = environment::CREATE_LEASE, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    create_lease: bool,
    /// Identity in the election; by default the downward API's metadata.name
    #[arg(long = "identity", env = environment::POD_NAME, default_value = "", hide_default_value = true)]
    identity: String,
    /// The pod's uid, part of what tells this process from others of its name
    #[arg(long, env = environment::POD_UID, default_value = "-", hide = true)]
    pod_uid: String,
    /// The container's name, likewise
    #[arg(long, env = environment::CONTAINER, default_value = "-", hide = true)]
    container: String,
    /// The pod's revision: while the Lease names another as proved, this candidate lets others go first
    #[arg(long, env = environment::REVISION, hide = true)]
    revision: Option<String>,
    /// Kubeconfig file; by default KUBECONFIG, else the pod's service account
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// The file to which `install` wrote the API server's URL; the operator names it in its pods. With it the environment, which is
    /// the program's, sets neither the cluster nor the credentials nor the log
    #[arg(long, env = environment::API_SERVER_FILE, hide = true)]
    api_server_file: Option<PathBuf>,
    #[command(flatten)]
    timing: TimingFlags,
}

/// Where the candidate's HTTP server listens.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct HttpFlags {
    /// Port of the HTTP server that says who leads; by default 4040 beside an app, none with a command
    #[arg(long, env = environment::HTTP_PORT, value_name = "PORT")]
    pub http_port: Option<u16>,
    /// The node's address, for which places are kept; the operator names it in its pods
    #[arg(long, env = environment::NODE_IP, default_value = "", hide = true)]
    pub node_ip: String,
}

impl HttpFlags {
    /// Of a sidecar, where nothing else is said.
    pub const DEFAULT_PORT: u16 = 4040;

    /// The server on `port`, with places kept for the pod's node.
    ///
    /// # Errors
    /// [`ListenError`].
    pub(super) fn bind(&self, port: u16) -> Result<Server, ListenError> {
        Ok(Server::bind(port)?.keep_places_for(node::addresses(&self.node_ip)))
    }
}

/// What is wrong with the flags. One line each, with what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// `--lease-name` is missing or empty.
    #[error("Lease Name not found. Provide a valid lease name through --lease-name.")]
    LeaseName,
    /// `--lease-namespace` is empty.
    #[error("Lease Namespace not found. Provide a valid lease namespace through --lease-namespace.")]
    LeaseNamespace,
    /// `POD_NAME` is missing or empty.
    #[error("Pod Name not found. Set the environment variable POD_NAME from the downward API's metadata.name.")]
    Identity,
    /// The durations break a rule.
    #[error("{0}")]
    Timing(#[from] InvalidTiming),
}

impl CandidateFlags {
    /// Where the cluster's configuration comes from.
    pub fn source(&self) -> Source<'_> {
        match (&self.kubeconfig, self.pods_own()) {
            (None, Some(address)) => Source::Pod(address),
            (kubeconfig, _) => Source::Surroundings(kubeconfig.as_deref()),
        }
    }

    /// What filters the log, in the words of `RUST_LOG`.
    pub fn log_filter(&self) -> Option<String> {
        if self.pods_own().is_some() { None } else { std::env::var("RUST_LOG").ok() }
    }

    fn pods_own(&self) -> Option<&Path> {
        self.api_server_file.as_deref().filter(|path| !path.as_os_str().is_empty())
    }

    /// The campaign that they ask for, checked.
    ///
    /// # Errors
    /// [`FlagError`], before anything was asked of the API server.
    pub fn campaign(&self) -> Result<Builder, FlagError> {
        let LeaseName { namespace, name } = lease_name(&self.lease_namespace, &self.lease_name)?;
        if self.identity.is_empty() {
            return Err(FlagError::Identity);
        }
        let mut builder = Campaign::builder(namespace, name);
        if let Some(revision) = self.revision.as_deref().filter(|revision| !revision.is_empty()) {
            builder = builder.revision(revision);
        }
        Ok(builder
            .identity(&self.identity)
            .incarnation(incarnation(&self.pod_uid, &self.container))
            .timing(self.timing.timing()?)
            .create_lease(self.create_lease)
            .candidate_version(env!("CARGO_PKG_VERSION")))
    }

    /// The longest time for which leadership may be promised to an app: a handover to which the app says nothing takes no
    /// longer.
    ///
    /// # Errors
    /// [`FlagError::Timing`].
    pub fn longest_promise(&self) -> Result<Duration, FlagError> {
        Ok(self.timing.timing()?.retry_period())
    }
}

/// Where the Lease is, if both flags say so.
pub(super) fn lease_name(namespace: &str, name: &str) -> Result<LeaseName, FlagError> {
    if name.is_empty() {
        return Err(FlagError::LeaseName);
    }
    if namespace.is_empty() {
        return Err(FlagError::LeaseNamespace);
    }
    Ok(LeaseName { namespace: namespace.to_owned(), name: name.to_owned() })
}
