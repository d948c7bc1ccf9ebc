//! Logs: text for people, JSON for machines, to stderr.

use std::io::{self, IsTerminal};

use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One readable line an event.
    #[default]
    Text,
    /// One JSON object an event.
    Json,
}

/// Logs to stderr from now on, filtered by `RUST_LOG`: a level, or `target=level` pairs separated by commas. Default `info`.
pub fn init(format: LogFormat) {
    // kube says at info level what is of use to its authors only.
    let usual = || Targets::new().with_default(tracing::Level::INFO).with_target("kube_client", tracing::Level::WARN);
    let asked = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let filter = asked.and_then(|filter| filter.parse::<Targets>().ok()).unwrap_or_else(usual);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    match format {
        LogFormat::Text => {
            let lines = lines.with_target(false).with_ansi(io::stderr().is_terminal());
            tracing_subscriber::registry().with(lines.with_filter(filter)).init();
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false);
            tracing_subscriber::registry().with(lines.with_filter(filter)).init();
        }
    }
}
