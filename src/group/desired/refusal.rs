//! The API server's refusal of a child, explained by the fields of the group: the user did not write the Deployment
//! that it names.

use super::pods::pod_template;
use crate::api::InjectionStatus;
use crate::spec::group::{Group, GroupMode};
use crate::spec::injection::REVISION;

/// The limit of complaints that the status quotes.
const MOST: usize = 3;
/// The limit of characters of one complaint.
const LONGEST: usize = 300;

/// Returns the complaints about a refused child of the given kind. `causes` are the field and the message of each, from
/// the details of the API server's status. Without causes, the first complaint is parsed from `message`.
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
        let complaint = message.split_once(" is invalid: ").map_or(message, |(_, complaint)| complaint);
        return cut(&match complaint.split_once(": ") {
            Some((field, text)) if field.starts_with(['s', 'm']) && !field.contains(' ') => {
                format!("{}: {text}", field_of_group(group, kind, field))
            }
            _ => format!("{kind}: {complaint}"),
        });
    }
    let more = complaints.len().saturating_sub(MOST);
    complaints.truncate(MOST);
    let text = complaints.join("; ");
    if more == 0 { text } else { format!("{text}; and {more} more") }
}

/// Returns the field of the group from which `field` of the child comes; `kind field` if there is none.
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
        // The first init container is the operator's own, of which the user sets only the resources.
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
        return match user_env_index(container, group, position) {
            Some(position) => format!("{path}.env[{position}]{rest}"),
            None => format!("{path}.env{rest}"),
        };
    }
    if group.from_image && [".image", ".command", ".args"].iter().any(|own| rest.starts_with(own)) {
        return format!("spec{rest}");
    }
    format!("{path}{rest}")
}

/// Returns the variable's index in the user's template. The operator's own variables come first, and replace the user's
/// of the same name.
fn user_env_index(container: &serde_json::Value, group: &Group, position: usize) -> Option<usize> {
    let injection = InjectionStatus { revision: REVISION, ..InjectionStatus::default() };
    let injected = pod_template(group, group.mode.has_candidate().then_some(&injection));
    let containers = injected["spec"]["containers"].as_array()?;
    let variable = &containers.iter().find(|found| found["name"] == container["name"])?["env"][position];
    container["env"].as_array()?.iter().position(|user| user == variable)
}

/// Returns `("a.b", 7, ".c")` for the field `a.b[7].c` and the list `a.b`; `None` for the field of another list.
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
