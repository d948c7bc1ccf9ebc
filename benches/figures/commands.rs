//! The time from the kill of a command to its successor.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use k8sensus_local::{Cluster, Profile, product_program};

use super::Error;

/// Kills leaders' commands; returns the times until the successor's command runs. The candidates are processes on this
/// machine, because a kubelet would back off.
pub fn commands_killed(cluster: &Cluster, n: usize) -> Result<Vec<Duration>, Error> {
    let program = product_program("k8sensus", Profile::Dist)?;
    let mut times = Vec::new();
    let mut leader = Candidate::start(&program, cluster, 0)?;
    leader.wait_for("started /bin/sleep")?;
    for i in 1..=n {
        let mut standby = Candidate::start(&program, cluster, i)?;
        standby.wait_for("leader is ")?;
        let children = format!("/proc/{0}/task/{0}/children", leader.child.id());
        let command = std::fs::read_to_string(children)?.trim().parse().map(rustix::process::Pid::from_raw)?;
        let start = Instant::now();
        rustix::process::kill_process(command.ok_or("no command")?, rustix::process::Signal::KILL)?;
        times.push(standby.wait_for("started /bin/sleep")?.duration_since(start));
        leader.child.wait()?;
        leader = standby;
    }
    Ok(times)
}

/// A candidate with its log. Killed when dropped, and its command with it.
struct Candidate {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Candidate {
    fn start(program: &Path, cluster: &Cluster, number: usize) -> Result<Self, Error> {
        let mut child = Command::new(program)
            .args(["exec", "--lease-name=commands-killed", &format!("--identity=candidate-{number}"), "--"])
            .args(["/bin/sleep", "1000"])
            .env("KUBECONFIG", cluster.kubeconfig())
            .stderr(Stdio::piped())
            .spawn()?;
        let log = BufReader::new(child.stderr.take().ok_or("no log")?);
        Ok(Self { child, log })
    }

    /// Waits until the log contains `text`; returns the time.
    fn wait_for(&mut self, text: &str) -> Result<Instant, Error> {
        let mut line = String::new();
        while self.log.read_line(&mut line)? > 0 {
            if line.contains(text) {
                return Ok(Instant::now());
            }
            line.clear();
        }
        Err(format!("the candidate ended before it logged {text:?}").into())
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
