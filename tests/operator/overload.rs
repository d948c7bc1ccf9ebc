//! An API server that is busy with other requests: elections have a priority level of their own.

use std::io::Write;
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use k8sensus_local::Cluster;
use serde_json::json;
use tempfile::NamedTempFile;

use super::installed::install;
use crate::support::{
    Program, apply, candidate_command, control_plane_with, get, group, kubeconfig_with, kubectl, namespace, within,
};

/// Far more requests than the API server serves at a time.
const REQUESTS: usize = 60;
/// Several lease durations; also the time that a request may wait in a queue.
const FLOOD: Duration = Duration::from_secs(15);

fn token_of(cluster: &Cluster, ns: &str, account: &str) -> NamedTempFile {
    let token = kubectl(cluster, &["create", "token", "-n", ns, account]);
    kubeconfig_with(cluster, json!({ "token": token.trim() }))
}

/// Requests whose bodies never end: each occupies a seat, and costs neither side anything.
struct Flood {
    _proxy: Program,
    _requests: Vec<TcpStream>,
}

impl Flood {
    /// Starts the requests as the account of `kubeconfig`. kubectl adds TLS and passes them on.
    fn start(cluster: &Cluster, kubeconfig: &NamedTempFile, ns: &str) -> Self {
        let mut command = cluster.kubectl();
        command.args(["proxy", "--port=0", "--reject-methods=^$"]).env("KUBECONFIG", kubeconfig.path());
        let proxy = Program::start("proxy", &mut command);
        let address = within(10, "the proxy to serve", || {
            proxy.output().lines().find_map(|line| line.strip_prefix("Starting to serve on ").map(str::to_owned))
        });
        let request = format!(
            "POST /api/v1/namespaces/{ns}/configmaps HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: 1000000\r\n\r\n{{"
        );
        let requests = (0..REQUESTS).map(|_| {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream
        });
        Self { _requests: requests.collect(), _proxy: proxy }
    }
}

#[test]
fn elections_continue_while_a_client_exhausts_service_account_seats() {
    let arguments = ["--max-requests-inflight=20", "--max-mutating-requests-inflight=10"];
    let builder = arguments.into_iter().fold(Cluster::control_plane(), |builder, a| builder.api_server_arg(a));
    let cluster = control_plane_with(builder);
    let installed = install(&cluster, "default", &[]);
    let ns = namespace(&cluster, "busy");
    apply(&cluster, &ns, &group("kestrel", json!({}))).unwrap();
    within(20, "the group's permissions", || get(&cluster, &ns, "deployment/kestrel"));
    let of_pod = token_of(&cluster, &ns, "kestrel");
    let mut command = candidate_command(&cluster, &ns, "kestrel", "otter", &["--create-lease=false"]);
    let otter = Program::start("otter", command.env("KUBECONFIG", of_pod.path()));
    let held = || get(&cluster, &ns, "lease/kestrel").unwrap()["spec"].clone();
    within(20, "otter to lead", || (held()["holderIdentity"] == "otter").then_some(()));
    within(20, "the schema to be in force", || {
        let levels = kubectl(&cluster, &["get", "--raw", "/debug/api_priority_and_fairness/dump_priority_levels"]);
        levels.contains("k8sensus-leases").then_some(())
    });

    let flooding = namespace(&cluster, "flood");
    kubectl(&cluster, &["create", "serviceaccount", "magpie", "-n", &flooding]);
    kubectl(&cluster, &["create", "role", "magpie", "-n", &flooding, "--verb=create", "--resource=configmaps"]);
    let account = format!("--serviceaccount={flooding}:magpie");
    kubectl(&cluster, &["create", "rolebinding", "magpie", "-n", &flooding, "--role=magpie", &account]);
    let of_magpie = token_of(&cluster, &flooding, "magpie");
    let flood = Flood::start(&cluster, &of_magpie, &flooding);
    // No other request of an account is served either, not even by a refusal.
    within(20, "the flood to take all places", || {
        let mut kubectl = cluster.kubectl();
        kubectl.args(["get", "configmaps", "-n", &flooding, "--request-timeout=2s"]);
        let output = kubectl.env("KUBECONFIG", of_pod.path()).output().unwrap();
        (!String::from_utf8_lossy(&output.stderr).contains("Forbidden")).then_some(())
    });
    let (before, start) = (held(), Instant::now());
    while start.elapsed() < FLOOD {
        sleep(Duration::from_millis(500));
        assert!(!otter.says("Evicted as leader"), "after {:?}: {}", start.elapsed(), otter.output());
    }
    let after = held();
    drop(flood);
    assert_eq!((&after["holderIdentity"], &after["leaseTransitions"]), (&json!("otter"), &before["leaseTransitions"]));
    assert_ne!(after["renewTime"], before["renewTime"]);
    // The operator does not lose its Lease either.
    assert!(!installed.operator.says("stopped reconciling"), "{}", installed.operator.output());
}
