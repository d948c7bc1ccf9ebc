//! The API server's refusal of a child, explained by the fields of the group.

use k8sensus_group::desired::refusal::explain;

use super::{MINIMAL, NATIVE, TEMPLATE, group, valid, with};

const POD: &str = "spec.template.spec";

#[test]
fn deployment_field_is_mapped_to_the_groups_field() {
    let group = valid(&group(TEMPLATE));
    let of = |field: &str| explain(&group, "Deployment", "too long to be read", &[(field, "Required value")]);
    let same = |field: &str| assert_eq!(of(field), format!("{field}: Required value"));
    same("spec.template.metadata.labels");
    same("spec.template.spec.containers[1].image");
    same("spec.template.spec.volumes[0].name");
    same("spec.strategy.rollingUpdate.maxSurge");
    same("spec.replicas");
    assert_eq!(of("metadata.name"), "Deployment metadata.name: Required value");
}

#[test]
fn injected_items_are_not_counted() {
    let exec = valid(&group(TEMPLATE));
    let native = valid(&group(NATIVE));
    let of = |group, field: String| explain(group, "Deployment", "", &[(&field, "Not found")]);
    assert_eq!(
        of(&exec, format!("{POD}.initContainers[1].image")),
        format!("{POD}.initContainers[0].image: Not found")
    );
    assert_eq!(
        of(&native, format!("{POD}.initContainers[1].image")),
        format!("{POD}.initContainers[1].image: Not found")
    );
    assert_eq!(
        of(&exec, format!("{POD}.initContainers[0].resources.limits[cpu]")),
        "spec.candidate.resources.limits[cpu]: Not found"
    );
    assert_eq!(
        of(&exec, format!("{POD}.initContainers[0].image")),
        format!("Deployment {POD}.initContainers[0].image: Not found")
    );
    // Twenty-one variables come first, and replace POD_NAME, the second of the user's three variables.
    assert_eq!(
        of(&exec, format!("{POD}.containers[1].env[21].name")),
        format!("{POD}.containers[1].env[0].name: Not found")
    );
    assert_eq!(
        of(&exec, format!("{POD}.containers[1].env[22].value")),
        format!("{POD}.containers[1].env[2].value: Not found")
    );
    assert_eq!(
        of(&exec, format!("{POD}.containers[1].env[3].value")),
        format!("{POD}.containers[1].env.value: Not found")
    );
    assert_eq!(
        of(&exec, format!("{POD}.containers[0].env[0].value")),
        format!("{POD}.containers[0].env[0].value: Not found")
    );
}

#[test]
fn shortcut_fields_are_named_as_the_user_wrote_them() {
    let shortcut = valid(&group(MINIMAL));
    let of = |field: String| explain(&shortcut, "Deployment", "", &[(&field, "Invalid value")]);
    assert_eq!(of(format!("{POD}.containers[0].image")), "spec.image: Invalid value");
    assert_eq!(
        of(format!("{POD}.containers[0].securityContext")),
        format!("{POD}.containers[0].securityContext: Invalid value")
    );
}

#[test]
fn fields_of_other_children_are_mapped_too() {
    let group = valid(&with(MINIMAL, "serviceAccount: { annotations: { a: b } }"));
    let of = |kind: &str, field: &str| explain(&group, kind, "", &[(field, "no")]);
    assert_eq!(of("ServiceAccount", "metadata.annotations"), "spec.serviceAccount.annotations: no");
    assert_eq!(of("RoleBinding", "subjects[0].name"), "spec.serviceAccount.name: no");
    assert_eq!(of("PodDisruptionBudget", "spec.maxUnavailable"), "spec.podDisruptionBudget.maxUnavailable: no");
    assert_eq!(of("Lease", "metadata.name"), "spec.election.leaseName: no");
    assert_eq!(of("Lease", "spec.renewTime"), "Lease spec.renewTime: no");
}

#[test]
fn many_or_long_complaints_are_cut() {
    let group = valid(&group(MINIMAL));
    let long = "x y\n".repeat(1_000);
    let causes = [
        ("spec.replicas", "a"),
        ("spec.replicas", "a"),
        ("spec.strategy", long.as_str()),
        ("spec.template", "c"),
        ("spec.template", "d"),
    ];
    let found = explain(&group, "Deployment", "", &causes);
    assert!(found.starts_with("spec.replicas: a; spec.strategy: x y x y"), "{found}");
    assert!(found.ends_with("...; spec.template: c; and 1 more") && found.len() < 400, "{found}");
}

#[test]
fn message_is_parsed_without_causes() {
    let group = valid(&group(TEMPLATE));
    let of = |message: &str| explain(&group, "Deployment", message, &[]);
    assert_eq!(
        of(r#"Deployment.apps "billing" is invalid: spec.template.spec.initContainers[2].image: Required value"#),
        format!("{POD}.initContainers[1].image: Required value")
    );
    assert_eq!(of("the webhook says no: go away"), "Deployment: the webhook says no: go away");
    assert_eq!(explain(&group, "Deployment", "nothing", &[("", "a")]), "Deployment: nothing");
}
