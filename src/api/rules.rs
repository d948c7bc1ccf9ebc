//! The CEL rules of the CRD: relations between fields. The operator checks the same again in case the CRD was bypassed,
//! so add each new rule to `group`, too.
//!
//! Pitfalls: a rule sees defaults only if the enclosing object exists (each of ours has an explicit default); a rule
//! with `oldSelf` applies only to updates; the API server refuses a rule whose worst case costs too much, which is why
//! lists and maps that rules iterate over have maxima in [`super::schema`].

use serde_json::{Value, json};

/// A rule at one place of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its place: property names from the resource's root, joined by dots. `self` is the value there.
    pub at: &'static str,
    /// The field that an error names, relative to `at`; empty for `at` itself.
    pub field: &'static str,
    /// The CEL expression that must be true.
    pub rule: &'static str,
    /// The error message if it is false.
    pub message: &'static str,
    /// The actual numbers, appended to the message: a format, and CEL expressions for its arguments. Empty if there are
    /// none.
    pub detail: (&'static str, &'static str),
}

impl Rule {
    /// Returns the rule as an item of `x-kubernetes-validations`.
    pub fn to_json(self) -> Value {
        let Self { at: _, field, rule, message, detail: (format, arguments) } = self;
        let mut json = json!({ "rule": rule, "message": message });
        if !field.is_empty() {
            json["fieldPath"] = field.into();
        }
        if !format.is_empty() {
            // Not `+` and string(): the API server assumes that a concatenation has any length, and refuses it.
            json["messageExpression"] = format!("'{message}: {format}'.format([{arguments}])").into();
        }
        json
    }
}

const fn rule(at: &'static str, field: &'static str, rule: &'static str, message: &'static str) -> Rule {
    Rule { at, field, rule, message, detail: ("", "") }
}

impl Rule {
    const fn detail(self, format: &'static str, arguments: &'static str) -> Self {
        Self { detail: (format, arguments), ..self }
    }
}

/// The variables by which the operator passes the group's settings to the candidate. Those that came with the
/// candidate's HTTP server are refused by the operator alone: it knows which pods have that server, and lets the users
/// of older pods keep their variables.
macro_rules! settings {
    () => {
        "['K8SENSUS_CONTAINER', 'K8SENSUS_CREATE_LEASE', 'K8SENSUS_LEASE_NAME', 'K8SENSUS_LEASE_NAMESPACE', \
         'K8SENSUS_LEASE_DURATION_SECONDS', 'K8SENSUS_RENEW_DEADLINE_SECONDS', 'K8SENSUS_RETRY_PERIOD_SECONDS', \
         'K8SENSUS_RENEW_INTERVAL_SECONDS', 'K8SENSUS_STOP_GRACE_PERIOD_SECONDS', \
         'K8SENSUS_TERMINATION_MESSAGE_PATH']"
    };
}

const TEMPLATE_METADATA: &str = "spec.template.metadata";
const TEMPLATE_SPEC: &str = "spec.template.spec";

/// All rules, in the order of the schema.
pub const RULES: &[Rule] = &[
    rule(
        "",
        "",
        "self.metadata.name.size() <= 52 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name must be at most 52 characters long, of a to z, 0 to 9 and -, begin with a letter and not end with -: \
         the names of the group's Pods and Services begin with it",
    ),
    rule(
        "",
        ".spec.election",
        "(has(self.spec.election) && has(self.spec.election.leaseName) ? self.spec.election.leaseName : self.metadata.name) \
         == (has(oldSelf.spec.election) && has(oldSelf.spec.election.leaseName) ? oldSelf.spec.election.leaseName : self.metadata.name)",
        "leaseName cannot be changed (unset, it is metadata.name): pods on the old and the new Lease would elect a leader each; \
         make another group instead",
    ),
    rule(
        "spec",
        "",
        "has(self.image) != has(self.template)",
        "set exactly one of image and template",
    ),
    rule(
        "spec",
        "",
        "has(self.image) || !has(self.command) && !has(self.args)",
        "command and args are only allowed with image; with template, set them in its container",
    ),
    rule(
        "spec",
        ".command",
        "!has(self.image) || has(self.command) || self.candidate.mode != 'Exec'",
        "command is needed in mode Exec, because the entrypoint of the image cannot be known: \
         set command, or candidate.mode to Sidecar or Native",
    ),
    rule(
        "spec",
        ".template.spec.containers",
        "!has(self.template) || self.candidate.mode != 'Exec' || self.template.spec.containers.size() == 0 || (has(self.candidate.container) \
         ? self.template.spec.containers.all(c, c.name != self.candidate.container || has(c.command) && c.command.size() > 0) \
         : has(self.template.spec.containers[0].command) && self.template.spec.containers[0].command.size() > 0)",
        "the container that leads (candidate.container, or else the first) needs a command in mode Exec, because the \
         entrypoint of its image cannot be known: set its command, or candidate.mode to Sidecar or Native",
    ),
    rule(
        "spec",
        ".command",
        "!has(self.command) || self.command[0] != ''",
        "command must begin with the program to run, not with an empty string",
    ),
    rule(
        "spec",
        ".template.spec.containers",
        "!has(self.template) || self.candidate.mode != 'Exec' || self.template.spec.containers.size() == 0 || (has(self.candidate.container) \
         ? self.template.spec.containers.all(c, c.name != self.candidate.container || !has(c.command) || c.command.size() == 0 || c.command[0] != '') \
         : !has(self.template.spec.containers[0].command) || self.template.spec.containers[0].command.size() == 0 \
         || self.template.spec.containers[0].command[0] != '')",
        "the command of the container that leads must begin with the program to run, not with an empty string",
    ),
    rule(
        "spec",
        ".template.spec.containers",
        concat!(
            "!has(self.template) || self.template.spec.containers.size() == 0 || (has(self.candidate.container) \
             ? self.template.spec.containers.all(c, c.name != self.candidate.container || !has(c.env) || c.env.all(e, !(e.name in ",
            settings!(),
            "))) : !has(self.template.spec.containers[0].env) || self.template.spec.containers[0].env.all(e, !(e.name in ",
            settings!(),
            ")))"
        ),
        "the operator sets the K8SENSUS_ variables of the election in the container that leads: set election and candidate instead",
    ),
    rule(
        "spec",
        ".candidate.container",
        "!has(self.candidate.container) || !has(self.template) \
         || self.template.spec.containers.exists(c, c.name == self.candidate.container)",
        "container must be the name of one of template.spec.containers",
    ),
    rule(
        "spec",
        ".candidate.container",
        "!has(self.candidate.container) || !has(self.image) || self.candidate.container == 'app'",
        "container must be app, or unset, when image is set: that is the only container there",
    ),
    rule(
        "spec",
        ".candidate.stopGracePeriodSeconds",
        "self.candidate.mode == 'Native' || !has(self.candidate.stopGracePeriodSeconds) || \
         10 * (self.election.renewDeadlineSeconds + self.candidate.stopGracePeriodSeconds) <= 9 * self.election.leaseDurationSeconds \
         || 10 * self.election.renewDeadlineSeconds > 9 * self.election.leaseDurationSeconds",
        "except in mode Native, 10 x (election.renewDeadlineSeconds + stopGracePeriodSeconds) must be at most \
         9 x election.leaseDurationSeconds, for the program to have ended before another may lead",
    )
    .detail(
        "at most %d, with renewDeadlineSeconds %d and leaseDurationSeconds %d",
        "(9 * self.election.leaseDurationSeconds - 10 * self.election.renewDeadlineSeconds) / 10, \
         self.election.renewDeadlineSeconds, self.election.leaseDurationSeconds",
    ),
    rule(
        "spec",
        ".election.renewDeadlineSeconds",
        "self.candidate.mode == 'Native' || 10 * self.election.renewDeadlineSeconds <= 9 * self.election.leaseDurationSeconds \
         || self.election.renewDeadlineSeconds >= self.election.leaseDurationSeconds",
        "except in mode Native, 10 x renewDeadlineSeconds must be at most 9 x leaseDurationSeconds, for the program to have \
         ended before another may lead",
    )
    .detail("%d is more than %d", "10 * self.election.renewDeadlineSeconds, 9 * self.election.leaseDurationSeconds"),
    rule(
        "spec",
        ".template.spec.hostPID",
        "!has(self.template) || self.candidate.mode != 'Exec' || !has(self.template.spec.hostPID) || !self.template.spec.hostPID",
        "hostPID must not be true in mode Exec: the program's end could not be confirmed among the node's processes",
    ),
    rule(
        "spec",
        ".template.spec.shareProcessNamespace",
        "!has(self.template) || self.candidate.mode != 'Exec' || !has(self.template.spec.shareProcessNamespace) \
         || !self.template.spec.shareProcessNamespace",
        "shareProcessNamespace must not be true in mode Exec: the candidate must be process 1 of its container \
         to confirm the program's end",
    ),
    rule(
        "spec",
        ".template.spec.os",
        "!has(self.template) || self.candidate.mode != 'Exec' || !has(self.template.spec.os) || self.template.spec.os.name != 'windows'",
        "os.name must not be windows in mode Exec: the candidate is a program for Linux",
    ),
    rule(
        "spec.election",
        ".leaseDurationSeconds",
        "self.leaseDurationSeconds > self.renewDeadlineSeconds",
        "leaseDurationSeconds must be greater than renewDeadlineSeconds",
    )
    .detail("%d is not greater than %d", "self.leaseDurationSeconds, self.renewDeadlineSeconds"),
    rule(
        "spec.election",
        ".renewDeadlineSeconds",
        "10 * self.renewDeadlineSeconds > 12 * self.retryPeriodSeconds",
        "renewDeadlineSeconds must be greater than 1.2 x retryPeriodSeconds",
    )
    .detail("%d is not greater than 1.2 x %d", "self.renewDeadlineSeconds, self.retryPeriodSeconds"),
    rule(
        "spec.election",
        ".renewIntervalSeconds",
        "!has(self.renewIntervalSeconds) || self.renewIntervalSeconds < self.renewDeadlineSeconds",
        "renewIntervalSeconds must be less than renewDeadlineSeconds",
    )
    .detail("%d is not less than %d", "self.renewIntervalSeconds, self.renewDeadlineSeconds"),
    rule(
        TEMPLATE_METADATA,
        ".labels",
        "!has(self.labels) || self.labels.all(k, !k.startsWith('k8sensus.dev/'))",
        "labels that begin with k8sensus.dev/ are reserved for the operator",
    ),
    rule(
        TEMPLATE_METADATA,
        ".annotations",
        "!has(self.annotations) || self.annotations.all(k, !k.startsWith('k8sensus.dev/'))",
        "annotations that begin with k8sensus.dev/ are reserved for the operator",
    ),
    rule(
        TEMPLATE_SPEC,
        ".serviceAccountName",
        "!has(self.serviceAccountName) || self.serviceAccountName == ''",
        "set spec.serviceAccount.name instead of the template's serviceAccountName: only that account is allowed to use the Lease",
    ),
    rule(
        TEMPLATE_SPEC,
        ".serviceAccount",
        "!has(self.serviceAccount) || self.serviceAccount == ''",
        "set spec.serviceAccount.name instead of the template's serviceAccount: only that account is allowed to use the Lease",
    ),
    rule(
        TEMPLATE_SPEC,
        ".restartPolicy",
        "!has(self.restartPolicy) || self.restartPolicy == 'Always'",
        "restartPolicy must be Always: a candidate that has ended must be restarted",
    ),
    rule(
        TEMPLATE_SPEC,
        ".automountServiceAccountToken",
        "!has(self.automountServiceAccountToken) || self.automountServiceAccountToken",
        "automountServiceAccountToken must not be false: the pods need the token to reach the Lease",
    ),
    rule(
        TEMPLATE_SPEC,
        ".activeDeadlineSeconds",
        "!has(self.activeDeadlineSeconds)",
        "activeDeadlineSeconds must not be set: the pods of a Deployment have no deadline",
    ),
    rule(
        TEMPLATE_SPEC,
        ".initContainers",
        "!has(self.initContainers) || self.initContainers.all(i, !self.containers.exists(c, c.name == i.name))",
        "initContainers must not have the name of one of containers",
    ),
    rule(
        TEMPLATE_SPEC,
        ".containers",
        "self.containers.all(c, !c.name.startsWith('k8sensus-'))",
        "names of containers that begin with k8sensus- are reserved for what the operator adds",
    ),
    rule(
        TEMPLATE_SPEC,
        ".initContainers",
        "!has(self.initContainers) || self.initContainers.all(c, !c.name.startsWith('k8sensus-'))",
        "names of initContainers that begin with k8sensus- are reserved for what the operator adds",
    ),
    rule(
        TEMPLATE_SPEC,
        ".volumes",
        "!has(self.volumes) || self.volumes.all(v, v.name != 'k8sensus' && !v.name.startsWith('k8sensus-'))",
        "the volume name k8sensus and those that begin with k8sensus- are reserved for what the operator adds",
    ),
    rule(
        TEMPLATE_SPEC,
        ".readinessGates",
        "!has(self.readinessGates) || self.readinessGates.all(g, !g.conditionType.startsWith('k8sensus.dev/'))",
        "readinessGates that begin with k8sensus.dev/ are reserved for the operator",
    ),
    rule(
        "spec.template.spec.containers.items.volumeMounts.items",
        ".mountPath",
        "!self.mountPath.matches('(^|/)[.]k8sensus(/|$)')",
        "/.k8sensus is where the candidate program is mounted: use another mountPath",
    ),
    rule(
        "spec.template.spec.initContainers.items.volumeMounts.items",
        ".mountPath",
        "!self.mountPath.matches('(^|/)[.]k8sensus(/|$)')",
        "/.k8sensus is where the candidate program is mounted: use another mountPath",
    ),
    rule(
        "spec.strategy",
        ".rollingUpdate",
        "!has(self.rollingUpdate) || !has(self.type) || self.type == 'RollingUpdate'",
        "rollingUpdate is only allowed with type RollingUpdate",
    ),
    rule(
        "spec.strategy.rollingUpdate",
        ".maxSurge",
        "!has(self.maxSurge) || (type(self.maxSurge) == int ? self.maxSurge >= 0 : self.maxSurge.matches('^(0|[1-9][0-9]*)%$'))",
        "maxSurge must be a number from 0 or a percentage such as 25%",
    ),
    rule(
        "spec.strategy.rollingUpdate",
        ".maxUnavailable",
        "!has(self.maxUnavailable) || (type(self.maxUnavailable) == int ? self.maxUnavailable >= 0 \
         : self.maxUnavailable.matches('^([0-9]|[1-9][0-9]|100)%$'))",
        "maxUnavailable must be a number from 0 or a percentage from 0% to 100%",
    ),
    rule(
        "spec.strategy.rollingUpdate",
        ".maxUnavailable",
        "!has(self.maxSurge) || !has(self.maxUnavailable) || (type(self.maxSurge) == int ? self.maxSurge != 0 : self.maxSurge != '0%') \
         || (type(self.maxUnavailable) == int ? self.maxUnavailable != 0 : self.maxUnavailable != '0%')",
        "maxUnavailable must not be 0 where maxSurge is 0: no pod could ever be replaced",
    ),
    rule(
        "spec.serviceAccount",
        ".annotations",
        "!has(self.annotations) || self.annotations.all(k, !k.startsWith('k8sensus.dev/'))",
        "annotations that begin with k8sensus.dev/ are reserved for the operator",
    ),
    rule(
        "spec.leaderService",
        ".ports",
        "self.ports.size() == 1 || self.ports.all(p, has(p.name) && self.ports.exists_one(q, has(q.name) && q.name == p.name))",
        "each port needs a unique name when there is more than one",
    ),
    rule(
        "spec.leaderService.ports.items",
        ".targetPort",
        "!has(self.targetPort) || (type(self.targetPort) == int ? self.targetPort >= 1 && self.targetPort <= 65535 \
         : self.targetPort.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.targetPort.matches('[a-z]'))",
        "targetPort must be a number from 1 to 65535 or the name of a container's port (at most 15 of a to z, 0 to 9 and -, \
         with a letter)",
    ),
    rule(
        "spec.podDisruptionBudget",
        ".maxUnavailable",
        "type(self.maxUnavailable) == int ? self.maxUnavailable >= 0 && self.maxUnavailable <= 100 \
         : self.maxUnavailable.matches('^([0-9]|[1-9][0-9]|100)%$')",
        "maxUnavailable must be a number from 0 to 100 or a percentage from 0% to 100%",
    ),
];
