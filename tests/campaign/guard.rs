//! The guard, the watch and the health of a campaign: when work may run, and when the Lease is released.

#![allow(clippy::disallowed_methods, reason = "these tests wait for real connections in real time")]

use std::time::{Duration, Instant};

use k8sensus::campaign::{Campaign, Metrics, StartError, Stop};
use k8sensus_election::{Loss, Timing};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::Value;

use super::server::{Fate, Shared, builder, candidate, lead, serve};

fn released(server: &Shared) -> bool {
    server.lock().unwrap().lease["spec"]["holderIdentity"] == ""
}

fn holder(server: &Shared) -> Value {
    server.lock().unwrap().lease["spec"]["holderIdentity"].clone()
}

async fn within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_guard_dropped_without_an_end_leaves_the_lease_to_expire() {
    let (server, config) = serve(|_| Fate::Written);
    let mut campaign = candidate(&config);
    let guard = lead(&mut campaign).await;
    let term = guard.term().clone();
    drop(guard);
    assert!(campaign.lead().await.is_none(), "the campaign must be over");
    assert!(!term.is_valid(), "nothing renews it any more");
    assert_eq!(term.lost().await.loss, Loss::DeadlinePassed);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(holder(&server), "otter");
    assert_eq!(server.lock().unwrap().puts.len(), 1);
}

#[tokio::test]
async fn a_panicking_worker_does_not_release_the_lease() {
    let (server, config) = serve(|_| Fate::Written);
    let mut campaign = candidate(&config);
    let guard = lead(&mut campaign).await;
    let worker = tokio::spawn(async move {
        let _guard = guard;
        panic!("intended by the test");
    });
    assert!(worker.await.is_err());
    assert!(campaign.lead().await.is_none());
    assert_eq!(holder(&server), "otter");
}

#[tokio::test]
async fn a_dropped_campaign_renews_until_its_guard_has_ended() {
    let (server, config) = serve(|_| Fate::Written);
    let mut campaign = candidate(&config);
    let guard = lead(&mut campaign).await;
    drop(campaign);
    assert_eq!(guard.lost().await, Stop { loss: Loss::Requested, kill_at: None });
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(guard.is_valid(), "slow work must stay covered");
    assert_eq!(holder(&server), "otter");
    guard.end();
    within(LIMIT, "the release", || released(&server)).await;
}

#[tokio::test]
async fn an_untaken_term_is_released_at_shutdown() {
    let (server, config) = serve(|_| Fate::Written);
    let campaign = candidate(&config);
    let mut watch = campaign.watch();
    let term = watch.wait_for(|leadership| leadership.is_leader()).await.unwrap().term.clone().unwrap();
    assert_eq!(watch.borrow().holder.as_deref(), Some("otter"));
    campaign.shutdown().await;
    assert!(released(&server) && !term.is_valid());
    assert!(watch.borrow().term.is_none() && watch.changed().await.is_ok() && watch.changed().await.is_err());
}

#[tokio::test]
async fn a_term_is_invalid_once_its_work_has_ended() {
    let (server, config) = serve(|_| Fate::Written);
    let metrics = Metrics::default();
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let mut campaign = builder().metrics(metrics).start(&config).unwrap();
    let guard = lead(&mut campaign).await;
    let (observer, snapshot) = (guard.term().clone(), campaign.watch().borrow().clone());
    assert!(observer.is_valid() && snapshot.is_leader());
    guard.end();
    within(LIMIT, "the release", || released(&server)).await;
    assert!(!observer.is_valid() && !snapshot.is_leader(), "another candidate may lead by now");
    let stop = tokio::time::timeout(LIMIT, observer.lost()).await.expect("an observer must see the end");
    assert_eq!((stop, observer.until_kill()), (Stop { loss: Loss::Requested, kill_at: None }, None));
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    assert!(text.contains("leader_election_master_status{name=\"weir\"} 0\n"), "{text}");
}

#[tokio::test]
async fn each_term_is_returned_once_and_has_a_higher_token() {
    let (server, config) = serve(|_| Fate::Written);
    let mut campaign = candidate(&config);
    let first = lead(&mut campaign).await;
    let again = tokio::time::timeout(Duration::from_millis(500), campaign.lead()).await;
    assert!(again.is_err(), "{again:?}");
    let token: u64 = first.token().parse().unwrap();
    campaign.step_down();
    assert_eq!(first.lost().await.loss, Loss::Requested);
    assert!(!released(&server), "released before the work ended");
    first.end();
    within(LIMIT, "the release", || released(&server)).await;
    let start = Instant::now();
    // It abstains for a lease duration of 3 s, so that other candidates come first.
    let second = tokio::time::timeout(LIMIT, campaign.lead()).await.unwrap().unwrap();
    assert!(start.elapsed() > Duration::from_millis(2_500), "{:?}", start.elapsed());
    assert!(second.token().parse::<u64>().unwrap() > token);
    second.end();
}

#[test]
fn a_blocked_executor_does_not_delay_renewals() {
    let (server, config) = serve(|_| Fate::Written);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut campaign = candidate(&config);
        let guard = lead(&mut campaign).await;
        // Twice the lease, on the only thread of this executor.
        std::thread::sleep(Duration::from_secs(6));
        assert!(guard.is_valid() && guard.stops().borrow().is_none());
        assert!(server.lock().unwrap().puts.len() >= 4);
        guard.end();
        campaign.shutdown().await;
    });
    assert!(released(&server));
}

#[tokio::test]
async fn work_that_outlives_its_lease_is_unhealthy() {
    let (_server, config) = serve(|n| if n < 1 { Fate::Written } else { Fate::Silence });
    let mut campaign = candidate(&config);
    let health = campaign.health();
    assert_eq!(health.check(), Ok(()), "a standby is healthy");
    let guard = lead(&mut campaign).await;
    assert_eq!(health.check(), Ok(()));
    let stop = guard.lost().await;
    assert_eq!(stop.loss, Loss::DeadlinePassed);
    assert!(!guard.is_valid());
    within(LIMIT, "the lease to expire", || health.check().is_err()).await;
    let problem = health.check().unwrap_err();
    assert!(problem.since_renewal > Duration::from_secs(3), "{problem}");
    let text = problem.to_string();
    assert!(text.contains("lease river/weir, which lasts 3 s") && text.contains("restart"), "{text}");
    guard.end();
    within(LIMIT, "the end to be noticed", || health.check().is_ok()).await;
}

#[tokio::test]
async fn another_task_may_leave_while_a_term_is_awaited() {
    let (server, config) = serve(|_| Fate::Written);
    let campaign = candidate(&config);
    let guard = tokio::time::timeout(LIMIT, campaign.lead()).await.unwrap().unwrap();
    let (next, ()) = tokio::join!(tokio::time::timeout(LIMIT, campaign.lead()), async {
        campaign.leave();
        assert_eq!(guard.lost().await.loss, Loss::Requested);
        guard.end();
    });
    assert!(next.expect("it waits only for the release").is_none());
    assert!(released(&server));
}

#[tokio::test]
async fn only_a_lost_lease_revokes_the_term() {
    let (_server, config) = serve(|n| if n < 2 { Fate::Written } else { Fate::Silence });
    let campaign = candidate(&config);
    let guard = tokio::time::timeout(LIMIT, campaign.lead()).await.unwrap().unwrap();
    campaign.leave();
    assert_eq!(guard.lost().await, Stop { loss: Loss::Requested, kill_at: None });
    let early = tokio::time::timeout(Duration::from_millis(500), guard.revoked()).await;
    assert!(early.is_err(), "{early:?}");
    // Renewals are no longer acknowledged.
    let kill_at = tokio::time::timeout(LIMIT, guard.revoked()).await.expect("the Lease is lost");
    assert_eq!(Some(kill_at), guard.stops().borrow().and_then(|stop| stop.kill_at));
    guard.end();
}

#[tokio::test]
async fn a_start_error_names_what_is_missing() {
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let refusal = |builder: k8sensus::campaign::Builder| builder.start(&config).unwrap_err();
    let nameless = refusal(Campaign::builder("river", ""));
    assert!(matches!(nameless, StartError::Lease(_)), "{nameless}");
    assert!(nameless.to_string().contains("the namespace and the name of a Lease"), "{nameless}");
    let anonymous = refusal(Campaign::builder("river", "weir").identity(""));
    assert!(anonymous.to_string().contains("POD_NAME"), "{anonymous}");
    assert!(Timing::new(Duration::from_secs(10), Duration::from_secs(10), Duration::from_secs(2)).is_err());
}
