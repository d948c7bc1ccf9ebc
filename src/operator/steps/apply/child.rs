//! The requests for one child.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tracing::info;

use crate::api::names::FIELD_MANAGER;
use crate::cache::{controller_of, value_of};
use crate::campaign::snapshot_of;
use crate::group::Group;
use crate::group::desired::{drift, refusal};

/// The field manager of [`Child::scale`].
const SCALE_MANAGER: &str = "k8sensus-operator-scale";

/// Why a child could not be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The group is not the controller of an object with that name.
    #[error(
        "{kind} {namespace}/{name} exists and is not this group's ({found}); delete or rename it, or rename the group"
    )]
    Conflict { kind: String, namespace: String, name: String, found: String },
    /// A request failed.
    #[error("cannot {verb} {kind} {namespace}/{name}: {}", crate::campaign::describe(source))]
    Request { verb: &'static str, kind: String, namespace: String, name: String, source: Box<kube::Error> },
}

impl ApplyError {
    /// The status code, if the API server refused the request.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Request { source, .. } => match &**source {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            Self::Conflict { .. } => None,
        }
    }

    /// Returns the API server's objections to the child, with the fields of the group that they concern.
    pub(crate) fn explained(&self, group: &Group) -> String {
        let Self::Request { kind, source, .. } = self else { return self.to_string() };
        let kube::Error::Api(status) = &**source else { return self.to_string() };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        let causes: Vec<_> = causes.map(|cause| (cause.field.as_str(), cause.message.as_str())).collect();
        refusal::explain(group, kind, &status.message, &causes)
    }

    /// Whether the request changed an immutable field: the role of a RoleBinding, the selector of a Deployment, the
    /// address type of an EndpointSlice. Identified by the field of the cause, since the message of a webhook or a
    /// policy may be similar.
    pub(super) fn is_immutable(&self) -> bool {
        let Self::Request { kind, source, .. } = self else { return false };
        let kube::Error::Api(status) = &**source else { return false };
        let field = match kind.as_str() {
            "Deployment" => "spec.selector",
            "RoleBinding" => "roleRef",
            "EndpointSlice" => "addressType",
            _ => return false,
        };
        let mut causes = status.details.iter().flat_map(|details| &details.causes);
        status.code == 422 && causes.any(|cause| cause.field == field)
    }
}

/// The group that children belong to.
#[derive(Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) uid: &'a str,
}

impl<'a> From<&'a Group> for Owner<'a> {
    fn from(group: &'a Group) -> Self {
        Self { namespace: &group.namespace, uid: &group.uid }
    }
}

/// One child of a group, whether it exists or not.
pub(crate) struct Child<'a> {
    api: Api<DynamicObject>,
    kind: &'a str,
    owner: Owner<'a>,
    pub(super) name: &'a str,
}

impl<'a> Child<'a> {
    pub(crate) fn new(client: &Client, resource: &'a ApiResource, owner: impl Into<Owner<'a>>, name: &'a str) -> Self {
        let owner = owner.into();
        let api = Api::namespaced_with(client.clone(), owner.namespace, resource);
        Self { api, kind: &resource.kind, owner, name }
    }

    fn failed(&self, verb: &'static str, source: kube::Error) -> ApplyError {
        ApplyError::Request {
            verb,
            kind: self.kind.to_owned(),
            namespace: self.owner.namespace.to_owned(),
            name: self.name.to_owned(),
            source: Box::new(source),
        }
    }

    pub(super) async fn get(&self) -> Result<Option<DynamicObject>, ApplyError> {
        self.api.get_opt(self.name).await.map_err(|source| self.failed("get", source))
    }

    /// Creates the child. Returns `None` if an object of that name exists.
    pub(crate) async fn create(&self, desired: &Value) -> Result<Option<DynamicObject>, ApplyError> {
        let object: DynamicObject = serde_json::from_value(desired.clone())
            .map_err(|source| self.failed("create", kube::Error::SerdeError(source)))?;
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match self.api.create(&params, &object).await {
            Ok(created) => {
                info!("created {} {}/{}", self.kind, self.owner.namespace, self.name);
                Ok(Some(created))
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
            Err(source) => Err(self.failed("create", source)),
        }
    }

    pub(super) fn check_owner(&self, live: &DynamicObject) -> Result<(), ApplyError> {
        if is_owned(live, self.owner) {
            return Ok(());
        }
        let controller = live.owner_references().iter().find(|owner| owner.controller == Some(true));
        let found = match controller {
            Some(owner) => format!("controlled by {} {}, uid {}", owner.kind, owner.name, owner.uid),
            None => "it has no controller".to_owned(),
        };
        Err(ApplyError::Conflict {
            kind: self.kind.to_owned(),
            namespace: self.owner.namespace.to_owned(),
            name: self.name.to_owned(),
            found,
        })
    }

    /// Changes the operation of the fields' owner from "Update", as a POST leaves it, to "Apply": otherwise a later
    /// apply could not remove those fields.
    pub(super) async fn claim_fields(&self, live: &DynamicObject) -> Result<(), ApplyError> {
        let created = |entry: &ManagedFieldsEntry| {
            entry.manager.as_deref() == Some(FIELD_MANAGER)
                && entry.operation.as_deref() == Some("Update")
                && entry.subresource.as_deref().unwrap_or_default().is_empty()
        };
        let mut entries = live.managed_fields().to_vec();
        let Some(entry) = entries.iter_mut().find(|entry| created(entry)) else { return Ok(()) };
        entry.operation = Some("Apply".to_owned());
        let patch = json!({ "metadata": { "resourceVersion": live.resource_version(), "managedFields": entries } });
        let patched = self.api.patch(self.name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        patched.map(drop).map_err(|source| self.failed("patch", source))
    }

    /// Applies `desired` to the object `live`.
    pub(super) async fn apply(&self, desired: &Value, live: &DynamicObject) -> Result<DynamicObject, ApplyError> {
        let applied = self.apply_to(desired, &live.uid().unwrap_or_default()).await?;
        if applied.metadata.resource_version != live.metadata.resource_version {
            info!("updated {} {}/{}", self.kind, self.owner.namespace, self.name);
        }
        Ok(applied)
    }

    /// Applies `desired` to the object of that uid: the server refuses if the object has been recreated.
    pub(crate) async fn apply_to(&self, desired: &Value, uid: &str) -> Result<DynamicObject, ApplyError> {
        let mut desired = desired.clone();
        desired["metadata"]["uid"] = json!(uid);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let applied = self.api.patch(self.name, &params, &Patch::Apply(&desired)).await;
        applied.map_err(|source| self.failed("apply", source))
    }

    /// Sets only `spec.replicas` of `live`, as a separate field manager: a later apply must still own all that it
    /// applied before.
    pub(super) async fn scale(&self, replicas: &Value, live: &DynamicObject) -> Result<(), ApplyError> {
        let patch = json!({ "metadata": { "uid": live.uid() }, "spec": { "replicas": replicas } });
        let params = PatchParams { field_manager: Some(SCALE_MANAGER.to_owned()), ..PatchParams::default() };
        self.api
            .patch(self.name, &params, &Patch::Merge(&patch))
            .await
            .map_err(|source| self.failed("patch", source))?;
        info!("scaled {} {}/{} to {replicas}", self.kind, self.owner.namespace, self.name);
        Ok(())
    }

    /// Deletes `live`, but no later object of its name.
    pub(super) async fn delete(&self, live: &DynamicObject) -> Result<(), ApplyError> {
        self.delete_of(live.uid()).await
    }

    /// Deletes the object of that uid.
    pub(crate) async fn delete_of(&self, uid: Option<String>) -> Result<(), ApplyError> {
        let preconditions = Preconditions { uid, resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.api.delete(self.name, &params).await {
            Ok(_) => {
                info!("deleted {} {}/{}", self.kind, self.owner.namespace, self.name);
                Ok(())
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(source) => Err(self.failed("delete", source)),
        }
    }

    /// Adds the labels and the owner reference of `desired` by a PUT at the version that was read, so that no renewal
    /// is overwritten.
    pub(super) async fn adopt_lease(
        &self,
        mut live: DynamicObject,
        desired: &Value,
    ) -> Result<DynamicObject, ApplyError> {
        let desired: DynamicObject = serde_json::from_value(desired.clone())
            .map_err(|source| self.failed("adopt", kube::Error::SerdeError(source)))?;
        live.labels_mut().extend(desired.labels().clone());
        if !is_owned(&live, self.owner) {
            let owners = live.owner_references_mut();
            // The group may already be an owner without being the controller.
            owners.retain(|owner| owner.uid != self.owner.uid);
            owners.extend(desired.owner_references().to_vec());
        }
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let holder = snapshot_of(&live).record.holder;
        let adopted = self.api.replace(self.name, &params, &live).await;
        let adopted = adopted.map_err(|source| self.failed("adopt", source))?;
        info!("adopted Lease {}/{}, held by {holder:?}", self.owner.namespace, self.name);
        Ok(adopted)
    }
}

fn is_owned(object: &DynamicObject, owner: Owner<'_>) -> bool {
    controller_of(object) == Some(owner.uid)
}

pub(super) fn is_as_desired(desired: &Value, live: &DynamicObject) -> bool {
    drift::is_as_desired(desired, &value_of(live))
}
