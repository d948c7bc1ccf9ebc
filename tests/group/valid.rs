use std::time::Duration;

use k8sensus_api::{ElectionGroup, ElectionGroupStatus, GROUP, InjectionStatus, Mode};
use k8sensus_group::spec::group::{GroupMode, GroupTiming, ServiceAccount};
use k8sensus_group::{Desired, Group, Invalid};
use serde_json::json;

use super::{MINIMAL, NATIVE, TEMPLATE, group, valid, with};
use crate::api::rules::{Case, cases};

/// A spec, the field that the refusal names, and the rule.
type Refusal = (&'static str, &'static str, &'static str);

fn check(table: &[Refusal]) {
    for (spec, field, rule) in table {
        let Invalid { field: found, rule: found_rule } = Group::check(&group(spec)).expect_err(spec);
        assert_eq!((found.as_str(), found_rule.as_str()), (*field, *rule), "{spec}");
    }
}

/// One valid container with more fields of the pod, in flow style.
fn pod(more: &str) -> ElectionGroup {
    group(&format!("template: {{ spec: {{ containers: [{{ name: main, image: b, command: [/b] }}], {more} }} }}"))
}

fn refusal(group: &ElectionGroup) -> String {
    Group::check(group).expect_err("must be refused").to_string()
}

#[test]
fn source_that_cannot_run_is_refused() {
    let one = "exactly one of the two must be set";
    let shortcut = "need spec.image; with spec.template set the container's";
    let no_command = "must be set in mode Exec, since the entrypoint of the image cannot be known; or use mode Native";
    check(&[
        ("{}", "spec.image, spec.template", one),
        ("{ command: [/b] }", "spec.image, spec.template", one),
        (
            "{ image: b, command: [/b], template: { spec: { containers: [{ name: main, image: b }] } } }",
            "spec.image, spec.template",
            one,
        ),
        (
            "{ command: [/b], template: { spec: { containers: [{ name: main, image: b }] } } }",
            "spec.command, spec.args",
            shortcut,
        ),
        (
            "{ args: [-v], template: { spec: { containers: [{ name: main, image: b }] } } }",
            "spec.command, spec.args",
            shortcut,
        ),
        ("{ image: b }", "spec.command", no_command),
        ("{ image: b, command: [] }", "spec.command", "must have from 1 to 100 items, found 0"),
        (
            "{ template: { spec: { containers: [{ name: main, image: b, command: [] }] } } }",
            "spec.template.spec.containers[main].command",
            no_command,
        ),
        ("{ image: b, args: [-v] }", "spec.command", no_command),
        (
            "{ template: { spec: { containers: [{ name: main, image: b }] } } }",
            "spec.template.spec.containers[main].command",
            no_command,
        ),
        (
            "{ candidate: { container: two }, template: { spec: { containers: [{ name: one, image: b, command: [/b] }, { name: two, image: b }] } } }",
            "spec.template.spec.containers[two].command",
            no_command,
        ),
    ]);
}

#[test]
fn mode_of_a_newer_version_is_refused_by_name() {
    check(&[(
        "{ image: b, candidate: { mode: Telepathic } }",
        "spec.candidate.mode",
        "is not known to this version of the operator; use Exec, Sidecar or Native, or upgrade the operator",
    )]);
}

#[test]
fn candidate_port_must_not_be_used_by_the_pod() {
    let template = |ports: &str| {
        format!("{{ spec: {{ containers: [{{ name: main, image: b, command: [/b], ports: {ports} }}] }} }}")
    };
    let rule = "must not be a port of another container, found 4040 in container main; set another one";
    for mode in ["Exec", "Sidecar"] {
        let taken = format!("{{ candidate: {{ mode: {mode} }}, template: {} }}", template("[{ containerPort: 4040 }]"));
        assert_eq!(refusal(&group(&taken)), format!("spec.candidate.httpPort: {rule}"));
    }
    for free in ["[{ containerPort: 4041 }]", "[{ containerPort: 4040, protocol: UDP }]"] {
        valid(&group(&format!("template: {}", template(free))));
    }
    valid(&group(&format!("{{ candidate: {{ mode: Native }}, template: {} }}", template("[{ containerPort: 4040 }]"))));
}

/// `spec` in a group whose pods have this very template at injection revision `revision`.
fn injected(spec: &str, revision: i32) -> ElectionGroup {
    let native = valid(&group(&format!(
        "{spec}
candidate: {{ mode: Native }}"
    )));
    let made = Desired::of(&Group { mode: GroupMode::Exec, ..native }, None, "registry.example/k8sensus:0.1.0");
    let injection = Some(InjectionStatus { revision, ..made.injection.expect("an injection") });
    let status = ElectionGroupStatus { injection, ..ElectionGroupStatus::default() };
    ElectionGroup { status: Some(status), ..group(spec) }
}

#[test]
fn variables_of_a_serving_candidate_are_refused_only_where_it_serves() {
    let with = |more: &str| {
        format!("template: {{ spec: {{ containers: [{{ name: main, image: b, command: [/b], {more} }}] }} }}")
    };
    let taken = "spec.candidate.httpPort: must not be a port of another container, found 4040";
    let mut cases = vec![(with("ports: [{ containerPort: 4040 }]"), taken.to_owned())];
    for name in ["K8SENSUS_HTTP_PORT", "K8SENSUS_REVISION", "K8SENSUS_LOCK_PATH", "K8SENSUS_APP"] {
        let rule = format!("spec.template.spec.containers[main].env: {name} is set by the operator");
        cases.push((with(&format!("env: [{{ name: {name}, value: x }}]")), rule));
    }
    for (spec, rule) in cases {
        for revision in [1, 2] {
            valid(&injected(&spec, revision));
        }
        let mut changed = injected(&spec, 2);
        changed.spec.template = group(&spec.replace("image: b", "image: c")).spec.template;
        let mut sidecar = injected(&spec, 2);
        sidecar.spec.candidate.mode = Mode::Sidecar;
        for group in [group(&spec), injected(&spec, 3), injected(&spec, 4), changed, sidecar] {
            let found = refusal(&group);
            assert!(found.starts_with(&rule), "{found}");
        }
    }
}

#[test]
fn missing_leading_container_is_refused() {
    check(&[
        ("{ template: {} }", "spec.template.spec", "must be set"),
        ("{ template: { spec: {} } }", "spec.template.spec.containers", "must be set"),
        (
            "{ template: { spec: { containers: [] } } }",
            "spec.template.spec.containers",
            "must have from 1 to 32 items, found 0",
        ),
        (
            "{ template: { spec: { containers: main } } }",
            "spec.template.spec.containers",
            r#"must be a list, found "main""#,
        ),
        (
            "{ template: { spec: { containers: [{ image: b }] } } }",
            "spec.template.spec.containers[0].name",
            "must be set",
        ),
        ("{ template: text }", "spec.template", r#"must be an object, found "text""#),
        (
            "{ image: b, command: [/b], candidate: { container: main } }",
            "spec.candidate.container",
            r#"must name a container of the template, found "main""#,
        ),
        (
            "{ candidate: { container: sidecar }, template: { spec: { containers: [{ name: main, image: b, command: [/b] }] } } }",
            "spec.candidate.container",
            r#"must name a container of the template, found "sidecar""#,
        ),
    ]);
}

#[test]
fn pod_that_breaks_the_election_is_refused() {
    let account = "must not be set; set spec.serviceAccount.name";
    let token = "must not be false: the candidate needs the token to reach the Lease";
    let process = "must not be true in mode Exec: the candidate could not distinguish its own processes from others";
    for (more, field, rule) in [
        ("serviceAccountName: robot", "serviceAccountName", account),
        ("serviceAccount: robot", "serviceAccount", account),
        ("automountServiceAccountToken: false", "automountServiceAccountToken", token),
        ("restartPolicy: Never", "restartPolicy", "must be Always, as in every Deployment"),
        ("restartPolicy: OnFailure", "restartPolicy", "must be Always, as in every Deployment"),
        ("hostPID: true", "hostPID", process),
        ("shareProcessNamespace: true", "shareProcessNamespace", process),
    ] {
        assert_eq!(refusal(&pod(more)), format!("spec.template.spec.{field}: {rule}"), "{more}");
    }
}

#[test]
fn reserved_keys_in_the_template_are_refused() {
    for kind in ["labels", "annotations"] {
        let spec = |key: &str| {
            let container = "containers: [{ name: main, image: b, command: [/b] }]";
            format!("{{ template: {{ metadata: {{ {kind}: {{ a: b, {key}: x }} }}, spec: {{ {container} }} }} }}")
        };
        let expected = format!(
            "spec.template.metadata.{kind}: keys that begin with {GROUP}/ are reserved, found k8sensus.dev/group"
        );
        assert_eq!(refusal(&group(&spec("k8sensus.dev/group"))), expected);
        valid(&group(&spec("k8sensus.dev.example.com/group")));
    }
}

#[test]
fn unsafe_timings_are_refused() {
    let of = |election: &str| refusal(&with(MINIMAL, &format!("election: {{ {election} }}")));
    assert_eq!(
        of("leaseDurationSeconds: 10"),
        "spec.election: lease duration (10 s) must be greater than renew deadline (10 s)"
    );
    assert_eq!(of("leaseDurationSeconds: -1"), "spec.election.leaseDurationSeconds: must be from 1 to 3600, found -1");
    assert_eq!(
        of("retryPeriodSeconds: 9"),
        "spec.election: renew deadline (10 s) must be greater than 1.2 x retry period (9 s)"
    );
    assert_eq!(of("retryPeriodSeconds: 0"), "spec.election.retryPeriodSeconds: must be from 1 to 3600, found 0");
    assert_eq!(
        of("renewIntervalSeconds: 10"),
        "spec.election: renew interval (10 s) must be greater than 0 s and less than renew deadline (10 s)"
    );
    let margin = "must be at most 9/10 of lease duration (15 s): the last tenth is the margin for unequal clock rates";
    assert_eq!(of("renewDeadlineSeconds: 14"), {
        format!("spec.election: renew deadline (14 s) + stop grace (0 s) {margin}")
    });
    assert_eq!(refusal(&with(MINIMAL, "candidate: { stopGracePeriodSeconds: 4 }")), {
        format!("spec.candidate.stopGracePeriodSeconds: renew deadline (10 s) + stop grace (4 s) {margin}")
    });
}

#[test]
fn names_and_numbers_out_of_bounds_are_refused() {
    let named = |name: &str| {
        let mut group = group(MINIMAL);
        group.metadata.name = Some(name.to_owned());
        group
    };
    let rule = "metadata.name: must be a DNS label of at most 52 characters that begins with a letter, found";
    for name in ["", "billing.eu", "7up", "Billing", "billing-", &"n".repeat(53)] {
        assert_eq!(refusal(&named(name)), format!("{rule} {name:?}"));
    }
    assert_eq!(valid(&named(&"n".repeat(52))).name.len(), 52);
    for replicas in [-1, 101] {
        let expected = format!("spec.replicas: must be from 0 to 100, found {replicas}");
        assert_eq!(refusal(&with(MINIMAL, &format!("replicas: {replicas}"))), expected);
    }
    for replicas in [0, 100] {
        assert_eq!(valid(&with(MINIMAL, &format!("replicas: {replicas}"))).replicas, replicas);
    }
}

#[test]
fn minimal_spec_means_two_pods_and_the_defaults_of_client_go() {
    let Group {
        name,
        namespace,
        uid,
        replicas,
        lease_name,
        timing,
        mode,
        container,
        template,
        from_image,
        service_account,
        strategy,
        resources,
        disruption_budget,
        suspended,
        paused,
        http_port,
        unhealthy_timeout,
        min_ready,
        leader_service,
        start_up,
        until_unready,
    } = valid(&group(MINIMAL));
    assert_eq!((name.as_str(), namespace.as_str(), uid.as_str()), ("billing", "shop", super::UID));
    assert_eq!((replicas, lease_name.as_str()), (2, "billing"));
    let stop_grace = Some(Duration::from_secs(3));
    let usual = GroupTiming { lease_duration: 15, renew_deadline: 10, retry_period: 2, renew_interval: 2, stop_grace };
    assert_eq!(timing, usual);
    assert_eq!((mode, container.as_str()), (GroupMode::Exec, "app"));
    let app = json!({ "name": "app", "image": "registry.example/billing:1.4", "command": ["/app/billing"] });
    assert_eq!(template, json!({ "spec": { "containers": [app] } }));
    assert_eq!(service_account, ServiceAccount::Own(Default::default()));
    assert_eq!((strategy, resources, suspended, paused), (None, None, false, false));
    assert_eq!((from_image, disruption_budget), (true, Some(json!(1))));
    assert_eq!((http_port, unhealthy_timeout), (4040, Some(Duration::from_secs(30))));
    assert_eq!((min_ready, leader_service), (Duration::from_secs(10), None));
    assert_eq!((start_up, until_unready), (Duration::ZERO, Duration::ZERO));
}

#[test]
fn every_field_of_a_full_spec_is_used() {
    let spec = "
        replicas: 5
        paused: true
        candidate: { mode: Exec, stopGracePeriodSeconds: 6, resources: { limits: { memory: 32Mi } } }
        election: { leaseName: ledger, leaseDurationSeconds: 30, renewDeadlineSeconds: 20, retryPeriodSeconds: 4, renewIntervalSeconds: 5 }
        strategy: { type: Recreate }
        serviceAccount: { annotations: { example.com/role: ledger } }
    ";
    let group = valid(&with(MINIMAL, spec));
    assert_eq!((group.replicas, group.paused, group.suspended), (5, true, false));
    assert_eq!(group.lease_name, "ledger");
    let stop_grace = Some(Duration::from_secs(6));
    let timing = GroupTiming { lease_duration: 30, renew_deadline: 20, retry_period: 4, renew_interval: 5, stop_grace };
    assert_eq!(group.timing, timing);
    assert_eq!(group.strategy, Some(json!({ "type": "Recreate" })));
    assert_eq!(group.resources, Some(json!({ "limits": { "memory": "32Mi" } })));
    let annotations = [("example.com/role".to_owned(), "ledger".to_owned())].into();
    assert_eq!(group.service_account, ServiceAccount::Own(annotations));
    assert_eq!(group.service_account.name("billing"), "billing");
}

#[test]
fn template_is_kept_as_the_user_wrote_it() {
    let template = super::yaml(TEMPLATE)["template"].clone();
    let group = valid(&group(TEMPLATE));
    assert_eq!(group.template, template);
    assert_eq!(group.container, "main");
}

#[test]
fn without_a_name_the_first_container_leads() {
    let spec =
        "{ template: { spec: { containers: [{ name: one, image: b, command: [/b] }, { name: two, image: b }] } } }";
    assert_eq!(valid(&group(spec)).container, "one");
}

#[test]
fn existing_account_is_used_and_never_annotated() {
    let group = valid(&with(MINIMAL, "serviceAccount: { name: robot, annotations: { a: b } }"));
    assert_eq!(group.service_account, ServiceAccount::Existing("robot".to_owned()));
    assert_eq!(group.service_account.name("billing"), "robot");
}

#[test]
fn suspended_group_wants_no_pods() {
    let group = valid(&with(MINIMAL, "{ suspend: true, replicas: 3 }"));
    assert_eq!((group.replicas, group.suspended), (0, true));
}

#[test]
fn explicit_defaults_in_a_pod_are_accepted() {
    for more in [
        "restartPolicy: Always",
        "automountServiceAccountToken: true",
        "hostPID: false",
        "shareProcessNamespace: false",
    ] {
        valid(&pod(more));
    }
}

#[test]
fn mode_native_allows_shared_processes_and_any_stop_grace() {
    for more in ["hostPID: true", "shareProcessNamespace: true"] {
        let mut group = pod(more);
        group.spec.candidate.mode = k8sensus_api::Mode::Native;
        valid(&group);
    }
    let group = valid(&with(NATIVE, "candidate: { mode: Native, stopGracePeriodSeconds: 600 }"));
    assert_eq!(group.mode, GroupMode::Native);
    assert_eq!(group.timing.stop_grace, None);
}

/// Accepted by the API server and refused here: the rules cannot search a template for the port of that name.
const STRICTER: &[&str] = &["a named targetPort"];

/// Refused by the CRD and accepted here: the operator never gets unknown fields.
const LAXER: &[&str] = &["an unknown field", "a typo in the template"];

#[test]
fn operator_decides_as_the_crd_does() {
    let accepted = |case: &Case| {
        let spec = Group::parse(&case.manifest["spec"].to_string())?;
        let mut group = group(MINIMAL);
        group.metadata.name = case.manifest["metadata"]["name"].as_str().map(str::to_owned);
        group.spec = spec;
        Group::check(&group)
    };
    let mut stricter = Vec::new();
    let mut laxer = Vec::new();
    for case in cases() {
        let accepted = accepted(&case).is_ok();
        match case.message {
            None if !accepted => stricter.push(case.name),
            Some(_) if accepted => laxer.push(case.name),
            _ => {}
        }
    }
    laxer.sort_by_key(|name| LAXER.iter().position(|known| known == name));
    assert_eq!((stricter.as_slice(), laxer.as_slice()), (STRICTER, LAXER));
}

#[test]
fn budget_exists_for_two_pods_or_more() {
    let budget = |more: &str| valid(&with(MINIMAL, more)).disruption_budget;
    assert_eq!(budget("podDisruptionBudget: { maxUnavailable: 25% }"), Some(json!("25%")));
    assert_eq!(budget("podDisruptionBudget: { maxUnavailable: 0 }"), Some(json!(0)));
    for alone in ["replicas: 1", "replicas: 0", "{ replicas: 5, suspend: true }"] {
        assert_eq!(budget(alone), None, "{alone}");
    }
    for (wrong, shown) in [
        ("-1", "-1"),
        ("101", "101"),
        ("101%", "\"101%\""),
        ("'07%'", "\"07%\""),
        ("'+5%'", "\"+5%\""),
        ("'%'", "\"%\""),
    ] {
        let expected =
            "spec.podDisruptionBudget.maxUnavailable: must be a number from 0 to 100 or a percentage from 0% to 100%";
        let group = with(MINIMAL, &format!("podDisruptionBudget: {{ maxUnavailable: {wrong} }}"));
        assert_eq!(refusal(&group), format!("{expected}, found {shown}"));
    }
}

#[test]
fn empty_account_name_counts_as_not_set() {
    let template = valid(&pod("serviceAccountName: '', serviceAccount: ''")).template;
    assert_eq!(template["spec"].as_object().map(|pod| pod.len()), Some(1), "{template}");
}
