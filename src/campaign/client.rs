//! The clients that read, write and watch the Lease.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DynamicObject};
use kube::client::ClientBuilder;
use kube::core::ApiResource;
use kube::{Client, Config};

use super::LeaseName;
use crate::election::Timing;
use crate::runtime::retry_after::KeepRetryAfter;
use crate::runtime::tls::use_ring;

/// The last resort against hanging requests. The driver already drops a request at its timeout, which closes its
/// connection.
const LONGEST_REQUEST: Duration = Duration::from_secs(30);
/// The server ends a watch after at most 290 s (kube's `watcher::Config`). A watch that is silent for longer is dead.
pub const LONGEST_WATCH: Duration = Duration::from_secs(300);

/// The error of a configuration that cannot be turned into a client.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a client for {cluster_url}: {source}")]
pub struct ConnectError {
    cluster_url: String,
    source: kube::Error,
}

/// Two separate clients, so that a long watch never delays a renewal.
#[derive(Clone)]
pub struct Clients {
    /// Reads and writes the Lease. Must not retry on its own.
    pub requests: Client,
    /// Watches the Lease.
    pub watch: Client,
}

impl Clients {
    /// Creates the clients of a campaign, see [`Guarantees`](super#guarantees).
    ///
    /// # Errors
    /// [`ConnectError`] if `config` is invalid (bad certificates, an unreadable key).
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn connect(config: &Config, timing: &Timing) -> Result<Self, ConnectError> {
        let client = |config: Config| {
            use_ring();
            let cluster_url = config.cluster_url.to_string();
            let builder = ClientBuilder::try_from(config).map_err(|source| ConnectError { cluster_url, source })?;
            Ok(builder.with_layer(&KeepRetryAfter).build())
        };
        let mut requests = config.clone();
        requests.default_retry = false;
        requests.connect_timeout = Some(timing.renew_deadline() / 2);
        requests.read_timeout = Some(LONGEST_REQUEST);
        requests.reset_reader_on_write = true;
        let mut watch = config.clone();
        watch.default_retry = false;
        watch.connect_timeout = Some(timing.renew_deadline() / 2);
        watch.read_timeout = Some(LONGEST_WATCH);
        watch.reset_reader_on_write = true;
        Ok(Self { requests: client(requests)?, watch: client(watch)? })
    }
}

/// Returns the API of the Lease as a dynamic object, so that unknown fields survive a read and a write.
pub fn leases(client: Client, lease: &LeaseName) -> Api<DynamicObject> {
    Api::namespaced_with(client, &lease.namespace, &ApiResource::erase::<Lease>(&()))
}
