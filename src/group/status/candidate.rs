//! Condition `CandidateOutdated`: whether the pods have another candidate than this operator adds now.

use super::input::Findings;
use crate::api::{InjectionStatus, Reason};
use crate::judge::candidate_update::{Offer, Update};
use crate::observed::lease::{LeaseView, term_of};
use crate::observed::pod::pod_of;
use crate::spec::group::Group;
use crate::spec::injection;

/// The advice where the operator would add something else.
const ADVICE: &str = "to replace the pods, which moves leadership once, set the group's annotation \
                      k8sensus.dev/update-candidate-requested-at to the present time";

/// Returns why condition `CandidateOutdated` is True, or `None` if the candidate is the operator's own. `recorded` is
/// what the pods have, and `leader` the Lease while there is a leader.
pub(crate) fn outdated(
    group: &Group,
    recorded: &InjectionStatus,
    findings: &Findings,
    leader: Option<&LeaseView>,
) -> Option<(Reason, String)> {
    let offer = findings.offer.as_ref().filter(|_| group.mode.has_candidate())?;
    let (reason, difference) = match difference(offer, recorded) {
        Some(difference) => difference,
        None => return other_version(group, recorded, offer, findings, leader?),
    };
    Some(match &findings.update {
        Update::Pending { why, .. } => (Reason::UpdatePending, format!("{difference}; {why}")),
        _ => (reason, format!("{difference}; {ADVICE}")),
    })
}

fn difference(offer: &Offer, recorded: &InjectionStatus) -> Option<(Reason, String)> {
    let Offer { image, revision, .. } = offer;
    if injection::is_newer(recorded) {
        let message = format!(
            "a newer operator made the pods, by injection revision {}, and this one knows revisions up to {revision}: they stay \
             as they are, and of changes of the spec only spec.replicas and those of the pod template reach them",
            recorded.revision
        );
        Some((Reason::InjectionNewer, message))
    } else if recorded.revision != *revision {
        let message = format!(
            "the pods have candidate image {} by injection revision {}, the operator adds {image} by revision {revision}",
            recorded.image, recorded.revision
        );
        Some((Reason::InjectionOlder, message))
    } else if recorded.image != *image {
        let message = format!("the pods have candidate image {}, the operator adds {image}", recorded.image);
        Some((Reason::ImageDiffers, message))
    } else {
        None
    }
}

/// Returns the difference where the pods have the operator's own candidate, but the leader's candidate reports another
/// version, or none as the first candidates did.
fn other_version(
    group: &Group,
    recorded: &InjectionStatus,
    offer: &Offer,
    findings: &Findings,
    leader: &LeaseView,
) -> Option<(Reason, String)> {
    let reported = leader.candidate_version.as_deref();
    // A holder that is not a pod of the group has no candidate of the operator.
    if reported == Some(offer.version.as_str()) || term_of(group.mode, leader, &findings.facts.pods).is_none() {
        return None;
    }
    let image = pod_of(&leader.holder, &findings.facts.pods)?.candidate_image.as_deref()?;
    let found = reported.map_or("no version".to_owned(), |version| format!("version {version}"));
    let advice = if image != recorded.image {
        format!("its pod has image {image} until the rollout replaces it")
    } else {
        format!(
            "image {image} is not of the operator's version: change the operator's candidate image (in the chart: \
             candidateImage), then request the update of the groups"
        )
    };
    let message = format!("the candidate of {} reports {found}, expected {}; {advice}", leader.holder, offer.version);
    Some((Reason::VersionDiffers, message))
}
