//! Probes, hooks and stop signal of a container, applied to a command.

mod health;
mod probe;
mod replay;
mod signal;
mod spec;
mod stop;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Program, candidate_command, shared, within};

const SOON: Duration = Duration::from_secs(5);

/// A candidate that runs a shell script with probes and hooks. `$DIR` is the same folder for all of them.
struct App {
    program: Program,
    folder: TempDir,
    port: u16,
}

impl App {
    fn start(ns: &str, pod: &str, spec: &Value, script: &str) -> Self {
        Self::start_with(ns, pod, spec, script, &[])
    }

    /// Starts it with `more` in its environment.
    fn start_with(ns: &str, pod: &str, spec: &Value, script: &str, more: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = port();
        std::fs::write(folder.path().join("message"), "").unwrap();
        let mut command = candidate_command(shared(), ns, "weir", pod, &["exec", "--", "/bin/sh", "-c", script]);
        command
            .env("DIR", folder.path())
            .env("K8SENSUS_APP", spec.to_string())
            .env("K8SENSUS_HTTP_PORT", port.to_string())
            .env("K8SENSUS_TERMINATION_MESSAGE_PATH", folder.path().join("message"))
            .env("POD_UID", "0c7e5a52")
            .env("K8SENSUS_CONTAINER", "main")
            .envs(more.iter().copied());
        Self { program: Program::start(pod, &mut command), folder, port }
    }

    /// Returns the status and the text of a probe.
    fn ask(&self, probe: &str) -> (u16, String) {
        let mut stream =
            within(5, "the candidate to listen", || TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok());
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET /app-health/{probe} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split("\r\n\r\n").nth(1).unwrap().trim().to_owned())
    }

    /// Sends a probe, and hangs up before the answer.
    fn hang_up_on(&self, probe: &str) {
        let mut stream =
            within(5, "the candidate to listen", || TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok());
        write!(stream, "GET /app-health/{probe} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    }

    fn touch(&self, name: &str) {
        std::fs::write(self.folder.path().join(name), "").unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    /// Waits until the script or a probe has written `text` into `name`.
    fn wait_for(&self, name: &str, text: &str) {
        within(10, &format!("{text:?} in {name}, found {:?}", self.read(name)), || {
            self.read(name).contains(text).then_some(())
        });
    }
}

/// Returns a free port that stays free until the candidate listens: below the range from which the kernel allocates.
fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Each run of the tests starts at a different port, since two may run on one machine.
    let first = 10_000 + u16::try_from(std::process::id() % 200).unwrap() * 100;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(port < 32_768, "no free port from {first} on");
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}
