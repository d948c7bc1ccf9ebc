//! Whether the program beside a sidecar is at work, which shows by its questions. Reads no clock.
//!
//! # Guarantees
//! - A program that has never asked is not at work: it may be in an init container, in a crash loop, or without a network.
//! - One that asks in equal times is at work, however long these are, once it has asked twice.
//! - One that falls silent counts as at work for its [patience](Activity::silent_at), so that nobody waits for it for ever.

use std::collections::VecDeque;
use std::time::Duration;

use crate::election::Moment;

/// The shortest silence that counts as the end of the work.
const SHORTEST: Duration = Duration::from_secs(30);
/// The silence that counts so after a single question: a program that asks once a minute is not known as such yet.
const FIRST: Duration = Duration::from_secs(120);
/// As many retry periods of silence count so at least.
const RETRY_PERIODS: u32 = 10;
/// As many times its usual pause may a program be silent.
const PAUSES: u32 = 3;
/// The pauses that are remembered.
const REMEMBERED: usize = 8;
/// Questions that follow each other faster are one: a client with several connections asks at the same moment.
const TOGETHER: Duration = Duration::from_secs(1);

/// The questions of one program.
#[derive(Clone, Debug)]
pub struct Activity {
    shortest: Duration,
    last: Option<Moment>,
    /// The first question of those that count as one with the last.
    first_of_last: Option<Moment>,
    /// The last pauses, the oldest first.
    pauses: VecDeque<Duration>,
}

impl Activity {
    /// Of a program that has not asked yet, in an election of that retry period.
    pub fn new(retry_period: Duration) -> Self {
        let shortest = SHORTEST.max(retry_period.saturating_mul(RETRY_PERIODS));
        Self { shortest, last: None, first_of_last: None, pauses: VecDeque::new() }
    }

    /// The program asks at `now`.
    pub fn asked(&mut self, now: Moment) {
        self.last = Some(now);
        let pause = self.first_of_last.map(|first| now.since(first));
        if pause.is_some_and(|pause| pause < TOGETHER) {
            return;
        }
        self.first_of_last = Some(now);
        if self.pauses.len() == REMEMBERED {
            self.pauses.pop_front();
        }
        self.pauses.extend(pause);
    }

    /// Whether the program is at work at `now`.
    pub fn is_active(&self, now: Moment) -> bool {
        self.silent_at().is_some_and(|silent_at| now < silent_at)
    }

    /// When the program counts as silent if it asks nothing more; `None` if it has never asked.
    ///
    /// That is 30 s after its last question, or ten retry periods, or three times the longest of its last eight pauses, whichever
    /// is longest. As long as it has asked once only, it is 120 s at least.
    pub fn silent_at(&self) -> Option<Moment> {
        let longest = self.pauses.iter().max().map(|pause| pause.saturating_mul(PAUSES));
        Some(self.last? + self.shortest.max(longest.unwrap_or(FIRST)))
    }
}
