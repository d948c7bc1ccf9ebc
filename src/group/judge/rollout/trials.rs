//! What has become of the trials of a revision, by the history and by what the Lease says of the last one.
//!
//! A trial counts whether or not an operator observed its term. The Lease records which pod was to lead at which
//! `leaseTransitions`: a Lease that has counted beyond that shows that the trial's term is over, and what the kubelet reports of
//! the pod shows whether its container ended.

use super::{Question, TRIES, is_of};
use crate::api::HistoryEntry;
use crate::api::names::ChangeReason;
use crate::group::judge::flapping::{has_failed, reason_of};
use crate::group::observed::pod::{PodView, pod_of};
use crate::group::observed::trial::Trial;

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
        seen.or_else(|| Some((self.ended_unobserved()?, "was to lead, and its program ended")))
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
        self.ended_terms().next().is_some()
            || self.leader().is_some_and(|leader| self.bypassed_successor(leader).is_some())
    }

    /// The pod of the wanted revision that was last to lead, if that term is over and `leader` leads in its place.
    pub(super) fn bypassed_successor(&self, leader: &PodView) -> Option<&'a PodView> {
        let (trial, named) = self.last_trial()?;
        let has_begun = trial.transitions <= self.lease()?.transitions;
        (has_begun && !named.terminating && named.name != leader.name).then_some(named)
    }

    /// The last trial of the wanted revision, and its pod, if that is still there.
    fn last_trial(&self) -> Option<(&'a Trial, &'a PodView)> {
        let trial = self.lease()?.trial.as_ref().filter(|trial| trial.revision == self.wanted)?;
        let pod = self.pods.iter().find(|pod| pod.name == trial.pod && self.is_wanted(pod))?;
        Some((trial, pod))
    }

    /// The trial that `pod` would start by leading after the present term.
    pub(super) fn trial_of(&self, pod: &PodView) -> Trial {
        Trial {
            revision: self.wanted.to_owned(),
            pod: pod.name.clone(),
            transitions: self.lease().map_or(0, |lease| lease.transitions).saturating_add(1),
            restarts: pod.restarts,
            unobserved: self.unobserved_trials(),
        }
    }

    /// How often the containers of `leader` had been restarted before its trial, if the term of that trial is over and it has
    /// acquired the Lease again: an operator that did not observe the first term did not see its end either.
    pub(super) fn restarts_before(&self, leader: &PodView) -> Option<i32> {
        let (trial, pod) = self.last_trial()?;
        (pod.name == leader.name && trial.transitions < self.lease()?.transitions).then_some(trial.restarts)
    }

    /// The last trial, and its pod, if the Lease has counted beyond its term and no operator observed that term.
    fn unobserved_trial(&self) -> Option<(&'a Trial, &'a PodView)> {
        let (lease, status) = self.lease().zip(self.status)?;
        let (trial, pod) = self.last_trial()?;
        let counted = trial.transitions.saturating_add(status.lease_transitions_offset.unwrap_or_default());
        let is_observed = status.history.iter().any(|entry| entry.lease_transitions == Some(counted));
        (trial.transitions < lease.transitions && !is_observed && !pod.terminating).then_some((trial, pod))
    }

    /// How many trials of the wanted revision were over before an operator observed them.
    pub(super) fn unobserved_trials(&self) -> usize {
        let Some((trial, _)) = self.last_trial() else { return 0 };
        trial.unobserved + usize::from(self.unobserved_trial().is_some())
    }

    /// The pod of the last trial, if that was not observed and the kubelet reports that a container ended since.
    fn ended_unobserved(&self) -> Option<&'a PodView> {
        let leader = self.leader()?;
        let (trial, pod) = self.unobserved_trial()?;
        let has_ended = pod.restarts > trial.restarts || pod.trouble.is_some();
        (has_ended && pod.name != leader.name).then_some(pod)
    }

    /// How often in a row leadership was handed over for a rollout and came to none of the wanted revision.
    pub(super) fn tries(&self, proven: &str) -> usize {
        let history = self.status.map(|status| status.history.as_slice()).unwrap_or_default();
        // What was done before there was a pod of it was done for another one.
        let first = self.pods.iter().filter(|pod| self.is_wanted(pod)).filter_map(|pod| pod.created).min();
        let is_for_it =
            |entry: &HistoryEntry| entry.time.as_ref().zip(first).is_none_or(|(time, first)| time.0 > first);
        let is_try = |entry: &&HistoryEntry| reason_of(entry) == Some(ChangeReason::Rollout) && is_for_it(entry);
        let mut failed_handovers = 0_usize;
        for entry in history.iter().take_while(is_try) {
            match pod_of(&entry.holder_identity, self.pods) {
                Some(pod) if self.is_wanted(pod) => break,
                Some(pod) if is_of(pod, proven) => failed_handovers += 1,
                // A third revision was tried: what followed it was the way back.
                _ => return failed_handovers.saturating_sub(1),
            }
        }
        failed_handovers
    }
}
