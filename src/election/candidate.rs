use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::record::{Preference, Snapshot};
use super::timing::Timing;

/// The extra wait of a candidate that is not the preferred one. It is short, since the preferred one may be dead.
const HOLD_BACK: Duration = Duration::from_secs(1);

/// A participant of the election.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    identity: String,
    incarnation: String,
    revision: Option<String>,
    dead_predecessors: Option<String>,
    is_ready: bool,
}

impl Candidate {
    /// Returns a candidate that is ready to lead. `identity` becomes the Lease's `holderIdentity`; `incarnation`
    /// distinguishes this process from any other with that name.
    ///
    /// # Errors
    /// [`InvalidCandidate`] if either is empty.
    pub fn new(identity: impl Into<String>, incarnation: impl Into<String>) -> Result<Self, InvalidCandidate> {
        let (identity, incarnation) = (identity.into(), incarnation.into());
        let candidate = Self { identity, incarnation, revision: None, dead_predecessors: None, is_ready: true };
        if candidate.identity.is_empty() {
            return Err(InvalidCandidate::Identity);
        }
        if candidate.incarnation.is_empty() {
            return Err(InvalidCandidate::Incarnation);
        }
        Ok(candidate)
    }

    /// Sets the revision of this candidate's program. A candidate without a revision never waits for a proven one.
    pub fn with_revision(self, revision: impl Into<String>) -> Self {
        Self { revision: Some(revision.into()), ..self }
    }

    /// Declares that every other process of this identity whose incarnation starts with `prefix` is dead with its work.
    /// A Lease that such a process holds is acquired at once. The caller must ensure that this stays true as long as
    /// this candidate lives, also for processes that start later.
    pub fn with_dead_predecessors(self, prefix: impl Into<String>) -> Self {
        Self { dead_predecessors: Some(prefix.into()), ..self }
    }

    /// Makes the candidate not ready: it acquires no Lease before [`Event::ReadyToLead`](super::Event::ReadyToLead).
    pub fn not_ready(self) -> Self {
        Self { is_ready: false, ..self }
    }

    /// Whether its program is ready to lead.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    pub(super) fn set_ready(&mut self, is_ready: bool) {
        self.is_ready = is_ready;
    }

    /// Returns the `holderIdentity`.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Returns the value of the annotation `k8sensus.dev/incarnation`.
    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// Returns the extra wait of this candidate before it acquires an available Lease. The preference may be outdated,
    /// so every wait is finite.
    pub(super) fn hold_back(&self, preference: &Preference, timing: &Timing) -> Duration {
        match self.is_preferred(preference) {
            _ if preference.suspended => timing.lease_duration(),
            true => Duration::ZERO,
            false => HOLD_BACK,
        }
    }

    /// Whether the preference leaves the Lease to this candidate, not to another one.
    fn is_preferred(&self, preference: &Preference) -> bool {
        match (&preference.successor, &preference.revision, &self.revision) {
            (Some(successor), ..) => *successor == self.identity,
            (None, Some(proven), Some(own)) => proven == own,
            (None, ..) => true,
        }
    }

    /// Whether the holder of the Lease is a dead predecessor of this process. The name must match too: a client that
    /// knows no incarnations leaves the annotation of a former holder in place.
    pub(super) fn has_outlived(&self, holder: &Snapshot) -> bool {
        let prefix = self.dead_predecessors.as_deref();
        let Some((prefix, other)) = prefix.zip(holder.incarnation.as_deref()) else { return false };
        let is_namesake = holder.record.holder == self.identity;
        is_namesake && other != self.incarnation && other.starts_with(prefix)
    }
}

/// The part of a [`Candidate`] that is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidCandidate {
    /// The identity.
    Identity,
    /// The incarnation.
    Incarnation,
}

impl fmt::Display for InvalidCandidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity => write!(f, "the candidate's identity must not be empty"),
            Self::Incarnation => write!(f, "the candidate's incarnation must not be empty"),
        }
    }
}

impl Error for InvalidCandidate {}
