//! The leader Service under traffic: new connections and a kept connection, through handovers and crashes.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use super::images::{PYTHON, load};
use super::{holder, namespace, node, ready, uid};
use crate::support::fixtures::traffic;
use crate::support::process::Process;
use crate::support::{get, kubectl, root, within};

/// Returns how often leadership moves in each way; `K8SENSUS_ROUNDS` sets more for measurements.
fn rounds(usual: usize) -> usize {
    std::env::var("K8SENSUS_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(usual)
}

/// A client that ends with the test.
struct Traffic {
    _client: Process,
    answers: Arc<Mutex<Vec<Answer>>>,
}

impl Traffic {
    fn to(address: &str) -> Self {
        let mut command = node().inside([traffic().to_str().unwrap(), address]).unwrap();
        let mut client = Process::start(command.stdin(Stdio::null()).stdout(Stdio::piped()));
        let lines = BufReader::new(client.child.stdout.take().unwrap()).lines();
        let answers: Arc<Mutex<Vec<Answer>>> = Arc::default();
        let weak = Arc::downgrade(&answers);
        // The client is a child of the process that entered the node, so a kill does not reach it; a closed pipe does.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let Some(answers) = weak.upgrade() else { break };
                answers.lock().unwrap().extend(Answer::of(&line));
            }
        });
        Self { _client: client, answers }
    }

    /// Returns the answers since `from`, in order.
    fn answers(&self, from: u128) -> Vec<Answer> {
        self.answers.lock().unwrap().iter().filter(|answer| answer.at >= from).cloned().collect()
    }
}

#[derive(Clone, Debug)]
struct Answer {
    /// Milliseconds since 1970.
    at: u128,
    /// Whether it came over the kept connection.
    kept: bool,
    /// The status code, or the kind of the error.
    what: String,
    /// The pod that answered with 200.
    pod: Option<String>,
}

impl Answer {
    fn of(line: &str) -> Option<Self> {
        let [at, manner, rest] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else { return None };
        let (what, body) = rest.split_once(' ').unwrap_or((rest, ""));
        let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        let pod = body["pod"].as_str().filter(|_| what == "200").map(str::to_owned);
        Some(Self { at: at.parse().ok()?, kept: manner == "kept", what: what.to_owned(), pod })
    }
}

#[expect(clippy::disallowed_methods, reason = "the client's lines have wall-clock time")]
fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// Moves leadership by `how`; returns, for new connections and the kept one, the time without a 200 in milliseconds.
fn measure_move(ns: &str, traffic: &Traffic, how: impl Fn(&str)) -> [u128; 2] {
    let leader = holder(&ready(ns, "counter", &[]));
    within(60, "the Service to reach the leader", || {
        let recent = traffic.answers(now() - 300);
        let by_leader =
            |kept| recent.iter().any(|answer| answer.kept == kept && answer.pod.as_deref() == Some(&leader));
        (by_leader(false) && by_leader(true)).then_some(())
    });
    let start = now();
    how(&leader);
    let successor = within(90, "the successor to answer both clients", || {
        let group = get(node(), ns, "electiongroup/counter")?;
        let successor = group["status"]["holderIdentity"].as_str().filter(|holder| *holder != leader)?.to_owned();
        let answers = traffic.answers(start);
        let by_successor =
            |kept| answers.iter().any(|answer| answer.kept == kept && answer.pod.as_deref() == Some(&successor));
        (by_successor(false) && by_successor(true)).then_some(successor)
    });
    // A moment longer, to catch late answers of the former leader.
    std::thread::sleep(Duration::from_secs(1));
    let answers = traffic.answers(start);
    let gaps = [false, true].map(|kept| {
        let of = || answers.iter().filter(move |answer| answer.kept == kept);
        let first = of().find(|answer| answer.pod.as_deref() == Some(&successor)).unwrap().at;
        let last = of().filter(|answer| answer.pod.as_deref() == Some(&leader)).map(|answer| answer.at).max();
        assert!(last.is_none_or(|last| last <= first), "the former leader answered 200 after its successor did");
        let stray: Vec<_> = of()
            .filter(|answer| answer.at > first && answer.what != "200" && !answer.what.chars().any(char::is_alphabetic))
            .collect();
        assert!(kept || stray.is_empty(), "a pod that is not the leader answered new connections: {stray:?}");
        first - last.unwrap_or(start)
    });
    println!(
        "{leader} to {successor}: no answer for {} ms on new connections, {} ms on the kept one",
        gaps[0], gaps[1]
    );
    gaps
}

fn report(what: &str, gaps: &[[u128; 2]]) {
    for (manner, index) in [("new connections", 0), ("a kept connection", 1)] {
        let mut of: Vec<u128> = gaps.iter().map(|gap| gap[index]).collect();
        of.sort_unstable();
        println!("{what}, {manner}: p50 {} ms, max {} ms, n {}", of[of.len() / 2], of[of.len() - 1], of.len());
    }
}

#[test]
fn service_traffic_reaches_only_the_leader() {
    load(PYTHON);
    let ns = namespace("service");
    let sample = root().join("deploy/samples/service.yaml");
    kubectl(node(), &["apply", "-n", &ns, "-f", sample.to_str().unwrap()]);
    ready(&ns, "counter", &[]);
    let service = get(node(), &ns, "service/counter-leader").unwrap();
    let address = format!("{}:80", service["spec"]["clusterIP"].as_str().unwrap());
    let traffic = Traffic::to(&address);

    let handovers: Vec<_> = (0..rounds(3))
        .map(|_| {
            measure_move(&ns, &traffic, |_| {
                let at = format!("k8sensus.dev/step-down-requested-at={}", now());
                kubectl(node(), &["annotate", "--overwrite", "-n", &ns, "electiongroup/counter", &at]);
            })
        })
        .collect();
    report("handover", &handovers);

    let deletions: Vec<_> = (0..rounds(2))
        .map(|_| {
            measure_move(&ns, &traffic, |leader| {
                kubectl(node(), &["delete", "-n", &ns, "pod", leader, "--wait=false"]);
            })
        })
        .collect();
    report("deletion of the leader's pod", &deletions);

    println!("crashes: each waits until the Lease expires, 15 s");
    let start = Instant::now();
    let crashes: Vec<_> = (0..rounds(1))
        .map(|_| {
            measure_move(&ns, &traffic, |leader| {
                assert!(node().signal_pod(&uid(&ns, leader), Signal::KILL.as_raw()).unwrap() >= 2);
            })
        })
        .collect();
    println!("{:.0} s", start.elapsed().as_secs_f64());
    report("crash", &crashes);
}
