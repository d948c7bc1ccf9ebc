//! Whether the kubelet's report proves that the process which holds a Lease is dead, so that nobody has to wait until the
//! Lease runs out.
//!
//! A candidate of mode Exec leaves its incarnation, `<podUID>/<container>/<nonce>`, as its container's termination message
//! before it takes part in the election. Each start of a container has a file of its own for that, which only the processes of
//! the container write. The kubelet reads it once the container's first process has ended, and the kernel ends that one only
//! after every other process of its PID namespace. So a *terminated* container that says the Lease's own incarnation says
//! that nothing of that leader runs any more; and what has died stays dead, however old the report is.
//!
//! Nothing else proves anything: not phase `Failed`, an absent or deleted pod, a pod that is not ready, a container that the
//! kubelet or its runtime lost sight of (reason `ContainerStatusUnknown`, exit code 255), nor any comparison of clocks.
//!
//! # Caveats
//! Whoever may write `pods/status` can forge the report, as the kubelet's rights allow. What the dead process had sent may still be on its way:
//! only the fencing token refuses that.

use serde_json::Value;

/// The reason of a terminated state that the kubelet made up, since it could not find the container.
const LOST_SIGHT: &str = "ContainerStatusUnknown";
/// The exit code by which containerd says that it does not know how a container ended, nor thus that it did.
const UNKNOWN_END: i64 = 255;

/// The incarnations that `pod` proves to be dead: at most two of each container. `pod` needs only:
///
/// - `spec.hostPID` and `spec.shareProcessNamespace`: true means that a container's end is not the end of its processes;
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
            // The program may have added words of its own behind the candidate's line.
            let line = terminated["message"].as_str()?.lines().next()?;
            let is_known = terminated["reason"] != LOST_SIGHT && terminated["exitCode"].as_i64()? != UNKNOWN_END;
            (is_known && is_of(line, pod_uid, container)).then(|| line.to_owned())
        })
    });
    dead.collect()
}

/// Whether `line` is what a candidate leaves as its container's termination message.
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
