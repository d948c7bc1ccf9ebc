//! Logs: text for people, JSON for machines, to stderr.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One readable line per event.
    #[default]
    Text,
    /// One JSON object per event.
    Json,
}

/// Logs to stderr from now on, filtered by `RUST_LOG`: a level, or `target=level` pairs separated by commas. Default
/// `info`. See [`init_with`].
pub fn init(format: LogFormat) {
    init_with(format, std::env::var("RUST_LOG").ok());
}

/// Logs to stderr from now on, filtered by `filter` in the syntax of `RUST_LOG`; by default `info`.
///
/// Writing never blocks the caller: if the reader of stderr stalls, lines are dropped. A leader that waits for its log
/// could neither renew nor stop its work.
pub fn init_with(format: LogFormat, filter: Option<String>) {
    let lines = tracing_subscriber::fmt::layer().with_writer(Lossy::start);
    match format {
        LogFormat::Text => {
            let lines = lines.with_target(false).with_ansi(io::stderr().is_terminal());
            tracing_subscriber::registry().with(lines.with_filter(targets(filter))).init();
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false);
            tracing_subscriber::registry().with(lines.with_filter(targets(filter))).init();
        }
    }
}

/// Waits until the lines so far are written, at most 100 ms. To be called at a program's end.
pub fn flush() {
    if let Some(lines) = LINES.get() {
        let (done, wait) = sync_channel(1);
        if lines.try_send(Line::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(LONGEST_FLUSH);
        }
    }
}

fn targets(filter: Option<String>) -> Targets {
    let chosen = filter.filter(|filter| !filter.is_empty());
    let names_kube = chosen.as_ref().is_some_and(|filter| filter.contains("kube_"));
    let filter = chosen.and_then(|filter| filter.parse().ok());
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(tracing::Level::INFO));
    if names_kube {
        return filter;
    }
    // The failing requests that these modules log are logged by this program, with the object and the next step.
    filter.with_target("kube_client", LevelFilter::OFF).with_target("kube_runtime", LevelFilter::ERROR)
}

const LONGEST_FLUSH: Duration = Duration::from_millis(100);
/// The most lines that wait for the reader of stderr.
const CAPACITY: usize = 1024;

static LINES: OnceLock<SyncSender<Line>> = OnceLock::new();

enum Line {
    Text(Vec<u8>),
    Flush(SyncSender<()>),
}

/// A writer that hands lines to a thread of its own, and drops them if that is behind.
struct Lossy(SyncSender<Line>);

impl Lossy {
    fn start() -> Self {
        let lines = LINES.get_or_init(|| {
            let (lines, queue) = sync_channel(CAPACITY);
            std::thread::spawn(move || {
                for line in queue {
                    match line {
                        Line::Text(text) => drop(io::stderr().write_all(&text)),
                        Line::Flush(done) => drop(done.send(())),
                    }
                }
            });
            lines
        });
        Self(lines.clone())
    }
}

impl Write for Lossy {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let _ = self.0.try_send(Line::Text(text.to_vec()));
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
