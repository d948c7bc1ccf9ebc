//! The check of a spec. The CRD's CEL rules refuse most violations at the API server. They are checked again here,
//! because a CRD can be older than the operator, or edited.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::group::{Group, GroupMode, ServiceAccount};
use super::invalid::{Invalid, invalid, reserved};
use super::timing::{checked_timing, seconds};
use super::{injection, leader_service, pod, probe, schema_check};
use crate::api::names::{MAX_NAME_LENGTH, RESERVED_PREFIX};
use crate::api::{ElectionGroup, ElectionGroupSpec, Mode};

impl Group {
    /// Parses a spec of any shape, such as JSON from an API server whose CRD has no schema any more. A null is a field
    /// that is not set.
    ///
    /// # Errors
    /// [`Invalid`] names the first field whose type, bounds or form are not those of the CRD. [`Group::check`] checks
    /// the rules between fields.
    pub fn parse(spec: &str) -> Result<ElectionGroupSpec, Invalid> {
        let mut spec =
            serde_json::from_str(spec).map_err(|error| invalid("spec", format!("must be JSON, found {error}")))?;
        schema_check::drop_nulls(&mut spec);
        schema_check::check_spec(&spec)?;
        serde_json::from_value(spec).map_err(|error| invalid("spec", format!("cannot be read: {error}")))
    }

    /// Checks `group`.
    ///
    /// # Errors
    /// [`Invalid`] names the first field that breaks a rule.
    pub fn check(group: &ElectionGroup) -> Result<Self, Invalid> {
        let spec = &group.spec;
        let name = checked_name(group.metadata.name.as_deref().unwrap_or_default())?;
        let mode = checked_mode(spec)?;
        schema_check::check_spec(&serde_json::to_value(spec).map_err(|error| invalid("spec", error.to_string()))?)?;
        let template = pod::template(spec)?;
        let container = pod::leading_container(spec, &template)?;
        let recorded = group.status.as_ref().and_then(|status| status.injection.as_ref());
        // Pods of an older injection revision have neither the port nor what belongs to it.
        let serves =
            mode.has_candidate() && recorded.is_none_or(|recorded| injection::serves(mode, &template, recorded));
        pod::check(&template, mode, &container, spec.template.is_some(), serves)?;
        let http_port = spec.candidate.http_port;
        let start_up = if mode == GroupMode::Exec { probe::start_up(&template, &container) } else { Duration::ZERO };
        // In mode Exec the candidate reports readiness on the Lease, and mode Native has no trial.
        let kubelet_probes = mode == GroupMode::Sidecar;
        let until_unready = if kubelet_probes { probe::until_unready(&template) } else { Duration::ZERO };
        if serves {
            pod::check_port(&template, http_port)?;
        }
        let replicas = if spec.suspend { 0 } else { spec.replicas };
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
            replicas,
            lease_name: group.effective_lease_name().to_owned(),
            timing: checked_timing(spec, mode)?,
            mode,
            container,
            from_image: spec.template.is_none(),
            service_account,
            strategy: checked_strategy(spec)?,
            http_port,
            unhealthy_timeout: Some(seconds(spec.candidate.unhealthy_timeout_seconds)).filter(|time| !time.is_zero()),
            start_up,
            until_unready,
            min_ready: seconds(spec.min_ready_seconds),
            leader_service: leader_service::checked(spec, &template)?,
            template,
            resources: spec.candidate.resources.as_ref().and_then(|resources| serde_json::to_value(resources).ok()),
            disruption_budget: checked_budget(spec)?.filter(|_| replicas >= 2),
            suspended: spec.suspend,
            paused: spec.paused,
            name,
        })
    }
}

fn checked_name(name: &str) -> Result<String, Invalid> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_label =
        name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(is_allowed) && !name.ends_with('-');
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

fn checked_annotations(annotations: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Invalid> {
    match annotations.keys().find(|key| key.starts_with(RESERVED_PREFIX)) {
        Some(key) => Err(reserved("spec.serviceAccount.annotations", key)),
        None => Ok(annotations),
    }
}

fn checked_strategy(spec: &ElectionGroupSpec) -> Result<Option<Value>, Invalid> {
    let Some(strategy) = spec.strategy.as_ref().and_then(|strategy| serde_json::to_value(strategy).ok()) else {
        return Ok(None);
    };
    let rolling = &strategy["rollingUpdate"];
    if strategy["type"] == "Recreate" && !rolling.is_null() {
        return Err(invalid(
            "spec.strategy.rollingUpdate",
            "is only allowed with type RollingUpdate, found type Recreate",
        ));
    }
    for (field, most_percent, percentage) in
        [("maxSurge", i64::MAX, "such as 25%"), ("maxUnavailable", 100, "from 0% to 100%")]
    {
        if !rolling[field].is_null() && !is_count(&rolling[field], most_percent) {
            let rule = format!("must be a number from 0 or a percentage {percentage}, found {}", rolling[field]);
            return Err(invalid(format!("spec.strategy.rollingUpdate.{field}"), rule));
        }
    }
    if is_zero(&rolling["maxSurge"]) && is_zero(&rolling["maxUnavailable"]) {
        let rule = "must not be 0 where maxSurge is 0: no pod could ever be replaced";
        return Err(invalid("spec.strategy.rollingUpdate.maxUnavailable", rule));
    }
    Ok(Some(strategy))
}

fn checked_budget(spec: &ElectionGroupSpec) -> Result<Option<Value>, Invalid> {
    let most = json!(spec.pod_disruption_budget.max_unavailable);
    if is_count(&most, 100) && most.as_i64().is_none_or(|number| number <= 100) {
        return Ok(Some(most));
    }
    let rule = format!("must be a number from 0 to 100 or a percentage from 0% to 100%, found {most}");
    Err(invalid("spec.podDisruptionBudget.maxUnavailable", rule))
}

/// Whether this is a number from 0, or a percentage of at most `most_percent`.
fn is_count(value: &Value, most_percent: i64) -> bool {
    match value {
        Value::String(text) => text.strip_suffix('%').is_some_and(|digits| {
            let plain = digits == "0" || !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain && digits.parse().is_ok_and(|percent: i64| percent <= most_percent)
        }),
        number => number.as_i64().is_some_and(|number| number >= 0),
    }
}

fn is_zero(value: &Value) -> bool {
    *value == 0 || *value == "0%"
}

fn checked_mode(spec: &ElectionGroupSpec) -> Result<GroupMode, Invalid> {
    match spec.candidate.mode {
        Mode::Exec => Ok(GroupMode::Exec),
        Mode::Native => Ok(GroupMode::Native),
        Mode::Sidecar => Ok(GroupMode::Sidecar),
        Mode::Unknown => Err(invalid(
            "spec.candidate.mode",
            "is not known to this version of the operator; use Exec, Sidecar or Native, or upgrade the operator",
        )),
    }
}
