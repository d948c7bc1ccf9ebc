//! The groups of a namespace, or of all, as a table.

use super::layout::{Page, Row, span, table};
use super::status::tone;
use crate::failure::one_line;
use crate::picture::{Summary, Validity};

/// Returns the table of groups.
pub fn list(summaries: &[Summary], page: Page, all_namespaces: bool) -> String {
    let mut headers = if all_namespaces { vec!["NAMESPACE"] } else { Vec::new() };
    headers.extend(["NAME", "STATE", "LEADER", "FOR", "READY", "LEASE", "TRANSITIONS"]);
    if page.wide {
        headers.extend(["MODE", "NODE", "LEASE NAME"]);
    }
    let rows: Vec<Row> = summaries.iter().map(|summary| row(summary, page, all_namespaces)).collect();
    table(page, &headers, &rows)
}

fn row(summary: &Summary, page: Page, all_namespaces: bool) -> Row {
    let dash = || "-".to_owned();
    let state = summary.state.as_str();
    let reason = summary.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let paused = if summary.paused { ", paused" } else { "" };
    let validity = match summary.validity {
        Some(Validity::Valid { remaining_seconds }) => format!("{remaining_seconds:.0}s left"),
        Some(Validity::Expired { .. }) => "expired".to_owned(),
        Some(Validity::Free) => "free".to_owned(),
        Some(Validity::Recreated) => "recreated".to_owned(),
        Some(Validity::Unknown) | None => dash(),
    };
    let mut cells = if all_namespaces { vec![summary.namespace.clone()] } else { Vec::new() };
    cells.extend([
        summary.name.clone(),
        format!("{state}{reason}{paused}"),
        summary.leader.as_deref().map_or_else(dash, one_line),
        summary.led_seconds.map_or_else(dash, span),
        format!("{}/{}", summary.ready_replicas, summary.replicas),
        validity,
        summary.transitions.map_or_else(dash, |number| number.to_string()),
    ]);
    if page.wide {
        let node = summary.node.clone().unwrap_or_else(dash);
        cells.extend([format!("{:?}", summary.mode), node, summary.lease_name.clone()]);
    }
    Row { cells, tone: Some((state.to_owned(), tone(summary.state))) }
}
