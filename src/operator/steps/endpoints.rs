//! Keeps the leader Service: its EndpointSlice has the leader alone.
//!
//! What stands there already is followed before anything else is done for a group, also while its spec waits or cannot be
//! read: one request for each switch. What is missing is made with the other children.

use std::time::Duration;

use kube::ResourceExt;
use serde_json::Value;
use tracing::info;

use crate::api::ElectionGroup;
use crate::group::Group;
use crate::group::judge::endpoints::{Decision, Question, decide};
use crate::group::status::leading;
use crate::operator::cache::{ChildView, Detail, Kind, LeaderServiceState};
use crate::operator::report::status::HANDOVER;
use crate::operator::steps::apply::{Applier, ApplyError, Child, Owner};
use crate::runtime::clock::Clock;

impl Applier {
    /// Lets the EndpointSlice follow the leader, if it is there. Returns how soon another look is due, if nothing else tells.
    pub(in crate::operator) async fn follow(
        &self,
        resource: &ElectionGroup,
        valid: Option<&Group>,
        clock: &dyn Clock,
    ) -> Result<Option<Duration>, ApplyError> {
        if valid.is_some_and(|group| !group.paused && group.leader_service.is_none()) {
            // On its way out.
            return Ok(None);
        }
        let Some(served) = self.served(resource) else { return Ok(None) };
        let Some(slice) = &served.slice else { return Ok(None) };
        match decision(resource, valid, &served, clock) {
            Decision::Wait(left) => Ok(Some(left)),
            Decision::Write(wanted) => match self.switch(resource, slice, &wanted).await {
                // Gone, or another one by now: its event brings the next look.
                Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(None),
                result => result.map(|()| None),
            },
        }
    }

    /// Makes the Service as desired, and what is missing of it; takes both away where none is.
    pub(in crate::operator) async fn serve(
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
                // By its label it would give somebody else's Service our leader.
                self.remove(group, Kind::EndpointSlice).await?;
            }
            return Err(error);
        }
        let Some(served) = self.served(resource) else { return Ok(()) };
        match (decision(resource, Some(group), &served, clock), &served.slice) {
            (Decision::Wait(_), _) => Ok(()),
            (Decision::Write(wanted), Some(slice)) => self.switch(resource, slice, &wanted).await,
            (Decision::Write(wanted), None) => {
                self.cache.expect_endpoints(&group.namespace, &group.name, &wanted);
                self.ensure(group, Kind::EndpointSlice, &wanted).await
            }
        }
    }

    fn served(&self, resource: &ElectionGroup) -> Option<LeaderServiceState> {
        let (namespace, name) = (resource.namespace()?, resource.name_any());
        self.cache.served(&namespace, &name, resource.effective_lease_name(), resource.metadata.uid.as_deref()?)
    }

    /// `slice` is to be as `wanted`: one request, or none.
    async fn switch(&self, resource: &ElectionGroup, slice: &ChildView, wanted: &Value) -> Result<(), ApplyError> {
        if slice.is_as(wanted) {
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
            // That field never changes.
            child.delete_of(Some(slice.uid.to_string())).await?;
            child.create(wanted).await?
        };
        let to = wanted["endpoints"][0]["targetRef"]["name"].as_str().unwrap_or("nobody");
        info!(group = format!("{namespace}/{group}"), "Service {name} leads to {to}");
        if let Some(written) = written {
            self.cache.apply_child_response(Kind::EndpointSlice, &written, wanted);
        }
        Ok(())
    }
}

fn decision(
    resource: &ElectionGroup,
    valid: Option<&Group>,
    served: &LeaderServiceState,
    clock: &dyn Clock,
) -> Decision {
    let LeaderServiceState { ports, slice, lease, pods, released_at } = served;
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
        // That of a group that is paused waits, like all of its spec.
        suspended: valid.is_some_and(|group| group.suspended && !group.paused),
        handing_over: released_at.and_then(|at| (at + HANDOVER).checked_sub(now)).filter(|left| !left.is_zero()),
        address_type,
    })
}
