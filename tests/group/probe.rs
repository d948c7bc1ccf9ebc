use k8sensus::candidate::app::AppSpec;
use k8sensus::candidate::app::signal::name_of;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{children, group_of, valid, yaml};

/// The leading container as it goes into the Deployment, of one with these fields besides, and what the candidate is told.
fn handed_over(more: &str) -> (Value, Value) {
    let container = written(more);
    let spec = json!({ "spec": { "terminationGracePeriodSeconds": 45, "containers": [container] } });
    let deployment = children(&group_of(json!({ "template": spec }))).deployment;
    let container = deployment["spec"]["template"]["spec"]["containers"][0].clone();
    let told = container["env"].as_array().expect("env").iter().find(|one| one["name"] == "K8SENSUS_APP").cloned();
    let told = told.expect("the candidate is told")["value"].as_str().expect("text").replace("$$", "$");
    (container, serde_json::from_str(&told).expect("JSON"))
}

fn written(more: &str) -> Value {
    let mut container = yaml("{ name: main, image: b, command: [/b], ports: [{ name: web, containerPort: 8080 }] }");
    let Value::Object(more) = yaml(more) else { panic!("a mapping") };
    container.as_object_mut().expect("a mapping").extend(more);
    container
}

#[test]
fn a_program_without_probes_gets_none_but_that_the_candidate_has_seen_the_lease() {
    let (container, told) = handed_over("readinessProbe: null");
    for probe in ["startupProbe", "livenessProbe", "lifecycle"] {
        assert_eq!(container.get(probe), None);
    }
    let asked = yaml(
        "{ httpGet: { path: /readyz, port: 4040, scheme: HTTP }, periodSeconds: 2, failureThreshold: 3, timeoutSeconds: 5 }",
    );
    assert_eq!(container["readinessProbe"], asked);
    assert_eq!(told, json!({ "terminationGracePeriodSeconds": 45 }));
}

#[test]
fn the_kubelet_asks_the_candidate_and_the_candidate_knows_the_question() {
    let liveness = "livenessProbe: { httpGet: { path: /live, port: web }, periodSeconds: 7, failureThreshold: 4, \
                    initialDelaySeconds: 20, timeoutSeconds: 3, terminationGracePeriodSeconds: 9 }";
    let (container, told) = handed_over(liveness);
    let asked = yaml(
        "{ httpGet: { path: /app-health/liveness, port: 4040, scheme: HTTP }, periodSeconds: 7, failureThreshold: 4, \
           timeoutSeconds: 4, terminationGracePeriodSeconds: 9 }",
    );
    assert_eq!(container["livenessProbe"], asked, "a standby has nothing to wait for");
    let mut original = yaml(liveness)["livenessProbe"].clone();
    original["httpGet"]["port"] = json!(8080);
    assert_eq!(told["livenessProbe"], original);

    let readiness = "readinessProbe: { tcpSocket: { port: web }, failureThreshold: 5, successThreshold: 2 }";
    let (container, told) = handed_over(readiness);
    let asked = yaml(
        "{ httpGet: { path: /app-health/readiness, port: 4040, scheme: HTTP }, failureThreshold: 1, successThreshold: 1, \
           timeoutSeconds: 2 }",
    );
    assert_eq!(container["readinessProbe"], asked);
    assert_eq!(
        told["readinessProbe"],
        json!({ "tcpSocket": { "port": 8080 }, "failureThreshold": 5, "successThreshold": 2 })
    );
}

#[test]
fn what_happens_at_the_programs_start_and_end_is_the_candidates_alone() {
    let (container, told) = handed_over(
        "{ startupProbe: { exec: { command: [/ready, $HOME] } }, \
           lifecycle: { postStart: { exec: { command: [/warm] } }, preStop: { httpGet: { port: web } }, stopSignal: SIGQUIT } }",
    );
    assert_eq!((container.get("startupProbe"), container.get("lifecycle")), (None, None));
    assert_eq!(told["startupProbe"], json!({ "exec": { "command": ["/ready", "$HOME"] } }));
    let hooks = json!({ "postStart": { "exec": { "command": ["/warm"] } }, "preStop": { "httpGet": { "port": 8080 } }, "stopSignal": "SIGQUIT" });
    assert_eq!(told["lifecycle"], hooks);
}

#[test]
fn what_the_kubelet_would_put_in_place_of_a_variable_stays() {
    let (container, _) = handed_over("livenessProbe: { exec: { command: [echo, $(POD_NAME)] } }");
    assert!(container["env"].to_string().contains("$$(POD_NAME)"));
}

#[test]
fn a_probes_command_has_the_variables_that_are_written_out_as_the_kubelet_would_have_it() {
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
            let (_, told) = handed_over(&format!("{{ {ENV}, {kind}: {{ exec: {{ command: [/a, '{written}'] }} }} }}"));
            assert_eq!(told[kind]["exec"]["command"], json!(["/a", expected]), "{kind}: {written}");
        }
        let hook = format!("{{ {ENV}, lifecycle: {{ preStop: {{ exec: {{ command: ['{written}'] }} }} }} }}");
        assert_eq!(handed_over(&hook).1["lifecycle"]["preStop"]["exec"]["command"], json!([written]), "a hook's stays");
    }
}

/// The word of the operator, and that of the candidate of a spec that got past it.
fn verdicts(lifecycle: &Value) -> (Result<(), String>, Result<(), String>) {
    let mut container = written("{}");
    container["lifecycle"] = lifecycle.clone();
    let group = group_of(json!({ "template": { "spec": { "containers": [container] } } }));
    let operator = k8sensus::group::Group::check(&group).map(drop).map_err(|error| error.to_string());
    (operator, AppSpec::parse(&json!({ "lifecycle": lifecycle }).to_string()).map(drop))
}

#[test]
fn what_a_candidate_could_not_read_is_refused_by_its_field() {
    let real_time = (1..=15).map(|n| format!("SIGRTMIN+{n}")).chain((1..=14).map(|n| format!("SIGRTMAX-{n}")));
    let known = (1..=31).filter_map(Signal::from_named_raw).map(name_of);
    let others = ["SIGCLD", "SIGIOT", "SIGPOLL", "SIGRTMIN", "SIGRTMAX"].map(str::to_owned);
    for name in known.chain(others).chain(real_time) {
        assert_eq!(verdicts(&json!({ "stopSignal": name })), (Ok(()), Ok(())), "{name}");
    }
    for unknown in ["", "QUIT", "SIG", "sigquit", "SIGNOPE", "SIGRTMIN+99", "SIGRTMIN++1", "SIGRTMAX-", "SIGRTMAX+1"] {
        let (operator, candidate) = verdicts(&json!({ "stopSignal": unknown }));
        let said = operator.unwrap_err();
        assert!(
            said.starts_with("spec.template.spec.containers[main].lifecycle.stopSignal: must be the name of a signal"),
            "{said}"
        );
        assert!(candidate.is_err(), "{unknown}");
    }
    for seconds in [-1, 4_294_967_296_i64] {
        let (operator, candidate) = verdicts(&json!({ "preStop": { "sleep": { "seconds": seconds } } }));
        let said = operator.unwrap_err();
        assert!(
            said.contains("lifecycle.preStop.sleep.seconds: must be a number from 0 to 4294967295, found"),
            "{said}"
        );
        assert!(candidate.is_err(), "{seconds}");
    }
    assert_eq!(verdicts(&json!({ "preStop": { "sleep": { "seconds": 0 } } })), (Ok(()), Ok(())));
    let (operator, candidate) = verdicts(&json!({ "postStart": { "tcpSocket": { "port": 80 } } }));
    let said = operator.unwrap_err();
    assert!(said.ends_with("lifecycle.postStart: must have exactly one of exec, httpGet, sleep, found none"), "{said}");
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
        let refused = k8sensus::group::Group::check(&group).expect_err(more);
        assert_eq!(refused.to_string(), format!("spec.template.spec.containers[main].{expected}"));
        let mut native = group;
        native.spec.candidate.mode = k8sensus::api::Mode::Native;
        valid(&native);
    }
}
