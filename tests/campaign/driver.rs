//! The driver with a scripted API server.

#![allow(clippy::disallowed_methods, reason = "these tests wait for real connections in real time")]

use std::time::{Duration, Instant};

use k8sensus::campaign::{INCARNATION, Loss, Metrics, PROVEN_REVISION, STEP_DOWN_OF, STEP_DOWN_TO};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::json;

use super::server::{Fate, Shared, builder, candidate, lead, serve};

#[tokio::test]
async fn a_renewal_without_an_answer_is_retried_over_another_connection() {
    let (server, config) = serve(|n| if n == 1 { Fate::Silence } else { Fate::Written });
    let mut campaign = candidate(&config);
    let guard = lead(&mut campaign).await;
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    assert!(guard.is_valid());
    assert_eq!(*guard.stops().borrow(), None);
    let server = server.lock().unwrap();
    assert!(server.puts.len() >= 4, "{} writes", server.puts.len());
    let again = server.puts[2] - server.puts[1];
    assert!(again < Duration::from_secs(1), "retried after {again:?}");
    // The first of the two may have been written, so the retry has the same content.
    assert_eq!(server.bodies[1], server.bodies[2]);
}

#[tokio::test]
async fn a_term_is_valid_while_its_renewals_are_acknowledged() {
    let (_server, config) = serve(|n| if n < 3 { Fate::Written } else { Fate::Silence });
    let mut campaign = candidate(&config);
    let term = lead(&mut campaign).await;
    let start = Instant::now();
    // Renewed after 1 s and 2 s only.
    tokio::time::sleep(Duration::from_millis(3_000)).await;
    assert!(term.is_valid(), "a renewal must extend the term");
    while term.is_valid() {
        assert!(start.elapsed() < Duration::from_millis(4_500), "still valid after {:?}", start.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(term.remaining(), Duration::ZERO);
}

#[tokio::test]
async fn a_failing_server_is_not_flooded() {
    type FateOf = fn(usize) -> Fate;
    let fates: [(u16, FateOf); 5] = [
        (422, |_| Fate::Status(422)),
        (429, |_| Fate::Status(429)),
        (500, |_| Fate::Status(500)),
        (503, |_| Fate::Status(503)),
        (409, |_| Fate::Status(409)),
    ];
    let mut found = Vec::new();
    for (code, fate) in fates {
        let (server, config) = serve(fate);
        let _campaign = candidate(&config);
        tokio::time::sleep(Duration::from_millis(2_000)).await;
        found.push((code, server.lock().unwrap().puts.len()));
    }
    println!("writes in 2 s, by the answer: {found:?}");
    // At 0 s, 0.25 s, 0.75 s and 1.75 s, plus an immediate retry after a conflict.
    assert!(found.iter().all(|(_, writes)| (3..=5).contains(writes)), "{found:?}");
}

#[tokio::test]
async fn foreign_fields_are_preserved_and_only_the_observed_version_is_replaced() {
    let (server, config) = serve(|_| Fate::Written);
    let mut campaign = candidate(&config);
    let guard = lead(&mut campaign).await;
    assert_eq!((guard.token(), guard.transitions()), ("42", 4));
    guard.end();
    campaign.shutdown().await;
    let server = server.lock().unwrap();
    let [acquired, released] = &server.bodies[..] else { panic!("{:?}", server.bodies) };
    for (body, version) in [(acquired, "41"), (released, "42")] {
        assert_eq!(body["metadata"]["resourceVersion"], version);
        assert_eq!(body["metadata"]["labels"], json!({ "colour": "red" }));
        assert_eq!(body["spec"]["tomorrow"], "kept");
    }
    assert_eq!(acquired["metadata"]["annotations"], json!({ INCARNATION: "uid/app/1" }));
    assert!(released["metadata"]["annotations"].get(INCARNATION).is_none());
    assert_eq!(released["spec"]["holderIdentity"], "");
}

#[tokio::test]
async fn a_leaders_extra_read_is_counted_under_client_gos_metric_name() {
    let (server, config) = serve(|n| if n == 1 { Fate::Status(409) } else { Fate::Written });
    let metrics = Metrics::default();
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let mut campaign = builder().metrics(metrics).start(&config).unwrap();
    let guard = lead(&mut campaign).await;
    let start = Instant::now();
    while server.lock().unwrap().puts.len() < 3 {
        assert!(start.elapsed() < Duration::from_secs(10), "no renewal after the conflict");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    assert!(text.contains("leader_election_master_status{name=\"weir\"} 1\n"), "{text}");
    assert!(text.contains("leader_election_slowpath_total{name=\"weir\"} 1\n"), "{text}");
    guard.end();
}

/// Adds an annotation to the Lease, as another client does between two renewals.
fn annotate(server: &Shared, name: &str, value: &str) {
    let lease = &mut server.lock().unwrap().lease;
    let version: u64 = lease["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    lease["metadata"]["annotations"][name] = json!(value);
    lease["metadata"]["resourceVersion"] = json!((version + 1).to_string());
}

#[tokio::test]
async fn a_requested_step_down_stops_the_work_while_the_lease_is_renewed() {
    // Without a watch, the conflict of the next renewal reveals the request.
    let (server, config) = serve(|_| Fate::Written);
    let mut campaign = candidate(&config);
    let guard = lead(&mut campaign).await;
    annotate(&server, STEP_DOWN_OF, "4/uid/app/1");
    let stop = tokio::time::timeout(Duration::from_secs(2), guard.lost()).await.expect("no request to stop");
    assert_eq!((stop.loss, stop.kill_at), (Loss::Requested, None));
    // The work takes longer than a renew deadline.
    let before = server.lock().unwrap().puts.len();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(guard.is_valid() && server.lock().unwrap().puts.len() >= before + 2, "no renewal while the work ends");
    let ended = Instant::now();
    guard.end();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let lease = server.lock().unwrap().lease.clone();
    assert_eq!(lease["spec"]["holderIdentity"], "");
    assert_eq!(lease["metadata"]["annotations"], json!({ STEP_DOWN_OF: "4/uid/app/1" }));
    // No other candidate acquires the Lease: after a lease duration it leads again, in a term without a request.
    let guard = lead(&mut campaign).await;
    assert!(ended.elapsed() >= Duration::from_secs(3), "back after {:?}", ended.elapsed());
    assert_eq!(guard.transitions(), 5);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(guard.is_valid());
    assert_eq!(*guard.stops().borrow(), None);
}

#[tokio::test]
async fn a_step_down_request_for_another_term_or_process_is_ignored() {
    let (server, config) = serve(|_| Fate::Written);
    let mut campaign = candidate(&config);
    let guard = lead(&mut campaign).await;
    for of in ["3/uid/app/1", "4/uid/app/2", "4/uid/app", "4", "", "5/uid/app/1"] {
        annotate(&server, STEP_DOWN_OF, of);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(*guard.stops().borrow(), None, "{of:?}");
        assert!(guard.is_valid(), "{of:?}: an edit must not end the term");
    }
}

#[tokio::test]
async fn a_step_down_request_counts_only_with_another_successor() {
    let (server, config) = serve(|_| Fate::Written);
    let mut campaign = candidate(&config);
    let guard = lead(&mut campaign).await;
    annotate(&server, STEP_DOWN_TO, "otter");
    annotate(&server, STEP_DOWN_OF, "4/uid/app/1");
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(guard.is_valid());
    assert_eq!(*guard.stops().borrow(), None);
    annotate(&server, STEP_DOWN_TO, "heron");
    let stop = tokio::time::timeout(Duration::from_secs(2), guard.lost()).await.expect("no request to stop");
    assert_eq!((stop.loss, stop.kill_at), (Loss::Requested, None));
    guard.end();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let annotations = || server.lock().unwrap().lease["metadata"]["annotations"].clone();
    assert_eq!(
        annotations(),
        json!({ STEP_DOWN_OF: "4/uid/app/1", STEP_DOWN_TO: "heron" }),
        "heron must still be able to read it"
    );
    // The successor never comes. The next term has no named successor.
    let guard = lead(&mut campaign).await;
    assert_eq!(annotations(), json!({ STEP_DOWN_OF: "4/uid/app/1", INCARNATION: "uid/app/1" }));
    guard.end();
}

#[tokio::test]
async fn a_candidate_of_an_unproven_revision_waits_longer() {
    for (revision, first) in [("b", true), ("a", false)] {
        let (server, config) = serve(|_| Fate::Written);
        annotate(&server, PROVEN_REVISION, "b");
        let start = Instant::now();
        let mut campaign = builder().revision(revision).start(&config).unwrap();
        let guard = lead(&mut campaign).await;
        assert_eq!(start.elapsed() < Duration::from_secs(1), first, "revision {revision} after {:?}", start.elapsed());
        assert_eq!(server.lock().unwrap().lease["metadata"]["annotations"][PROVEN_REVISION], "b");
        guard.end();
    }
}
