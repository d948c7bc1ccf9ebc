//! Watches the programs of all groups of mode Exec on the shared node, as the kernel shows them: who works when, whatever the
//! program is and whatever anybody says of it.
//!
//! The candidate gives its program a Lease, a pod and a fencing token in the environment, and the program's children inherit
//! them. So of each process one can tell for whom it works. Programs of mode Sidecar know their token from an answer; they write
//! stamps instead ([`super::workload`]).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(100);
/// How long a process may take from `fork` to `exec`, on a busy machine: before, it has the candidate's environment.
const YOUTH: Duration = Duration::from_secs(2);

/// A Lease, as namespace and name.
type Lease = (String, String);

/// All processes of one term.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Worker {
    pod: String,
    token: u64,
    /// In which rounds of looking it was first and last seen.
    first: usize,
    last: usize,
}

/// What is known of a process that exists.
enum Known {
    /// It had no token when it was last looked at; the first time was then.
    Nobody(Instant),
    Works(Lease, String, u64),
}

static SEEN: Mutex<BTreeMap<Lease, Vec<Worker>>> = Mutex::new(BTreeMap::new());

/// Looks from now on, for as long as the tests run.
pub fn start() {
    thread::spawn(|| {
        let mut known = HashMap::new();
        for round in 0.. {
            look(round, &mut known);
            thread::sleep(INTERVAL);
        }
    });
}

fn look(round: usize, known: &mut HashMap<u32, Known>) {
    let entries = fs::read_dir("/proc").unwrap();
    let exist: HashSet<u32> = entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).collect();
    known.retain(|pid, _| exist.contains(pid));
    for pid in exist {
        let entry = known.entry(pid).or_insert_with(|| Known::Nobody(Instant::now()));
        if let Known::Nobody(since) = entry
            && since.elapsed() < YOUTH
            && let Some((lease, pod, token)) = fs::read(format!("/proc/{pid}/environ")).ok().and_then(|it| work(&it))
        {
            *entry = Known::Works(lease, pod, token);
        }
        if let Known::Works(lease, pod, token) = entry
            && runs(pid)
        {
            let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
            let workers = seen.entry(lease.clone()).or_default();
            match workers.iter_mut().find(|worker| worker.pod == *pod && worker.token == *token) {
                Some(worker) => worker.last = round,
                None => workers.push(Worker { pod: pod.clone(), token: *token, first: round, last: round }),
            }
        }
    }
}

/// For whom a process with that environment works.
fn work(environment: &[u8]) -> Option<(Lease, String, u64)> {
    let environment = String::from_utf8_lossy(environment);
    let value = |name: &str| {
        let mut variables = environment.split('\0').filter_map(|variable| variable.split_once('='));
        variables.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
    };
    let token = value("K8SENSUS_FENCING_TOKEN")?.parse().ok()?;
    Some(((value("POD_NAMESPACE")?, value("K8SENSUS_LEASE_NAME")?), value("POD_NAME")?, token))
}

/// Whether a process is there and neither dead nor stopped.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The program's name stands before, in brackets, and may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X', 'T', 't']))
}

/// Judges the groups of a namespace: of each, one program at a time worked, and the tokens rose.
///
/// # Panics
/// If that is not so.
pub fn judge(namespace: &str) {
    let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for ((_, lease), workers) in seen.iter().filter(|((found, _), _)| found == namespace) {
        let faults = faults(workers);
        assert!(
            faults.is_empty(),
            "Lease {namespace}/{lease}: {}\nin rounds of {INTERVAL:?}: {workers:#?}",
            faults.join("; ")
        );
        println!("{namespace}/{lease}: {} terms, one program at a time", workers.len());
    }
}

/// Workers stand in the order in which they were first seen.
fn faults(workers: &[Worker]) -> Vec<String> {
    let mut faults = Vec::new();
    for (n, new) in workers.iter().enumerate() {
        for old in &workers[..n] {
            // Within one round one may have ended before the other began.
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
fn an_observer_of_processes_tells_two_at_work_and_a_token_that_does_not_rise() {
    let good = [worker("otter", 3, 0, 7), worker("heron", 4, 7, 9), worker("otter", 6, 12, 12)];
    assert_eq!(faults(&good), Vec::<String>::new());
    let both = [worker("otter", 3, 0, 8), worker("heron", 4, 7, 9)];
    assert_eq!(faults(&both), ["otter still worked when heron did"]);
    let same_token = [worker("otter", 3, 0, 5), worker("heron", 3, 7, 9)];
    assert_eq!(faults(&same_token), ["otter had token 3, then heron had 3"]);
}

#[test]
fn an_observer_of_processes_knows_for_whom_one_works_by_its_environment() {
    let environment =
        b"PATH=/bin\0K8SENSUS_FENCING_TOKEN=4711\0K8SENSUS_LEASE_NAME=kestrel\0POD_NAME=otter\0POD_NAMESPACE=pond\0";
    assert_eq!(work(environment), Some((("pond".to_owned(), "kestrel".to_owned()), "otter".to_owned(), 4711)));
    assert_eq!(work(b"POD_NAME=otter\0K8SENSUS_LEASE_NAME=kestrel\0POD_NAMESPACE=pond\0"), None);
}
