//! Whether the kubelet's report proves that the process that holds a Lease is dead, so that a standby need not wait
//! until the Lease expires.
//!
//! A candidate of mode Exec writes its incarnation, `<podUID>/<container>/<nonce>`, as its container's termination
//! message before it takes part in the election. Each start of a container has its own file for that, which only the
//! processes of the container write. The kubelet reads the file once the container's first process has ended, and the
//! kernel ends that process only after every other process of its PID namespace. So a *terminated* container with the
//! Lease's own incarnation proves that no process of that leader runs any more. A dead process stays dead, however old
//! the report is.
//!
//! Nothing else is a proof: not phase `Failed`, an absent or deleted pod, a pod that is not ready, a container that the
//! kubelet or its runtime lost sight of (reason `ContainerStatusUnknown`, exit code 255), nor any comparison of clocks.
//!
//! # Caveats
//! Every client that may write `pods/status`, as the kubelet may, can forge the report. Requests of the dead process
//! may still be in flight: only the fencing token makes their receivers refuse them.

use serde_json::Value;

/// The reason of a terminated state that the kubelet invents because it cannot find the container.
const LOST_SIGHT: &str = "ContainerStatusUnknown";
/// The exit code that containerd reports if it does not know how a container ended, nor thus whether it did.
const UNKNOWN_END: i64 = 255;

/// Returns the incarnations that `pod` proves dead, at most two per container. `pod` needs only:
///
/// - `spec.hostPID` and `spec.shareProcessNamespace`: true means that a container's end is not the end of its
///   processes;
/// - `status.containerStatuses[]` with `name` and, of both `state` and `lastState`, `terminated.reason`,
///   `terminated.exitCode` and `terminated.message`. Neither init nor ephemeral containers lead.
pub fn dead_incarnations(pod_uid: &str, pod: &Value) -> Vec<String> {
    let shares_processes = ["hostPID", "shareProcessNamespace"].iter().any(|field| pod["spec"][field] == true);
    let statuses = pod["status"]["containerStatuses"].as_array().map(Vec::as_slice).unwrap_or_default();
    if shares_processes {
        return Vec::new();
    }
    let dead = statuses.iter().flat_map(|status| {
        let container = status["name"].as_str().unwrap_or_default();
        ["state", "lastState"].into_iter().filter_map(move |state| {
            let terminated = &status[state]["terminated"];
            // The program may have added text of its own after the candidate's line.
            let line = terminated["message"].as_str()?.lines().next()?;
            let is_known = terminated["reason"] != LOST_SIGHT && terminated["exitCode"].as_i64()? != UNKNOWN_END;
            (is_known && is_of(line, pod_uid, container)).then(|| line.to_owned())
        })
    });
    dead.collect()
}

/// Whether `line` is what a candidate writes as its container's termination message.
pub fn is_incarnation(line: &str) -> bool {
    matches!(line.split('/').collect::<Vec<_>>()[..], [uid, name, _] if is_of(line, uid, name))
}

/// Whether `line` is an incarnation of that pod's container.
fn is_of(line: &str, pod_uid: &str, container: &str) -> bool {
    let parts: Vec<&str> = line.split('/').collect();
    match parts[..] {
        [uid, name, nonce] => {
            let is_nonce = nonce.len() == 16 && nonce.bytes().all(|digit| digit.is_ascii_hexdigit());
            is_nonce && !uid.is_empty() && uid == pod_uid && !name.is_empty() && name == container
        }
        _ => false,
    }
}
