//! The one writer of a group's Lease, from the time at which it exists. `steps/apply` creates and adopts it.

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::ApiResource;
use kube::{Client, ResourceExt};

use crate::api::names::FIELD_MANAGER;
use crate::budget::Late;
use crate::cache::controller_of;
use crate::campaign::describe;
use crate::group::Group;

/// How often the Lease is read and written. A renewal of the leader may come between, but hardly so often.
const TRIES: usize = 5;

/// A Lease that could not be read or written. It is as it was, or was changed by a write whose response was lost.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeaseError {
    #[error("cannot {verb} lease {lease}: {}", describe(.source))]
    Request { verb: &'static str, lease: String, source: Box<kube::Error> },
    #[error("lease {lease} was changed by other clients at each of {TRIES} attempts to write it")]
    Contended { lease: String },
    #[error(transparent)]
    Late(#[from] Late),
}

/// The Lease after [`LeaseWriter::change`].
pub(crate) struct Changed {
    /// The Lease, as the API server returned it last.
    pub(crate) lease: DynamicObject,
    /// Whether it was written.
    pub(crate) is_written: bool,
}

/// Reads and writes the Leases of groups.
pub(crate) struct LeaseWriter {
    client: Client,
}

impl LeaseWriter {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Reads the Lease in full, so that a PUT keeps foreign fields. Returns `None` if there is none that the group
    /// controls.
    ///
    /// # Errors
    /// [`LeaseError::Request`].
    pub(crate) async fn read(&self, group: &Group) -> Result<Option<DynamicObject>, LeaseError> {
        let read = self.leases(group).get_opt(&group.lease_name).await;
        let lease = read.map_err(|source| failed("get", group, source))?;
        // A PUT without a version would overwrite any state.
        let has_version = |lease: &DynamicObject| lease.resource_version().is_some_and(|version| !version.is_empty());
        Ok(lease.filter(|lease| controller_of(lease) == Some(&group.uid) && has_version(lease)))
    }

    /// Reads the Lease, and replaces it with what `change` returns for it, by a PUT at the version that was read. After
    /// a conflict it reads and calls `change` again. Writes nothing if `change` returns `None`. Returns `None` if there
    /// is no Lease that the group controls.
    ///
    /// # Errors
    /// [`LeaseError::Request`], or [`LeaseError::Contended`] after five conflicts.
    pub(crate) async fn change(
        &self,
        group: &Group,
        mut change: impl FnMut(&DynamicObject) -> Option<DynamicObject>,
    ) -> Result<Option<Changed>, LeaseError> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        for _ in 0..TRIES {
            let Some(lease) = self.read(group).await? else { return Ok(None) };
            let Some(changed) = change(&lease) else { return Ok(Some(Changed { lease, is_written: false })) };
            match self.leases(group).replace(&group.lease_name, &params, &changed).await {
                Ok(lease) => return Ok(Some(Changed { lease, is_written: true })),
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(source) => return Err(failed("update", group, source)),
            }
        }
        Err(LeaseError::Contended { lease: name_of(group) })
    }

    /// Sets `annotation` of the Lease to what `value` returns for it, or removes it. Returns the Lease after that,
    /// `None` if there is none.
    ///
    /// # Errors
    /// As of [`change`](Self::change).
    pub(crate) async fn annotate(
        &self,
        group: &Group,
        annotation: &str,
        value: impl Fn(&DynamicObject) -> Option<String>,
    ) -> Result<Option<DynamicObject>, LeaseError> {
        let annotated = |lease: &DynamicObject| {
            let wanted = value(lease);
            if lease.annotations().get(annotation) == wanted.as_ref() {
                return None;
            }
            let mut lease = lease.clone();
            match wanted {
                Some(wanted) => lease.annotations_mut().insert(annotation.to_owned(), wanted),
                None => lease.annotations_mut().remove(annotation),
            };
            Some(lease)
        };
        Ok(self.change(group, annotated).await?.map(|changed| changed.lease))
    }

    fn leases(&self, group: &Group) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &group.namespace, &ApiResource::erase::<Lease>(&()))
    }
}

fn failed(verb: &'static str, group: &Group, source: kube::Error) -> LeaseError {
    LeaseError::Request { verb, lease: name_of(group), source: Box::new(source) }
}

/// Returns the namespace and name of the group's Lease: `shop/billing`.
pub(crate) fn name_of(group: &Group) -> String {
    format!("{}/{}", group.namespace, group.lease_name)
}
