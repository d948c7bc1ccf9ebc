//! Finds overlapping work in stamp files. A bench may include this file by its path.
//!
//! A line is `<CLOCK_MONOTONIC in ns> <identity> <what>`, where `what` is
//! - a stamp for work, every 5 ms: ours have the fencing token (`4711`), client-go's their `leaseTransitions` (`t7`);
//! - `start` or `stop`. A killed process writes no `stop`; its work ends with its last stamp.
//!
//! A file has the lines of one process at a time, so two processes with one identity need a file each. Stamps further
//! apart than [`HOLE`] are separate stretches of work: the process was paused between them.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Longer than a busy machine delays a stamp, shorter than any lease.
pub const HOLE: Duration = Duration::from_millis(500);

/// Uninterrupted work of one incarnation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub identity: String,
    /// Unique across all files; each `start` begins an incarnation.
    pub incarnation: usize,
    /// The fencing token; `None` for client-go.
    pub token: Option<u64>,
    /// CLOCK_MONOTONIC, as `until`.
    pub from: Duration,
    pub until: Duration,
}

impl Stretch {
    fn collides_with(&self, other: &Self) -> bool {
        // A single stamp within other work collides; two stretches that only touch do not.
        self.incarnation != other.incarnation && self.from < other.until && other.from < self.until
    }
}

/// Concurrent work of two incarnations. `old` led first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    pub old: Stretch,
    pub new: Stretch,
}

impl Overlap {
    pub fn from(&self) -> Duration {
        self.old.from.max(self.new.from)
    }

    pub fn until(&self) -> Duration {
        self.old.until.min(self.new.until)
    }

    /// Returns the length of the overlap: zero if a single stamp fell into the other incarnation's work.
    pub fn length(&self) -> Duration {
        self.until() - self.from()
    }
}

/// A time without work, between two stretches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub before: String,
    pub after: String,
    pub from: Duration,
    pub until: Duration,
}

impl Gap {
    pub fn length(&self) -> Duration {
        self.until - self.from
    }
}

/// Work under a token after work under a higher token started: a fenced resource refuses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    pub late: Stretch,
    pub higher: Stretch,
}

/// The findings of stamp files.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Ordered by their start.
    pub stretches: Vec<Stretch>,
    pub overlaps: Vec<Overlap>,
    pub gaps: Vec<Gap>,
    pub stale: Vec<Stale>,
}

impl Report {
    /// Reads stamp files. A file that does not exist counts as empty: its candidate never led.
    ///
    /// # Panics
    /// If a file cannot be read or has a line that is no stamp. An incomplete last line is ignored.
    pub fn of(files: &[impl AsRef<Path>]) -> Self {
        let mut stretches = Vec::new();
        for file in files {
            let text = match fs::read_to_string(file) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => panic!("{}: {error}", file.as_ref().display()),
            };
            read(&text, &mut stretches);
        }
        Self::judge(stretches)
    }

    fn judge(mut stretches: Vec<Stretch>) -> Self {
        stretches.sort_by_key(|stretch| (stretch.from, stretch.until));
        let mut report = Self::default();
        let mut last: Option<&Stretch> = None;
        for (n, new) in stretches.iter().enumerate() {
            for old in &stretches[..n] {
                if old.collides_with(new) {
                    // A process may wake from a freeze amid the other's work: its first stretch decides which is older.
                    let swap = first(&stretches, new.incarnation) < first(&stretches, old.incarnation);
                    let (old, new) = if swap { (new, old) } else { (old, new) };
                    report.overlaps.push(Overlap { old: old.clone(), new: new.clone() });
                }
            }
            let higher = stretches.iter().filter(|other| other.token > new.token && other.from < new.until);
            if let Some(higher) = higher.min_by_key(|other| other.from).filter(|_| new.token.is_some()) {
                report.stale.push(Stale { late: new.clone(), higher: higher.clone() });
            }
            if let Some(last) = last.filter(|last| last.until < new.from) {
                let (before, after) = (last.identity.clone(), new.identity.clone());
                report.gaps.push(Gap { before, after, from: last.until, until: new.from });
            }
            last = last.filter(|last| last.until > new.until).or(Some(new));
        }
        report.stretches = stretches;
        report
    }

    /// Returns the number of incarnations that worked.
    pub fn incarnations(&self) -> usize {
        self.stretches.iter().map(|stretch| stretch.incarnation).collect::<std::collections::BTreeSet<_>>().len()
    }

    pub fn longest_gap(&self) -> Duration {
        self.gaps.iter().map(Gap::length).max().unwrap_or_default()
    }
}

fn first(stretches: &[Stretch], incarnation: usize) -> Option<usize> {
    stretches.iter().position(|stretch| stretch.incarnation == incarnation)
}

fn read(text: &str, stretches: &mut Vec<Stretch>) {
    let mut incarnation = stretches.iter().map(|stretch| stretch.incarnation + 1).max().unwrap_or_default();
    let mut current: Option<Stretch> = None;
    for line in text.split_inclusive('\n') {
        let Some(line) = line.strip_suffix('\n') else { break };
        let mut words = line.split(' ');
        let (Some(Ok(at)), Some(identity), Some(what), None) =
            (words.next().map(str::parse), words.next(), words.next(), words.next())
        else {
            panic!("no stamp: {line:?}");
        };
        let at = Duration::from_nanos(at);
        let goes_on = current.as_mut().filter(|open| at.saturating_sub(open.until) <= HOLE);
        match (what, goes_on) {
            ("start", _) => {
                stretches.extend(current.take());
                incarnation += 1;
            }
            ("stop", open) => {
                if let Some(open) = open {
                    open.until = at;
                }
                stretches.extend(current.take());
            }
            (_, Some(open)) => open.until = at,
            (stamp, None) => {
                stretches.extend(current.take());
                let token = match stamp.strip_prefix('t') {
                    Some(term) if term.parse::<u64>().is_ok() => None,
                    _ => Some(stamp.parse().unwrap_or_else(|_| panic!("no stamp: {line:?}"))),
                };
                current = Some(Stretch { identity: identity.to_owned(), incarnation, token, from: at, until: at });
            }
        }
    }
    stretches.extend(current);
}

impl fmt::Display for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.map_or_else(String::new, |token| format!(", token {token}"));
        write!(f, "{} ({:.3} to {:.3}{token})", self.identity, self.from.as_secs_f64(), self.until.as_secs_f64())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for stretch in &self.stretches {
            writeln!(f, "{stretch}")?;
        }
        for overlap in &self.overlaps {
            writeln!(f, "OVERLAP of {:?}: {} and {}", overlap.length(), overlap.old, overlap.new)?;
        }
        for Stale { late, higher } in &self.stale {
            writeln!(f, "STALE: {late} after the start of {higher}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns stamps every 5 ms from `from` to `until`, in milliseconds.
    fn stamps(identity: &str, what: &str, from: u64, until: u64) -> String {
        (from..=until).step_by(5).map(|ms| format!("{} {identity} {what}\n", ms * 1_000_000)).collect()
    }

    fn event(identity: &str, what: &str, ms: u64) -> String {
        stamps(identity, what, ms, ms)
    }

    fn judge(files: &[String]) -> Report {
        let mut stretches = Vec::new();
        for text in files {
            read(text, &mut stretches);
        }
        Report::judge(stretches)
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn concurrent_work_is_an_overlap_with_the_older_leader_first() {
        let report = judge(&[
            stamps("otter", "8", 1500, 3000),
            event("heron", "start", 990) + &stamps("heron", "t3", 1000, 2000),
        ]);
        let [overlap] = &report.overlaps[..] else { panic!("{report}") };
        assert_eq!((overlap.old.identity.as_str(), overlap.new.identity.as_str()), ("heron", "otter"));
        assert_eq!((overlap.from(), overlap.until(), overlap.length()), (ms(1500), ms(2000), ms(500)));
        assert_eq!((overlap.old.token, overlap.new.token), (None, Some(8)));
        assert!(report.gaps.is_empty() && report.stale.is_empty(), "{report}");
    }

    #[test]
    fn work_that_starts_as_other_work_ends_neither_overlaps_nor_gaps() {
        let report = judge(&[stamps("otter", "7", 0, 1000), stamps("heron", "8", 1000, 2000)]);
        assert!(report.overlaps.is_empty() && report.gaps.is_empty() && report.stale.is_empty(), "{report}");
    }

    #[test]
    fn time_without_work_is_a_gap() {
        let report = judge(&[stamps("otter", "7", 0, 1000), stamps("heron", "8", 4000, 5000)]);
        let gap = Gap { before: "otter".into(), after: "heron".into(), from: ms(1000), until: ms(4000) };
        assert_eq!(report.gaps, [gap]);
        assert_eq!(report.longest_gap(), ms(3000));
        assert!(report.overlaps.is_empty());
    }

    #[test]
    fn short_work_within_longer_work_hides_no_gap_and_makes_none() {
        let report =
            judge(&[stamps("otter", "7", 0, 3000), stamps("heron", "8", 1000, 1100), stamps("crane", "9", 3500, 4000)]);
        assert_eq!(report.overlaps.len(), 1, "{report}");
        assert_eq!((report.gaps.len(), report.gaps[0].before.as_str()), (1, "otter"), "{report}");
        let report =
            judge(&[stamps("otter", "7", 0, 2000), stamps("heron", "8", 1000, 3000), stamps("crane", "9", 3500, 4000)]);
        assert_eq!((report.gaps.len(), report.gaps[0].before.as_str()), (1, "heron"), "{report}");
    }

    #[test]
    fn killed_process_ends_at_its_last_complete_stamp() {
        let killed = event("otter", "start", 0) + &stamps("otter", "7", 0, 1000) + "10050";
        let report = judge(&[killed, stamps("heron", "8", 1010, 2000)]);
        assert_eq!(report.stretches[0].until, ms(1000));
        assert!(report.overlaps.is_empty(), "{report}");
    }

    #[test]
    fn stop_line_extends_work_past_the_last_stamp() {
        let stopped = stamps("otter", "7", 0, 1000) + &event("otter", "stop", 1200);
        let report = judge(&[stopped, stamps("heron", "8", 1100, 2000)]);
        assert_eq!(report.overlaps[0].length(), ms(100));
    }

    #[test]
    fn frozen_process_works_again_only_when_it_wakes() {
        let frozen = stamps("otter", "7", 0, 1000) + &stamps("otter", "7", 6000, 6000);
        let report = judge(&[frozen.clone() + &event("otter", "stop", 9000), stamps("heron", "8", 4000, 7000)]);
        let [overlap] = &report.overlaps[..] else { panic!("{report}") };
        // Only the one stamp at 6 s, not the time from 4 s on.
        assert_eq!((overlap.old.identity.as_str(), overlap.from(), overlap.length()), ("otter", ms(6000), ms(0)));
        assert_eq!((report.stale.len(), report.stale[0].late.from), (1, ms(6000)));
        // The other process ended before the stamp, so nothing overlaps; the resource must still refuse the stamp.
        let report = judge(&[frozen, stamps("heron", "8", 4000, 5000)]);
        assert_eq!((report.overlaps.len(), report.stale.len()), (0, 1), "{report}");
    }

    #[test]
    fn process_that_wakes_only_to_stop_did_no_work() {
        let frozen = stamps("otter", "7", 0, 1000) + &event("otter", "stop", 6000);
        let report = judge(&[frozen, stamps("heron", "8", 4000, 7000)]);
        assert!(report.overlaps.is_empty() && report.stale.is_empty(), "{report}");
    }

    #[test]
    fn twins_and_successive_terms_are_distinct_incarnations() {
        let report = judge(&[stamps("otter", "7", 0, 1000), stamps("otter", "8", 500, 2000)]);
        assert_eq!(report.overlaps.len(), 1, "{report}");
        let term = |token, from| event("otter", "start", from) + &stamps("otter", token, from, from + 100);
        let report = judge(&[term("7", 0) + &event("otter", "stop", 110) + &term("9", 200)]);
        assert_eq!((report.incarnations(), report.stretches[1].token), (2, Some(9)));
        assert!(report.overlaps.is_empty() && report.stale.is_empty(), "{report}");
    }

    #[test]
    fn falling_token_is_stale_and_client_go_terms_are_no_tokens() {
        let report = judge(&[stamps("otter", "9", 0, 1000), stamps("heron", "8", 2000, 3000)]);
        assert_eq!(report.stale[0].late.identity, "heron");
        let report = judge(&[stamps("otter", "9", 0, 1000), stamps("heron", "t8", 2000, 3000)]);
        assert!(report.stale.is_empty(), "{report}");
    }

    #[test]
    #[should_panic(expected = "no stamp")]
    fn line_that_is_no_stamp_panics() {
        judge(&["17 otter\n".to_owned()]);
    }

    #[test]
    fn missing_stamp_file_means_no_work() {
        assert!(Report::of(&["/nowhere/stamps"]).stretches.is_empty());
    }
}
