use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::node;
use super::serve::{ListenError, Server};
use crate::campaign::{Builder, Campaign, LeaseName, TimingFlags, incarnation};
use crate::election::InvalidTiming;
use crate::protocol::environment;
use crate::runtime::kubeconfig::Source;

/// The flags of every form of the candidate.
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
    /// The pod's uid, part of what distinguishes this process from others of the same name
    #[arg(long, env = environment::POD_UID, default_value = "-", hide = true)]
    pod_uid: String,
    /// The container's name, likewise
    #[arg(long, env = environment::CONTAINER, default_value = "-", hide = true)]
    container: String,
    /// The pod's revision: while the Lease names another one as proven, this candidate yields to others
    #[arg(long, env = environment::REVISION, hide = true)]
    revision: Option<String>,
    /// Kubeconfig file; by default KUBECONFIG, else the pod's service account
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// The file to which `install` wrote the API server's URL; set by the operator. With it, the environment, which is
    /// the program's, determines neither the cluster nor the credentials nor the log
    #[arg(long, env = environment::API_SERVER_FILE, hide = true)]
    api_server_file: Option<PathBuf>,
    #[command(flatten)]
    timing: TimingFlags,
}

/// The flags of the candidate's HTTP server.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct HttpFlags {
    /// Port of the HTTP server that reports the leader; by default 4040 beside an app, none with a command
    #[arg(long, env = environment::HTTP_PORT, value_name = "PORT")]
    pub http_port: Option<u16>,
    /// The node's address, for which connections are reserved; set by the operator
    #[arg(long, env = environment::NODE_IP, default_value = "", hide = true)]
    pub node_ip: String,
}

impl HttpFlags {
    /// The default port of a sidecar.
    pub const DEFAULT_PORT: u16 = 4040;

    /// Binds the server to `port`, with connections reserved for the pod's node.
    ///
    /// # Errors
    /// [`ListenError`].
    pub(super) fn bind(&self, port: u16) -> Result<Server, ListenError> {
        Ok(Server::bind(port)?.keep_places_for(node::addresses(&self.node_ip)))
    }
}

/// A mistake in the flags. One line each, with a remedy.
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
    /// Returns where the cluster's configuration comes from.
    pub fn source(&self) -> Source<'_> {
        match (&self.kubeconfig, self.server_file()) {
            (None, Some(address)) => Source::Pod(address),
            (kubeconfig, _) => Source::Surroundings(kubeconfig.as_deref()),
        }
    }

    /// Returns the filter of the log, in the syntax of `RUST_LOG`.
    pub fn log_filter(&self) -> Option<String> {
        if self.server_file().is_some() { None } else { std::env::var("RUST_LOG").ok() }
    }

    fn server_file(&self) -> Option<&Path> {
        self.api_server_file.as_deref().filter(|path| !path.as_os_str().is_empty())
    }

    /// Returns the campaign that the flags describe, checked.
    ///
    /// # Errors
    /// [`FlagError`], before any request to the API server.
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

    /// Returns the longest time for which leadership may be promised to an app. A handover during which the app reports
    /// nothing takes no longer.
    ///
    /// # Errors
    /// [`FlagError::Timing`].
    pub fn longest_promise(&self) -> Result<Duration, FlagError> {
        Ok(self.timing.timing()?.retry_period())
    }
}

/// Returns the name of the Lease, if both flags are set.
pub(super) fn lease_name(namespace: &str, name: &str) -> Result<LeaseName, FlagError> {
    if name.is_empty() {
        return Err(FlagError::LeaseName);
    }
    if namespace.is_empty() {
        return Err(FlagError::LeaseNamespace);
    }
    Ok(LeaseName { namespace: namespace.to_owned(), name: name.to_owned() })
}
