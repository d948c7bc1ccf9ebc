//! The record on the Lease of the trial that leadership was last handed over for.
//!
//! A candidate that acquires the Lease removes the name of the requested successor, and the whole trial may be over
//! before an operator observes it: a program that cannot be started releases the Lease within milliseconds. So the
//! record is written in the same request as the step-down that starts the trial, and no candidate removes it.

use serde::{Deserialize, Serialize};

/// The trial of one pod of a revision, stored in the annotation `k8sensus.dev/trial`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    /// The revision on trial.
    pub revision: String,
    /// The pod that was asked to lead.
    pub pod: String,
    /// `leaseTransitions` of the term in which it was asked to lead.
    pub transitions: i32,
    /// How often the containers of the pod had been restarted by then.
    pub restarts: i32,
    /// How many trials of this revision before this one were over before an operator observed them.
    pub unobserved: usize,
}

impl Trial {
    /// Parses the annotation. An invalid value is ignored: a trial then counts only if it was observed.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl std::fmt::Display for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| std::fmt::Error)?)
    }
}
