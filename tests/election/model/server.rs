//! The API server, edits by hand, and the operator that recreates and releases the Lease.

use super::family::Family;
use super::laws::Law;
use super::world::{Body, Life, Message, Operation, Process, StoredLease, World, incarnation};
use crate::subject::election::{
    Event, Failure, Preference, Purpose, RECREATED_HOLDER, Record, Sight, Snapshot, Version, WallTime,
};

impl World {
    pub fn serve(&mut self, from: Process, request: u64, operation: Operation) {
        let owner = self.lease.as_ref().and_then(|stored| stored.owner);
        let event = match operation {
            Operation::Read => {
                let sight = self.lease.as_ref().map(|stored| Sight::Lease(stored.snapshot.clone()));
                Event::Read { request, result: Ok(sight.unwrap_or(Sight::Absent { deleted_at: None })) }
            }
            Operation::Write { purpose, expected, record, incarnation } => {
                let result = self.may_write(purpose, expected.as_ref()).map(|()| {
                    if purpose == Purpose::Release && owner != Some(from) {
                        self.break_law(Law::OnlyOwnReleased);
                    }
                    if purpose == Purpose::Acquire && self.now < self.foreign_until {
                        self.break_law(Law::ForeignTermRespected);
                    }
                    let owner = (purpose != Purpose::Release).then_some(from);
                    self.commit(record, incarnation, owner)
                });
                Event::Written { request, result }
            }
        };
        self.answer(from, event, owner);
    }

    pub fn answer(&mut self, to: Process, event: Event, owner: Option<Process>) {
        if self.is_current(to) {
            self.messages.push(Message { late: false, body: Body::Answer { to, event, owner } });
        }
    }

    /// Decides like the API server: a PUT without a version replaces any version.
    fn may_write(&self, purpose: Purpose, expected: Option<&Version>) -> Result<(), Failure> {
        match (purpose, &self.lease) {
            (Purpose::Create, None) => Ok(()),
            (Purpose::Create, Some(_)) => Err(Failure::Conflict),
            (_, None) => Err(Failure::NotFound),
            (_, Some(stored)) if expected.is_none_or(|expected| *expected == stored.snapshot.version) => Ok(()),
            (_, Some(_)) => Err(Failure::Conflict),
        }
    }

    fn commit(&mut self, record: Record, incarnation: Option<String>, owner: Option<Process>) -> Version {
        self.version += 1;
        let version = Version::new(self.version.to_string());
        let stored = self.lease.take();
        let former = stored.as_ref().map(|stored| stored.snapshot.preference.clone()).unwrap_or_default();
        let same_term = stored.as_ref().is_some_and(|stored| stored.snapshot.record.transitions == record.transitions);
        let successor = stored.and_then(|stored| stored.successor).filter(|(term, _)| *term == record.transitions);
        let preference = Preference {
            successor: successor.as_ref().map(|(_, name)| name.clone()),
            suspended: former.suspended && same_term,
            revision: former.revision,
        };
        let snapshot = Snapshot { version: version.clone(), record, incarnation, preference };
        self.lease = Some(StoredLease { snapshot: snapshot.clone(), owner, successor });
        self.show(&Sight::Lease(snapshot), owner);
        version
    }

    fn show(&mut self, sight: &Sight, owner: Option<Process>) {
        for i in 0..self.members.len() {
            let to = self.process(i);
            if self.is_current(to) {
                let body = Body::Watch { to, sight: sight.clone(), owner };
                self.messages.push(Message { late: false, body });
            }
        }
    }

    pub fn delete(&mut self) {
        self.lease = None;
        self.version += 1;
        self.show(&Sight::Absent { deleted_at: Some(Version::new(self.version.to_string())) }, None);
    }

    /// Edits the record by hand. The incarnation annotation stays.
    pub fn edit(&mut self, owner: Option<Process>, edit: impl FnOnce(&mut Record, WallTime)) {
        let Some(StoredLease { snapshot, .. }) = self.lease.clone() else { return };
        let Snapshot { mut record, incarnation, .. } = snapshot;
        edit(&mut record, self.wall());
        self.commit(record, incarnation, owner);
    }

    /// Changes an annotation. The holder stays.
    pub fn annotate(&mut self) {
        let owner = self.lease.as_ref().and_then(|stored| stored.owner);
        self.edit(owner, |_, _| {});
    }

    /// Names the successor of the present term.
    pub fn name_successor(&mut self, successor: &str) {
        if let Some(stored) = &mut self.lease {
            stored.successor = Some((stored.snapshot.record.transitions, successor.to_owned()));
            self.annotate();
        }
    }

    pub fn prove_revision(&mut self, revision: &str) {
        if let Some(stored) = &mut self.lease {
            stored.snapshot.preference.revision = Some(revision.to_owned());
            self.annotate();
        }
    }

    pub fn suspend(&mut self) {
        if let Some(stored) = &mut self.lease {
            stored.snapshot.preference.suspended ^= true;
            self.annotate();
        }
    }

    /// Recreates the Lease as the operator does: no candidate may acquire it before an old leader has stopped.
    pub fn recreate(&mut self) {
        let now = Some(self.wall());
        let duration = Family::timing().recreation_wait().as_secs();
        let record = Record {
            holder: RECREATED_HOLDER.to_owned(),
            duration_seconds: i32::try_from(duration).expect("it is short"),
            acquire_time: now,
            renew_time: now,
            transitions: 0,
        };
        self.commit(record, None, None);
    }

    /// Whether the operator has proof, by the kubelet's report, that the Lease's incarnation is dead. There is no
    /// report for a process that names no container.
    pub fn holder_is_dead(&self, family: &Family) -> bool {
        let Some(StoredLease { snapshot, .. }) = &self.lease else { return false };
        let Some(holder) = snapshot.incarnation.as_deref().filter(|holder| !holder.contains("/-/")) else {
            return false;
        };
        (0..self.members.len()).any(|i| {
            let member = &self.members[i];
            let dead = member.incarnation + u8::from(member.life == Life::Down);
            let is_named = snapshot.record.holder == member.elector.candidate().identity();
            is_named && (0..dead).any(|life| incarnation(family, (i, life)) == holder)
        })
    }

    /// Releases the Lease as the operator does. Its read and its compare-and-swap are one step.
    pub fn release_dead(&mut self) {
        let transitions = self.lease.as_ref().map_or(0, |stored| stored.snapshot.record.transitions);
        let released = Record::released(transitions, self.wall());
        self.commit(released, None, None);
    }

    fn wall(&self) -> WallTime {
        WallTime(1_700_000_000_000_000 + self.now as i64)
    }
}
