//! A group of candidates of both kinds on one Lease, the faults that can hit them, and the final check.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use k8sensus_local::Cluster;
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use tempfile::TempDir;

use super::history::{Theft, premature, thefts};
use crate::support::fixtures::{client_go, stamper};
use crate::support::overlap::{Overlap, Report};
use crate::support::proxy::Proxy;
use crate::support::{Program, SHORT, candidate_command, within};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ours,
    ClientGo,
}
pub use Kind::{ClientGo, Ours};

/// The lease duration of the candidates: 3 s, with renew deadline 2 s and retry period 1 s.
pub const LEASE: Duration = Duration::from_secs(3);
/// The time until ours must have stopped after a process wakes or the Lease is edited by hand. A woken process cannot
/// act before it runs.
pub const NOTICE: Duration = Duration::from_secs(1);

pub struct Group {
    cluster: &'static Cluster,
    pub namespace: String,
    pub lease: String,
    /// Lease duration, renew deadline and retry period.
    seconds: [u32; 3],
    folder: TempDir,
    started: AtomicU32,
    ours: Mutex<Vec<String>>,
    excuses: Mutex<Vec<Excuse>>,
}

/// A time in which one of ours may not have stopped yet.
struct Excuse {
    identity: String,
    from: Duration,
    until: Duration,
}

/// A candidate's process.
pub struct Member {
    pub kind: Kind,
    pub identity: String,
    pub program: Program,
    stamps: PathBuf,
}

impl Group {
    pub fn new(cluster: &'static Cluster, namespace: &str, lease: impl Into<String>) -> Self {
        Self {
            cluster,
            namespace: namespace.to_owned(),
            lease: lease.into(),
            seconds: [3, 2, 1],
            folder: tempfile::tempdir().unwrap(),
            started: AtomicU32::new(0),
            ours: Mutex::default(),
            excuses: Mutex::default(),
        }
    }

    /// Sets the default durations of client-go.
    pub fn at_defaults(self) -> Self {
        Self { seconds: [15, 10, 2], ..self }
    }

    pub fn start(&self, kind: Kind, identity: &str) -> Member {
        let config = self.cluster.kubeconfig().to_owned();
        self.run(kind, identity, |command| command, &config)
    }

    /// Starts a member behind a proxy.
    pub fn start_behind(&self, proxy: &Proxy, kind: Kind, identity: &str) -> Member {
        let config = self.kubeconfig(&format!("https://{}", proxy.address()));
        self.run(kind, identity, |command| command, &config)
    }

    /// Starts a member in a network namespace, in which the API server has the address `server`.
    pub fn start_inside(&self, pid: i32, server: &str, kind: Kind, identity: &str) -> Member {
        let enter = |command: Command| {
            let mut inside = Command::new("nsenter");
            inside.arg(format!("--net=/proc/{pid}/ns/net")).arg(command.get_program()).args(command.get_args());
            inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            inside
        };
        self.run(kind, identity, enter, &self.kubeconfig(server))
    }

    fn kubeconfig(&self, server: &str) -> PathBuf {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        kubeconfig(self.cluster, server, self.folder.path(), number as usize)
    }

    fn run(&self, kind: Kind, identity: &str, enter: impl Fn(Command) -> Command, kubeconfig: &Path) -> Member {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let stamps = self.folder.path().join(format!("{number}-{identity}.stamps"));
        let command = match kind {
            Ours => {
                let arguments = ["exec", "--", stamper().to_str().unwrap(), stamps.to_str().unwrap(), identity];
                let mut command = candidate_command(self.cluster, &self.namespace, &self.lease, identity, &arguments);
                command.env("KUBECONFIG", kubeconfig);
                command.envs(SHORT.iter().zip(self.seconds).map(|((name, _), seconds)| (name, seconds.to_string())));
                let mut ours = self.ours.lock().unwrap();
                if !ours.iter().any(|known| known == identity) {
                    ours.push(identity.to_owned());
                }
                command
            }
            ClientGo => {
                let mut command = Command::new(client_go());
                let [lease, deadline, retry] = self.seconds;
                command
                    .arg(format!("--lease-duration={lease}s"))
                    .arg(format!("--renew-deadline={deadline}s"))
                    .arg(format!("--retry-period={retry}s"))
                    .args(["--lease-namespace", &self.namespace, "--lease-name", &self.lease])
                    .args(["--identity", identity, "--stamps", stamps.to_str().unwrap()])
                    .env("KUBECONFIG", kubeconfig);
                command
            }
        };
        let program = Program::start(identity, &mut enter(command));
        Member { kind, identity: identity.to_owned(), program, stamps }
    }

    /// Excuses overlaps of the identity since `from` and for [`NOTICE`] from now.
    pub fn excuse(&self, identity: &str, from: Duration) {
        let until = now() + NOTICE;
        self.excuses.lock().unwrap().push(Excuse { identity: identity.to_owned(), from, until });
    }

    pub fn report(&self) -> Report {
        let files = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        Report::of(&files.filter(|path| path.extension().is_some_and(|e| e == "stamps")).collect::<Vec<_>>())
    }

    pub fn thefts(&self) -> Vec<Theft> {
        thefts(self.cluster, &self.namespace, &self.lease, &self.ours.lock().unwrap())
    }

    /// Prints a summary. Fails if one of ours worked when it should have stopped, or acquired the Lease too early.
    pub fn check(&self, case: &str) -> Report {
        let report = self.report();
        let ours = self.ours.lock().unwrap().clone();
        let thefts = self.thefts();
        // A leader with a broken watch observes the theft only at its next renewal.
        let since_1970 = clock_gettime(ClockId::Realtime);
        let booted =
            Duration::new(since_1970.tv_sec.unsigned_abs(), u32::try_from(since_1970.tv_nsec).unwrap()) - now();
        self.excuses.lock().unwrap().extend(thefts.iter().map(|theft| Excuse {
            identity: theft.from.clone(),
            from: theft.received - booted,
            until: theft.answered + Duration::from_secs(self.seconds[0].into()) - booted,
        }));
        let (guilty, other): (Vec<_>, Vec<_>) = report
            .overlaps
            .iter()
            .partition(|overlap| ours.contains(&overlap.old.identity) && !self.is_excused(overlap));
        let (excused, theirs): (Vec<_>, Vec<_>) = other.into_iter().partition(|o| ours.contains(&o.old.identity));
        let (takeovers, premature) = premature(self.cluster, &self.namespace, &self.lease, &ours);
        println!(
            "{case}: {} terms; overlaps of ours: {}, on waking, edit or theft: {}, of client-go: {}; \
             {takeovers} takeovers by ours, early: {}; thefts by client-go: {}; longest gap {:.2} s",
            report.incarnations(),
            summarize(&guilty),
            summarize(&excused),
            summarize(&theirs),
            premature.len(),
            thefts.len(),
            report.longest_gap().as_secs_f64(),
        );
        assert!(guilty.is_empty(), "{case}: ours should have stopped\n{report}");
        assert!(premature.is_empty(), "{case}: acquired too early: {premature:#?}\n{report}");
        // A resource can recognize late writes of a woken leader by the token.
        for overlap in excused.iter().filter(|overlap| overlap.new.token.is_some()) {
            assert!(overlap.old.token < overlap.new.token, "{case}: the token must rise\n{report}");
        }
        report
    }

    fn is_excused(&self, overlap: &Overlap) -> bool {
        self.excuses.lock().unwrap().iter().any(|excuse| {
            excuse.identity == overlap.old.identity && excuse.from <= overlap.from() && overlap.until() <= excuse.until
        })
    }
}

fn summarize(overlaps: &[&Overlap]) -> String {
    match overlaps.iter().map(|overlap| overlap.length()).max() {
        None => "0".to_owned(),
        Some(longest) => format!("{} (longest {:.3} s)", overlaps.len(), longest.as_secs_f64()),
    }
}

impl Member {
    /// Whether it has stamped within the last 100 ms.
    pub fn at_work(&self) -> bool {
        self.last_stamp().is_some_and(|at| now().saturating_sub(at) < Duration::from_millis(100))
    }

    fn last_stamp(&self) -> Option<Duration> {
        let mut file = File::open(&self.stamps).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(200))).ok()?;
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        let line = text.trim_end().lines().last()?;
        let (at, what) = line.split_once(' ')?;
        let idle = what.ends_with("stop") || what.ends_with("start");
        (!idle).then(|| at.parse().ok().map(Duration::from_nanos)).flatten()
    }

    pub fn wait_until_at_work(&self) {
        within(60, &format!("{} to be at work", self.identity), || self.at_work().then_some(()));
    }

    /// Returns how often this process has started to lead.
    pub fn terms(&self) -> usize {
        std::fs::read_to_string(&self.stamps).unwrap_or_default().matches(" start\n").count()
    }

    /// Freezes it with all its child processes, like a container.
    pub fn freeze(&self) {
        for pid in self.processes() {
            let _ = kill_process(pid, Signal::STOP);
        }
    }

    /// Wakes it, the work first, which is the worst order. For a moment it may work beside another leader.
    pub fn thaw(&self, group: &Group) {
        group.excuse(&self.identity, now());
        for pid in self.processes().into_iter().rev() {
            let _ = kill_process(pid, Signal::CONT);
        }
    }

    fn processes(&self) -> Vec<Pid> {
        let mut found = vec![self.program.pid()];
        let mut next = 0;
        while let Some(pid) = found.get(next) {
            let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let children = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
            let children: Vec<i32> =
                children.flat_map(|text| text.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect();
            found.extend(children);
            next += 1;
        }
        found.into_iter().filter_map(Pid::from_raw).collect()
    }

    /// Sends SIGTERM and waits for its end.
    pub fn terminate(&mut self) {
        self.program.terminate(Duration::from_secs(20));
    }

    pub fn kill(&mut self) {
        self.program.signal(Signal::KILL);
        self.program.wait(Duration::from_secs(20));
    }
}

/// Writes the administrator's kubeconfig with another address of the API server to a file in `folder`.
pub fn kubeconfig(cluster: &Cluster, server: &str, folder: &Path, number: usize) -> PathBuf {
    let mut config: Value = serde_json::from_slice(&std::fs::read(cluster.kubeconfig()).unwrap()).unwrap();
    config["clusters"][0]["cluster"]["server"] = server.into();
    // The certificate knows loopback addresses only.
    config["clusters"][0]["cluster"]["tls-server-name"] = "kubernetes".into();
    let path = folder.join(format!("kubeconfig-{number}"));
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// Returns the time on the clock of the stamps.
pub fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap())
}

pub fn sleep(seconds: f64) {
    std::thread::sleep(Duration::from_secs_f64(seconds));
}
