use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The metrics that client-go's election has, under their names.
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
    /// Makes the metrics visible in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "leader_election_master_status",
            "1 if this process leads by the Lease of that name, 0 if it stands by",
            self.master_status.clone(),
        );
        registry.register(
            // The encoder adds `_total`.
            "leader_election_slowpath",
            "How often a leader had to read the Lease of that name again, since a renewal had failed",
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
