use std::time::Duration;

use super::moment::WallTime;
use crate::protocol::lease::RECREATED_HOLDER;

/// A Lease's `spec`, as in client-go's `LeaderElectionRecord`.
///
/// Absent fields are read as empty or zero: a Lease without `spec` is a record without holder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    /// `holderIdentity`; empty if the Lease has no holder.
    pub holder: String,
    /// `leaseDurationSeconds`; zero or less if absent or invalid.
    pub duration_seconds: i32,
    /// `acquireTime`.
    pub acquire_time: Option<WallTime>,
    /// `renewTime`.
    pub renew_time: Option<WallTime>,
    /// `leaseTransitions`.
    pub transitions: i32,
}

impl Record {
    /// The duration of a released Lease, as client-go's `release` writes it.
    const RELEASED_SECONDS: i32 = 1;

    /// Returns the record of a release: no holder, duration 1, both times now, transitions kept.
    pub fn released(transitions: i32, now: WallTime) -> Self {
        Self {
            holder: String::new(),
            duration_seconds: Self::RELEASED_SECONDS,
            acquire_time: Some(now),
            renew_time: Some(now),
            transitions,
        }
    }

    /// Whether the holder released the Lease, so that it can be acquired at once.
    ///
    /// Only the form that a release writes counts. After a holder was emptied by hand, its process may still work.
    pub fn is_released(&self) -> bool {
        self.holder.is_empty() && self.duration_seconds == Self::RELEASED_SECONDS
    }

    /// Whether the Lease was recreated after its deletion and has not been acquired since.
    pub fn is_recreated(&self) -> bool {
        self.holder == RECREATED_HOLDER
    }

    /// Returns how long the record protects its holder, `None` if it names no valid duration.
    pub fn duration(&self) -> Option<Duration> {
        u64::try_from(self.duration_seconds).ok().filter(|&s| s > 0).map(Duration::from_secs)
    }
}

/// A `resourceVersion`.
///
/// Comparable as a decimal number since Kubernetes 1.35 (KEP-5504). Older servers use etcd revisions, which are numbers
/// too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(String);

impl Version {
    /// Wraps the server's text unchanged.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the server's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this version is the same as `other` or known to be older. `false` if they are not comparable.
    pub fn is_at_most(&self, other: &Version) -> bool {
        self == other || matches!((self.0.parse::<u128>(), other.0.parse::<u128>()), (Ok(a), Ok(b)) if a <= b)
    }
}

/// The preferred next holder of a Lease. It never affects safety: candidates that are not preferred only wait longer
/// than they must.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Preference {
    /// The identity that should lead after the term of this record.
    pub successor: Option<String>,
    /// The proven revision of the program; ignored if a successor is named.
    pub revision: Option<String>,
    /// Whether no candidate should lead after that term, because all candidates are about to be removed.
    pub suspended: bool,
}

/// A Lease at one `resourceVersion`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// Its `metadata.resourceVersion`.
    pub version: Version,
    /// Its `spec`.
    pub record: Record,
    /// Its annotation `k8sensus.dev/incarnation`: the process that acquired it.
    pub incarnation: Option<String>,
    /// Its annotations `k8sensus.dev/step-down-to`, `k8sensus.dev/proven-revision` and `k8sensus.dev/suspended`, if
    /// they concern this record.
    pub preference: Preference,
}
