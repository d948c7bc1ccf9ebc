//! Feeds an [`Observer`] from an API server and prints what it says.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, StreamExt};
use kube::api::{Api, DynamicObject};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config};
use tracing::{info, warn};

use super::{Change, How, Kind, LeaseSight, Observer, Options, Output, Sight, Verdict};
use crate::campaign::{LONGEST_WATCH, LeaseName, describe, describe_watch_error, is_forbidden, leases, snapshot_of};
use crate::election::{Moment, Reading, WallTime};
use crate::runtime::backoff::{WatchBackoff, WatchProgress};
use crate::runtime::clock::{Clock, sleep_until};
use crate::runtime::shutdown::Shutdown;

/// The longest wait between tries of the watch, and between reads where watching is not permitted.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// So that a Lease of a second is not read all the time.
const SHORTEST_WAIT: Duration = Duration::from_millis(250);
/// How long an API server may take to answer a read.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why nothing can be observed. One line each.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The configuration makes no client.
    #[error("cannot make a client for {cluster_url}: {}", describe(.source))]
    Connect {
        /// Where the API server is.
        cluster_url: String,
        /// Why.
        source: kube::Error,
    },
    /// The first read failed; only with `once`.
    #[error("cannot tell whether lease {lease} has a live holder: {why}")]
    Unknown {
        /// Which Lease.
        lease: LeaseName,
        /// The API server's or the connection's words, and what to do.
        why: String,
    },
    /// Nothing can be printed.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

/// Prints the changes of one Lease to standard output until SIGTERM or SIGINT, then returns 0. With `once`: returns after
/// the first line that tells, 0 for a live holder, 1 for none.
///
/// Uses the verbs list and watch on that Lease, and get where those are not permitted.
///
/// # Errors
/// [`ObserveError`]. An API server that cannot be reached is one only with `once`; otherwise it is tried again.
pub async fn observe(
    config: &Config,
    options: Options,
    clock: Arc<dyn Clock>,
    mut shutdown: Shutdown,
) -> Result<ExitCode, ObserveError> {
    let mut watch = Watch::new(client(config)?, options, clock);
    loop {
        let wake = watch.wake();
        let clock = watch.clock.clone();
        let done = tokio::select! {
            biased;
            signal = shutdown.requested() => return watch.stopped(signal),
            Some(event) = watch.stream.next() => watch.take_watched(event)?,
            answer = answer_of(&mut watch.read) => watch.take_read(answer)?,
            () = sleep_until(&*clock, wake.map(Moment::elapsed_since_boot)) => watch.tick()?,
        };
        if let Some(code) = done {
            return Ok(code);
        }
    }
}

fn client(config: &Config) -> Result<Client, ObserveError> {
    let mut config = config.clone();
    config.default_retry = false;
    config.connect_timeout = Some(PATIENCE);
    config.read_timeout = Some(LONGEST_WATCH);
    config.reset_reader_on_write = true;
    let cluster_url = config.cluster_url.to_string();
    Client::try_from(config).map_err(|source| ObserveError::Connect { cluster_url, source })
}

/// `None` if none came in time.
type Answer = Option<Result<Option<DynamicObject>, kube::Error>>;

async fn answer_of(read: &mut Option<BoxFuture<'static, Answer>>) -> Answer {
    match read {
        Some(read) => read.await,
        None => std::future::pending().await,
    }
}

struct Watch {
    options: Options,
    clock: Arc<dyn Clock>,
    leases: Api<DynamicObject>,
    stream: BoxStream<'static, watcher::Result<watcher::Event<DynamicObject>>>,
    progress: WatchProgress,
    observer: Observer,
    listed: Option<DynamicObject>,
    /// What was last said of a failing watch, and of a failing read.
    watch_trouble: Option<String>,
    read_trouble: Option<String>,
    /// With `once`: when the first answer must have come.
    first_by: Option<Moment>,
    /// When to read next, where watching is not permitted.
    next_read: Option<Moment>,
    read: Option<BoxFuture<'static, Answer>>,
}

impl Watch {
    fn new(client: Client, options: Options, clock: Arc<dyn Clock>) -> Self {
        let leases = leases(client, &options.lease);
        let selector = watcher::Config::default().fields(&format!("metadata.name={}", options.lease.name));
        let (backoff, progress) = WatchBackoff::up_to(LONGEST_WAIT);
        let first_by = options.once.then(|| Moment::since_boot(clock.since_boot()) + PATIENCE);
        Self {
            first_by,
            stream: watcher(leases.clone(), selector).backoff(backoff).boxed(),
            leases,
            clock,
            progress,
            observer: Observer::new(options.lease.clone()),
            options,
            listed: None,
            watch_trouble: None,
            read_trouble: None,
            next_read: None,
            read: None,
        }
    }

    fn now(&self) -> Reading {
        Reading { moment: Moment::since_boot(self.clock.since_boot()), wall: WallTime(self.clock.wall_micros()) }
    }

    fn wake(&self) -> Option<Moment> {
        [self.observer.expires_at(), self.next_read, self.first_by].into_iter().flatten().min()
    }

    fn stopped(&self, signal: &str) -> Result<ExitCode, ObserveError> {
        if self.options.once {
            let why = format!("{signal} came before its holder was seen to renew or to expire");
            return Err(ObserveError::Unknown { lease: self.options.lease.clone(), why });
        }
        Ok(ExitCode::SUCCESS)
    }

    fn take_watched(
        &mut self,
        event: watcher::Result<watcher::Event<DynamicObject>>,
    ) -> Result<Option<ExitCode>, ObserveError> {
        let event = match event {
            // Says only that a list is about to be asked for.
            Ok(watcher::Event::Init) => {
                self.listed = None;
                return Ok(None);
            }
            Ok(event) => event,
            Err(error) => return self.take_watch_error(&error).map(|()| None),
        };
        self.first_by = None;
        self.progress.made();
        (self.next_read, self.read) = (None, None);
        self.observer.set_blind(false);
        self.read_trouble = None;
        if self.watch_trouble.take().is_some() {
            info!("watching lease {} again", self.options.lease);
        }
        let sight = match event {
            watcher::Event::Init => return Ok(None),
            watcher::Event::InitApply(lease) => {
                self.listed = Some(lease);
                return Ok(None);
            }
            watcher::Event::InitDone => match self.listed.take() {
                Some(lease) => self.sight_of(&lease, How::Read),
                None => Sight::Absent,
            },
            watcher::Event::Apply(lease) => self.sight_of(&lease, How::Watched),
            watcher::Event::Delete(lease) => Sight::Deleted(snapshot_of(&lease).version),
        };
        let changes = self.observer.see(self.now(), sight);
        self.print(changes)
    }

    fn sight_of(&self, lease: &DynamicObject, how: How) -> Sight {
        Sight::Lease(LeaseSight::of(lease, self.now().wall, how))
    }

    fn take_watch_error(&mut self, error: &watcher::Error) -> Result<(), ObserveError> {
        if matches!(error, watcher::Error::WatchError(status) if status.code == 410) {
            return Ok(()); // the server has forgotten that version; a new list follows
        }
        let lease = &self.options.lease;
        let verb = if matches!(error, watcher::Error::InitialListFailed(_)) { "list" } else { "watch" };
        let what = format!("cannot {verb} lease {lease}: {}", describe_watch_error(error));
        if is_forbidden(error) {
            self.progress.forbidden();
            self.next_read.get_or_insert(Moment::since_boot(self.clock.since_boot()));
            let next = "reading it now and then instead; for live changes grant list and watch on \
                        leases.coordination.k8s.io";
            say_once(&mut self.watch_trouble, format!("{what}; {next}"));
            return Ok(());
        }
        self.blinded(what.clone())?;
        say_once(&mut self.watch_trouble, format!("{what}; will try again within {} s", LONGEST_WAIT.as_secs()));
        Ok(())
    }

    /// With `once` an API server that does not answer is the end.
    fn blinded(&mut self, why: String) -> Result<(), ObserveError> {
        self.observer.set_blind(true);
        if self.options.once {
            return Err(ObserveError::Unknown { lease: self.options.lease.clone(), why });
        }
        Ok(())
    }

    fn take_read(&mut self, answer: Answer) -> Result<Option<ExitCode>, ObserveError> {
        self.read = None;
        let now = self.now();
        let duration = self.observer.expires_at().map_or(LONGEST_WAIT, |at| at.since(now.moment) / 3);
        self.next_read = Some(now.moment + duration.clamp(SHORTEST_WAIT, LONGEST_WAIT));
        let why = match answer {
            Some(Ok(found)) => {
                self.first_by = None;
                self.observer.set_blind(false);
                if self.read_trouble.take().is_some() {
                    info!("reading lease {} again", self.options.lease);
                }
                let sight = found.as_ref().map_or(Sight::Absent, |lease| self.sight_of(lease, How::Read));
                let changes = self.observer.see(now, sight);
                return self.print(changes);
            }
            Some(Err(kube::Error::Api(status))) if status.is_forbidden() => {
                format!("{}; grant list and watch, or get, on leases.coordination.k8s.io", status.message)
            }
            Some(Err(error)) => describe(&error),
            None => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        let what = format!("cannot get lease {}: {why}", self.options.lease);
        self.blinded(what.clone())?;
        say_once(&mut self.read_trouble, format!("{what}; will try again within {} s", LONGEST_WAIT.as_secs()));
        Ok(None)
    }

    fn tick(&mut self) -> Result<Option<ExitCode>, ObserveError> {
        let now = self.now();
        if self.first_by.is_some_and(|at| now.moment >= at) {
            self.blinded(format!("no answer within {} s", PATIENCE.as_secs()))?;
        }
        if self.next_read.is_some_and(|at| now.moment >= at) {
            self.next_read = None;
            let (leases, name) = (self.leases.clone(), self.options.lease.name.clone());
            let clock = self.clock.clone();
            let deadline = clock.since_boot() + PATIENCE;
            self.read = Some(
                async move {
                    tokio::select! {
                        biased;
                        answer = leases.get_opt(&name) => Some(answer),
                        () = clock.sleep_until(deadline) => None,
                    }
                }
                .boxed(),
            );
        }
        let changes = self.observer.tick(now);
        self.print(changes)
    }

    fn print(&self, changes: Vec<Change>) -> Result<Option<ExitCode>, ObserveError> {
        for mut change in changes {
            if self.options.once {
                let code = match change.verdict() {
                    Verdict::Open => {
                        info!("{}; waiting for a renewal", change.message);
                        continue;
                    }
                    Verdict::Live => {
                        change.kind = Kind::Live;
                        ExitCode::SUCCESS
                    }
                    Verdict::NotLive => ExitCode::FAILURE,
                };
                return self.print_line(&change).map(|()| Some(code));
            }
            if (change.kind != Kind::Renewed || self.options.renewals)
                && let Err(error) = self.print_line(&change)
            {
                return match error {
                    // Whoever read this has seen enough, as `head` does.
                    ObserveError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                        Ok(Some(ExitCode::SUCCESS))
                    }
                    error => Err(error),
                };
            }
        }
        Ok(None)
    }

    fn print_line(&self, change: &Change) -> Result<(), ObserveError> {
        let line = match self.options.output {
            Output::Text => change.to_string(),
            Output::Json => change.json(),
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).map_err(ObserveError::Output)
    }
}

/// Trouble that goes on is told once.
fn say_once(said: &mut Option<String>, what: String) {
    if said.as_ref() != Some(&what) {
        warn!("{what}");
        *said = Some(what);
    }
}
