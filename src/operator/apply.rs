//! Fourth step: the children become as desired.
//!
//! Children are created by POST, so that an object of that name is never taken over by accident; what exists is changed
//! only if its controller is this very group, by server-side apply with its uid. What is as desired costs no request.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::ApiResource;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tracing::info;

use super::observe::{Cache, Caches};
use crate::api::names::{FIELD_MANAGER, annotation, label};
use crate::api::{ElectionGroup, InjectionStatus};
use crate::campaign::snapshot_of;
use crate::group::desired::{NewLease, new_lease};
use crate::group::{Desired, Group, drift};
use crate::runtime::clock::Clock;

/// Why the children are not as desired.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    /// An object of that name belongs to somebody else.
    #[error(
        "{kind} {namespace}/{name} exists and is not this group's ({found}); delete or rename it, or rename the group"
    )]
    Conflict { kind: String, namespace: String, name: String, found: String },
    /// A request failed.
    #[error("cannot {verb} {kind} {namespace}/{name}: {}", crate::campaign::told(source))]
    Request { verb: &'static str, kind: String, namespace: String, name: String, source: Box<kube::Error> },
}

impl ApplyError {
    /// The status code of the API server's refusal, if it was one.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Request { source, .. } => match &**source {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            Self::Conflict { .. } => None,
        }
    }
}

/// That the children are as desired. Only [`Applier::apply`] makes one.
pub(super) struct Applied {
    pub(super) injection: Option<InjectionStatus>,
}

pub(super) struct Applier {
    client: Client,
    /// Children on which an apply changed nothing, though they do not look as desired: a spelling that the server
    /// normalises and [`drift`] does not know. By uid: what was applied, and to which state.
    settled: Mutex<HashMap<String, (String, String)>>,
}

impl Applier {
    pub(super) fn new(client: Client) -> Self {
        Self { client, settled: Mutex::default() }
    }

    pub(super) async fn apply(
        &self,
        group: &Group,
        resource: &ElectionGroup,
        desired: Desired,
        caches: &Caches,
        clock: &dyn Clock,
    ) -> Result<Applied, ApplyError> {
        // No `..`: a child that is desired and forgotten here does not compile.
        let Desired { service_account, role, role_binding, lease, deployment, injection } = desired;
        // First of all: whose Lease it is decides whether anything may be granted on it.
        self.ensure_lease(group, resource, &lease, caches, clock).await?;
        if let Some(account) = &service_account {
            self.ensure(group, &caches.service_accounts, account).await?;
        }
        self.ensure(group, &caches.roles, &role).await?;
        let rolled_out = is_rolled_out(caches, group, &deployment);
        let role_binding = if rolled_out { role_binding } else { keeping_subjects(role_binding, caches, group) };
        self.ensure(group, &caches.role_bindings, &role_binding).await?;
        self.ensure(group, &caches.deployments, &deployment).await?;
        if service_account.is_none() && rolled_out && group.service_account.name(&group.name) != group.name {
            self.remove(group, &caches.service_accounts).await?;
        }
        Ok(Applied { injection })
    }

    async fn ensure(&self, group: &Group, cache: &Cache, desired: &Value) -> Result<(), ApplyError> {
        let child = Child::new(&self.client, &cache.resource, group, desired["metadata"]["name"].as_str());
        if let Some(live) = cache.get(&group.namespace, child.name) {
            if is_owned(&live, group) && (self.is_settled(&live, desired) || is_as_desired(desired, &live)) {
                return Ok(());
            }
        } else if child.create(desired).await?.is_some() {
            return Ok(());
        }
        // The cache may lag behind: what is about to be changed or complained of is looked at live.
        let Some(live) = child.get().await? else {
            return child.create(desired).await.map(drop);
        };
        child.check_owner(&live)?;
        if is_as_desired(desired, &live) {
            return Ok(());
        }
        child.claim_fields(&live).await?;
        let applied = child.apply(desired, &live).await?;
        if applied.metadata.resource_version == live.metadata.resource_version {
            self.settle(&live, desired);
        }
        Ok(())
    }

    fn is_settled(&self, live: &DynamicObject, desired: &Value) -> bool {
        let settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        live.uid().is_some_and(|uid| settled.get(&uid) == Some(&(applied_hash(desired), state_of(live))))
    }

    fn settle(&self, live: &DynamicObject, desired: &Value) {
        if let Some(uid) = live.uid() {
            let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
            settled.insert(uid, (applied_hash(desired), state_of(live)));
        }
    }

    /// The account that was made for the group is no longer wanted.
    async fn remove(&self, group: &Group, cache: &Cache) -> Result<(), ApplyError> {
        let Some(live) = cache.get(&group.namespace, &group.name).filter(|live| is_owned(live, group)) else {
            return Ok(());
        };
        let child = Child::new(&self.client, &cache.resource, group, Some(&group.name));
        let preconditions = Preconditions { uid: live.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match child.api.delete(child.name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(source) => Err(child.failed("delete", source)),
        }
    }

    async fn ensure_lease(
        &self,
        group: &Group,
        resource: &ElectionGroup,
        desired: &Value,
        caches: &Caches,
        clock: &dyn Clock,
    ) -> Result<(), ApplyError> {
        let kind = ApiResource::erase::<Lease>(&());
        let child = Child::new(&self.client, &kind, group, Some(&group.lease_name));
        if let Some((live, _)) = caches.leases.get(&group.namespace, &group.lease_name)
            && is_owned(&live, group)
            && drift::contains(&value_of(&live), desired)
        {
            return Ok(());
        }
        match child.get().await? {
            None => self.create_lease(group, resource, desired, &child, clock).await,
            Some(live) if drift::contains(&value_of(&live), desired) => Ok(()),
            Some(live) => {
                if live.owner_references().iter().any(|owner| owner.controller == Some(true)) {
                    child.check_owner(&live)?;
                }
                child.adopt_lease(live, desired).await
            }
        }
    }

    async fn create_lease(
        &self,
        group: &Group,
        resource: &ElectionGroup,
        desired: &Value,
        child: &Child<'_>,
        clock: &dyn Clock,
    ) -> Result<(), ApplyError> {
        let known = resource.status.as_ref().filter(|status| status.lease_name.is_some());
        let transitions = known.and_then(|status| status.lease_transitions).unwrap_or_default();
        let new = if known.is_none() && self.has_no_pods(group).await? {
            NewLease::First
        } else {
            info!("lease {}/{} is missing: making it again, with its wait", group.namespace, group.lease_name);
            NewLease::Recreated { transitions }
        };
        let micros = clock.wall_micros();
        child.create(&new_lease(group, desired, new, &crate::campaign::micro_time(micros))).await.map(drop)
    }

    /// Asks the API server itself: a pod that the cache does not show yet could lead.
    async fn has_no_pods(&self, group: &Group) -> Result<bool, ApplyError> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &group.namespace);
        let ours = ListParams::default().labels(&format!("{}={}", label::GROUP, group.name)).limit(1);
        match pods.list_metadata(&ours).await {
            Ok(pods) => Ok(pods.items.is_empty()),
            Err(source) => Err(ApplyError::Request {
                verb: "list",
                kind: "Pod".to_owned(),
                namespace: group.namespace.clone(),
                name: format!("of group {}", group.name),
                source: Box::new(source),
            }),
        }
    }
}

/// One child at the API server.
struct Child<'a> {
    api: Api<DynamicObject>,
    kind: &'a str,
    group: &'a Group,
    name: &'a str,
}

impl<'a> Child<'a> {
    fn new(client: &Client, resource: &'a ApiResource, group: &'a Group, name: Option<&'a str>) -> Self {
        let api = Api::namespaced_with(client.clone(), &group.namespace, resource);
        Self { api, kind: &resource.kind, group, name: name.unwrap_or(&group.name) }
    }

    fn failed(&self, verb: &'static str, source: kube::Error) -> ApplyError {
        ApplyError::Request {
            verb,
            kind: self.kind.to_owned(),
            namespace: self.group.namespace.clone(),
            name: self.name.to_owned(),
            source: Box::new(source),
        }
    }

    async fn get(&self) -> Result<Option<DynamicObject>, ApplyError> {
        self.api.get_opt(self.name).await.map_err(|source| self.failed("get", source))
    }

    /// `None` if there is one of that name already.
    async fn create(&self, desired: &Value) -> Result<Option<DynamicObject>, ApplyError> {
        let object: DynamicObject = serde_json::from_value(desired.clone())
            .map_err(|source| self.failed("create", kube::Error::SerdeError(source)))?;
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match self.api.create(&params, &object).await {
            Ok(created) => {
                info!("created {} {}/{}", self.kind, self.group.namespace, self.name);
                Ok(Some(created))
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
            Err(source) => Err(self.failed("create", source)),
        }
    }

    fn check_owner(&self, live: &DynamicObject) -> Result<(), ApplyError> {
        if is_owned(live, self.group) {
            return Ok(());
        }
        let controller = live.owner_references().iter().find(|owner| owner.controller == Some(true));
        let found = match controller {
            Some(owner) => format!("controlled by {} {}, uid {}", owner.kind, owner.name, owner.uid),
            None => "controlled by nobody".to_owned(),
        };
        Err(ApplyError::Conflict {
            kind: self.kind.to_owned(),
            namespace: self.group.namespace.clone(),
            name: self.name.to_owned(),
            found,
        })
    }

    /// What was created by POST is owned as an "Update"; a later apply could not take fields of that owner away. Renames
    /// the ownership to what an apply has.
    async fn claim_fields(&self, live: &DynamicObject) -> Result<(), ApplyError> {
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

    async fn apply(&self, desired: &Value, live: &DynamicObject) -> Result<DynamicObject, ApplyError> {
        let mut desired = desired.clone();
        // If it was deleted and made again meanwhile, the server refuses.
        desired["metadata"]["uid"] = json!(live.uid());
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let applied = self.api.patch(self.name, &params, &Patch::Apply(&desired)).await;
        let applied = applied.map_err(|source| self.failed("apply", source))?;
        if applied.metadata.resource_version != live.metadata.resource_version {
            info!("updated {} {}/{}", self.kind, self.group.namespace, self.name);
        }
        Ok(applied)
    }

    /// A PUT at the version that was read: a candidate that renews meanwhile is not overwritten.
    async fn adopt_lease(&self, mut live: DynamicObject, desired: &Value) -> Result<(), ApplyError> {
        let desired: DynamicObject = serde_json::from_value(desired.clone())
            .map_err(|source| self.failed("adopt", kube::Error::SerdeError(source)))?;
        live.labels_mut().extend(desired.labels().clone());
        if !is_owned(&live, self.group) {
            live.owner_references_mut().extend(desired.owner_references().to_vec());
        }
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let holder = snapshot_of(&live).record.holder;
        self.api.replace(self.name, &params, &live).await.map_err(|source| self.failed("adopt", source))?;
        info!("adopted Lease {}/{}, held by {holder:?}", self.group.namespace, self.name);
        Ok(())
    }
}

/// Whether every pod is of the template that is desired, so that nobody needs the rights of a former one.
fn is_rolled_out(caches: &Caches, group: &Group, desired: &Value) -> bool {
    caches.deployments.get(&group.namespace, &group.name).is_some_and(|live| {
        let status = &live.data["status"];
        is_as_desired(desired, &live)
            && status["observedGeneration"].as_i64() >= live.metadata.generation
            && status["updatedReplicas"].as_i64().unwrap_or_default() == status["replicas"].as_i64().unwrap_or_default()
    })
}

/// Until then, who could reach the Lease still can: a leader that loses its rights loses its lease.
fn keeping_subjects(mut binding: Value, caches: &Caches, group: &Group) -> Value {
    let live = caches.role_bindings.get(&group.namespace, &group.name).filter(|live| is_owned(live, group));
    let former = live.and_then(|live| live.data["subjects"].as_array().cloned()).unwrap_or_default();
    if let Some(subjects) = binding["subjects"].as_array_mut() {
        let new: Vec<Value> = former.into_iter().filter(|subject| !subjects.contains(subject)).collect();
        subjects.extend(new);
    }
    binding
}

fn is_owned(object: &DynamicObject, group: &Group) -> bool {
    object.owner_references().iter().any(|owner| owner.controller == Some(true) && owner.uid == group.uid)
}

fn is_as_desired(desired: &Value, live: &DynamicObject) -> bool {
    drift::is_as_desired(desired, &value_of(live))
}

fn value_of(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

fn applied_hash(desired: &Value) -> String {
    desired["metadata"]["annotations"][annotation::APPLIED_HASH].as_str().unwrap_or_default().to_owned()
}

/// What changes whenever somebody edits the object: a Deployment's status moves its resourceVersion, too.
fn state_of(object: &DynamicObject) -> String {
    match object.metadata.generation {
        Some(generation) => generation.to_string(),
        None => object.resource_version().unwrap_or_default(),
    }
}
