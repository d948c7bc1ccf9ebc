//! Which cluster a program talks to.

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
    /// Nothing was named and this is not a pod.
    #[error(
        "no cluster found: not in a pod (KUBERNETES_SERVICE_HOST is not set), KUBECONFIG is not set, and {0}; \
         set KUBECONFIG or pass --kubeconfig"
    )]
    Nowhere(kube::config::KubeconfigError),
}

/// `path` if given, else the files of `KUBECONFIG`, else the pod's service account, else `~/.kube/config`.
///
/// `kube::Config::infer` would prefer a stray `~/.kube/config` in an image to the pod's own account.
///
/// # Errors
/// [`ConfigError`] names the file or the surroundings that were expected.
pub async fn load(path: Option<&Path>) -> Result<Config, ConfigError> {
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
