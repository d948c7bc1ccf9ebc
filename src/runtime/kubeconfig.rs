//! Which cluster a program talks to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// Neither a kubeconfig nor a pod's own credentials make a configuration. The text says what was tried.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The kubeconfig that was named cannot be used.
    // Its first line only: the next ones quote the file, and in that stand credentials.
    #[error("cannot use kubeconfig {path}: {}", .source.to_string().lines().next().unwrap_or_default())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: kube::config::KubeconfigError,
    },
    /// In a pod, but without credentials.
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
    /// Nothing was named and this is not a pod.
    #[error(
        "no cluster found: not in a pod (KUBERNETES_SERVICE_HOST is not set), KUBECONFIG is not set, and {0}; \
         set KUBECONFIG or pass --kubeconfig"
    )]
    Nowhere(kube::config::KubeconfigError),
}

/// Where the configuration comes from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// The surroundings: a kubeconfig that is named, else what the environment says.
    Surroundings(Option<&'a Path>),
    /// The pod's own service account and the API server whose URL is in this file, whatever the environment says.
    Pod(&'a Path),
}

/// The configuration from `source`.
///
/// # Errors
/// [`ConfigError`] names the file or the surroundings that were expected.
pub async fn load(source: Source<'_>) -> Result<Config, ConfigError> {
    match source {
        Source::Surroundings(path) => from_surroundings(path).await,
        Source::Pod(address) => of_pod(address),
    }
}

/// What [`Source::Pod`] needs: the API server's URL by the variables that the kubelet sets in every container. `None` without
/// them.
pub fn server_of_environment() -> Option<String> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let host = variable("KUBERNETES_SERVICE_HOST")?;
    let port = variable("KUBERNETES_SERVICE_PORT")?;
    Some(if host.contains(':') { format!("https://[{host}]:{port}") } else { format!("https://{host}:{port}") })
}

/// Neither KUBECONFIG nor a proxy nor kube's own variables count.
fn of_pod(address: &Path) -> Result<Config, ConfigError> {
    let wrong = |reason| ConfigError::Address { path: address.to_owned(), reason };
    let url = fs::read_to_string(address).map_err(|error: io::Error| wrong(error.to_string()))?;
    let url = url.trim();
    // Its address is replaced: a pod may have no cluster DNS.
    let mut config = Config::incluster_dns().map_err(ConfigError::InCluster)?;
    config.cluster_url = url.parse().map_err(|error| wrong(format!("{url:?}, {error}")))?;
    Ok(config)
}

/// `path` if given, else the files of `KUBECONFIG`, else the pod's service account, else `~/.kube/config`.
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
