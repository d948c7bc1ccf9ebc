use std::time::Duration;

use super::moment::WallTime;
use crate::protocol::lease::RECREATED_HOLDER;

/// What a Lease's `spec` says, in the words of client-go's `LeaderElectionRecord`.
///
/// Absent fields of the Lease are read as empty or zero: a Lease without `spec` is a record without holder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    /// `holderIdentity`; empty when nobody holds the Lease.
    pub holder: String,
    /// `leaseDurationSeconds`; zero or less when absent or absurd.
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

    /// The record that gives the Lease up: no holder, duration 1, both times now, transitions kept.
    pub fn released(transitions: i32, now: WallTime) -> Self {
        Self {
            holder: String::new(),
            duration_seconds: Self::RELEASED_SECONDS,
            acquire_time: Some(now),
            renew_time: Some(now),
            transitions,
        }
    }

    /// Whether its holder gave the Lease up, so that it can be taken at once.
    ///
    /// Only the form that a release writes counts. A holder that was emptied by hand may still be at work.
    pub fn is_released(&self) -> bool {
        self.holder.is_empty() && self.duration_seconds == Self::RELEASED_SECONDS
    }

    /// Whether the Lease was made again after its deletion, and nobody has acquired it since.
    pub fn is_recreated(&self) -> bool {
        self.holder == RECREATED_HOLDER
    }

    /// How long the record protects its holder, `None` if it does not say.
    pub fn duration(&self) -> Option<Duration> {
        u64::try_from(self.duration_seconds).ok().filter(|&s| s > 0).map(Duration::from_secs)
    }
}

/// A `resourceVersion`.
///
/// Comparable as a decimal number since Kubernetes 1.35 (KEP-5504); older servers hand out etcd revisions, which are
/// numbers too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(String);

impl Version {
    /// Takes the server's text as it is.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The server's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this version is the same as `other` or known to be older. `false` if they cannot be compared.
    pub fn is_at_most(&self, other: &Version) -> bool {
        self == other || matches!((self.0.parse::<u128>(), other.0.parse::<u128>()), (Ok(a), Ok(b)) if a <= b)
    }
}

/// Whom a Lease would rather have as its next holder. A wish, never a matter of safety: whoever it passes over waits a little
/// longer than it would have to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Preference {
    /// The identity that is to follow the term which the record shows, or which it shows to have ended.
    pub successor: Option<String>,
    /// The revision of the program that has proved itself; counts where no successor is named.
    pub revision: Option<String>,
    /// Whether nobody is to follow that term: all candidates are about to end.
    pub suspended: bool,
}

/// A Lease at one `resourceVersion`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// Its `metadata.resourceVersion`.
    pub version: Version,
    /// Its `spec`.
    pub record: Record,
    /// Its annotation `k8sensus.dev/incarnation`: which process of that name acquired it.
    pub incarnation: Option<String>,
    /// Its annotations `k8sensus.dev/step-down-to`, `k8sensus.dev/proven-revision` and `k8sensus.dev/suspended`, as far as they
    /// concern this record.
    pub preference: Preference,
}
