//! Looks at the leader's program and at how far the newest revision has got, before the step-down that may come of it.

use std::time::Duration;

use jiff::Timestamp;
use tracing::warn;

use crate::api::{ElectionGroup, ElectionGroupStatus, RolloutStatus};
use crate::group::judge::flapping::flapping_wait;
use crate::group::judge::rollout;
use crate::group::judge::rollout::{AnnotationChange, preferred, proven_in};
use crate::group::judge::successor::StepDownIntent;
use crate::group::judge::unhealthy;
use crate::group::observed::Outcome;
use crate::group::observed::program::Watch;
use crate::group::status::starting_wait;
use crate::group::{Desired, Group, Observed};
use crate::operator::context::{Context, RETRY, remember};
use crate::operator::name::qualified_name;
use crate::protocol::lease;

/// The revision of the pod template that is to be brought in.
pub(in crate::operator) enum TargetRevision {
    /// The children are left alone: whatever it was goes on.
    Unknown,
    /// Pods of this group are not tried out.
    None,
    /// By its name.
    Revision(String),
}

impl TargetRevision {
    pub(in crate::operator) fn of(desired: &Desired) -> Self {
        if desired.keeps_pods {
            return Self::Unknown;
        }
        rollout::wanted(desired).map_or(Self::None, |revision| Self::Revision(revision.to_owned()))
    }
}

/// What is to be done for the newest revision and about the leader.
#[derive(Default)]
pub(in crate::operator) struct LeaderJudgement {
    /// The leader is to step down.
    pub(in crate::operator) intent: Option<StepDownIntent>,
    /// When the next look is due.
    pub(in crate::operator) wait: Option<Duration>,
}

/// Writes into `observed` what is to be told, and lets the Lease say which revision is proven.
pub(in crate::operator) async fn judge(
    resource: &ElectionGroup,
    group: Option<&Group>,
    target: &TargetRevision,
    observed: &mut Observed,
    context: &Context,
) -> LeaderJudgement {
    let Some(group) = group.filter(|_| observed.outcome == Outcome::Applied) else { return LeaderJudgement::default() };
    let now = context.clock.since_boot();
    let watch = remember(resource, context, |memory| {
        let lease = observed.lease.as_ref();
        memory.watch = Watch::observe(memory.watch.as_ref(), group.mode, lease, &observed.pods, now);
        memory.watch.clone()
    });
    let watch = watch.flatten();
    observed.unready = watch.as_ref().is_some_and(|watch| watch.ready == Some(false));
    let mut judged = LeaderJudgement::default();
    match target {
        TargetRevision::Unknown => {}
        TargetRevision::None => observed.rollout = None,
        TargetRevision::Revision(wanted) => {
            let question = rollout::Question {
                group,
                wanted,
                status: resource.status.as_ref(),
                lease: observed.lease.as_ref(),
                pods: &observed.pods,
                watch: watch.as_ref(),
                now,
            };
            let rollout::Decision { status, intent, waiting, wait } = rollout::decide(&question);
            judged = LeaderJudgement { intent, wait };
            (observed.rollout, observed.waiting) = (Some(status), waiting);
        }
    }
    let history = resource.status.as_ref().map(|status| status.history.as_slice()).unwrap_or_default();
    let unhealthy = unhealthy::decide(group, observed.lease.as_ref(), &observed.pods, history, watch.as_ref(), now);
    // Of a revision that has just failed the way back is decided once the status says so.
    let failed = |rollout: Option<&RolloutStatus>| rollout.and_then(|rollout| rollout.failed_revision.clone());
    let before = failed(resource.status.as_ref().and_then(|status| status.rollout.as_ref()));
    let has_just_failed = failed(observed.rollout.as_ref()).is_some_and(|failed| before.as_ref() != Some(&failed));
    judged.intent = judged.intent.or(unhealthy.intent.filter(|_| !has_just_failed));
    let retry = if group.paused { None } else { prefer(resource, group, observed, context).await };
    judged.wait = [judged.wait, unhealthy.wait, retry].into_iter().flatten().min();
    judged
}

/// Candidates go by what the status has said already.
async fn prefer(resource: &ElectionGroup, group: &Group, observed: &Observed, context: &Context) -> Option<Duration> {
    let proven = proven_in(resource.status.as_ref()?);
    let wanted = match preferred(observed.lease.as_ref()?, &observed.pods, proven) {
        AnnotationChange::Keep => return None,
        AnnotationChange::Set(revision) => Some(revision.to_owned()),
        AnnotationChange::Remove => None,
    };
    let wanted = |_: &_| wanted.clone();
    let error = context.step_downs.annotate(group, lease::PROVEN_REVISION, wanted).await.err()?;
    warn!(group = qualified_name(resource), "{error}; the candidates are not told which revision is proven");
    Some(RETRY)
}

/// When the next look is due after `stored` became the status: at once if it is news to what was decided before it.
pub(in crate::operator) fn next_look(
    resource: &ElectionGroup,
    stored: &ElectionGroupStatus,
    observed: &Observed,
    context: &Context,
) -> Option<Duration> {
    let before = resource.status.as_ref();
    let is_news = |before: &ElectionGroupStatus| {
        let led = before.history.first() != stored.history.first() || before.leaderless != stored.leaderless;
        stored.rollout.is_some() && (led || before.rollout != stored.rollout)
    };
    if before.is_some_and(is_news) {
        return Some(Duration::ZERO);
    }
    let now = Timestamp::from_microsecond(context.clock.wall_micros()).ok()?;
    let flapping = flapping_wait(&stored.history, &observed.pods, now);
    [flapping, starting_wait(&observed.pods, now)].into_iter().flatten().min()
}
