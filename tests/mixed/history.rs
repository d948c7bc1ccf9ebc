//! The history of a Lease in the API server's audit log, and the acquisitions that came too early.

use std::time::Duration;

use k8sensus_local::Cluster;
use serde_json::Value;

/// A successful write.
#[derive(Clone, Debug)]
struct Write {
    /// The times since 1970. The object was committed between the two.
    received: Duration,
    answered: Duration,
    deleted: bool,
    by_client_go: bool,
    /// The version that it expected, `null` in a patch, and its own version.
    expected: Value,
    version: Value,
    spec: Value,
    incarnation: Value,
}

impl Write {
    fn holder(&self) -> &str {
        self.spec["holderIdentity"].as_str().unwrap_or_default()
    }

    /// Whether it replaced `former`. A write in between may be missing in the log: its client did not wait for the
    /// answer, or the API server was killed.
    fn follows(&self, former: &Self) -> bool {
        former.deleted || self.expected.is_null() || self.expected == former.version
    }

    /// Whether it is a release in the form of client-go and ours, which every candidate acquires at once.
    fn is_release(&self) -> bool {
        !self.deleted && self.holder().is_empty() && self.spec["leaseDurationSeconds"] == 1
    }
}

/// An acquisition by one of ours while the former holder could still work.
#[derive(Debug)]
#[expect(dead_code, reason = "printed when a test fails")]
pub struct Premature {
    new_holder: String,
    former: Value,
    /// The maximum time since the former write.
    after: Duration,
}

/// Returns the number of takeovers by `ours`, and those before the duration of the replaced record had passed. Ours
/// must wait after a deletion and for an emptied holder, unlike client-go.
pub fn premature(cluster: &Cluster, namespace: &str, lease: &str, ours: &[String]) -> (usize, Vec<Premature>) {
    let writes = writes(cluster, namespace, lease);
    let mut takeovers = 0;
    let mut premature = Vec::new();
    for pair in writes.windows(2) {
        let [former, new] = pair else { continue };
        // The same process may continue after it has stopped. Another one with the same name may not.
        let own = former.holder() == new.holder() && former.incarnation == new.incarnation && !former.deleted;
        if own || !new.follows(former) || !ours.iter().any(|identity| identity == new.holder()) {
            continue;
        }
        takeovers += 1;
        let wait = former.spec["leaseDurationSeconds"].as_u64().unwrap_or_default();
        let after = new.answered.saturating_sub(former.received);
        if !former.is_release() && after < Duration::from_secs(wait) {
            premature.push(Premature { new_holder: new.holder().to_owned(), former: former.spec.clone(), after });
        }
    }
    (takeovers, premature)
}

/// A valid Lease of one of ours that client-go cleared or acquired: its release checks its cached record, not the one
/// that it has just read. The times are since 1970.
pub struct Theft {
    pub from: String,
    pub received: Duration,
    pub answered: Duration,
}

pub fn thefts(cluster: &Cluster, namespace: &str, lease: &str, ours: &[String]) -> Vec<Theft> {
    let writes = writes(cluster, namespace, lease);
    let stolen = writes.windows(2).filter(|pair| {
        let [former, new] = pair else { return false };
        let duration = Duration::from_secs(former.spec["leaseDurationSeconds"].as_u64().unwrap_or_default());
        let valid = !former.deleted && new.answered.saturating_sub(former.received) < duration;
        new.by_client_go && new.follows(former) && valid && ours.iter().any(|identity| identity == former.holder())
    });
    stolen
        .map(|pair| Theft { from: pair[0].holder().to_owned(), received: pair[1].received, answered: pair[1].answered })
        .collect()
}

fn writes(cluster: &Cluster, namespace: &str, lease: &str) -> Vec<Write> {
    let text = std::fs::read_to_string(cluster.audit_log()).unwrap();
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut found: Vec<Write> = events
        .filter(|event| event["stage"] == "ResponseComplete")
        .filter(|event| event["objectRef"]["namespace"] == namespace)
        .filter(|event| event["objectRef"]["name"] == lease || event["responseObject"]["metadata"]["name"] == lease)
        .filter(|event| event["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300))
        .map(|event| {
            let object = &event["responseObject"];
            Write {
                received: time(&event["requestReceivedTimestamp"]),
                answered: time(&event["stageTimestamp"]),
                deleted: event["verb"] == "delete",
                by_client_go: event["userAgent"].as_str().is_some_and(|agent| agent.starts_with("client-go/")),
                expected: event["requestObject"]["metadata"]["resourceVersion"].clone(),
                version: object["metadata"]["resourceVersion"].clone(),
                spec: object["spec"].clone(),
                incarnation: object["metadata"]["annotations"]["k8sensus.dev/incarnation"].clone(),
            }
        })
        .collect();
    found.sort_by_key(|write| write.answered);
    // A record counts from its first write: an annotation on a dead leader's Lease delays no candidate.
    found.dedup_by(|later, earlier| {
        let same = !later.deleted && !earlier.deleted && later.spec == earlier.spec;
        if same {
            earlier.version = later.version.clone();
        }
        same
    });
    found
}

fn time(text: &Value) -> Duration {
    let time: jiff::Timestamp = text.as_str().unwrap().parse().unwrap();
    Duration::from_micros(time.as_microsecond().unsigned_abs())
}
