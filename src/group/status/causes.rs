//! Why pods are missing or not ready, as quoted in conditions.

use std::time::Duration;

use jiff::Timestamp;

use crate::observed::Facts;
use crate::observed::pod::{Obstacle, PodView};

/// The age from which a pod that has not started yet is reported.
const STARTING: Duration = Duration::from_secs(30);

/// Returns `message` followed by what keeps pods from being created, and by what keeps one from being scheduled,
/// started or ready.
pub(super) fn with_causes(mut message: String, facts: &Facts, now: Timestamp) -> String {
    let failure = facts.deployment.as_ref().and_then(|deployment| deployment.replica_failure.as_ref());
    let failure = failure.map(|why| format!("pods cannot be created: {why}"));
    for cause in [failure, cause_of(facts, now)].into_iter().flatten() {
        message.push_str("; ");
        message.push_str(&cause);
    }
    message
}

/// Returns how long it takes until a pod that has not started yet is reported.
pub fn starting_wait(pods: &[PodView], now: Timestamp) -> Option<Duration> {
    let waits = pods.iter().filter(|pod| !pod.ready && !pod.terminating).filter_map(|pod| {
        pod.obstacle.as_ref().filter(|obstacle| obstacle.is_passing)?;
        STARTING.checked_sub(age(pod, now)).filter(|wait| !wait.is_zero())
    });
    // Conditions have a resolution of one second.
    waits.min().map(|wait| wait + Duration::from_secs(1))
}

/// Returns the trouble of the first pod by name that has one. Lasting trouble comes before passing trouble, and that of
/// other pods before that of pods that are being deleted.
fn cause_of(facts: &Facts, now: Timestamp) -> Option<String> {
    let mut pods: Vec<&PodView> = facts.pods.iter().collect();
    pods.sort_by_key(|pod| &pod.name);
    let stays = |pod: &&&PodView| !pod.terminating;
    let trouble = || pods.iter().filter(stays).find_map(|pod| Some(of(pod, pod.trouble.as_ref()?)));
    let lasting = || pods.iter().filter(stays).find_map(|pod| Some(of(pod, &obstacle(pod, false)?.what)));
    let passing = || {
        let late = pods.iter().filter(stays).filter(|pod| !pod.ready && age(pod, now) >= STARTING);
        late.into_iter().find_map(|pod| Some(of(pod, &obstacle(pod, true)?.what)))
    };
    let terminating =
        || pods.iter().filter(|pod| pod.terminating).find_map(|pod| Some(of(pod, &obstacle(pod, false)?.what)));
    trouble().or_else(lasting).or_else(passing).or_else(terminating).or_else(|| facts.eviction.clone())
}

fn of(pod: &PodView, what: &str) -> String {
    format!("pod {}: {what}", pod.name)
}

fn obstacle(pod: &PodView, is_passing: bool) -> Option<&Obstacle> {
    pod.obstacle.as_ref().filter(|obstacle| obstacle.is_passing == is_passing)
}

/// Returns the age of `pod`, 0 if this machine's clock is behind that of the API server.
fn age(pod: &PodView, now: Timestamp) -> Duration {
    let created = pod.created.unwrap_or(now);
    Duration::try_from(now.duration_since(created)).unwrap_or_default()
}
