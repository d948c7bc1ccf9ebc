//! Observes the programs of all Exec groups on the shared node in `/proc`, independently of what the programs and the
//! operator report.
//!
//! The candidate sets Lease, pod and fencing token in the environment of its program, and the program's children
//! inherit them. So the environment of a process shows its term. Programs of Sidecar groups get their token from an
//! HTTP response; they write stamps instead ([`super::workload`]).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(100);
/// The longest time from `fork` to `exec` on a busy machine: until then a process has the candidate's environment.
const EXEC_LIMIT: Duration = Duration::from_secs(2);

/// A Lease, as namespace and name.
type Lease = (String, String);

/// All processes of one term.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Worker {
    pod: String,
    token: u64,
    /// The rounds in which it was first and last observed.
    first: usize,
    last: usize,
}

/// What is known about a process that exists.
enum Known {
    /// It had no token in the last round; the time is that of its first observation.
    Idle(Instant),
    /// It works for a Lease, in a pod, under a token.
    Works(Lease, String, u64),
}

static WORKERS: Mutex<BTreeMap<Lease, Vec<Worker>>> = Mutex::new(BTreeMap::new());

/// Starts observing, for as long as the tests run.
pub fn start() {
    thread::spawn(|| {
        let mut known = HashMap::new();
        for round in 0.. {
            observe(round, &mut known);
            thread::sleep(INTERVAL);
        }
    });
}

fn observe(round: usize, known: &mut HashMap<u32, Known>) {
    let entries = fs::read_dir("/proc").unwrap();
    let exist: HashSet<u32> = entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).collect();
    known.retain(|pid, _| exist.contains(pid));
    for pid in exist {
        let entry = known.entry(pid).or_insert_with(|| Known::Idle(Instant::now()));
        if let Known::Idle(since) = entry
            && since.elapsed() < EXEC_LIMIT
            && let Some((lease, pod, token)) = fs::read(format!("/proc/{pid}/environ")).ok().and_then(|it| term(&it))
        {
            *entry = Known::Works(lease, pod, token);
        }
        if let Known::Works(lease, pod, token) = entry
            && runs(pid)
        {
            let mut all = WORKERS.lock().unwrap_or_else(PoisonError::into_inner);
            let workers = all.entry(lease.clone()).or_default();
            match workers.iter_mut().find(|worker| worker.pod == *pod && worker.token == *token) {
                Some(worker) => worker.last = round,
                None => workers.push(Worker { pod: pod.clone(), token: *token, first: round, last: round }),
            }
        }
    }
}

/// Returns the Lease, pod and token for which a process with that environment works.
fn term(environment: &[u8]) -> Option<(Lease, String, u64)> {
    let environment = String::from_utf8_lossy(environment);
    let value = |name: &str| {
        let mut variables = environment.split('\0').filter_map(|variable| variable.split_once('='));
        variables.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
    };
    let token = value("K8SENSUS_FENCING_TOKEN")?.parse().ok()?;
    Some(((value("POD_NAMESPACE")?, value("K8SENSUS_LEASE_NAME")?), value("POD_NAME")?, token))
}

/// Returns whether a process exists and is neither dead nor stopped.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The program's name comes before it, in parentheses, and may contain anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X', 'T', 't']))
}

/// Asserts for each group of a namespace that one program at a time worked and that tokens rose.
///
/// # Panics
/// If programs overlapped or a token did not rise.
pub fn judge(namespace: &str) {
    let all = WORKERS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for ((_, lease), workers) in all.iter().filter(|((found, _), _)| found == namespace) {
        let faults = faults(workers);
        assert!(
            faults.is_empty(),
            "Lease {namespace}/{lease}: {}\nin rounds of {INTERVAL:?}: {workers:#?}",
            faults.join("; ")
        );
        println!("{namespace}/{lease}: {} terms, one program at a time", workers.len());
    }
}

/// Returns the faults of workers, which are in the order of their first observation.
fn faults(workers: &[Worker]) -> Vec<String> {
    let mut faults = Vec::new();
    for (n, new) in workers.iter().enumerate() {
        for old in &workers[..n] {
            // Within one round the old program may have ended before the new one started.
            if old.last > new.first {
                faults.push(format!("{} still worked when {} did", old.pod, new.pod));
            }
            if old.token >= new.token {
                faults.push(format!("{} had token {}, then {} had {}", old.pod, old.token, new.pod, new.token));
            }
        }
    }
    faults
}

fn worker(pod: &str, token: u64, first: usize, last: usize) -> Worker {
    Worker { pod: pod.to_owned(), token, first, last }
}

#[test]
fn observer_finds_concurrent_workers_and_tokens_that_do_not_rise() {
    let good = [worker("otter", 3, 0, 7), worker("heron", 4, 7, 9), worker("otter", 6, 12, 12)];
    assert_eq!(faults(&good), Vec::<String>::new());
    let both = [worker("otter", 3, 0, 8), worker("heron", 4, 7, 9)];
    assert_eq!(faults(&both), ["otter still worked when heron did"]);
    let same_token = [worker("otter", 3, 0, 5), worker("heron", 3, 7, 9)];
    assert_eq!(faults(&same_token), ["otter had token 3, then heron had 3"]);
}

#[test]
fn observer_reads_lease_pod_and_token_from_the_environment() {
    let environment =
        b"PATH=/bin\0K8SENSUS_FENCING_TOKEN=4711\0K8SENSUS_LEASE_NAME=kestrel\0POD_NAME=otter\0POD_NAMESPACE=pond\0";
    assert_eq!(term(environment), Some((("pond".to_owned(), "kestrel".to_owned()), "otter".to_owned(), 4711)));
    assert_eq!(term(b"POD_NAME=otter\0K8SENSUS_LEASE_NAME=kestrel\0POD_NAMESPACE=pond\0"), None);
}
