//! The spec, checked. The CRD's CEL rules refuse most of this at the API server; they are checked again here because a
//! CRD can be older than the operator, or edited.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{inject, pod, probe, service, shape};
use crate::api::names::{MAX_NAME_LENGTH, RESERVED_PREFIX};
use crate::api::{ElectionGroup, ElectionGroupSpec, LeaderServiceSpec, Mode};
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
    /// Whether the template was written out from `spec.image`.
    pub from_image: bool,
    /// Whose rights the pods have.
    pub service_account: ServiceAccount,
    /// The Deployment's strategy, if one is asked for.
    pub strategy: Option<Value>,
    /// The candidate's port, in modes Exec and Sidecar.
    pub http_port: i32,
    /// How long a leader may be not Ready before it steps down; `None` means for ever.
    pub unhealthy_timeout: Option<Duration>,
    /// How long its program may take to start up by its own probes, where it starts only on the leader.
    pub start_up: Duration,
    /// How long its program may have stopped to be ready until the kubelet says so, where it is the kubelet that asks.
    pub until_unready: Duration,
    /// How long a new revision must have led well before it replaces the former one.
    pub min_ready: Duration,
    /// The Service that follows the leader, if asked for.
    pub leader_service: Option<LeaderServiceSpec>,
    /// Compute resources of what is injected, if asked for.
    pub resources: Option<Value>,
    /// `maxUnavailable` of the pods' PodDisruptionBudget: a number or a percentage. `None` with fewer than two pods: a
    /// budget would protect no standby, and keep the node of a single pod from being drained.
    pub disruption_budget: Option<Value>,
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
    /// In modes Exec and Sidecar; may be a fraction where the lease leaves less than a second.
    pub stop_grace: Option<Duration>,
}

/// How the leading container learns that it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupMode {
    /// The candidate starts and stops the container's command.
    Exec,
    /// A sidecar tells whoever asks in the pod.
    Sidecar,
    /// The container elects by itself.
    Native,
}

impl GroupMode {
    /// Whether the candidate is ours, so that it heeds what the Lease says to it.
    pub fn has_candidate(self) -> bool {
        self != Self::Native
    }
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

pub(super) fn invalid(field: impl Into<String>, rule: impl Into<String>) -> Invalid {
    Invalid { field: field.into(), rule: rule.into() }
}

impl Group {
    /// Reads a spec that may be of any shape: JSON as an API server hands it out whose CRD lost its schema. A null is a
    /// field that is not set.
    ///
    /// # Errors
    /// [`Invalid`] names the first field whose type, bounds or form are not those of the CRD. What holds between fields
    /// is left to [`Group::check`].
    pub fn parse(spec: &str) -> Result<ElectionGroupSpec, Invalid> {
        let mut spec =
            serde_json::from_str(spec).map_err(|error| invalid("spec", format!("must be JSON, found {error}")))?;
        shape::drop_nulls(&mut spec);
        shape::check_spec(&spec)?;
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
        shape::check_spec(&serde_json::to_value(spec).map_err(|error| invalid("spec", error.to_string()))?)?;
        let template = pod::template(spec)?;
        let container = pod::leading_container(spec, &template)?;
        let recorded = group.status.as_ref().and_then(|status| status.injection.as_ref());
        // Pods that an upgrade of the operator leaves alone have neither the port nor what goes with it.
        let serves = mode.has_candidate() && recorded.is_none_or(|recorded| inject::serves(mode, &template, recorded));
        pod::check(&template, mode, &container, spec.template.is_some(), serves)?;
        let http_port = spec.candidate.http_port;
        let start_up = if mode == GroupMode::Exec { probe::start_up(&template, &container) } else { Duration::ZERO };
        // In mode Exec the candidate tells on the Lease, and mode Native has no trial.
        let asks = mode == GroupMode::Sidecar;
        let until_unready = if asks { probe::until_unready(&template) } else { Duration::ZERO };
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
            leader_service: service::checked(spec, &template)?,
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

fn checked_annotations(annotations: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Invalid> {
    match annotations.keys().find(|key| key.starts_with(RESERVED_PREFIX)) {
        Some(key) => Err(reserved("spec.serviceAccount.annotations", key)),
        None => Ok(annotations),
    }
}

pub(super) fn reserved(field: impl Into<String>, key: &str) -> Invalid {
    invalid(field, format!("keys that begin with {RESERVED_PREFIX} are reserved, found {key}"))
}

fn checked_strategy(spec: &ElectionGroupSpec) -> Result<Option<Value>, Invalid> {
    let Some(strategy) = spec.strategy.as_ref().and_then(|strategy| serde_json::to_value(strategy).ok()) else {
        return Ok(None);
    };
    let rolling = &strategy["rollingUpdate"];
    if strategy["type"] == "Recreate" && !rolling.is_null() {
        return Err(invalid("spec.strategy.rollingUpdate", "goes with type RollingUpdate alone, found type Recreate"));
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

/// Whether this is a number from 0, or a percentage in digits of at most `most_percent`.
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

/// In mode Native the pods bring their own election, so client-go's rules alone hold; in the others all of ours do.
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
        GroupMode::Exec | GroupMode::Sidecar => {
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

/// What client-go's `NewLeaderElector` demands, and that a renewal comes before its deadline.
fn check_native_timing(timing: &GroupTiming) -> Result<(), Invalid> {
    let GroupTiming { lease_duration, renew_deadline, retry_period, renew_interval, .. } = *timing;
    if lease_duration <= renew_deadline {
        let rule =
            format!("lease duration ({lease_duration} s) must be greater than renew deadline ({renew_deadline} s)");
        return Err(invalid("spec.election", rule));
    }
    if 10 * i64::from(renew_deadline) <= 12 * i64::from(retry_period) {
        let rule =
            format!("renew deadline ({renew_deadline} s) must be greater than 1.2 x retry period ({retry_period} s)");
        return Err(invalid("spec.election", rule));
    }
    if renew_interval >= renew_deadline {
        let rule = format!("renew interval ({renew_interval} s) must be less than renew deadline ({renew_deadline} s)");
        return Err(invalid("spec.election", rule));
    }
    Ok(())
}
