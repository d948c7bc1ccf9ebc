//! Every way in which a group can fail, once, on a real node: the conditions explain it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::images::{BUSYBOX, load};
use super::{Namespace, namespace, node};
use crate::support::{Deleted, apply, get, group, kubectl};

/// The longest time until all of them are explained: the kubelet measures volumes once a minute.
const LONGEST: Duration = Duration::from_secs(180);

/// A group that cannot work, and the expected fragments of condition Ready.
struct Trouble {
    name: &'static str,
    spec: Value,
    /// The message must contain all of these.
    quotes: &'static [&'static str],
}

fn trouble(name: &'static str, spec: Value, quotes: &'static [&'static str]) -> Trouble {
    Trouble { name, spec, quotes }
}

/// Returns a spec whose pod has one container; the fields of `container` and `pod` are added.
fn of(container: Value, pod: Value) -> Value {
    let mut app = json!({ "name": "app", "image": BUSYBOX, "command": ["/bin/sleep", "1000"] });
    app.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    let mut template = json!({ "containers": [app] });
    template.as_object_mut().unwrap().extend(pod.as_object().unwrap().clone());
    json!({ "candidate": { "mode": "Sidecar" }, "template": { "spec": template } })
}

fn volume(source: Value) -> Value {
    let mut volume = json!({ "name": "data" });
    volume.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
    of(json!({ "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }), json!({ "volumes": [volume] }))
}

fn exec(script: &str) -> Value {
    let mut spec = of(json!({ "command": ["/bin/sh", "-c", script] }), json!({}));
    spec["candidate"]["mode"] = json!("Exec");
    spec
}

/// Returns the groups whose own spec is the cause.
fn troubles() -> Vec<Trouble> {
    let env = |source: &str| of(json!({ "envFrom": [{ source: { "name": "nowhere" } }] }), json!({}));
    let mut account = of(json!({}), json!({}));
    account["serviceAccount"] = json!({ "name": "nobody" });
    let init = json!({ "name": "schema", "image": BUSYBOX, "command": ["/bin/sh", "-c", "exit 7"] });
    let profile = json!({ "type": "Localhost", "localhostProfile": "nowhere.json" });
    let probe = json!({ "exec": { "command": ["/bin/false"] }, "periodSeconds": 1 });
    vec![
        trouble(
            "unschedulable",
            of(json!({ "resources": { "requests": { "cpu": "1000" } } }), json!({})),
            &["Unschedulable", "Insufficient cpu"],
        ),
        trouble(
            "claim",
            volume(json!({ "persistentVolumeClaim": { "claimName": "nowhere" } })),
            &["Unschedulable", "persistentvolumeclaim \"nowhere\" not found"],
        ),
        trouble("account", account, &["pods cannot be created: FailedCreate", "serviceaccount \"nobody\" not found"]),
        trouble(
            "priority",
            of(json!({}), json!({ "priorityClassName": "nowhere" })),
            &["FailedCreate", "no PriorityClass with name nowhere was found"],
        ),
        trouble(
            "runtime",
            of(json!({}), json!({ "runtimeClassName": "nowhere" })),
            &["FailedCreate", "RuntimeClass \"nowhere\" not found"],
        ),
        trouble("map-in-env", env("configMapRef"), &["CreateContainerConfigError", "configmap \"nowhere\" not found"]),
        trouble("secret-in-env", env("secretRef"), &["CreateContainerConfigError", "secret \"nowhere\" not found"]),
        trouble(
            "map-as-volume",
            volume(json!({ "configMap": { "name": "nowhere" } })),
            &["PodInitializing", "a volume, ConfigMap or Secret may be missing"],
        ),
        trouble(
            "pull",
            of(json!({ "image": "localhost/nobody/has:this" }), json!({})),
            &["ErrImagePull", "localhost/nobody/has:this"],
        ),
        trouble(
            "never",
            of(json!({ "image": "localhost/nobody/has:this", "imagePullPolicy": "Never" }), json!({})),
            &["ErrImageNeverPull"],
        ),
        trouble("image-name", of(json!({ "image": "localhost/Upper" }), json!({})), &["InvalidImageName"]),
        trouble("command", of(json!({ "command": ["/no/such/program"] }), json!({})), &["/no/such/program"]),
        trouble(
            "profile",
            of(json!({ "securityContext": { "seccompProfile": profile } }), json!({})),
            &["CreateContainerError", "nowhere.json"],
        ),
        trouble("init", of(json!({}), json!({ "initContainers": [init] })), &["container schema", "code 7"]),
        trouble("unready", of(json!({ "readinessProbe": probe }), json!({})), &["ContainersNotReady", "app]"]),
        trouble("silent", of(json!({}), json!({})), &["ContainersNotReady", "does not ask its sidecar"]),
        trouble("crash", exec("exit 3"), &["code 3"]),
        trouble(
            "memory",
            of(
                json!({
                    "command": ["/bin/sh", "-c", "x=aaaaaaaaaaaaaaaa; i=0; while [ $i -lt 22 ]; do x=$x$x; i=$((i+1)); done; exit 9"],
                    "resources": { "limits": { "memory": "16Mi" } },
                }),
                json!({}),
            ),
            &["OOMKilled"],
        ),
        trouble(
            "evicted",
            of(
                json!({
                    "command": ["/bin/sh", "-c", "dd if=/dev/zero of=/data/full bs=1M count=8; sleep 1000"],
                    "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
                }),
                json!({ "volumes": [{ "name": "data", "emptyDir": { "sizeLimit": "1Mi" } }] }),
            ),
            &["Evicted", "exceeds the limit \"1Mi\""],
        ),
    ]
}

/// Returns a valid group in a namespace that refuses its pods.
fn refused(name: &'static str, quotes: &'static [&'static str]) -> (Namespace, Trouble) {
    let privileged = json!({ "securityContext": { "privileged": true }, "resources": { "limits": { "cpu": "2" } } });
    (namespace(name), trouble(name, of(privileged, json!({})), quotes))
}

fn limits(ns: &str) {
    let limit = json!({ "apiVersion": "v1", "kind": "LimitRange", "metadata": { "name": "small" }, "spec": {
        "limits": [{ "type": "Container", "max": { "cpu": "1" } }],
    } });
    apply(node(), ns, &limit).unwrap();
}

/// Sends pods of that namespace to a webhook that does not exist.
fn webhook(ns: &str) -> Deleted {
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": ns },
        "webhooks": [{
            "name": "pods.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": { "service": { "namespace": ns, "name": "nowhere" } },
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": ns } },
            "rules": [{ "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"] }],
        }],
    });
    let deleted = Deleted::at_the_end(node(), &["validatingwebhookconfiguration", ns]);
    apply(node(), ns, &webhook).unwrap();
    deleted
}

impl Trouble {
    fn apply(&self, ns: &str) {
        let mut group = group(self.name, json!({}));
        let spec = group["spec"].as_object_mut().unwrap();
        spec.retain(|field, _| !["image", "command"].contains(&field.as_str()));
        spec.extend(self.spec.as_object().unwrap().clone());
        apply(node(), ns, &group).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    fn message(&self, ns: &str) -> String {
        let group = get(node(), ns, &format!("electiongroup/{}", self.name)).unwrap();
        let conditions = group["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|condition| condition["type"] == "Ready");
        found.and_then(|condition| condition["message"].as_str()).unwrap_or_default().to_owned()
    }
}

#[test]
fn conditions_explain_every_way_a_group_can_fail() {
    load(BUSYBOX);
    let ns = namespace("trouble");
    let quota = refused("quota", &["FailedCreate", "exceeded quota: none"]);
    kubectl(node(), &["create", "quota", "-n", &quota.0, "none", "--hard=count/pods=0"]);
    let limited = refused("limited", &["FailedCreate", "maximum cpu usage per Container is 1"]);
    limits(&limited.0);
    let secured = refused("secured", &["FailedCreate", "violates PodSecurity", "privileged"]);
    kubectl(node(), &["label", "namespace", &secured.0, "pod-security.kubernetes.io/enforce=baseline"]);
    let hooked = refused("hooked", &["FailedCreate", "failed calling webhook \"pods.example.com\""]);
    let _webhook = webhook(&hooked.0);
    let troubles = troubles();
    let mut open: Vec<(&str, &Trouble)> = troubles.iter().map(|trouble| (&*ns, trouble)).collect();
    open.extend([&quota, &limited, &secured, &hooked].map(|(ns, trouble)| (&**ns, trouble)));
    let start = Instant::now();
    open.iter().for_each(|(ns, trouble)| trouble.apply(ns));
    while !open.is_empty() {
        open.retain(|(ns, trouble)| {
            let message = trouble.message(ns);
            let is_explained = trouble.quotes.iter().all(|quote| message.contains(quote));
            if is_explained {
                println!("{:.0} s, {}: {message}", start.elapsed().as_secs_f64(), trouble.name);
            }
            !is_explained
        });
        let left = || open.iter().map(|(ns, it)| (it.name, it.quotes, it.message(ns))).collect::<Vec<_>>();
        assert!(start.elapsed() < LONGEST, "not explained within {LONGEST:?}: {:#?}", left());
        std::thread::sleep(Duration::from_millis(500));
    }
}
