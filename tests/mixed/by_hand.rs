//! Edits of the Lease by hand while one of ours leads.

use serde_json::{Value, json};

use super::group::{ClientGo, Group, LEASE, Ours, now, sleep};
use super::shared;
use crate::support::{kubectl, namespace, within};

/// The expected reaction of the leader.
#[derive(Clone, Copy, PartialEq)]
enum Reaction {
    /// It renews, which restores its own values.
    Continues,
    /// It can no longer prove that it holds the Lease, and kills its work.
    Stops,
}

#[test]
fn ours_stop_before_another_starts_after_any_edit_by_hand() {
    let ns = namespace(shared(), "by-hand");
    let far_future = "9999-12-31T23:59:59.999999Z";
    let cases = [
        ("deleted", None, Reaction::Stops),
        ("emptied", Some(json!({"spec": {"holderIdentity": ""}})), Reaction::Stops),
        ("without-holder", Some(json!({"spec": {"holderIdentity": null}})), Reaction::Stops),
        ("without-anything", Some(json!({"spec": null})), Reaction::Stops),
        ("foreign", Some(json!({"spec": {"holderIdentity": "crane"}})), Reaction::Stops),
        ("released", Some(json!({"spec": {"holderIdentity": "", "leaseDurationSeconds": 1}})), Reaction::Stops),
        ("another-of-the-name", Some(incarnation("u/c/0")), Reaction::Stops),
        ("renewed-in-9999", Some(json!({"spec": {"renewTime": far_future}})), Reaction::Stops),
        ("acquired-in-9999", Some(json!({"spec": {"acquireTime": far_future}})), Reaction::Continues),
        ("transitions-lowered", Some(json!({"spec": {"leaseTransitions": 0}})), Reaction::Continues),
        ("transitions-at-their-end", Some(json!({"spec": {"leaseTransitions": i32::MAX}})), Reaction::Continues),
        ("for-68-years", Some(json!({"spec": {"leaseDurationSeconds": i32::MAX}})), Reaction::Continues),
    ];
    std::thread::scope(|scope| {
        for (name, patch, reaction) in cases {
            let ns = &ns;
            scope.spawn(move || edit(ns, name, patch, reaction));
        }
    });
}

fn incarnation(other: &str) -> Value {
    json!({"metadata": {"annotations": {"k8sensus.dev/incarnation": other}}})
}

fn edit(ns: &str, name: &str, patch: Option<Value>, reaction: Reaction) {
    let group = Group::new(shared(), ns, name);
    let lease = format!("lease/{name}");
    // Needed for transitions above zero.
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
    // client-go acquires a missing Lease or one without a holder at its next try, perhaps before ours observe the
    // change.
    group.excuse("otter", before);
    match reaction {
        Reaction::Stops => {
            within(10, &format!("{name}: the leader to stop"), || {
                // On a busy machine it may have stopped because it could not renew.
                let stopped = ["the lease is no longer held by this process", "no renewal within the renew deadline"];
                stopped.iter().any(|text| leader.program.says(text)).then_some(())
            });
            // Either candidate may lead next, but in a new term.
            within(30, &format!("{name}: a new term"), || {
                (leader.terms() + standby.terms() > 1 && (leader.at_work() || standby.at_work())).then_some(())
            });
        }
        Reaction::Continues => {
            sleep(1.5 * LEASE.as_secs_f64());
            assert!(!leader.program.says("no longer held"), "{name}: {}", leader.program.output());
            leader.wait_until_at_work();
        }
    }
    leader.terminate();
    standby.terminate();
    group.check(&format!("Lease {name}"));
}
