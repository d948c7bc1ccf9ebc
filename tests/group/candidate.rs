//! The candidate of a group's pods, and the request for the operator's own.

use k8sensus_api::names::annotation::UPDATE_CANDIDATE_REQUESTED_AT;
use k8sensus_api::{ElectionGroup, ElectionGroupStatus, HistoryEntry, InjectionStatus};
use k8sensus_group::judge::candidate_update::{Offer, Question, Update, decide};
use k8sensus_group::observed::lease::LeaseView;
use k8sensus_group::observed::pod::PodView;
use k8sensus_group::spec::injection::REVISION;
use k8sensus_group::{Desired, Group};
use serde_json::json;

use super::status::{lease, pod};
use super::{CANDIDATE_IMAGE, MINIMAL, NATIVE, children, group, valid, with};

const OLDER_IMAGE: &str = "registry.example/k8sensus:0.0.9";

fn offer() -> Offer {
    Offer::new(CANDIDATE_IMAGE, "0.1.0")
}

/// A group whose pods have `image`, with that value of the annotation.
fn requested(spec: &str, image: &str, value: Option<&str>) -> ElectionGroup {
    let mut resource = with(spec, "{}");
    resource.metadata.annotations =
        value.map(|value| [(UPDATE_CANDIDATE_REQUESTED_AT.to_owned(), value.to_owned())].into());
    let injection = InjectionStatus { image: image.to_owned(), revision: REVISION, template_hash: None };
    resource.status = Some(ElectionGroupStatus {
        observed_generation: Some(1),
        injection: Some(injection),
        ..ElectionGroupStatus::default()
    });
    resource
}

fn decision(resource: &ElectionGroup, lease: Option<&LeaseView>, pods: &[PodView]) -> Update {
    let group = Group::check(resource).ok();
    decide(&Question { resource, group: group.as_ref(), lease, pods, offer: &offer() })
}

fn status_of(resource: &mut ElectionGroup) -> &mut ElectionGroupStatus {
    resource.status.as_mut().expect("a status")
}

#[test]
fn request_gives_the_pods_the_current_candidate_once() {
    let mut resource = requested(MINIMAL, OLDER_IMAGE, Some("7"));
    let replace = |moves_leader| Update::Replace { value: Some("7".to_owned()), moves_leader };
    assert_eq!(decision(&resource, None, &[]), replace(false));
    assert_eq!(decision(&resource, Some(&lease("")), &[]), replace(false));
    assert_eq!(decision(&resource, Some(&lease("billing-1")), &[pod(1)]), replace(true));
    status_of(&mut resource).last_handled_candidate_update_at = Some("7".to_owned());
    assert_eq!(decision(&resource, None, &[]), Update::None);
    assert_eq!(decision(&requested(MINIMAL, OLDER_IMAGE, None), None, &[]), Update::None);
    assert_eq!(decision(&requested(MINIMAL, OLDER_IMAGE, Some("")), None, &[]), Update::None);
}

#[test]
fn request_that_changes_nothing_is_acknowledged() {
    let done = Update::Done { value: "7".to_owned() };
    assert_eq!(decision(&requested(MINIMAL, CANDIDATE_IMAGE, Some("7")), None, &[]), done);
    assert_eq!(decision(&requested(NATIVE, OLDER_IMAGE, Some("7")), None, &[]), done, "there is no candidate");
    let mut created_with_it = requested(MINIMAL, OLDER_IMAGE, Some("7"));
    created_with_it.status = None;
    assert_eq!(decision(&created_with_it, None, &[]), done);
    created_with_it.status = Some(ElectionGroupStatus::default());
    assert_eq!(decision(&created_with_it, None, &[]), done);
}

#[test]
fn request_waits_while_the_group_is_paused_or_invalid() {
    let mut resource = requested(MINIMAL, OLDER_IMAGE, Some("7"));
    resource.spec.paused = true;
    assert!(matches!(decision(&resource, None, &[]), Update::Pending { for_others: false, .. }));
    resource.spec.paused = false;
    resource.spec.replicas = 101;
    assert!(matches!(decision(&resource, None, &[]), Update::Pending { for_others: false, .. }));
}

#[test]
fn stuck_candidate_is_replaced_without_a_request_before_the_first_leader() {
    let stuck = [PodView { candidate_stuck: true, ready: false, ..pod(1) }];
    let mut resource = requested(MINIMAL, OLDER_IMAGE, None);
    let replace = Update::Replace { value: None, moves_leader: false };
    assert_eq!(decision(&resource, Some(&lease("")), &stuck), replace);
    assert_eq!(decision(&resource, Some(&lease("")), &[pod(1)]), Update::None, "it starts");
    assert_eq!(decision(&resource, Some(&lease("billing-2")), &stuck), Update::None, "there is a leader");
    assert_eq!(decision(&requested(MINIMAL, CANDIDATE_IMAGE, None), Some(&lease("")), &stuck), Update::None);
    status_of(&mut resource).history = vec![HistoryEntry::default()];
    assert_eq!(decision(&resource, Some(&lease("")), &stuck), Update::None, "there was a leader");
}

#[test]
fn injection_recorded_for_a_request_is_what_the_pods_get() {
    let group = valid(&group(MINIMAL));
    let injection = offer().injection(&group);
    let desired = Desired::of(&group, Some(&injection), "registry.example/k8sensus:0.2.0");
    assert_eq!(desired.injection, Some(injection));
    assert_eq!(desired.deployment, children(&super::group(MINIMAL)).deployment);
}

#[test]
fn pods_of_a_newer_operator_stay_until_their_template_changes() {
    let recorded = children(&group(MINIMAL)).injection.expect("an injection");
    for revision in [REVISION + 1, i32::MAX] {
        let newer = InjectionStatus { revision, image: "registry.example/k8sensus:9".to_owned(), ..recorded.clone() };
        let kept = Desired::of(&valid(&group(MINIMAL)), Some(&newer), CANDIDATE_IMAGE);
        assert!(kept.keeps_pods);
        assert_eq!(kept.injection, Some(newer.clone()), "so that the newer operator finds its own record");
        // The Deployment that is created if there is none.
        assert_eq!(kept.deployment, children(&group(MINIMAL)).deployment);
        let changed = valid(&group(&MINIMAL.replace("1.4", "1.5")));
        let changed = Desired::of(&changed, Some(&newer), CANDIDATE_IMAGE);
        assert!(!changed.keeps_pods);
        assert_eq!(changed.injection.expect("an injection").image, CANDIDATE_IMAGE);
    }
    let native = Desired::of(&valid(&group(NATIVE)), Some(&InjectionStatus { revision: 9, ..recorded }), "");
    assert!(!native.keeps_pods && native.injection.is_none());
}

#[test]
fn status_shows_image_and_version_of_the_leaders_candidate() {
    let observed = super::status::but(|it| {
        it.facts.pods[0].candidate_image = Some(OLDER_IMAGE.to_owned());
        super::status::lease_of(it).candidate_version = Some("0.0.9".to_owned());
    });
    let status = super::status::status(&group(MINIMAL), &observed);
    let candidate = serde_json::to_value(status.candidate).expect("JSON");
    assert_eq!(candidate, json!({ "image": OLDER_IMAGE, "version": "0.0.9" }));
    assert_eq!(super::status::status(&group(MINIMAL), &super::status::healthy()).candidate, None);
}
