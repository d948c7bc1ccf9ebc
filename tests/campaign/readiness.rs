//! A leader's readiness on the Lease.

#![allow(clippy::disallowed_methods, reason = "these tests wait for real connections in real time")]

use std::time::{Duration, Instant};

use k8sensus::campaign::{READY_OF, Timing};
use serde_json::{Value, json};

use super::server::{Fate, Shared, builder, candidate, lead, serve};

const LIMIT: Duration = Duration::from_secs(10);

fn ready_of(lease: &Value) -> Value {
    lease["metadata"]["annotations"][READY_OF].clone()
}

fn ready_term(server: &Shared) -> Value {
    ready_of(&server.lock().unwrap().lease)
}

fn puts(server: &Shared) -> usize {
    server.lock().unwrap().puts.len()
}

async fn within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Renewals are 4 s apart, so that an earlier write is due to a change.
fn slow() -> Timing {
    let seconds = Duration::from_secs;
    Timing::new(seconds(15), seconds(10), seconds(2)).unwrap().with_renew_interval(seconds(4)).unwrap()
}

#[tokio::test]
async fn a_readiness_change_is_written_at_once_and_kept_by_renewals() {
    let (server, config) = serve(|_| Fate::Written);
    let mut campaign = builder().timing(slow()).start(&config).unwrap();
    let guard = lead(&mut campaign).await;
    assert_eq!((ready_term(&server), puts(&server)), (Value::Null, 1), "nothing is ready at first");
    guard.show_ready(true);
    within(Duration::from_secs(1), "readiness", || ready_term(&server) == "4/uid/app/1").await;
    assert_eq!(puts(&server), 2);
    guard.show_ready(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(puts(&server), 2, "nothing changed");
    within(LIMIT, "the next renewal", || puts(&server) == 3).await;
    assert_eq!(ready_term(&server), "4/uid/app/1");
    guard.show_ready(false);
    within(Duration::from_secs(1), "its removal", || ready_term(&server).is_null()).await;
    assert_eq!(puts(&server), 4);
    assert!(guard.is_valid() && guard.stops().borrow().is_none());
    guard.end();
}

#[tokio::test]
async fn a_readiness_change_during_a_renewal_is_written_after_it() {
    let (server, config) = serve(|_| Fate::Written);
    let mut campaign = builder().timing(slow()).start(&config).unwrap();
    let guard = lead(&mut campaign).await;
    guard.show_ready(true);
    within(Duration::from_secs(1), "the first change", || ready_term(&server) == "4/uid/app/1").await;
    // The second change arrives while the renewal of the first is in flight.
    guard.show_ready(false);
    guard.show_ready(true);
    within(Duration::from_secs(1), "the second change", || puts(&server) >= 3).await;
    within(Duration::from_secs(1), "the last change", || ready_term(&server) == "4/uid/app/1").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(ready_term(&server), "4/uid/app/1");
    assert!(puts(&server) <= 4, "{} writes", puts(&server));
    guard.end();
}

#[tokio::test]
async fn a_failed_write_of_readiness_is_retried() {
    let (server, config) = serve(|n| if n == 1 { Fate::Status(500) } else { Fate::Written });
    let mut campaign = builder().timing(slow()).start(&config).unwrap();
    let guard = lead(&mut campaign).await;
    guard.show_ready(true);
    within(Duration::from_secs(2), "the retry", || ready_term(&server) == "4/uid/app/1").await;
    assert_eq!(puts(&server), 3);
    guard.end();
}

#[tokio::test]
async fn a_release_removes_readiness_and_the_next_term_starts_unready() {
    let (server, config) = serve(|_| Fate::Written);
    let mut campaign = candidate(&config);
    let guard = lead(&mut campaign).await;
    guard.show_ready(true);
    within(LIMIT, "readiness", || ready_term(&server) == "4/uid/app/1").await;
    guard.end();
    within(LIMIT, "the release", || server.lock().unwrap().lease["spec"]["holderIdentity"] == "").await;
    assert_eq!(ready_term(&server), Value::Null);
    // The readiness of another process and an earlier term.
    let next = {
        let lease = &mut server.lock().unwrap().lease;
        let version: u64 = lease["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        lease["metadata"]["annotations"][READY_OF] = json!("4/uid/app/0");
        lease["metadata"]["resourceVersion"] = json!((version + 1).to_string());
        lead(&mut campaign)
    };
    let guard = next.await;
    assert_eq!((guard.transitions(), ready_term(&server)), (5, Value::Null));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let server = server.lock().unwrap();
    assert_eq!(ready_of(server.bodies.last().unwrap()), Value::Null, "a renewal of an unready term");
    drop(server);
    guard.end();
}
