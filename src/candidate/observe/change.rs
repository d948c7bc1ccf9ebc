//! The printed line of one change.

use std::fmt;

use serde::Serialize;

use super::sight::printable;
use crate::election::WallTime;

/// A kind of change of leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Kind {
    /// First sight: there is no such Lease.
    Absent,
    /// First sight: the Lease has a holder. Only its next renewal shows whether it is alive.
    Held,
    /// First sight: the Lease has no holder.
    Unheld,
    /// The Lease was created.
    Created,
    /// The Lease was deleted and created again.
    Recreated,
    /// A term began.
    Acquired,
    /// The holder renewed. Only printed with `--renewals`.
    Renewed,
    /// The holder renewed after it had expired, before another candidate acquired the Lease.
    Resumed,
    /// The holder released the Lease, in the form that can be acquired at once.
    Released,
    /// No renewal was observed for the record's duration.
    Expired,
    /// The holder's name was cleared by hand, without the form of a release, so the holder may still be at work.
    Emptied,
    /// The record was changed while its holder stayed, but not by a renewal.
    Edited,
    /// The Lease was deleted.
    Deleted,
    /// The record contains an absurd or unknown value, named in the warnings, and nothing else happened.
    Invalid,
    /// `--once` only: the holder was observed to renew or to acquire.
    Live,
}

/// The origin of a fencing token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum TokenSource {
    /// The version of the write that acquired the Lease, as the watch reported it.
    AcquiringWrite,
    /// The version at which the term was first observed; the version of the acquiring write is the same or lower.
    FirstSight,
}

/// One change. Its JSON fields have the names that Kubernetes uses. A field that does not apply is omitted, except
/// `warnings`. Fields may be added, but none will be renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// When this program observed it, by its own clock: RFC 3339, UTC, microseconds.
    #[serde(serialize_with = "time")]
    pub time: WallTime,
    /// The kind of change.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// The Lease's `metadata.uid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The Lease's version at that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// The Lease's holder; empty if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder_identity: Option<String>,
    /// The process of that holder, if it records one: the annotation `k8sensus.dev/incarnation`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
    /// The previous holder, if the change ended a term.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_holder_identity: Option<String>,
    /// As in the Lease; 0 if absent or absurd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_duration_seconds: Option<i32>,
    /// As in the Lease; 0 if absent or absurd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_transitions: Option<i32>,
    /// By the holder's clock.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_time")]
    pub acquire_time: Option<WallTime>,
    /// By the holder's clock.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_time")]
    pub renew_time: Option<WallTime>,
    /// When this program first observed the holder in this term, by its own clock.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_time")]
    pub observed_since: Option<WallTime>,
    /// The term's fencing token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fencing_token: Option<String>,
    /// The origin of that token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fencing_token_source: Option<TokenSource>,
    /// Oddities of the record.
    pub warnings: Vec<String>,
    /// The change in words, not to be parsed.
    pub message: String,
}

/// The result of a change for `--once`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is a live holder.
    Live,
    /// There is no live holder.
    NotLive,
    /// Only the next change will show that.
    Open,
}

impl Change {
    /// Returns whether this change proves a live holder. A holder is alive once a write of it was observed; its name
    /// alone proves nothing.
    pub fn verdict(&self) -> Verdict {
        match self.kind {
            Kind::Acquired | Kind::Renewed | Kind::Resumed | Kind::Live => Verdict::Live,
            Kind::Absent | Kind::Unheld | Kind::Released | Kind::Expired | Kind::Emptied | Kind::Deleted => {
                Verdict::NotLive
            }
            // Such a record never expires, so the wait for a renewal might never end.
            Kind::Held if self.lease_duration_seconds.is_none_or(|seconds| seconds <= 0) => Verdict::NotLive,
            Kind::Created | Kind::Recreated if self.holder_identity.as_deref() == Some("") => Verdict::NotLive,
            Kind::Held | Kind::Created | Kind::Recreated | Kind::Edited | Kind::Invalid => Verdict::Open,
        }
    }

    /// Returns the change as one JSON object without line breaks.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("texts, numbers and lists are always JSON")
    }
}

/// Formats the change as one aligned line: time, type, holder, transitions, fencing token, message.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let holder = match self.holder_identity.as_deref() {
            None | Some("") => "-".to_owned(),
            Some(holder) => printable(holder),
        };
        let transitions = self.lease_transitions.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let token = match (&self.fencing_token, self.fencing_token_source) {
            (Some(token), Some(TokenSource::FirstSight)) => format!("<={}", printable(token)),
            (Some(token), _) => printable(token),
            (None, _) => "-".to_owned(),
        };
        let time = crate::campaign::micro_time(self.time.0);
        let kind = format!("{:?}", self.kind);
        write!(
            f,
            "{time}  {kind:<9}  holder {holder:<24}  transitions {transitions:<4}  token {token:<9}  {}",
            self.message
        )?;
        for warning in &self.warnings {
            write!(f, "; warning: {warning}")?;
        }
        Ok(())
    }
}

fn time<S: serde::Serializer>(time: &WallTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&crate::campaign::micro_time(time.0))
}

fn some_time<S: serde::Serializer>(time: &Option<WallTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => self::time(time, serializer),
        None => serializer.serialize_none(),
    }
}
