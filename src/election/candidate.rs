use std::error::Error;
use std::fmt;

/// Who takes part in the election.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    identity: String,
    incarnation: String,
}

impl Candidate {
    /// `identity` becomes the Lease's `holderIdentity`; `incarnation` tells this process from any other of that name.
    ///
    /// # Errors
    /// [`InvalidCandidate`] if either is empty.
    pub fn new(identity: impl Into<String>, incarnation: impl Into<String>) -> Result<Self, InvalidCandidate> {
        let candidate = Self { identity: identity.into(), incarnation: incarnation.into() };
        if candidate.identity.is_empty() {
            return Err(InvalidCandidate::Identity);
        }
        if candidate.incarnation.is_empty() {
            return Err(InvalidCandidate::Incarnation);
        }
        Ok(candidate)
    }

    /// The `holderIdentity`.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The value of the annotation `k8sensus.dev/incarnation`.
    pub fn incarnation(&self) -> &str {
        &self.incarnation
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
