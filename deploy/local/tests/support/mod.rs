//! Shared test support.

#![allow(
    dead_code,
    clippy::disallowed_methods,
    reason = "each test program uses only a part of this, and waits for real processes in real time"
)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use k8sensus_local::{Component, Instance, Process, down, instances, sweep};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_k8sensus-local");

/// Runs a command, which must succeed, and returns its output.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Polls until `poll` returns a value, and returns it.
pub fn within<T>(limit: Duration, mut poll: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Returns the number of requests in the audit log with this verb, for an object of this name.
pub fn audited(log: &Path, verb: &str, name: &str) -> usize {
    let text = std::fs::read_to_string(log).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    events.filter(|event| event["verb"] == verb && event["objectRef"]["name"] == name).count()
}

/// Runs the named test in another process, which owns an instance. Kills that process while it starts further
/// components, waits until all processes have ended, and sweeps. Returns the record of the instance.
pub fn killed_owner(test: &str) -> Instance {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let process = Process::of(owner.id().cast_signed()).unwrap();
    let started = |found: &Instance| found.owner == Some(process) && found.running(Component::ApiServer).is_some();
    let record = within(Duration::from_secs(60), || {
        instances().into_iter().find_map(|(_, found)| found.ok().flatten().filter(started))
    });
    owner.kill().unwrap();
    owner.wait().unwrap();
    within(Duration::from_secs(10), || record.processes.values().all(|process| !process.alive()).then_some(()));
    sweep();
    record
}

/// The program with its own instance, which is taken down on drop.
pub struct Program {
    name: String,
}

impl Program {
    pub fn new(purpose: &str) -> Self {
        Self { name: format!("{purpose}-{}", std::process::id()) }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(["--name", &self.name]).args(arguments);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> String {
        run(&mut self.command(arguments))
    }

    pub fn instance(&self) -> Instance {
        self.try_instance().unwrap()
    }

    pub fn try_instance(&self) -> Option<Instance> {
        instances().into_iter().find(|(name, _)| *name == self.name)?.1.ok().flatten()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = down(&self.name);
    }
}
