//! Before the children: a Lease whose leader the kubelet reported dead is released, so that a standby takes it at
//! once. What proves a death: [`proof`](crate::group::observed::proof).
//!
//! Of groups of mode Exec only, where the candidate is the container's first process; and of none that is paused, since a
//! paused group is left alone altogether: its Leases run out.

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::ApiResource;
use kube::{Client, ResourceExt};
use tracing::info;

use crate::api::names::FIELD_MANAGER;
use crate::campaign::{apply_record, snapshot_of};
use crate::election::{Record, Snapshot, WallTime};
use crate::group::Group;
use crate::group::judge::proof::{ProvenRelease, is_dead};
use crate::group::spec::group::GroupMode;
use crate::operator::cache::{Cache, LeaseHolder, controller_of};
use crate::protocol::lease::{CANDIDATE_VERSION, READY_OF};
use crate::runtime::clock::Clock;

/// How often a Lease is read again that somebody wrote meanwhile. A dead leader's last renewal may still arrive.
const TRIES: u32 = 3;

/// A Lease whose leader is dead, or for which nobody has to wait any more, could not be released.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot {verb} Lease {lease} to release it, though nobody works under it any more: {}; it runs out by itself",
    crate::campaign::describe(source)
)]
pub(in crate::operator) struct ReleaseError {
    verb: &'static str,
    lease: String,
    source: Box<kube::Error>,
}

/// Releases the Lease of `group` if its holder is proved dead, and returns the last release of that Lease that was made
/// so, as far as its present or next term comes of it.
///
/// # Errors
/// [`ReleaseError`]. The Lease is as it was, or released by a write whose answer was lost.
pub(in crate::operator) async fn release_of_dead(
    client: &Client,
    group: &Group,
    cache: &Cache,
    clock: &dyn Clock,
) -> Result<Option<ProvenRelease>, ReleaseError> {
    // What is known costs nothing and is nearly always right: only a death in it is worth a request.
    let Some(LeaseHolder { holder, incarnation, transitions, dead }) = cache.held(group) else { return Ok(None) };
    if group.mode == GroupMode::Exec && !group.paused && is_dead(&holder, incarnation.as_deref(), &holder, &dead) {
        let freed = release(client, group, &holder, &dead, clock).await?;
        if freed.is_some() {
            cache.remember(&group.namespace, &group.name, |memory| memory.freed = freed);
        }
        return Ok(freed);
    }
    let freed = cache.remember(&group.namespace, &group.name, |memory| memory.freed).flatten();
    Ok(freed.filter(|freed| freed.leads_to(transitions)))
}

/// `None` if the Lease is not of the dead any more.
async fn release(
    client: &Client,
    group: &Group,
    holder: &str,
    dead: &[String],
    clock: &dyn Clock,
) -> Result<Option<ProvenRelease>, ReleaseError> {
    let released = release_if(client, group, clock, |lease| is_of_dead(lease, group, holder, dead)).await?;
    Ok(released.map(|Snapshot { record: Record { transitions, .. }, incarnation, .. }| {
        info!(
            group = format!("{}/{}", group.namespace, group.name),
            "released lease {}: the kubelet reports the end of its leader {holder}, incarnation {}",
            group.lease_name,
            incarnation.unwrap_or_default()
        );
        ProvenRelease { transitions }
    }))
}

/// The Leases of the group's namespace, in full, so that a PUT keeps what is not ours.
pub(in crate::operator) fn leases_of(client: &Client, group: &Group) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), &group.namespace, &ApiResource::erase::<Lease>(&()))
}

/// Releases the group's Lease by compare-and-swap if `may_release` says so of its live state, and returns what it was before.
///
/// # Errors
/// [`ReleaseError`]. The Lease is as it was, or released by a write whose answer was lost.
pub(in crate::operator) async fn release_if(
    client: &Client,
    group: &Group,
    clock: &dyn Clock,
    may_release: impl Fn(&DynamicObject) -> bool,
) -> Result<Option<Snapshot>, ReleaseError> {
    let leases = leases_of(client, group);
    let mut conflict = None;
    for _ in 0..TRIES {
        let live = leases.get_opt(&group.lease_name).await.map_err(|source| failed("get", group, source))?;
        let Some(mut lease) = live.filter(|lease| may_release(lease)) else { return Ok(None) };
        let former = snapshot_of(&lease);
        let transitions = former.record.transitions;
        apply_record(&mut lease, &Record::released(transitions, WallTime(clock.wall_micros())), None);
        // What the dead candidate stated of its program and of itself.
        lease.annotations_mut().remove(READY_OF);
        lease.annotations_mut().remove(CANDIDATE_VERSION);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match leases.replace(&group.lease_name, &params, &lease).await {
            Ok(_) => return Ok(Some(former)),
            Err(error) if is_conflict(&error) => conflict = Some(error),
            Err(source) => return Err(failed("update", group, source)),
        }
    }
    // Somebody writes to it all the time.
    conflict.map_or(Ok(None), |error| Err(failed("update", group, error)))
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

pub(in crate::operator) fn failed(verb: &'static str, group: &Group, source: kube::Error) -> ReleaseError {
    ReleaseError { verb, lease: format!("{}/{}", group.namespace, group.lease_name), source: Box::new(source) }
}

/// Whether this very Lease is the group's, at a known version, and held by the dead.
fn is_of_dead(lease: &DynamicObject, group: &Group, pod: &str, dead: &[String]) -> bool {
    let Snapshot { record, incarnation, .. } = snapshot_of(lease);
    is_replaceable(lease, group) && is_dead(&record.holder, incarnation.as_deref(), pod, dead)
}

/// Whether this very Lease is the group's, at a known version: a PUT without one would replace whatever is there by then.
pub(in crate::operator) fn is_replaceable(lease: &DynamicObject, group: &Group) -> bool {
    let has_version = lease.resource_version().is_some_and(|version| !version.is_empty());
    controller_of(lease) == Some(&group.uid) && has_version
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll};

    use futures::FutureExt;
    use futures::future::{Ready, ready};
    use http::{Method, Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};
    use tower::{BoxError, Service};

    use super::*;
    use crate::runtime::clock::SystemClock;

    const DEAD: &str = "0c7e5a52/app/00000000c0ffee11";

    /// Code and body.
    type Answer = (u16, Value);
    /// Method and body.
    type Asked = (Method, Value);

    /// An API server that gives the answers that it was told to, and keeps what it was asked.
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<Script>>);

    #[derive(Default)]
    struct Script {
        answers: VecDeque<Answer>,
        asked: Vec<Asked>,
    }

    impl Service<Request<Body>> for Server {
        type Response = Response<Body>;
        type Error = BoxError;
        type Future = Ready<Result<Response<Body>, BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().now_or_never().and_then(Result::ok).unwrap_or_default();
            let Script { answers, asked } = &mut *self.0.lock().unwrap();
            asked.push((head.method, serde_json::from_slice(&body).unwrap_or_default()));
            let (code, answer) = answers.pop_front().expect("no further request");
            ready(Ok(Response::builder().status(code).body(Body::from(answer.to_string().into_bytes())).unwrap()))
        }
    }

    fn group() -> Group {
        let election = json!({ "leaseDurationSeconds": 15 });
        let resource = json!({
            "metadata": { "name": "billing", "namespace": "shop", "uid": "5ad1f6b4" },
            "spec": { "image": "b", "command": ["/b"], "election": election },
        });
        Group::check(&serde_json::from_str(&resource.to_string()).unwrap()).unwrap()
    }

    fn lease(incarnation: &str, version: &str) -> Value {
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": "billing",
                "namespace": "shop",
                "resourceVersion": version,
                "annotations": { "k8sensus.dev/incarnation": incarnation },
                "ownerReferences": [{ "apiVersion": "k8sensus.dev/v1alpha1", "kind": "ElectionGroup", "name": "billing", "uid": "5ad1f6b4", "controller": true }],
            },
            "spec": { "holderIdentity": "billing-1", "leaseDurationSeconds": 15, "leaseTransitions": 4, "strategy": "kept" },
        })
    }

    fn conflict() -> Value {
        json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Conflict", "code": 409, "message": "changed" })
    }

    /// What became of the Lease of dead billing-1, and each request with its body.
    fn try_release(answers: &[Answer]) -> (Result<Option<ProvenRelease>, String>, Vec<Asked>) {
        let server = Server::default();
        server.0.lock().unwrap().answers.extend(answers.iter().cloned());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(async {
            let client = Client::new(server.clone(), "shop");
            release(&client, &group(), "billing-1", &[DEAD.to_owned()], &SystemClock).await
        });
        let asked = std::mem::take(&mut server.0.lock().unwrap().asked);
        (result.map_err(|error| error.to_string()), asked)
    }

    fn methods(asked: &[Asked]) -> Vec<&Method> {
        asked.iter().map(|(method, _)| method).collect()
    }

    #[test]
    fn the_lease_is_put_back_as_it_was_read_but_for_its_holder() {
        let (result, asked) = try_release(&[(200, lease(DEAD, "41")), (200, lease("", "42"))]);
        assert_eq!(result, Ok(Some(ProvenRelease { transitions: 4 })));
        assert_eq!(methods(&asked), [Method::GET, Method::PUT]);
        let put = &asked[1].1;
        let spec = &put["spec"];
        assert_eq!((&put["metadata"]["resourceVersion"], &spec["holderIdentity"]), (&json!("41"), &json!("")));
        assert_eq!((&spec["leaseDurationSeconds"], &spec["leaseTransitions"]), (&json!(1), &json!(4)));
        assert_eq!((&spec["strategy"], &put["metadata"]["annotations"]), (&json!("kept"), &json!({})));
        assert!(spec["renewTime"].is_string() && spec["renewTime"] == spec["acquireTime"]);
    }

    #[test]
    fn a_last_renewal_that_came_in_between_is_looked_at_and_released() {
        let answers = [(200, lease(DEAD, "41")), (409, conflict()), (200, lease(DEAD, "42")), (200, lease("", "43"))];
        let (result, asked) = try_release(&answers);
        assert_eq!(result, Ok(Some(ProvenRelease { transitions: 4 })));
        assert_eq!(asked[3].1["metadata"]["resourceVersion"], "42");
    }

    #[test]
    fn a_successor_that_the_cache_did_not_show_is_left_alone() {
        let successor = lease("0c7e5a52/app/00000000c0ffee22", "42");
        let (result, asked) = try_release(&[(200, successor.clone())]);
        assert_eq!((result, methods(&asked)), (Ok(None), vec![&Method::GET]));
        let (result, asked) = try_release(&[(200, lease(DEAD, "41")), (409, conflict()), (200, successor)]);
        assert_eq!((result, methods(&asked)), (Ok(None), vec![&Method::GET, &Method::PUT, &Method::GET]));
    }

    #[test]
    fn another_groups_lease_and_one_of_no_version_are_left_alone() {
        let mut foreign = lease(DEAD, "41");
        foreign["metadata"]["ownerReferences"][0]["uid"] = json!("77f0f3a4");
        let mut shared = lease(DEAD, "41");
        shared["metadata"]["ownerReferences"][0]["controller"] = json!(false);
        // A PUT without a version would overwrite whatever stands there.
        for lease in [foreign, shared, lease(DEAD, "")] {
            let (result, asked) = try_release(&[(200, lease)]);
            assert_eq!((result, methods(&asked)), (Ok(None), vec![&Method::GET]));
        }
    }

    #[test]
    fn a_lease_that_changes_all_the_time_is_given_up_for_now() {
        let turn = [(200, lease(DEAD, "41")), (409, conflict())];
        let (result, asked) = try_release(&[turn.clone(), turn.clone(), turn].concat());
        assert!(result.is_err_and(|error| error.contains("cannot update Lease shop/billing")));
        assert_eq!(asked.len(), 6);
    }

    #[test]
    fn a_refusal_says_what_was_refused_and_what_comes_next() {
        let forbidden = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403, "message": "no update" });
        let (result, _) = try_release(&[(200, lease(DEAD, "41")), (403, forbidden)]);
        let error = result.unwrap_err();
        assert!(
            error
                .starts_with("cannot update Lease shop/billing to release it, though nobody works under it any more: "),
            "{error}"
        );
        assert!(error.contains("no update") && error.ends_with("; it runs out by itself"), "{error}");
    }
}
