//! Progress output: on a terminal one line that changes, elsewhere a new line every 15 s.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Progress of a long task. It is written directly to standard error, so that a test harness does not hide why the
/// first run takes minutes.
pub(crate) struct Progress {
    terminal: bool,
    last: Instant,
}

impl Progress {
    pub(crate) fn begin(title: &str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        write(&if terminal { format!("\r{title}\x1b[K") } else { format!("{title}\n") });
        Self { terminal, last: Instant::now() }
    }

    pub(crate) fn update(&mut self, line: &str) {
        let every = if self.terminal { Duration::from_secs(1) } else { Duration::from_secs(15) };
        if self.last.elapsed() >= every {
            self.last = Instant::now();
            write(&if self.terminal { format!("\r{line}\x1b[K") } else { format!("{line}\n") });
        }
    }

    pub(crate) fn end(self, line: &str) {
        write(&if self.terminal { format!("\r{line}\x1b[K\n") } else { format!("{line}\n") });
    }

    pub(crate) fn note(line: &str) {
        write(&format!("{line}\n"));
    }
}

fn write(text: &str) {
    let mut stderr = std::io::stderr();
    // A closed standard error is no reason to stop.
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// Formats a duration: `4.2 s`, or `7 min 30 s` from a minute on.
pub(crate) fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    match whole {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{whole} s"),
        _ => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(Duration::from_millis(4210)), "4.2 s");
        assert_eq!(seconds(Duration::from_secs(42)), "42 s");
        assert_eq!(seconds(Duration::from_secs(450)), "7 min 30 s");
    }
}
