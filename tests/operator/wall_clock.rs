//! The wall clock of a candidate or of the operator jumps by an hour while a group is led. That must have no effect:
//! the election measures durations by a clock that cannot be set.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Program, apply, candidate_command, condition, control_plane, get, group, namespace, operator, within,
};

/// Overrides the C library's clock and adds the seconds in a file. It is preloaded, since the programs that `cargo
/// test` builds are linked dynamically.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    int (*real)(clockid_t, struct timespec *) = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (clock == CLOCK_REALTIME) {
        FILE *file = fopen(getenv("WALL_CLOCK"), "r");
        long seconds = 0;
        if (file && fscanf(file, "%ld", &seconds) == 1) now->tv_sec += seconds;
        if (file) fclose(file);
    }
    return result;
}
"#;
const HOUR: i64 = 3600;
/// A little more than two lease durations.
const LOOKED_AT: Duration = Duration::from_secs(7);

/// A folder with the library, and a file for each clock.
struct Clocks(TempDir);

impl Clocks {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("clock.c");
        fs::write(&source, CLOCK).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(folder.path().join("clock.so")).arg(source).arg("-ldl");
        let output = compiler.output().unwrap();
        assert!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
        Self(folder)
    }

    fn file(&self, of: &str) -> PathBuf {
        self.0.path().join(of)
    }

    fn set(&self, of: &str, seconds: i64) {
        // Renamed in one step, so that no process reads half a number.
        let new = self.file("new");
        fs::write(&new, seconds.to_string()).unwrap();
        fs::rename(new, self.file(of)).unwrap();
    }

    fn environment(&self, of: &str) -> [(&'static str, PathBuf); 2] {
        self.set(of, 0);
        [("LD_PRELOAD", self.file("clock.so")), ("WALL_CLOCK", self.file(of))]
    }
}

fn seconds(time: &Value) -> i64 {
    time.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second()
}

#[test]
fn wall_clock_jump_changes_no_leader_and_delays_no_successor() {
    let cluster = control_plane();
    let clocks = Clocks::new();
    let environment = clocks.environment("keeper");
    let environment: Vec<_> = environment.iter().map(|(name, path)| (*name, path.to_str().unwrap())).collect();
    let keeper = operator(&cluster, "keeper", &environment);
    keeper.wait_for("starting to reconcile", Duration::from_secs(20));
    let ns = namespace(&cluster, "clocks");
    apply(&cluster, &ns, &group("kestrel", json!({}))).unwrap();
    within(20, "the lease", || get(&cluster, &ns, "lease/kestrel"));
    let candidate = |pod: &str| {
        let mut command = candidate_command(&cluster, &ns, "kestrel", pod, &["--create-lease=false"]);
        Program::start(pod, command.envs(clocks.environment(pod)))
    };
    let lease = || get(&cluster, &ns, "lease/kestrel").unwrap()["spec"].clone();
    let leader = candidate("otter");
    within(20, "otter to lead", || (lease()["holderIdentity"] == "otter").then_some(()));
    let heron = candidate("heron");
    heron.wait_for("New leader is: otter", Duration::from_secs(5));
    let shown = || get(&cluster, &ns, "electiongroup/kestrel").unwrap()["status"]["holderIdentity"].clone();
    within(20, "the status to name otter", || (shown() == "otter").then_some(()));

    let before = lease();
    for (whose, step) in
        [("otter", HOUR), ("otter", -HOUR), ("heron", HOUR), ("heron", -HOUR), ("keeper", HOUR), ("keeper", -HOUR)]
    {
        clocks.set(whose, step);
        let start = Instant::now();
        while start.elapsed() < LOOKED_AT {
            let now = lease();
            for field in ["holderIdentity", "leaseTransitions", "acquireTime"] {
                assert_eq!(now[field], before[field], "{whose}'s clock was set by {step} s");
            }
            assert_eq!(shown(), "otter", "{whose}'s clock was set by {step} s");
            thread::sleep(Duration::from_millis(200));
        }
        if whose == "otter" {
            // The Lease shows that its clock was really set.
            let real = jiff::Timestamp::now().as_second();
            let shown = seconds(&lease()["renewTime"]) - real;
            assert!((shown - step).abs() < 60, "the Lease shows a clock that is {shown} s ahead, expected {step}");
        }
        clocks.set(whose, 0);
    }

    for (whose, step) in [("heron", HOUR), ("otter", -HOUR), ("keeper", HOUR)] {
        clocks.set(whose, step);
    }
    leader.signal(Signal::KILL);
    let killed = Instant::now();
    within(15, "heron to succeed", || (lease()["holderIdentity"] == "heron").then_some(()));
    let elapsed = killed.elapsed();
    println!("heron led {:.1} s after otter was killed, with clocks that are two hours apart", elapsed.as_secs_f64());
    // The lease, the retry period with its jitter, and the time of a busy machine.
    assert!(elapsed < Duration::from_secs(9), "{elapsed:?}");
    within(20, "the status to name heron", || (shown() == "heron").then_some(()));
    let group = get(&cluster, &ns, "electiongroup/kestrel").unwrap();
    assert_eq!(group["status"]["leaseTransitions"], lease()["leaseTransitions"], "{}", condition(&group, "Ready"));
}
