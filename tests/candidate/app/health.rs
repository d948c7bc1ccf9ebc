//! Probes and hooks of a command, from its start on, on a real API server.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{App, SOON};
use crate::support::{get, namespace, shared, within};

fn sh(script: &str) -> Value {
    json!({ "exec": { "command": ["/bin/sh", "-c", script] } })
}

fn probe(script: &str, more: Value) -> Value {
    let mut probe = sh(script);
    probe["periodSeconds"] = json!(1);
    probe.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    probe
}

fn ready_of(ns: &str) -> Option<String> {
    let annotations = get(shared(), ns, "lease/weir")?["metadata"]["annotations"].clone();
    annotations["k8sensus.dev/ready-of"].as_str().map(str::to_owned)
}

#[test]
fn a_standby_passes_probes_and_a_leader_answers_for_its_app() {
    let ns = namespace(shared(), "health");
    let spec = json!({
        "readinessProbe": probe("test -e $DIR/ready", json!({ "failureThreshold": 2 })),
        "livenessProbe": probe("test ! -e $DIR/dead", json!({})),
    });
    let mut leader = App::start(&ns, "otter", &spec, "echo up > $DIR/up; exec sleep 1000");
    leader.wait_for("up", "up");
    let mut standby = App::start(&ns, "heron", &spec, "echo up > $DIR/up; exec sleep 1000");
    standby.program.wait_for("leader is otter", SOON);
    for kind in ["liveness", "readiness"] {
        assert_eq!(standby.ask(kind), (200, "standing by".to_owned()));
    }
    let failed = (503, "the readiness probe failed: /bin/sh ended with exit code 1".to_owned());
    within(5, "the probe to have failed", || (leader.ask("readiness") == failed).then_some(()));
    assert_eq!(ready_of(&ns), None);
    leader.touch("ready");
    within(5, "the leader to be ready", || (leader.ask("readiness") == (200, "ready".to_owned())).then_some(()));
    within(5, "the lease to show it", || ready_of(&ns));

    assert_eq!(leader.ask("liveness"), (200, "/bin/sh ended with exit code 0".to_owned()));
    leader.touch("dead");
    let dead = (503, "/bin/sh ended with exit code 1".to_owned());
    within(2, "the probe to run again", || (leader.ask("liveness") == dead).then_some(()));

    std::fs::remove_file(leader.folder.path().join("ready")).unwrap();
    within(5, "the leader not to be ready", || (leader.ask("readiness") == failed).then_some(()));
    within(5, "the lease to show it", || ready_of(&ns).is_none().then_some(()));
    leader.touch("ready");
    within(5, "the lease to show that it is ready again", || ready_of(&ns));

    assert!(leader.program.terminate(SOON).success());
    standby.wait_for("up", "up");
    assert_eq!(standby.ask("readiness").0, 503, "the new leader's app is probed");
    assert!(standby.program.terminate(SOON).success());
    assert_eq!(ready_of(&ns), None);
}

#[test]
fn the_hook_runs_first_and_then_the_startup_probe() {
    let ns = namespace(shared(), "starting");
    let spec = json!({
        "lifecycle": { "postStart": sh("echo hook >> $DIR/order; while [ ! -e $DIR/go ]; do sleep 0.05; done") },
        "startupProbe": probe("echo startup >> $DIR/order; test -e $DIR/started", json!({ "failureThreshold": 100 })),
        "readinessProbe": probe("echo readiness >> $DIR/order", json!({})),
        "livenessProbe": probe("false", json!({ "initialDelaySeconds": 1 })),
    });
    let app = App::start(&ns, "otter", &spec, "exec sleep 1000");
    app.wait_for("order", "hook");
    assert_eq!(app.ask("readiness"), (503, "starting: the postStart hook has not ended".to_owned()));
    std::thread::sleep(Duration::from_millis(1_200));
    assert_eq!(app.ask("liveness"), (200, "starting".to_owned()));
    assert_eq!(app.read("order"), "hook\n");
    app.touch("go");
    app.wait_for("order", "startup\nstartup");
    assert_eq!((app.ask("liveness").0, app.ask("readiness").0), (200, 503));
    assert!(!app.read("order").contains("readiness"));
    app.touch("started");
    within(5, "the app to be ready", || (app.ask("readiness").0 == 200).then_some(()));
    assert_eq!(app.ask("liveness").0, 503, "from now on it is the app's own answer");
}

#[test]
fn without_probes_an_app_is_ready_once_it_runs() {
    let ns = namespace(shared(), "bare");
    let app = App::start(&ns, "otter", &json!({}), "exec sleep 1000");
    within(10, "the lease to show that it is ready", || ready_of(&ns));
    assert_eq!((app.ask("liveness"), app.ask("readiness")), ((200, "running".to_owned()), (200, "ready".to_owned())));
}

#[test]
fn a_command_that_does_not_come_up_is_stopped_with_its_reason() {
    let up = "trap 'echo stopped > $DIR/stopped; exit 0' TERM; echo up > $DIR/up; while :; do sleep 0.05; done";
    for (spec, why) in [
        (
            json!({ "startupProbe": probe("false", json!({ "failureThreshold": 2 })) }),
            "the startup probe failed: /bin/sh ended with exit code 1 (the last of 2 tries in a row)\n",
        ),
        (
            json!({ "lifecycle": { "postStart": sh("while [ ! -e $DIR/up ]; do sleep 0.05; done; exit 3") } }),
            "the postStart hook failed: /bin/sh ended with exit code 3\n",
        ),
    ] {
        let ns = namespace(shared(), "failing");
        let mut app = App::start(&ns, "otter", &spec, up);
        assert_eq!(app.program.wait(Duration::from_secs(15)).code(), Some(1));
        assert_eq!(app.read("message"), why);
        assert_eq!(app.read("stopped"), "stopped\n", "it got the stop signal");
        assert_eq!(get(shared(), &ns, "lease/weir").unwrap()["spec"]["holderIdentity"], "");
    }
}

#[test]
fn a_probe_has_the_apps_environment_no_streams_and_a_timeout() {
    let ns = namespace(shared(), "probes");
    let script = "env > $DIR/env; s=$(readlink /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2); echo \"$s\" > $DIR/fd; \
                  echo noise; setsid sleep 1000 & echo $! >> $DIR/orphans; sleep 999 & echo $$ $! >> $DIR/pids; wait";
    let spec = json!({ "readinessProbe": probe(script, json!({})) });
    let mut app = App::start(&ns, "otter", &spec, "echo $K8SENSUS_FENCING_TOKEN > $DIR/token; exec sleep 1000");
    app.wait_for("pids", "\n");
    let environment = app.read("env");
    let token = format!("K8SENSUS_FENCING_TOKEN={}\n", app.read("token").trim());
    assert!(environment.contains(&token) && environment.contains("K8SENSUS_LEADER=true\n"), "{environment}");
    assert_eq!(app.read("fd"), "/dev/null\n/dev/null\n/dev/null\n");
    let first = app.read("pids");
    for pid in first.lines().next().unwrap().split(' ') {
        within(3, "a probe beyond its timeout to be killed with its group", || (!alive(pid)).then_some(()));
    }
    app.program.wait_for("the readiness probe failed: no answer within 1 s", SOON);
    within(5, "it to be run again", || (app.read("pids").lines().count() > 1).then_some(()));
    assert!(!app.program.says("noise"));
    assert_eq!(zombies(app.program.pid()), 0, "whatever has ended is reaped");
    assert!(app.program.terminate(SOON).success());
    let (orphans, pids) = (app.read("orphans"), app.read("pids"));
    assert!(orphans.lines().count() > 1, "{orphans}");
    for pid in orphans.split_whitespace().chain(pids.split_whitespace()) {
        assert!(!alive(pid), "{pid} outlived the candidate; orphans: {orphans}, others: {pids}");
    }
}

#[test]
fn concurrent_requests_share_one_liveness_probe() {
    let ns = namespace(shared(), "shared");
    let spec = json!({ "livenessProbe": probe("echo asked >> $DIR/asked; sleep 3", json!({ "timeoutSeconds": 10 })) });
    let app = App::start(&ns, "otter", &spec, "echo up > $DIR/up; exec sleep 1000");
    app.wait_for("up", "up");
    let start = Instant::now();
    std::thread::scope(|scope| {
        let requests: Vec<_> = (0..10).map(|_| scope.spawn(|| app.ask("liveness"))).collect();
        for answer in requests {
            assert_eq!(answer.join().unwrap(), (200, "/bin/sh ended with exit code 0".to_owned()));
        }
    });
    assert!(start.elapsed() < Duration::from_secs(6), "two in a row: {:?}", start.elapsed());
    assert_eq!(app.read("asked"), "asked\n");
    app.ask("liveness");
    assert_eq!(app.read("asked"), "asked\nasked\n", "a later request starts another run");
}

#[test]
fn a_flood_runs_the_liveness_probe_at_most_twice_per_period() {
    let ns = namespace(shared(), "flood");
    let spec = json!({ "livenessProbe": probe("echo asked >> $DIR/asked", json!({ "periodSeconds": 4 })) });
    // With the default lease, since the flood also takes processor time from the API server, which is not tested here.
    let default = [
        ("K8SENSUS_LEASE_DURATION_SECONDS", "15"),
        ("K8SENSUS_RENEW_DEADLINE_SECONDS", "10"),
        ("K8SENSUS_RETRY_PERIOD_SECONDS", "2"),
    ];
    let app = App::start_with(&ns, "otter", &spec, "echo up > $DIR/up; exec sleep 1000", &default);
    app.wait_for("up", "up");
    let (start, mut questions) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(5) {
        // Half of the clients hang up before the answer.
        app.hang_up_on("liveness");
        assert_eq!(app.ask("liveness"), (200, "/bin/sh ended with exit code 0".to_owned()));
        questions += 2;
    }
    let runs = app.read("asked").lines().count();
    eprintln!("{questions} questions in {:?}, {runs} runs", start.elapsed());
    // At 0 s, 2 s and 4 s; later on a slow machine.
    assert!((2..=3).contains(&runs), "{runs} runs for {questions} questions");
}

#[test]
fn a_port_in_use_is_reported_in_one_line() {
    let listener = std::net::TcpListener::bind(("::", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let ns = namespace(shared(), "taken");
    let arguments = ["exec", "--http-port", &port.to_string(), "--", "/bin/true"];
    let mut command = crate::support::candidate_command(shared(), &ns, "weir", "otter", &arguments);
    let output = command.output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&format!("cannot listen on port {port}")), "{error}");
    assert!(get(shared(), &ns, "lease/weir").is_none(), "it took no part");
}

fn alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// Returns how many ended children of `parent` wait to be reaped.
fn zombies(parent: i32) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let stats = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    stats.filter(|stat| stat.contains(&format!(") Z {parent} "))).count()
}
