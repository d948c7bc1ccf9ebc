//! The stop of a command: hook, signal, grace.

use std::ops::Range;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{App, SOON};
use crate::support::{get, kubectl, namespace, shared};

/// Records each signal in `$DIR/order`; ends at the first.
const NOTES: &str = "for s in TERM INT QUIT USR1; do trap \"echo $s >> $DIR/order; exit 0\" $s; done; \
                     echo up > $DIR/up; while :; do sleep 0.05; done";
/// Ends only at SIGKILL.
const DEAF: &str = "trap '' TERM; echo up > $DIR/up; while :; do sleep 0.05; done";

fn pre_stop(script: &str) -> Value {
    json!({ "preStop": { "exec": { "command": ["/bin/sh", "-c", script] } } })
}

fn started(name: &str, spec: &Value, script: &str) -> (String, App) {
    let ns = namespace(shared(), name);
    let app = App::start(&ns, "otter", spec, script);
    app.wait_for("up", "up");
    (ns, app)
}

fn released(ns: &str) -> bool {
    get(shared(), ns, "lease/weir").unwrap()["spec"]["holderIdentity"] == ""
}

/// Compares the result of `run` with `limits`, in seconds: each of up to three runs is long enough, and one is short
/// enough.
fn lasts(limits: Range<f64>, mut run: impl FnMut() -> Duration) {
    let mut late = Vec::new();
    for _ in 0..3 {
        let duration = run().as_secs_f64();
        assert!(duration >= limits.start, "{duration} s instead of {limits:?}");
        if duration < limits.end {
            return;
        }
        late.push(duration);
    }
    panic!("{late:?} s instead of {limits:?}");
}

/// Returns how long the app takes to end after SIGTERM.
fn time_to_end(app: &mut App) -> Duration {
    let start = Instant::now();
    app.program.signal(Signal::TERM);
    assert!(app.program.wait(Duration::from_secs(10)).success());
    start.elapsed()
}

#[test]
fn the_hook_has_ended_before_the_signal_comes() {
    let spec = json!({ "lifecycle": pre_stop("echo hook >> $DIR/order; sleep 1; echo drained >> $DIR/order") });
    let (ns, mut app) = started("hook", &spec, NOTES);
    app.program.signal(Signal::TERM);
    app.wait_for("order", "hook");
    assert_eq!(app.ask("readiness"), (503, "stopping".to_owned()));
    assert_eq!(app.ask("liveness"), (200, "stopping".to_owned()));
    assert!(app.program.wait(SOON).success());
    assert_eq!(app.read("order"), "hook\ndrained\nTERM\n");
    assert!(released(&ns));
}

#[test]
fn a_step_down_runs_the_hook_too() {
    let spec = json!({ "lifecycle": pre_stop("echo hook >> $DIR/order") });
    let (ns, app) = started("stepping", &spec, NOTES);
    let lease = get(shared(), &ns, "lease/weir").unwrap();
    let term = format!(
        "k8sensus.dev/step-down-of={}/{}",
        lease["spec"]["leaseTransitions"],
        lease["metadata"]["annotations"]["k8sensus.dev/incarnation"].as_str().unwrap()
    );
    kubectl(shared(), &["annotate", "-n", &ns, "lease/weir", &term, "k8sensus.dev/step-down-requested-at=now"]);
    app.wait_for("order", "hook\nTERM\n");
}

#[test]
fn the_users_signal_comes_before_that_of_the_candidate() {
    for (spec, sent, expected) in [
        (json!({}), Signal::TERM, "TERM\n"),
        (json!({}), Signal::INT, "INT\n"),
        (json!({}), Signal::QUIT, "QUIT\n"),
        (json!({ "lifecycle": { "stopSignal": "SIGUSR1" } }), Signal::QUIT, "USR1\n"),
    ] {
        let (ns, mut app) = started("signals", &spec, NOTES);
        app.program.signal(sent);
        assert_eq!(app.program.wait(SOON).code(), Some(0), "{spec} {sent:?}");
        assert_eq!(app.read("order"), expected, "{spec} {sent:?}");
        assert!(released(&ns));
    }
}

#[test]
fn an_app_that_ignores_the_signal_is_killed_after_the_grace() {
    // Within the grace, so that the kubelet need not kill.
    lasts(3.6..4.0, || {
        let (ns, mut app) = started("deaf", &json!({ "terminationGracePeriodSeconds": 4 }), DEAF);
        let duration = time_to_end(&mut app);
        assert!(released(&ns), "longer than the lease of 3 s: it was renewed, and released");
        duration
    });
}

#[test]
fn a_hook_that_does_not_end_leaves_time_for_the_signal() {
    let spec =
        json!({ "terminationGracePeriodSeconds": 5, "lifecycle": pre_stop("echo hook >> $DIR/order; sleep 1000") });
    lasts(2.5..3.5, || {
        let (ns, mut app) = started("stuck", &spec, NOTES);
        let duration = time_to_end(&mut app);
        assert_eq!(app.read("order"), "hook\nTERM\n");
        assert!(app.program.says("the preStop hook was abandoned after 2.5 s"));
        assert!(released(&ns));
        duration
    });
}

#[test]
fn a_failing_hook_delays_nothing() {
    let spec = json!({ "lifecycle": { "preStop": { "exec": { "command": ["/nowhere/kestrel"] } } } });
    let (_, mut app) = started("hookless", &spec, NOTES);
    assert!(app.program.terminate(SOON).success());
    assert_eq!(app.read("order"), "TERM\n");
    assert!(app.program.says("the preStop hook failed: cannot run /nowhere/kestrel: No such file or directory"));
}

#[test]
fn an_app_that_ends_during_its_hook_is_not_waited_for() {
    let spec = json!({ "lifecycle": pre_stop("touch $DIR/enough; sleep 1000") });
    let (ns, mut app) = started("early", &spec, "echo up > $DIR/up; while [ ! -e $DIR/enough ]; do sleep 0.05; done");
    assert!(app.program.terminate(Duration::from_secs(3)).success());
    assert!(released(&ns));
}

#[test]
fn a_lost_lease_runs_no_hook() {
    let spec = json!({ "lifecycle": pre_stop("echo hook >> $DIR/order; sleep 1000") });
    let (ns, app) = started("robbed", &spec, NOTES);
    let patch = r#"{"spec":{"holderIdentity":"heron"}}"#;
    kubectl(shared(), &["patch", "-n", &ns, "lease/weir", "--type=merge", "-p", patch]);
    app.program.wait_for("the lease is no longer held by this process", SOON);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(app.read("order"), "");
}

#[test]
fn a_lease_that_is_lost_during_the_hook_ends_the_hook() {
    let spec = json!({ "lifecycle": pre_stop("echo hook $$ >> $DIR/order; exec sleep 1000") });
    let (ns, mut app) = started("robbed-late", &spec, DEAF);
    app.program.signal(Signal::TERM);
    app.wait_for("order", "hook");
    let patch = r#"{"spec":{"holderIdentity":"heron"}}"#;
    kubectl(shared(), &["patch", "-n", &ns, "lease/weir", "--type=merge", "-p", patch]);
    assert!(app.program.wait(Duration::from_secs(2)).success());
    let hook = app.read("order").trim().rsplit(' ').next().unwrap().to_owned();
    assert!(!std::path::Path::new(&format!("/proc/{hook}")).exists());
}
