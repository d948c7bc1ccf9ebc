//! What the chart renders, and the values that it refuses.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::{control_plane, root, shared};

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

#[test]
fn wrong_value_is_refused_by_its_name() {
    let cases = [
        ("replica=3", "additional properties 'replica' not allowed"),
        ("replicas=two", "at '/replicas': got string, want integer"),
        ("replicas=-1", "at '/replicas': minimum: got -1, want 0"),
        ("image.registry=https://mirror.example", "at '/image/registry'"),
        ("image.registri=x", "at '/image': additional properties 'registri' not allowed"),
        ("image.pullPolicy=Sometimes", "at '/image/pullPolicy': value must be one of"),
        ("global.imageRegistry=mirror.example/", "at '/global/imageRegistry'"),
        ("global.imagePullSecrets[0].nam=x", "at '/global/imagePullSecrets/0'"),
        ("imagePullSecrets[0]=x", "at '/imagePullSecrets/0': got string, want object"),
        ("log.format=xml", "at '/log/format': value must be one of"),
        ("concurrency=0", "at '/concurrency': minimum: got 0, want 1"),
        ("namespaces={Team}", "at '/namespaces/0'"),
        ("extraEnv[0].nam=x", "at '/extraEnv/0'"),
        ("extraArgs=--x", "at '/extraArgs': got string, want array"),
        ("extraVolumeMounts[0].name=x,extraVolumeMounts[0].mountpath=/x", "at '/extraVolumeMounts/0'"),
        ("livenessProbe.period=3", "at '/livenessProbe': additional properties 'period' not allowed"),
        (
            "livenessProbe.successThreshold=2",
            "at '/livenessProbe': additional properties 'successThreshold' not allowed",
        ),
        ("livenessProbe.periodSeconds=3s", "at '/livenessProbe/periodSeconds': got string, want integer"),
        ("readinessProbe.periodSeconds=-1", "at '/readinessProbe/periodSeconds': minimum: got -1, want 0"),
        ("strategy.type=Replace", "at '/strategy/type': value must be one of"),
        ("strategy.rollingUpdate.surge=1", "at '/strategy/rollingUpdate': additional properties 'surge' not allowed"),
        ("strategy.rollingUpdate.maxSurge=many", "at '/strategy/rollingUpdate/maxSurge'"),
        ("revisionHistoryLimit=-1", "at '/revisionHistoryLimit': minimum: got -1, want 0"),
        ("terminationGracePeriodSeconds=0", "at '/terminationGracePeriodSeconds': minimum: got 0, want 1"),
        ("hostNetwork=yes", "at '/hostNetwork': got string, want boolean"),
        ("dnsPolicy=First", "at '/dnsPolicy': value must be one of"),
        ("dnsConfig.nameserver=x", "at '/dnsConfig': additional properties 'nameserver' not allowed"),
        ("hostAliases[0].ip=10.0.0.1", "at '/hostAliases/0': missing property 'hostnames'"),
        ("runtimeClassName=G_V", "at '/runtimeClassName'"),
        ("schedulerName=My_Own", "at '/schedulerName'"),
        ("resources.limit.memory=1Gi", "at '/resources': additional properties 'limit' not allowed"),
        ("podSecurityContext.runAsUsr=1", "at '/podSecurityContext': additional properties 'runAsUsr' not allowed"),
        ("securityContext.readOnly=true", "at '/securityContext': additional properties 'readOnly' not allowed"),
        ("affinity.node=x", "at '/affinity': additional properties 'node' not allowed"),
        ("tolerations[0].Key=x", "at '/tolerations/0': additional properties 'Key' not allowed"),
        (
            "topologySpreadConstraints[0].skew=1",
            "at '/topologySpreadConstraints/0': additional properties 'skew' not allowed",
        ),
        ("nodeSelector.disk=1", "at '/nodeSelector/disk'"),
        ("commonAnnotations.owner=1", "at '/commonAnnotations/owner': got number, want string"),
        ("deploymentAnnotations=x", "at '/deploymentAnnotations': got string, want object"),
        ("service.label.x=y", "at '/service': additional properties 'label' not allowed"),
        ("podDisruptionBudget.minAvailable=half", "at '/podDisruptionBudget/minAvailable'"),
        ("podDisruptionBudget.maxUnavailable=0", "at '/podDisruptionBudget/maxUnavailable'"),
        ("serviceMonitor.relabeling=x", "at '/serviceMonitor': additional properties 'relabeling' not allowed"),
        ("serviceMonitor.namespace=Mon", "at '/serviceMonitor/namespace'"),
        ("networkPolicy.extraEgress=x", "at '/networkPolicy/extraEgress': got string, want array"),
        ("extraObjects[0].kind=Secret", "at '/extraObjects/0'"),
        ("test.enable=true", "at '/test': additional properties 'enable' not allowed"),
        // What a schema cannot express.
        ("commonLabels.helm\\.sh/chart=x", "commonLabels: the chart sets helm.sh/chart itself"),
        ("deploymentLabels.app\\.kubernetes\\.io/name=x", "deploymentLabels: the chart sets app.kubernetes.io/name"),
        ("service.labels.app\\.kubernetes\\.io/name=x", "service.labels: the chart sets app.kubernetes.io/name"),
        ("podAnnotations.kubectl\\.kubernetes\\.io/default-container=x", "podAnnotations: the chart sets"),
        ("extraEnv[0].name=POD_NAME", "extraEnv: POD_NAME has a value of its own"),
        ("extraArgs={--lease-name=x}", "extraArgs: --lease-name is set by the chart"),
        ("extraVolumeMounts[0].name=ca,extraVolumeMounts[0].mountPath=/ca", "extraVolumes has no volume ca"),
        ("podDisruptionBudget.minAvailable=1,podDisruptionBudget.maxUnavailable=1", "minAvailable or maxUnavailable"),
        ("podDisruptionBudget.minAvailable=2", "podDisruptionBudget.minAvailable: 2 of 2 replicas would block"),
        ("podDisruptionBudget.minAvailable=100%", "podDisruptionBudget.minAvailable: 100% of 2 replicas would block"),
        ("serviceAccount.create=false", "serviceAccount.name is needed when serviceAccount.create is false"),
        ("serviceMonitor.enabled=true,service.enabled=false", "serviceMonitor.enabled needs service.enabled"),
    ];
    for (values, expected) in cases {
        let output = template(&["--set", values]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{values} is accepted");
        assert!(error.contains(expected), "{values}: {error}");
    }
}

#[test]
fn cluster_older_than_supported_is_refused() {
    let output = template(&["--kube-version", "1.32.9"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("kubeVersion: >=1.33.0-0") && error.contains("v1.32.9"), "{error}");
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
        "test",
        "image.registry",
        "serviceMonitor.relabelings",
        "podDisruptionBudget.minAvailable",
    ];
    let absent: Vec<_> = new.iter().map(|name| format!("{name}=null")).collect();
    let render = |values: &str| {
        let output = template(&["--skip-tests", "--set", values]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(render(&absent.join(",")) == render("replicas=2"));
}

#[test]
fn service_monitor_without_the_prometheus_operator_is_refused_by_a_cluster_alone() {
    let expected = "serviceMonitor.enabled needs the CRDs of the Prometheus operator, which this cluster lacks: install \
                    them first, or set serviceMonitor.enabled to false";
    let mut helm = helm();
    helm.args(["install", "monitored", "charts/k8sensus", "--dry-run=server", "--set", "crds.enabled=false"]);
    let output = helm.args(["--set", "serviceMonitor.enabled=true"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains(expected), "{error}");
    let output = template(&["--set", "serviceMonitor.enabled=true"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn second_release_is_refused_unless_it_leaves_the_crd_to_the_first() {
    let cluster = control_plane();
    let kubectl = |arguments: &[&str]| crate::support::kubectl(&cluster, arguments);
    kubectl(&["delete", "crd", "electiongroups.k8sensus.dev"]);
    let install = |release: &str, more: &[&str]| {
        let mut helm = cluster.helm().unwrap();
        helm.args(["install", release, "charts/k8sensus", "--namespace", release, "--create-namespace"]);
        helm.args(more).current_dir(root()).output().unwrap()
    };
    let error = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let first = install("first", &[]);
    assert!(first.status.success(), "{}", error(&first));

    let second = install("second", &[]);
    let expected = "release first in namespace first already runs k8sensus in this cluster and owns the CRD";
    assert!(!second.status.success() && error(&second).contains(expected), "{}", error(&second));
    let left = kubectl(&["get", "clusterroles,deployments", "--all-namespaces", "-o", "name"]);
    assert!(!left.contains("second"), "half installed: {left}");

    let beside = ["--set", "crds.enabled=false,namespaces={second}"];
    let second = install("second", &beside);
    assert!(second.status.success(), "{}", error(&second));

    // An upgrade of the first works even if another release has adopted the CRD.
    let adopted = ["meta.helm.sh/release-name=second", "meta.helm.sh/release-namespace=second"];
    kubectl(&[&["annotate", "--overwrite", "crd", "electiongroups.k8sensus.dev"][..], &adopted].concat());
    let mut helm = cluster.helm().unwrap();
    helm.args(["upgrade", "first", "charts/k8sensus", "--namespace", "first", "--force-conflicts"]);
    let upgraded = helm.current_dir(root()).output().unwrap();
    assert!(upgraded.status.success(), "{}", error(&upgraded));

    // The CRD stays. Without the first operator Helm's own message says who owns it and how to adopt it.
    let mut helm = cluster.helm().unwrap();
    assert!(helm.args(["uninstall", "first", "--namespace", "first"]).output().unwrap().status.success());
    let third = install("third", &[]);
    assert!(error(&third).contains("meta.helm.sh/release-name"), "{}", error(&third));
    let third = install("third", &["--take-ownership"]);
    assert!(third.status.success(), "{}", error(&third));
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
    let output = template(&[&["--skip-tests"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let objects = text.split("\n---\n").map(|object| -> Value { serde_saphyr::from_str(object).unwrap() });
    objects.map(|object| (object["kind"].as_str().unwrap().to_owned(), object)).collect()
}
