//! Applies the children of a group.
//!
//! A missing child is created by POST, so that a foreign object of its name is never taken over by accident. An
//! existing child is changed only if the group is its controller, by server-side apply with its uid. A child that is up
//! to date costs no request.

mod child;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::ApiResource;
use serde_json::{Value, json};
use tracing::info;

pub(crate) use child::{ApplyError, Child, Owner};

use crate::api::ElectionGroup;
use crate::cache::{Cache, Detail, Kind, controller_of, value_of};
use crate::group::desired::drift;
use crate::group::desired::{NewLease, new_lease};
use crate::group::{Desired, Group};
use crate::runtime::clock::Clock;
use crate::steps::live_pods::{longest_wait, pods_of};
use child::is_as_desired;

/// The client and the cache for applying children.
pub(crate) struct Applier {
    pub(crate) client: Client,
    pub(crate) cache: Cache,
}

impl Applier {
    pub(crate) fn new(client: Client, cache: Cache) -> Self {
        Self { client, cache }
    }

    /// Applies all children of `group`, and removes those that it no longer needs.
    ///
    /// # Errors
    /// [`ApplyError`] of the first child that failed; the children after it were not applied.
    pub(crate) async fn apply(
        &self,
        group: &Group,
        resource: &ElectionGroup,
        desired: &Desired,
        clock: &dyn Clock,
    ) -> Result<(), ApplyError> {
        // No `..`: a desired child that is forgotten here does not compile.
        let Desired {
            service_account,
            role,
            role_binding,
            lease,
            deployment,
            disruption_budget,
            service,
            injection: _,
            keeps_pods,
        } = desired;
        // First of all: access to the Lease may be granted only if the group owns it.
        self.ensure_lease(group, resource, lease, clock).await?;
        if let Some(account) = service_account {
            self.ensure(group, Kind::ServiceAccount, account).await?;
        }
        self.ensure(group, Kind::Role, role).await?;
        let rolled_out = self.is_rolled_out(group, deployment);
        let role_binding = role_binding.clone();
        let role_binding = if rolled_out { role_binding } else { self.keeping_accounts(role_binding, group) };
        self.ensure(group, Kind::RoleBinding, &role_binding).await?;
        if *keeps_pods {
            self.scale(group, deployment).await?;
        } else {
            self.ensure(group, Kind::Deployment, deployment).await?;
        }
        match disruption_budget {
            Some(budget) => self.ensure(group, Kind::DisruptionBudget, budget).await?,
            None => self.remove(group, Kind::DisruptionBudget).await?,
        }
        if service_account.is_none() && rolled_out && group.service_account.name(&group.name) != group.name {
            self.remove(group, Kind::ServiceAccount).await?;
        }
        self.apply_leader_service(group, resource, service.as_ref(), clock).await
    }

    /// Sets the replicas of the Deployment and leaves everything else as it is.
    async fn scale(&self, group: &Group, desired: &Value) -> Result<(), ApplyError> {
        let child = Child::new(&self.client, Kind::Deployment.resource(), group, &group.name);
        let Some(live) = child.get().await? else { return Ok(()) };
        child.check_owner(&live)?;
        let replicas = &desired["spec"]["replicas"];
        if live.data["spec"]["replicas"] == *replicas { Ok(()) } else { child.scale(replicas, &live).await }
    }

    /// Whether the group's Deployment exists.
    pub(crate) fn has_deployment(&self, group: &Group) -> bool {
        let known = self.cache.child(Kind::Deployment, &group.namespace, &group.name);
        known.is_some_and(|known| known.is_controlled_by(&group.uid))
    }

    /// Whether the Deployment is as `desired`, even if another child failed.
    pub(crate) fn has_deployed(&self, group: &Group, desired: &Desired) -> bool {
        let known = self.cache.child(Kind::Deployment, &group.namespace, &group.name);
        known.is_some_and(|known| known.is_controlled_by(&group.uid) && known.matches(&desired.deployment))
    }

    /// Creates or applies one child.
    pub(crate) async fn ensure(&self, group: &Group, kind: Kind, desired: &Value) -> Result<(), ApplyError> {
        let child = Child::new(
            &self.client,
            kind.resource(),
            group,
            desired["metadata"]["name"].as_str().unwrap_or(&group.name),
        );
        match self.cache.child(kind, &group.namespace, child.name) {
            Some(known) if known.is_controlled_by(&group.uid) && known.matches(desired) => return Ok(()),
            Some(_) => {}
            // After a conflict the object is read first: another POST would fail as well.
            None if self.cache.remember(&group.namespace, &group.name, |memory| memory.blocked) == Some(true) => {}
            None => {
                if let Some(created) = child.create(desired).await? {
                    self.cache.apply_child_response(kind, &created, desired);
                    return Ok(());
                }
            }
        }
        // The cache may lag behind: an object is read before it is changed or reported as a conflict.
        let Some(live) = child.get().await? else {
            return self.create(&child, kind, desired).await;
        };
        child.check_owner(&live)?;
        if is_as_desired(desired, &live) {
            self.cache.apply_child_response(kind, &live, desired);
            return Ok(());
        }
        if kind == Kind::Service && live.data["spec"]["selector"].is_object() {
            // The endpoints controller added the standbys, and keeps them when the selector is removed. Only deleting
            // the Service removes them.
            info!("Service {}/{} has a selector: recreating it", group.namespace, child.name);
            child.delete(&live).await?;
            return self.create(&child, kind, desired).await;
        }
        child.claim_fields(&live).await?;
        match child.apply(desired, &live).await {
            // The response may still differ from `desired`, by a spelling that the server normalises and `drift` does
            // not know.
            Ok(applied) => self.cache.apply_child_response(kind, &applied, desired),
            Err(error) if error.is_immutable() => {
                info!("{error}: recreating it");
                child.delete(&live).await?;
                self.create(&child, kind, desired).await?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn create(&self, child: &Child<'_>, kind: Kind, desired: &Value) -> Result<(), ApplyError> {
        if let Some(created) = child.create(desired).await? {
            self.cache.apply_child_response(kind, &created, desired);
        }
        Ok(())
    }

    /// Deletes a child that the group no longer needs, if the group controls it.
    pub(crate) async fn remove(&self, group: &Group, kind: Kind) -> Result<(), ApplyError> {
        let name = kind.name_of(&group.name);
        let known = self.cache.child(kind, &group.namespace, &name);
        if !known.is_some_and(|known| known.is_controlled_by(&group.uid)) {
            return Ok(());
        }
        let child = Child::new(&self.client, kind.resource(), group, &name);
        match child.get().await? {
            Some(live) if child.check_owner(&live).is_ok() => child.delete(&live).await,
            _ => Ok(()),
        }
    }

    async fn ensure_lease(
        &self,
        group: &Group,
        resource: &ElectionGroup,
        desired: &Value,
        clock: &dyn Clock,
    ) -> Result<(), ApplyError> {
        if self.cache.has_lease(group) {
            return Ok(());
        }
        let kind = ApiResource::erase::<Lease>(&());
        let child = Child::new(&self.client, &kind, group, &group.lease_name);
        match child.get().await? {
            None => self.create_lease(group, resource, desired, &child, clock).await,
            Some(live) if drift::contains(&value_of(&live), desired) => {
                self.cache.apply_lease_response(&live);
                Ok(())
            }
            Some(live) => {
                if controller_of(&live).is_some() {
                    child.check_owner(&live)?;
                }
                self.cache.apply_lease_response(&child.adopt_lease(live, desired).await?);
                Ok(())
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
        // While a Deployment of a former group of this name exists, its pods may work under a Lease of another name.
        if self.cache.child(Kind::Deployment, &group.namespace, &group.name).is_some() {
            let deployment = Child::new(&self.client, Kind::Deployment.resource(), group, &group.name);
            if let Some(live) = deployment.get().await? {
                deployment.check_owner(&live)?;
            }
        }
        let known = resource.status.as_ref().filter(|status| status.lease_name.is_some());
        let transitions = known.and_then(|status| status.lease_transitions).unwrap_or_default();
        let pods = pods_of(&self.client, group).await?;
        let new = if known.is_none() && pods.is_empty() {
            NewLease::First
        } else {
            // The leader of the lost Lease may rely on a longer duration than the present spec has.
            let lost = self.cache.lost_lease_seconds(group).max(group.timing.lease_duration);
            let seconds = lost.max(longest_wait(&pods));
            info!(
                group = format!("{}/{}", group.namespace, group.name),
                "lease {} is missing: recreating it; every candidate waits {seconds} s, so that a leader of the former \
                 lease can stop first",
                group.lease_name
            );
            NewLease::Recreated { transitions, seconds }
        };
        let micros = clock.wall_micros();
        let created = child.create(&new_lease(desired, new, &crate::campaign::micro_time(micros))).await?;
        if let Some(created) = created {
            self.cache.apply_lease_response(&created);
        }
        Ok(())
    }

    /// Whether every pod, including terminating ones, has the desired template, so that no pod needs the rights of a
    /// former ServiceAccount.
    fn is_rolled_out(&self, group: &Group, desired: &Value) -> bool {
        self.cache.child(Kind::Deployment, &group.namespace, &group.name).is_some_and(|known| {
            let view = match &known.detail {
                Detail::Deployment(view) => view,
                _ => return false,
            };
            let has_terminating_pods = self.cache.has_terminating_pods(&group.namespace, &group.name);
            known.matches(desired) && view.observed && view.updated == view.replicas && !has_terminating_pods
        })
    }

    /// Adds the ServiceAccounts that the live RoleBinding has: until the rollout has ended, a leader that lost its
    /// rights would lose its Lease.
    fn keeping_accounts(&self, mut binding: Value, group: &Group) -> Value {
        let known = self.cache.child(Kind::RoleBinding, &group.namespace, &group.name);
        let Some(Detail::Accounts(former)) =
            known.filter(|known| known.is_controlled_by(&group.uid)).map(|known| known.detail)
        else {
            return binding;
        };
        if let Some(subjects) = binding["subjects"].as_array_mut() {
            for name in former {
                let account = json!({ "kind": "ServiceAccount", "name": name, "namespace": group.namespace });
                if !subjects.contains(&account) {
                    subjects.push(account);
                }
            }
        }
        binding
    }
}
