//! Candidates of this project and unmodified client-go candidates on the Leases of a real API server, with all faults
//! that a single machine can produce. Ours must never work beside another leader. client-go's own overlaps are printed.

mod by_hand;
mod cuts;
mod fixtures;
mod group;
mod handover;
mod history;
mod namespaces;
mod outages;
mod random;
mod servers;
mod twins;

use std::path::Path;
use std::sync::OnceLock;

use k8sensus_local::Cluster;
use serde_json::json;

/// Returns the control plane of these tests, except those that disturb it. Its audit log has every write to a Lease in
/// full.
fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(control_plane)
}

/// Returns the control plane of the tests that stop its API server and etcd.
fn unstable() -> &'static Cluster {
    static UNSTABLE: OnceLock<Cluster> = OnceLock::new();
    UNSTABLE.get_or_init(control_plane)
}

fn control_plane() -> Cluster {
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {
                "level": "RequestResponse",
                "verbs": ["create", "update", "patch", "delete"],
                "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}],
            },
            {"level": "None"},
        ],
    });
    // The API server reads it at each start.
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("leases-audit-policy.json");
    let new = tempfile::NamedTempFile::new_in(file.parent().unwrap()).unwrap();
    std::fs::write(&new, policy.to_string()).unwrap();
    new.persist(&file).unwrap();
    let argument = format!("--audit-policy-file={}", file.display());
    let cluster = Cluster::control_plane().controller_manager(false).audit(true).api_server_arg(argument);
    cluster.start().unwrap_or_else(|error| panic!("{error}"))
}
