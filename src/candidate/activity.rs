//! Whether the program beside a sidecar is active, judged by its requests. Reads no clock.
//!
//! # Guarantees
//! - A program that has never asked is not active: it may be in an init container, in a crash loop, or without a
//!   network.
//! - A program that asks at equal intervals is active, however long they are, once it has asked twice.
//! - A program that falls silent counts as active until [`silent_at`](Activity::silent_at), so the wait for it always
//!   ends.

use std::collections::VecDeque;
use std::time::Duration;

use crate::election::Moment;

/// The shortest silence that makes a program inactive.
const SHORTEST_SILENCE: Duration = Duration::from_secs(30);
/// The same after a single request: the interval of a program that asks once a minute is not known yet.
const AFTER_FIRST_REQUEST: Duration = Duration::from_secs(120);
/// The same in retry periods, at least.
const RETRY_PERIODS: u32 = 10;
/// The same in multiples of the longest recent pause.
const PAUSES: u32 = 3;
/// The number of recent pauses that count.
const REMEMBERED: usize = 8;
/// Requests closer together than this count as one: a client with several connections sends them at the same moment.
const BURST: Duration = Duration::from_secs(1);

/// The requests of one program.
#[derive(Clone, Debug)]
pub struct Activity {
    shortest_silence: Duration,
    last: Option<Moment>,
    /// The first request of the burst that contains the last one.
    burst_start: Option<Moment>,
    /// The recent pauses, the oldest first.
    pauses: VecDeque<Duration>,
}

impl Activity {
    /// Creates the record of a program that has not asked yet, in an election with that retry period.
    pub fn new(retry_period: Duration) -> Self {
        let shortest_silence = SHORTEST_SILENCE.max(retry_period.saturating_mul(RETRY_PERIODS));
        Self { shortest_silence, last: None, burst_start: None, pauses: VecDeque::new() }
    }

    /// Records a request at `now`.
    pub fn record(&mut self, now: Moment) {
        self.last = Some(now);
        let pause = self.burst_start.map(|first| now.since(first));
        if pause.is_some_and(|pause| pause < BURST) {
            return;
        }
        self.burst_start = Some(now);
        if self.pauses.len() == REMEMBERED {
            self.pauses.pop_front();
        }
        self.pauses.extend(pause);
    }

    /// Returns whether the program is active at `now`.
    pub fn is_active(&self, now: Moment) -> bool {
        self.silent_at().is_some_and(|silent_at| now < silent_at)
    }

    /// Returns when the program counts as silent if it asks nothing more; `None` if it has never asked.
    ///
    /// That is 30 s after its last request, or ten retry periods, or three times the longest of its last eight pauses,
    /// whichever is longest. After a single request it is at least 120 s.
    pub fn silent_at(&self) -> Option<Moment> {
        let longest = self.pauses.iter().max().map(|pause| pause.saturating_mul(PAUSES));
        Some(self.last? + self.shortest_silence.max(longest.unwrap_or(AFTER_FIRST_REQUEST)))
    }
}
