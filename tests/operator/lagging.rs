//! Two API servers on one etcd. One of them is disconnected from it and shows an old state.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use k8sensus_local::{Cluster, Component};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::crashes::ANYWHERE;
use super::rest::{Ended, at_rest};
use crate::support::http_proxy::{HttpProxy, operator_for};
use crate::support::objects::Direct;
use crate::support::proxy::{Passage, Proxy};
use crate::support::{Program, control_plane, group, namespace, within};

/// How long the second API server lags: longer than two lease durations of the tests.
const LAG: Duration = Duration::from_secs(12);

#[test]
fn lagging_api_server_causes_no_wrong_write() {
    let cluster = control_plane();
    let direct = Direct::to(&cluster);
    let ns = namespace(&cluster, "lagging");
    let etcd: SocketAddr = format!("127.0.0.1:{}", cluster.instance().ports.etcd).parse().unwrap();
    let way = Proxy::to(etcd);
    let second = SecondServer::start(&cluster, way.address());
    // Watches and lists go to the second server, all other requests to the first: the worst case of a load balancer.
    let proxy = HttpProxy::between(&cluster, second.kubeconfig.path());
    let operator = operator_for(&ns, "keeper", proxy.kubeconfig(), ANYWHERE);
    operator.wait_for("starting to reconcile", Duration::from_secs(30));
    for name in ["kestrel", "heron"] {
        direct.create(&ns, "electiongroups", &group(name, json!({ "replicas": 0 })));
        within(40, "the Lease", || direct.get(&ns, "leases", name));
    }
    let lease = json!({ "holderIdentity": "otter", "leaseDurationSeconds": 4, "leaseTransitions": 1 });
    direct.merge(&ns, "leases", "kestrel", &json!({ "spec": lease }));

    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let direct = Direct::to(&cluster);
            while !over.load(Ordering::Relaxed) {
                let now = jiff::Timestamp::now();
                let renewal = json!({ "spec": { "renewTime": format!("{now:.6}") } });
                direct.merge(&ns, "leases", "kestrel", &renewal);
                thread::sleep(Duration::from_millis(500));
            }
        });
        let ended = Ended(&over);
        within(30, "otter in the status", || (holder(&direct, &ns, "kestrel") == "otter").then_some(()));
        let before = at_rest(&proxy);

        way.set(Passage::Silent);
        thread::sleep(Duration::from_secs(1));
        direct.delete(&ns, "roles", "kestrel");
        direct.delete(&ns, "electiongroups", "heron");
        within(60, "the end of heron's children", || direct.get(&ns, "roles", "heron").is_none().then_some(()));
        let made = [
            direct.create(&ns, "electiongroups", &group("heron", json!({ "replicas": 0 }))),
            direct.create(&ns, "electiongroups", &group("siskin", json!({ "replicas": 0 }))),
        ];
        thread::sleep(LAG);
        assert_eq!(proxy.writes().split_off(before), Vec::<String>::new(), "{}", operator.output());
        assert_eq!(holder(&direct, &ns, "kestrel"), "otter");

        way.set(Passage::Open);
        within(90, "the Role", || direct.get(&ns, "roles", "kestrel"));
        for group in &made {
            let name = group["metadata"]["name"].as_str().unwrap();
            within(90, name, || {
                let role = direct.get(&ns, "roles", name)?;
                (role["metadata"]["ownerReferences"][0]["uid"] == group["metadata"]["uid"]).then_some(())
            });
        }
        at_rest(&proxy);
        let deleted: Vec<String> = proxy.writes().into_iter().filter(|write| write.starts_with("DELETE")).collect();
        assert_eq!(deleted, Vec::<String>::new());

        // An operator that starts while the second server is disconnected.
        drop(operator);
        way.set(Passage::Silent);
        thread::sleep(Duration::from_secs(1));
        let before = proxy.writes().len();
        let operator = operator_for(&ns, "keeper", proxy.kubeconfig(), ANYWHERE);
        operator.wait_for("starting to reconcile", Duration::from_secs(60));
        thread::sleep(LAG);
        assert_eq!(proxy.writes().split_off(before), Vec::<String>::new(), "{}", operator.output());
        way.set(Passage::Open);
        direct.delete(&ns, "roles", "siskin");
        within(120, "siskin's Role", || direct.get(&ns, "roles", "siskin"));
        at_rest(&proxy);
        let writes: BTreeSet<String> = proxy.writes().split_off(before).into_iter().collect();
        assert_eq!(writes, BTreeSet::from(["POST roles".to_owned()]), "{}", operator.output());
        drop(ended);
    });
}

/// A second API server of the cluster, with the flags of the first.
struct SecondServer {
    _program: Program,
    kubeconfig: NamedTempFile,
}

impl SecondServer {
    /// Starts a server that reaches etcd at `etcd`.
    fn start(cluster: &Cluster, etcd: SocketAddr) -> Self {
        let pid = cluster.pid(Component::ApiServer).unwrap();
        let program: PathBuf = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        let port = TcpListener::bind(ANYWHERE).unwrap().local_addr().unwrap().port();
        let own = ["--secure-port=", "--etcd-servers=", "--audit-"];
        let mut command = Command::new(program);
        command.args(
            line.split('\0')
                .skip(1)
                .filter(|argument| !argument.is_empty() && !own.iter().any(|prefix| argument.starts_with(prefix))),
        );
        command.args([format!("--secure-port={port}"), format!("--etcd-servers=https://{etcd}")]);
        let program = Program::start("second-apiserver", &mut command);
        let config = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
        let kubeconfig = NamedTempFile::new().unwrap();
        std::fs::write(kubeconfig.path(), config.replace(cluster.server(), &format!("https://127.0.0.1:{port}")))
            .unwrap();
        within(60, "the second API server", || {
            let mut kubectl = cluster.kubectl();
            let ready =
                kubectl.env("KUBECONFIG", kubeconfig.path()).args(["get", "--raw", "/readyz"]).output().unwrap();
            ready.status.success().then_some(())
        });
        Self { _program: program, kubeconfig }
    }
}

fn holder(direct: &Direct, ns: &str, name: &str) -> String {
    let group: Value = direct.get(ns, "electiongroups", name).unwrap();
    group["status"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}
