//! The Lease of a group, and how long it is still valid.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde::Serialize;

use crate::protocol::lease::RECREATED_HOLDER;

/// A Lease as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeasePicture {
    /// Its name.
    pub name: String,
    /// `holderIdentity`, empty if none.
    #[serde(rename = "holderIdentity")]
    pub holder: String,
    /// `acquireTime`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acquire_time: Option<Timestamp>,
    /// `renewTime`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renew_time: Option<Timestamp>,
    /// `leaseDurationSeconds`.
    #[serde(rename = "leaseDurationSeconds", skip_serializing_if = "Option::is_none")]
    pub duration: Option<i32>,
    /// The Lease's own `leaseTransitions`.
    #[serde(rename = "leaseTransitions", skip_serializing_if = "Option::is_none")]
    pub transitions: Option<i32>,
    /// Whether and for how long it is valid, estimated by this machine's clock.
    pub validity: Validity,
}

/// Whether a Lease is valid. Electors never compare the clocks of two machines as this estimate does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Validity {
    /// No pod holds it.
    Free,
    /// The operator recreated it, and all candidates wait.
    Recreated,
    /// Its holder has some time left.
    Valid {
        /// Seconds until it expires, if it is not renewed.
        remaining_seconds: f64,
    },
    /// Its holder did not renew it in time.
    Expired {
        /// Seconds since it expired.
        for_seconds: f64,
    },
    /// It lacks its times, so nothing is known.
    Unknown,
}

impl Validity {
    /// Whether a pod leads by this Lease, as far as is known.
    pub fn is_led(self) -> bool {
        matches!(self, Self::Valid { .. } | Self::Unknown)
    }
}

impl LeasePicture {
    /// Returns the holder, if it leads by this Lease as far as is known.
    pub fn leader(&self) -> Option<&str> {
        self.validity.is_led().then_some(self.holder.as_str())
    }

    /// Returns the picture of a Lease at `now`.
    pub fn of(lease: &Lease, now: Timestamp) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        let renew_time = spec.renew_time.map(|time| time.0);
        let validity = match (holder.as_str(), renew_time, spec.lease_duration_seconds) {
            ("", ..) => Validity::Free,
            (RECREATED_HOLDER, ..) => Validity::Recreated,
            (_, Some(renewed), Some(duration)) => {
                let remaining = f64::from(duration) - seconds_between(renewed, now);
                if remaining > 0.0 {
                    Validity::Valid { remaining_seconds: remaining }
                } else {
                    Validity::Expired { for_seconds: -remaining }
                }
            }
            _ => Validity::Unknown,
        };
        Self {
            name: lease.metadata.name.clone().unwrap_or_default(),
            holder,
            acquire_time: spec.acquire_time.map(|time| time.0),
            renew_time,
            duration: spec.lease_duration_seconds,
            transitions: spec.lease_transitions,
            validity,
        }
    }
}

/// Returns the seconds from `start` to `end`, negative if `end` is earlier.
pub fn seconds_between(start: Timestamp, end: Timestamp) -> f64 {
    end.duration_since(start).as_secs_f64()
}
