use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::record::{Preference, Snapshot};
use super::timing::Timing;

/// How much longer a standby waits where the Lease would rather have another: that one may be dead.
const HOLD_BACK: Duration = Duration::from_secs(1);

/// Who takes part in the election.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    identity: String,
    incarnation: String,
    revision: Option<String>,
    dead_predecessors: Option<String>,
    is_ready: bool,
}

impl Candidate {
    /// `identity` becomes the Lease's `holderIdentity`; `incarnation` tells this process from any other of that name.
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

    /// The revision of the program that this candidate would lead with. A candidate without one is of no revision that could
    /// be passed over.
    pub fn with_revision(self, revision: impl Into<String>) -> Self {
        Self { revision: Some(revision.into()), ..self }
    }

    /// Every other process of this identity whose incarnation begins with `prefix` is dead, and so is its work: a Lease that such a
    /// one holds is taken at once. Whoever says so must know it for as long as this candidate lives, of those that are yet to come,
    /// too.
    pub fn with_dead_predecessors(self, prefix: impl Into<String>) -> Self {
        Self { dead_predecessors: Some(prefix.into()), ..self }
    }

    /// Takes no Lease before an [`Event::ReadyToLead`](super::Event::ReadyToLead) says that it may.
    pub fn not_ready(self) -> Self {
        Self { is_ready: false, ..self }
    }

    /// Whether its program could work.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    pub(super) fn set_ready(&mut self, is_ready: bool) {
        self.is_ready = is_ready;
    }

    /// The `holderIdentity`.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The value of the annotation `k8sensus.dev/incarnation`.
    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// How much longer than it must this candidate waits for a Lease that it may take. A wish may be left over from somebody who
    /// is gone, so no wait is for ever.
    pub(super) fn hold_back(&self, preference: &Preference, timing: &Timing) -> Duration {
        match self.is_preferred(preference) {
            _ if preference.suspended => timing.lease_duration(),
            true => Duration::ZERO,
            false => HOLD_BACK,
        }
    }

    /// Whether nobody else is to go first.
    fn is_preferred(&self, preference: &Preference) -> bool {
        match (&preference.successor, &preference.revision, &self.revision) {
            (Some(successor), ..) => *successor == self.identity,
            (None, Some(proven), Some(own)) => proven == own,
            (None, ..) => true,
        }
    }

    /// Whether the Lease is held by a process of which this one knows that it is dead. A holder of another name is none, whatever
    /// the annotation says: who knows no incarnations keeps it.
    pub(super) fn has_outlived(&self, holder: &Snapshot) -> bool {
        let prefix = self.dead_predecessors.as_deref();
        let Some((prefix, other)) = prefix.zip(holder.incarnation.as_deref()) else { return false };
        let is_namesake = holder.record.holder == self.identity;
        is_namesake && other != self.incarnation && other.starts_with(prefix)
    }
}

/// Which part of a [`Candidate`] is empty.
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
