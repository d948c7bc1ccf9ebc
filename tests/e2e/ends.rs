//! A leader's program stops gracefully however its term ends: preStop hook, stop signal, grace period.

use std::panic::catch_unwind;
use std::sync::Mutex;
use std::thread;

use serde_json::{Value, json};

use super::images::load;
use super::workload::{Event, Mode, Workload};
use super::{holder, namespace, node, ready, wait_until_the_garbage_collector_knows_groups};
use crate::support::{apply, get, kubectl, within};

/// Longer than the 3 s that a leader has to stop after it lost its Lease, and than standbys wait for a Lease without a
/// holder.
const STOP: u32 = 6;
const GRACE: u32 = 12;

const GROUP: &str = "electiongroup/kestrel";

/// An action that ends or moves the leader; its arguments are the namespace and the group's manifest.
type End = fn(&str, &Value);

fn delete_in_the_background(ns: &str, _: &Value) {
    kubectl(node(), &["delete", "-n", ns, GROUP, "--cascade=background", "--wait=false"]);
}

fn delete_in_the_foreground(ns: &str, _: &Value) {
    kubectl(node(), &["delete", "-n", ns, GROUP, "--cascade=foreground", "--wait=false"]);
}

fn delete_the_namespace(ns: &str, _: &Value) {
    kubectl(node(), &["delete", "namespace", ns, "--wait=false"]);
}

fn delete_the_lease(ns: &str, _: &Value) {
    kubectl(node(), &["delete", "-n", ns, "lease/kestrel", "--wait=false"]);
}

fn replace(ns: &str, group: &Value) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), group.to_string()).unwrap();
    kubectl(node(), &["replace", "-n", ns, "--force", "-f", file.path().to_str().unwrap()]);
}

fn replace_with_another_lease(ns: &str, group: &Value) {
    let mut group = group.clone();
    group["spec"]["election"] = json!({ "leaseName": "kestrel-two" });
    replace(ns, &group);
}

fn suspend(ns: &str, _: &Value) {
    patch(ns, json!({ "suspend": true }));
}

fn scale_to_zero(ns: &str, _: &Value) {
    kubectl(node(), &["scale", "-n", ns, GROUP, "--replicas=0"]);
}

fn roll_out(ns: &str, _: &Value) {
    patch(ns, json!({ "candidate": { "resources": { "requests": { "cpu": "1m" } } } }));
}

fn drain(ns: &str, _: &Value) {
    let leader = holder(&get(node(), ns, GROUP).unwrap());
    super::maintenance::evict(ns, &leader).unwrap();
}

fn patch(ns: &str, spec: Value) {
    let patch = json!({ "spec": spec }).to_string();
    kubectl(node(), &["patch", "-n", ns, GROUP, "--type=merge", "-p", &patch]);
}

/// The expected state afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    NothingWorks,
    /// Kubernetes deletes the pods before the Lease, so a standby that it stops later may work during its own time to
    /// stop. In mode Sidecar only the program knows that its pod is stopping.
    StandbyMayWork,
    AnotherWorks,
}

const ENDS: [(&str, End, Then); 10] = [
    ("deleted", delete_in_the_background, Then::NothingWorks),
    ("foreground", delete_in_the_foreground, Then::NothingWorks),
    ("namespace", delete_the_namespace, Then::StandbyMayWork),
    ("lease", delete_the_lease, Then::AnotherWorks),
    ("replaced", replace, Then::AnotherWorks),
    ("renamed", replace_with_another_lease, Then::AnotherWorks),
    ("suspended", suspend, Then::NothingWorks),
    ("scaled", scale_to_zero, Then::NothingWorks),
    ("rolled", roll_out, Then::AnotherWorks),
    ("drained", drain, Then::AnotherWorks),
];

fn kinds(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.what.as_str()).collect()
}

/// Runs one row; returns a line that describes the outcome.
fn run_row(mode: Mode, (name, end, then): (&str, End, Then)) -> String {
    let workload = Workload::new(mode, STOP, GRACE);
    load(workload.image());
    let ns = namespace(&format!("{name}-{}", if mode == Mode::Exec { "exec" } else { "sidecar" }));
    let group = workload.group("kestrel", json!({}));
    apply(node(), &ns, &group).unwrap();
    let leader = holder(&ready(&ns, "kestrel", &[]));
    within(90, "the leader's program to work", || workload.workers().contains(&leader).then_some(()));
    end(&ns, &group);
    // Deleting the Lease ends the term of a sidecar leader but not its program, which continues as a standby.
    let program_ends = mode == Mode::Exec || name != "lease";
    if program_ends {
        within(120, &format!("{name}: the end of the program of {leader}"), || {
            workload.ended_gracefully(&leader).then_some(())
        });
    }
    if then == Then::AnotherWorks {
        within(90, &format!("{name}: work under a higher token"), || {
            let report = workload.report();
            (report.stretches.last()?.token > report.stretches.first()?.token).then_some(())
        });
    }
    let report = workload.report();
    assert!(report.overlaps.is_empty() && report.stale.is_empty(), "{name}: {report}");
    let expected = match then {
        Then::NothingWorks => 1..=1,
        Then::StandbyMayWork if mode == Mode::Exec => 1..=1,
        Then::StandbyMayWork => 1..=2,
        Then::AnotherWorks => 2..=usize::MAX,
    };
    assert!(expected.contains(&report.incarnations()), "{name}: expected {expected:?} programs that worked: {report}");
    format!("{mode:?} {name}: {:?}, longest gap {:?}", kinds(&workload.events_of(&leader)), report.longest_gap())
}

/// Returns the number of groups that start concurrently. Starting a pod takes seconds of processor time, and the program
/// of mode Sidecar needs more of it while it works.
fn at_once(mode: Mode) -> usize {
    if mode == Mode::Exec { 3 } else { 2 }
}

fn run_all(mode: Mode) {
    wait_until_the_garbage_collector_knows_groups(node());
    let rows = Mutex::new(ENDS.iter());
    let run_rows = || {
        let mut failed = Vec::new();
        loop {
            let row = rows.lock().unwrap().next();
            let Some(row) = row else { return failed };
            match catch_unwind(|| run_row(mode, *row)) {
                Ok(line) => println!("{line}"),
                // The panic message has been printed.
                Err(_) => failed.push(row.0),
            }
        }
    };
    let failed: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once(mode)).map(|_| scope.spawn(run_rows)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "rows that failed, each with its reason above: {failed:?}");
}

#[test]
fn exec_leader_stops_gracefully_however_its_term_ends() {
    run_all(Mode::Exec);
}

#[test]
fn sidecar_leader_stops_gracefully_however_its_term_ends() {
    run_all(Mode::Sidecar);
}

#[test]
fn group_deleted_with_cascade_orphan_keeps_its_leader() {
    wait_until_the_garbage_collector_knows_groups(node());
    let workload = Workload::new(Mode::Exec, STOP, GRACE);
    load(workload.image());
    let ns = namespace("orphaned");
    apply(node(), &ns, &workload.group("kestrel", json!({}))).unwrap();
    let leader = holder(&ready(&ns, "kestrel", &[]));
    within(90, "the leader's program to work", || workload.workers().contains(&leader).then_some(()));
    kubectl(node(), &["delete", "-n", &ns, GROUP, "--cascade=orphan"]);
    let last_work = || workload.report().stretches.last().map(|stretch| stretch.until).unwrap_or_default();
    let deleted = last_work();
    within(60, "work twenty seconds after the deletion, longer than a lease", || {
        (last_work() > deleted + std::time::Duration::from_secs(20)).then_some(())
    });
    assert_eq!(kinds(&workload.events_of(&leader)), ["start"]);
    let renewed = get(node(), &ns, "lease/kestrel").unwrap()["spec"]["holderIdentity"].clone();
    assert_eq!(renewed, leader.as_str());
}
