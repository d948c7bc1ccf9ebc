//! The loop that passes events to the elector and performs its actions.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use kube::api::{Api, DynamicObject, PostParams};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::answer::{describe, failure_of, lease_in, verb};
use super::client::{Clients, leases};
use super::lease::{apply_term, apply_version, lease_at, requests_step_down};
use super::lease_watch::{LeaseWatch, Observation};
use super::{Command, Leadership, LeaseName, Metrics, Stop, Term, apply_record, snapshot_of};
use crate::election::{
    Action, Elector, Event, Failure, Loss, Moment, Purpose, Reading, Record, Sight, Snapshot, Timing, WallTime,
};
use crate::runtime::clock::{Clock, sleep_until};

/// The field manager of the campaign's writes.
const FIELD_MANAGER: &str = "k8sensus";

type Answer = Result<Option<DynamicObject>, kube::Error>;

/// The request in flight.
struct Request {
    number: u64,
    /// The write, `None` for a read.
    write: Option<(Purpose, Record)>,
    answer: BoxFuture<'static, Option<Answer>>,
}

pub(super) struct Driver {
    lease_name: LeaseName,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    /// The version of the candidate program, if it is written to the Lease.
    version: Option<String>,
    elector: Elector,
    inbox: UnboundedReceiver<Command>,
    leadership: watch::Sender<Leadership>,
    leases: Api<DynamicObject>,
    watch: LeaseWatch,
    /// The whole Lease at the version that the elector knows.
    lease: Option<DynamicObject>,
    request: Option<Request>,
    wake: Option<Moment>,
    /// The present term, until its work has ended.
    term: Option<Term>,
    /// Whether the work of the term is ready.
    ready: bool,
    /// Whether no write has carried the present value of `ready` yet.
    ready_unwritten: bool,
    /// Whether all senders of commands are gone.
    inbox_closed: bool,
    finished: bool,
}

impl Driver {
    #[expect(clippy::too_many_arguments, reason = "called once, by the builder")]
    pub(super) fn new(
        clients: Clients,
        lease_name: LeaseName,
        timing: Timing,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        version: Option<String>,
        elector: Elector,
        inbox: UnboundedReceiver<Command>,
        leadership: watch::Sender<Leadership>,
    ) -> Self {
        let watch = LeaseWatch::new(clients.watch, lease_name.clone(), timing, clock.clone());
        Self {
            leases: leases(clients.requests, &lease_name),
            lease_name,
            clock,
            metrics,
            version,
            elector,
            inbox,
            leadership,
            watch,
            lease: None,
            request: None,
            wake: None,
            term: None,
            ready: false,
            ready_unwritten: false,
            inbox_closed: false,
            finished: false,
        }
    }

    pub(super) async fn run(mut self) {
        info!("attempting to acquire leader lease {}...", self.lease_name);
        self.metrics.set_leading(&self.lease_name.name, false);
        self.step(Event::Tick, None);
        while !self.finished {
            let clock = self.clock.clone();
            let wake = self.wake;
            tokio::select! {
                // A command or an answer that has already arrived takes precedence over a timer that fired meanwhile.
                biased;
                command = self.inbox.recv(), if !self.inbox_closed => match command {
                    Some(Command::Abandon) => {
                        return warn!("work for lease {} was abandoned, it may still run: letting the lease expire", self.lease_name);
                    }
                    Some(command) => self.on_command(command),
                    None => self.inbox_closed = true,
                },
                answer = answer_of(&mut self.request) => self.on_answer(answer),
                observation = self.watch.next() => self.on_observation(observation),
                () = sleep_until(&*clock, wake.map(Moment::elapsed_since_boot)) => {
                    self.wake = None;
                    self.step(Event::Tick, None);
                }
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::WorkEnded { term } => self.on_work_ended(term),
            Command::ShowReady { term, ready } => self.show_ready(term, ready),
            Command::StepDown => self.step(Event::StepDown, None),
            Command::ReadyToLead(is_ready) => self.step(Event::ReadyToLead(is_ready), None),
            Command::Leave => self.step(Event::Shutdown, None),
            Command::Abandon => {}
        }
    }

    fn show_ready(&mut self, number: u64, ready: bool) {
        if self.ready != ready && self.term.as_ref().is_some_and(|term| term.number() == number) {
            (self.ready, self.ready_unwritten) = (ready, true);
            self.step(Event::Renew, None);
        }
    }

    fn on_work_ended(&mut self, number: u64) {
        if let Some(term) = self.term.take_if(|current| current.number() == number) {
            // Before any release: holders of this term must no longer see it as valid.
            term.set_valid_until(Moment::since_boot(self.clock.since_boot()));
            if term.stops().borrow().is_none() {
                term.request_stop(Stop { loss: Loss::Requested, kill_at: None });
            }
            self.metrics.set_leading(&self.lease_name.name, false);
            self.leadership.send_modify(|leadership| leadership.term = None);
        }
        self.step(Event::WorkEnded { term: number }, None);
    }

    fn on_answer(&mut self, answer: Option<Answer>) {
        let Some(Request { number, write, .. }) = self.request.take() else { return };
        let purpose = write.as_ref().map(|(purpose, _)| *purpose);
        let result = match answer {
            Some(answer) => answer,
            None => return self.on_failure(number, purpose, Failure::Unknown, "no answer in time"),
        };
        let found = match result {
            Ok(found) => found.map(|found| lease_in(found, &self.lease_name)).transpose(),
            Err(error) => return self.on_failure(number, purpose, failure_of(&error), &describe(&error)),
        };
        match (found, write) {
            (Err(why), _) => self.on_failure(number, purpose, Failure::Unknown, &why),
            (Ok(found), None) => {
                let version = found.as_ref().and_then(|lease| lease.metadata.resource_version.as_deref());
                self.watch.server_answers(version != self.elector.lease().map(|known| known.version.as_str()));
                let sight = found.as_ref().map_or(Sight::Absent { deleted_at: None }, |l| Sight::Lease(snapshot_of(l)));
                self.step(Event::Read { request: number, result: Ok(sight) }, found);
            }
            (Ok(found), Some((_, record))) => {
                // Only an answer with the record that was sent proves that this write happened.
                match found.map(|lease| (snapshot_of(&lease), lease)).filter(|(snapshot, _)| snapshot.record == record)
                {
                    Some((Snapshot { version, .. }, lease)) => {
                        self.watch.server_answers(false);
                        self.step(Event::Written { request: number, result: Ok(version) }, Some(lease));
                        if self.ready_unwritten {
                            self.step(Event::Renew, None); // it changed while that write was in flight
                        }
                    }
                    None => {
                        self.on_failure(number, purpose, Failure::Unknown, "the answer differs from what was written")
                    }
                }
            }
        }
    }

    fn on_failure(&mut self, request: u64, purpose: Option<Purpose>, failure: Failure, why: &str) {
        let event = match purpose {
            None => Event::Read { request, result: Err(failure) },
            Some(_) => Event::Written { request, result: Err(failure) },
        };
        self.step(event, None);
        let (lease, verb) = (&self.lease_name, purpose.map_or("get", verb));
        match failure {
            Failure::Conflict => debug!("lease {lease} has changed: reading it again"),
            _ => warn!("cannot {verb} lease {lease}: {why}; {}", self.describe_next()),
        }
    }

    /// Describes the next step after a failed request.
    fn describe_next(&self) -> String {
        let now = Moment::since_boot(self.clock.since_boot());
        let next = match self.wake {
            _ if self.finished => return "it is left to expire".to_owned(),
            _ if self.request.is_some() => "trying again now".to_owned(),
            Some(at) => format!("will try again in {:.2} s", at.since(now).as_secs_f64()),
            None => "will try again when the work has ended".to_owned(),
        };
        match self.term.as_ref().map(Term::remaining).filter(|left| !left.is_zero()) {
            Some(left) => format!("{next}, leading for {:.2} s more without a renewal", left.as_secs_f64()),
            None => next,
        }
    }

    fn on_observation(&mut self, observation: Observation) {
        match observation {
            Observation::Present(lease) => {
                self.step(Event::Watched(Sight::Lease(snapshot_of(&lease))), Some(lease));
            }
            Observation::Deleted(lease) => {
                let deleted_at = Some(snapshot_of(&lease).version);
                self.step(Event::Watched(Sight::Absent { deleted_at }), None);
            }
            Observation::NotListed => self.step(Event::Watched(Sight::Absent { deleted_at: None }), None),
            Observation::Forbidden => self.step(Event::WatchForbidden, None),
        }
    }

    /// Passes `event` to the elector and performs the resulting actions. `observed` is the Lease of the event.
    fn step(&mut self, event: Event, observed: Option<DynamicObject>) {
        let now =
            Reading { moment: Moment::since_boot(self.clock.since_boot()), wall: WallTime(self.clock.wall_micros()) };
        let actions = self.elector.step(now, event);
        let known = self.elector.lease();
        if let (Some(known), Some(observed)) = (known, observed)
            && observed.metadata.resource_version.as_deref() == Some(known.version.as_str())
        {
            self.lease = Some(observed);
        }
        self.show_holder();
        self.wake = None;
        for action in actions {
            self.perform(action);
        }
        // No work runs in a term that was not taken.
        let withdrawn = self.term.as_ref().filter(|term| term.stops().borrow().is_some() && term.withdraw());
        if let Some(term) = withdrawn.cloned() {
            self.on_work_ended(term.number());
        }
        if self.must_step_down() {
            info!("lease {} requests its leader to step down", self.lease_name);
            self.step(Event::StepDown, None);
        }
    }

    /// Whether this process holds the Lease, the Lease requests the present term to step down, and its work was not yet
    /// asked to stop.
    fn must_step_down(&self) -> bool {
        self.term.as_ref().is_some_and(|term| term.stops().borrow().is_none())
            && self.elector.holds()
            && self.lease.as_ref().is_some_and(requests_step_down)
    }

    fn show_holder(&mut self) {
        let known = self.elector.lease();
        let holder = known.map(|snapshot| snapshot.record.holder.as_str()).unwrap_or_default();
        self.leadership.send_if_modified(|leadership| {
            let first = leadership.holder.is_none() && known.is_none();
            let changed = !first && leadership.holder.as_deref() != Some(holder);
            if changed {
                leadership.holder = Some(holder.to_owned());
            }
            changed
        });
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Read { request, timeout } => {
                if self.term.is_some() {
                    self.metrics.count_slowpath(&self.lease_name.name);
                }
                let (leases, name) = (self.leases.clone(), self.lease_name.name.clone());
                let answer = async move { leases.get_opt(&name).await }.boxed();
                self.send(request, None, timeout, answer);
            }
            Action::Write { request, purpose, expected, record, incarnation, timeout } => {
                let mut lease = lease_at(expected.as_ref(), self.lease.as_ref(), &self.lease_name);
                apply_record(&mut lease, &record, incarnation.as_deref());
                // Any other claim starts a new term, whose work is not ready.
                apply_term(&mut lease, self.ready && purpose == Purpose::Renew);
                if let Some(version) = &self.version {
                    apply_version(&mut lease, version, purpose != Purpose::Release);
                }
                self.ready_unwritten = false;
                let leases = self.leases.clone();
                let answer = async move {
                    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
                    match purpose {
                        Purpose::Create => leases.create(&params, &lease).await,
                        Purpose::Acquire | Purpose::Renew | Purpose::Release => {
                            let name = lease.metadata.name.clone().unwrap_or_default();
                            leases.replace(&name, &params, &lease).await
                        }
                    }
                    .map(Some)
                };
                self.send(request, Some((purpose, record)), timeout, answer.boxed());
            }
            Action::Lead { term, token, transitions, valid_until } => {
                info!("successfully acquired lease {}", self.lease_name);
                self.metrics.set_leading(&self.lease_name.name, true);
                let renewed = self.elector.renewed().unwrap_or(valid_until);
                let term = Term::new(term, token, transitions, valid_until, renewed, self.clock.clone());
                self.term = Some(term.clone());
                (self.ready, self.ready_unwritten) = (false, false);
                self.leadership.send_modify(|leadership| leadership.term = Some(term));
            }
            Action::Valid { valid_until } => {
                if let Some(term) = &self.term {
                    term.set_valid_until(valid_until);
                    if let Some(renewed) = self.elector.renewed() {
                        term.set_renewed(renewed);
                    }
                }
            }
            Action::Stop { loss, kill_at } => {
                self.metrics.set_leading(&self.lease_name.name, false);
                if let Some(term) = &self.term {
                    term.request_stop(Stop { loss, kill_at });
                }
            }
            Action::Wake { at } => self.wake = Some(at),
            Action::Finish => self.finished = true,
        }
    }

    fn send(
        &mut self,
        number: u64,
        write: Option<(Purpose, Record)>,
        timeout: Duration,
        answer: BoxFuture<'static, Answer>,
    ) {
        let clock = self.clock.clone();
        let deadline = clock.since_boot() + timeout;
        let answer = async move {
            tokio::select! {
                biased;
                answer = answer => Some(answer),
                // Dropping an HTTP/1.1 exchange closes its connection, so the next try opens a new one.
                () = clock.sleep_until(deadline) => None,
            }
        };
        self.request = Some(Request { number, write, answer: answer.boxed() });
    }
}

impl Drop for Driver {
    /// Ends the term, since nothing renews the Lease any more.
    fn drop(&mut self) {
        if let Some(term) = &self.term {
            let now = Moment::since_boot(self.clock.since_boot());
            let kill_at = now + term.remaining();
            self.metrics.set_leading(&self.lease_name.name, false);
            term.set_valid_until(now);
            term.request_stop(Stop { loss: Loss::DeadlinePassed, kill_at: Some(kill_at) });
        }
    }
}

async fn answer_of(request: &mut Option<Request>) -> Option<Answer> {
    match request {
        Some(request) => (&mut request.answer).await,
        None => std::future::pending().await,
    }
}
