//! Which peers count as inside the pod, and which connections are reserved.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use k8sensus::campaign::{Campaign, Metrics};
use k8sensus_candidate::serve::{Answers, AppHealth, ProbeKind, Server};
use tokio::net::TcpSocket;

use super::http::{Answer, Sidecar, ask, exchange, loopback, own_address, read_answer};
use crate::support::{namespace, shared};

const CONTROL: [(&str, &str); 5] =
    [("GET", "/"), ("GET", "/leader"), ("GET", "/replica"), ("POST", "/step-down"), ("POST", "/stopped")];

/// Opens a connection from the address `from`.
fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let connected = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(to).await.unwrap().into_std().unwrap()
    });
    connected.set_nonblocking(false).unwrap();
    connected.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    connected
}

fn ask_from(from: Ipv4Addr, to: SocketAddr, method: &str, path: &str) -> std::io::Result<Answer> {
    let mut stream = connect(from, to);
    stream.write_all(format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())?;
    read_answer(&mut stream)
}

#[test]
fn a_connection_from_loopback_to_the_pod_address_is_outside() {
    let ns = namespace(shared(), "mesh");
    let otter = Sidecar::start(shared(), &ns, "otter");
    otter.leads(10);
    // Envoy connects like this in an Istio sidecar, on behalf of any peer in the mesh.
    let envoy = Ipv4Addr::new(127, 0, 0, 6);
    let outside = SocketAddr::new(own_address(), otter.at.port());
    for (method, path) in CONTROL {
        let answer = ask_from(envoy, outside, method, path).unwrap();
        assert!(answer.status == 403 && answer.body.contains("only within the pod"), "{method} {path}: {answer:?}");
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(ask_from(envoy, outside, "GET", path).unwrap().status, 200, "{path}");
    }
    assert_eq!(otter.get("/leader").status, 200, "still the leader");
}

#[test]
fn requests_of_web_pages_are_refused_with_the_reason() {
    let ns = namespace(shared(), "web-page");
    let otter = Sidecar::start(shared(), &ns, "otter");
    otter.leads(10);
    let send = |method: &str, path: &str, headers: &str| {
        exchange(otter.at, format!("{method} {path} HTTP/1.1\r\n{headers}\r\n").as_bytes()).unwrap()
    };
    for path in ["/step-down", "/stopped"] {
        for (header, name) in [
            ("Origin: http://localhost:4040\r\n", "origin"),
            ("Origin: null\r\n", "origin"),
            ("Sec-Fetch-Site: same-origin\r\n", "sec-fetch-site"),
        ] {
            let answer = send("POST", path, &format!("host: localhost\r\n{header}"));
            assert!(answer.status == 403 && answer.body.contains(name), "{path}, {header}: {answer:?}");
        }
    }
    for (method, path) in CONTROL {
        for headers in ["host: billing.example:4040\r\n", "host: localhost\r\nhost: billing.example\r\n"] {
            let answer = send(method, path, headers);
            assert!(answer.status == 403 && answer.body.contains("billing.example"), "{method} {path}: {answer:?}");
        }
        let absolute = exchange(otter.at, format!("{method} http://billing.example{path} HTTP/1.1\r\n\r\n").as_bytes());
        assert_eq!(absolute.unwrap().status, 403, "{method} {path}");
    }
    assert_eq!(send("GET", "/livez", "host: billing.example\r\n").status, 200, "health is open to all");
    for host in ["localhost:4040", "127.0.0.1", "[::1]:4040"] {
        assert_eq!(send("GET", "/leader", &format!("host: {host}\r\n")).status, 200, "{host}; still the leader");
    }
    assert_eq!(exchange(otter.at, b"GET /leader HTTP/1.0\r\n\r\n").unwrap().status, 200, "no host at all");
}

/// An app whose liveness probe never ends, and which is ready.
struct Slow;

impl AppHealth for Slow {
    fn check(&self, probe: ProbeKind) -> BoxFuture<'static, Result<String, String>> {
        match probe {
            ProbeKind::Liveness => std::future::pending().boxed(),
            ProbeKind::Readiness => futures::future::ok("ready".to_owned()).boxed(),
        }
    }
}

#[test]
fn other_peers_cannot_use_up_the_connections_of_the_node() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _inside = runtime.enter();
    let config = kube::Config::new("http://127.0.0.1:9".parse().unwrap());
    let kubelet = Ipv4Addr::new(127, 0, 3, 1);
    let server = Server::bind(0).unwrap().keep_places_for(vec![IpAddr::from(kubelet)]);
    let outside = SocketAddr::new(own_address(), server.port().unwrap());
    let metrics = Metrics::default();
    let campaign = Campaign::builder("shop", "weir").identity("otter").metrics(metrics.clone()).start(&config).unwrap();
    let _serving = server.serve(Answers::beside_command(Arc::new(campaign), Arc::new(Slow), &metrics));
    let connections: Vec<TcpStream> = (1..=64)
        .map(|peer| {
            let mut stream = connect(Ipv4Addr::new(127, 0, 4, peer), outside);
            stream.write_all(b"GET /app-health/liveness HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let answer = ask_from(kubelet, outside, "GET", "/livez").expect("the node has reserved connections");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(ask(loopback(outside.port()), "GET", "/livez").status, 200, "and so does the pod");
    drop(connections);
}
