//! The API server's answers: their meaning for the election, and their description in logs.

use std::time::Duration;

use kube::api::DynamicObject;
use kube::runtime::watcher;

use super::LeaseName;
use crate::election::{Failure, Purpose};

/// Returns the Lease `name` from the answer to a GET, PUT or POST, or an error that names the actual content: proxies
/// answer 200 with anything.
pub(super) fn lease_in(answer: DynamicObject, name: &LeaseName) -> Result<DynamicObject, String> {
    let kind = answer.types.as_ref().map_or("an object without kind", |types| &types.kind);
    let found = &answer.metadata;
    let is_it = kind == "Lease"
        && found.name.as_ref() == Some(&name.name)
        && found.namespace.as_ref() == Some(&name.namespace)
        && found.resource_version.as_ref().is_some_and(|version| !version.is_empty());
    if is_it {
        return Ok(answer);
    }
    let (namespace, name_found) = (found.namespace.as_deref().unwrap_or("-"), found.name.as_deref().unwrap_or("-"));
    let version = found.resource_version.as_deref().unwrap_or("none");
    Err(one_line(&format!(
        "expected Lease {name} with its resourceVersion, found {kind} {namespace}/{name_found} with resourceVersion {version}"
    )))
}

pub(super) fn verb(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Create => "create",
        Purpose::Acquire => "acquire",
        Purpose::Renew => "renew",
        Purpose::Release => "release",
    }
}

/// Classifies an error. A 4xx proves that nothing was written; after any other error the write may have happened.
pub(super) fn failure_of(error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) => match status.code {
            409 => Failure::Conflict,
            404 => Failure::NotFound,
            400..=499 => {
                let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
                let retry_after = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
                Failure::Refused { retry_after }
            }
            _ => Failure::Unknown,
        },
        _ => Failure::Unknown,
    }
}

/// Whether the API server denied the watch or its list.
pub fn is_forbidden(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status.is_forbidden(),
        _ => false,
    }
}

/// Returns the error of a watch in one line, like [`describe`].
pub fn describe_watch_error(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => describe(error),
        watcher::Error::WatchError(status) => one_line(&format!("{} ({})", status.message, status.code)),
        other => one_line(&other.to_string()),
    }
}

/// Returns `text` in one line of at most 300 characters: a proxy's error page does not belong in a log.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 300;
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// Returns an error of the API server or of the connection in one line, with its causes: the outermost text of a
/// connection error is useless on its own.
pub fn describe(error: &kube::Error) -> String {
    one_line(&with_causes(error))
}

fn with_causes(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return format!("{} ({})", status.message, status.code);
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
