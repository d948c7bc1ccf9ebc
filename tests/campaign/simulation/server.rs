//! An API server with one Lease: optimistic concurrency, a history for watches, and edits by hand.

use std::time::Duration;

use serde_json::{Value, json};

use crate::subject::campaign::{INCARNATION, STEP_DOWN_OF, STEP_DOWN_TO};

/// The effect of a write on the holder of the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Created,
    /// By another incarnation than before. `free`: the Lease was released.
    Acquired {
        free: bool,
    },
    Renewed,
    /// `foreign`: another process held it. `requested`: the term was requested to step down.
    Released {
        foreign: bool,
        requested: bool,
    },
}

#[derive(Clone, Debug)]
pub struct Change {
    pub version: u64,
    pub kind: &'static str,
    pub object: Value,
    /// The author of the record: a candidate and its life, `None` after an edit by hand.
    pub author: Author,
}

pub type Author = Option<(usize, u64)>;

#[derive(Debug, Default)]
pub struct Server {
    pub lease: Option<Value>,
    pub version: u64,
    pub changes: Vec<Change>,
    /// Watches from an earlier version get 410.
    pub compacted: u64,
    /// The transitions at the last deletion, as in an operator's status.
    pub deleted: Option<i64>,
    /// The terms that were requested to step down.
    pub step_downs: Vec<String>,
    /// The time until which a foreign holder may lead, since the start of the world.
    pub foreign_until: Duration,
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

/// Returns the name of the present term.
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
        // A PUT without a version replaces any version.
        let expected = body["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if !expected.is_empty() && lease["metadata"]["resourceVersion"] != expected {
            return (409, status(409, None), None);
        }
        let write = if holder(&body).is_empty() {
            let requested = self.step_downs.contains(&term_of(lease));
            Write::Released { foreign: !holder(lease).is_empty() && self.author() != author, requested }
        } else if holder(&body) == holder(lease) && incarnation(&body) == incarnation(lease) {
            Write::Renewed
        } else {
            Write::Acquired { free: is_released(lease) }
        };
        (200, self.commit("MODIFIED", body, author), Some(write))
    }

    /// Creates a released Lease, as an operator does for a new group.
    pub fn create_released(&mut self) {
        let object = lease_of("", 1, 0);
        self.commit("ADDED", object, None);
    }

    /// Recreates a deleted Lease, as an operator does while its leader may still work.
    pub fn recreate(&mut self) -> bool {
        let missing = self.lease.is_none();
        if missing {
            let mut object = lease_of(RECREATED, 15, self.deleted.unwrap_or(0));
            // Differs from earlier recreations, so that candidates that missed the changes in between see a new record.
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

    /// Requests the present term to step down for `to`, as an operator does. Returns `false` without effect on the
    /// leader: if no candidate holds the Lease, or if the holder itself is the successor.
    pub fn request_step_down(&mut self, to: Option<&str>) -> bool {
        let held = self.lease.as_ref().filter(|lease| !holder(lease).is_empty() && !incarnation(lease).is_empty());
        let Some(term) = held.map(term_of) else { return false };
        let is_for_another = held.is_some_and(|lease| Some(holder(lease)) != to);
        if is_for_another {
            self.step_downs.push(term.clone());
        }
        self.edit(|lease| {
            let annotations = &mut lease["metadata"]["annotations"];
            annotations[STEP_DOWN_OF] = json!(term);
            match to {
                Some(to) => annotations[STEP_DOWN_TO] = json!(to),
                None => {
                    annotations.as_object_mut().expect("was just added").remove(STEP_DOWN_TO);
                }
            }
        });
        is_for_another
    }

    /// Whether the Lease requests its present term to step down.
    pub fn requests_step_down(&self) -> bool {
        let requests = |lease: &Value| {
            let annotations = &lease["metadata"]["annotations"];
            annotations[STEP_DOWN_OF] == term_of(lease) && annotations[STEP_DOWN_TO] != lease["spec"]["holderIdentity"]
        };
        self.lease.as_ref().is_some_and(requests)
    }

    /// Edits the Lease by hand. Returns `false` if there is none.
    pub fn edit(&mut self, edit: impl FnOnce(&mut Value)) -> bool {
        let Some(before) = self.lease.clone() else { return false };
        let mut lease = before.clone();
        edit(&mut lease);
        // An edit outside of the record keeps the record's author.
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
