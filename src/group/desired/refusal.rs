//! What an API server refuses of a child, told by the fields of the group: nobody wrote the Deployment that it names.

use super::pods::pod_template;
use crate::api::InjectionStatus;
use crate::group::spec::group::{Group, GroupMode};
use crate::group::spec::injection::REVISION;

/// The most complaints that are repeated; a status is no place for a hundred.
const MOST: usize = 3;
/// The most characters of one of them.
const LONGEST: usize = 300;

/// The complaints of a refused child of the given kind: `causes` are field and message of each, as the API server's
/// status has them in its details; without any, `message` is searched for the first.
pub fn explain(group: &Group, kind: &str, message: &str, causes: &[(&str, &str)]) -> String {
    let mut complaints: Vec<String> = Vec::new();
    for (field, text) in causes.iter().filter(|(field, _)| !field.is_empty()) {
        let complaint = cut(&format!("{}: {}", field_of_group(group, kind, field), text));
        if !complaints.contains(&complaint) {
            complaints.push(complaint);
        }
    }
    if complaints.is_empty() {
        // `Deployment.apps "billing" is invalid: spec.template: Required value`
        let said = message.split_once(" is invalid: ").map_or(message, |(_, said)| said);
        return cut(&match said.split_once(": ") {
            Some((field, text)) if field.starts_with(['s', 'm']) && !field.contains(' ') => {
                format!("{}: {text}", field_of_group(group, kind, field))
            }
            _ => format!("{kind}: {said}"),
        });
    }
    let more = complaints.len().saturating_sub(MOST);
    complaints.truncate(MOST);
    let text = complaints.join("; ");
    if more == 0 { text } else { format!("{text}; and {more} more") }
}

/// Where the user wrote what stands at `field` of the child; `kind field` if nowhere.
fn field_of_group(group: &Group, kind: &str, field: &str) -> String {
    let found = match kind {
        "Deployment" => of_deployment(group, field),
        "ServiceAccount" if field.starts_with("metadata.annotations") => {
            Some(field.replacen("metadata", "spec.serviceAccount", 1))
        }
        "RoleBinding" if field.starts_with("subjects") => Some("spec.serviceAccount.name".to_owned()),
        "PodDisruptionBudget" if field.starts_with("spec.maxUnavailable") => {
            Some("spec.podDisruptionBudget.maxUnavailable".to_owned())
        }
        "Service" if field.starts_with("spec.ports") || field.starts_with("spec.type") => {
            Some(field.replacen("spec", "spec.leaderService", 1))
        }
        "Lease" if field == "metadata.name" => Some("spec.election.leaseName".to_owned()),
        _ => None,
    };
    found.unwrap_or_else(|| format!("{kind} {field}"))
}

fn of_deployment(group: &Group, field: &str) -> Option<String> {
    if !["spec.template", "spec.strategy", "spec.replicas"].iter().any(|own| field.starts_with(own)) {
        return None;
    }
    let (before, index, rest) = match indexed(field, "spec.template.spec.initContainers") {
        Some(indexed) => indexed,
        None => {
            return Some(match indexed(field, "spec.template.spec.containers") {
                Some((_, index, rest)) => of_container(group, index, rest),
                None => field.to_owned(),
            });
        }
    };
    match (group.mode, index) {
        // The first is the operator's own; what is wrong there is said of its settings.
        (GroupMode::Exec | GroupMode::Sidecar, 0) => {
            rest.strip_prefix(".resources").map(|rest| format!("spec.candidate.resources{rest}"))
        }
        (GroupMode::Exec | GroupMode::Sidecar, index) => Some(format!("{before}[{}]{rest}", index - 1)),
        (GroupMode::Native, index) => Some(format!("{before}[{index}]{rest}")),
    }
}

fn of_container(group: &Group, index: usize, rest: &str) -> String {
    let path = format!("spec.template.spec.containers[{index}]");
    let container = &group.template["spec"]["containers"][index];
    if container["name"] != group.container.as_str() {
        return format!("{path}{rest}");
    }
    if let Some((_, position, rest)) = indexed(rest, ".env") {
        return match written_env(container, group, position) {
            Some(position) => format!("{path}.env[{position}]{rest}"),
            None => format!("{path}.env{rest}"),
        };
    }
    if group.from_image && [".image", ".command", ".args"].iter().any(|own| rest.starts_with(own)) {
        return format!("spec{rest}");
    }
    format!("{path}{rest}")
}

/// The index that the user gave the variable: the operator's own stand first, and replace the user's of the same name.
fn written_env(container: &serde_json::Value, group: &Group, position: usize) -> Option<usize> {
    let injection = InjectionStatus { revision: REVISION, ..InjectionStatus::default() };
    let injected = pod_template(group, group.mode.has_candidate().then_some(&injection));
    let containers = injected["spec"]["containers"].as_array()?;
    let variable = &containers.iter().find(|found| found["name"] == container["name"])?["env"][position];
    container["env"].as_array()?.iter().position(|written| written == variable)
}

/// `("a.b", 7, ".c")` of `a.b[7].c`, if it begins with `list`.
fn indexed<'a>(field: &'a str, list: &'a str) -> Option<(&'a str, usize, &'a str)> {
    let (index, rest) = field.strip_prefix(list)?.strip_prefix('[')?.split_once(']')?;
    Some((list, index.parse().ok()?, rest))
}

fn cut(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}
