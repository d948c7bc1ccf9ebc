//! The history in the status, written by an operator that watches real candidates.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Program, apply, candidate, control_plane, get, group, kubectl, namespace, operated, operator, within,
};

const SOON: Duration = Duration::from_secs(5);

struct Stage {
    cluster: &'static k8sensus_local::Cluster,
    ns: String,
}

impl Stage {
    fn new(name: &str) -> Self {
        let cluster = operated();
        let ns = namespace(cluster, name);
        apply(cluster, &ns, &group("kestrel", json!({}))).unwrap();
        within(10, "the lease", || get(cluster, &ns, "lease/kestrel"));
        Self { cluster, ns }
    }

    fn candidate(&self, name: &str) -> Program {
        candidate(self.cluster, &self.ns, "kestrel", name, &["--create-lease=false"])
    }

    /// Waits until `holder` leads at that count. Returns the newest entry of the history.
    fn led_by(&self, holder: &str, transitions: i64) -> Value {
        let what = format!("{holder} at {transitions}");
        within(20, &what, || {
            let status = get(self.cluster, &self.ns, "electiongroup/kestrel")?["status"].clone();
            let entry = status["history"][0].clone();
            let led = status["holderIdentity"] == holder && status["leaseTransitions"] == transitions;
            (led && entry["holderIdentity"] == holder && entry["leaseTransitions"] == transitions).then_some(entry)
        })
    }

    fn history(&self) -> Vec<Value> {
        let status = get(self.cluster, &self.ns, "electiongroup/kestrel").unwrap()["status"].clone();
        status["history"].as_array().unwrap().clone()
    }
}

#[test]
fn history_has_reason_and_gap_of_each_change() {
    let stage = Stage::new("changes");
    let mut otter = stage.candidate("otter");
    let first = stage.led_by("otter", 1);
    assert_eq!(first["reason"], "Elected");
    assert!(first.get("leaderlessSeconds").is_none(), "{first}");
    assert_eq!(first["time"], get(stage.cluster, &stage.ns, "lease/kestrel").unwrap()["spec"]["acquireTime"]);

    let heron = stage.candidate("heron");
    heron.wait_for("New leader is: otter", SOON);
    otter.terminate(SOON);
    let second = stage.led_by("heron", 2);
    assert_eq!(second["reason"], "LeaseReleased");
    let gap = second["leaderlessSeconds"].as_f64().unwrap();
    println!("handover: {gap} s");
    assert!((0.0..1.0).contains(&gap), "{second}");

    let swan = stage.candidate("swan");
    swan.wait_for("New leader is: heron", SOON);
    heron.signal(Signal::KILL);
    let third = stage.led_by("swan", 3);
    assert_eq!(third["reason"], "LeaseExpired");
    let gap = third["leaderlessSeconds"].as_f64().unwrap();
    println!("takeover: {gap} s");
    // The lease lasts 3 s. A renewTime may be up to 1 s ahead, because of client-go.
    assert!((2.0..8.0).contains(&gap), "{third}");

    kubectl(stage.cluster, &["delete", "-n", &stage.ns, "lease/kestrel"]);
    let fourth = stage.led_by("swan", 4);
    assert_eq!(fourth["reason"], "LeaseDeleted");
    let holders: Vec<Value> = stage.history().iter().map(|entry| entry["holderIdentity"].clone()).collect();
    assert_eq!(holders, ["swan", "swan", "heron", "otter"]);
}

#[test]
fn transitions_continue_after_a_candidate_recreates_the_lease() {
    let stage = Stage::new("fell");
    let mut otter = stage.candidate("otter");
    stage.led_by("otter", 1);
    otter.terminate(SOON);
    let mut otter = stage.candidate("otter");
    stage.led_by("otter", 2);
    apply(stage.cluster, &stage.ns, &group("kestrel", json!({ "paused": true }))).unwrap();
    within(10, "the pause", || {
        let group = get(stage.cluster, &stage.ns, "electiongroup/kestrel")?;
        (group["status"]["observedGeneration"] == group["metadata"]["generation"]).then_some(())
    });
    otter.terminate(SOON);
    kubectl(stage.cluster, &["delete", "-n", &stage.ns, "lease/kestrel"]);
    let _heron = candidate(stage.cluster, &stage.ns, "kestrel", "heron", &[]);
    let lease = within(20, "heron's own lease", || {
        get(stage.cluster, &stage.ns, "lease/kestrel").filter(|lease| lease["spec"]["holderIdentity"] == "heron")
    });
    assert_eq!(lease["spec"]["leaseTransitions"], 0);
    apply(stage.cluster, &stage.ns, &group("kestrel", json!({}))).unwrap();
    let entry = stage.led_by("heron", 3);
    assert_eq!(entry["reason"], "LeaseDeleted", "{entry}");
    let status = get(stage.cluster, &stage.ns, "electiongroup/kestrel").unwrap()["status"].clone();
    assert_eq!(status["leaseTransitionsOffset"], 3);
}

#[test]
fn history_after_an_operator_outage_has_only_observed_facts() {
    let cluster = control_plane();
    let ns = namespace(&cluster, "away");
    let status = || get(&cluster, &ns, "electiongroup/kestrel").map(|group| group["status"].clone());
    let start = || {
        let keeper = operator(&cluster, "keeper", &[]);
        keeper.wait_for("starting to reconcile", Duration::from_secs(20));
        keeper
    };
    let lead = |name: &str| candidate(&cluster, &ns, "kestrel", name, &["--create-lease=false"]);
    let mut keeper = start();
    apply(&cluster, &ns, &group("kestrel", json!({}))).unwrap();
    within(10, "the lease", || get(&cluster, &ns, "lease/kestrel"));
    let mut otter = lead("otter");
    within(10, "otter", || status().filter(|status| status["history"][0]["holderIdentity"] == "otter"));

    assert!(keeper.terminate(SOON).success());
    otter.terminate(SOON);
    let mut heron = lead("heron");
    heron.wait_for("I'm the new leader!", SOON);
    heron.terminate(SOON);
    let swan = lead("swan");
    swan.wait_for("I'm the new leader!", SOON);
    let keeper = start();
    let shown = within(10, "swan", || status().filter(|status| status["history"][0]["holderIdentity"] == "swan"));
    assert_eq!((&shown["leaseTransitions"], &shown["history"][0]["leaseTransitions"]), (&json!(3), &json!(3)));
    assert_eq!(shown["history"][0]["reason"], "NotObserved");
    assert!(shown["history"][0].get("leaderlessSeconds").is_none());
    assert_eq!(shown["history"][1]["holderIdentity"], "otter", "heron's term is missing, and the counts show it");

    // A holder that the status shows as lost stays lost for an operator that has not yet waited for the expiry itself.
    swan.signal(Signal::KILL);
    let lost = within(10, "the expiry", || status().filter(|status| status["leaderless"]["reason"] == "LeaseExpired"));
    drop(keeper);
    let _keeper = start();
    for colour in ["red", "blue"] {
        kubectl(&cluster, &["label", "-n", &ns, "electiongroup/kestrel", "--overwrite", &format!("colour={colour}")]);
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(status().unwrap(), lost);
    }
}
