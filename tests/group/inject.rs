use k8sensus_api::ElectionGroup;
use serde_json::{Value, json};

use super::{CANDIDATE_IMAGE, MINIMAL, NATIVE, SIDECAR, SPECS, TEMPLATE, children, group, with};

fn template(group: &ElectionGroup) -> Value {
    children(group).deployment["spec"]["template"].clone()
}

fn pod(group: &ElectionGroup) -> Value {
    template(group)["spec"].clone()
}

fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    pod["containers"].as_array().expect("containers").iter().find(|c| c["name"] == name).expect("the container")
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().filter_map(|item| item["name"].as_str()).collect()
}

/// Returns the literal value of a variable that is set exactly once.
fn value<'a>(container: &'a Value, name: &str) -> &'a Value {
    let found: Vec<_> = container["env"].as_array().expect("env").iter().filter(|v| v["name"] == name).collect();
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    &found[0]["value"]
}

/// Returns the violations of the Pod Security Standard `restricted`, by the rules of Kubernetes 1.33.
fn complaints(container: &Value) -> Vec<&'static str> {
    let context = &container["securityContext"];
    let dropped = context["capabilities"]["drop"].as_array().cloned().unwrap_or_default();
    let ports = container["ports"].as_array().cloned().unwrap_or_default();
    [
        (context["privileged"] != true, "privileged"),
        (context["allowPrivilegeEscalation"] == false, "allowPrivilegeEscalation"),
        (dropped.contains(&json!("ALL")), "capabilities.drop"),
        (context["capabilities"]["add"].is_null(), "capabilities.add"),
        (context["runAsNonRoot"] == true, "runAsNonRoot"),
        (context["runAsUser"].is_null() || context["runAsUser"].as_i64().is_some_and(|user| user > 0), "runAsUser"),
        (context["seccompProfile"]["type"] == "RuntimeDefault", "seccompProfile"),
        (context["procMount"].is_null() && context["seLinuxOptions"].is_null(), "procMount, seLinuxOptions"),
        (ports.iter().all(|port| port["hostPort"].is_null()), "hostPort"),
    ]
    .into_iter()
    .filter_map(|(holds, rule)| (!holds).then_some(rule))
    .collect()
}

#[test]
fn installer_meets_the_pod_security_standard_restricted() {
    // The pod's own context is not restricted: our containers must not rely on it.
    let rooted = TEMPLATE.replace("    initContainers:", "    securityContext: { runAsUser: 0 }\n    initContainers:");
    for spec in [MINIMAL, TEMPLATE, &rooted] {
        let pod = pod(&group(spec));
        assert_eq!(pod["initContainers"][0]["name"], "k8sensus-install");
        assert_eq!(complaints(&pod["initContainers"][0]), [""; 0]);
        // A requested user conflicts with one that the namespace assigns, but a pod that runs as root needs one.
        let user = &pod["initContainers"][0]["securityContext"]["runAsUser"];
        assert_eq!(user, &if spec == &*rooted { json!(65532) } else { Value::Null });
        let volume = pod["volumes"].as_array().expect("volumes").iter().find(|v| v["name"] == "k8sensus");
        assert_eq!(volume.expect("our volume"), &json!({ "name": "k8sensus", "emptyDir": { "sizeLimit": "64Mi" } }));
    }
}

#[test]
fn sidecar_keeps_running_and_meets_the_pod_security_standard_restricted() {
    let pod = pod(&group(SIDECAR));
    assert_eq!(names(&pod["initContainers"]), ["k8sensus-sidecar", "migrate"]);
    let sidecar = &pod["initContainers"][0];
    assert_eq!(complaints(sidecar), [""; 0]);
    assert_eq!((&sidecar["restartPolicy"], &sidecar["command"]), (&json!("Always"), &json!(["/k8sensus", "run"])));
    assert_eq!(value(sidecar, "K8SENSUS_HTTP_PORT"), "4141");
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(sidecar[probe]["httpGet"]["port"], 4141, "{probe}");
    }
    let main = container(&pod, "main");
    let written = super::yaml(SIDECAR)["template"]["spec"]["containers"][0].clone();
    assert_eq!(main["readinessProbe"], written["readinessProbe"], "the kubelet probes the program itself");
    assert_eq!(main.get("command"), None);
    let variables = names(&main["env"]);
    assert_eq!(variables, ["POD_NAME", "POD_NAMESPACE", "K8SENSUS_LEASE_NAME", "K8SENSUS_HTTP_PORT", "QUEUE"]);
}

/// Returns the revision label, which is also a variable of the candidate.
fn revision(spec: &ElectionGroup) -> String {
    let template = template(spec);
    let label = template["metadata"]["labels"]["k8sensus.dev/revision"].clone();
    assert_eq!(template.to_string().matches(label.as_str().expect("a label")).count(), 2, "{label}");
    label.as_str().expect("a label").to_owned()
}

#[test]
fn revision_changes_exactly_with_the_template() {
    let same = revision(&group(TEMPLATE));
    for more in ["replicas: 7", "suspend: true", "minReadySeconds: 1", "podDisruptionBudget: { maxUnavailable: 2 }"] {
        assert_eq!(revision(&with(TEMPLATE, more)), same, "{more}");
    }
    let other = TEMPLATE.replace("billing:1.4", "billing:1.5");
    assert_ne!(revision(&group(&other)), same);
    assert_ne!(revision(&with(TEMPLATE, "election: { retryPeriodSeconds: 1 }")), same, "the candidate gets it");
}

#[test]
fn pods_with_a_candidate_have_the_readiness_gate() {
    for (spec, gates) in [
        (MINIMAL, json!([{ "conditionType": "k8sensus.dev/proven" }])),
        (SIDECAR, json!([{ "conditionType": "k8sensus.dev/proven" }])),
        (NATIVE, Value::Null),
    ] {
        assert_eq!(pod(&group(spec))["readinessGates"], gates);
    }
    let own = TEMPLATE.replace(
        "    initContainers:",
        "    readinessGates: [{ conditionType: own.example/gate }]\n    initContainers:",
    );
    let gates = pod(&group(&own))["readinessGates"].clone();
    assert_eq!(gates, json!([{ "conditionType": "own.example/gate" }, { "conditionType": "k8sensus.dev/proven" }]));
}

#[test]
fn candidate_is_installed_before_the_users_init_containers_run() {
    assert_eq!(names(&pod(&group(TEMPLATE))["initContainers"]), ["k8sensus-install", "migrate"]);
}

#[test]
fn installer_uses_the_resources_of_the_spec() {
    let limited = with(MINIMAL, "candidate: { resources: { limits: { cpu: 50m } } }");
    assert_eq!(pod(&limited)["initContainers"][0]["resources"], json!({ "limits": { "cpu": "50m" } }));
    let default = json!({ "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } });
    assert_eq!(pod(&group(MINIMAL))["initContainers"][0]["resources"], default);
}

#[test]
fn users_command_and_arguments_follow_the_candidates() {
    let pod = pod(&group(TEMPLATE));
    let main = container(&pod, "main");
    assert_eq!(main["command"], json!(["/.k8sensus/k8sensus", "exec", "--"]));
    assert_eq!(main["args"], json!(["/app/billing", "--queue", "orders"]));
    let mounts = json!([
        { "name": "data", "mountPath": "/data" },
        { "name": "k8sensus", "mountPath": "/.k8sensus", "readOnly": true },
    ]);
    assert_eq!(main["volumeMounts"], mounts);
}

#[test]
fn containers_that_do_not_lead_are_unchanged() {
    let written = super::yaml(TEMPLATE)["template"]["spec"]["containers"][0].clone();
    assert_eq!(container(&pod(&group(TEMPLATE)), "proxy"), &written);
}

#[test]
fn mode_native_adds_no_program() {
    let pod = pod(&group(NATIVE));
    assert_eq!((pod.get("initContainers"), pod.get("volumes")), (None, None));
    let written = super::yaml(NATIVE)["template"]["spec"]["containers"][0].clone();
    let mut main = container(&pod, "main").clone();
    main.as_object_mut().expect("a container").remove("env").expect("the environment is ours");
    assert_eq!(main, written);
    assert!(!pod.to_string().contains(CANDIDATE_IMAGE));
}

#[test]
fn our_variables_precede_the_users_that_refer_to_them() {
    let pod = pod(&group(TEMPLATE));
    let names = names(&container(&pod, "main")["env"]);
    let at = |name: &str| names.iter().position(|found| *found == name).expect(name);
    assert!(at("POD_NAME") < at("WHO"), "{names:?}");
    assert_eq!(names[names.len() - 2..], ["QUEUE", "WHO"], "the user's own order");
}

#[test]
fn user_variable_does_not_replace_ours() {
    let pod = pod(&group(TEMPLATE));
    let main = container(&pod, "main");
    assert_eq!(value(main, "POD_NAME"), &Value::Null, "it is a reference");
    let position = names(&main["env"]).iter().position(|name| *name == "POD_NAME").expect("POD_NAME");
    assert_eq!(main["env"][position]["valueFrom"]["fieldRef"]["fieldPath"], "metadata.name");
    assert_eq!(value(container(&pod, "proxy"), "POD_NAME"), "proxys-own");
}

#[test]
fn environment_has_the_timing_in_seconds() {
    let short = "election: { leaseDurationSeconds: 3, renewDeadlineSeconds: 2, retryPeriodSeconds: 1 }";
    let long = "{ candidate: { stopGracePeriodSeconds: 5 }, election: { leaseDurationSeconds: 60, renewDeadlineSeconds: 40, \
                retryPeriodSeconds: 7, renewIntervalSeconds: 20 } }";
    for (more, expected) in [
        ("{}", ["15", "10", "2", "2", "3"]),
        (short, ["3", "2", "1", "1", "0.7"]),
        (long, ["60", "40", "7", "20", "5"]),
    ] {
        let pod = pod(&with(MINIMAL, more));
        let app = container(&pod, "app");
        let names = ["LEASE_DURATION", "RENEW_DEADLINE", "RETRY_PERIOD", "RENEW_INTERVAL", "STOP_GRACE_PERIOD"];
        let found = names.map(|name| value(app, &format!("K8SENSUS_{name}_SECONDS")));
        assert_eq!(found, expected.map(Value::from).each_ref(), "{more}");
    }
}

#[test]
fn environment_has_the_lease_and_the_container() {
    let pod = pod(&group(NATIVE));
    let main = container(&pod, "main");
    assert_eq!(value(main, "K8SENSUS_LEASE_NAME"), "billing-leader");
    assert_eq!(value(main, "K8SENSUS_CONTAINER"), "main");
    assert_eq!(value(main, "K8SENSUS_CREATE_LEASE"), "false");
}

#[test]
fn environment_has_the_termination_message_path() {
    const PATH: &str = "K8SENSUS_TERMINATION_MESSAGE_PATH";
    let own = TEMPLATE.replace(
        "        command: [/app/billing]",
        "        command: [/app/billing]\n        terminationMessagePath: /run/last-words",
    );
    for (spec, name, expected) in [
        (MINIMAL, "app", "/dev/termination-log"),
        (TEMPLATE, "main", "/dev/termination-log"),
        (&own, "main", "/run/last-words"),
    ] {
        let pod = pod(&group(spec));
        let leading = container(&pod, name);
        assert_eq!(value(leading, PATH), expected, "{spec}");
        assert_eq!(pod.to_string().matches(PATH).count(), 1, "only the container that leads has it");
    }
    assert_eq!(container(&pod(&group(&own)), "main")["terminationMessagePath"], "/run/last-words");
    assert!(!template(&group(NATIVE)).to_string().contains(PATH), "a program that elects by itself proves nothing");
}

#[test]
fn all_candidate_variables_are_set_so_that_env_from_sets_none() {
    // The variables of `k8sensus exec --help` and of its hidden flags.
    let names = [
        "K8SENSUS_LEASE_NAME",
        "K8SENSUS_LEASE_NAMESPACE",
        "K8SENSUS_CREATE_LEASE",
        "POD_NAME",
        "POD_UID",
        "K8SENSUS_CONTAINER",
        "K8SENSUS_REVISION",
        "K8SENSUS_API_SERVER_FILE",
        "K8SENSUS_RECREATED_LEASE_SECONDS",
        "K8SENSUS_LEASE_DURATION_SECONDS",
        "K8SENSUS_RENEW_DEADLINE_SECONDS",
        "K8SENSUS_RETRY_PERIOD_SECONDS",
        "K8SENSUS_RENEW_INTERVAL_SECONDS",
        "K8SENSUS_STOP_GRACE_PERIOD_SECONDS",
        "K8SENSUS_TERMINATION_MESSAGE_PATH",
        "K8SENSUS_LOCK_PATH",
        "K8SENSUS_APP",
        "POD_IP",
        "K8SENSUS_HTTP_PORT",
        "K8SENSUS_NODE_IP",
    ];
    for (spec, name) in [(MINIMAL, "app"), (TEMPLATE, "main")] {
        let pod = pod(&group(spec));
        for variable in names {
            // Panics unless the variable is set exactly once.
            value(container(&pod, name), variable);
        }
    }
    let bare = pod(&group(MINIMAL));
    assert_eq!(value(container(&bare, "app"), "K8SENSUS_APP"), "{}", "no probes, no hooks");
    assert_eq!(value(container(&bare, "app"), "K8SENSUS_API_SERVER_FILE"), "/.k8sensus/api-server");
}

#[test]
fn added_containers_report_why_they_ended() {
    for spec in [MINIMAL, SIDECAR] {
        let pod = pod(&group(spec));
        assert_eq!(pod["initContainers"][0]["terminationMessagePolicy"], "FallbackToLogsOnError");
    }
    let sidecar = pod(&group(SIDECAR))["initContainers"][0].clone();
    assert_eq!(value(&sidecar, "K8SENSUS_TERMINATION_MESSAGE_PATH"), "/dev/termination-log");
}

#[test]
fn pods_are_spread_over_nodes_unless_the_user_says_otherwise() {
    let with_spread = |spread: &str| {
        let containers = "containers: [{ name: main, image: b, command: [/b] }]";
        pod(&group(&format!("template: {{ spec: {{ {containers}, topologySpreadConstraints: {spread} }} }}")))
    };
    for spec in SPECS {
        let spread = pod(&group(spec))["topologySpreadConstraints"].clone();
        assert_eq!(spread[0]["whenUnsatisfiable"], "ScheduleAnyway", "on one node all pods still run");
        assert_eq!(spread[0]["labelSelector"], json!({ "matchLabels": { "k8sensus.dev/group": "billing" } }));
    }
    assert_eq!(with_spread("[]")["topologySpreadConstraints"], json!([]));
    let zones = "[{ maxSkew: 2, topologyKey: zone, whenUnsatisfiable: DoNotSchedule }]";
    assert_eq!(with_spread(zones)["topologySpreadConstraints"], super::yaml(zones));
}

#[test]
fn labels_and_annotations_of_the_user_stay() {
    let metadata = template(&group(TEMPLATE))["metadata"].clone();
    let revision = &metadata["labels"]["k8sensus.dev/revision"];
    assert_eq!(
        metadata["labels"],
        json!({ "team": "money", "k8sensus.dev/group": "billing", "k8sensus.dev/revision": revision })
    );
    assert_eq!(metadata["annotations"]["example.com/scrape"], "true");
}

#[test]
fn kubectl_defaults_to_the_leading_container_unless_the_user_named_one() {
    let key = "kubectl.kubernetes.io/default-container";
    assert_eq!(template(&group(TEMPLATE))["metadata"]["annotations"][key], "main");
    let named = TEMPLATE.replace("example.com/scrape: \"true\"", &format!("{key}: proxy"));
    assert_eq!(template(&group(&named))["metadata"]["annotations"][key], "proxy");
}

#[test]
fn wait_for_a_recreated_lease_covers_the_whole_grace_period() {
    // Ten ninths of the grace period and the lease duration, at most the hour that the chart's Lease policy allows.
    for (grace, lease, expected) in
        [(None, 15, "50"), (Some(12), 3, "17"), (Some(0), 15, "17"), (Some(7200), 15, "3600")]
    {
        let election = json!({ "leaseDurationSeconds": lease, "renewDeadlineSeconds": 2, "retryPeriodSeconds": 1 });
        let mut pod = json!({ "containers": [{ "name": "app", "image": "b", "command": ["/b"] }] });
        if let Some(grace) = grace {
            pod["terminationGracePeriodSeconds"] = json!(grace);
        }
        let spec = json!({ "election": election, "template": { "spec": pod } }).to_string();
        let template = template(&group(&spec));
        let annotation = &template["metadata"]["annotations"]["k8sensus.dev/recreated-lease-seconds"];
        assert_eq!(annotation, expected, "grace {grace:?}, lease {lease}");
        assert_eq!(value(container(&template["spec"], "app"), "K8SENSUS_RECREATED_LEASE_SECONDS"), annotation);
    }
    for spec in [SIDECAR, NATIVE] {
        let template = template(&group(spec));
        assert!(template["metadata"]["annotations"]["k8sensus.dev/recreated-lease-seconds"].is_null());
    }
}
