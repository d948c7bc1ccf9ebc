//! What the chart renders.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::{root, shared};

/// Every value that changes an object and is not set by default.
const VALUES: &str = r#"
global: {imageRegistry: mirror.example, imagePullSecrets: [parent, {name: own}]}
imagePullSecrets: [{name: own}]
commonLabels: {team: money, tier: common}
commonAnnotations: {owner: money, tier: common}
crds: {annotations: {of: crd}, labels: {of: crd}}
serviceAccount: {annotations: {of: account}, labels: {of: account}}
service: {annotations: {of: service}, labels: {of: service, tier: own}}
podDisruptionBudget: {minAvailable: 1, annotations: {of: budget}, labels: {of: budget}}
deploymentAnnotations: {of: deployment, tier: own}
deploymentLabels: {of: deployment}
podAnnotations: {of: pod}
podLabels: {of: pod}
extraArgs: [--lease-duration-seconds=30]
extraVolumes: [{name: ca, configMap: {name: ca}}]
extraVolumeMounts: [{name: ca, mountPath: /etc/ca, readOnly: true}]
livenessProbe: {initialDelaySeconds: 1, timeoutSeconds: 2, periodSeconds: 20}
readinessProbe: {successThreshold: 2}
strategy: {type: Recreate}
revisionHistoryLimit: 0
terminationGracePeriodSeconds: 5
hostNetwork: true
dnsConfig: {nameservers: [10.0.0.10]}
hostAliases: [{ip: 10.0.0.1, hostnames: [api.example]}]
runtimeClassName: gvisor
schedulerName: custom
nodeSelector: {disk: fast}
serviceMonitor:
  enabled: true
  namespace: monitoring
  annotations: {of: monitor}
  labels: {of: monitor}
  relabelings: [{action: labeldrop, regex: pod}]
  metricRelabelings: [{action: drop, regex: x}]
networkPolicy:
  enabled: true
  annotations: {of: policy}
  labels: {of: policy}
  extraIngress: [{from: [{podSelector: {}}]}]
  extraEgress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]
extraObjects:
  - {apiVersion: v1, kind: ConfigMap, metadata: {name: "{{ .Release.Name }}-extra"}, data: {key: "{{ .Values.log.level }}"}}
  - |
    apiVersion: v1
    kind: Secret
    metadata:
      name: {{ .Release.Namespace }}-extra
"#;

#[test]
fn values_reach_the_objects_that_they_are_for() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(VALUES.as_bytes()).unwrap();
    let objects = rendered(&["--values", file.path().to_str().unwrap()]);
    let pod = "/spec/template/spec";
    let container = "/spec/template/spec/containers/0";
    let rows = [
        ("Deployment", "/metadata/annotations", json!({ "owner": "money", "tier": "own", "of": "deployment" })),
        ("Deployment", "/metadata/labels/of", json!("deployment")),
        ("Deployment", "/metadata/labels/tier", json!("common")),
        ("Deployment", "/spec/strategy", json!({ "type": "Recreate" })),
        ("Deployment", "/spec/revisionHistoryLimit", json!(0)),
        ("Deployment", "/spec/template/metadata/annotations/owner", Value::Null),
        ("Deployment", "/spec/template/metadata/annotations/of", json!("pod")),
        ("Deployment", "/spec/template/metadata/labels/of", json!("pod")),
        ("Deployment", "/spec/template/metadata/labels/team", json!("money")),
        ("Deployment", &format!("{pod}/imagePullSecrets"), json!([{ "name": "own" }, { "name": "parent" }])),
        ("Deployment", &format!("{pod}/terminationGracePeriodSeconds"), json!(5)),
        ("Deployment", &format!("{pod}/hostNetwork"), json!(true)),
        ("Deployment", &format!("{pod}/dnsPolicy"), json!("ClusterFirstWithHostNet")),
        ("Deployment", &format!("{pod}/dnsConfig/nameservers/0"), json!("10.0.0.10")),
        ("Deployment", &format!("{pod}/hostAliases/0/hostnames/0"), json!("api.example")),
        ("Deployment", &format!("{pod}/runtimeClassName"), json!("gvisor")),
        ("Deployment", &format!("{pod}/schedulerName"), json!("custom")),
        ("Deployment", &format!("{pod}/nodeSelector"), json!({ "kubernetes.io/os": "linux", "disk": "fast" })),
        ("Deployment", &format!("{pod}/volumes/0/configMap/name"), json!("ca")),
        ("Deployment", &format!("{container}/volumeMounts/0/mountPath"), json!("/etc/ca")),
        ("Deployment", &format!("{container}/args"), json!(["--lease-duration-seconds=30"])),
        ("Deployment", &format!("{container}/image"), json!("mirror.example/k8sensus/k8sensus:0.1.0")),
        ("Deployment", &format!("{container}/livenessProbe/initialDelaySeconds"), json!(1)),
        ("Deployment", &format!("{container}/livenessProbe/timeoutSeconds"), json!(2)),
        ("Deployment", &format!("{container}/livenessProbe/periodSeconds"), json!(20)),
        ("Deployment", &format!("{container}/livenessProbe/failureThreshold"), json!(3)),
        ("Deployment", &format!("{container}/readinessProbe/periodSeconds"), json!(5)),
        ("Deployment", &format!("{container}/readinessProbe/successThreshold"), json!(2)),
        ("CustomResourceDefinition", "/metadata/annotations/helm.sh~1resource-policy", json!("keep")),
        ("CustomResourceDefinition", "/metadata/annotations/of", json!("crd")),
        ("CustomResourceDefinition", "/metadata/labels/of", json!("crd")),
        ("ServiceAccount", "/metadata/annotations/of", json!("account")),
        ("ServiceAccount", "/metadata/labels/of", json!("account")),
        ("Service", "/metadata/annotations/of", json!("service")),
        ("Service", "/metadata/labels/tier", json!("own")),
        ("PodDisruptionBudget", "/spec/minAvailable", json!(1)),
        ("PodDisruptionBudget", "/spec/maxUnavailable", Value::Null),
        ("PodDisruptionBudget", "/metadata/annotations/of", json!("budget")),
        ("PodDisruptionBudget", "/metadata/labels/of", json!("budget")),
        ("ServiceMonitor", "/metadata/namespace", json!("monitoring")),
        ("ServiceMonitor", "/metadata/annotations/of", json!("monitor")),
        ("ServiceMonitor", "/metadata/labels/of", json!("monitor")),
        ("ServiceMonitor", "/spec/namespaceSelector/matchNames/0", json!("system")),
        ("ServiceMonitor", "/spec/endpoints/0/relabelings/0/regex", json!("pod")),
        ("ServiceMonitor", "/spec/endpoints/0/metricRelabelings/0/regex", json!("x")),
        ("NetworkPolicy", "/metadata/annotations/of", json!("policy")),
        ("NetworkPolicy", "/metadata/labels/of", json!("policy")),
        ("NetworkPolicy", "/spec/ingress/1/from/0/podSelector", json!({})),
        ("NetworkPolicy", "/spec/egress/2/to/0/ipBlock/cidr", json!("10.0.0.0/8")),
        ("ConfigMap", "/metadata/name", json!("k8sensus-extra")),
        ("ConfigMap", "/data/key", json!("info")),
        ("Secret", "/metadata/name", json!("system-extra")),
    ];
    for (kind, pointer, expected) in rows {
        let found = objects[kind].pointer(pointer).unwrap_or(&Value::Null);
        assert_eq!(*found, expected, "{kind} {pointer}: {:#}", objects[kind]);
    }
    for (kind, object) in objects.iter().filter(|(kind, _)| !["ConfigMap", "Secret"].contains(&kind.as_str())) {
        assert_eq!(object["metadata"]["annotations"]["owner"], "money", "{kind}");
        assert_eq!(object["metadata"]["labels"]["team"], "money", "{kind}");
    }
}

#[test]
fn registry_replaces_the_registry_of_the_repository() {
    let cases = [
        ("", "ghcr.io/k8sensus/k8sensus"),
        ("image.repository=REGISTRY/k8sensus", "REGISTRY/k8sensus"),
        ("image.registry=mirror.example:5000", "mirror.example:5000/k8sensus/k8sensus"),
        ("image.registry=mirror.example/proxy,image.repository=localhost/k8sensus", "mirror.example/proxy/k8sensus"),
        ("image.registry=mirror.example,image.repository=acme/k8sensus", "mirror.example/acme/k8sensus"),
        ("global.imageRegistry=mirror.example", "mirror.example/k8sensus/k8sensus"),
        ("global.imageRegistry=mirror.example,image.repository=acme/k8sensus", "mirror.example/acme/k8sensus"),
        // What was set for this image wins.
        ("global.imageRegistry=mirror.example,image.registry=own.example", "own.example/k8sensus/k8sensus"),
        ("global.imageRegistry=mirror.example,image.repository=own.example/k8sensus", "own.example/k8sensus"),
        ("global.imageRegistry=null", "ghcr.io/k8sensus/k8sensus"),
    ];
    for (values, repository) in cases {
        let deployment = &rendered(&["--set", values, "--show-only", "templates/deployment.yaml"])["Deployment"];
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], format!("{repository}:0.1.0"), "{values}");
        let candidate = container["env"].as_array().unwrap().iter().find(|it| it["name"] == "K8SENSUS_CANDIDATE_IMAGE");
        assert_eq!(candidate.unwrap()["value"], container["image"], "{values}");
    }
}

/// Such an upgrade keeps the values of the former chart, in which those that are new in this chart are absent.
#[test]
fn upgrade_with_reuse_values_has_defaults_for_new_values() {
    let new = [
        "global",
        "commonAnnotations",
        "deploymentAnnotations",
        "deploymentLabels",
        "extraArgs",
        "extraObjects",
        "extraVolumes",
        "extraVolumeMounts",
        "livenessProbe",
        "readinessProbe",
        "strategy",
        "revisionHistoryLimit",
        "terminationGracePeriodSeconds",
        "hostNetwork",
        "dnsPolicy",
        "dnsConfig",
        "hostAliases",
        "runtimeClassName",
        "schedulerName",
        "image.registry",
        "serviceMonitor.relabelings",
        "podDisruptionBudget.minAvailable",
    ];
    let absent: Vec<_> = new.iter().map(|name| format!("{name}=null")).collect();
    let render = |values: &str| {
        let output = template(&["--set", values]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(render(&absent.join(",")) == render("replicas=2"));
}

fn helm() -> Command {
    let mut helm = shared().helm().unwrap();
    helm.current_dir(root());
    helm
}

fn template(arguments: &[&str]) -> Output {
    helm().args(["template", "k8sensus", "charts/k8sensus", "--namespace", "system"]).args(arguments).output().unwrap()
}

/// Returns the rendered objects by kind: the last of each.
fn rendered(arguments: &[&str]) -> BTreeMap<String, Value> {
    let output = template(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let objects = text.split("\n---\n").map(|object| -> Value { serde_saphyr::from_str(object).unwrap() });
    objects.map(|object| (object["kind"].as_str().unwrap().to_owned(), object)).collect()
}
