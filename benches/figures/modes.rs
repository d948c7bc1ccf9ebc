//! Costs and benefits of the injection.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8sensus_local::IMAGE;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::world::World;
use super::{Error, report, resident};

/// Measures rollouts of a group of 5, one after the other: the time and the leader moves of each.
pub async fn rollouts(world: &World<'_>, n: usize) -> Result<(), Error> {
    let spec = |version: usize| {
        json!({
            "replicas": 5,
            "minReadySeconds": 1,
            "template": { "spec": { "containers": [{
                "name": "app", "image": IMAGE, "command": ["/k8sensus", "sample"],
                "env": [{ "name": "VERSION", "value": version.to_string() }],
            }] } },
        })
    };
    world.create_of("rolled", spec(0)).await?;
    world.all_ready("rolled", 5).await?;
    let (mut moves, mut times) = (Vec::new(), Vec::new());
    for round in 1..=n {
        let before = transitions(world).await?;
        let start = Instant::now();
        let patch = Patch::Merge(json!({ "spec": spec(round) }));
        world.groups.patch("rolled", &PatchParams::default(), &patch).await?;
        let of_round = Some(i64::try_from(round + 1)?);
        world
            .until("rolled", |status| {
                let all = ["replicas", "readyReplicas", "updatedReplicas"].iter().all(|field| status[field] == 5);
                let is_settled = !status["conditions"].to_string().contains("RollingOut");
                all && is_settled && status["observedGeneration"].as_i64() >= of_round
            })
            .await?;
        times.push(start.elapsed());
        moves.push(transitions(world).await? - before);
    }
    report("rollout of 5 pods, spec to rest", times);
    println!("  {:<46} {moves:?}", "leader moves in each");
    world.groups.delete("rolled", &DeleteParams::default()).await?;
    Ok(())
}

async fn transitions(world: &World<'_>) -> Result<i64, Error> {
    let group = world.groups.get("rolled").await?;
    Ok(group.data["status"]["leaseTransitions"].as_i64().unwrap_or_default())
}

/// Measures the time of a pod with one container from its Deployment to Ready: plain, and in each mode.
pub async fn start_up(world: &World<'_>, n: usize) -> Result<(), Error> {
    let container = json!({ "name": "app", "image": IMAGE, "command": ["/k8sensus", "sample"] });
    let (mut plain, mut injected) = (Vec::new(), [Vec::new(), Vec::new(), Vec::new()]);
    let modes = ["Native", "Exec", "Sidecar"];
    for round in 0..n {
        let name = format!("plain-{round}");
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": {
                "selector": { "matchLabels": { "app": name } },
                "template": { "metadata": { "labels": { "app": name } }, "spec": { "containers": [container] } },
            },
        }))?;
        let start = Instant::now();
        world.deployments.create(&PostParams::default(), &deployment).await?;
        pod_ready(world, &format!("app={name}")).await?;
        plain.push(start.elapsed());
        world.deployments.delete(&name, &DeleteParams::default()).await?;
        for (mode, times) in modes.iter().zip(&mut injected) {
            let name = format!("{}-{round}", mode.to_lowercase());
            let template = json!({ "spec": { "containers": [container] } });
            let start = Instant::now();
            world
                .create_of(&name, json!({ "replicas": 1, "candidate": { "mode": mode }, "template": template }))
                .await?;
            pod_ready(world, &format!("k8sensus.dev/group={name}")).await?;
            times.push(start.elapsed());
            if round == 0 {
                memory(world, mode, &name).await?;
            }
            world.groups.delete(&name, &DeleteParams::default()).await?;
        }
    }
    report("pod Ready, a plain Deployment", plain);
    for (mode, times) in modes.iter().zip(injected) {
        report(&format!("pod Ready, mode {mode}"), times);
    }
    Ok(())
}

async fn memory(world: &World<'_>, mode: &str, group: &str) -> Result<(), Error> {
    for pod in world.pods.list(&ListParams::default().labels(&format!("k8sensus.dev/group={group}"))).await? {
        for process in world.node.processes_in_pod(&pod.metadata.uid.unwrap_or_default()) {
            println!("  {:<46} {}", format!("mode {mode}, resident: {}", process.command), resident(process.pid)?);
        }
    }
    Ok(())
}

async fn pod_ready(world: &World<'_>, selector: &str) -> Result<(), Error> {
    for _ in 0..6000 {
        for pod in world.pods.list(&ListParams::default().labels(selector)).await? {
            let status: Value = serde_json::to_value(pod.status)?;
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            if conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True") {
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(format!("no pod of {selector} was Ready within 2 minutes").into())
}
