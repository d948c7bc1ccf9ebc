//! Why a reconcile failed.

use crate::steps::apply::ApplyError;
use crate::steps::release::ReleaseError;

/// A failed request. A retry may succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Release(#[from] ReleaseError),
    #[error("cannot write the status: {}", crate::campaign::describe(.0))]
    Status(#[source] kube::Error),
}
