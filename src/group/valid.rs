//! The spec, checked. The CRD's CEL rules refuse most of this at the API server; they are checked again here because a
//! CRD can be older than the operator, or edited.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::names::{MAX_NAME_LENGTH, RESERVED_PREFIX, SHORTCUT_CONTAINER};
use crate::api::{CandidateSpec, ElectionGroup, ElectionGroupSpec, Mode};
use crate::election::{InvalidTiming, Timing};

/// A group whose spec obeys every rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// `metadata.name`, also the children's.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.uid`, which every child's owner reference carries.
    pub uid: String,
    /// Pods asked for; 0 while suspended.
    pub replicas: i32,
    /// The Lease's name.
    pub lease_name: String,
    /// The election's durations.
    pub timing: GroupTiming,
    /// How the leading container learns that it leads.
    pub mode: GroupMode,
    /// The container that leads.
    pub container: String,
    /// The user's pod template as JSON, the shortcut written out.
    pub template: Value,
    /// Whose rights the pods have.
    pub service_account: ServiceAccount,
    /// The Deployment's strategy, if one is asked for.
    pub strategy: Option<Value>,
    /// `maxUnavailable` of the PodDisruptionBudget; `None` where there is no pod to spare.
    pub disruption_budget: Option<Value>,
    /// Compute resources of what is injected, if asked for.
    pub resources: Option<Value>,
    /// Whether the group is suspended.
    pub suspended: bool,
    /// Whether the children are to be left alone.
    pub paused: bool,
}

/// The election's durations in seconds, checked by the rules of the group's mode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupTiming {
    /// Whole seconds.
    pub lease_duration: i32,
    /// Whole seconds.
    pub renew_deadline: i32,
    /// Whole seconds.
    pub retry_period: i32,
    /// Whole seconds.
    pub renew_interval: i32,
    /// In mode Exec; may be a fraction where the lease leaves less than a second.
    pub stop_grace: Option<Duration>,
}

/// The modes that are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupMode {
    /// The candidate starts and stops the container's command.
    Exec,
    /// The container elects by itself.
    Native,
}

/// The pods' ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceAccount {
    /// Named like the group and made for it, with these annotations.
    Own(BTreeMap<String, String>),
    /// Exists already and is left alone.
    Existing(String),
}

impl ServiceAccount {
    /// Its name, given the group's.
    pub fn name<'a>(&'a self, group: &'a str) -> &'a str {
        match self {
            Self::Own(_) => group,
            Self::Existing(name) => name,
        }
    }
}

/// Which field breaks which rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct Invalid {
    /// Path of the field, such as `spec.election.leaseDurationSeconds`.
    pub field: String,
    /// What was expected and what was found.
    pub rule: String,
}

fn invalid(field: impl Into<String>, rule: impl Into<String>) -> Invalid {
    Invalid { field: field.into(), rule: rule.into() }
}

impl Group {
    /// Checks `group`.
    ///
    /// # Errors
    /// [`Invalid`] names the first field that breaks a rule, or that is not built yet.
    pub fn check(group: &ElectionGroup) -> Result<Self, Invalid> {
        let spec = &group.spec;
        let name = checked_name(group.metadata.name.as_deref().unwrap_or_default())?;
        check_built(spec)?;
        let mode = checked_mode(spec)?;
        let template = pod_template(spec)?;
        let container = leading_container(spec, &template)?;
        check_template(&template, mode, &container, spec.template.is_some())?;
        let service_account = match &spec.service_account {
            None => ServiceAccount::Own(BTreeMap::new()),
            Some(account) => match &account.name {
                Some(name) => ServiceAccount::Existing(name.clone()),
                None => ServiceAccount::Own(checked_annotations(account.annotations.clone().unwrap_or_default())?),
            },
        };
        Ok(Self {
            namespace: group.metadata.namespace.clone().unwrap_or_default(),
            uid: group.metadata.uid.clone().unwrap_or_default(),
            replicas: if spec.suspend { 0 } else { checked_replicas(spec.replicas)? },
            lease_name: group.effective_lease_name().to_owned(),
            timing: checked_timing(spec, mode)?,
            mode,
            container,
            template,
            service_account,
            strategy: spec.strategy.as_ref().and_then(|strategy| serde_json::to_value(strategy).ok()),
            disruption_budget: (spec.replicas >= 2 && !spec.suspend)
                .then(|| json!(spec.pod_disruption_budget.max_unavailable)),
            resources: spec.candidate.resources.as_ref().and_then(|resources| serde_json::to_value(resources).ok()),
            suspended: spec.suspend,
            paused: spec.paused,
            name,
        })
    }
}

fn checked_name(name: &str) -> Result<String, Invalid> {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_label =
        name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(letters) && !name.ends_with('-');
    if !is_label || name.len() > MAX_NAME_LENGTH {
        return Err(invalid(
            "metadata.name",
            format!(
                "must be a DNS label of at most {MAX_NAME_LENGTH} characters that begins with a letter, found {name:?}"
            ),
        ));
    }
    Ok(name.to_owned())
}

fn checked_replicas(replicas: i32) -> Result<i32, Invalid> {
    if (0..=100).contains(&replicas) {
        Ok(replicas)
    } else {
        Err(invalid("spec.replicas", format!("must be from 0 to 100, found {replicas}")))
    }
}

fn checked_annotations(annotations: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Invalid> {
    match annotations.keys().find(|key| key.starts_with(RESERVED_PREFIX)) {
        Some(key) => Err(reserved("spec.serviceAccount.annotations", key)),
        None => Ok(annotations),
    }
}

fn reserved(field: impl Into<String>, key: &str) -> Invalid {
    invalid(field, format!("keys that begin with {RESERVED_PREFIX} are reserved, found {key}"))
}

/// Fields of the resource that this version does nothing with must say nothing but their defaults.
fn check_built(spec: &ElectionGroupSpec) -> Result<(), Invalid> {
    let usual = CandidateSpec::default();
    let unbuilt = [
        ("spec.leaderService", spec.leader_service.is_some()),
        ("spec.candidate.httpPort", spec.candidate.http_port != usual.http_port),
        (
            "spec.candidate.unhealthyTimeoutSeconds",
            spec.candidate.unhealthy_timeout_seconds != usual.unhealthy_timeout_seconds
                && spec.candidate.unhealthy_timeout_seconds != 0,
        ),
    ];
    match unbuilt.into_iter().find(|(_, set)| *set) {
        Some((field, _)) => Err(invalid(field, "is not supported by this version of the operator; remove it")),
        None => Ok(()),
    }
}

fn checked_mode(spec: &ElectionGroupSpec) -> Result<GroupMode, Invalid> {
    match spec.candidate.mode {
        Mode::Exec => Ok(GroupMode::Exec),
        Mode::Native => Ok(GroupMode::Native),
        Mode::Sidecar => Err(invalid(
            "spec.candidate.mode",
            "Sidecar is not supported by this version of the operator; use Exec or Native",
        )),
        Mode::Unknown => Err(invalid(
            "spec.candidate.mode",
            "is not known to this version of the operator; use Exec or Native, or upgrade the operator",
        )),
    }
}

/// In mode Native the pods bring their own election, so client-go's rules alone hold; in mode Exec all of ours do.
fn checked_timing(spec: &ElectionGroupSpec, mode: GroupMode) -> Result<GroupTiming, Invalid> {
    let election = &spec.election;
    let mut checked = GroupTiming {
        lease_duration: election.lease_duration_seconds,
        renew_deadline: election.renew_deadline_seconds,
        retry_period: election.retry_period_seconds,
        renew_interval: election.effective_renew_interval_seconds(),
        stop_grace: None,
    };
    match mode {
        GroupMode::Native => check_native_timing(&checked)?,
        GroupMode::Exec => {
            let broken = |rule: InvalidTiming| invalid("spec.election", rule.to_string());
            let timing = Timing::new(
                seconds(checked.lease_duration),
                seconds(checked.renew_deadline),
                seconds(checked.retry_period),
            );
            let timing = timing.and_then(|timing| timing.with_renew_interval(seconds(checked.renew_interval)));
            let mut timing = timing.map_err(broken)?;
            if let Some(grace) = spec.candidate.stop_grace_period_seconds {
                timing = timing
                    .with_stop_grace(seconds(grace))
                    .map_err(|rule| invalid("spec.candidate.stopGracePeriodSeconds", rule.to_string()))?;
            }
            checked.stop_grace = Some(timing.stop_grace());
        }
    }
    Ok(checked)
}

fn seconds(number: i32) -> Duration {
    Duration::from_secs(u64::try_from(number).unwrap_or(0))
}

/// What client-go's `NewLeaderElector` demands.
fn check_native_timing(timing: &GroupTiming) -> Result<(), Invalid> {
    let GroupTiming { lease_duration, renew_deadline, retry_period, .. } = *timing;
    if lease_duration <= renew_deadline {
        let rule =
            format!("lease duration ({lease_duration} s) must be greater than renew deadline ({renew_deadline} s)");
        return Err(invalid("spec.election", rule));
    }
    if retry_period < 1 || 10 * i64::from(renew_deadline) <= 12 * i64::from(retry_period) {
        let rule =
            format!("renew deadline ({renew_deadline} s) must be greater than 1.2 x retry period ({retry_period} s)");
        return Err(invalid("spec.election", rule));
    }
    Ok(())
}

fn pod_template(spec: &ElectionGroupSpec) -> Result<Value, Invalid> {
    match (&spec.image, &spec.template) {
        (Some(_), Some(_)) | (None, None) => {
            Err(invalid("spec.image, spec.template", "exactly one of the two must be set"))
        }
        (Some(image), None) => {
            let mut container = json!({ "name": SHORTCUT_CONTAINER, "image": image });
            if let Some(command) = &spec.command {
                container["command"] = json!(command);
            }
            if let Some(args) = &spec.args {
                container["args"] = json!(args);
            }
            Ok(json!({ "spec": { "containers": [container] } }))
        }
        (None, Some(template)) => {
            if spec.command.is_some() || spec.args.is_some() {
                return Err(invalid(
                    "spec.command, spec.args",
                    "need spec.image; with spec.template set the container's",
                ));
            }
            serde_json::from_str(template.get())
                .map_err(|error| invalid("spec.template", format!("is not a pod template: {error}")))
        }
    }
}

fn leading_container(spec: &ElectionGroupSpec, template: &Value) -> Result<String, Invalid> {
    let containers = template["spec"]["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut names = containers.iter().filter_map(|container| container["name"].as_str());
    match &spec.candidate.container {
        None => names
            .next()
            .map(str::to_owned)
            .ok_or_else(|| invalid("spec.template.spec.containers", "must have at least one container")),
        Some(name) if names.any(|found| found == name) => Ok(name.clone()),
        Some(name) => {
            Err(invalid("spec.candidate.container", format!("must name a container of the template, found {name:?}")))
        }
    }
}

fn check_template(template: &Value, mode: GroupMode, leading: &str, from_template: bool) -> Result<(), Invalid> {
    for kind in ["labels", "annotations"] {
        if let Some(map) = template["metadata"][kind].as_object()
            && let Some(key) = map.keys().find(|key| key.starts_with(RESERVED_PREFIX))
        {
            return Err(reserved(format!("spec.template.metadata.{kind}"), key));
        }
    }
    let spec = &template["spec"];
    for field in ["serviceAccountName", "serviceAccount"] {
        if !spec[field].is_null() {
            return Err(invalid(
                format!("spec.template.spec.{field}"),
                "must not be set; set spec.serviceAccount.name",
            ));
        }
    }
    if spec["automountServiceAccountToken"] == false {
        let rule = "must not be false: the candidate needs the token to reach the Lease";
        return Err(invalid("spec.template.spec.automountServiceAccountToken", rule));
    }
    if spec["restartPolicy"].as_str().is_some_and(|policy| policy != "Always") {
        return Err(invalid("spec.template.spec.restartPolicy", "must be Always, as in every Deployment"));
    }
    if mode == GroupMode::Exec {
        check_exec(spec, leading, from_template)?;
    }
    Ok(())
}

fn check_exec(spec: &Value, leading: &str, from_template: bool) -> Result<(), Invalid> {
    for field in ["hostPID", "shareProcessNamespace"] {
        if spec[field] == true {
            let rule = "must not be true in mode Exec: the candidate could not tell its own processes from others";
            return Err(invalid(format!("spec.template.spec.{field}"), rule));
        }
    }
    let containers = spec["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(container) = containers.iter().find(|container| container["name"] == leading) else {
        return Ok(());
    };
    if container["command"].as_array().is_none_or(Vec::is_empty) {
        let field = if from_template {
            format!("spec.template.spec.containers[{leading}].command")
        } else {
            "spec.command".to_owned()
        };
        return Err(invalid(
            field,
            "must be set in mode Exec, since the entrypoint of the image cannot be known; or use mode Native",
        ));
    }
    for field in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
        if !container[field].is_null() {
            let rule = "is not supported in mode Exec by this version of the operator, since a standby does not run \
                        the program that it asks; remove it";
            return Err(invalid(format!("spec.template.spec.containers[{leading}].{field}"), rule));
        }
    }
    Ok(())
}
