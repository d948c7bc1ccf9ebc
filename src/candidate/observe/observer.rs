//! The changes between two sights of a Lease. Pure: no client, no clock.

use std::time::Duration;

use super::change::{Change, Kind, TokenSource};
use super::sight::{How, LeaseSight, Sight, Warning, printable};
use crate::campaign::LeaseName;
use crate::election::{Moment, Reading, Record, Version, WallTime};

/// The follower of one Lease.
#[derive(Clone, Debug)]
pub struct Observer {
    lease: LeaseName,
    known: Known,
    /// Whether the API server is known not to answer.
    blind: bool,
}

#[derive(Clone, Debug)]
enum Known {
    Nothing,
    Absent {
        was_seen: bool,
        /// The holder at its deletion.
        holder: Option<String>,
    },
    Lease(Box<Seen>),
}

#[derive(Clone, Debug)]
struct Seen {
    sight: LeaseSight,
    /// When the record was first observed in its current form.
    since: Moment,
    expired: bool,
    term: Option<Term>,
}

#[derive(Clone, Debug)]
struct Term {
    observed_since: WallTime,
    token: Version,
    source: TokenSource,
}

impl Seen {
    fn record(&self) -> &Record {
        &self.sight.snapshot.record
    }

    fn expires_at(&self) -> Option<Moment> {
        let duration = self.record().duration().filter(|_| !self.record().holder.is_empty() && !self.expired)?;
        Some(self.since + duration)
    }

    /// Returns whether `next` belongs to another term.
    fn ends_with(&self, next: &LeaseSight) -> bool {
        let (old, new) = (self.record(), &next.snapshot.record);
        let incarnations = (&self.sight.snapshot.incarnation, &next.snapshot.incarnation);
        old.holder != new.holder
            // A process that restarted under its old name. The incarnation shows that for candidates of this project,
            // the time for others.
            || matches!(incarnations, (Some(old), Some(new)) if old != new)
            || matches!((old.acquire_time, new.acquire_time), (Some(old), Some(new)) if old != new)
    }
}

impl Observer {
    /// Creates an observer that has not seen `lease` yet.
    pub fn new(lease: LeaseName) -> Self {
        Self { lease, known: Known::Nothing, blind: false }
    }

    /// Sets whether the API server is known not to answer: a holder that expires meanwhile may well have renewed.
    pub fn set_blind(&mut self, blind: bool) {
        self.blind = blind;
    }

    /// Returns when [`tick`](Observer::tick) will return a change, if nothing is observed before.
    pub fn expires_at(&self) -> Option<Moment> {
        match &self.known {
            Known::Lease(seen) => seen.expires_at(),
            Known::Nothing | Known::Absent { .. } => None,
        }
    }

    /// Applies one sight and returns the changes, in order.
    pub fn see(&mut self, now: Reading, sight: Sight) -> Vec<Change> {
        let mut changes = self.tick(now);
        match sight {
            Sight::Lease(sight) => self.see_lease(now, sight, &mut changes),
            Sight::Absent => self.see_nothing(now, &mut changes),
            Sight::Deleted(version) => {
                // The watch lags behind a read.
                let newer =
                    matches!(&self.known, Known::Lease(seen) if version.is_at_most(&seen.sight.snapshot.version));
                if !newer {
                    self.see_nothing(now, &mut changes);
                }
            }
        }
        changes
    }

    /// Returns the expiry that has become due, if any. Harmless at any time.
    pub fn tick(&mut self, now: Reading) -> Vec<Change> {
        if self.expires_at().is_none_or(|at| now.moment < at) {
            return Vec::new();
        }
        self.expire(now).into_iter().collect()
    }

    fn expire(&mut self, now: Reading) -> Option<Change> {
        let Known::Lease(seen) = &mut self.known else { return None };
        seen.expired = true;
        let waited = now.moment.since(seen.since);
        let holder = seen.record().holder.clone();
        let mut change = self.change(now, Kind::Expired);
        change.message = format!("no renewal of {} seen for {}", printable(&holder), Seconds(waited));
        change.previous_holder_identity = Some(holder);
        if self.blind {
            change.warnings.push("the API server does not answer this program: the holder may have renewed".to_owned());
        }
        Some(change)
    }

    fn see_nothing(&mut self, now: Reading, changes: &mut Vec<Change>) {
        let lease = &self.lease;
        let (kind, was_seen, holder, message) = match &self.known {
            Known::Nothing => (Kind::Absent, false, None, format!("there is no lease {lease}")),
            Known::Absent { .. } => return,
            Known::Lease(seen) => {
                let holder = Some(seen.record().holder.clone()).filter(|holder| !holder.is_empty());
                let message = match &holder {
                    Some(holder) => format!("lease {lease} was deleted while {} held it", printable(holder)),
                    None => format!("lease {lease} was deleted"),
                };
                (Kind::Deleted, true, holder, message)
            }
        };
        self.known = Known::Absent { was_seen, holder: holder.clone() };
        changes.push(Change { previous_holder_identity: holder, message, ..self.change(now, kind) });
    }

    fn see_lease(&mut self, now: Reading, sight: LeaseSight, changes: &mut Vec<Change>) {
        match std::mem::replace(&mut self.known, Known::Nothing) {
            Known::Nothing => self.see_first(now, sight, changes),
            Known::Absent { was_seen, holder } => {
                let kind = if was_seen { Kind::Recreated } else { Kind::Created };
                self.see_created(now, sight, kind, holder, changes);
            }
            Known::Lease(seen) => {
                let (old, new) = (&seen.sight.snapshot.version, &sight.snapshot.version);
                let stale = sight.how == How::Watched && new.is_at_most(old);
                if seen.sight.uid != sight.uid && !stale {
                    let holder = Some(seen.record().holder.clone()).filter(|holder| !holder.is_empty());
                    self.see_created(now, sight, Kind::Recreated, holder, changes);
                } else if stale || old == new {
                    self.known = Known::Lease(seen);
                } else {
                    self.see_changed(now, *seen, sight, changes);
                }
            }
        }
    }

    fn see_first(&mut self, now: Reading, sight: LeaseSight, changes: &mut Vec<Change>) {
        let record = sight.snapshot.record.clone();
        let warnings = warn(&sight.warnings);
        let term = (!record.holder.is_empty()).then(|| Term::starting(now, &sight, TokenSource::FirstSight));
        self.known = Known::Lease(Box::new(Seen { sight, since: now.moment, expired: false, term }));
        let (kind, message) = if !record.holder.is_empty() {
            (Kind::Held, format!("{} holds {} at first sight", printable(&record.holder), self.lease))
        } else if record.is_released() {
            (Kind::Unheld, format!("{} has no holder: it was released", self.lease))
        } else {
            (Kind::Unheld, format!("{} has no holder", self.lease))
        };
        changes.push(Change { message, warnings, ..self.change(now, kind) });
    }

    fn see_created(
        &mut self,
        now: Reading,
        sight: LeaseSight,
        kind: Kind,
        holder: Option<String>,
        changes: &mut Vec<Change>,
    ) {
        let record = sight.snapshot.record.clone();
        let warnings = warn(&sight.warnings);
        let source = source_of(sight.how);
        let term = (!record.holder.is_empty()).then(|| Term::starting(now, &sight, source));
        self.known = Known::Lease(Box::new(Seen { sight, since: now.moment, expired: false, term }));
        let how = if kind == Kind::Recreated { "deleted and created again" } else { "created" };
        let message = format!("lease {} was {how}", self.lease);
        let change = self.change(now, kind);
        changes.push(Change { message, warnings, previous_holder_identity: holder, ..change });
        if !record.holder.is_empty() {
            changes.push(Change {
                message: format!("{} leads", printable(&record.holder)),
                ..self.change(now, Kind::Acquired)
            });
        }
    }

    fn see_changed(&mut self, now: Reading, old: Seen, sight: LeaseSight, changes: &mut Vec<Change>) {
        let before = old.record().clone();
        let after = sight.snapshot.record.clone();
        let how = sight.how;
        let known_fields: Vec<&str> = old.sight.warnings.iter().map(|warning| warning.field).collect();
        let mut warnings = warn(sight.warnings.iter().filter(|warning| !known_fields.contains(&warning.field)));
        if after.transitions < before.transitions {
            warnings.push(format!("leaseTransitions fell from {} to {}", before.transitions, after.transitions));
        }
        if before == after && !old.ends_with(&sight) {
            // Only fields outside the record have changed, which is no renewal.
            self.known = Known::Lease(Box::new(Seen { sight, ..old }));
            return self.push_invalid(now, warnings, changes);
        }
        let ends = old.ends_with(&sight) && !before.holder.is_empty();
        let begins = old.ends_with(&sight) && !after.holder.is_empty();
        let taken_over = ends && begins && before.holder != after.holder && !old.expired;
        if taken_over && how == How::Watched {
            // The new holder saw the last renewal a moment before or after this program did.
            let waited = now.moment.since(old.since);
            match before.duration() {
                Some(duration) if waited >= duration * 9 / 10 => {
                    self.known = Known::Lease(Box::new(old.clone()));
                    changes.extend(self.expire(now));
                }
                Some(duration) => warnings.push(format!(
                    "acquired from {} only {} after its last renewal, of {}",
                    printable(&before.holder),
                    Seconds(waited),
                    Seconds(duration)
                )),
                None => {}
            }
        }
        let term = match (after.holder.is_empty(), old.term) {
            (true, _) => None,
            (false, Some(term)) if !begins => Some(term),
            (false, _) => Some(Term::starting(now, &sight, source_of(how))),
        };
        self.known = Known::Lease(Box::new(Seen { sight, since: now.moment, expired: false, term }));
        let previous = ends.then(|| before.holder.clone());
        let (kind, message) = if begins {
            if ends && before.holder != after.holder && after.transitions == before.transitions {
                warnings.push("leaseTransitions did not rise: edited by hand?".to_owned());
            }
            let unseen = if taken_over && how == How::Read { ", handover not observed" } else { "" };
            (Kind::Acquired, format!("{} leads{unseen}", printable(&after.holder)))
        } else if ends && after.is_released() {
            (Kind::Released, format!("{} released the lease", printable(&before.holder)))
        } else if ends {
            let was = printable(&before.holder);
            (Kind::Emptied, format!("the holder was cleared, but not by a release: {was} may still be at work"))
        } else if after.holder.is_empty() {
            return self.push_invalid(now, warnings, changes);
        } else if before.renew_time == after.renew_time {
            (Kind::Edited, "the record was changed without a renewal: edited by hand?".to_owned())
        } else if old.expired {
            (Kind::Resumed, format!("{} renewed after it had expired", printable(&after.holder)))
        } else {
            (Kind::Renewed, format!("{} renewed", printable(&after.holder)))
        };
        if kind == Kind::Renewed && !warnings.is_empty() {
            self.push_invalid(now, std::mem::take(&mut warnings), changes);
        }
        changes.push(Change { previous_holder_identity: previous, message, warnings, ..self.change(now, kind) });
    }

    fn push_invalid(&self, now: Reading, warnings: Vec<String>, changes: &mut Vec<Change>) {
        if !warnings.is_empty() {
            let message = format!("lease {} contains values that no elector of this kind writes", self.lease);
            changes.push(Change { message, warnings, ..self.change(now, Kind::Invalid) });
        }
    }

    /// Returns a change of `kind` with all that is known now.
    fn change(&self, now: Reading, kind: Kind) -> Change {
        let seen = match &self.known {
            Known::Lease(seen) => Some(&**seen),
            Known::Nothing | Known::Absent { .. } => None,
        };
        let record = seen.map(Seen::record);
        let term = seen.and_then(|seen| seen.term.as_ref());
        Change {
            time: now.wall,
            kind,
            namespace: self.lease.namespace.clone(),
            name: self.lease.name.clone(),
            uid: seen.map(|seen| seen.sight.uid.clone()).filter(|uid| !uid.is_empty()),
            resource_version: seen.map(|seen| seen.sight.snapshot.version.as_str().to_owned()),
            holder_identity: record.map(|record| record.holder.clone()),
            incarnation: seen.filter(|_| term.is_some()).and_then(|seen| seen.sight.snapshot.incarnation.clone()),
            previous_holder_identity: None,
            lease_duration_seconds: record.map(|record| record.duration_seconds),
            lease_transitions: record.map(|record| record.transitions),
            acquire_time: record.and_then(|record| record.acquire_time),
            renew_time: record.and_then(|record| record.renew_time),
            observed_since: term.map(|term| term.observed_since),
            fencing_token: term.map(|term| term.token.as_str().to_owned()),
            fencing_token_source: term.map(|term| term.source),
            warnings: Vec::new(),
            message: String::new(),
        }
    }
}

impl Term {
    fn starting(now: Reading, sight: &LeaseSight, source: TokenSource) -> Self {
        Self { observed_since: now.wall, token: sight.snapshot.version.clone(), source }
    }
}

fn source_of(how: How) -> TokenSource {
    match how {
        How::Watched => TokenSource::AcquiringWrite,
        How::Read => TokenSource::FirstSight,
    }
}

fn warn<'a>(warnings: impl IntoIterator<Item = &'a Warning>) -> Vec<String> {
    warnings.into_iter().map(|warning| format!("{} {}", warning.field, warning.text)).collect()
}

struct Seconds(Duration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3} s", self.0.as_secs_f64())
    }
}
