//! The outcomes of the trials of a revision, derived from the history and from the last trial on the Lease.
//!
//! A trial counts whether or not an operator observed its term. The Lease records which pod was asked to lead, and at
//! which `leaseTransitions`. If `leaseTransitions` is higher by now, the trial's term is over, and the kubelet's report
//! about the pod shows whether its container ended.

use super::{Question, TRIES, is_of};
use crate::api::HistoryEntry;
use crate::api::names::ChangeReason;
use crate::judge::flapping::{has_failed, reason_of};
use crate::observed::pod::{PodView, pod_of};
use crate::observed::trial::Trial;

impl<'a> Question<'a> {
    /// Returns a pod of the wanted revision whose term ended although the pod is not being deleted, and how the term
    /// ended.
    pub(super) fn ended_term(&self) -> Option<(&'a PodView, &'static str)> {
        let releases = self.releases();
        let observed = self.ended_terms().find_map(|(pod, reason)| {
            let how = match reason {
                ChangeReason::LeaseReleased if has_failed(pod) => "led and its program ended",
                ChangeReason::LeaseReleased if releases >= TRIES => "led and repeatedly released leadership",
                // A program may do so for a good reason, or the kubelet has not reported its end yet.
                ChangeReason::LeaseReleased if !self.is_explained() => "led and released leadership",
                ChangeReason::KubeletReported => "led and its container ended",
                ChangeReason::HolderRestarted => "led and its container was restarted",
                ChangeReason::Unhealthy => "led and its program was not ready for too long",
                // The Lease also expires when a node is lost, which is no failure of the revision.
                ChangeReason::LeaseExpired if pod.trouble.is_some() => "led and did not renew the Lease in time",
                ChangeReason::NotObserved if pod.trouble.is_some() => "led and stopped leading",
                _ => return None,
            };
            (!pod.terminating).then_some((pod, how))
        });
        observed.or_else(|| Some((self.ended_unobserved()?, "was asked to lead, and its program ended")))
    }

    /// Returns how often pods of the wanted revision have released the Lease, according to the history.
    fn releases(&self) -> usize {
        let history = self.status.map(|status| status.history.as_slice()).unwrap_or_default();
        let is_wanted = |holder: &str| pod_of(holder, self.pods).is_some_and(|pod| self.is_wanted(pod));
        let ended = history.windows(2).filter(|terms| is_wanted(&terms[1].holder_identity));
        ended.filter(|terms| reason_of(&terms[0]) == Some(ChangeReason::LeaseReleased)).count()
    }

    /// Returns the ended terms of pods of the wanted revision, newest first, back to the handover that started the last
    /// trial.
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

    /// Whether a pod of the wanted revision that still exists has led, or was asked to.
    pub(super) fn was_tried(&self) -> bool {
        self.ended_terms().next().is_some()
            || self.leader().is_some_and(|leader| self.bypassed_successor(leader).is_some())
    }

    /// Returns the pod of the last trial if another pod, `leader`, leads in the term that was meant for it or in a
    /// later one.
    pub(super) fn bypassed_successor(&self, leader: &PodView) -> Option<&'a PodView> {
        let (trial, named) = self.last_trial()?;
        let has_started = trial.transitions <= self.lease()?.transitions;
        (has_started && !named.terminating && named.name != leader.name).then_some(named)
    }

    /// Returns the last trial of the wanted revision and its pod, if the pod still exists.
    fn last_trial(&self) -> Option<(&'a Trial, &'a PodView)> {
        let trial = self.lease()?.trial.as_ref().filter(|trial| trial.revision == self.wanted)?;
        let pod = self.pods.iter().find(|pod| pod.name == trial.pod && self.is_wanted(pod))?;
        Some((trial, pod))
    }

    /// Returns the trial that starts when `pod` leads after the current term.
    pub(super) fn trial_of(&self, pod: &PodView) -> Trial {
        Trial {
            revision: self.wanted.to_owned(),
            pod: pod.name.clone(),
            transitions: self.lease().map_or(0, |lease| lease.transitions).saturating_add(1),
            restarts: pod.restarts,
            unobserved: self.unobserved_trials(),
        }
    }

    /// Returns how often the containers of `leader` had been restarted before its trial, if the term of that trial is
    /// over and `leader` has acquired the Lease again: an operator that did not observe the first term did not observe
    /// its end either.
    pub(super) fn restarts_before(&self, leader: &PodView) -> Option<i32> {
        let (trial, pod) = self.last_trial()?;
        (pod.name == leader.name && trial.transitions < self.lease()?.transitions).then_some(trial.restarts)
    }

    /// Returns the last trial and its pod, if its term is over and no operator observed that term.
    fn unobserved_trial(&self) -> Option<(&'a Trial, &'a PodView)> {
        let (lease, status) = self.lease().zip(self.status)?;
        let (trial, pod) = self.last_trial()?;
        let counted = trial.transitions.saturating_add(status.lease_transitions_offset.unwrap_or_default());
        let is_observed = status.history.iter().any(|entry| entry.lease_transitions == Some(counted));
        (trial.transitions < lease.transitions && !is_observed && !pod.terminating).then_some((trial, pod))
    }

    /// Returns how many trials of the wanted revision were over before an operator observed them.
    pub(super) fn unobserved_trials(&self) -> usize {
        let Some((trial, _)) = self.last_trial() else { return 0 };
        trial.unobserved + usize::from(self.unobserved_trial().is_some())
    }

    /// Returns the pod of the last trial, if that trial was not observed and the kubelet reports that a container has
    /// ended since.
    fn ended_unobserved(&self) -> Option<&'a PodView> {
        let leader = self.leader()?;
        let (trial, pod) = self.unobserved_trial()?;
        let has_ended = pod.restarts > trial.restarts || pod.trouble.is_some();
        (has_ended && pod.name != leader.name).then_some(pod)
    }

    /// Returns how many handovers for a rollout in a row brought no pod of the wanted revision to leadership.
    pub(super) fn tries(&self, proven: &str) -> usize {
        let history = self.status.map(|status| status.history.as_slice()).unwrap_or_default();
        // Handovers before the first pod of the revision existed were made for another revision.
        let first = self.pods.iter().filter(|pod| self.is_wanted(pod)).filter_map(|pod| pod.created).min();
        let is_for_it =
            |entry: &HistoryEntry| entry.time.as_ref().zip(first).is_none_or(|(time, first)| time.0 > first);
        let is_try = |entry: &&HistoryEntry| reason_of(entry) == Some(ChangeReason::Rollout) && is_for_it(entry);
        let mut failed_handovers = 0_usize;
        for entry in history.iter().take_while(is_try) {
            match pod_of(&entry.holder_identity, self.pods) {
                Some(pod) if self.is_wanted(pod) => break,
                Some(pod) if is_of(pod, proven) => failed_handovers += 1,
                // A third revision was tried: the entry after it is the handover back.
                _ => return failed_handovers.saturating_sub(1),
            }
        }
        failed_handovers
    }
}
