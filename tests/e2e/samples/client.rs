//! A client in the node's network, where Services have addresses.

use std::fs::File;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::e2e::node;

/// The timeout of a connection or a read.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a client keeps from one request to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    Nothing,
    Connection,
}

/// A response with status 200, and the times of its request.
#[derive(Clone, Debug)]
pub struct Answer {
    pub sent: Instant,
    pub received: Instant,
    pub pod: String,
    pub token: u64,
    pub count: u64,
}

pub struct Client {
    address: SocketAddr,
    keeping: Keeping,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    pub fn of(address: &str, port: u16, keeping: Keeping) -> Self {
        Self { address: SocketAddr::new(address.parse().unwrap(), port), keeping, connection: None }
    }

    /// Returns the status and the text of the response, if there is one.
    pub fn answer(&mut self, method: &str, path: &str) -> Option<(u16, String)> {
        let (status, body) = self.ask(method, path).ok()?;
        Some((status, String::from_utf8(body).ok()?))
    }

    /// Increments the counter many times a second until `enough` is set. A kept connection lasts until its server
    /// closes it. `latest` is set to the token of the last answer.
    pub fn ask_until(&mut self, enough: &AtomicBool, latest: &AtomicU64) -> Vec<Answer> {
        let mut answers = Vec::new();
        while !enough.load(Ordering::Relaxed) {
            let sent = Instant::now();
            if let Ok((200, body)) = self.ask("POST", "/") {
                let body: Value = serde_json::from_slice(&body).unwrap();
                let token = body["fencingToken"].as_str().unwrap().parse().unwrap();
                latest.store(token, Ordering::Relaxed);
                answers.push(Answer {
                    sent,
                    received: Instant::now(),
                    pod: body["pod"].as_str().unwrap().to_owned(),
                    token,
                    count: body["count"].as_u64().unwrap(),
                });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        answers
    }

    fn ask(&mut self, method: &str, path: &str) -> Result<(u16, Vec<u8>)> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                BufReader::new(stream)
            }
        };
        let request = format!("{method} {path} HTTP/1.1\r\nHost: counter\r\nContent-Length: 0\r\n\r\n");
        connection.get_mut().write_all(request.as_bytes())?;
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if connection.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_ascii_lowercase()),
            }
        }
        let invalid = || Error::new(ErrorKind::InvalidData, format!("{lines:?}"));
        let header = |name: &str| lines.iter().find_map(|line| Some(line.strip_prefix(name)?.trim()));
        let status = lines[0].split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(invalid)?;
        let length = header("content-length:").and_then(|length| length.parse().ok()).ok_or_else(invalid)?;
        let mut body = vec![0; length];
        connection.read_exact(&mut body)?;
        if self.keeping == Keeping::Connection && header("connection:") != Some("close") {
            self.connection = Some(connection);
        }
        Ok((status, body))
    }
}

/// Runs `work` in a thread in the node's network, where pods and Services are reachable.
pub fn in_the_nodes_network<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let anchor = node().instance().node.and_then(|node| node.anchor).expect("a node runs");
    let network = File::open(format!("/proc/{}/ns/net", anchor.pid)).unwrap();
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            // SAFETY: the descriptor is open, and the call changes nothing but this thread, which ends with the work.
            let entered = unsafe { libc::setns(network.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(entered, 0, "{}", Error::last_os_error());
            work()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
