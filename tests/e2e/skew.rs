//! Two builds of the product: an upgrade from an earlier revision of this repository, and the rollback, while groups
//! have leaders.
//!
//! `K8SENSUS_PREVIOUS=REVISION` names the earlier revision, by anything that git understands. Its build takes minutes, so
//! the test runs only with that variable.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use k8sensus_local::{Cluster, IMAGE, Image, ImageFile, cargo};
use serde_json::{Value, json};

use super::workload::{Mode, Workload};
use super::{SYSTEM, install_operator, new_node};
use crate::support::{apply, condition, get, kubectl, namespace, root, within};

const PREVIOUS_IMAGE: &str = "localhost/k8sensus:previous";
const PROGRAMS: [&str; 2] = ["k8sensus", "k8sensus-operator"];
const MODES: [(&str, Mode); 2] = [("exec", Mode::Exec), ("sidecar", Mode::Sidecar)];
/// Longer than a lease, and than an operator needs to take over and to reconcile all groups.
const WATCHED: Duration = Duration::from_secs(40);

/// Builds the earlier revision and loads an image of its programs onto `node`. Returns the folder of its files.
fn build_previous(node: &Cluster, revision: &str) -> PathBuf {
    let folder = root().join("target/previous");
    let source = folder.join("source");
    let _ = std::fs::remove_dir_all(&source);
    std::fs::create_dir_all(&source).unwrap();
    let archive = folder.join("source.tar");
    let (archive, into) = (archive.to_str().unwrap(), source.to_str().unwrap());
    run(Command::new("git").current_dir(root()).args(["archive", "--output", archive, revision]));
    run(Command::new("tar").args(["-xf", archive, "-C", into]));
    let host = run(cargo().arg("-vV"));
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    println!("building revision {revision}, which takes some minutes");
    // Speed is not compared, so it is built as fast as possible. The package of the programs had another name once.
    run(cargo()
        .current_dir(&source)
        .args(["build", "--quiet", "--locked", "--workspace", "--profile", "dist", "--target", host])
        .args(PROGRAMS.iter().flat_map(|program| ["--bin", program]))
        .arg("--target-dir")
        .arg(&folder)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .envs([("CARGO_PROFILE_DIST_LTO", "off"), ("CARGO_PROFILE_DIST_CODEGEN_UNITS", "16")]));
    let program = |name: &str| folder.join(host).join("dist").join(name);
    let files = PROGRAMS.map(|name| ImageFile { source: program(name).into(), path: name.to_owned(), mode: 0o755 });
    let image =
        Image { name: PREVIOUS_IMAGE.to_owned(), entrypoint: vec!["/k8sensus".to_owned()], files: files.into() };
    let archive = folder.join("image.tar");
    image.write(&archive).unwrap_or_else(|error| panic!("{error}"));
    node.load_image(&archive).unwrap_or_else(|error| panic!("{error}"));
    source
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn helm(node: &Cluster, folder: &Path, arguments: &[&str]) {
    let mut helm = node.helm().unwrap_or_else(|error| panic!("{error}"));
    run(helm.current_dir(folder).args(arguments).args(["--namespace", SYSTEM, "--wait", "--timeout=180s"]));
}

/// Two groups with leaders, whose programs record their work.
struct Groups<'a> {
    node: &'a Cluster,
    ns: String,
    workloads: [(&'static str, Workload); 2],
}

impl Groups<'_> {
    fn get(&self, what: &str) -> Value {
        get(self.node, &self.ns, what).unwrap_or_else(|| panic!("no {what} in {}", self.ns))
    }

    fn leader(&self, name: &str) -> Option<String> {
        let group = self.get(&format!("electiongroup/{name}"));
        let holder = group["status"]["holderIdentity"].as_str()?;
        condition(&group, "Ready").starts_with("True").then(|| holder.to_owned())
    }

    /// Waits until both groups have their pods and no others, all ready, and both leaders' programs work.
    fn settle(&self) {
        for (name, workload) in &self.workloads {
            within(120, &format!("all pods of group {name} and the work of its leader"), || {
                let group = self.get(&format!("electiongroup/{name}"));
                let leader = self.leader(name)?;
                let is_ready = group["status"]["readyReplicas"] == 2 && workload.workers().contains(&leader);
                // Former pods are gone too, so that their end is not taken for a change by the operator.
                let pods = self.get("pods")["items"].as_array().unwrap().clone();
                let count = pods.iter().filter(|pod| pod["metadata"]["labels"]["k8sensus.dev/group"] == *name).count();
                (is_ready && count == 2).then_some(())
            });
        }
    }

    /// Returns what an upgrade must not change: holders and terms, the pods and how often their containers restarted.
    fn state(&self) -> Vec<Value> {
        let items = |kind: &str| self.get(kind)["items"].as_array().unwrap().clone();
        let leases = items("leases").into_iter().map(|lease| {
            let spec = &lease["spec"];
            json!([lease["metadata"]["name"], spec["holderIdentity"], spec["acquireTime"], spec["leaseTransitions"]])
        });
        let pods = items("pods").into_iter().map(|pod| {
            let restarts = ["initContainerStatuses", "containerStatuses"].map(|kind| {
                let statuses = pod["status"][kind].as_array().cloned().unwrap_or_default();
                statuses.iter().filter_map(|status| status["restartCount"].as_u64()).sum::<u64>()
            });
            json!([pod["metadata"]["name"], restarts])
        });
        let statuses = items("electiongroups").into_iter().map(|group| {
            let status = &group["status"];
            json!([group["metadata"]["name"], status["holderIdentity"], status["leaseTransitions"], status["history"]])
        });
        leases.chain(pods).chain(statuses).collect()
    }

    /// Checks, after a change of the operator, that nothing else changes, and that a deleted leader has a successor.
    fn keep_their_leaders_and_fail_over(&self, what: &str, before: &[Value]) {
        let start = Instant::now();
        while start.elapsed() < WATCHED {
            assert_eq!(self.state(), before, "{what} changed a group");
            thread::sleep(Duration::from_secs(1));
        }
        for (name, _) in &self.workloads {
            let former = self.leader(name).unwrap();
            kubectl(self.node, &["delete", "pod", "-n", &self.ns, &former, "--wait=false"]);
            within(90, &format!("{what}: a successor in group {name}"), || {
                self.leader(name).filter(|leader| *leader != former)
            });
        }
        self.settle();
        for (name, workload) in &self.workloads {
            let report = workload.report();
            assert!(report.overlaps.is_empty() && report.stale.is_empty(), "{what}, {name}: {report}");
            println!("{what}, {name}: {} terms, longest gap {:?}", report.incarnations(), report.longest_gap());
        }
    }
}

#[test]
fn upgrade_from_another_build_and_rollback_move_no_leader() {
    let Ok(revision) = std::env::var("K8SENSUS_PREVIOUS") else {
        println!("skipped: K8SENSUS_PREVIOUS=REVISION names the revision to upgrade from");
        return;
    };
    let node = new_node();
    let former = build_previous(&node, &revision);
    let (repository, tag) = PREVIOUS_IMAGE.rsplit_once(':').unwrap();
    let image = format!("image.repository={repository},image.tag={tag},crds.keep=true");
    helm(&node, &former, &["install", "k8sensus", "charts/k8sensus", "--create-namespace", "--set", &image]);
    let workloads = MODES.map(|(name, mode)| (name, Workload::new(mode, 1, 10)));
    let groups = Groups { node: &node, ns: namespace(&node, "skew"), workloads };
    for (name, workload) in &groups.workloads {
        workload.load_on(&node);
        apply(&node, &groups.ns, &workload.group(name, json!({}))).unwrap();
    }
    groups.settle();

    let before = groups.state();
    install_operator(&node, "crds.keep=true");
    groups.keep_their_leaders_and_fail_over("upgrade", &before);
    for (name, _) in &groups.workloads {
        let group = groups.get(&format!("electiongroup/{name}"));
        println!("{name}: CandidateOutdated {}", condition(&group, "CandidateOutdated"));
        let requested = "k8sensus.dev/update-candidate-requested-at=2026-01-01T00:00:00Z";
        kubectl(&node, &["annotate", "-n", &groups.ns, &format!("electiongroup/{name}"), requested]);
        within(180, &format!("the pods of {name} to have the new candidate"), || {
            let pods = groups.get("pods");
            let of_group = pods["items"].as_array().unwrap().iter().filter(|pod| {
                pod["metadata"]["labels"]["k8sensus.dev/group"] == *name
                    && pod["metadata"]["deletionTimestamp"].is_null()
            });
            let images: Vec<_> = of_group.map(|pod| pod["spec"]["initContainers"][0]["image"].clone()).collect();
            (images.len() == 2 && images.iter().all(|image| image == IMAGE)).then_some(())
        });
    }
    groups.settle();

    let before = groups.state();
    helm(&node, root(), &["rollback", "k8sensus", "1"]);
    groups.keep_their_leaders_and_fail_over("rollback", &before);

    let before = groups.state();
    install_operator(&node, "crds.keep=true");
    groups.keep_their_leaders_and_fail_over("second upgrade", &before);
    drop(groups);
    node.down().unwrap_or_else(|error| panic!("{error}"));
}
