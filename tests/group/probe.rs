use k8sensus_candidate::app::AppSpec;
use k8sensus_candidate::app::signal::name_of;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{children, group_of, valid, yaml};

/// Returns the leading container of the Deployment, made from one with these further fields, and `K8SENSUS_APP` as
/// JSON.
fn handed_over(more: &str) -> (Value, Value) {
    let container = written(more);
    let spec = json!({ "spec": { "terminationGracePeriodSeconds": 45, "containers": [container] } });
    let deployment = children(&group_of(json!({ "template": spec }))).deployment;
    let container = deployment["spec"]["template"]["spec"]["containers"][0].clone();
    let app = container["env"].as_array().expect("env").iter().find(|one| one["name"] == "K8SENSUS_APP").cloned();
    let app = app.expect("K8SENSUS_APP")["value"].as_str().expect("text").replace("$$", "$");
    (container, serde_json::from_str(&app).expect("JSON"))
}

fn written(more: &str) -> Value {
    let mut container = yaml("{ name: main, image: b, command: [/b], ports: [{ name: web, containerPort: 8080 }] }");
    let Value::Object(more) = yaml(more) else { panic!("a mapping") };
    container.as_object_mut().expect("a mapping").extend(more);
    container
}

#[test]
fn program_without_probes_gets_only_the_candidates_readiness_probe() {
    let (container, app) = handed_over("readinessProbe: null");
    for probe in ["startupProbe", "livenessProbe", "lifecycle"] {
        assert_eq!(container.get(probe), None);
    }
    let expected = yaml(
        "{ httpGet: { path: /readyz, port: 4040, scheme: HTTP }, periodSeconds: 2, failureThreshold: 3, timeoutSeconds: 5 }",
    );
    assert_eq!(container["readinessProbe"], expected);
    assert_eq!(app, json!({ "terminationGracePeriodSeconds": 45 }));
}

#[test]
fn kubelet_probes_the_candidate_which_knows_the_programs_probes() {
    let liveness = "livenessProbe: { httpGet: { path: /live, port: web }, periodSeconds: 7, failureThreshold: 4, \
                    initialDelaySeconds: 20, timeoutSeconds: 3, terminationGracePeriodSeconds: 9 }";
    let (container, app) = handed_over(liveness);
    let expected = yaml(
        "{ httpGet: { path: /app-health/liveness, port: 4040, scheme: HTTP }, periodSeconds: 7, failureThreshold: 4, \
           timeoutSeconds: 4, terminationGracePeriodSeconds: 9 }",
    );
    assert_eq!(container["livenessProbe"], expected, "a standby has nothing to wait for");
    let mut original = yaml(liveness)["livenessProbe"].clone();
    original["httpGet"]["port"] = json!(8080);
    assert_eq!(app["livenessProbe"], original);

    let readiness = "readinessProbe: { tcpSocket: { port: web }, failureThreshold: 5, successThreshold: 2 }";
    let (container, app) = handed_over(readiness);
    let expected = yaml(
        "{ httpGet: { path: /app-health/readiness, port: 4040, scheme: HTTP }, failureThreshold: 1, successThreshold: 1, \
           timeoutSeconds: 2 }",
    );
    assert_eq!(container["readinessProbe"], expected);
    assert_eq!(
        app["readinessProbe"],
        json!({ "tcpSocket": { "port": 8080 }, "failureThreshold": 5, "successThreshold": 2 })
    );
}

#[test]
fn startup_probe_and_hooks_are_carried_out_by_the_candidate_alone() {
    let (container, app) = handed_over(
        "{ startupProbe: { exec: { command: [/ready, $HOME] } }, \
           lifecycle: { postStart: { exec: { command: [/warm] } }, preStop: { httpGet: { port: web } }, stopSignal: SIGQUIT } }",
    );
    assert_eq!((container.get("startupProbe"), container.get("lifecycle")), (None, None));
    assert_eq!(app["startupProbe"], json!({ "exec": { "command": ["/ready", "$HOME"] } }));
    let hooks = json!({ "postStart": { "exec": { "command": ["/warm"] } }, "preStop": { "httpGet": { "port": 8080 } }, "stopSignal": "SIGQUIT" });
    assert_eq!(app["lifecycle"], hooks);
}

#[test]
fn variable_references_in_probes_are_escaped() {
    let (container, _) = handed_over("livenessProbe: { exec: { command: [echo, $(POD_NAME)] } }");
    assert!(container["env"].to_string().contains("$$(POD_NAME)"));
}

#[test]
fn probe_command_is_expanded_as_the_kubelet_would() {
    const ENV: &str = "env: [{ name: POD_NAME, value: users-own }, { name: A, value: $(B) }, { name: EMPTY }, \
                       { name: FROM, valueFrom: { fieldRef: { fieldPath: spec.nodeName } } }]";
    for (written, expected) in [
        ("-a=$(A), $(A)", "-a=$(B), $(B)"),
        ("<$(EMPTY)>", "<>"),
        ("$(K8SENSUS_HTTP_PORT)", "4040"),
        ("$(POD_NAME) $(FROM) $(NONE)", "$(POD_NAME) $(FROM) $(NONE)"),
        ("$$(A) $$$(A) $$", "$(A) $$(B) $"),
        ("$A $ $(A $", "$A $ $(A $"),
        ("$(A$(A))", "$(A$(A))"),
    ] {
        for kind in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let (_, app) = handed_over(&format!("{{ {ENV}, {kind}: {{ exec: {{ command: [/a, '{written}'] }} }} }}"));
            assert_eq!(app[kind]["exec"]["command"], json!(["/a", expected]), "{kind}: {written}");
        }
        let hook = format!("{{ {ENV}, lifecycle: {{ preStop: {{ exec: {{ command: ['{written}'] }} }} }} }}");
        assert_eq!(handed_over(&hook).1["lifecycle"]["preStop"]["exec"]["command"], json!([written]), "a hook's stays");
    }
}

/// Returns the verdict of the operator, and that of a candidate that gets the same fields.
fn verdicts(lifecycle: &Value) -> (Result<(), String>, Result<(), String>) {
    let mut container = written("{}");
    container["lifecycle"] = lifecycle.clone();
    let group = group_of(json!({ "template": { "spec": { "containers": [container] } } }));
    let operator = k8sensus_group::Group::check(&group).map(drop).map_err(|error| error.to_string());
    (operator, AppSpec::parse(&json!({ "lifecycle": lifecycle }).to_string()).map(drop))
}

#[test]
fn hooks_that_a_candidate_cannot_parse_are_refused_by_field() {
    let real_time = (1..=15).map(|n| format!("SIGRTMIN+{n}")).chain((1..=14).map(|n| format!("SIGRTMAX-{n}")));
    let known = (1..=31).filter_map(Signal::from_named_raw).map(name_of);
    let others = ["SIGCLD", "SIGIOT", "SIGPOLL", "SIGRTMIN", "SIGRTMAX"].map(str::to_owned);
    for name in known.chain(others).chain(real_time) {
        assert_eq!(verdicts(&json!({ "stopSignal": name })), (Ok(()), Ok(())), "{name}");
    }
    for unknown in ["", "QUIT", "SIG", "sigquit", "SIGNOPE", "SIGRTMIN+99", "SIGRTMIN++1", "SIGRTMAX-", "SIGRTMAX+1"] {
        let (operator, candidate) = verdicts(&json!({ "stopSignal": unknown }));
        let error = operator.unwrap_err();
        assert!(
            error.starts_with("spec.template.spec.containers[main].lifecycle.stopSignal: must be the name of a signal"),
            "{error}"
        );
        assert!(candidate.is_err(), "{unknown}");
    }
    for seconds in [-1, 4_294_967_296_i64] {
        let (operator, candidate) = verdicts(&json!({ "preStop": { "sleep": { "seconds": seconds } } }));
        let error = operator.unwrap_err();
        assert!(
            error.contains("lifecycle.preStop.sleep.seconds: must be a number from 0 to 4294967295, found"),
            "{error}"
        );
        assert!(candidate.is_err(), "{seconds}");
    }
    assert_eq!(verdicts(&json!({ "preStop": { "sleep": { "seconds": 0 } } })), (Ok(()), Ok(())));
    let (operator, candidate) = verdicts(&json!({ "postStart": { "tcpSocket": { "port": 80 } } }));
    let error = operator.unwrap_err();
    assert!(
        error.ends_with("lifecycle.postStart: must have exactly one of exec, httpGet, sleep, found none"),
        "{error}"
    );
    assert!(candidate.is_err());
}

#[test]
fn probes_that_the_api_server_would_have_refused_are_refused() {
    for (more, expected) in [
        ("livenessProbe: {}", "livenessProbe: must have exactly one of exec, grpc, httpGet, tcpSocket, found none"),
        (
            "readinessProbe: { exec: { command: [/a] }, grpc: { port: 1 } }",
            "readinessProbe: must have exactly one of exec, grpc, httpGet, tcpSocket, found exec and grpc",
        ),
        ("startupProbe: { exec: { command: [] } }", "startupProbe.exec.command: must name the program to run"),
        (
            "livenessProbe: { httpGet: { port: admin } }",
            "livenessProbe.httpGet.port: must be a number from 1 to 65535 or the name of a port of this container, found \"admin\"",
        ),
        (
            "livenessProbe: { grpc: { port: 65536 } }",
            "livenessProbe.grpc.port: must be a number from 1 to 65535 or the name of a port of this container, found 65536",
        ),
        (
            "livenessProbe: { tcpSocket: { port: 1 }, successThreshold: 2 }",
            "livenessProbe.successThreshold: must be 1, found 2",
        ),
        (
            "readinessProbe: { tcpSocket: { port: 1 }, periodSeconds: -1 }",
            "readinessProbe.periodSeconds: must be at least 0, found -1",
        ),
        (
            "lifecycle: { preStop: { exec: { command: [/a] }, sleep: { seconds: 1 } } }",
            "lifecycle.preStop: must have exactly one of exec, httpGet, sleep, found exec and sleep",
        ),
    ] {
        let group = group_of(json!({ "template": { "spec": { "containers": [written(more)] } } }));
        let refused = k8sensus_group::Group::check(&group).expect_err(more);
        assert_eq!(refused.to_string(), format!("spec.template.spec.containers[main].{expected}"));
        let mut native = group;
        native.spec.candidate.mode = k8sensus_api::Mode::Native;
        valid(&native);
    }
}
