//! Somebody edits the Lease while one of ours leads.

use serde_json::{Value, json};

use super::group::{ClientGo, Group, LEASE, Ours, now, sleep};
use super::shared;
use crate::support::{kubectl, namespace, within};

/// What the leader does about it.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// It renews, which writes its own values again.
    GoesOn,
    /// It can no longer prove that it holds the Lease, and kills its work.
    Stops,
}

#[test]
fn whatever_is_done_to_a_lease_by_hand_ours_stop_before_another_begins() {
    let ns = namespace(shared(), "by-hand");
    let absurd = "9999-12-31T23:59:59.999999Z";
    let cases = [
        ("deleted", None, Then::Stops),
        ("emptied", Some(json!({"spec": {"holderIdentity": ""}})), Then::Stops),
        ("without-holder", Some(json!({"spec": {"holderIdentity": null}})), Then::Stops),
        ("without-anything", Some(json!({"spec": null})), Then::Stops),
        ("foreign", Some(json!({"spec": {"holderIdentity": "crane"}})), Then::Stops),
        ("released", Some(json!({"spec": {"holderIdentity": "", "leaseDurationSeconds": 1}})), Then::Stops),
        ("another-of-the-name", Some(incarnation("u/c/0")), Then::Stops),
        ("renewed-in-9999", Some(json!({"spec": {"renewTime": absurd}})), Then::Stops),
        ("acquired-in-9999", Some(json!({"spec": {"acquireTime": absurd}})), Then::GoesOn),
        ("transitions-lowered", Some(json!({"spec": {"leaseTransitions": 0}})), Then::GoesOn),
        ("transitions-at-their-end", Some(json!({"spec": {"leaseTransitions": i32::MAX}})), Then::GoesOn),
        ("for-68-years", Some(json!({"spec": {"leaseDurationSeconds": i32::MAX}})), Then::GoesOn),
    ];
    std::thread::scope(|scope| {
        for (name, patch, then) in cases {
            let ns = &ns;
            scope.spawn(move || edit(ns, name, patch, then));
        }
    });
}

fn incarnation(other: &str) -> Value {
    json!({"metadata": {"annotations": {"k8sensus.dev/incarnation": other}}})
}

fn edit(ns: &str, name: &str, patch: Option<Value>, then: Then) {
    let group = Group::new(shared(), ns, name);
    let lease = format!("lease/{name}");
    // So that there are transitions to lower.
    let mut former = group.start(Ours, "crake");
    former.wait_until_at_work();
    former.terminate();
    let mut leader = group.start(Ours, "otter");
    leader.wait_until_at_work();
    let mut standby = group.start(ClientGo, "heron");
    sleep(2.0);
    let edit = match &patch {
        None => vec!["delete".to_owned(), lease],
        Some(patch) => vec!["patch".to_owned(), lease, "--type=merge".to_owned(), format!("--patch={patch}")],
    };
    let before = now();
    let arguments: Vec<&str> = ["-n", ns].into_iter().chain(edit.iter().map(String::as_str)).collect();
    kubectl(shared(), &arguments);
    // client-go takes a Lease that is gone or has no holder as soon as it looks, so it may be as fast as the news.
    group.excuse("otter", before);
    match then {
        Then::Stops => {
            within(10, &format!("{name}: the leader to stop"), || {
                // On a machine so busy that it could not renew, it may just have stopped for that.
                let stopped = ["the lease is no longer held by this process", "no renewal within the renew deadline"];
                stopped.iter().any(|text| leader.program.says(text)).then_some(())
            });
            // Either may be the next, but in a term of its own.
            within(30, &format!("{name}: somebody to lead"), || {
                (leader.terms() + standby.terms() > 1 && (leader.at_work() || standby.at_work())).then_some(())
            });
        }
        Then::GoesOn => {
            sleep(1.5 * LEASE.as_secs_f64());
            assert!(!leader.program.says("no longer held"), "{name}: {}", leader.program.output());
            leader.wait_until_at_work();
        }
    }
    leader.terminate();
    standby.terminate();
    group.judge(&format!("Lease {name}"));
}
