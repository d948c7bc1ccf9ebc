//! The requests of a contender, read from the growing audit log of the API server.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;

use serde::Deserialize;

/// A contender's requests by verb and resource.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    counts: BTreeMap<(String, String), usize>,
    /// Renewals of the contender's own Lease.
    pub own_renewals: usize,
}

impl Requests {
    pub fn writes(&self) -> usize {
        self.sum(|verb| !is_read(verb))
    }

    pub fn reads(&self) -> usize {
        self.sum(is_read)
    }

    fn sum(&self, wanted: fn(&str) -> bool) -> usize {
        self.counts.iter().filter(|((verb, _), _)| wanted(verb)).map(|(_, count)| count).sum()
    }

    pub fn add(&mut self, other: Self) {
        self.own_renewals += other.own_renewals;
        for (key, count) in other.counts {
            *self.counts.entry(key).or_default() += count;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Returns a readable summary: "5 create leases, 3 patch electiongroups/status".
    pub fn summary(&self) -> String {
        let parts = self.counts.iter().map(|((verb, resource), count)| format!("{count} {verb} {resource}"));
        parts.collect::<Vec<_>>().join(", ")
    }
}

fn is_read(verb: &str) -> bool {
    matches!(verb, "get" | "list" | "watch")
}

pub struct Audit {
    path: PathBuf,
    offset: u64,
    user: String,
    own_lease: Option<&'static str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    stage: String,
    verb: String,
    user: User,
    object_ref: Option<Object>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Object {
    resource: String,
    subresource: String,
    name: String,
}

impl Audit {
    pub fn of(path: PathBuf, user: &str, own_lease: Option<&'static str>) -> Self {
        Self { path, offset: 0, user: user.to_owned(), own_lease }
    }

    pub fn since_last(&mut self) -> io::Result<Requests> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let (mut found, mut line) = (Requests::default(), String::new());
        loop {
            line.clear();
            let length = reader.read_line(&mut line)?;
            if !line.ends_with('\n') {
                // An incomplete line: the rest comes later.
                return Ok(found);
            }
            self.offset += length as u64;
            if line.contains(&self.user) {
                self.count(&line, &mut found);
            }
        }
    }

    fn count(&self, line: &str, found: &mut Requests) {
        let Ok(event) = serde_json::from_str::<Event>(line) else { return };
        // A watch ends long after its request.
        let stage = if event.verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
        let Some(object) = event.object_ref.filter(|_| event.user.username == self.user && event.stage == stage) else {
            return;
        };
        if object.resource == "leases" && self.own_lease == Some(&*object.name) {
            found.own_renewals += usize::from(!is_read(&event.verb));
            return;
        }
        let slash = if object.subresource.is_empty() { "" } else { "/" };
        let resource = format!("{}{slash}{}", object.resource, object.subresource);
        *found.counts.entry((event.verb, resource)).or_default() += 1;
    }
}
