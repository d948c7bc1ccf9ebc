use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{LIMIT, Stage};
use crate::support::{Program, within};

struct Replica {
    program: Program,
    address: String,
}

impl Replica {
    fn start(stage: &Stage, pod: &str) -> Self {
        let program = stage.replica(pod, &["127.0.0.1:0"]);
        let address = within(60, "an address", || {
            let output = program.output();
            output.lines().find_map(|line| line.strip_prefix("listening on ").map(str::to_owned))
        });
        Self { program, address }
    }

    fn begin(&self, head: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        write!(stream, "{head} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address).unwrap();
        stream
    }

    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = self.begin(&format!("GET {path}"));
        stream.write_all(b"\r\n").unwrap();
        answer(&mut BufReader::new(stream))
    }

    fn order(&self, what: &str) -> (u16, String) {
        let mut stream = self.begin("POST /orders");
        write!(stream, "content-length: {}\r\n\r\n{what}", what.len()).unwrap();
        answer(&mut BufReader::new(stream))
    }
}

/// Reads a response; returns its status and body.
fn answer(stream: &mut BufReader<TcpStream>) -> (u16, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.trim_end().to_owned())
}

fn token(answer: &(u16, String)) -> u64 {
    assert_eq!(answer.0, 200, "{answer:?}");
    answer.1.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn leader_finishes_open_orders_before_handing_over() {
    let stage = Stage::new("service");
    let mut otter = Replica::start(&stage, "otter");
    within(60, "a leader", || (otter.get("/leader").0 == 200).then_some(()));
    let mut heron = Replica::start(&stage, "heron");
    let refused = (503, "otter leads".to_owned());
    within(60, "the holder to be known", || (heron.get("/leader") == refused).then_some(()));

    for (replica, pod) in [(&otter, "otter"), (&heron, "heron")] {
        assert_eq!(replica.get("/"), (200, format!("served by {pod}")));
        assert_eq!(replica.get("/healthz"), (200, "ok".to_owned()));
    }
    assert_eq!(otter.get("/leader"), (200, "otter".to_owned()));
    let first = token(&otter.order("two loaves"));
    assert_eq!(heron.order("two loaves"), refused);

    // An order that is half sent when its replica gets SIGTERM. "100 Continue" arrives when the handler reads the body.
    let mut stream = otter.begin("POST /orders");
    stream.write_all(b"content-length: 10\r\nexpect: 100-continue\r\n\r\n").unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 100"), "{line}");
    reader.read_line(&mut line).unwrap();
    stream.write_all(b"three ").unwrap();
    otter.program.signal(rustix::process::Signal::TERM);
    otter.program.wait_for("finishing open requests", LIMIT);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        assert_eq!(heron.order("two loaves"), refused);
        assert_eq!(stage.holder(), "otter", "released while an order was being taken");
    }
    stream.write_all(b"pies").unwrap();
    let late = answer(&mut reader);
    assert_eq!(token(&late), first, "{late:?}");
    assert!(late.1.starts_with("three pies: taken by otter"), "{late:?}");
    assert!(otter.program.wait(LIMIT).success());

    within(60, "the successor", || (heron.get("/leader").0 == 200).then_some(()));
    let next = within(60, "an order at the successor", || Some(heron.order("two loaves")).filter(|a| a.0 == 200));
    assert!(token(&next) > first, "the token must rise: {next:?}");
    assert!(heron.program.terminate(LIMIT).success());
    assert_eq!(stage.holder(), "", "the Lease must be released");
    stage.assert_nothing_was_forbidden();
}
