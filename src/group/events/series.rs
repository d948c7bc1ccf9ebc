//! Events that say the same become one with a count, as Kubernetes' own do.
//!
//! The first is written at once, as is the second. Further ones are counted, and the count is written at most once in
//! [`REFRESH`]; that of something that goes on, at most once in [`STANDING_REFRESH`], so that it outlives the hour for which
//! an API server keeps Events.

use std::collections::HashMap;
use std::time::Duration;

use super::{Event, Words};

/// How often a count that rises is written.
pub const REFRESH: Duration = Duration::from_secs(60);
/// How often the count of what goes on is written.
pub const STANDING_REFRESH: Duration = Duration::from_secs(30 * 60);
/// What was not seen for so long begins anew when it comes again.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(15 * 60);
/// The most Events that are remembered; beyond it, the one that was not seen for the longest is forgotten.
pub const CAPACITY: usize = 1024;
/// The longest part of a group's name in an Event's: with the rest it stays below the 253 characters of a name.
const LONGEST_PREFIX: usize = 200;

/// The group that an Event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct About {
    /// Its namespace, also the Event's.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: one that was made again has Events of its own.
    pub uid: String,
}

/// When something was seen: since boot, and by the wall clock in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time since boot, for what is compared.
    pub since_boot: Duration,
    /// Microseconds since 1970, for what is written.
    pub wall_micros: i64,
}

/// What is to be sent to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The group.
    pub about: About,
    /// What is said.
    pub words: Words,
    /// `metadata.name` of the Event.
    pub name: String,
    /// When it was first seen, by the wall clock in microseconds.
    pub first: i64,
    /// When it was last seen, likewise.
    pub last: i64,
    /// How often it was seen.
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

/// The Events of late, at most [`CAPACITY`] of them.
#[derive(Default)]
pub struct Series {
    entries: HashMap<Key, Entry>,
    /// For names: two Events may be of the same microsecond.
    number: u32,
}

impl Series {
    /// Takes an Event in and says what is to be written for it, if anything is now.
    pub fn see(&mut self, about: &About, event: Event, now: Now) -> Option<Write> {
        let key = (about.clone(), event.words);
        if let Some(entry) = self.entries.get_mut(&key) {
            let again = entry.occurrence == event.occurrence && !event.goes_on;
            let forgotten = now.since_boot.saturating_sub(entry.seen_at) > FORGOTTEN_AFTER;
            if again {
                return None;
            }
            if !forgotten {
                entry.count = entry.count.saturating_add(1);
                entry.last = now.wall_micros;
                entry.seen_at = now.since_boot;
                entry.occurrence = event.occurrence;
                entry.refresh = if event.goes_on { STANDING_REFRESH } else { REFRESH };
                let second = entry.written == 1 && !event.goes_on;
                return (second || entry.is_due(now.since_boot)).then(|| entry.write(&key, now.since_boot));
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
        // What went on before this operator began to look was told by the one before it.
        let write = (!event.goes_on).then(|| entry.write(&key, now.since_boot));
        self.entries.insert(key, entry);
        write
    }

    /// The counts that have risen and whose time to be written has come. Forgets what was not seen for long.
    pub fn due(&mut self, now: Duration) -> Vec<Write> {
        let due = self.entries.iter_mut().filter(|(_, entry)| entry.is_due(now));
        let writes = due.map(|(key, entry)| entry.write(key, now)).collect();
        self.entries.retain(|_, entry| now.saturating_sub(entry.seen_at) <= FORGOTTEN_AFTER);
        writes
    }

    /// Forgets what `write` could not write: it begins anew when it comes again.
    pub fn forget(&mut self, write: &Write) {
        self.entries.remove(&(write.about.clone(), write.words.clone()));
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
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

    /// As Kubernetes names Events: the object, a dot, and hexadecimal digits that do not come again.
    fn name(&mut self, about: &About, now: Now) -> String {
        self.number = self.number.wrapping_add(1);
        let prefix = &about.name[..about.name.floor_char_boundary(LONGEST_PREFIX)];
        let prefix = prefix.trim_end_matches(['-', '.']);
        format!("{prefix}.{:x}{:04x}", now.wall_micros, self.number % 0x1_0000)
    }
}
