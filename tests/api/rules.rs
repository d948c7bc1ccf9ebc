//! Valid and invalid manifests, with the expected message of an API server. Data only: CEL needs a real API server.

use serde_json::{Value, json};

/// A manifest to create. `message` is a part of the refusal; `None` if it is accepted.
pub struct Case {
    pub name: &'static str,
    pub manifest: Value,
    pub message: Option<&'static str>,
}

/// A change of an existing group: `spec` before and after.
pub struct Change {
    pub name: &'static str,
    pub before: Value,
    pub after: Value,
    pub message: Option<&'static str>,
}

fn manifest(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "k8sensus.dev/v1alpha1", "kind": "ElectionGroup", "metadata": { "name": name }, "spec": spec })
}

/// Returns the minimal group of the README with further fields.
fn with(more: Value) -> Value {
    let mut spec = json!({ "image": "registry.example/billing:1.4", "command": ["/app/billing"] });
    spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    spec
}

/// Returns a group with a template of one valid container, with further fields of the pod.
fn pod(more: Value) -> Value {
    let mut spec = json!({ "containers": [{ "name": "main", "image": "billing:1.4", "command": ["/app/billing"] }] });
    spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    json!({ "template": { "spec": spec } })
}

/// Returns a group with a template of one valid container, with further fields of the container.
fn container(more: Value) -> Value {
    let mut spec = pod(json!({}));
    let main = spec["template"]["spec"]["containers"][0].as_object_mut().expect("an object");
    main.extend(more.as_object().expect("an object").clone());
    spec
}

fn mode(mode: &str, mut spec: Value) -> Value {
    spec["candidate"]["mode"] = mode.into();
    spec
}

fn timing(lease: i64, deadline: i64, retry: i64) -> Value {
    json!({ "leaseDurationSeconds": lease, "renewDeadlineSeconds": deadline, "retryPeriodSeconds": retry })
}

fn containers(count: usize) -> Value {
    (0..count)
        .map(|i| json!({ "name": format!("c{i}"), "image": "billing:1.4", "command": ["/app/billing"] }))
        .collect()
}

fn ports(names: &[Option<&str>]) -> Value {
    let port = |(i, name): (usize, &Option<&str>)| match name {
        Some(name) => json!({ "name": name, "port": 80 + i }),
        None => json!({ "port": 80 + i }),
    };
    json!({ "leaderService": { "ports": names.iter().enumerate().map(port).collect::<Vec<_>>() } })
}

fn twice_80() -> Value {
    json!({ "leaderService": { "ports": [{ "name": "a", "port": 80 }, { "name": "b", "port": 80 }] } })
}

fn target(port: Value) -> Value {
    json!({ "leaderService": { "ports": [{ "port": 80, "targetPort": port }] } })
}

fn budget(max_unavailable: Value) -> Value {
    json!({ "podDisruptionBudget": { "maxUnavailable": max_unavailable } })
}

fn rolling(update: Value) -> Value {
    with(json!({ "strategy": { "type": "RollingUpdate", "rollingUpdate": update } }))
}

/// Returns all cases of a creation.
pub fn cases() -> Vec<Case> {
    [names(), sources(), templates(), timings(), bounds()].into_iter().flatten().collect()
}

fn ok(name: &'static str, spec: Value) -> Case {
    Case { name, manifest: manifest("billing", spec), message: None }
}

fn refused(name: &'static str, message: &'static str, spec: Value) -> Case {
    Case { name, manifest: manifest("billing", spec), message: Some(message) }
}

fn names() -> Vec<Case> {
    let named =
        |name, metadata_name: &str, message| Case { name, manifest: manifest(metadata_name, with(json!({}))), message };
    let rule = Some("metadata.name must be at most 52 characters");
    vec![
        named("a name of 52 characters", &"n".repeat(52), None),
        named("a name of 53 characters", &"n".repeat(53), rule),
        named("a name with a dot", "billing.eu", rule),
        named("a name that begins with a digit", "4billing", rule),
        named("a name of one letter", "b", None),
    ]
}

fn sources() -> Vec<Case> {
    let one_of = "set exactly one of image and template";
    let go_with = "command and args are only allowed with image";
    vec![
        ok("the minimal group", with(json!({}))),
        ok("image with args", with(json!({ "args": ["--verbose"] }))),
        refused("neither image nor template", one_of, json!({})),
        refused("image and template", one_of, with(pod(json!({})))),
        refused("an empty image", "spec.image: Invalid value", with(json!({ "image": "" }))),
        refused("an image with a space", "spec.image: Invalid value", with(json!({ "image": "billing :1" }))),
        refused("template with command", go_with, {
            let mut spec = pod(json!({}));
            spec["command"] = json!(["/app/billing"]);
            spec
        }),
        refused("template with args", go_with, {
            let mut spec = pod(json!({}));
            spec["args"] = json!(["--verbose"]);
            spec
        }),
        refused("Exec with image alone", "command is needed in mode Exec", json!({ "image": "billing:1.4" })),
        refused("an empty command", "spec.command: Invalid value", with(json!({ "command": [] }))),
        ok("Sidecar with image alone", mode("Sidecar", json!({ "image": "billing:1.4" }))),
        ok("Native with image alone", mode("Native", json!({ "image": "billing:1.4" }))),
        refused("an unknown mode", "Unsupported value: \"Magic\"", mode("Magic", with(json!({})))),
        ok("container app with image", with(json!({ "candidate": { "container": "app" } }))),
        refused(
            "another container with image",
            "container must be app, or unset",
            with(json!({ "candidate": { "container": "main" } })),
        ),
    ]
}

fn templates() -> Vec<Case> {
    let bare = json!({ "containers": [{ "name": "main", "image": "billing:1.4" }] });
    let pair = json!({ "containers": [
        { "name": "proxy", "image": "proxy:1" },
        { "name": "main", "image": "billing:1.4", "command": ["/app/billing"] },
    ] });
    let leads = |name: &str, mut spec: Value| {
        spec["candidate"] = json!({ "container": name });
        spec
    };
    let labelled = |at: &str, key: &str| {
        let mut spec = pod(json!({}));
        spec["template"]["metadata"] = json!({ at: { key: "x" } });
        spec
    };
    let needs_command = "the container that leads (candidate.container, or else the first) needs a command";
    vec![
        ok("a template", pod(json!({}))),
        ok("a template with an explicit null, as generators leave it", {
            let mut spec = pod(json!({}));
            spec["template"]["metadata"] = json!({ "creationTimestamp": null, "labels": { "team": "money" } });
            spec
        }),
        refused("a template without spec", "spec.template.spec: Required value", json!({ "template": {} })),
        refused("a template without containers", "spec.template.spec.containers", pod(json!({ "containers": [] }))),
        refused(
            "a hundred containers",
            "spec.template.spec.containers: Too many",
            pod(json!({ "containers": containers(100) })),
        ),
        ok("32 containers", pod(json!({ "containers": containers(32) }))),
        refused("Exec without a command in the first container", needs_command, pod(bare.clone())),
        ok("Sidecar without a command", mode("Sidecar", pod(bare.clone()))),
        ok("Native without a command", mode("Native", pod(bare))),
        refused("Exec with a command in the second container", needs_command, pod(pair.clone())),
        ok("Exec with the second container to lead", leads("main", pod(pair.clone()))),
        refused("Exec with a container to lead that has no command", needs_command, leads("proxy", pod(pair.clone()))),
        refused(
            "a container to lead that is not there",
            "container must be the name of one of",
            leads("app", pod(pair)),
        ),
        refused("a reserved label", "labels that begin with k8sensus.dev/", labelled("labels", "k8sensus.dev/role")),
        refused(
            "a reserved annotation",
            "annotations that begin with k8sensus.dev/",
            labelled("annotations", "k8sensus.dev/incarnation"),
        ),
        ok("labels of the user's", labelled("labels", "example.com/role")),
        refused(
            "serviceAccountName in the template",
            "set spec.serviceAccount.name instead of the template's serviceAccountName",
            pod(json!({ "serviceAccountName": "robot" })),
        ),
        refused(
            "serviceAccount in the template",
            "set spec.serviceAccount.name instead of the template's serviceAccount:",
            pod(json!({ "serviceAccount": "robot" })),
        ),
        refused("restartPolicy Never", "restartPolicy must be Always", pod(json!({ "restartPolicy": "Never" }))),
        ok("restartPolicy Always", pod(json!({ "restartPolicy": "Always" }))),
        refused("hostPID in Exec", "hostPID must not be true in mode Exec", pod(json!({ "hostPID": true }))),
        ok("hostPID false in Exec", pod(json!({ "hostPID": false }))),
        ok("hostPID in Native", mode("Native", pod(json!({ "hostPID": true })))),
        refused(
            "shareProcessNamespace in Exec",
            "shareProcessNamespace must not be true in mode Exec",
            pod(json!({ "shareProcessNamespace": true })),
        ),
        ok("shareProcessNamespace in Sidecar", mode("Sidecar", pod(json!({ "shareProcessNamespace": true })))),
        ok("a variable that every pod has", container(json!({ "env": [{ "name": "POD_NAME", "value": "me" }] }))),
        ok("a mount whose name only begins so", {
            let mount = json!([{ "name": "k8sensus2", "mountPath": "/.k8sensus-data" }]);
            let mut spec = container(json!({ "volumeMounts": mount }));
            spec["template"]["spec"]["volumes"] = json!([{ "name": "k8sensus2", "emptyDir": {} }]);
            spec
        }),
        refused(
            "a container with a reserved name",
            "names of containers that begin with k8sensus- are reserved",
            container(json!({ "name": "k8sensus-run" })),
        ),
        refused(
            "a template whose command begins with nothing",
            "the command of the container that leads must begin with the program to run",
            container(json!({ "command": ["", "/app/billing"] })),
        ),
        ok("a template whose command begins with nothing where it is not wrapped", {
            mode("Native", container(json!({ "command": ["", "/app/billing"] })))
        }),
        ok("an account of no name, as generators leave it", pod(json!({ "serviceAccountName": "" }))),
        refused("a typo in the template", "unknown field \"spec.template.spec.volums\"", pod(json!({ "volums": [] }))),
        refused(
            "a quantity that is none",
            "spec.template.spec.overhead",
            pod(json!({ "overhead": { "memory": "much" } })),
        ),
    ]
}

fn timings() -> Vec<Case> {
    let timed = |lease, deadline, retry| with(json!({ "election": timing(lease, deadline, retry) }));
    let graced = |grace: i64, election: Value| {
        with(json!({ "candidate": { "stopGracePeriodSeconds": grace }, "election": election }))
    };
    let native = |spec| mode("Native", spec);
    let grace = "10 x (election.renewDeadlineSeconds + stopGracePeriodSeconds) must be at most";
    vec![
        ok("an empty election", with(json!({ "election": {}, "candidate": {} }))),
        ok("an election of null", with(json!({ "election": null, "candidate": null }))),
        ok("a lease of 3, 2, 1", timed(3, 2, 1)),
        ok("a lease of an hour", timed(3600, 3000, 2000)),
        refused(
            "lease equal to deadline",
            "leaseDurationSeconds must be greater than renewDeadlineSeconds: 10 is not",
            timed(10, 10, 2),
        ),
        refused(
            "lease shorter than the default deadline",
            "9 is not greater than 10",
            with(json!({ "election": { "leaseDurationSeconds": 9 } })),
        ),
        refused(
            "deadline 1.2 times retry",
            "renewDeadlineSeconds must be greater than 1.2 x retryPeriodSeconds: 12 is not",
            timed(30, 12, 10),
        ),
        ok("deadline just above 1.2 times retry", timed(30, 13, 10)),
        refused(
            "interval equal to deadline",
            "renewIntervalSeconds must be less than renewDeadlineSeconds: 10 is not",
            with(json!({ "election": { "renewIntervalSeconds": 10 } })),
        ),
        ok("interval below deadline", with(json!({ "election": { "renewIntervalSeconds": 9 } }))),
        ok("the longest stop grace", graced(3, json!({}))),
        refused(
            "a stop grace too long",
            "at most 3, with renewDeadlineSeconds 10 and leaseDurationSeconds 15",
            graced(4, json!({})),
        ),
        refused("a stop grace on a lease of 3, 2, 1", grace, graced(1, timing(3, 2, 1))),
        ok("no stop grace on a lease of 3, 2, 1", graced(0, timing(3, 2, 1))),
        ok("a long stop grace where it has no meaning", native(graced(100, json!({})))),
        refused(
            "a deadline within the margin",
            "10 x renewDeadlineSeconds must be at most 9 x leaseDurationSeconds",
            timed(15, 14, 2),
        ),
        ok("a deadline within the margin where nothing is stopped", native(timed(15, 14, 2))),
        refused("a stop grace too long beside a sidecar", grace, mode("Sidecar", graced(4, json!({})))),
        refused(
            "a deadline within the margin beside a sidecar",
            "10 x renewDeadlineSeconds must be at most 9 x leaseDurationSeconds",
            mode("Sidecar", timed(15, 14, 2)),
        ),
    ]
}

fn bounds() -> Vec<Case> {
    let replicas = |n: i64| with(json!({ "replicas": n }));
    let election = |field: &str, n: i64| with(json!({ "election": { field: n } }));
    let port = |n: i64| with(json!({ "candidate": { "httpPort": n } }));
    let each = "each port needs a unique name";
    let a_target = "targetPort must be a number from 1 to 65535";
    let a_budget = "maxUnavailable must be a number from 0 to 100";
    vec![
        ok("no replicas", replicas(0)),
        ok("a hundred replicas", replicas(100)),
        refused("replicas -1", "spec.replicas: Invalid value", replicas(-1)),
        refused("a million replicas", "spec.replicas: Invalid value", replicas(1_000_000)),
        refused(
            "a lease of 0",
            "spec.election.leaseDurationSeconds: Invalid value",
            election("leaseDurationSeconds", 0),
        ),
        refused(
            "a negative deadline",
            "spec.election.renewDeadlineSeconds: Invalid value",
            election("renewDeadlineSeconds", -1),
        ),
        refused(
            "a lease of 2^31",
            "spec.election.leaseDurationSeconds: Invalid value",
            election("leaseDurationSeconds", 1 << 31),
        ),
        refused("a retry of 0", "spec.election.retryPeriodSeconds: Invalid value", election("retryPeriodSeconds", 0)),
        refused("a privileged httpPort", "spec.candidate.httpPort: Invalid value", port(80)),
        refused("an httpPort of 65536", "spec.candidate.httpPort: Invalid value", port(65536)),
        refused("an unknown field", "unknown field \"spec.replica\"", with(json!({ "replica": 2 }))),
        refused("101 arguments", "spec.args: Too many", with(json!({ "args": vec!["x"; 101] }))),
        refused(
            "a lease name with a slash",
            "spec.election.leaseName",
            with(json!({ "election": { "leaseName": "a/b" } })),
        ),
        ok("a lease name with dots", with(json!({ "election": { "leaseName": "billing.v2" } }))),
        ok("an existing service account", with(json!({ "serviceAccount": { "name": "robot" } }))),
        refused(
            "a reserved annotation of the service account",
            "annotations that begin with k8sensus.dev/",
            with(json!({ "serviceAccount": { "annotations": { "k8sensus.dev/x": "y" } } })),
        ),
        ok("one port without a name", with(ports(&[None]))),
        ok("two ports with names", with(ports(&[Some("http"), Some("admin")]))),
        refused("two ports, one without a name", each, with(ports(&[Some("http"), None]))),
        refused("two ports of one name", each, with(ports(&[Some("http"), Some("http")]))),
        refused("two ports of one number", "spec.leaderService.ports[1]: Duplicate value", with(twice_80())),
        refused("no ports", "spec.leaderService.ports", with(ports(&[]))),
        refused("17 ports", "spec.leaderService.ports: Too many", with(ports(&[Some("http"); 17]))),
        ok("a numeric targetPort", with(target(json!(8080)))),
        ok("a named targetPort", with(target(json!("http")))),
        refused("targetPort 0", a_target, with(target(json!(0)))),
        refused("a targetPort of digits in quotes", a_target, with(target(json!("8080")))),
        ok("a budget of 0", with(budget(json!(0)))),
        ok("a budget of half", with(budget(json!("50%")))),
        refused("a budget of -1", a_budget, with(budget(json!(-1)))),
        refused("a budget of 101%", a_budget, with(budget(json!("101%")))),
        ok("strategy Recreate", with(json!({ "strategy": { "type": "Recreate" } }))),
        ok("a rolling update", rolling(json!({ "maxSurge": "150%", "maxUnavailable": 0 }))),
        refused(
            "more than all pods unavailable",
            "maxUnavailable must be a number from 0 or a percentage from 0% to 100%",
            rolling(json!({ "maxUnavailable": "101%" })),
        ),
        refused(
            "an unknown strategy",
            "spec.strategy.type: Unsupported value",
            with(json!({ "strategy": { "type": "BigBang" } })),
        ),
    ]
}

/// Returns all cases of a change. The group is named billing.
pub fn changes() -> Vec<Change> {
    let leased = |lease: Option<&str>| match lease {
        Some(lease) => with(json!({ "election": { "leaseName": lease } })),
        None => with(json!({})),
    };
    let change = |name, before, after, message| Change { name, before, after, message };
    let fixed = Some("leaseName cannot be changed");
    vec![
        change("a lease name is changed", leased(Some("a")), leased(Some("b")), fixed),
        change("a lease name is removed", leased(Some("a")), leased(None), fixed),
        change("another lease name is set", leased(None), leased(Some("b")), fixed),
        change("the default lease name is written out", leased(None), leased(Some("billing")), None),
        change("a lease name that was the default is removed", leased(Some("billing")), leased(None), None),
        change(
            "the whole election is removed, its lease name with it",
            leased(Some("a")),
            with(json!({ "replicas": 3 })),
            fixed,
        ),
        change("the timing is changed", leased(None), with(json!({ "election": timing(30, 20, 2) })), None),
        change("the image gives way to a template", with(json!({})), pod(json!({})), None),
        change(
            "everything else is changed",
            leased(Some("a")),
            {
                let mut spec = mode("Sidecar", leased(Some("a")));
                spec["replicas"] = 5.into();
                spec["suspend"] = true.into();
                spec
            },
            None,
        ),
    ]
}
