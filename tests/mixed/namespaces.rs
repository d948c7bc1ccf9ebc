//! The leader runs in its own network namespace, and the kernel cuts its only link. Needs root.

use std::process::Command;
use std::time::Duration;

use super::cuts::api_server;
use super::group::{ClientGo, Group, Kind, Ours, sleep};
use super::shared;
use crate::support::proxy::Proxy;
use crate::support::{Program, namespace, within};

#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Packets vanish.
    LinkDown,
    /// The kernel reports that there is no route.
    Unreachable,
}

#[test]
fn ours_stop_when_their_network_fails() {
    assert!(rustix::process::geteuid().is_root(), "run as root: network namespaces need it");
    let ns = namespace(shared(), "network");
    std::thread::scope(|scope| {
        for (from, to) in [(Ours, ClientGo), (Ours, Ours), (ClientGo, Ours)] {
            for how in [Cut::LinkDown, Cut::Unreachable] {
                let ns = &ns;
                scope.spawn(move || cut(ns, from, to, how));
            }
        }
    });
}

fn cut(ns: &str, from: Kind, to: Kind, how: Cut) {
    let case = format!("{from:?} {how:?}, then {to:?}");
    let group = Group::new(shared(), ns, case.to_lowercase().replace([',', ' '], ""));
    let network = Network::new();
    // The API server listens on loopback only.
    let proxy = Proxy::listen(format!("{}:0", network.host).parse().unwrap(), api_server(shared()));
    let server = format!("https://{}", proxy.address());
    let mut old = group.start_inside(network.anchor.pid(), &server, from, "otter");
    old.wait_until_at_work();
    let mut new = group.start(to, "heron");
    sleep(2.0);
    network.cut(how);
    new.wait_until_at_work();
    sleep(4.0);
    assert!(!old.at_work(), "{case}: still at work after two lease durations without a network");
    network.mend(how);
    sleep(2.5);
    new.wait_until_at_work();
    old.terminate();
    new.terminate();
    group.check(&case);
}

/// A network namespace and its pair of interfaces. Both vanish with the last process in it.
struct Network {
    anchor: Program,
    interface: String,
    host: String,
}

impl Network {
    fn new() -> Self {
        let anchor = Program::start("network", Command::new("unshare").args(["--net", "sleep", "infinity"]));
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let its = format!("/proc/{}/ns/net", anchor.pid());
        within(10, "the namespace", || std::fs::read_link(&its).is_ok_and(|its| its != own).then_some(()));
        // 198.18.0.0/15 is reserved for benchmarks within one network (RFC 2544).
        let first = std::process::id();
        let number = (0..=u8::MAX).map(|step| first.wrapping_add(step.into()) % 256).find(|number| {
            let interface = format!("k8smixed{number}");
            let pid = anchor.pid().to_string();
            let add = ["link", "add", &interface, "type", "veth", "peer", "name", "eth0", "netns", &pid];
            // If two tests choose the same number at once, the kernel refuses one of them.
            Command::new("ip").args(add).output().unwrap().status.success()
        });
        let number = number.expect("of 256 networks, one is free");
        let network = Self { anchor, interface: format!("k8smixed{number}"), host: format!("198.18.{number}.1") };
        ip(&["address", "add", &format!("{}/30", network.host), "dev", &network.interface]);
        ip(&["link", "set", &network.interface, "up"]);
        network.ip_inside(&["address", "add", &format!("198.18.{number}.2/30"), "dev", "eth0"]);
        network.ip_inside(&["link", "set", "eth0", "up"]);
        network
    }

    fn cut(&self, how: Cut) {
        match how {
            Cut::LinkDown => ip(&["link", "set", &self.interface, "down"]),
            Cut::Unreachable => self.ip_inside(&["route", "add", "unreachable", &self.host]),
        }
    }

    fn mend(&self, how: Cut) {
        match how {
            Cut::LinkDown => ip(&["link", "set", &self.interface, "up"]),
            Cut::Unreachable => self.ip_inside(&["route", "delete", "unreachable", &self.host]),
        }
    }

    fn ip_inside(&self, arguments: &[&str]) {
        let netns = format!("--net=/proc/{}/ns/net", self.anchor.pid());
        run(Command::new("nsenter").arg(netns).arg("ip").args(arguments));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", &self.interface]).output();
        self.anchor.signal(rustix::process::Signal::KILL);
        self.anchor.wait(Duration::from_secs(10));
    }
}

fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
