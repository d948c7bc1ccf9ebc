//! The connection to the cluster, and requests whose failures name what was requested.

use std::io::IsTerminal;
use std::time::Duration;

use jiff::Timestamp;
use k8sensus_runtime::clock::{Clock, SystemClock};
use k8sensus_runtime::kubeconfig::{self, Source};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::failure::{Access, Failure, one_line};
use crate::flags::Common;

/// A cluster to which requests can be sent.
pub struct Cluster {
    /// The client.
    pub client: Client,
    /// The namespace of the command.
    pub namespace: String,
    /// The URL of the API server.
    pub server: String,
    timeout: Duration,
}

/// Loads the configuration and builds a client. No request is sent yet.
pub async fn connect(common: &Common) -> Result<Cluster, Failure> {
    let mut config = load(common).await?;
    if let Some(user) = &common.as_user {
        config.auth_info.impersonate = Some(user.clone());
    }
    if !common.as_group.is_empty() {
        config.auth_info.impersonate_groups = Some(common.as_group.clone());
    }
    // Retries would hide an overloaded API server for minutes. Every request has a limit of its own.
    config.default_retry = false;
    config.read_timeout = None;
    if !common.request_timeout.is_zero() {
        config.connect_timeout = Some(common.request_timeout);
    }
    let namespace = common.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    let client = Client::try_from(config).map_err(|error| {
        Failure::Kubeconfig(format!("the kubeconfig cannot be used: {}", one_line(&error.to_string())))
    })?;
    Ok(Cluster { client, namespace, server, timeout: common.request_timeout })
}

async fn load(common: &Common) -> Result<Config, Failure> {
    let Some(context) = &common.context else {
        return Ok(kubeconfig::load(Source::Surroundings(common.kubeconfig.as_deref())).await?);
    };
    let read = match &common.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    // Only the first line: the next lines quote the file, which contains credentials.
    let wrong = |error: kube::config::KubeconfigError| {
        let text = error.to_string();
        Failure::Kubeconfig(format!("the kubeconfig cannot be used: {}", text.lines().next().unwrap_or_default()))
    };
    let config = read.map_err(wrong)?;
    let known: Vec<&str> = config.contexts.iter().map(|context| context.name.as_str()).collect();
    if !known.contains(&context.as_str()) {
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(Failure::Kubeconfig(format!("the kubeconfig has no context {context}: it has {known}")));
    }
    let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(config, &options).await.map_err(wrong)
}

impl Cluster {
    /// Awaits a request, for the request timeout at most.
    pub async fn send<T>(
        &self,
        access: Access,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Failure> {
        self.limit(request).await?.map_err(|error| Failure::of(error, access, &self.server))
    }

    /// Awaits a read of one object, for the request timeout at most. `None` if the object does not exist.
    pub async fn find<T>(
        &self,
        access: Access,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<Option<T>, Failure> {
        match self.limit(request).await? {
            Ok(found) => Ok(Some(found)),
            Err(error) if Failure::is_not_found(&error) => Ok(None),
            Err(error) => Err(Failure::of(error, access, &self.server)),
        }
    }

    async fn limit<T>(&self, request: impl Future<Output = T>) -> Result<T, Failure> {
        if self.timeout.is_zero() {
            return Ok(request.await);
        }
        let clock = SystemClock;
        tokio::select! {
            done = request => Ok(done),
            () = clock.sleep_until(clock.since_boot() + self.timeout) => {
                Err(Failure::Slow { server: self.server.clone(), seconds: self.timeout.as_secs_f64() })
            }
        }
    }
}

/// Returns the current time by this machine's clock.
pub fn now() -> Timestamp {
    Timestamp::from_microsecond(SystemClock.wall_micros()).unwrap_or_default()
}

/// Completes after `time`.
pub async fn sleep(time: Duration) {
    SystemClock.sleep_until(SystemClock.since_boot() + time).await;
}

/// Returns the width of the terminal, `None` if the output goes elsewhere.
pub fn terminal_width() -> Option<usize> {
    let out = std::io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&out).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Whether the output may have colours: on a terminal, unless NO_COLOR is set.
pub fn has_colours() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb
}
