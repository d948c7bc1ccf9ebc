//! `cargo figures`: measurements of the product on a real node on this machine, n of each. They hold for this machine;
//! none of them makes a run fail.

#![allow(clippy::disallowed_methods, reason = "wall-clock time is what is measured")]

mod commands;
mod modes;
#[path = "../rivals/process.rs"]
mod process;
#[path = "../rivals/sample.rs"]
mod sample;
mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use k8sensus_local::{Cluster, IMAGE, Profile, product_image, product_program, workspace_root};
use kube::api::{Api, DeleteParams, ListParams};
use kube::runtime::conditions;
use kube::runtime::wait::await_condition;
use kube::{Client, Config};
use sample::Sample;
use serde_json::{Value, json};
use world::{World, group_resource};

const N: usize = 10;
const SYSTEM: &str = "k8sensus-system";

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let n = std::env::var("K8SENSUS_BENCH_N").ok().and_then(|n| n.parse().ok()).unwrap_or(N);
    let archive = std::env::temp_dir().join(format!("k8sensus-figures-{}.tar", std::process::id()));
    product_image(&archive, Profile::Dist)?;
    println!("sizes");
    for program in ["k8sensus", "k8sensus-operator"] {
        size(program, &product_program(program, Profile::Dist)?)?;
    }
    size("image archive", &archive)?;
    size("CRD, YAML", &workspace_root().join("crds/electiongroups.k8sensus.dev.yaml"))?;

    if is_selected("clusters") {
        clusters()?;
    }
    let node = Cluster::node().audit(true).start()?;
    node.load_image(&archive)?;
    std::fs::remove_file(&archive)?;
    install(&node)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&node, n))
}

/// Returns whether `K8SENSUS_BENCH_ONLY` names this part or is not set.
fn is_selected(part: &str) -> bool {
    std::env::var("K8SENSUS_BENCH_ONLY").map_or(true, |parts| parts.split(',').any(|name| name == part))
}

fn clusters() -> Result<(), Error> {
    println!("starts (n = 3)");
    let mut control_planes = Vec::new();
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        let cluster = Cluster::control_plane().start()?;
        control_planes.push(start.elapsed());
        drop(cluster);
        let start = Instant::now();
        let cluster = Cluster::node().start()?;
        nodes.push(start.elapsed());
        drop(cluster);
    }
    report("control plane up", control_planes);
    report("node up", nodes);
    Ok(())
}

async fn measure(node: &Cluster, n: usize) -> Result<(), Error> {
    k8sensus_runtime::tls::use_ring();
    let kubeconfig = kube::config::Kubeconfig::read_from(node.kubeconfig())?;
    let client = Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?)?;
    let world = World {
        node,
        groups: Api::default_namespaced_with(client.clone(), &group_resource()),
        leases: Api::default_namespaced(client.clone()),
        pods: Api::default_namespaced(client.clone()),
        deployments: Api::default_namespaced(client),
    };
    println!("operator, resident memory");
    println!("  {:<46} {}", "no groups", world.operators_memory()?);

    if is_selected("elections") {
        elections(&world, n).await?;
    }
    if is_selected("failovers") {
        failovers(&world, n).await?;
    }
    if is_selected("commands") {
        report("SIGKILL of a command to its successor's start", commands::commands_killed(node, n)?);
    }
    if is_selected("rollouts") {
        modes::rollouts(&world, n).await?;
    }
    if is_selected("start-up") {
        modes::start_up(&world, n).await?;
    }
    if is_selected("many") {
        many(&world).await?;
    }
    Ok(())
}

async fn elections(world: &World<'_>, n: usize) -> Result<(), Error> {
    let node = world.node;
    println!("elections of 3 pods at 15/10/2 (n = {n})");
    let mut elected = Vec::new();
    for i in 0..n {
        let name = format!("elect-{i}");
        let before = audit_lines(node)?;
        let start = Instant::now();
        world.create(&name, 3).await?;
        world.holder_other_than(&name, "").await?;
        elected.push(start.elapsed());
        if i == 0 {
            world.all_ready(&name, 3).await?;
            tokio::time::sleep(Duration::from_secs(3)).await;
            println!("  {:<46} {}", "writes of the operator for a new group", operators_writes(node, before)?);
            let before = audit_lines(node)?;
            tokio::time::sleep(Duration::from_secs(30)).await;
            println!("  {:<46} {}", "its writes in the 30 s after", operators_writes(node, before)?);
        }
        world.groups.delete(&name, &DeleteParams::default()).await?;
    }
    report("apply to leader elected", elected);
    Ok(())
}

async fn failovers(world: &World<'_>, n: usize) -> Result<(), Error> {
    let node = world.node;
    // Longer than any failover here, so that no expiry is measured.
    let command = ["/k8sensus", "sample"];
    let lease = json!({ "leaseDurationSeconds": 60, "renewDeadlineSeconds": 40 });
    world
        .create_of("failover", json!({ "image": IMAGE, "command": command, "replicas": 3, "election": lease }))
        .await?;
    let (mut deleted, mut handed_over) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let (leader, _) = world.settled_leader("failover", 3).await?;
        // The kubelet syncs a pod once a second: it would handle the deletion of a just changed pod late.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let watch = world.watch_handover("failover", &leader);
        let gracefully = DeleteParams::default();
        let start = Instant::now();
        let (handover, gone) = tokio::join!(watch, world.pods.delete(&leader, &gracefully));
        gone?;
        let (gap, at) = handover?;
        deleted.push(at.duration_since(start));
        handed_over.extend(gap);
    }
    report("kubectl delete pod of the leader to successor", deleted);
    report("of that, Lease released to Lease acquired", handed_over);

    let mut killed = Vec::new();
    for _ in 0..n {
        let (leader, uid) = world.settled_leader("failover", 3).await?;
        let watch = world.watch_handover("failover", &leader);
        let start = Instant::now();
        node.signal_pod(&uid, 9)?;
        killed.push(watch.await?.1.duration_since(start));
        // Otherwise the kubelet would back off and delay the next round.
        world.pods.delete(&leader, &DeleteParams::default()).await?;
        await_condition(world.pods.clone(), &leader, conditions::is_deleted(&uid)).await?;
    }
    report("SIGKILL of the leader's processes to successor", killed);

    let mut memory = Vec::new();
    for pod in world.pods.list(&ListParams::default().labels("k8sensus.dev/group=failover")).await? {
        for process in node.processes_in_pod(&pod.metadata.uid.unwrap_or_default()) {
            if process.command.contains("exec --") {
                memory.push(resident(process.pid)?);
            }
        }
    }
    println!("candidates, resident memory: {}", memory.join(", "));
    world.groups.delete("failover", &DeleteParams::default()).await?;
    Ok(())
}

async fn many(world: &World<'_>) -> Result<(), Error> {
    for i in 0..100 {
        world.create(&format!("many-{i}"), 0).await?;
    }
    for i in 0..100 {
        world.observed(&format!("many-{i}")).await?;
    }
    println!("operator, resident memory");
    println!("  {:<46} {}", "100 groups without pods", world.operators_memory()?);
    Ok(())
}

fn install(node: &Cluster) -> Result<(), Error> {
    let (repository, tag) = IMAGE.rsplit_once(':').ok_or("no tag")?;
    let output = node
        .helm()?
        .args([
            "upgrade",
            "--install",
            "k8sensus",
            "charts/k8sensus",
            "--namespace",
            SYSTEM,
            "--create-namespace",
            "--wait",
        ])
        .args(["--set", &format!("image.repository={repository},image.tag={tag}")])
        .current_dir(workspace_root())
        .output()?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8(output.stderr)?.into()) }
}

fn report(what: &str, times: Vec<Duration>) {
    let sample: Sample = times.iter().map(Duration::as_secs_f64).collect();
    let [median, max] = [0.5, 1.0].map(|share| sample.quantile(share));
    println!("  {what:<46} p50 {median:>7.3} s   max {max:>7.3} s   n {}", sample.len());
}

fn size(what: &str, path: &Path) -> Result<(), Error> {
    println!("  {what:<46} {:>7.2} MB", std::fs::metadata(path)?.len() as f64 / 1e6);
    Ok(())
}

fn resident(pid: i32) -> Result<String, Error> {
    Ok(format!("{:.1} MB", process::resident(pid)? as f64 / 1e6))
}

fn audit_lines(node: &Cluster) -> Result<usize, Error> {
    Ok(std::fs::read_to_string(node.audit_log())?.lines().count())
}

/// Returns the operator's writes by verb and resource, without the renewals of its own Lease.
fn operators_writes(node: &Cluster, from: usize) -> Result<String, Error> {
    let log = std::fs::read_to_string(node.audit_log())?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for event in log.lines().skip(from).filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let by_operator = event["user"]["username"] == "system:serviceaccount:k8sensus-system:k8sensus-operator";
        let read = matches!(event["verb"].as_str(), Some("get" | "list" | "watch"));
        let own = event["objectRef"]["name"] == "k8sensus-operator";
        if by_operator && !read && !own && event["stage"] == "ResponseComplete" {
            let object = &event["objectRef"];
            let sub = object["subresource"].as_str().map(|sub| format!("/{sub}")).unwrap_or_default();
            let what = format!(
                "{} {}{sub}",
                event["verb"].as_str().unwrap_or_default(),
                object["resource"].as_str().unwrap_or_default()
            );
            *counts.entry(what).or_default() += 1;
        }
    }
    let total: usize = counts.values().sum();
    let parts: Vec<String> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
    Ok(if parts.is_empty() { "0".to_owned() } else { format!("{total}: {}", parts.join(", ")) })
}
