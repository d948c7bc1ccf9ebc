//! Feeds an [`Observer`] from an API server and prints its changes.

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

/// The longest wait between retries of the watch, and between reads where watching is not permitted.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// The shortest wait between reads, so that a Lease of one second is not read continuously.
const SHORTEST_WAIT: Duration = Duration::from_millis(250);
/// How long an API server may take to answer a read.
const PATIENCE: Duration = Duration::from_secs(5);

/// A reason why nothing can be observed. One line each.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// No client can be created from the configuration.
    #[error("cannot create a client for {cluster_url}: {}", describe(.source))]
    Connect {
        /// Where the API server is.
        cluster_url: String,
        /// Why.
        source: kube::Error,
    },
    /// The first read failed; only with `once`.
    #[error("it is unknown whether lease {lease} has a live holder: {why}")]
    Unknown {
        /// Which Lease.
        lease: LeaseName,
        /// The error of the API server or the connection, with a remedy.
        why: String,
    },
    /// Nothing can be printed.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

/// Prints the changes of one Lease to standard output until SIGTERM or SIGINT, then returns 0. With `once`: returns
/// after the first line that is decisive, 0 for a live holder, 1 for none.
///
/// Uses the verbs list and watch on that Lease, and get where those are not permitted.
///
/// # Errors
/// [`ObserveError`]. An unreachable API server is an error only with `once`; otherwise the request is retried.
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
            Some(event) = watch.stream.next() => watch.apply_watch_event(event)?,
            answer = answer_of(&mut watch.read) => watch.apply_read(answer)?,
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

/// The answer to a read; `None` if none arrived in time.
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
    /// The last warnings about a failing watch and a failing read.
    watch_problem: Option<String>,
    read_problem: Option<String>,
    /// With `once`: the deadline of the first answer.
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
            watch_problem: None,
            read_problem: None,
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
            let why = format!("{signal} arrived before a renewal or expiry of its holder was observed");
            return Err(ObserveError::Unknown { lease: self.options.lease.clone(), why });
        }
        Ok(ExitCode::SUCCESS)
    }

    fn apply_watch_event(
        &mut self,
        event: watcher::Result<watcher::Event<DynamicObject>>,
    ) -> Result<Option<ExitCode>, ObserveError> {
        let event = match event {
            // A new list was requested; it has no content yet.
            Ok(watcher::Event::Init) => {
                self.listed = None;
                return Ok(None);
            }
            Ok(event) => event,
            Err(error) => return self.report_watch_error(&error).map(|()| None),
        };
        self.first_by = None;
        self.progress.made();
        (self.next_read, self.read) = (None, None);
        self.observer.set_blind(false);
        self.read_problem = None;
        if self.watch_problem.take().is_some() {
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

    fn report_watch_error(&mut self, error: &watcher::Error) -> Result<(), ObserveError> {
        if matches!(error, watcher::Error::WatchError(status) if status.code == 410) {
            return Ok(()); // the server has forgotten that version; a new list follows
        }
        let lease = &self.options.lease;
        let verb = if matches!(error, watcher::Error::InitialListFailed(_)) { "list" } else { "watch" };
        let what = format!("cannot {verb} lease {lease}: {}", describe_watch_error(error));
        if is_forbidden(error) {
            self.progress.forbidden();
            self.next_read.get_or_insert(Moment::since_boot(self.clock.since_boot()));
            let next = "polling it instead; for live changes grant list and watch on \
                        leases.coordination.k8s.io";
            warn_once(&mut self.watch_problem, format!("{what}; {next}"));
            return Ok(());
        }
        self.report_blindness(what.clone())?;
        warn_once(&mut self.watch_problem, format!("{what}; will try again within {} s", LONGEST_WAIT.as_secs()));
        Ok(())
    }

    /// Marks the API server as not answering. With `once` that is an error.
    fn report_blindness(&mut self, why: String) -> Result<(), ObserveError> {
        self.observer.set_blind(true);
        if self.options.once {
            return Err(ObserveError::Unknown { lease: self.options.lease.clone(), why });
        }
        Ok(())
    }

    fn apply_read(&mut self, answer: Answer) -> Result<Option<ExitCode>, ObserveError> {
        self.read = None;
        let now = self.now();
        let duration = self.observer.expires_at().map_or(LONGEST_WAIT, |at| at.since(now.moment) / 3);
        self.next_read = Some(now.moment + duration.clamp(SHORTEST_WAIT, LONGEST_WAIT));
        let why = match answer {
            Some(Ok(found)) => {
                self.first_by = None;
                self.observer.set_blind(false);
                if self.read_problem.take().is_some() {
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
        self.report_blindness(what.clone())?;
        warn_once(&mut self.read_problem, format!("{what}; will try again within {} s", LONGEST_WAIT.as_secs()));
        Ok(None)
    }

    fn tick(&mut self) -> Result<Option<ExitCode>, ObserveError> {
        let now = self.now();
        if self.first_by.is_some_and(|at| now.moment >= at) {
            self.report_blindness(format!("no answer within {} s", PATIENCE.as_secs()))?;
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
                    // The reader has closed the pipe, as `head` does.
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

/// Logs `what` as a warning, unless it is the same as the last one.
fn warn_once(last: &mut Option<String>, what: String) {
    if last.as_ref() != Some(&what) {
        warn!("{what}");
        *last = Some(what);
    }
}
