//! Merges Events with the same text into one Event with a count, as Kubernetes does with its own.
//!
//! The first and the second occurrence are written at once. Further ones are counted, and the count is written at most
//! once in [`REFRESH`]. The count of something that goes on is written at most once in [`STANDING_REFRESH`], so that
//! its Event outlives the hour for which an API server keeps Events.
//!
//! kube's `Recorder` (5.0) also counts a series. It writes each occurrence in a request of its own, its series do not
//! distinguish notes, it forgets a series after 6 minutes, and its memory has no limit.

use std::collections::HashMap;
use std::time::Duration;

use super::{Event, Words};

/// How often a rising count is written at most.
pub const REFRESH: Duration = Duration::from_secs(60);
/// How often the count of something that goes on is written.
pub const STANDING_REFRESH: Duration = Duration::from_secs(30 * 60);
/// The time without an occurrence after which a series is forgotten. The next occurrence starts a new one.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(15 * 60);
/// The limit of Events in memory. Beyond it, the one whose last occurrence is the oldest is forgotten.
pub const CAPACITY: usize = 1024;
/// The longest part of a group's name in an Event's name, so that the whole stays below the limit of 253 characters.
const LONGEST_PREFIX: usize = 200;

/// The group that an Event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct About {
    /// Its namespace, also the Event's.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: a recreated group has Events of its own.
    pub uid: String,
}

/// The current time by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time since boot, for comparisons.
    pub since_boot: Duration,
    /// Microseconds since 1970, for what is written into Events.
    pub wall_micros: i64,
}

/// An Event to be sent to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The group.
    pub about: About,
    /// The text.
    pub words: Words,
    /// `metadata.name` of the Event.
    pub name: String,
    /// The time of the first occurrence, by the wall clock in microseconds.
    pub first: i64,
    /// The time of the last occurrence, likewise.
    pub last: i64,
    /// The number of occurrences.
    pub count: i32,
    /// Whether the Event does not exist yet.
    pub create: bool,
}

type Key = (About, Words);

struct Entry {
    name: String,
    first: i64,
    last: i64,
    count: i32,
    occurrence: String,
    /// The count that was last written, 0 if none was.
    written: i32,
    written_at: Duration,
    seen_at: Duration,
    refresh: Duration,
}

impl Entry {
    fn is_due(&self, now: Duration) -> bool {
        self.count > self.written && now >= self.written_at + self.refresh
    }

    fn write(&mut self, (about, words): &Key, now: Duration) -> Write {
        let create = self.written == 0;
        self.written = self.count;
        self.written_at = now;
        Write {
            about: about.clone(),
            words: words.clone(),
            name: self.name.clone(),
            first: self.first,
            last: self.last,
            count: self.count,
            create,
        }
    }
}

/// The recent Events, at most [`CAPACITY`] of them.
#[derive(Default)]
pub struct Series {
    entries: HashMap<Key, Entry>,
    /// Distinguishes the names of Events of the same microsecond.
    number: u32,
}

impl Series {
    /// Counts an Event. Returns what must be written for it now, if anything.
    pub fn see(&mut self, about: &About, event: Event, now: Now) -> Option<Write> {
        let key = (about.clone(), event.words);
        if let Some(entry) = self.entries.get_mut(&key) {
            let is_known = entry.occurrence == event.occurrence && !event.goes_on;
            let is_forgotten = now.since_boot.saturating_sub(entry.seen_at) > FORGOTTEN_AFTER;
            if is_known {
                return None;
            }
            if !is_forgotten {
                entry.count = entry.count.saturating_add(1);
                entry.last = now.wall_micros;
                entry.seen_at = now.since_boot;
                entry.occurrence = event.occurrence;
                entry.refresh = if event.goes_on { STANDING_REFRESH } else { REFRESH };
                let is_second = entry.written == 1 && !event.goes_on;
                return (is_second || entry.is_due(now.since_boot)).then(|| entry.write(&key, now.since_boot));
            }
        }
        self.make_room(now.since_boot);
        let mut entry = Entry {
            name: self.name(about, now),
            first: now.wall_micros,
            last: now.wall_micros,
            count: 1,
            occurrence: event.occurrence,
            written: 0,
            written_at: now.since_boot,
            seen_at: now.since_boot,
            refresh: if event.goes_on { STANDING_REFRESH } else { REFRESH },
        };
        // What went on before this operator started was reported by its predecessor.
        let write = (!event.goes_on).then(|| entry.write(&key, now.since_boot));
        self.entries.insert(key, entry);
        write
    }

    /// Returns the counts that are due to be written, and forgets old series.
    pub fn due(&mut self, now: Duration) -> Vec<Write> {
        let due = self.entries.iter_mut().filter(|(_, entry)| entry.is_due(now));
        let writes = due.map(|(key, entry)| entry.write(key, now)).collect();
        self.entries.retain(|_, entry| now.saturating_sub(entry.seen_at) <= FORGOTTEN_AFTER);
        writes
    }

    /// Forgets the series of a failed `write`: the next occurrence starts a new one.
    pub fn forget(&mut self, write: &Write) {
        self.entries.remove(&(write.about.clone(), write.words.clone()));
    }

    /// Returns the number of Events in memory.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no Event is in memory.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn make_room(&mut self, now: Duration) {
        if self.entries.len() < CAPACITY {
            return;
        }
        let longest = self.entries.iter().max_by_key(|(_, entry)| now.saturating_sub(entry.seen_at));
        if let Some(key) = longest.map(|(key, _)| key.clone()) {
            self.entries.remove(&key);
        }
    }

    /// Returns a name as Kubernetes gives Events: the object's name, a dot, and unique hexadecimal digits.
    fn name(&mut self, about: &About, now: Now) -> String {
        self.number = self.number.wrapping_add(1);
        let prefix = &about.name[..about.name.floor_char_boundary(LONGEST_PREFIX)];
        let prefix = prefix.trim_end_matches(['-', '.']);
        format!("{prefix}.{:x}{:04x}", now.wall_micros, self.number % 0x1_0000)
    }
}
