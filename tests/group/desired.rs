use insta::assert_yaml_snapshot;
use k8sensus_api::InjectionStatus;
use k8sensus_group::Desired;
use k8sensus_group::desired::{NewLease, new_lease};
use serde_json::{Value, json};

use super::{CANDIDATE_IMAGE, MINIMAL, NATIVE, SIDECAR, SPECS, TEMPLATE, UID, by_kind, children, group, valid, with};

const NEWER_IMAGE: &str = "registry.example/k8sensus:0.2.0";

/// Returns the children after an upgrade of the operator to a newer image.
fn upgraded(spec: &str, recorded: Option<&InjectionStatus>) -> Desired {
    Desired::of(&valid(&group(spec)), recorded, NEWER_IMAGE)
}

fn hash(object: &Value) -> &str {
    object["metadata"]["annotations"]["k8sensus.dev/applied-hash"].as_str().expect("a hash")
}

#[test]
fn image_and_command_become_five_children() {
    assert_yaml_snapshot!("exec_shortcut", by_kind(children(&group(MINIMAL))));
}

/// Returns the children at an older injection revision, which the status has recorded.
fn of_revision(spec: &str, revision: i32) -> Desired {
    let recorded = children(&group(spec)).injection.expect("an injection");
    Desired::of(&valid(&group(spec)), Some(&InjectionStatus { revision, ..recorded }), NEWER_IMAGE)
}

#[test]
fn pods_of_older_revisions_stay_the_same_byte_for_byte() {
    assert_yaml_snapshot!("exec_shortcut_of_revision_3", by_kind(of_revision(MINIMAL, 3)));
    assert_yaml_snapshot!("exec_template_of_revision_3", by_kind(of_revision(TEMPLATE, 3)));
    assert_yaml_snapshot!("sidecar_template_of_revision_3", by_kind(of_revision(SIDECAR, 3)));
    assert_yaml_snapshot!("exec_shortcut_of_revision_2", by_kind(of_revision(MINIMAL, 2)));
    assert_yaml_snapshot!("exec_template_of_revision_2", by_kind(of_revision(TEMPLATE, 2)));
    assert_yaml_snapshot!("exec_shortcut_of_revision_1", by_kind(of_revision(MINIMAL, 1)));
    assert_yaml_snapshot!("exec_template_of_revision_1", by_kind(of_revision(TEMPLATE, 1)));
}

#[test]
fn template_change_updates_pods_of_revision_1_to_the_newest_revision() {
    let before = of_revision(MINIMAL, 1).injection;
    let after = upgraded(&MINIMAL.replace("1.4", "1.5"), before.as_ref());
    assert_eq!(after.injection.expect("an injection").revision, 4);
    assert!(after.deployment.to_string().contains("K8SENSUS_TERMINATION_MESSAGE_PATH"));
}

#[test]
fn unknown_injection_is_replaced_by_the_operators_own() {
    let recorded = children(&group(MINIMAL)).injection.expect("an injection");
    let today = upgraded(MINIMAL, None);
    for unknown in [
        InjectionStatus { revision: 0, ..recorded.clone() },
        InjectionStatus { revision: -1, ..recorded.clone() },
        InjectionStatus { image: String::new(), ..recorded.clone() },
    ] {
        // Image and revision are replaced together: this operator's revision was never tested with another candidate.
        assert_eq!(upgraded(MINIMAL, Some(&unknown)), today, "{unknown:?}");
    }
}

#[test]
fn template_keeps_everything_that_the_user_wrote() {
    assert_yaml_snapshot!("exec_template", by_kind(children(&group(TEMPLATE))));
}

#[test]
fn sidecar_is_added_and_the_program_is_unchanged() {
    assert_yaml_snapshot!("sidecar_template", by_kind(children(&group(SIDECAR))));
}

#[test]
fn change_to_mode_sidecar_leaves_a_revision_without_sidecars() {
    let of_exec = of_revision(TEMPLATE, 2).injection.expect("an injection");
    let sidecar = with(TEMPLATE, "candidate: { mode: Sidecar, container: main }");
    let desired = Desired::of(&valid(&sidecar), Some(&of_exec), NEWER_IMAGE);
    assert_eq!(desired.injection.expect("an injection").revision, 4);
}

#[test]
fn native_group_gets_only_environment_and_permissions() {
    assert_yaml_snapshot!("native_template", by_kind(children(&group(NATIVE))));
}

#[test]
fn progress_deadline_covers_the_trial_of_a_revision() {
    let deadline = |desired: Desired| desired.deployment["spec"]["progressDeadlineSeconds"].clone();
    let of = |more: &str| deadline(children(&with(MINIMAL, more)));
    assert_eq!(of("{}"), 640, "the usual 600 s, 10 s to lead well, 30 s to become Ready");
    assert_eq!(of("{ minReadySeconds: 3600, candidate: { unhealthyTimeoutSeconds: 900 } }"), 5100);
    assert_eq!(of("candidate: { unhealthyTimeoutSeconds: 0 }"), 1210, "without a timeout it is 600 s");
    assert_eq!(deadline(children(&group(SIDECAR))), 671, "and 31 s in which its readiness probe can fail");
    for mode in ["Exec", "Sidecar"] {
        let startup = |more: &str| {
            let spec = format!(
                "{{ candidate: {{ mode: {mode} }}, template: {{ spec: {{ containers: [{{ name: main, image: i, \
                 command: [/b], startupProbe: {{ tcpSocket: {{ port: 1 }}, {more} }} }}] }} }} }}"
            );
            deadline(children(&group(&spec)))
        };
        assert_eq!(startup("periodSeconds: 5, failureThreshold: 120"), 1240, "{mode}: and 600 s to start");
        assert_eq!(startup("periodSeconds: 100000, failureThreshold: 100000"), i32::MAX, "{mode}");
    }
    for without in [children(&group(NATIVE)), of_revision(MINIMAL, 1), of_revision(MINIMAL, 2)] {
        assert_eq!(deadline(without), Value::Null, "no pod waits for a trial");
    }
}

#[test]
fn existing_account_is_bound_and_not_created() {
    let desired = children(&with(MINIMAL, "serviceAccount: { name: robot, annotations: { a: b } }"));
    assert_eq!(desired.service_account, None);
    assert_eq!(desired.deployment["spec"]["template"]["spec"]["serviceAccountName"], "robot");
    assert_yaml_snapshot!("existing_account_binding", desired.role_binding);
}

#[test]
fn created_account_has_the_users_annotations() {
    let annotations = "serviceAccount: { annotations: { iam.example.com/role: ledger } }";
    let account = children(&with(MINIMAL, annotations)).service_account.expect("an account");
    assert_ne!(hash(&account), hash(&children(&group(MINIMAL)).service_account.expect("an account")));
    assert_yaml_snapshot!("annotated_account", account);
}

#[test]
fn strategy_is_passed_to_the_deployment() {
    let strategy = "strategy: { type: RollingUpdate, rollingUpdate: { maxSurge: 0, maxUnavailable: 50% } }";
    let spec = &children(&with(MINIMAL, strategy)).deployment["spec"];
    let expected = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 0, "maxUnavailable": "50%" } });
    assert_eq!(spec["strategy"], expected);
}

#[test]
fn server_defaults_of_the_strategy_are_explicit() {
    let strategy = |more: &str| children(&with(MINIMAL, more)).deployment["spec"]["strategy"].take();
    let rolling = |surge: Value, unavailable: &str| json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } });
    assert_eq!(strategy("{}"), rolling(json!("25%"), "25%"));
    assert_eq!(strategy("strategy: { type: RollingUpdate }"), rolling(json!("25%"), "25%"));
    assert_eq!(strategy("strategy: { rollingUpdate: { maxSurge: 1 } }"), rolling(json!(1), "25%"));
    assert_eq!(strategy("strategy: { type: Recreate }"), json!({ "type": "Recreate" }));
}

#[test]
fn volume_without_a_source_gets_the_servers_default() {
    let with_volumes = |volumes: &str| {
        let template = format!(
            "template: {{ spec: {{ containers: [{{ name: app, image: i, command: [/app] }}], volumes: {volumes} }} }}"
        );
        children(&group(&template)).deployment["spec"]["template"].take()
    };
    let bare = with_volumes("[{ name: data }]");
    assert_eq!(bare["spec"]["volumes"][0], json!({ "name": "data", "emptyDir": {} }));
    let other = with_volumes("[{ name: data, configMap: { name: c } }]");
    assert_eq!(other["spec"]["volumes"][0], json!({ "name": "data", "configMap": { "name": "c" } }));
    // Set after the revision was computed, so that no pod is replaced.
    assert_ne!(bare["metadata"]["labels"], with_volumes("[{ name: data, emptyDir: {} }]")["metadata"]["labels"]);
}

#[test]
fn suspending_scales_to_zero_without_a_rollout() {
    let running = children(&group(MINIMAL));
    let suspended = children(&with(MINIMAL, "suspend: true"));
    assert_eq!(suspended.deployment["spec"]["replicas"], 0);
    assert_eq!(suspended.deployment["spec"]["template"], running.deployment["spec"]["template"]);
    assert_eq!((suspended.role, suspended.lease), (running.role, running.lease));
}

#[test]
fn role_allows_four_verbs_on_one_lease() {
    for (spec, lease) in [(MINIMAL, "billing"), (TEMPLATE, "billing"), (NATIVE, "billing-leader")] {
        let expected = json!([{
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": [lease],
            "verbs": ["get", "list", "watch", "update"],
        }]);
        assert_eq!(children(&group(spec)).role["rules"], expected);
    }
}

#[test]
fn every_child_is_controlled_by_the_group_without_blocking_deletion() {
    for spec in SPECS {
        for (kind, child) in by_kind(children(&group(spec))).as_object().expect("children by kind") {
            if kind == "injection" {
                continue;
            }
            // Compared as a whole: `blockOwnerDeletion` would need a permission on the group's finalizers.
            let owner = json!([{
                "apiVersion": "k8sensus.dev/v1alpha1",
                "kind": "ElectionGroup",
                "name": "billing",
                "uid": UID,
                "controller": true,
            }]);
            assert_eq!(child["metadata"]["ownerReferences"], owner, "{kind}");
            assert_eq!(child["metadata"]["namespace"], "shop", "{kind}");
            assert_eq!(child["kind"], kind.as_str());
        }
    }
}

#[test]
fn selector_never_changes_and_selects_the_pods() {
    let selector = json!({ "matchLabels": { "k8sensus.dev/group": "billing" } });
    for spec in SPECS {
        let deployment = children(&group(spec)).deployment;
        assert_eq!(deployment["spec"]["selector"], selector);
        assert_eq!(deployment["spec"]["template"]["metadata"]["labels"]["k8sensus.dev/group"], "billing");
    }
}

#[test]
fn hash_changes_with_the_spec() {
    let before = children(&group(MINIMAL));
    let scaled = children(&with(MINIMAL, "replicas: 5"));
    assert_ne!(hash(&before.deployment), hash(&scaled.deployment));
    assert_eq!(hash(&before.role), hash(&scaled.role), "the role does not change");

    let renamed = children(&with(MINIMAL, "election: { leaseName: ledger }"));
    assert_ne!(hash(&before.role), hash(&renamed.role));
    let robot = children(&with(MINIMAL, "serviceAccount: { name: robot }"));
    assert_ne!(hash(&before.role_binding), hash(&robot.role_binding));
}

#[test]
fn status_and_generation_do_not_change_the_children() {
    let mut resource = group(TEMPLATE);
    let before = children(&resource);
    resource.metadata.generation = Some(8);
    resource.metadata.resource_version = Some("4711".to_owned());
    resource.status = serde_json::from_value(json!({ "holderIdentity": "billing-1", "leaseTransitions": 4 })).ok();
    assert!(resource.status.is_some());
    assert_eq!(children(&resource), before);
}

#[test]
fn operator_upgrade_rolls_no_group() {
    for spec in SPECS {
        let before = children(&group(spec));
        let after = upgraded(spec, before.injection.as_ref());
        assert_eq!(after.deployment.to_string(), before.deployment.to_string());
        assert_eq!(after.injection, before.injection);
    }
}

#[test]
fn template_change_adopts_the_new_candidate() {
    let before = children(&group(MINIMAL)).injection.expect("an injection");
    let after = upgraded(&MINIMAL.replace("1.4", "1.5"), Some(&before));
    let injection = after.injection.expect("an injection");
    assert_eq!(injection.image, NEWER_IMAGE);
    assert_ne!(injection.template_hash, before.template_hash);
    assert_eq!(after.deployment["spec"]["template"]["spec"]["initContainers"][0]["image"], NEWER_IMAGE);
}

#[test]
fn changes_outside_the_template_keep_the_candidate() {
    let before = children(&group(MINIMAL)).injection.expect("an injection");
    for more in ["replicas: 5", "suspend: true", "election: { retryPeriodSeconds: 3 }", "strategy: { type: Recreate }"]
    {
        let after = Desired::of(&valid(&with(MINIMAL, more)), Some(&before), NEWER_IMAGE);
        assert_eq!(after.injection.as_ref(), Some(&before), "{more}");
    }
}

#[test]
fn recorded_injection_of_an_unknown_template_is_not_kept() {
    let unknown = InjectionStatus { image: "registry.example/k8sensus:0.0.1".to_owned(), ..Default::default() };
    assert_eq!(upgraded(MINIMAL, Some(&unknown)).injection.expect("an injection").image, NEWER_IMAGE);
}

#[test]
fn field_order_of_a_template_is_no_change() {
    let template = |text: &str| {
        let mut resource = group(TEMPLATE);
        resource.spec.candidate.container = None;
        resource.spec.template = Some(serde_json::value::RawValue::from_string(text.to_owned()).expect("JSON"));
        children(&resource)
    };
    let one = template(r#"{"spec":{"containers":[{"name":"a","image":"b","command":["/b"]}]}}"#);
    let other = template(r#"{ "spec": { "containers": [{ "command": ["/b"], "image": "b", "name": "a" }] } }"#);
    assert_eq!(one, other);
    assert_eq!(one.deployment.to_string(), other.deployment.to_string());
}

#[test]
fn first_lease_is_free_at_once() {
    let group = valid(&group(MINIMAL));
    let lease = Desired::of(&group, None, CANDIDATE_IMAGE).lease;
    let new = new_lease(&lease, NewLease::First, "2026-03-01T12:00:00.000000Z");
    assert_yaml_snapshot!("first_lease", new);
}

#[test]
fn recreated_lease_makes_candidates_wait_for_its_whole_duration() {
    let group = valid(&with(NATIVE, "election: { leaseName: billing-leader, leaseDurationSeconds: 30 }"));
    let lease = Desired::of(&group, None, CANDIDATE_IMAGE).lease;
    let new = new_lease(&lease, NewLease::Recreated { transitions: 41, seconds: 30 }, "2026-03-01T12:00:00.000000Z");
    assert_yaml_snapshot!("recreated_lease", new);
}

#[test]
fn existing_lease_belongs_to_the_candidates() {
    for spec in SPECS {
        let lease = children(&group(spec)).lease;
        assert_eq!(lease.get("spec"), None);
        assert_eq!(lease["metadata"].get("annotations"), None, "a hash of a foreign spec is meaningless");
    }
}
