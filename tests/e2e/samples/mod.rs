//! `deploy/samples`, applied unchanged. The sample of the original program has its own file.

mod client;

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::images::{self, BUSYBOX, CONTROLLER, POSTGRES, PYTHON};
use super::{Namespace, apply_sample, holder, logs, namespace, node, observer, ready, sample_path, uid};
use crate::support::{Program, get, kubectl, root, shared, within};
use client::{Answer, Client, Keeping, in_the_nodes_network};

fn apply(ns: &str, sample: &str) {
    kubectl(node(), &["apply", "-n", ns, "-f", sample_path(sample).to_str().unwrap()]);
}

/// Creates a namespace that enforces the Pod Security Standard `restricted`.
fn restricted(name: &str) -> Namespace {
    let ns = namespace(name);
    kubectl(node(), &["label", "namespace", &ns, "pod-security.kubernetes.io/enforce=restricted"]);
    ns
}

fn delete(ns: &str, pod: &str) {
    kubectl(node(), &["delete", "-n", ns, "pod", pod, "--wait=false"]);
}

fn follow(ns: &str, pod: &str) -> Program {
    Program::start(pod, node().kubectl().args(["logs", "--follow", "-n", ns, pod]))
}

/// Returns the number after the last occurrence of `prefix` in a log.
fn token(log: &str, prefix: &str) -> Option<u64> {
    log.rsplit_once(prefix)?.1.split_whitespace().next()?.parse().ok()
}

#[test]
fn api_server_accepts_every_sample() {
    for entry in std::fs::read_dir(sample_path("")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() || path.extension().is_some_and(|kind| kind == "yaml") {
            kubectl(shared(), &["apply", "--dry-run=server", "-f", path.to_str().unwrap()]);
        }
    }
}

#[test]
fn fenced_sample_and_example_have_the_same_tables() {
    let sample = std::fs::read_to_string(sample_path("fenced.yaml")).unwrap();
    let schema = std::fs::read_to_string(root().join("examples/fenced/schema.sql")).unwrap();
    let indented: String =
        schema.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") }).collect();
    assert!(sample.contains(&indented), "expected in fenced.yaml:\n{indented}");
}

#[test]
fn hello_sample_runs_its_command_in_one_of_three_pods() {
    let _sample = apply_sample("hello.yaml");
    let ns = "default";
    let group = ready(ns, "hello", &[]);
    assert_eq!(group["status"]["readyReplicas"], 3);
    let first = holder(&group);
    let list = ["get", "pods", "-n", ns, "-l", "k8sensus.dev/group=hello", "-o", "jsonpath={.items[*].metadata.name}"];
    let names = kubectl(node(), &list);
    let lines = |pod: &str| logs(ns, pod).matches("k8sensus is running sample task.").count();
    within(30, "the command to run on the leader", || (lines(&first) > 0).then_some(()));
    let running: Vec<_> = names.split(' ').filter(|pod| lines(pod) > 0).collect();
    assert_eq!((names.split(' ').count(), running), (3, vec![first.as_str()]));
    delete(ns, &first);
    let second = holder(&ready(ns, "hello", &[&first]));
    within(30, "the command to run on its successor", || (lines(&second) > 0).then_some(()));
    observer::judge(ns);
}

#[test]
fn shell_worker_finishes_its_item_before_handing_over() {
    images::load(BUSYBOX);
    let ns = restricted("worker");
    apply(&ns, "worker.yaml");
    let first = holder(&ready(&ns, "worker", &[]));
    let log = follow(&ns, &first);
    log.wait_for("has finished item 2,", Duration::from_secs(30));
    let pods = get(node(), &ns, "pods").unwrap();
    let names = pods["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["name"].as_str().unwrap());
    let standbys: Vec<_> = names.filter(|pod| *pod != first).collect();
    assert!(standbys.len() == 1 && !logs(&ns, standbys[0]).contains("begins"), "{standbys:?}");
    // The script's own probe, which the candidate runs.
    let address = get(node(), &ns, &format!("pod/{first}")).unwrap()["status"]["podIP"].as_str().unwrap().to_owned();
    let (status, body) =
        in_the_nodes_network(|| Client::of(&address, 4040, Keeping::Nothing).answer("GET", "/app-health/liveness"))
            .unwrap();
    assert_eq!((status, body.trim()), (200, "/bin/sh ended with exit code 0"));

    delete(&ns, &first);
    let second = holder(&ready(&ns, "worker", &[&first]));
    log.wait_for(&format!("{first} ends"), Duration::from_secs(10));
    let (before, after) = (log.output(), logs(&ns, &second));
    // Only the script's own lines; the candidate logs more.
    let last = before.lines().rfind(|line| line.starts_with(&first));
    assert_eq!(last, Some(&*format!("{first} ends")), "{before}");
    let tokens = [&before, &after].map(|log| token(log, "begins, fencing token ").expect(log));
    assert!(tokens[0] < tokens[1], "{tokens:?}");
    within(30, "an item of the successor", || logs(&ns, &second).contains("has finished item 2,").then_some(()));
    let successor = get(node(), &ns, &format!("pod/{second}")).unwrap();
    assert_eq!(successor["status"]["containerStatuses"][0]["restartCount"], 0);
}

#[test]
fn python_service_is_served_by_its_leader_alone() {
    images::load(PYTHON);
    let ns = restricted("counter");
    apply(&ns, "service.yaml");
    let first = holder(&ready(&ns, "counter", &[]));
    let service = get(node(), &ns, "service/counter-leader").unwrap();
    let address = service["spec"]["clusterIP"].as_str().unwrap().to_owned();

    let (enough, latest) = (AtomicBool::new(false), [AtomicU64::new(0), AtomicU64::new(0)]);
    let tokens = || latest.each_ref().map(|token| token.load(Ordering::Relaxed));
    // A connection to a pod that is gone fails only after its timeout.
    let answered_after = |before: [u64; 2]| {
        within(30, "both clients to be answered in a new term", || {
            tokens().iter().zip(before).all(|(now, before)| *now > before).then_some(())
        });
    };
    let (each, kept) = std::thread::scope(|scope| {
        // Ends the clients even if an assertion below fails.
        let _end = OnDrop(|| enough.store(true, Ordering::Relaxed));
        let ask = |keeping, latest| {
            let (address, enough) = (&address, &enough);
            scope.spawn(move || in_the_nodes_network(|| Client::of(address, 80, keeping).ask_until(enough, latest)))
        };
        let clients = [ask(Keeping::Nothing, &latest[0]), ask(Keeping::Connection, &latest[1])];
        answered_after([0, 0]);

        // The former leader keeps running, so it must close its connections.
        let before = tokens();
        let request = "k8sensus.dev/step-down-requested-at=now";
        kubectl(node(), &["annotate", "-n", &ns, "electiongroup/counter", request]);
        let second = holder(&ready(&ns, "counter", &[&first]));
        answered_after(before);
        let pod = get(node(), &ns, &format!("pod/{first}")).unwrap();
        let refused = in_the_nodes_network(|| {
            let mut client = Client::of(pod["status"]["podIP"].as_str().unwrap(), 8080, Keeping::Nothing);
            ["POST /", "GET /healthz"].map(|request| {
                let (method, path) = request.split_once(' ').unwrap();
                let (status, body) = client.answer(method, path).unwrap();
                (status, serde_json::from_str::<Value>(&body).unwrap())
            })
        });
        let body = json!({ "pod": first, "error": "this pod does not lead: connect again" });
        assert_eq!(refused, [(503, body), (200, json!({ "pod": first }))], "a standby is ready and does not serve");

        let before = tokens();
        delete(&ns, &second);
        let third = holder(&ready(&ns, "counter", &[&second]));
        answered_after(before);
        enough.store(true, Ordering::Relaxed);
        let [each, kept] = clients.map(|client| client.join().unwrap());
        for answers in [&each, &kept] {
            let leaders = leaders(answers);
            assert_eq!(leaders.values().collect::<Vec<_>>(), [&first, &second, &third], "{leaders:?}");
        }
        (each, kept)
    });
    let mut answers: Vec<Answer> = each.into_iter().chain(kept).collect();
    answers.sort_by_key(|answer| answer.sent);
    for (place, answer) in answers.iter().enumerate() {
        let known =
            answers[..place].iter().filter(|other| other.received <= answer.sent).max_by_key(|other| other.token);
        if let Some(known) = known.filter(|known| known.token > answer.token) {
            panic!("a former leader sent {answer:?}: {known:?} arrived before its request was sent");
        }
    }
}

/// Returns the pod of each token. Panics if two pods have one token or a count does not rise.
fn leaders(answers: &[Answer]) -> BTreeMap<u64, String> {
    let mut leaders = BTreeMap::new();
    let mut last: Option<&Answer> = None;
    for answer in answers {
        let pod = leaders.entry(answer.token).or_insert_with(|| answer.pod.clone());
        assert_eq!(*pod, answer.pod, "two pods have one token");
        if let Some(last) = last {
            let place = |answer: &Answer| (answer.token, answer.count);
            assert!(place(last) < place(answer), "{answer:?} came after {last:?}");
        }
        last = Some(answer);
    }
    leaders
}

#[test]
fn database_refuses_a_late_write_with_a_lower_token() {
    images::load(POSTGRES);
    let ns = restricted("fenced");
    apply(&ns, "fenced.yaml");
    let first = holder(&ready(&ns, "fenced", &[]));
    let counted_by = |pod: &str| {
        within(90, &format!("counts by {pod}"), || {
            let log = logs(&ns, pod);
            log.contains("counted to").then(|| token(&log, "begins with token ").unwrap())
        })
    };
    let earlier = counted_by(&first);
    let counter = || {
        let query = "SELECT value, written_by FROM counter WHERE name = 'fenced'";
        let psql = ["psql", "--username=postgres", "--no-align", "--tuples-only", "--command", query];
        let arguments = [&["exec", "-n", &ns, "deployment/database", "--"][..], &psql].concat();
        let output = kubectl(node(), &arguments);
        let (value, by) = output.trim().split_once('|').unwrap();
        (value.parse::<u64>().unwrap(), by.to_owned())
    };
    let (before, by) = counter();
    assert_eq!(by, first);

    delete(&ns, &first);
    let second = holder(&ready(&ns, "fenced", &[&first]));
    let later = counted_by(&second);
    assert!(earlier < later);
    let (after, by) = counter();
    assert!(after > before && by == second, "{before}, {after} by {by}");

    // The statement that the first leader would send if it woke up now.
    let late = |token: u64| -> Output {
        let script = format!(
            "PGHOST=$DATABASE_SERVICE_HOST psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --set=lease=fenced \
             --set=token={token} --set=me=late --file=/sql/count.sql"
        );
        let arguments = ["exec", "-n", &ns, &second, "--", "/bin/sh", "-c", &script];
        node().kubectl().args(arguments).output().unwrap()
    };
    let refused = late(earlier);
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && error.contains("no rows returned for \\gset"), "{refused:?}");
    let (now, by) = counter();
    assert!(now >= after && by == second, "{now} by {by}");
    // The statement itself is valid: with the current token it counts.
    let counted = late(later);
    assert!(String::from_utf8_lossy(&counted.stdout).contains("late counted to"), "{counted:?}");
    let pod = get(node(), &ns, &format!("pod/{second}")).unwrap();
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
}

#[test]
fn library_controller_and_its_successor_reconcile() {
    images::load(CONTROLLER);
    // A subject of a RoleBinding has a namespace, so the sample names one.
    let ns = "default";
    let _sample = apply_sample("controller.yaml");
    let greeted = |greeting: &str| {
        within(60, greeting, || {
            let data = get(node(), ns, "configmap/moss")?["data"].clone();
            (data["greeting"] == greeting).then(|| data["by"].as_str().unwrap().to_owned())
        })
    };
    let first = holder(&ready(ns, "controller", &[]));
    assert_eq!(greeted("Hello, Moss."), first);
    let first_uid = uid(ns, &first);
    delete(ns, &first);
    let second = holder(&ready(ns, "controller", &[&first]));
    assert_ne!(first_uid, uid(ns, &second));
    kubectl(node(), &["patch", "configmap", "moss", "-n", ns, "-p", r#"{"data":{"name":"Fern"}}"#]);
    assert_eq!(greeted("Hello, Fern."), second);
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
