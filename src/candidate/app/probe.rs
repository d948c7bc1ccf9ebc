//! Runs one probe or one hook at a time, as the kubelet does it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, Either, select};

use super::dial::{connect, host_or};
use super::spec::{Action, Handler, Probe, TcpSocket};
use super::{grpc, http};
use crate::runtime::clock::Clock;

/// Runs commands beside the app.
pub trait Runner: Send + Sync {
    /// Runs `command` with the app's environment and without standard streams until it has ended, and returns its exit
    /// code. The command is killed when the future is dropped.
    fn run(&self, command: Vec<String>) -> BoxFuture<'static, io::Result<u8>>;
}

/// The reason why a probe did not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The app's answer, or the lack of one.
    #[error("{0}")]
    Failed(String),
    /// The probe itself could not be run, which proves nothing about the app.
    #[error("{0}")]
    NotRun(String),
}

impl From<String> for ProbeError {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

/// The address of the app, and the means to probe it.
#[derive(Clone)]
pub struct Prober {
    address: Arc<str>,
    runner: Arc<dyn Runner>,
    clock: Arc<dyn Clock>,
}

impl Prober {
    /// Probes at `address`, the pod's own, unless a probe names another host.
    pub fn new(address: &str, runner: Arc<dyn Runner>, clock: Arc<dyn Clock>) -> Self {
        Self { address: address.into(), runner, clock }
    }

    /// Runs `probe` once, within its timeout, and returns the answer.
    ///
    /// # Errors
    /// [`ProbeError`]: it failed, or could not be run.
    pub fn probe(&self, probe: &Probe) -> BoxFuture<'static, Result<String, ProbeError>> {
        let (this, probe) = (self.clone(), probe.clone());
        Box::pin(async move {
            let limit = probe.timeout();
            match this.within(limit, this.run(probe.handler())).await {
                Some(answer) => answer,
                None => Err(ProbeError::Failed(format!("no answer within {} s", limit.as_secs()))),
            }
        })
    }

    /// Runs a hook to its end, however long that takes. Any answer to an httpGet is a success, as to the kubelet.
    pub fn hook(&self, hook: &Handler) -> BoxFuture<'static, Result<(), String>> {
        let (this, hook) = (self.clone(), hook.clone());
        Box::pin(async move {
            match hook.action() {
                Some(Action::Exec(exec)) => this.exec(&exec.command).await.map(drop).map_err(|error| error.to_string()),
                Some(Action::HttpGet(get)) => http::get(get, &this.address, http::LIFECYCLE).await.map(drop),
                Some(Action::Sleep(duration)) => {
                    this.sleep(duration).await;
                    Ok(())
                }
                other => Err(format!("expected exec, httpGet or sleep, found {other:?}: use one of these")),
            }
        })
    }

    /// Returns the result of `work`; `None` if it takes longer than `limit`, and then `work` is dropped.
    pub async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        match select(Box::pin(work), self.sleep(limit)).await {
            Either::Left((result, _)) => Some(result),
            Either::Right(_) => None,
        }
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.clock.sleep_until(self.clock.since_boot().saturating_add(duration))
    }

    async fn run(&self, handler: &Handler) -> Result<String, ProbeError> {
        match handler.action() {
            Some(Action::Exec(exec)) => self.exec(&exec.command).await,
            Some(Action::HttpGet(get)) => {
                let status = http::get(get, &self.address, http::PROBE).await?;
                let text = format!("HTTP probe answered with status {status}");
                if (200..400).contains(&status) { Ok(text) } else { Err(text.into()) }
            }
            Some(Action::TcpSocket(socket)) => Ok(tcp(socket, &self.address).await?),
            Some(Action::Grpc(call)) => Ok(grpc::check(call, &self.address).await?),
            other => {
                Err(format!("expected exec, httpGet, tcpSocket or grpc, found {other:?}: use one of these").into())
            }
        }
    }

    async fn exec(&self, command: &[String]) -> Result<String, ProbeError> {
        let name = command.first().map_or("", String::as_str);
        match self.runner.run(command.to_vec()).await {
            Ok(0) => Ok(format!("{name} ended with exit code 0")),
            Ok(code) => Err(ProbeError::Failed(format!("{name} ended with exit code {code}"))),
            Err(error) => Err(ProbeError::NotRun(format!("cannot run {name}: {error}"))),
        }
    }
}

async fn tcp(socket: &TcpSocket, address: &str) -> Result<String, String> {
    let host = host_or(socket.host.as_deref(), address);
    connect(host, socket.port).await.map(|_| format!("connected to {host}, port {}", socket.port))
}
