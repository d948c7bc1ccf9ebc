use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The metrics of client-go's leader election, with the same names.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    master_status: Family<Lease, Gauge>,
    slowpath: Family<Lease, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Lease {
    name: String,
}

impl Metrics {
    /// Registers the metrics in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "leader_election_master_status",
            "1 if this process is the leader by the Lease of that name, 0 if it is a standby",
            self.master_status.clone(),
        );
        registry.register(
            // The encoder adds `_total`.
            "leader_election_slowpath",
            "Number of times a leader had to read the Lease of that name again after a failed renewal",
            self.slowpath.clone(),
        );
    }

    pub(super) fn count_slowpath(&self, lease: &str) {
        self.slowpath.get_or_create(&Lease { name: lease.to_owned() }).inc();
    }

    pub(super) fn set_leading(&self, lease: &str, leading: bool) {
        self.master_status.get_or_create(&Lease { name: lease.to_owned() }).set(i64::from(leading));
    }
}
