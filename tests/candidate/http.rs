//! HTTP requests to candidates, and sidecars for them.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use k8sensus_local::Cluster;
use serde_json::Value;

use crate::support::{Program, candidate_command, within};

/// The response to a request.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
    /// When the request was sent.
    pub sent: Instant,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Returns the token and the end of the promise, if the answer contains one.
    pub fn promise(&self) -> Option<(String, Instant)> {
        let body = self.json();
        let valid_for = Duration::from_secs_f64(body["validForSeconds"].as_f64().unwrap());
        let token = body["fencingToken"].as_str().map(str::to_owned);
        assert_eq!(body["is_leader"], token.is_some(), "{body}");
        assert_eq!(!valid_for.is_zero(), token.is_some(), "{body}");
        Some((token?, self.sent + valid_for))
    }
}

/// Sends `request` as it is and reads to the end.
pub fn exchange(to: SocketAddr, request: &[u8]) -> io::Result<Answer> {
    let sent = Instant::now();
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request)?;
    Ok(Answer { sent, ..read_answer(&mut stream)? })
}

/// Reads to the end, and counts the request as sent just now.
pub fn read_answer(stream: &mut TcpStream) -> io::Result<Answer> {
    let sent = Instant::now();
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned(), sent })
}

pub fn try_ask(to: SocketAddr, method: &str, path: &str) -> io::Result<Answer> {
    exchange(to, format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())
}

pub fn ask(to: SocketAddr, method: &str, path: &str) -> Answer {
    try_ask(to, method, path).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

pub fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Returns an address of this machine that is not its loopback.
pub fn own_address() -> IpAddr {
    // Sends nothing: the kernel only selects a route.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("198.51.100.1:9").expect("this machine has a default route");
    socket.local_addr().unwrap().ip()
}

/// A sidecar on a free port, with a short lease.
pub struct Sidecar {
    pub program: Program,
    pub at: SocketAddr,
}

impl Sidecar {
    pub fn start(cluster: &Cluster, ns: &str, pod: &str) -> Self {
        Self::from(pod, &mut Self::command(cluster, ns, pod))
    }

    pub fn command(cluster: &Cluster, ns: &str, pod: &str) -> Command {
        candidate_command(cluster, ns, "weir", pod, &["run", "--http-port=0"])
    }

    pub fn from(pod: &str, command: &mut Command) -> Self {
        let program = Program::start(pod, command);
        let port = within(10, "the sidecar to listen", || {
            let output = program.output();
            let (_, rest) = output.split_once("listening on port ")?;
            rest.lines().next().filter(|_| rest.contains('\n'))?.parse().ok()
        });
        Self { program, at: loopback(port) }
    }

    pub fn get(&self, path: &str) -> Answer {
        ask(self.at, "GET", path)
    }

    pub fn post(&self, path: &str) -> Answer {
        ask(self.at, "POST", path)
    }

    /// Waits for a promise. Asks often, so that the promise is always fresh.
    pub fn leads(&self, seconds: u64) -> (String, Instant) {
        within(seconds, "the sidecar to lead", || self.get("/").promise())
    }
}
