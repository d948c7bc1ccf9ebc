//! One group on one screen.

use jiff::Timestamp;

use super::history::changes;
use super::layout::{Page, Row, Tone, field, heading, paint, paragraph, span, table, time};
use crate::api::{Mode, RolloutStatus};
use crate::failure::one_line;
use crate::picture::{LeasePicture, Picture, PodPicture, PodState, Role, State, Validity};

/// The number of changes that are shown; `history` shows all.
const CHANGES: usize = 5;

/// Returns the screen of a group.
pub fn status(picture: &Picture, page: Page) -> String {
    let mut out = title(picture, page);
    for note in &picture.notes {
        out.push_str(&paragraph(page, "Note: ", &one_line(note), 2));
    }
    out.push('\n');
    out.push_str(&leader(picture, page));
    if let Some(lease) = &picture.lease {
        out.push_str(&field(page, "Lease", &lease_text(lease, picture.observed_at)));
    }
    let updated = picture.updated_replicas;
    let pods = format!("{} of {} ready, {updated} of the newest revision", picture.ready_replicas, picture.replicas);
    out.push_str(&field(page, "Pods", &pods));
    if let Some(candidate) = &picture.candidate {
        let version = candidate.version.as_deref().unwrap_or("of an unknown version");
        let image = candidate.image.as_deref().unwrap_or("unknown");
        out.push_str(&field(page, "Candidate", &format!("{version}, from image {image}")));
    }
    if picture.paused {
        out.push_str(&field(page, "Paused", "spec.paused is true: the operator changes nothing but the status"));
    }
    if let Some(progress) = &picture.progress {
        out.push_str(&field(page, "Under way", progress));
    }
    if let Some(rollout) = &picture.rollout {
        out.push_str(&field(page, "Rollout", &rollout_text(rollout)));
    }
    for pending in &picture.pending {
        let why = pending.why.as_deref().unwrap_or("the operator has not handled it yet");
        let text = format!("{} requested at {}: {}", pending.request, one_line(&pending.value), one_line(why));
        out.push_str(&field(page, "Pending", &text));
    }
    if !picture.pods.is_empty() {
        out.push('\n');
        out.push_str(&pods_table(picture, page));
    }
    if !picture.attention.is_empty() {
        out.push_str(&heading(page, "Needs action"));
    }
    for item in &picture.attention {
        let text = format!("({}): {}", item.reason, one_line(&item.message));
        out.push_str(&paragraph(page, &format!("  {} ", item.condition), &text, 4));
        if let Some(advice) = &item.advice {
            out.push_str(&paragraph(page, "    -> ", advice, 7));
        }
    }
    if !picture.history.is_empty() {
        out.push_str(&heading(page, "Last changes"));
        let last = &picture.history[..picture.history.len().min(CHANGES)];
        out.push_str(&changes(last, page, picture.observed_at));
    }
    out
}

fn title(picture: &Picture, page: Page) -> String {
    let mode = match picture.mode {
        Mode::Exec => "mode Exec",
        Mode::Sidecar => "mode Sidecar",
        Mode::Native => "mode Native",
        Mode::Unknown => "a mode that this plugin does not know",
    };
    let state = picture.state.as_str();
    let text = format!("{}/{} ({mode}): {state}, {}", picture.namespace, picture.name, meaning(picture));
    paragraph(page, "", &text, 2).replacen(state, &paint(page, tone(picture.state), state), 1)
}

fn meaning(picture: &Picture) -> &'static str {
    match picture.state {
        State::NotReconciled => "no operator has reconciled it yet",
        State::Stalled if picture.leader.is_some() => "it has a leader, but needs your action",
        State::Stalled => "it has no leader, and needs your action",
        State::Suspended => "no pod is to lead",
        State::Leaderless => "no pod leads",
        State::Changing => "a pod leads, and a change is under way",
        State::NoFailover => "a pod leads, but its failover is not ready",
        State::Led if picture.replicas < 2 => "the only pod leads",
        State::Led => "a pod leads, and a standby could take over",
    }
}

pub(super) fn tone(state: State) -> Tone {
    match state {
        State::Led => Tone::Good,
        State::Changing | State::NoFailover | State::NotReconciled => Tone::Warning,
        State::Stalled | State::Leaderless => Tone::Bad,
        State::Suspended => Tone::Off,
    }
}

fn leader(picture: &Picture, page: Page) -> String {
    let Some(leader) = &picture.leader else {
        let why = picture.leaderless.as_ref().map(|leaderless| {
            let since = leaderless.since.as_ref().map(|since| age(since.0, picture.observed_at));
            let since = since.map(|since| format!(" for {since}")).unwrap_or_default();
            let reason = leaderless.reason.as_deref();
            format!("none{since}{}", reason.map(|reason| format!(" ({reason})")).unwrap_or_default())
        });
        return field(page, "Leader", &why.unwrap_or_else(|| "none".to_owned()));
    };
    let node = leader.node.as_ref().map(|node| format!(" on node {node}")).unwrap_or_default();
    let mut out = field(page, "Leader", &format!("{}{node}", one_line(&leader.holder_identity)));
    let since = leader.since.map(|since| format!("{} ({})", time(since), age(since, picture.observed_at)));
    let transitions = leader.transitions.map(|number| format!("leaseTransitions {number}"));
    let facts: Vec<String> = since.into_iter().chain(transitions).collect();
    out.push_str(&field(page, "  since", &facts.join(", ")));
    out
}

/// Returns a sentence about the Lease. Its validity compares the clocks of two machines.
fn lease_text(lease: &LeasePicture, now: Timestamp) -> String {
    let name = &lease.name;
    let duration = lease.duration.unwrap_or_default();
    let renewed = match lease.renew_time.map(|renewed| crate::picture::seconds_between(renewed, now)) {
        Some(ago @ 0.0..) => format!("renewed {ago:.1} s ago"),
        Some(ahead) => format!("renewed {:.1} s in the future: the clocks differ", -ahead),
        None => "without a time of renewal".to_owned(),
    };
    match lease.validity {
        Validity::Free => format!("{name} is free: no pod holds it"),
        Validity::Recreated => format!("{name} was recreated: no pod may hold it until a former leader has stopped"),
        Validity::Unknown => format!("{name}, held by {}, {renewed}", one_line(&lease.holder)),
        Validity::Valid { remaining_seconds } => format!(
            "{name}, {renewed}, valid for another {remaining_seconds:.1} s of {duration} s (an estimate by this \
             machine's clock)"
        ),
        Validity::Expired { for_seconds } => format!(
            "{name} expired {} ago: {} stopped renewing it (an estimate by this machine's clock)",
            span(for_seconds),
            one_line(&lease.holder)
        ),
    }
}

fn rollout_text(rollout: &RolloutStatus) -> String {
    let proven = rollout.proven_revision.as_ref().map(|revision| format!("revision {revision} is proven"));
    let failed = rollout.failed_revision.as_ref().map(|revision| {
        let why = rollout.message.as_deref().unwrap_or("it did not lead well");
        format!("revision {revision} failed: {}", one_line(why))
    });
    proven.into_iter().chain(failed).collect::<Vec<_>>().join("; ")
}

fn pods_table(picture: &Picture, page: Page) -> String {
    let mut headers = vec!["ROLE", "POD", "STATE", "NODE", "RESTARTS", "AGE"];
    if page.wide {
        headers.extend(["IP", "REVISION"]);
    }
    let rows: Vec<Row> = picture.pods.iter().map(|pod| pod_row(pod, page)).collect();
    table(page, &headers, &rows)
}

fn pod_row(pod: &PodPicture, page: Page) -> Row {
    let role = match pod.role {
        Role::Leader => "Leader",
        Role::Standby => "Standby",
    };
    let state = match pod.state {
        PodState::Ready => "Ready",
        PodState::NotReady => "NotReady",
        PodState::Crashed => "Crashed",
        PodState::Leaving => "Leaving",
    };
    // As in the picture of the original program: green leads, blue stands by, red has crashed, grey leaves.
    let (word, tone) = match (pod.state, pod.role) {
        (PodState::Ready, Role::Leader) => (role, Tone::Good),
        (PodState::Ready, Role::Standby) => (role, Tone::Calm),
        (PodState::NotReady, _) => (state, Tone::Warning),
        (PodState::Crashed, _) => (state, Tone::Bad),
        (PodState::Leaving, _) => (state, Tone::Off),
    };
    let why = pod.why.as_ref().map(|why| format!(" ({})", one_line(why))).unwrap_or_default();
    let text = |part: &Option<String>| part.clone().unwrap_or_else(|| "-".to_owned());
    let mut cells = vec![role.to_owned(), pod.name.clone(), format!("{state}{why}"), text(&pod.node)];
    cells.extend([pod.restarts.to_string(), span(pod.age_seconds)]);
    if page.wide {
        cells.extend([text(&pod.ip), text(&pod.revision)]);
    }
    Row { cells, tone: Some((word.to_owned(), tone)) }
}

fn age(since: Timestamp, now: Timestamp) -> String {
    span(crate::picture::seconds_between(since, now))
}
