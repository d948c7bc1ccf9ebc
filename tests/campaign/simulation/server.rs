//! One Lease as an API server keeps it: optimistic concurrency, a history for watches, hand edits.

use std::time::Duration;

use serde_json::{Value, json};

use crate::subject::campaign::{INCARNATION, STEP_DOWN_OF, STEP_DOWN_TO};

/// Who holds the Lease after a write, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Created,
    /// Another incarnation than before. `free`: the record was a released one.
    Acquired {
        free: bool,
    },
    Renewed,
    /// `anothers`: somebody else held it. `asked`: the term was asked to end.
    Released {
        anothers: bool,
        asked: bool,
    },
}

#[derive(Clone, Debug)]
pub struct Change {
    pub version: u64,
    pub kind: &'static str,
    pub object: Value,
    /// Whose record it is: a candidate and its life, or nobody's.
    pub author: Author,
}

pub type Author = Option<(usize, u64)>;

#[derive(Debug, Default)]
pub struct Server {
    pub lease: Option<Value>,
    pub version: u64,
    pub changes: Vec<Change>,
    /// Watches from before it are answered with 410.
    pub compacted: u64,
    /// Transitions and holder at the last deletion, as an operator's status has them.
    pub deleted: Option<i64>,
    /// The terms that were asked to end.
    pub asked: Vec<String>,
    /// Until when a client that took the Lease by another hand may lead: since the world's beginning.
    pub stranger_until: Duration,
}

pub const RECREATED: &str = "k8sensus.dev/recreated";

pub fn status(code: u16, retry_after: Option<u64>) -> Value {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let details = retry_after.map_or(json!({}), |seconds| json!({ "retryAfterSeconds": seconds }));
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": "simulated",
        "code": code, "details": details,
    })
}

pub fn holder(lease: &Value) -> &str {
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default()
}

/// The name of the term that the Lease shows.
pub fn term_of(lease: &Value) -> String {
    format!("{}/{}", lease["spec"]["leaseTransitions"], incarnation(lease))
}

fn incarnation(lease: &Value) -> &str {
    lease["metadata"]["annotations"][INCARNATION].as_str().unwrap_or_default()
}

fn is_released(lease: &Value) -> bool {
    holder(lease).is_empty() && lease["spec"]["leaseDurationSeconds"] == 1
}

impl Server {
    fn commit(&mut self, kind: &'static str, mut object: Value, author: Author) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.changes.push(Change { version: self.version, kind, object: object.clone(), author });
        self.lease = (kind != "DELETED").then(|| object.clone());
        object
    }

    fn author(&self) -> Author {
        self.changes.last().and_then(|change| change.author)
    }

    pub fn get(&self) -> (u16, Value) {
        self.lease.clone().map_or_else(|| (404, status(404, None)), |lease| (200, lease))
    }

    pub fn list(&self) -> (u16, Value) {
        let items: Vec<&Value> = self.lease.iter().collect();
        let list = json!({
            "kind": "LeaseList", "apiVersion": "coordination.k8s.io/v1",
            "metadata": { "resourceVersion": self.version.to_string() }, "items": items,
        });
        (200, list)
    }

    pub fn post(&mut self, body: Value, author: Author) -> (u16, Value, Option<Write>) {
        if self.lease.is_some() {
            return (409, status(409, None), None);
        }
        (201, self.commit("ADDED", body, author), Some(Write::Created))
    }

    pub fn put(&mut self, body: Value, author: Author) -> (u16, Value, Option<Write>) {
        let Some(lease) = &self.lease else { return (404, status(404, None), None) };
        // An empty version is an unconditional replace: a candidate that sends none overwrites whatever is there.
        let expected = body["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if !expected.is_empty() && lease["metadata"]["resourceVersion"] != expected {
            return (409, status(409, None), None);
        }
        let write = if holder(&body).is_empty() {
            let asked = self.asked.contains(&term_of(lease));
            Write::Released { anothers: !holder(lease).is_empty() && self.author() != author, asked }
        } else if holder(&body) == holder(lease) && incarnation(&body) == incarnation(lease) {
            Write::Renewed
        } else {
            Write::Acquired { free: is_released(lease) }
        };
        (200, self.commit("MODIFIED", body, author), Some(write))
    }

    /// A Lease that nobody holds, as an operator makes it for a new group.
    pub fn create_released(&mut self) {
        let object = lease_of("", 1, 0);
        self.commit("ADDED", object, None);
    }

    /// What an operator makes where a Lease has vanished that somebody may still lead by.
    pub fn recreate(&mut self) -> bool {
        let missing = self.lease.is_none();
        if missing {
            let mut object = lease_of(RECREATED, 15, self.deleted.unwrap_or(0));
            // Not when the last one was made: who missed all in between would take the two for one.
            let (minutes, seconds) = (self.version / 60 % 60, self.version % 60);
            object["spec"]["renewTime"] = json!(format!("2026-03-01T12:{minutes:02}:{seconds:02}.000000Z"));
            self.commit("ADDED", object, None);
        }
        missing
    }

    pub fn delete(&mut self) -> bool {
        let Some(lease) = self.lease.clone() else { return false };
        self.deleted = lease["spec"]["leaseTransitions"].as_i64();
        self.commit("DELETED", lease, None);
        true
    }

    /// Asks the term that the Lease shows to end, as an operator does, for `to` to follow; `false` if nobody of ours holds it, or
    /// it is to follow itself.
    pub fn ask(&mut self, to: Option<&str>) -> bool {
        let held = self.lease.as_ref().filter(|lease| !holder(lease).is_empty() && !incarnation(lease).is_empty());
        let Some(term) = held.map(term_of) else { return false };
        let is_for_another = held.is_some_and(|lease| Some(holder(lease)) != to);
        if is_for_another {
            self.asked.push(term.clone());
        }
        self.edit(|lease| {
            let annotations = &mut lease["metadata"]["annotations"];
            annotations[STEP_DOWN_OF] = json!(term);
            match to {
                Some(to) => annotations[STEP_DOWN_TO] = json!(to),
                None => {
                    annotations.as_object_mut().expect("it has just got one").remove(STEP_DOWN_TO);
                }
            }
        });
        is_for_another
    }

    /// Whether the Lease asks the very term to end that it shows.
    pub fn is_asking(&self) -> bool {
        let asks = |lease: &Value| {
            let annotations = &lease["metadata"]["annotations"];
            annotations[STEP_DOWN_OF] == term_of(lease) && annotations[STEP_DOWN_TO] != lease["spec"]["holderIdentity"]
        };
        self.lease.as_ref().is_some_and(asks)
    }

    /// Edits the Lease by hand; `false` if there is none.
    pub fn edit(&mut self, edit: impl FnOnce(&mut Value)) -> bool {
        let Some(before) = self.lease.clone() else { return false };
        let mut lease = before.clone();
        edit(&mut lease);
        // The record stays whose it was where only something beside it was edited.
        let author = if lease["spec"] == before["spec"] { self.author() } else { None };
        self.commit("MODIFIED", lease, author);
        true
    }
}

fn lease_of(holder: &str, seconds: u64, transitions: i64) -> Value {
    let time = "2026-03-01T12:00:00.000000Z";
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": "weir", "namespace": "river", "uid": "7" },
        "spec": {
            "holderIdentity": holder, "leaseDurationSeconds": seconds, "leaseTransitions": transitions,
            "acquireTime": time, "renewTime": time,
        },
    })
}
