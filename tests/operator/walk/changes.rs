//! The changes of a group's spec in a walk.

use k8sensus_api::ElectionGroup;
use k8sensus_group::Group;
use k8sensus_group::spec::drop_nulls;
use serde_json::{Value, json};

use crate::support::group;
use crate::support::random::Random;

/// The change between `spec.image` and `spec.template`.
const FORM: &str = "/form";
/// The reversal of one list of the pod template.
const ORDER: &str = "/order";

/// Returns each field to change, as a JSON pointer into the spec, with its possible values; null removes the field.
/// Excludes values that the API server refuses in a Deployment, and lists that refer to another list that may be
/// removed.
pub fn choices() -> Vec<(&'static str, Value)> {
    let mut choices = of_group();
    choices.extend(of_pod());
    choices.extend(of_container());
    choices
}

fn of_group() -> Vec<(&'static str, Value)> {
    let timing = |lease: i32, renew: i32, retry: i32| json!({ "leaseDurationSeconds": lease, "renewDeadlineSeconds": renew, "retryPeriodSeconds": retry });
    let mut spaced = timing(60, 40, 5);
    spaced["renewIntervalSeconds"] = json!(7);
    let rolling = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 2, "maxUnavailable": "30%" } });
    let two_ports = json!([{ "name": "http", "port": 80 }, { "name": "metrics", "port": 9090, "targetPort": 9091 }]);
    vec![
        (FORM, json!([])),
        (ORDER, json!([])),
        ("/replicas", json!([null, 0, 1, 2, 3])),
        ("/suspend", json!([null, true])),
        ("/image", json!(["registry.example/kestrel:1", "registry.example/kestrel:2"])),
        ("/command", json!([null, ["/kestrel"], ["/kestrel", "--fast"]])),
        ("/args", json!([null, [], ["--loud"], ["--loud", "--config=$(HOME)/kestrel"]])),
        ("/candidate", json!([null, {}])),
        ("/candidate/mode", json!([null, "Exec", "Sidecar", "Native"])),
        ("/candidate/container", json!([null, "app"])),
        ("/candidate/httpPort", json!([null, 4141])),
        ("/candidate/stopGracePeriodSeconds", json!([null, 0, 1])),
        ("/candidate/unhealthyTimeoutSeconds", json!([null, 0, 60])),
        (
            "/candidate/resources",
            json!([null, {}, { "requests": { "cpu": "20m" } }, { "limits": { "cpu": "0.5", "memory": "128Mi" } }]),
        ),
        ("/election", json!([null, timing(120, 80, 5), timing(8, 5, 2), spaced])),
        (
            "/serviceAccount",
            json!([
                null, {}, { "name": "other" }, { "annotations": { "example.com/role": "kestrel" } },
                { "annotations": { "example.com/role": "falcon", "example.com/zone": "a" } },
            ]),
        ),
        (
            "/leaderService",
            json!([
                null,
                { "ports": [{ "port": 80, "targetPort": 8080 }] },
                { "ports": [{ "port": 80, "targetPort": "http" }] },
                { "ports": two_ports },
                { "type": "NodePort", "ports": two_ports },
                { "type": "NodePort", "ports": [{ "port": 80 }] },
                { "type": "LoadBalancer", "ports": [{ "port": 80 }] },
            ]),
        ),
        (
            "/strategy",
            json!([
                null, rolling, { "rollingUpdate": { "maxSurge": 1 } }, { "type": "RollingUpdate" },
                { "rollingUpdate": { "maxSurge": 0, "maxUnavailable": 1 } }, { "type": "Recreate" },
            ]),
        ),
        ("/minReadySeconds", json!([0, 1, 2])),
        (
            "/podDisruptionBudget",
            json!([null, {}, { "maxUnavailable": 0 }, { "maxUnavailable": 2 }, { "maxUnavailable": "50%" }]),
        ),
    ]
}

fn of_pod() -> Vec<(&'static str, Value)> {
    let spot = json!({ "key": "spot", "operator": "Exists", "effect": "NoSchedule" });
    let data = json!({ "name": "data", "emptyDir": { "sizeLimit": "1Gi" } });
    let spread = json!({
        "maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": { "matchLabels": { "team": "money" } },
    });
    let near = json!({
        "weight": 1,
        "podAffinityTerm": { "topologyKey": "zone", "labelSelector": { "matchLabels": { "team": "money" } } },
    });
    let early = json!({ "name": "early", "image": "registry.example/early:1" });
    let stays = json!({ "name": "stays", "image": "registry.example/stays:1", "restartPolicy": "Always" });
    vec![
        ("/template/metadata", json!([null, {}])),
        ("/template/metadata/labels", json!([null, {}, { "team": "money" }, { "team": "bets", "tier": "back" }])),
        (
            "/template/metadata/annotations",
            json!([
                null, { "example.com/scrape": "true" },
                { "example.com/scrape": "false", "kubectl.kubernetes.io/default-container": "app" },
            ]),
        ),
        ("/template/spec/nodeSelector", json!([null, {}, { "disk": "fast" }, { "disk": "slow", "zone": "a" }])),
        ("/template/spec/terminationGracePeriodSeconds", json!([null, 0, 30, 45])),
        (
            "/template/spec/tolerations",
            json!([null, [spot], [{ "key": "arm", "value": "64", "effect": "NoExecute" }, spot]]),
        ),
        (
            "/template/spec/securityContext",
            json!([null, {}, { "runAsUser": 0 }, { "fsGroup": 2000, "runAsNonRoot": true, "supplementalGroups": [7, 3] }]),
        ),
        ("/template/spec/hostAliases", json!([null, [], [{ "ip": "10.0.0.1", "hostnames": ["a", "b"] }]])),
        (
            "/template/spec/volumes",
            json!([
                [data], [{ "name": "data" }], [{ "name": "cache", "emptyDir": {} }, data], [{ "name": "data", "configMap": { "name": "c" } }],
                [{ "name": "data", "emptyDir": {} }, { "name": "token", "secret": { "secretName": "s", "optional": true } }],
            ]),
        ),
        ("/template/spec/topologySpreadConstraints", json!([null, [], [spread]])),
        (
            "/template/spec/affinity",
            json!([null, {}, { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [near] } }]),
        ),
        ("/template/spec/dnsPolicy", json!([null, "Default"])),
        ("/template/spec/dnsConfig", json!([null, { "options": [{ "name": "ndots", "value": "2" }] }])),
        ("/template/spec/enableServiceLinks", json!([null, false])),
        ("/template/spec/schedulerName", json!([null, "other"])),
        ("/template/spec/hostname", json!([null, "kestrel"])),
        ("/template/spec/priorityClassName", json!([null, "system-cluster-critical"])),
        ("/template/spec/imagePullSecrets", json!([null, [{ "name": "a" }], [{ "name": "b" }, { "name": "a" }]])),
        ("/template/spec/os", json!([null, { "name": "linux" }])),
        ("/template/spec/initContainers", json!([null, [], [early], [stays, early], [early, stays]])),
    ]
}

fn of_container() -> Vec<(&'static str, Value)> {
    let probe = |more: Value| {
        let mut probe = json!({ "periodSeconds": 1, "failureThreshold": 1 });
        probe.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        probe
    };
    let by_http = probe(json!({ "httpGet": { "path": "/ready", "port": 8080 } }));
    let by_command = probe(json!({ "exec": { "command": ["/ready"] }, "timeoutSeconds": 2 }));
    let by_port = probe(json!({ "tcpSocket": { "port": 8080 } }));
    let queue = json!({ "name": "QUEUE", "value": "orders" });
    let node = json!({ "name": "QUEUE", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } });
    let http = json!({ "name": "http", "containerPort": 8080 });

    vec![
        ("/template/spec/containers/0/image", json!(["registry.example/kestrel:1", "registry.example/kestrel:2"])),
        ("/template/spec/containers/0/command", json!([null, ["/kestrel"], ["/kestrel", "--fast"]])),
        ("/template/spec/containers/0/args", json!([null, [], ["--loud"]])),
        ("/template/spec/containers/0/workingDir", json!([null, "/tmp"])),
        (
            "/template/spec/containers/0/env",
            json!([
                null, [], [queue], [node], [{ "name": "POD_NAME", "value": "mine" }, queue],
                [queue, { "name": "ROUTE", "value": "$(QUEUE)/$(POD_NAME)" }, { "name": "LEVEL" }],
            ]),
        ),
        (
            "/template/spec/containers/0/envFrom",
            json!([null, [{ "configMapRef": { "name": "c" } }], [{ "prefix": "X_", "secretRef": { "name": "s", "optional": true } }]]),
        ),
        (
            "/template/spec/containers/0/ports",
            json!([
                null, [http], [http, { "name": "dns", "containerPort": 8080, "protocol": "UDP" }],
                [{ "name": "http", "containerPort": 9000 }, { "containerPort": 8080 }],
            ]),
        ),
        (
            "/template/spec/containers/0/resources",
            json!([null, {}, { "requests": { "cpu": "0.25" } }, { "requests": { "memory": "64Mi" }, "limits": { "memory": "0.125Gi" } }]),
        ),
        ("/template/spec/containers/0/imagePullPolicy", json!([null, "Always", "Never"])),
        (
            "/template/spec/containers/0/securityContext",
            json!([null, {}, { "allowPrivilegeEscalation": false }, { "capabilities": { "drop": ["ALL"] } }]),
        ),
        (
            "/template/spec/containers/0/volumeMounts",
            json!([null, [{ "name": "data", "mountPath": "/data" }], [{ "name": "data", "mountPath": "/data", "readOnly": true }, { "name": "data", "mountPath": "/more" }]]),
        ),
        ("/template/spec/containers/0/readinessProbe", json!([null, by_http, by_command, by_port])),
        ("/template/spec/containers/0/livenessProbe", json!([null, by_command, by_port])),
        ("/template/spec/containers/0/startupProbe", json!([null, by_http, by_port])),
        (
            "/template/spec/containers/0/lifecycle",
            json!([null, {}, { "preStop": { "exec": { "command": ["/drain"] } } }, { "preStop": { "sleep": { "seconds": 1 } } }]),
        ),
        ("/template/spec/containers/0/terminationMessagePath", json!([null, "/tmp/last"])),
        ("/template/spec/containers/0/terminationMessagePolicy", json!([null, "FallbackToLogsOnError"])),
        ("/template/spec/containers/0/tty", json!([null, true])),
        (
            "/template/spec/containers/1",
            json!([
                null, { "name": "helper", "image": "registry.example/helper:1", "command": ["/helper"] },
                { "name": "second", "image": "registry.example/helper:2", "command": ["/helper"], "ports": [{ "containerPort": 7000 }] },
            ]),
        ),
    ]
}

/// Returns the first spec of a walk.
pub fn first() -> Value {
    group("kestrel", json!({ "minReadySeconds": 0 }))["spec"].take()
}

/// Returns specs of either form and of every mode.
pub fn bases() -> Vec<Value> {
    let mut template = first();
    turn_form(&mut template);
    set(&mut template, "/template/spec/containers/0/ports", &json!([{ "name": "http", "containerPort": 8080 }]));
    let forms = [first(), template];
    let modes = ["Exec", "Sidecar", "Native"];
    let of_mode = |(form, mode): (&Value, &str)| {
        let mut spec = form.clone();
        set(&mut spec, "/candidate/mode", &json!(mode));
        spec
    };
    forms.iter().flat_map(|form| modes.map(|mode| (form, mode))).map(of_mode).collect()
}

/// Changes one thing in `spec` and keeps it valid. Returns a description of the change.
pub fn change(spec: &mut Value, random: &mut Random) -> String {
    let choices = choices();
    loop {
        let (path, values) = &choices[random.below(choices.len())];
        if let Some((changed, text)) = changed(spec, path, values, random).filter(|(changed, _)| is_valid(changed)) {
            *spec = changed;
            return text;
        }
    }
}

/// Whether the operator accepts the spec.
pub fn is_valid(spec: &Value) -> bool {
    let mut object = group("kestrel", json!({}));
    object["spec"] = spec.clone();
    serde_json::from_value::<ElectionGroup>(object).is_ok_and(|group| Group::check(&group).is_ok())
}

/// Returns `spec` with another value at `path`, and a description; `None` if that is no change.
fn changed(spec: &Value, path: &str, values: &Value, random: &mut Random) -> Option<(Value, String)> {
    if !applies(path, spec) {
        return None;
    }
    let mut changed = spec.clone();
    let text = match path {
        FORM => {
            turn_form(&mut changed);
            "the other of image and template".to_owned()
        }
        ORDER => {
            let lists =
                ["containers", "containers/0/env", "containers/0/ports", "initContainers", "tolerations", "volumes"];
            let list = lists[random.below(lists.len())];
            changed.pointer_mut(&format!("/template/spec/{list}"))?.as_array_mut()?.reverse();
            format!("{list} in reverse")
        }
        _ => {
            let values = values.as_array().unwrap();
            let value = &values[random.below(values.len())];
            set(&mut changed, path, value);
            format!("{path}: {value}")
        }
    };
    (changed != *spec).then_some((changed, text))
}

/// Whether `path` exists in the form that `spec` has.
pub fn applies(path: &str, spec: &Value) -> bool {
    let of_template = path.starts_with("/template") || path == ORDER;
    let of_image = ["/image", "/command", "/args"].contains(&path);
    if spec["template"].is_object() { !of_image } else { !of_template }
}

/// Changes `spec` between `image` with `command` and `template`.
pub fn turn_form(spec: &mut Value) {
    let fields = spec.as_object_mut().unwrap();
    match fields.remove("template") {
        Some(_) => {
            fields.insert("image".into(), json!("registry.example/kestrel:1"));
            fields.insert("command".into(), json!(["/kestrel"]));
        }
        None => {
            for shortcut in ["image", "command", "args"] {
                fields.remove(shortcut);
            }
            let app = json!({ "name": "app", "image": "registry.example/kestrel:1", "command": ["/kestrel"] });
            let data = json!({ "name": "data", "emptyDir": {} });
            fields.insert("template".into(), json!({ "spec": { "containers": [app], "volumes": [data] } }));
        }
    }
}

/// Sets the value at `path`; null removes it. Creates missing objects on the path.
pub fn set(spec: &mut Value, path: &str, value: &Value) {
    let (parents, last) = path.rsplit_once('/').unwrap();
    let mut node = &mut *spec;
    for step in parents.split('/').filter(|step| !step.is_empty()) {
        node = match step.parse::<usize>() {
            Ok(index) => &mut node[index],
            Err(_) => &mut node[step],
        };
    }
    match (node, value) {
        (Value::Array(items), value) => {
            items.truncate(last.parse().unwrap());
            items.extend((!value.is_null()).then(|| value.clone()));
        }
        (Value::Object(fields), Value::Null) => drop(fields.remove(last)),
        (Value::Null, Value::Null) => {}
        (node, value) => node[last] = value.clone(),
    }
    // Access to a missing field leaves a null behind.
    drop_nulls(spec);
}
