//! Judges the leader's program and the newest revision of the pod template. Both may lead to a step-down, the next
//! step.
//!
//! # Flow of a rollout
//! Modes Exec and Sidecar, by injection revision 3 or later; other groups have no trial.
//!
//! 1. The pod template changes. `apply` writes the Deployment, whose pods carry the revision in their label
//!    `k8sensus.dev/revision` and have the readiness gate `k8sensus.dev/proven`. The gate of new pods is closed, so the
//!    Deployment waits. `status.rollout.provenRevision` still names the former revision.
//! 2. While pods of another revision exist, or the Lease has the annotation already, the operator writes
//!    `k8sensus.dev/proven-revision` onto the Lease: candidates of other revisions hold back for 1 s.
//! 3. The containers of the first new pod are ready, and the status has the present term. The operator intends a
//!    step-down to that pod: [`step_down`](super::step_down) writes the request and `k8sensus.dev/trial` onto the Lease
//!    in one PUT.
//! 4. The leader stops its program and releases the Lease. The new pod acquires it: the trial.
//! 5. The program must stay ready for `minReadySeconds`, in mode Sidecar beyond that for as long as the kubelet takes
//!    to fail its readiness probe, and 1 s more. Then the operator writes the new `provenRevision` into the status.
//! 6. Once the status is stored, [`pods`](super::pods) opens the gates of the new revision, and the Deployment replaces
//!    the other pods. The next reconcile updates `proven-revision` on the Lease.
//! 7. A trial fails, for example, if a container of the pod ends, if the program is not ready for
//!    `unhealthyTimeoutSeconds` (600 s if that is 0; longer during its start-up), or if the candidate releases the
//!    Lease three times. If a ready pod of the proven revision exists, the operator then writes `failedRevision` into
//!    the status. Once that is stored, it intends a step-down back to the proven revision. The revision gets no second
//!    trial until the pod template changes, unless one of its pods leads and no pod of the proven revision is ready.
//!
//! # Interruptions
//! - The operator dies: what is decided is in the status, and what follows from it happens only after the status is
//!   stored. The next operator continues from there. It watches the program from zero, so that a trial takes longer,
//!   never shorter.
//! - The operator dies during a trial that ends before another one observes it: the record on the Lease outlives the
//!   trial. The restarts of the pod's containers count, and so does the trial itself: three at most.
//! - The new pod does not acquire the Lease: another candidate does after 1 s. The operator tries again after 30 s, or
//!   after 360 s if the new pod's last Lease expired, since its node may be lost. After three tries the revision has
//!   failed, if a ready pod of the proven revision exists.
//! - The new pod dies while it leads: the Lease expires, or is [released on proof](super::release), and the trial has
//!   failed if the kubelet reports that a container ended. An expiry alone proves nothing against the revision.

use std::time::Duration;

use jiff::Timestamp;
use tracing::warn;

use crate::api::{ElectionGroup, ElectionGroupStatus};
use crate::context::{Context, RETRY, remember};
use crate::group::Group;
use crate::group::judge::flapping::flapping_wait;
use crate::group::judge::rollout::{AnnotationChange, TargetRevision};
use crate::group::judge::{Judgement, Question, judge};
use crate::group::observed::program::Watch;
use crate::group::observed::{Facts, Outcome};
use crate::group::status::starting_wait;
use crate::name::qualified_name;
use crate::protocol::lease;

/// Observes the leader's program, and judges it and the newest revision.
pub(crate) fn judged(
    resource: &ElectionGroup,
    group: Option<&Group>,
    target: &TargetRevision,
    facts: &Facts,
    context: &Context,
) -> Judgement {
    let now = context.clock.since_boot();
    let watch = group.filter(|_| facts.outcome == Outcome::Applied).and_then(|group| {
        let observe =
            |former: Option<&Watch>| Watch::observe(former, group.mode, facts.lease.as_ref(), &facts.pods, now);
        remember(resource, context, |memory| {
            memory.watch = observe(memory.watch.as_ref());
            memory.watch.clone()
        })
        .flatten()
    });
    judge(&Question { group, status: resource.status.as_ref(), target, facts, watch: watch.as_ref(), now })
}

/// Writes the proven revision of the stored status onto the Lease, if `change` says so. Returns the delay before a
/// failed write is retried.
pub(crate) async fn annotate_proven_revision(
    resource: &ElectionGroup,
    group: Option<&Group>,
    change: &AnnotationChange,
    context: &Context,
) -> Option<Duration> {
    let wanted = match change {
        AnnotationChange::Keep => return None,
        AnnotationChange::Set(revision) => Some(revision.clone()),
        AnnotationChange::Remove => None,
    };
    let error = context.leases.annotate(group?, lease::PROVEN_REVISION, |_| wanted.clone()).await.err()?;
    warn!(group = qualified_name(resource), "{error}; the Lease does not show yet which revision is proven");
    Some(RETRY)
}

/// Returns the time until the next reconcile after `stored` became the status: zero if the rollout has to be decided
/// again.
pub(crate) fn next_reconcile(
    resource: &ElectionGroup,
    stored: &ElectionGroupStatus,
    facts: &Facts,
    context: &Context,
) -> Option<Duration> {
    let before = resource.status.as_ref();
    let needs_judgement = |before: &ElectionGroupStatus| {
        let leader_changed = before.history.first() != stored.history.first() || before.leaderless != stored.leaderless;
        stored.rollout.is_some() && (leader_changed || before.rollout != stored.rollout)
    };
    if before.is_some_and(needs_judgement) {
        return Some(Duration::ZERO);
    }
    let now = Timestamp::from_microsecond(context.clock.wall_micros()).ok()?;
    let flapping = flapping_wait(&stored.history, &facts.pods, now);
    [flapping, starting_wait(&facts.pods, now)].into_iter().flatten().min()
}
