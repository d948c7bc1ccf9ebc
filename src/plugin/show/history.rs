//! The changes of leadership, as a timeline.

use jiff::Timestamp;

use super::layout::{Page, Row, Tone, span, table, time};
use crate::api::HistoryEntry;
use crate::failure::one_line;
use crate::picture::{Picture, leaderless, seconds_between};

/// Returns the timeline of a group.
pub fn history(picture: &Picture, page: Page) -> String {
    if picture.history.is_empty() {
        return format!("{}/{} has had no leader yet.\n", picture.namespace, picture.name);
    }
    changes(&picture.history, page, picture.observed_at)
}

/// Returns changes as a table, newest first. A gap of the transitions shows changes that the operator did not observe.
pub(super) fn changes(history: &[HistoryEntry], page: Page, now: Timestamp) -> String {
    let mut rows = Vec::new();
    for (number, entry) in history.iter().enumerate() {
        rows.push(row(entry, now));
        let older = history.get(number + 1).and_then(|older| older.lease_transitions);
        let missing = entry.lease_transitions.zip(older).map_or(0, |(new, old)| new.saturating_sub(old) - 1);
        if missing > 0 {
            let note = format!("{missing} not observed");
            let cells = ["-", "-", "-", note.as_str(), "-", "-"].map(str::to_owned).to_vec();
            rows.push(Row { cells, tone: Some((note, Tone::Warning)) });
        }
    }
    table(page, &["TIME", "AGO", "LEADER", "REASON", "LEADERLESS", "TRANSITIONS"], &rows)
}

fn row(entry: &HistoryEntry, now: Timestamp) -> Row {
    let at = entry.time.as_ref().map(|time| time.0);
    let leaderless = entry.leaderless_seconds.map(leaderless);
    // A second without a leader is more than any planned handover needs.
    let is_long = entry.leaderless_seconds.is_some_and(|seconds| seconds >= 1.0);
    let reason = entry.reason.clone().unwrap_or_else(|| "-".to_owned());
    let tone = leaderless.clone().filter(|_| is_long).map(|text| (text, Tone::Bad));
    Row {
        cells: vec![
            at.map_or_else(|| "-".to_owned(), time),
            at.map_or_else(String::new, |at| span(seconds_between(at, now))),
            one_line(&entry.holder_identity),
            reason,
            leaderless.unwrap_or_else(|| "-".to_owned()),
            entry.lease_transitions.map_or_else(|| "-".to_owned(), |number| number.to_string()),
        ],
        tone,
    }
}
