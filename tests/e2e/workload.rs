//! A program that records its work in a folder of the node, and the checks of these records.
//!
//! `support::overlap` evaluates the stamps, as in every test of the election. Events record what reached the program
//! from outside: the preStop hook, the stop signal, its end.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use k8sensus_local::Cluster;
use serde_json::{Value, json};

use super::images::{BUSYBOX, PYTHON, load_on};
use crate::support::group;
use crate::support::overlap::{Report, Stretch};

/// Works until SIGTERM, then for `STOP_SECONDS` more. `/proc/uptime` has hundredths of a second of CLOCK_BOOTTIME,
/// which is CLOCK_MONOTONIC on a machine that was never suspended.
const SHELL: &str = r#"
now() { read up rest < /proc/uptime; echo "${up%.*}${up#*.}0000000"; }
event() { echo "$(now) $POD_NAME $1" >> /work/events; }
stamps=/work/stamps-$POD_NAME-$K8SENSUS_FENCING_TOKEN
left=-1
trap 'event signal; left=$((STOP_SECONDS * 20))' TERM
echo "$(now) $POD_NAME start" >> $stamps
event start
while [ $left -ne 0 ]; do
  echo "$(now) $POD_NAME $K8SENSUS_FENCING_TOKEN" >> $stamps
  usleep 50000
  [ $left -lt 0 ] || left=$((left - 1))
done
echo "$(now) $POD_NAME stop" >> $stamps
event end
"#;

/// Polls the sidecar and works while its promise holds. After SIGTERM it finishes its work for `STOP_SECONDS`, as long
/// as promises hold.
const PYTHON_SIDECAR: &str = r#"
import json, os, signal, time
from http.client import HTTPConnection, HTTPException

ME, PORT = os.environ["POD_NAME"], int(os.environ["K8SENSUS_HTTP_PORT"])

def now():
    return time.clock_gettime(time.CLOCK_BOOTTIME)

def write(name, what):
    line = f"{time.clock_gettime_ns(time.CLOCK_MONOTONIC)} {ME} {what}\n"
    with open(f"/work/{name}", "a") as file:
        file.write(line)

def ask(method, path):
    connection = HTTPConnection("localhost", PORT, timeout=1)
    try:
        connection.request(method, path)
        return json.loads(connection.getresponse().read())
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()

signaled = None

def on_signal(*_):
    global signaled
    signaled = now()
    write("events", "signal")

signal.signal(signal.SIGTERM, on_signal)
token, until, sent_at = None, 0.0, 0.0
while signaled is None or now() < signaled + int(os.environ["STOP_SECONDS"]):
    if now() >= sent_at + 0.3:
        sent_at = now()
        answer = ask("GET", "/")
        if answer and answer["is_leader"]:
            if answer["fencingToken"] != token:
                token = answer["fencingToken"]
                write(f"stamps-{ME}-{token}", "start")
            until = sent_at + answer["validForSeconds"]
    if token and now() < until:
        write(f"stamps-{ME}-{token}", token)
    elif token:
        write(f"stamps-{ME}-{token}", "stop")
        ask("POST", f"/stopped?fencingToken={token}")
        token = None
    time.sleep(0.05)
if token:
    write(f"stamps-{ME}-{token}", "stop")
    ask("POST", f"/stopped?fencingToken={token}")
write("events", "end")
"#;

/// The way in which the program learns that it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Exec,
    Sidecar,
}

/// A group of two whose program writes into the test's own folder, which is removed with the test.
pub struct Workload {
    pub mode: Mode,
    folder: tempfile::TempDir,
    stop_seconds: u32,
    grace_seconds: u32,
    /// The time from the thaw of a leader until its candidate must have ended its program. No lease can prevent work in
    /// between; that work has the old token, so a fenced resource refuses it.
    pub woken: OnceLock<Range<Duration>>,
    /// The time at which the cluster's data was restored from older data: later tokens may be lower than earlier ones.
    pub rewound: OnceLock<Duration>,
}

/// Something that reached the program of one pod, with its time by CLOCK_MONOTONIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: Duration,
    pub pod: String,
    pub what: String,
}

impl Workload {
    /// Returns a workload whose program takes `stop_seconds` to end after the stop signal, of `grace_seconds` in total.
    pub fn new(mode: Mode, stop_seconds: u32, grace_seconds: u32) -> Self {
        let folder = tempfile::Builder::new().prefix("k8sensus-work-").tempdir().unwrap();
        // Writable for any user that the program runs as.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        Self { mode, folder, stop_seconds, grace_seconds, woken: OnceLock::new(), rewound: OnceLock::new() }
    }

    /// Loads the program's image onto a node that does not have it yet.
    pub fn load_on(&self, node: &Cluster) {
        load_on(node, self.image());
    }

    pub fn image(&self) -> &'static str {
        if self.mode == Mode::Exec { BUSYBOX } else { PYTHON }
    }

    /// Returns the group; `more` is added to its spec.
    pub fn group(&self, name: &str, more: Value) -> Value {
        let event = r#"read up rest < /proc/uptime; echo "${up%.*}${up#*.}0000000 $POD_NAME hook" >> /work/events"#;
        let command = match self.mode {
            Mode::Exec => json!(["/bin/sh", "-c", SHELL]),
            Mode::Sidecar => json!(["python3", "-u", "-c", PYTHON_SIDECAR]),
        };
        let container = json!({
            "name": "app",
            "image": self.image(),
            "command": command,
            "env": [{ "name": "STOP_SECONDS", "value": self.stop_seconds.to_string() }],
            "volumeMounts": [{ "name": "work", "mountPath": "/work" }],
            "lifecycle": { "preStop": { "exec": { "command": ["/bin/sh", "-c", event] } } },
        });
        let template = json!({ "spec": {
            "terminationGracePeriodSeconds": self.grace_seconds,
            "containers": [container],
            "volumes": [{ "name": "work", "hostPath": { "path": self.folder.path() } }],
        } });
        let mode = if self.mode == Mode::Exec { "Exec" } else { "Sidecar" };
        let mut group = group(
            name,
            json!({ "candidate": { "mode": mode }, "replicas": 2, "minReadySeconds": 1, "template": template }),
        );
        let spec = group["spec"].as_object_mut().unwrap();
        // With the default lease, so that no leader loses it on a busy machine.
        spec.retain(|field, _| !["image", "command", "election"].contains(&field.as_str()));
        spec.extend(more.as_object().unwrap().clone());
        group
    }

    /// Returns the events of all programs, in order.
    pub fn events(&self) -> Vec<Event> {
        let text = fs::read_to_string(self.folder.path().join("events")).unwrap_or_default();
        let event = |line: &str| {
            let mut fields = line.split(' ');
            let (Some(Ok(at)), Some(pod), Some(what)) = (fields.next().map(str::parse), fields.next(), fields.next())
            else {
                panic!("no event: {line:?}");
            };
            Event { at: Duration::from_nanos(at), pod: pod.to_owned(), what: what.to_owned() }
        };
        text.lines().map(event).collect()
    }

    /// Returns whether the program of `pod` has ended: after its hook, then its stop signal, with its full time to
    /// stop.
    ///
    /// # Panics
    /// If it ended in any other way.
    pub fn ended_gracefully(&self, pod: &str) -> bool {
        let events = self.events_of(pod);
        let at = |what: &str| events.iter().find(|event| event.what == what).map(|event| event.at);
        let Some(end) = at("end") else { return false };
        let (hook, signal) = (at("hook"), at("signal"));
        assert!(hook.is_some() && signal.is_some() && hook <= signal, "{events:?}");
        let stop_time = end - signal.unwrap_or_default();
        // Stamps have hundredths of a second.
        assert!(
            stop_time + Duration::from_millis(300) >= Duration::from_secs(self.stop_seconds.into()),
            "cut short: {events:?}"
        );
        true
    }

    /// Returns the events of the program of `pod`, in order.
    pub fn events_of(&self, pod: &str) -> Vec<Event> {
        self.events().into_iter().filter(|event| event.pod == pod).collect()
    }

    /// Returns the pods whose program has worked.
    pub fn workers(&self) -> BTreeSet<String> {
        self.report().stretches.into_iter().map(|stretch| stretch.identity).collect()
    }

    /// Returns the report without the violations that a thaw or a restore explains.
    pub fn checked_report(&self) -> Report {
        let mut report = self.report();
        if let Some(woken) = self.woken.get() {
            let is_refused = |late: &Stretch, other: &Stretch| {
                late.token < other.token && woken.contains(&late.from) && woken.contains(&late.until)
            };
            report.overlaps.retain(|overlap| !is_refused(&overlap.old, &overlap.new));
            report.stale.retain(|stale| !is_refused(&stale.late, &stale.higher));
        }
        if let Some(&rewound) = self.rewound.get() {
            report.stale.retain(|stale| stale.late.from < rewound || stale.higher.from >= rewound);
        }
        report
    }

    /// Returns the work of all programs.
    pub fn report(&self) -> Report {
        let files: Vec<PathBuf> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("stamps-")))
            .collect();
        Report::of(&files)
    }
}

impl Drop for Workload {
    /// Checks in every test that at most one program works at a time and that tokens rise.
    fn drop(&mut self) {
        let report = self.checked_report();
        if !std::thread::panicking() {
            assert!(report.overlaps.is_empty() && report.stale.is_empty(), "{report}");
        }
    }
}
