//! The JSON in which the operator hands probes and hooks over.

use std::time::Duration;

use k8sensus_candidate::app::AppSpec;
use k8sensus_candidate::app::spec::Action;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::CANDIDATE;

fn parse(spec: Value) -> Result<AppSpec, String> {
    AppSpec::parse(&spec.to_string())
}

#[test]
fn the_default_has_no_probes_and_a_grace_of_30_seconds() {
    for empty in [json!({}), json!({ "startupProbe": null, "lifecycle": null, "terminationGracePeriodSeconds": null })]
    {
        let spec = parse(empty).unwrap();
        assert!(spec.startup_probe.is_none() && spec.liveness_probe.is_none() && spec.readiness_probe.is_none());
        assert!(spec.post_start().is_none() && spec.pre_stop().is_none() && spec.stop_signal().is_none());
        assert_eq!(spec.grace(), Duration::from_secs(30));
    }
}

#[test]
fn too_long_times_are_clamped_to_the_longest() {
    let endless = json!({ "tcpSocket": { "port": 80 }, "initialDelaySeconds": 9_223_372_036_854_775_807_i64 });
    let spec = json!({ "terminationGracePeriodSeconds": 4_294_967_296_i64, "readinessProbe": endless });
    let spec = parse(spec).unwrap();
    let longest = Duration::from_secs(u32::MAX.into());
    assert_eq!((spec.grace(), spec.readiness_probe.unwrap().initial_delay()), (longest, longest));
    assert!(parse(json!({ "terminationGracePeriodSeconds": -1 })).is_err());
}

#[test]
fn a_probe_has_kubernetes_defaults_and_a_zero_is_one_of_them() {
    for probe in [
        json!({ "tcpSocket": { "port": 80 } }),
        json!({ "tcpSocket": { "port": "80" }, "timeoutSeconds": 0, "periodSeconds": 0, "successThreshold": 0, "failureThreshold": 0 }),
        json!({ "tcpSocket": { "port": 80, "new": 1 }, "timeoutSeconds": null, "new": { "field": [] } }),
    ] {
        let probe = parse(json!({ "readinessProbe": probe })).unwrap().readiness_probe.unwrap();
        assert_eq!(probe.initial_delay(), Duration::ZERO);
        assert_eq!((probe.timeout(), probe.period()), (Duration::from_secs(1), Duration::from_secs(10)));
        assert_eq!((probe.success_threshold(), probe.failure_threshold()), (1, 3));
        assert_eq!(probe.grace(), None);
        assert!(matches!(probe.handler().action(), Some(Action::TcpSocket(socket)) if socket.port == 80));
    }
}

#[test]
fn every_field_is_read() {
    let spec = parse(json!({
        "startupProbe": {
            "exec": { "command": ["/bin/kestrel", "--up"] }, "initialDelaySeconds": 1, "timeoutSeconds": 2, "periodSeconds": 3,
            "successThreshold": 4, "failureThreshold": 5, "terminationGracePeriodSeconds": 6,
        },
        "livenessProbe": { "grpc": { "port": 9000, "service": "weir" } },
        "readinessProbe": { "httpGet": {
            "path": "/up?full", "port": 8080, "host": "heron", "scheme": "HTTPS", "httpHeaders": [{ "name": "X-A", "value": "b" }],
        } },
        "lifecycle": {
            "postStart": { "sleep": { "seconds": 7 } }, "preStop": { "exec": { "command": ["drain"] } }, "stopSignal": "SIGUSR1",
        },
        "terminationGracePeriodSeconds": 8,
    }))
    .unwrap();
    let startup = spec.startup_probe.as_ref().unwrap();
    let seconds = Duration::from_secs;
    assert_eq!((startup.initial_delay(), startup.timeout(), startup.period()), (seconds(1), seconds(2), seconds(3)));
    assert_eq!((startup.success_threshold(), startup.failure_threshold()), (4, 5));
    assert_eq!(startup.grace(), Some(seconds(6)));
    assert!(matches!(startup.handler().action(), Some(Action::Exec(exec)) if exec.command == ["/bin/kestrel", "--up"]));
    let Some(Action::Grpc(call)) = spec.liveness_probe.as_ref().unwrap().handler().action() else { panic!("no grpc") };
    assert_eq!((call.port, call.service.as_deref()), (9000, Some("weir")));
    let Some(Action::HttpGet(get)) = spec.readiness_probe.as_ref().unwrap().handler().action() else {
        panic!("no httpGet")
    };
    assert_eq!((get.port, get.path.as_deref(), get.host.as_deref()), (8080, Some("/up?full"), Some("heron")));
    let header = &get.http_headers.as_ref().unwrap()[0];
    assert_eq!((get.scheme.as_deref(), header.name.as_str(), header.value.as_str()), (Some("HTTPS"), "X-A", "b"));
    assert!(matches!(spec.post_start().unwrap().action(), Some(Action::Sleep(time)) if time == seconds(7)));
    assert!(matches!(spec.pre_stop().unwrap().action(), Some(Action::Exec(exec)) if exec.command == ["drain"]));
    assert_eq!((spec.stop_signal(), spec.grace()), (Some(Signal::USR1), seconds(8)));
}

#[test]
fn invalid_specs_are_refused_with_their_field() {
    for (wrong, expected) in [
        (json!({ "readinessProbe": {} }), "expected one of exec, httpGet, tcpSocket and grpc in readinessProbe"),
        (json!({ "startupProbe": { "sleep": { "seconds": 1 } } }), "in startupProbe"),
        (json!({ "livenessProbe": { "tcpSocket": { "port": 1 }, "exec": { "command": ["a"] } } }), "in livenessProbe"),
        (json!({ "livenessProbe": { "tcpSocket": { "port": 0 } } }), "a port that is not a number from 1 to 65535"),
        (
            json!({ "livenessProbe": { "tcpSocket": { "port": "http" } } }),
            "a port that is not a number from 1 to 65535",
        ),
        (json!({ "livenessProbe": { "tcpSocket": { "port": 65536 } } }), "a port that is not a number from 1 to 65535"),
        (json!({ "lifecycle": { "preStop": {} } }), "expected one of exec, httpGet and sleep in lifecycle.preStop"),
        (json!({ "lifecycle": { "postStart": { "tcpSocket": { "port": 1 } } } }), "in lifecycle.postStart"),
        (
            json!({ "lifecycle": { "stopSignal": "SIGKESTREL" } }),
            "stopSignal \"SIGKESTREL\", which is not a Linux signal",
        ),
        (json!({ "terminationGracePeriodSeconds": -1 }), "invalid value: integer `-1`"),
        (json!("otter"), "expected the container's probes and hooks as JSON"),
    ] {
        let error = parse(wrong.clone()).expect_err(&wrong.to_string());
        assert!(error.contains(expected), "{wrong}: {error}");
    }
}

#[test]
fn an_invalid_spec_is_refused_in_one_line() {
    let output = std::process::Command::new(CANDIDATE)
        .args(["exec", "--lease-name=weir", "--identity=otter", "--", "/bin/true"])
        .env("K8SENSUS_APP", "{\"readinessProbe\":")
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains("expected the container's probes and hooks as JSON, found EOF"), "{error}");
}
