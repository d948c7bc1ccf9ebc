//! The log of the pod that leads. With `--follow` it follows leadership from pod to pod.

use std::pin::Pin;
use std::time::Duration;

use futures::io::AsyncBufRead;
use futures::{AsyncBufReadExt, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use kube::runtime::{WatchStreamExt, watcher};

use crate::connect::{Cluster, now, sleep};
use crate::failure::{Access, Failure};
use crate::fetch;
use crate::flags::Logs;
use crate::kubectl::leader;
use crate::output::{print, remark};
use crate::picture::LeasePicture;
use crate::protocol::lease::pod_of_holder;

/// The annotation that names the container which kubectl chooses by default.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// How long the former leader's last lines are waited for after leadership has moved.
const LAST_LINES: Duration = Duration::from_millis(300);
/// The wait before a log that ended, or cannot be read yet, is opened again.
const REOPEN: Duration = Duration::from_secs(1);

type Lines = Pin<Box<dyn AsyncBufRead + Send>>;

/// Prints the log of the leader's pod, once or until interrupted.
pub async fn logs(cluster: &Cluster, flags: &Logs) -> Result<(), Failure> {
    if flags.follow {
        return follow(cluster, flags).await;
    }
    let pod = leader(cluster, &flags.target.group).await?;
    let mut lines = open(cluster, &pod, flags, None).await?;
    while let Some(line) = next_line(&mut lines, &mut Vec::new()).await {
        print(&line)?;
    }
    Ok(())
}

/// The pod whose log is printed.
struct Followed {
    pod: String,
    /// `None` while the log cannot be read.
    lines: Option<Lines>,
    /// Where the log continues after an interruption.
    since: Option<Timestamp>,
    /// The part of a line that was read before the read was cancelled.
    partial: Vec<u8>,
}

async fn follow(cluster: &Cluster, flags: &Logs) -> Result<(), Failure> {
    let group = fetch::group(cluster, &flags.target.group).await?;
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let mut changes = Box::pin(watcher::watch_object(leases, group.effective_lease_name()).default_backoff());
    let mut followed: Option<Followed> = None;
    let mut is_waiting = false;
    loop {
        tokio::select! {
            change = changes.next() => {
                let lease = match change {
                    Some(Ok(lease)) => lease.map(|lease| LeasePicture::of(&lease, now())),
                    Some(Err(error)) => { fail_if_forbidden(cluster, error)?; continue }
                    None => return Ok(()),
                };
                let Some((lease, holder)) = lease.as_ref().and_then(|lease| Some((lease, lease.leader()?))) else {
                    // The former leader's log continues: it may show why it stopped.
                    if followed.is_none() && !is_waiting {
                        remark("==> no pod leads yet; waiting <==");
                        is_waiting = true;
                    }
                    continue;
                };
                let pod = pod_of_holder(holder);
                if followed.as_ref().is_some_and(|followed| followed.pod == pod) {
                    continue;
                }
                let is_first = followed.is_none() && !is_waiting;
                if let Some(former) = &mut followed {
                    drain(former).await?;
                }
                remark(&format!("==> {pod} leads{} <==", if is_first { "" } else { " now" }));
                // The log of a successor starts with its term; what it logged as a standby is skipped.
                let since = if is_first { None } else { lease.acquire_time };
                followed = Some(Followed { pod: pod.to_owned(), lines: None, since, partial: Vec::new() });
            }
            line = next(cluster, flags, &mut followed) => {
                if let Some(line) = line? {
                    print(&line)?;
                }
            }
        }
    }
}

/// Returns the next line of the followed pod; `None` if there is none now. Cancel safe.
async fn next(cluster: &Cluster, flags: &Logs, followed: &mut Option<Followed>) -> Result<Option<String>, Failure> {
    let Some(followed) = followed else { return std::future::pending().await };
    if followed.lines.is_none() {
        match open(cluster, &followed.pod, flags, followed.since).await {
            Ok(lines) => followed.lines = Some(lines),
            Err(failure @ Failure::Forbidden(..)) => return Err(failure),
            // The container does not run yet, or the node does not respond.
            Err(_) => {
                sleep(REOPEN).await;
                return Ok(None);
            }
        }
    }
    let Some(lines) = &mut followed.lines else { return Ok(None) };
    let line = next_line(lines, &mut followed.partial).await;
    if line.is_none() {
        followed.lines = None;
        followed.since = Some(now());
        sleep(REOPEN).await;
    }
    Ok(line)
}

/// Prints the rest of the former leader's log.
async fn drain(former: &mut Followed) -> Result<(), Failure> {
    let Some(lines) = &mut former.lines else { return Ok(()) };
    loop {
        tokio::select! {
            line = next_line(lines, &mut former.partial) => match line {
                Some(line) => print(&line)?,
                None => return Ok(()),
            },
            () = sleep(LAST_LINES) => return Ok(()),
        }
    }
}

/// Returns the next line with its line break; `None` at the end, and if the connection is lost. Cancel safe, because
/// `partial` keeps what was read.
async fn next_line(lines: &mut Lines, partial: &mut Vec<u8>) -> Option<String> {
    let read = lines.read_until(b'\n', partial).await;
    let line = std::mem::take(partial);
    (read.is_ok_and(|bytes| bytes > 0) || !line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned())
}

async fn open(cluster: &Cluster, pod: &str, flags: &Logs, since: Option<Timestamp>) -> Result<Lines, Failure> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let container = match &flags.container {
        Some(container) => Some(container.clone()),
        None => default_container(cluster, &pods, pod).await,
    };
    let since_seconds = flags.since.and_then(|since| i64::try_from(since.as_secs()).ok());
    let parameters = LogParams {
        container,
        follow: flags.follow,
        previous: flags.previous,
        tail_lines: flags.tail.map(i64::from).filter(|_| since.is_none()),
        since_seconds: since_seconds.filter(|_| since.is_none()),
        // The client rounds to the nearest second, which would lose the first lines of a term.
        since_time: since.and_then(|since| Timestamp::from_second(since.as_second()).ok()),
        timestamps: flags.timestamps,
        ..LogParams::default()
    };
    let access = Access { verb: "get", resource: "pods/log", namespace: Some(cluster.namespace.clone()) };
    Ok(Box::pin(cluster.send(access, pods.log_stream(pod, &parameters)).await?))
}

/// Returns the container that leads, as the operator names it for kubectl. Without the right to read pods the API
/// server chooses, which it can if there is only one container.
async fn default_container(cluster: &Cluster, pods: &Api<Pod>, name: &str) -> Option<String> {
    let access = Access { verb: "get", resource: "pods", namespace: Some(cluster.namespace.clone()) };
    let pod = cluster.find(access, pods.get(name)).await.ok().flatten()?;
    let named = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DEFAULT_CONTAINER)).cloned();
    named.or_else(|| Some(pod.spec?.containers.first()?.name.clone()))
}

/// A watch restarts by itself, except that a missing permission does not come back.
fn fail_if_forbidden(cluster: &Cluster, error: watcher::Error) -> Result<(), Failure> {
    let (verb, error) = match error {
        watcher::Error::InitialListFailed(error) => ("list", error),
        watcher::Error::WatchStartFailed(error) => ("watch", error),
        _ => return Ok(()),
    };
    let access = Access { verb, resource: "leases", namespace: Some(cluster.namespace.clone()) };
    match Failure::of(error, access, &cluster.server) {
        failure @ (Failure::Forbidden(..) | Failure::Unauthorized(_)) => Err(failure),
        _ => Ok(()),
    }
}
