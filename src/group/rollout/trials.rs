//! What has become of the trials of a revision, by the history and by what the Lease says of the last one.

use super::{Question, TRIES, is_of};
use crate::api::HistoryEntry;
use crate::api::names::ChangeReason;
use crate::group::status::PodView;
use crate::group::step_down::pod_of;
use crate::group::unhealthy::{has_failed, reason_of};

impl<'a> Question<'a> {
    /// Whose term ended though its pod of the wanted revision is there and is to stay, and how, in words.
    pub(super) fn ended_term(&self) -> Option<(&'a PodView, &'static str)> {
        let given_back = self.given_back();
        let seen = self.ended_terms().find_map(|(pod, reason)| {
            let how = match reason {
                ChangeReason::LeaseReleased if has_failed(pod) => "led and its program ended",
                ChangeReason::LeaseReleased if given_back >= TRIES => "led and gave leadership back again and again",
                // A program may do so for a good reason; or the kubelet is about to say that it ended.
                ChangeReason::LeaseReleased if !self.is_explained() => "led and gave leadership back",
                ChangeReason::KubeletReported => "led and its container ended",
                ChangeReason::HolderRestarted => "led and its container was restarted",
                ChangeReason::Unhealthy => "led and its program was not ready for too long",
                // A node that is gone does the same, and says nothing of the revision.
                ChangeReason::LeaseExpired if pod.trouble.is_some() => "led and did not renew the Lease in time",
                ChangeReason::NotObserved if pod.trouble.is_some() => "led and leads no more",
                _ => return None,
            };
            (!pod.terminating).then_some((pod, how))
        });
        seen.or_else(|| Some((self.missed().filter(|pod| has_failed(pod))?, "was to lead, and its program ended")))
    }

    /// How often pods of the wanted revision have released the Lease, as far as the status remembers.
    fn given_back(&self) -> usize {
        let history = self.status.map(|status| status.history.as_slice()).unwrap_or_default();
        let is_wanted = |holder: &str| pod_of(holder, self.pods).is_some_and(|pod| self.is_wanted(pod));
        let ended = history.windows(2).filter(|terms| is_wanted(&terms[1].holder_identity));
        ended.filter(|terms| reason_of(&terms[0]) == Some(ChangeReason::LeaseReleased)).count()
    }

    /// The terms of pods of the wanted revision that have ended, newest first, back to when leadership was handed to the first of
    /// them.
    pub(super) fn ended_terms(&self) -> impl Iterator<Item = (&'a PodView, ChangeReason)> + use<'a> {
        let question = *self;
        let history = self.status.map(|status| status.history.as_slice()).unwrap_or_default();
        let is_trial = move |index: usize| {
            let entry = history.get(index)?;
            let pod = pod_of(&entry.holder_identity, question.pods).filter(|pod| question.is_wanted(pod))?;
            Some((pod, reason_of(entry) == Some(ChangeReason::Rollout)))
        };
        let last = (0..history.len()).find(|index| is_trial(*index).is_some_and(|(_, handed_over)| handed_over));
        let terms = 0..last.map_or(history.len(), |last| last + 1);
        terms.filter_map(move |index| {
            let (pod, _) = is_trial(index)?;
            let reason = match index.checked_sub(1) {
                Some(next) => reason_of(&history[next]),
                None => question.status?.leaderless.as_ref()?.reason.as_deref().and_then(ChangeReason::parse),
            };
            Some((pod, reason?))
        })
    }

    /// Whether a pod of the wanted revision that is still there has led, or was to.
    pub(super) fn was_tried(&self) -> bool {
        self.ended_terms().next().is_some() || self.leader().is_some_and(|leader| self.forestalled(leader).is_some())
    }

    /// The pod of the wanted revision that was last to lead, if that term is over and `leader` leads in its place.
    pub(super) fn forestalled(&self, leader: &PodView) -> Option<&'a PodView> {
        let lease = self.lease()?;
        let asked = lease.asked.as_ref().filter(|asked| asked.reason() == ChangeReason::Rollout)?;
        let named = self.pods.iter().find(|pod| Some(&pod.name) == asked.to.as_ref())?;
        let is_over = asked.transitions()? < lease.transitions;
        (is_over && self.is_wanted(named) && !named.terminating && named.name != leader.name).then_some(named)
    }

    /// The pod that was last to lead, if leadership changed hands more than once before anybody looked: it may have led.
    fn missed(&self) -> Option<&'a PodView> {
        let (lease, status) = self.lease().zip(self.status)?;
        let next = lease.asked.as_ref()?.transitions()?.checked_add(1)?;
        let counted = next.saturating_add(status.lease_transitions_offset.unwrap_or_default());
        let is_seen = status.history.iter().any(|entry| entry.lease_transitions == Some(counted));
        self.forestalled(self.leader()?).filter(|_| next < lease.transitions && !is_seen)
    }

    /// How often in a row leadership was handed over for a rollout and came to none of the wanted revision.
    pub(super) fn tries(&self, proven: &str) -> usize {
        let history = self.status.map(|status| status.history.as_slice()).unwrap_or_default();
        // What was done before there was a pod of it was done for another one.
        let first = self.pods.iter().filter(|pod| self.is_wanted(pod)).filter_map(|pod| pod.created).min();
        let is_for_it =
            |entry: &HistoryEntry| entry.time.as_ref().zip(first).is_none_or(|(time, first)| time.0 > first);
        let is_try = |entry: &&HistoryEntry| reason_of(entry) == Some(ChangeReason::Rollout) && is_for_it(entry);
        let mut astray = 0_usize;
        for entry in history.iter().take_while(is_try) {
            match pod_of(&entry.holder_identity, self.pods) {
                Some(pod) if self.is_wanted(pod) => break,
                Some(pod) if is_of(pod, proven) => astray += 1,
                // A third revision was tried: what followed it was the way back.
                _ => return astray.saturating_sub(1),
            }
        }
        astray
    }
}
