use std::collections::BTreeSet;

use jiff::ToSpan;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8sensus_api::{ConditionType, ElectionGroupStatus, HistoryEntry, InjectionStatus, RolloutStatus};
use k8sensus_group::Findings;
use k8sensus_group::judge::candidate_update::{Offer, Update};
use k8sensus_group::observed::lease::LeaseView;
use k8sensus_group::observed::pod::{Obstacle, PodView};
use k8sensus_group::observed::{DeploymentView, Outcome};
use k8sensus_group::status::{InjectionRecord, starting_wait};

use serde_json::Value;

use super::status::{
    RECREATED, but, changed, condition, conflicting, deployment_of, forbidden, healthy, lease, lease_of, pod, refused,
    status,
};
use super::{MINIMAL, with};

/// One condition, expected for one observation.
pub struct Case {
    /// Further fields of the minimal spec.
    pub more: &'static str,
    pub observed: Findings,
    /// The changes of leadership that the former status has.
    history: Vec<HistoryEntry>,
    kind: ConditionType,
    /// Status, reason and message; `None` if the condition is absent.
    expected: Option<(&'static str, &'static str, &'static str)>,
}

fn case(
    more: &'static str,
    observed: Findings,
    kind: ConditionType,
    expected: (&'static str, &'static str, &'static str),
) -> Case {
    Case { more, observed, history: Vec::new(), kind, expected: Some(expected) }
}

fn absent(more: &'static str, observed: Findings, kind: ConditionType) -> Case {
    Case { more, observed, history: Vec::new(), kind, expected: None }
}

impl Case {
    fn status(&self) -> ElectionGroupStatus {
        let mut group = with(MINIMAL, self.more);
        if !self.history.is_empty() {
            let history = self.history.clone();
            group.status = Some(ElectionGroupStatus { history, lease_transitions: Some(4), ..Default::default() });
        }
        status(&group, &self.observed)
    }
}

/// billing-1 leads since `seconds` before noon, after as many terms that ended for `reasons`, 20 s apart.
fn led_after(observed: &mut Findings, seconds: i64, reasons: &[&str]) -> Vec<HistoryEntry> {
    let entries = reasons.iter().enumerate().map(|(index, reason)| {
        let back = seconds + 20 * i64::try_from(index).expect("few");
        let time = MicroTime("2026-03-01T12:00:00Z".parse::<jiff::Timestamp>().expect("a time") - back.seconds());
        HistoryEntry {
            time: Some(time),
            holder_identity: format!("billing-{}", 1 + index % 2),
            reason: Some((*reason).to_owned()),
            leaderless_seconds: None,
            lease_transitions: Some(4 - i32::try_from(index).expect("few")),
        }
    });
    let entries: Vec<_> = entries.collect();
    lease_of(observed).acquire_time.clone_from(&entries[0].time);
    entries
}

pub fn cases() -> Vec<Case> {
    [ready(), elected(), failover(), flapping(), troubled(), caused(), reconciling(), stalled(), candidate_outdated()]
        .into_iter()
        .flatten()
        .collect()
}

fn ready() -> Vec<Case> {
    let kind = ConditionType::Ready;
    let suspended = ("False", "Suspended", "spec.suspend is true");
    vec![
        case("{}", healthy(), kind, ("True", "LeaderElected", "billing-1 leads")),
        case("{}", but(|it| it.facts.lease = None), kind, ("False", "NoLeader", "lease shop/billing does not exist")),
        case("replicas: 0", but(|it| it.facts.lease = None), kind, ("False", "NoLeader", "spec.replicas is 0")),
        case(
            "{}",
            but(|it| deployment_of(it).ready = 1),
            kind,
            ("False", "InsufficientReplicas", "1 of 2 pods are ready"),
        ),
        case(
            "{}",
            but(|it| it.facts.deployment = None),
            kind,
            ("False", "InsufficientReplicas", "0 of 2 pods are ready"),
        ),
        case("replicas: 1", but(|it| deployment_of(it).ready = 2), kind, ("True", "LeaderElected", "billing-1 leads")),
        case("suspend: true", healthy(), kind, suspended),
        case("suspend: true", but(|it| it.facts.lease = None), kind, suspended),
        case("replicas: 101", refused(), kind, ("False", "Invalid", "spec.replicas: must be from 0 to 100, found 101")),
        case("{}", conflicting(), kind, ("False", "Conflict", "Role shop/billing exists")),
        case("suspend: true", conflicting(), kind, ("False", "Conflict", "Role shop/billing exists")),
        case("{}", forbidden(), kind, ("True", "LeaderElected", "billing-1 leads")),
        case("paused: true", healthy(), kind, ("True", "LeaderElected", "billing-1 leads")),
    ]
}

fn elected() -> Vec<Case> {
    let kind = ConditionType::LeaderElected;
    let held = ("True", "LeaseHeld", "billing-1 holds lease shop/billing");
    vec![
        case("{}", healthy(), kind, held),
        case("suspend: true", healthy(), kind, held),
        case("replicas: 101", refused(), kind, held),
        case(
            "election: { leaseName: ledger }",
            healthy(),
            kind,
            ("True", "LeaseHeld", "billing-1 holds lease shop/ledger"),
        ),
        case(
            "{}",
            but(|it| lease_of(it).expired = true),
            kind,
            ("False", "LeaseExpired", "lease shop/billing expired: billing-1 stopped renewing it"),
        ),
        case(
            "{}",
            but(|it| it.facts.lease = Some(lease(RECREATED))),
            kind,
            (
                "False",
                "LeaseExpired",
                "lease shop/billing was recreated; the pods wait until its former holder has stopped",
            ),
        ),
        case(
            "{}",
            but(|it| it.facts.lease = Some(LeaseView { expired: true, ..lease("") })),
            kind,
            ("False", "LeaseReleased", "lease shop/billing is free; no pod has acquired it yet"),
        ),
        case(
            "{}",
            but(|it| it.facts.lease = None),
            kind,
            ("False", "NoCandidates", "lease shop/billing does not exist"),
        ),
        case(
            "replicas: 0",
            but(|it| it.facts.lease = Some(lease(""))),
            kind,
            ("False", "NoCandidates", "spec.replicas is 0"),
        ),
        case(
            "suspend: true",
            but(|it| it.facts.lease = Some(lease(""))),
            kind,
            ("False", "Suspended", "spec.suspend is true"),
        ),
    ]
}

fn failover() -> Vec<Case> {
    let kind = ConditionType::FailoverReady;
    let node = |node: Option<&str>| {
        let node = node.map(str::to_owned);
        but(|it| it.facts.pods[1].node = node)
    };
    let ready = |message| ("True", "StandbyReady", message);
    vec![
        case("{}", healthy(), kind, ready("1 standby is ready")),
        case("replicas: 3", but(|it| it.facts.pods.push(pod(3))), kind, ready("2 standbys are ready")),
        case("{}", node(None), kind, ready("1 standby is ready")),
        // Two unknown nodes are not the same node.
        case(
            "{}",
            but(|it| it.facts.pods.iter_mut().for_each(|pod| pod.node = None)),
            kind,
            ready("1 standby is ready"),
        ),
        case("replicas: 1", healthy(), kind, ("False", "SingleReplica", "spec.replicas is 1: there is no standby")),
        case("{}", but(|it| it.facts.pods[1].ready = false), kind, ("False", "NoReadyStandby", "no standby is ready")),
        case("{}", but(|it| it.facts.pods.clear()), kind, ("False", "NoReadyStandby", "no standby is ready")),
        case("{}", but(|it| lease_of(it).holder.push_str("_0fb1c3a4")), kind, ready("1 standby is ready")),
        case(
            "{}",
            node(Some("node-1")),
            kind,
            ("False", "StandbysOnSameNode", "all ready standbys are on the leader's node node-1"),
        ),
        case(
            "replicas: 3",
            but(|it| {
                it.facts.pods[1].node = Some("node-1".to_owned());
                it.facts.pods.push(pod(3));
            }),
            kind,
            ready("2 standbys are ready"),
        ),
        case(
            "replicas: 3",
            but(|it| {
                it.facts.pods[1].node = Some("node-1".to_owned());
                it.facts.pods.push(PodView { ready: false, ..pod(3) });
            }),
            kind,
            ("False", "StandbysOnSameNode", "all ready standbys are on the leader's node node-1"),
        ),
        // There is no leader: every ready pod may take over.
        case("{}", but(|it| lease_of(it).expired = true), kind, ready("2 standbys are ready")),
        // The leader is not among the pods, such as one of an older Deployment.
        case("{}", but(|it| it.facts.lease = Some(lease("billing-0"))), kind, ready("2 standbys are ready")),
    ]
}

/// What keeps a pod from running is reported.
fn troubled() -> Vec<Case> {
    let trouble: fn(&mut Findings) = |it| {
        it.facts.pods[1].ready = false;
        it.facts.pods[1].trouble = Some("container app: ImagePullBackOff: no such image".to_owned());
        deployment_of(it).ready = 1;
    };
    let free = |it: &mut Findings| {
        trouble(it);
        lease_of(it).holder = String::new();
    };
    let unready = "1 of 2 pods are ready; pod billing-2: container app: ImagePullBackOff: no such image";
    let no_leader = "lease shop/billing is free; no pod has acquired it yet; pod billing-2: container app: ImagePullBackOff: no such image";
    let no_standby = "no standby is ready; pod billing-2: container app: ImagePullBackOff: no such image";
    vec![
        case("{}", but(trouble), ConditionType::Ready, ("False", "InsufficientReplicas", unready)),
        case("{}", but(trouble), ConditionType::FailoverReady, ("False", "NoReadyStandby", no_standby)),
        case("{}", but(free), ConditionType::LeaderElected, ("False", "LeaseReleased", no_leader)),
        case("{}", but(free), ConditionType::Ready, ("False", "NoLeader", no_leader)),
        // A pod that is being deleted explains nothing.
        case(
            "{}",
            but(|it| {
                trouble(it);
                it.facts.pods[1].terminating = true;
            }),
            ConditionType::Ready,
            ("False", "InsufficientReplicas", "1 of 2 pods are ready"),
        ),
    ]
}

/// What keeps pods from being created is quoted, and what keeps a pod from being ready.
fn caused() -> Vec<Case> {
    let quota = "FailedCreate: pods \"billing-7\" is forbidden: exceeded quota: small";
    let uncreated: fn(&mut Findings) = |it| {
        deployment_of(it).ready = 1;
        deployment_of(it).replica_failure =
            Some("FailedCreate: pods \"billing-7\" is forbidden: exceeded quota: small".to_owned());
        it.facts.pods.pop();
    };
    let free = |it: &mut Findings| {
        uncreated(it);
        lease_of(it).holder = String::new();
        it.facts.pods[0].ready = false;
        it.facts.pods[0].trouble = Some("container app: InvalidImageName".to_owned());
    };
    let leaked = |text: String| -> &'static str { text.leak() };
    let both = format!("pods cannot be created: {quota}; pod billing-1: container app: InvalidImageName");
    let no_leader = leaked(format!("lease shop/billing is free; no pod has acquired it yet; {both}"));
    let fewer = leaked(format!("1 of 2 pods are ready; pods cannot be created: {quota}"));
    let no_standby = leaked(format!("no standby is ready; pods cannot be created: {quota}"));
    let unscheduled = |passing, created: &str| {
        let what = "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.".to_owned();
        let created = created.parse().ok();
        but(move |it| {
            deployment_of(it).ready = 1;
            it.facts.pods[1].ready = false;
            it.facts.pods[1].created = created;
            it.facts.pods[1].obstacle = Some(Obstacle { what, is_passing: passing });
        })
    };
    let quoted = "1 of 2 pods are ready; pod billing-2: Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.";
    let ready = ConditionType::Ready;
    let evicted = |change: fn(&mut Findings)| {
        but(|it| {
            deployment_of(it).ready = 1;
            it.facts.eviction = Some("pod billing-0: Evicted: The node was low on resource: memory.".to_owned());
            change(it);
        })
    };
    let few = |message| ("False", "InsufficientReplicas", message);
    vec![
        case("{}", but(uncreated), ready, few(fewer)),
        case("{}", but(uncreated), ConditionType::FailoverReady, ("False", "NoReadyStandby", no_standby)),
        case("{}", but(free), ConditionType::LeaderElected, ("False", "LeaseReleased", no_leader)),
        case("{}", but(free), ready, ("False", "NoLeader", no_leader)),
        case("{}", unscheduled(false, "2026-03-01T11:59:59Z"), ready, few(quoted)),
        case("{}", unscheduled(true, "2026-03-01T11:59:30Z"), ready, few(quoted)),
        case(
            "{}",
            evicted(|_| {}),
            ready,
            few("1 of 2 pods are ready; pod billing-0: Evicted: The node was low on resource: memory."),
        ),
        case(
            "{}",
            evicted(|it| it.facts.pods[1].trouble = Some("container app: InvalidImageName".to_owned())),
            ready,
            few("1 of 2 pods are ready; pod billing-2: container app: InvalidImageName"),
        ),
    ]
}

/// Leadership that moves from pod to pod.
fn flapping() -> Vec<Case> {
    let kind = ConditionType::FailoverReady;
    let after = |seconds, reasons: &[&str], change: fn(&mut Findings), expected| {
        let mut observed = but(change);
        let history = led_after(&mut observed, seconds, reasons);
        Case { history, ..case("{}", observed, kind, expected) }
    };
    let ready = ("True", "StandbyReady", "1 standby is ready");
    let flaps = |message| ("False", "LeaderFlapping", message);
    let crashed: fn(&mut Findings) = |it| {
        (it.facts.pods[1].restarts, it.facts.pods[1].trouble) = (7, Some("container app: CrashLoopBackOff".to_owned()));
    };
    let crashes = "3 leaders failed within 120 s; pod billing-2: container app: CrashLoopBackOff";
    let unready = |it: &mut Findings| it.judgement.unready = true;
    let row = "3 leaders in a row were not ready in time, and the current one is not ready";
    vec![
        after(0, &["KubeletReported", "HolderRestarted", "LeaseExpired"], crashed, flaps(crashes)),
        // The third is 121 s ago.
        after(81, &["KubeletReported", "HolderRestarted", "LeaseExpired"], |_| {}, ready),
        after(0, &["KubeletReported", "HolderRestarted", "Elected"], |_| {}, ready),
        // Requested, or part of every pod's end.
        after(0, &["Rollout", "SteppedDown", "Draining", "LeaseReleased"], |_| {}, ready),
        // The program ended by itself, and the pod is still there: those of billing-2 ended.
        after(
            0,
            &["LeaseReleased", "Elected", "LeaseReleased", "Elected", "LeaseReleased", "Elected"],
            crashed,
            flaps(crashes),
        ),
        after(300, &["Unhealthy", "Unhealthy", "Unhealthy"], unready, flaps(row)),
        after(300, &["Unhealthy", "Unhealthy", "Unhealthy"], |_| {}, ready),
        after(300, &["Unhealthy", "Unhealthy", "LeaseReleased"], unready, ready),
    ]
}

fn reconciling() -> Vec<Case> {
    let kind = ConditionType::Reconciling;
    let deployment = |replicas, updated, observed| {
        but(|it| {
            it.facts.deployment = Some(DeploymentView { replicas, ready: 2, updated, observed, ..Default::default() });
        })
    };
    let stuck = but(|it| {
        it.facts.deployment =
            Some(DeploymentView { deadline_exceeded: Some("stuck".to_owned()), ..Default::default() });
    });
    let rolling = |message| ("True", "RollingOut", message);
    let scaling = |message| ("True", "Scaling", message);
    vec![
        absent("{}", healthy(), kind),
        case("{}", deployment(3, 1, true), kind, rolling("1 of 2 pods are of the newest revision")),
        case("{}", deployment(2, 2, false), kind, rolling("2 of 2 pods are of the newest revision")),
        case("{}", deployment(2, 0, true), kind, rolling("0 of 2 pods are of the newest revision")),
        // The new pods exist, and an old pod that stays until they are Ready.
        case("{}", deployment(3, 2, true), kind, rolling("1 pod of a former revision exists")),
        case("replicas: 1", deployment(2, 1, true), kind, rolling("1 pod of a former revision exists")),
        case("{}", deployment(3, 3, true), kind, scaling("3 pods exist, 2 are wanted")),
        case("suspend: true", deployment(3, 2, true), kind, scaling("3 pods exist, 0 are wanted")),
        case("replicas: 5", healthy(), kind, scaling("2 pods exist, 5 are wanted")),
        case("{}", deployment(0, 0, true), kind, scaling("0 pods exist, 2 are wanted")),
        case("suspend: true", healthy(), kind, scaling("2 pods exist, 0 are wanted")),
        absent("suspend: true", deployment(0, 0, true), kind),
        absent("suspend: true", waiting(deployment(0, 0, true)), kind),
        absent("replicas: 0", waiting(deployment(0, 0, true)), kind),
        absent("replicas: 101", refused(), kind),
        absent("replicas: 5", conflicting(), kind),
        absent("replicas: 5", forbidden(), kind),
        absent("replicas: 5", but(|it| it.facts.deployment = None), kind),
        absent("{}", stuck, kind),
        case("{}", waiting(deployment(3, 1, true)), kind, rolling("1 of 2 pods are of the newest revision; it waits")),
        case("{}", waiting(deployment(3, 2, true)), kind, rolling("1 pod of a former revision exists; it waits")),
        case("{}", waiting(healthy()), kind, rolling("it waits")),
        absent("{}", failed(deployment(3, 1, true)), kind),
    ]
}

fn waiting(observed: Findings) -> Findings {
    changed(observed, |it| it.judgement.waiting = Some("it waits".to_owned()))
}

fn failed(observed: Findings) -> Findings {
    let rollout = RolloutStatus {
        proven_revision: Some("old".to_owned()),
        failed_revision: Some("new".to_owned()),
        message: Some("billing-3 led and its program ended".to_owned()),
    };
    changed(observed, |it| it.judgement.rollout = Some(rollout))
}

const OFFERED: &str = "registry.example/k8sensus:0.1.0";
const ADVICE: &str = "to replace the pods, which moves leadership once, set the group's annotation \
                      k8sensus.dev/update-candidate-requested-at to the present time";

/// A healthy group whose pods have `image` by `revision` and whose leader reports `version`. The operator adds 0.1.0 by
/// revision 4.
fn injected(image: &str, revision: i32, version: Option<&str>) -> Findings {
    but(|it| {
        it.injection = InjectionRecord::Set(InjectionStatus { image: image.to_owned(), revision, template_hash: None });
        it.offer = Some(Offer { image: OFFERED.to_owned(), revision: 4, version: "0.1.0".to_owned() });
        it.facts.pods[0].candidate_image = Some(image.to_owned());
        let lease = lease_of(it);
        lease.incarnation = Some("uid-1/app/7".to_owned());
        lease.candidate_version = version.map(str::to_owned);
    })
}

fn candidate_outdated() -> Vec<Case> {
    let kind = ConditionType::CandidateOutdated;
    let outdated = |more, observed, reason, message: String| {
        let message: &'static str = message.leak();
        case(more, observed, kind, ("True", reason, message))
    };
    let older = "registry.example/k8sensus:0.0.9";
    let image = format!("the pods have candidate image {older}, the operator adds {OFFERED}");
    let older_rules = format!(
        "the pods have candidate image {older} by injection revision 3, the operator adds {OFFERED} by revision 4"
    );
    let newer_rules = "a newer operator made the pods, by injection revision 5, and this one knows revisions up to 4: they \
                       stay as they are, and of changes of the spec only spec.replicas and those of the pod template reach \
                       them";
    let version =
        |found: &str, advice: &str| format!("the candidate of billing-1 reports {found}, expected 0.1.0; {advice}");
    let pinned = format!(
        "image {OFFERED} is not of the operator's version: change the operator's candidate image (in the chart: \
         candidateImage), then request the update of the groups"
    );
    let pending = |observed: Findings| Findings {
        update: Update::Pending { why: "it waits".to_owned(), for_others: true },
        ..observed
    };
    vec![
        absent("{}", healthy(), kind),
        absent("{}", injected(OFFERED, 4, Some("0.1.0")), kind),
        absent("candidate: { mode: Native }", injected(older, 3, None), kind),
        outdated("{}", injected(older, 4, Some("0.0.9")), "ImageDiffers", format!("{image}; {ADVICE}")),
        outdated("{}", injected(older, 3, Some("0.0.9")), "InjectionOlder", format!("{older_rules}; {ADVICE}")),
        outdated("{}", injected(OFFERED, 5, Some("0.1.0")), "InjectionNewer", format!("{newer_rules}; {ADVICE}")),
        outdated("{}", pending(injected(older, 4, None)), "UpdatePending", format!("{image}; it waits")),
        outdated("{}", injected(OFFERED, 4, Some("0.2.0")), "VersionDiffers", version("version 0.2.0", &pinned)),
        outdated("{}", injected(OFFERED, 4, None), "VersionDiffers", version("no version", &pinned)),
        outdated(
            "{}",
            changed(injected(OFFERED, 4, Some("0.0.9")), |it| {
                it.facts.pods = vec![PodView { candidate_image: Some(older.to_owned()), ..pod(1) }, pod(2)];
            }),
            "VersionDiffers",
            version("version 0.0.9", &format!("its pod has image {older} until the rollout replaces it")),
        ),
        // Another client holds the Lease.
        absent("{}", changed(injected(OFFERED, 4, None), |it| it.facts.lease = Some(lease("by-hand"))), kind),
        absent("{}", changed(injected(OFFERED, 4, None), |it| it.facts.lease = Some(lease(""))), kind),
    ]
}

fn stalled() -> Vec<Case> {
    let kind = ConditionType::Stalled;
    let message = "ReplicaSet billing-6c9f7d5b8 has timed out progressing.";
    let stuck = || but(|it| deployment_of(it).deadline_exceeded = Some(message.to_owned()));
    vec![
        absent("{}", healthy(), kind),
        case("replicas: 101", refused(), kind, ("True", "Invalid", "spec.replicas: must be from 0 to 100, found 101")),
        case("{}", conflicting(), kind, ("True", "Conflict", "Role shop/billing exists")),
        case("{}", forbidden(), kind, ("True", "Forbidden", "cannot create Role shop/billing")),
        case("{}", stuck(), kind, ("True", "ProgressDeadlineExceeded", message)),
        case(
            "{}",
            changed(stuck(), |it| {
                it.facts.pods = vec![PodView { trouble: Some("container app: Error".into()), ..pod(1) }];
            }),
            kind,
            (
                "True",
                "ProgressDeadlineExceeded",
                "ReplicaSet billing-6c9f7d5b8 has timed out progressing.; pod billing-1: container app: Error",
            ),
        ),
        case(
            "{}",
            failed(stuck()),
            kind,
            (
                "True",
                "RevisionFailed",
                "revision new of the pod template failed: billing-3 led and its program ended; change spec.template or \
                 spec.image, or undo the change",
            ),
        ),
        case("{}", failed(conflicting()), kind, ("True", "Conflict", "Role shop/billing exists")),
        case(
            "{}",
            changed(stuck(), |it| it.facts.outcome = Outcome::Conflict("Role shop/billing exists".to_owned())),
            kind,
            ("True", "Conflict", "Role shop/billing exists"),
        ),
    ]
}

/// Returns the status that kstatus, and with it Flux and `helm --wait`, computes for a custom resource, by its
/// documented rules: a generation that was not observed is in progress; Reconciling and Stalled are abnormal when True;
/// then Ready decides.
pub fn kstatus(group: &Value) -> &'static str {
    let status = &group["status"];
    if !status["observedGeneration"].is_null() && status["observedGeneration"] != group["metadata"]["generation"] {
        return "InProgress";
    }
    let is = |kind: &str, wanted: &str| {
        let conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().any(|condition| condition["type"] == kind && condition["status"] == wanted)
    };
    match () {
        () if is("Reconciling", "True") => "InProgress",
        () if is("Stalled", "True") => "Failed",
        () if is("Ready", "True") => "Current",
        () if is("Ready", "False") || is("Ready", "Unknown") => "InProgress",
        () => "Current",
    }
}

#[test]
fn kstatus_computes_the_intended_status() {
    let of = |more: &str, observed: &Findings| {
        let mut group = with(MINIMAL, more);
        group.status = Some(status(&group, observed));
        kstatus(&serde_json::to_value(&group).expect("JSON"))
    };
    let stuck = but(|it| deployment_of(it).deadline_exceeded = Some("stuck".to_owned()));
    assert_eq!(of("{}", &healthy()), "Current");
    assert_eq!(of("replicas: 1", &healthy()), "InProgress", "one pod too many");
    assert_eq!(of("{}", &but(|it| it.facts.lease = None)), "InProgress");
    assert_eq!(of("{}", &but(|it| deployment_of(it).updated = 1)), "InProgress");
    assert_eq!(of("{}", &but(|it| deployment_of(it).ready = 1)), "InProgress");
    for failed in [stuck, conflicting(), forbidden()] {
        assert_eq!(of("{}", &failed), "Failed", "{failed:?}");
        assert_eq!(of("replicas: 5", &failed), "Failed", "{failed:?}");
    }
    assert_eq!(of("replicas: 101", &refused()), "Failed");
    let mut unseen = with(MINIMAL, "{}");
    unseen.status = Some(status(&unseen, &healthy()));
    unseen.metadata.generation = Some(8);
    assert_eq!(kstatus(&serde_json::to_value(&unseen).expect("JSON")), "InProgress");
}

#[test]
fn abnormal_conditions_are_absent_or_true_and_never_both() {
    for case in cases() {
        let status = case.status();
        let abnormal: Vec<_> = [ConditionType::Reconciling, ConditionType::Stalled]
            .iter()
            .filter_map(|kind| condition(&status, *kind))
            .collect();
        assert!(abnormal.len() <= 1, "{abnormal:?}");
        assert!(abnormal.iter().all(|condition| condition.status == "True"), "{abnormal:?}");
    }
}

#[test]
fn passing_obstacles_are_not_reported_of_new_pods() {
    let noon: jiff::Timestamp = "2026-03-01T12:00:00Z".parse().expect("a time");
    let starting = |seconds: i64| {
        but(|it| {
            deployment_of(it).ready = 1;
            it.facts.pods[1].ready = false;
            it.facts.pods[1].created = Some(noon - seconds.seconds());
            it.facts.pods[1].obstacle =
                Some(Obstacle { what: "ContainersNotReady: [app]".to_owned(), is_passing: true });
        })
    };
    let message = |observed: &Findings| {
        let status = status(&with(MINIMAL, "{}"), observed);
        condition(&status, ConditionType::Ready).expect("Ready").message.clone()
    };
    assert_eq!(message(&starting(29)), "1 of 2 pods are ready");
    assert_eq!(message(&starting(30)), "1 of 2 pods are ready; pod billing-2: ContainersNotReady: [app]");
    let wait = |seconds| starting_wait(&starting(seconds).facts.pods, noon).map(|wait| wait.as_secs());
    assert_eq!((wait(0), wait(29), wait(30)), (Some(31), Some(2), None));
}

#[test]
fn every_condition_reports_what_was_observed() {
    for case in cases() {
        let (status, Case { more, observed, kind, expected, .. }) = (case.status(), case);
        let found = condition(&status, kind)
            .map(|condition| (condition.status.as_str(), condition.reason.as_str(), condition.message.as_str()));
        assert_eq!(found, expected, "{kind} with {more} of {observed:?}");
    }
}

#[test]
fn every_reason_is_reached_by_a_case() {
    let reached: BTreeSet<_> =
        cases().iter().filter_map(|case| case.expected.map(|(_, reason, _)| (case.kind, reason))).collect();
    let documented: BTreeSet<_> = ConditionType::ALL
        .into_iter()
        .flat_map(|kind| kind.reasons().iter().map(move |reason| (kind, reason.as_str())))
        .collect();
    assert_eq!(reached, documented);
}
