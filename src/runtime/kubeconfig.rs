//! The configuration of the cluster that a program connects to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// A reason why there is no configuration. The text lists what was tried.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The named kubeconfig cannot be used.
    // Only its first line: the next lines quote the file, which contains credentials.
    #[error("cannot use kubeconfig {path}: {}", .source.to_string().lines().next().unwrap_or_default())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: kube::config::KubeconfigError,
    },
    /// This is a pod without credentials.
    #[error(
        "cannot use this pod's service account: {0} (expected token and ca.crt in /var/run/secrets/kubernetes.io/serviceaccount; \
         is automountServiceAccountToken false?)"
    )]
    InCluster(kube::config::InClusterError),
    /// The file with the API server's address cannot be used.
    #[error(
        "cannot read the API server's address from {path}: {reason} (expected its URL, which `k8sensus install` writes; delete the pod \
         so that a new one takes its place)"
    )]
    Address {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No kubeconfig was named and this is not a pod.
    #[error(
        "no cluster found: not in a pod (KUBERNETES_SERVICE_HOST is not set), KUBECONFIG is not set, and {0}; \
         set KUBECONFIG or pass --kubeconfig"
    )]
    Nowhere(kube::config::KubeconfigError),
}

/// The source of the configuration.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// The surroundings: the named kubeconfig, else the environment.
    Surroundings(Option<&'a Path>),
    /// The pod's own service account, and the API server whose URL is in this file, whatever the environment contains.
    Pod(&'a Path),
}

/// Loads the configuration from `source`.
///
/// # Errors
/// [`ConfigError`], which names the expected file or surroundings.
pub async fn load(source: Source<'_>) -> Result<Config, ConfigError> {
    match source {
        Source::Surroundings(path) => from_surroundings(path).await,
        Source::Pod(address) => of_pod(address),
    }
}

/// Returns the API server's URL, which [`Source::Pod`] needs, from the variables that the kubelet sets in every
/// container. `None` without them.
pub fn server_of_environment() -> Option<String> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let host = variable("KUBERNETES_SERVICE_HOST")?;
    let port = variable("KUBERNETES_SERVICE_PORT")?;
    Some(if host.contains(':') { format!("https://[{host}]:{port}") } else { format!("https://{host}:{port}") })
}

/// Loads the pod's configuration. KUBECONFIG, proxies and kube's own variables are ignored.
fn of_pod(address: &Path) -> Result<Config, ConfigError> {
    let wrong = |reason| ConfigError::Address { path: address.to_owned(), reason };
    let url = fs::read_to_string(address).map_err(|error: io::Error| wrong(error.to_string()))?;
    let url = url.trim();
    // The address by DNS is replaced, since a pod may have no cluster DNS.
    let mut config = Config::incluster_dns().map_err(ConfigError::InCluster)?;
    config.cluster_url = url.parse().map_err(|error| wrong(format!("{url:?}, {error}")))?;
    Ok(config)
}

/// Loads `path` if given, else the files of `KUBECONFIG`, else the pod's service account, else `~/.kube/config`.
///
/// `kube::Config::infer` would prefer a stray `~/.kube/config` in an image to the pod's own account.
async fn from_surroundings(path: Option<&Path>) -> Result<Config, ConfigError> {
    let options = KubeConfigOptions::default();
    if let Some(path) = path {
        let named = |source| ConfigError::Kubeconfig { path: path.to_owned(), source };
        let kubeconfig = Kubeconfig::read_from(path).map_err(named)?;
        return Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(named);
    }
    if let Some(files) = std::env::var_os("KUBECONFIG").filter(|files| !files.is_empty()) {
        return Config::from_kubeconfig(&options)
            .await
            .map_err(|source| ConfigError::Kubeconfig { path: files.into(), source });
    }
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return Config::incluster().map_err(ConfigError::InCluster);
    }
    Config::from_kubeconfig(&options).await.map_err(ConfigError::Nowhere)
}
