//! Maintains the leader Service: its EndpointSlice has the leader as its only endpoint.
//!
//! An existing EndpointSlice follows the leader before any other step of a reconcile, also while the group is paused or
//! its spec cannot be read: one request for each change. A missing one is created with the other children.

use std::time::Duration;

use kube::ResourceExt;
use serde_json::Value;
use tracing::info;

use crate::api::ElectionGroup;
use crate::cache::{ChildView, Detail, Kind, LeaderServiceState};
use crate::group::Group;
use crate::group::judge::endpoints::{Decision, Question, decide};
use crate::group::status::leading;
use crate::report::status::HANDOVER;
use crate::runtime::clock::Clock;
use crate::steps::apply::{Applier, ApplyError, Child, Owner};

impl Applier {
    /// Points an existing EndpointSlice to the leader. Returns the time until the next reconcile, where no event
    /// triggers it.
    pub(crate) async fn follow(
        &self,
        resource: &ElectionGroup,
        valid: Option<&Group>,
        clock: &dyn Clock,
    ) -> Result<Option<Duration>, ApplyError> {
        if valid.is_some_and(|group| !group.paused && group.leader_service.is_none()) {
            // The Service is about to be removed.
            return Ok(None);
        }
        let Some(state) = self.leader_service_state(resource) else { return Ok(None) };
        let Some(slice) = &state.slice else { return Ok(None) };
        match decision(resource, valid, &state, clock) {
            Decision::Wait(left) => Ok(Some(left)),
            Decision::Write(wanted) => match self.write_slice(resource, slice, &wanted).await {
                // Gone, or another one has its name: that event triggers the next reconcile.
                Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(None),
                result => result.map(|()| None),
            },
        }
    }

    /// Applies the Service and its EndpointSlice, or removes both if no Service is desired.
    pub(crate) async fn apply_leader_service(
        &self,
        group: &Group,
        resource: &ElectionGroup,
        service: Option<&Value>,
        clock: &dyn Clock,
    ) -> Result<(), ApplyError> {
        let Some(service) = service else {
            self.remove(group, Kind::EndpointSlice).await?;
            return self.remove(group, Kind::Service).await;
        };
        if let Err(error) = self.ensure(group, Kind::Service, service).await {
            if matches!(error, ApplyError::Conflict { .. }) {
                // The label of the slice would add the leader to the foreign Service.
                self.remove(group, Kind::EndpointSlice).await?;
            }
            return Err(error);
        }
        let Some(state) = self.leader_service_state(resource) else { return Ok(()) };
        match (decision(resource, Some(group), &state, clock), &state.slice) {
            (Decision::Wait(_), _) => Ok(()),
            (Decision::Write(wanted), Some(slice)) => self.write_slice(resource, slice, &wanted).await,
            (Decision::Write(wanted), None) => {
                self.cache.expect_endpoints(&group.namespace, &group.name, &wanted);
                self.ensure(group, Kind::EndpointSlice, &wanted).await
            }
        }
    }

    fn leader_service_state(&self, resource: &ElectionGroup) -> Option<LeaderServiceState> {
        let (namespace, name) = (resource.namespace()?, resource.name_any());
        let uid = resource.metadata.uid.as_deref()?;
        self.cache.leader_service_state(&namespace, &name, resource.effective_lease_name(), uid)
    }

    /// Writes `wanted` over `slice`. Costs no request if the slice is up to date.
    async fn write_slice(&self, resource: &ElectionGroup, slice: &ChildView, wanted: &Value) -> Result<(), ApplyError> {
        if slice.matches(wanted) {
            return Ok(());
        }
        let (namespace, group) = (resource.namespace().unwrap_or_default(), resource.name_any());
        let (uid, name) = (resource.uid().unwrap_or_default(), Kind::EndpointSlice.name_of(&group));
        let owner = Owner { namespace: &namespace, uid: &uid };
        let child = Child::new(&self.client, Kind::EndpointSlice.resource(), owner, &name);
        self.cache.expect_endpoints(&namespace, &group, wanted);
        let same_family =
            matches!(&slice.detail, Detail::Addresses(family) if wanted["addressType"].as_str() == Some(&**family));
        let written = if same_family {
            Some(child.apply_to(wanted, &slice.uid).await?)
        } else {
            // `addressType` is immutable.
            child.delete_of(Some(slice.uid.to_string())).await?;
            child.create(wanted).await?
        };
        let to = wanted["endpoints"][0]["targetRef"]["name"].as_str().unwrap_or("no pod");
        info!(group = format!("{namespace}/{group}"), "Service {name} now routes to {to}");
        if let Some(written) = written {
            self.cache.apply_child_response(Kind::EndpointSlice, &written, wanted);
        }
        Ok(())
    }
}

fn decision(
    resource: &ElectionGroup,
    valid: Option<&Group>,
    state: &LeaderServiceState,
    clock: &dyn Clock,
) -> Decision {
    let LeaderServiceState { ports, slice, lease, pods, released_at } = state;
    let (namespace, name) = (resource.namespace().unwrap_or_default(), resource.name_any());
    let before = resource.status.clone().unwrap_or_default();
    let (uid, now) = (resource.uid().unwrap_or_default(), clock.since_boot());
    let address_type = slice.as_ref().and_then(|slice| match &slice.detail {
        Detail::Addresses(family) => Some(&**family),
        _ => None,
    });
    decide(&Question {
        name: &name,
        namespace: &namespace,
        uid: &uid,
        ports,
        lease: leading(&before, lease.as_ref()),
        pods,
        // While the group is paused, no part of its spec takes effect.
        suspended: valid.is_some_and(|group| group.suspended && !group.paused),
        handing_over: released_at.and_then(|at| (at + HANDOVER).checked_sub(now)).filter(|left| !left.is_zero()),
        address_type,
    })
}
