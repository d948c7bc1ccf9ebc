//! A proxy cuts the leader's connection to the API server.

use k8sensus_local::Cluster;

use super::group::{ClientGo, Group, Kind, Ours, sleep};
use super::shared;
use crate::support::namespace;
use crate::support::overlap::Report;
use crate::support::proxy::{Passage, Proxy};

#[test]
fn ours_stop_when_cut_off_and_client_gos_overlap_is_detected() {
    let ns = namespace(shared(), "cuts");
    std::thread::scope(|scope| {
        for passage in [Passage::Silent, Passage::Unanswered, Passage::Reset] {
            for (from, to) in [(Ours, ClientGo), (Ours, Ours), (ClientGo, Ours)] {
                let ns = &ns;
                scope.spawn(move || {
                    let report = cut(ns, from, to, passage);
                    if (from, passage) == (ClientGo, Passage::Silent) {
                        // The check must detect this known overlap: client-go tries to release the Lease, for up to
                        // its renew deadline, before it ends the work.
                        let found = report.overlaps.iter().any(|overlap| overlap.old.identity == "otter");
                        assert!(found, "client-go's overlap is not detected:\n{report}");
                    }
                });
            }
        }
    });
}

#[test]
fn ours_stop_when_client_go_clears_their_lease() {
    let ns = namespace(shared(), "theft");
    // Its release must still be in progress when the connection opens. A slow machine may miss that.
    let stolen = (0..5).any(|number| {
        let group = Group::new(shared(), &ns, format!("weir-{number}"));
        let way = Proxy::to(api_server(shared()));
        let mut theirs = group.start_behind(&way, ClientGo, "otter");
        theirs.wait_until_at_work();
        let mut ours = group.start(Ours, "heron");
        sleep(2.0);
        way.set(Passage::Silent);
        ours.wait_until_at_work();
        way.set(Passage::Open);
        sleep(2.5);
        theirs.terminate();
        ours.terminate();
        group.check("ClientGo Silent, back while it releases");
        !group.thefts().is_empty()
    });
    assert!(stolen, "client-go cleared no valid Lease: is it another version?");
}

/// Cuts the leader off for more than two lease durations, then reconnects it.
fn cut(ns: &str, from: Kind, to: Kind, passage: Passage) -> Report {
    let case = format!("{from:?} {passage:?}, then {to:?}");
    let group = Group::new(shared(), ns, case.to_lowercase().replace([',', ' '], ""));
    let way = Proxy::to(api_server(shared()));
    let mut old = group.start_behind(&way, from, "otter");
    old.wait_until_at_work();
    let mut new = group.start(to, "heron");
    sleep(2.0);
    way.set(passage);
    new.wait_until_at_work();
    sleep(4.0);
    assert!(!old.at_work(), "{case}: still at work after two lease durations without a connection");
    way.set(Passage::Open);
    sleep(2.5);
    new.wait_until_at_work();
    old.terminate();
    new.terminate();
    group.check(&case)
}

/// Returns the address of the API server.
pub fn api_server(cluster: &Cluster) -> std::net::SocketAddr {
    cluster.server().strip_prefix("https://").and_then(|address| address.parse().ok()).unwrap()
}
