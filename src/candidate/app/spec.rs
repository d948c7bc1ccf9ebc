//! The container's own probes, hooks and stop signal, in Kubernetes' spelling.

use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Deserializer};

use super::signal;

/// The default of a pod's `terminationGracePeriodSeconds`.
const DEFAULT_GRACE: u32 = 30;

/// The probes, hooks and grace of the user's container. Empty by default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AppSpec {
    /// Runs from the start of the app until it passes.
    pub startup_probe: Option<Probe>,
    /// Runs on the kubelet's requests while the app runs; the kubelet gets its result.
    pub liveness_probe: Option<Probe>,
    /// Runs after the startup probe has passed.
    pub readiness_probe: Option<Probe>,
    /// Hooks, and the signal to stop.
    lifecycle: Option<Lifecycle>,
    #[serde(deserialize_with = "clamped")]
    termination_grace_period_seconds: Option<u32>,
}

/// Kubernetes' `Lifecycle`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Lifecycle {
    post_start: Option<Handler>,
    pre_stop: Option<Handler>,
    #[serde(deserialize_with = "signal_name")]
    stop_signal: Option<Signal>,
}

/// Kubernetes' `Probe`. Where 0 means the default, the methods return at least 1.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    #[serde(flatten)]
    handler: Handler,
    #[serde(default, deserialize_with = "clamped")]
    initial_delay_seconds: Option<u32>,
    #[serde(default, deserialize_with = "clamped")]
    timeout_seconds: Option<u32>,
    #[serde(default, deserialize_with = "clamped")]
    period_seconds: Option<u32>,
    #[serde(default, deserialize_with = "clamped")]
    success_threshold: Option<u32>,
    #[serde(default, deserialize_with = "clamped")]
    failure_threshold: Option<u32>,
    #[serde(default, deserialize_with = "clamped")]
    termination_grace_period_seconds: Option<u32>,
}

/// The action of a probe or a hook. A hook has no `tcpSocket` and no `grpc`, a probe no `sleep`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Handler {
    exec: Option<Exec>,
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpSocket>,
    grpc: Option<Grpc>,
    sleep: Option<Sleep>,
}

/// A handler's single action.
#[derive(Clone, Copy, Debug)]
pub enum Action<'a> {
    /// Run a command.
    Exec(&'a Exec),
    /// Send a GET.
    HttpGet(&'a HttpGet),
    /// Connect.
    TcpSocket(&'a TcpSocket),
    /// Call `grpc.health.v1.Health/Check`.
    Grpc(&'a Grpc),
    /// Wait.
    Sleep(Duration),
}

/// Kubernetes' `ExecAction`.
#[derive(Clone, Debug, Deserialize)]
pub struct Exec {
    /// Program and arguments; no shell.
    pub command: Vec<String>,
}

/// Kubernetes' `HTTPGetAction`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpGet {
    /// With its query.
    #[serde(default)]
    pub path: Option<String>,
    /// Where it listens.
    #[serde(deserialize_with = "port")]
    pub port: u16,
    /// Instead of the pod's address.
    #[serde(default)]
    pub host: Option<String>,
    /// `HTTP` or `HTTPS`.
    #[serde(default)]
    pub scheme: Option<String>,
    /// More headers.
    #[serde(default)]
    pub http_headers: Option<Vec<HttpHeader>>,
}

/// Kubernetes' `HTTPHeader`.
#[derive(Clone, Debug, Deserialize)]
pub struct HttpHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
}

/// Kubernetes' `TCPSocketAction`.
#[derive(Clone, Debug, Deserialize)]
pub struct TcpSocket {
    /// Where it listens.
    #[serde(deserialize_with = "port")]
    pub port: u16,
    /// Instead of the pod's address.
    #[serde(default)]
    pub host: Option<String>,
}

/// Kubernetes' `GRPCAction`.
#[derive(Clone, Debug, Deserialize)]
pub struct Grpc {
    /// Where it listens.
    #[serde(deserialize_with = "port")]
    pub port: u16,
    /// Which service is asked about; empty is the server as a whole.
    #[serde(default)]
    pub service: Option<String>,
}

/// Kubernetes' `SleepAction`.
#[derive(Clone, Debug, Deserialize)]
struct Sleep {
    seconds: u32,
}

impl AppSpec {
    /// Parses the JSON that the operator wrote. Unknown fields are ignored.
    ///
    /// # Errors
    /// A sentence with what was expected, and where.
    pub fn parse(json: &str) -> Result<Self, String> {
        const HINT: &str = "the operator sets K8SENSUS_APP: do not set it by hand, or write the container's own fields";
        let spec: Self = serde_json::from_str(json)
            .map_err(|error| format!("expected the container's probes and hooks as JSON, found {error}; {HINT}"))?;
        for (field, probe) in [
            ("startupProbe", &spec.startup_probe),
            ("livenessProbe", &spec.liveness_probe),
            ("readinessProbe", &spec.readiness_probe),
        ] {
            if let Some(probe) = probe
                && !matches!(probe.handler.actions()[..], [action] if !matches!(action, Action::Sleep(_)))
            {
                return Err(format!(
                    "expected one of exec, httpGet, tcpSocket and grpc in {field}, found another number of them; {HINT}"
                ));
            }
        }
        for (field, hook) in [("lifecycle.postStart", spec.post_start()), ("lifecycle.preStop", spec.pre_stop())] {
            let Some(hook) = hook else { continue };
            if !matches!(hook.actions()[..], [Action::Exec(_) | Action::HttpGet(_) | Action::Sleep(_)]) {
                return Err(format!(
                    "expected one of exec, httpGet and sleep in {field}, found something else; {HINT}"
                ));
            }
        }
        Ok(spec)
    }

    /// Returns the hook that runs right after the start of the app.
    pub fn post_start(&self) -> Option<&Handler> {
        self.lifecycle.as_ref()?.post_start.as_ref()
    }

    /// Returns the hook that runs before the stop signal.
    pub fn pre_stop(&self) -> Option<&Handler> {
        self.lifecycle.as_ref()?.pre_stop.as_ref()
    }

    /// Returns the signal that stops the app, if the user chose one.
    pub fn stop_signal(&self) -> Option<Signal> {
        self.lifecycle.as_ref()?.stop_signal
    }

    /// Returns how long a requested stop may take in all, preStop included.
    pub fn grace(&self) -> Duration {
        seconds(self.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE))
    }
}

impl Probe {
    /// Returns the action.
    pub fn handler(&self) -> &Handler {
        &self.handler
    }

    /// Returns the time from the start of the app to the first try.
    pub fn initial_delay(&self) -> Duration {
        seconds(self.initial_delay_seconds.unwrap_or(0))
    }

    /// Returns how long one try may take.
    pub fn timeout(&self) -> Duration {
        seconds(or(self.timeout_seconds, 1))
    }

    /// Returns the time from one try to the next.
    pub fn period(&self) -> Duration {
        seconds(or(self.period_seconds, 10))
    }

    /// Returns how many successes in a row end a failure.
    pub fn success_threshold(&self) -> u32 {
        or(self.success_threshold, 1)
    }

    /// Returns how many failures in a row end a success.
    pub fn failure_threshold(&self) -> u32 {
        or(self.failure_threshold, 3)
    }

    /// Returns the grace of a stop that this probe causes, if it has its own.
    pub fn grace(&self) -> Option<Duration> {
        self.termination_grace_period_seconds.map(seconds)
    }
}

impl Handler {
    /// Returns the action. [`AppSpec::parse`] guarantees that there is one.
    pub fn action(&self) -> Option<Action<'_>> {
        self.actions().first().copied()
    }

    fn actions(&self) -> Vec<Action<'_>> {
        let Self { exec, http_get, tcp_socket, grpc, sleep } = self;
        [
            exec.as_ref().map(Action::Exec),
            http_get.as_ref().map(Action::HttpGet),
            tcp_socket.as_ref().map(Action::TcpSocket),
            grpc.as_ref().map(Action::Grpc),
            sleep.as_ref().map(|sleep| Action::Sleep(seconds(sleep.seconds))),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn seconds(number: u32) -> Duration {
    Duration::from_secs(number.into())
}

/// Returns the default for 0 as for a missing number, like the API server.
fn or(number: Option<u32>, default: u32) -> u32 {
    number.filter(|number| *number > 0).unwrap_or(default)
}

/// Clamps numbers that are too large: the longest duration already exceeds the life of any machine.
fn clamped<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let number = Option::<u64>::deserialize(deserializer)?;
    Ok(number.map(|number| number.try_into().unwrap_or(u32::MAX)))
}

/// Parses a number from 1 to 65535, also as text, which the API treats as a name and the kubelet as a number.
fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Port {
        Number(u16),
        Text(String),
    }
    let found = match Port::deserialize(deserializer) {
        Ok(Port::Number(number)) => number,
        Ok(Port::Text(text)) => text.parse().unwrap_or(0),
        Err(_) => 0,
    };
    if found == 0 { Err(serde::de::Error::custom("a port that is not a number from 1 to 65535")) } else { Ok(found) }
}

fn signal_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Signal>, D::Error> {
    let name = Option::<String>::deserialize(deserializer)?;
    name.map(|name| {
        let unknown = || serde::de::Error::custom(format!("stopSignal {name:?}, which is not a Linux signal"));
        signal::named(&name).ok_or_else(unknown)
    })
    .transpose()
}
