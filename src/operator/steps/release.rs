//! Releases a Lease whose leader the kubelet reports dead, so that a standby acquires it at once and does not wait for
//! its expiry. [`proof`](crate::group::observed::proof) defines what proves a death.
//!
//! Only in mode Exec, where the candidate is the container's first process. The Lease of a paused group is left to
//! expire.
//!
//! # Flow
//! 1. The candidate writes its incarnation into its container's termination message before it takes part in the
//!    election, and onto the Lease when it acquires it.
//! 2. The container ends. The kubelet reports that in the pod's status, with the termination message.
//! 3. The cache shows that the Lease's holder and incarnation are reported dead. The operator reads the live Lease and
//!    checks the same again.
//! 4. The operator writes the release by a PUT at the version that it read: an empty holder, the same
//!    `leaseTransitions`, and none of the annotations `k8sensus.dev/incarnation`, `ready-of` and `candidate-version`.
//!    After a conflict it returns to step 3; it tries five times at most.
//! 5. A standby observes the release and acquires the Lease with `leaseTransitions` + 1.
//! 6. The operator writes into the status that the term ended by the kubelet's report.
//!
//! # Interruptions
//! - The operator dies before step 4: the next one finds the same report. Without it, as when the pod is gone, the
//!   Lease expires.
//! - The operator dies between steps 4 and 6: the proof was only in its memory, so the history shows the change as the
//!   next operator observes it.
//! - The response to step 4 is lost: the Lease is released or as it was. The next reconcile tries again
//!   if the cache still shows the dead holder; otherwise the history shows a plain release.
//! - Another candidate acquires the Lease before step 4: the holder or the incarnation differs, or the PUT meets a
//!   conflict. The Lease is left alone.
//! - A late renewal of the dead leader arrives before step 4: a conflict, after which the Lease is released. One that
//!   arrives after step 4 is refused, since its version is old.

use kube::ResourceExt;
use kube::api::DynamicObject;
use tracing::info;

use crate::cache::{Cache, LeaseHolder};
use crate::campaign::{apply_record, snapshot_of};
use crate::election::{Record, Snapshot, WallTime};
use crate::group::Group;
use crate::group::judge::proof::{ProvenRelease, is_dead};
use crate::group::spec::group::GroupMode;
use crate::lease::{LeaseError, LeaseWriter};
use crate::protocol::lease::{CANDIDATE_VERSION, READY_OF};
use crate::runtime::clock::Clock;

/// The failed release of a Lease whose leader is dead, or that no candidate has to wait for.
#[derive(Debug, thiserror::Error)]
#[error("cannot release a lease under which no process works: {0}; it expires by itself")]
pub(crate) struct ReleaseError(#[from] LeaseError);

/// Releases the Lease of `group` if its holder is proven dead. Returns the last such release, if the Lease's present
/// term follows from it or the Lease is still free by it.
///
/// # Errors
/// [`ReleaseError`]. The Lease is as it was, or was released by a write whose response was lost.
pub(crate) async fn release_of_dead(
    leases: &LeaseWriter,
    group: &Group,
    cache: &Cache,
    clock: &dyn Clock,
) -> Result<Option<ProvenRelease>, ReleaseError> {
    // Only a death that the cache shows is worth a request.
    let Some(LeaseHolder { holder, incarnation, transitions, dead }) = cache.lease_holder(group) else {
        return Ok(None);
    };
    if group.mode == GroupMode::Exec && !group.paused && is_dead(&holder, incarnation.as_deref(), &holder, &dead) {
        let proven = release(leases, group, &holder, &dead, clock).await?;
        if proven.is_some() {
            cache.remember(&group.namespace, &group.name, |memory| memory.proven_release = proven);
        }
        return Ok(proven);
    }
    let proven = cache.remember(&group.namespace, &group.name, |memory| memory.proven_release).flatten();
    Ok(proven.filter(|release| release.leads_to(transitions)))
}

/// Releases the Lease. Returns `None` if its live holder is not one of the dead.
async fn release(
    leases: &LeaseWriter,
    group: &Group,
    holder: &str,
    dead: &[String],
    clock: &dyn Clock,
) -> Result<Option<ProvenRelease>, ReleaseError> {
    let released = release_if(leases, group, clock, |lease| is_of_dead(lease, holder, dead)).await?;
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

/// Releases the group's Lease by compare-and-swap if `may_release` returns `true` for the live Lease. Returns its
/// former state.
///
/// # Errors
/// [`ReleaseError`]. The Lease is as it was, or was released by a write whose response was lost.
pub(crate) async fn release_if(
    leases: &LeaseWriter,
    group: &Group,
    clock: &dyn Clock,
    may_release: impl Fn(&DynamicObject) -> bool,
) -> Result<Option<Snapshot>, ReleaseError> {
    let mut former = None;
    let released = |lease: &DynamicObject| {
        former = may_release(lease).then(|| snapshot_of(lease));
        let transitions = former.as_ref()?.record.transitions;
        let mut lease = lease.clone();
        apply_record(&mut lease, &Record::released(transitions, WallTime(clock.wall_micros())), None);
        // Statements of the dead candidate.
        lease.annotations_mut().remove(READY_OF);
        lease.annotations_mut().remove(CANDIDATE_VERSION);
        Some(lease)
    };
    let changed = leases.change(group, released).await?;
    Ok(former.filter(|_| changed.is_some_and(|changed| changed.is_written)))
}

/// Whether the Lease's holder is dead.
fn is_of_dead(lease: &DynamicObject, pod: &str, dead: &[String]) -> bool {
    let Snapshot { record, incarnation, .. } = snapshot_of(lease);
    is_dead(&record.holder, incarnation.as_deref(), pod, dead)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll};

    use futures::FutureExt;
    use futures::future::{Ready, ready};
    use http::{Method, Request, Response};
    use kube::Client;
    use kube::client::Body;
    use serde_json::{Value, json};
    use tower::{BoxError, Service};

    use super::*;
    use crate::runtime::clock::SystemClock;

    const DEAD: &str = "0c7e5a52/app/00000000c0ffee11";

    /// Code and body.
    type Answer = (u16, Value);
    /// Method and body.
    type Sent = (Method, Value);

    /// An API server that returns scripted answers and records the requests.
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<Script>>);

    #[derive(Default)]
    struct Script {
        answers: VecDeque<Answer>,
        sent: Vec<Sent>,
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
            let Script { answers, sent } = &mut *self.0.lock().unwrap();
            sent.push((head.method, serde_json::from_slice(&body).unwrap_or_default()));
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

    /// Returns the result of the release of dead billing-1's Lease, and each request with its body.
    fn try_release(answers: &[Answer]) -> (Result<Option<ProvenRelease>, String>, Vec<Sent>) {
        let server = Server::default();
        server.0.lock().unwrap().answers.extend(answers.iter().cloned());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(async {
            let leases = LeaseWriter::new(Client::new(server.clone(), "shop"));
            release(&leases, &group(), "billing-1", &[DEAD.to_owned()], &SystemClock).await
        });
        let sent = std::mem::take(&mut server.0.lock().unwrap().sent);
        (result.map_err(|error| error.to_string()), sent)
    }

    fn methods(sent: &[Sent]) -> Vec<&Method> {
        sent.iter().map(|(method, _)| method).collect()
    }

    #[test]
    fn release_changes_only_the_record_and_annotations_of_the_term() {
        let (result, sent) = try_release(&[(200, lease(DEAD, "41")), (200, lease("", "42"))]);
        assert_eq!(result, Ok(Some(ProvenRelease { transitions: 4 })));
        assert_eq!(methods(&sent), [Method::GET, Method::PUT]);
        let put = &sent[1].1;
        let spec = &put["spec"];
        assert_eq!((&put["metadata"]["resourceVersion"], &spec["holderIdentity"]), (&json!("41"), &json!("")));
        assert_eq!((&spec["leaseDurationSeconds"], &spec["leaseTransitions"]), (&json!(1), &json!(4)));
        assert_eq!((&spec["strategy"], &put["metadata"]["annotations"]), (&json!("kept"), &json!({})));
        assert!(spec["renewTime"].is_string() && spec["renewTime"] == spec["acquireTime"]);
    }

    #[test]
    fn late_renewal_of_the_dead_leader_is_released_at_its_new_version() {
        let answers = [(200, lease(DEAD, "41")), (409, conflict()), (200, lease(DEAD, "42")), (200, lease("", "43"))];
        let (result, sent) = try_release(&answers);
        assert_eq!(result, Ok(Some(ProvenRelease { transitions: 4 })));
        assert_eq!(sent[3].1["metadata"]["resourceVersion"], "42");
    }

    #[test]
    fn successor_that_the_cache_does_not_show_keeps_the_lease() {
        let successor = lease("0c7e5a52/app/00000000c0ffee22", "42");
        let (result, sent) = try_release(&[(200, successor.clone())]);
        assert_eq!((result, methods(&sent)), (Ok(None), vec![&Method::GET]));
        let (result, sent) = try_release(&[(200, lease(DEAD, "41")), (409, conflict()), (200, successor)]);
        assert_eq!((result, methods(&sent)), (Ok(None), vec![&Method::GET, &Method::PUT, &Method::GET]));
    }

    #[test]
    fn foreign_lease_and_lease_without_a_version_are_left_alone() {
        let mut foreign = lease(DEAD, "41");
        foreign["metadata"]["ownerReferences"][0]["uid"] = json!("77f0f3a4");
        let mut shared = lease(DEAD, "41");
        shared["metadata"]["ownerReferences"][0]["controller"] = json!(false);
        // A PUT without a version would overwrite any state.
        for lease in [foreign, shared, lease(DEAD, "")] {
            let (result, sent) = try_release(&[(200, lease)]);
            assert_eq!((result, methods(&sent)), (Ok(None), vec![&Method::GET]));
        }
    }

    #[test]
    fn release_fails_after_five_conflicts() {
        let turn = [(200, lease(DEAD, "41")), (409, conflict())];
        let (result, sent) = try_release(&std::array::from_fn::<_, 5, _>(|_| turn.clone()).concat());
        assert!(result.is_err_and(|error| error.contains("lease shop/billing was changed by other clients")));
        assert_eq!(sent.len(), 10);
    }

    #[test]
    fn error_names_the_request_and_what_follows() {
        let forbidden = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403, "message": "no update" });
        let (result, _) = try_release(&[(200, lease(DEAD, "41")), (403, forbidden)]);
        let error = result.unwrap_err();
        assert!(
            error
                .starts_with("cannot release a lease under which no process works: cannot update lease shop/billing: "),
            "{error}"
        );
        assert!(error.contains("no update") && error.ends_with("; it expires by itself"), "{error}");
    }
}
