//! A lock by which the next candidate of a container knows that the previous one is dead, and its command with it.
//!
//! The kubelet restarts a container in the same pod within moments, but the Lease that the dead process held would
//! protect it for the rest of its duration. The next candidate may acquire the Lease at once if nothing of the previous
//! one runs any more. Three facts together prove that:
//!
//! - *It is PID 1.* The kernel ends the first process of a PID namespace only after every other process in it. So
//!   everything that the container's previous PID 1 had started died before this process could be started in its place.
//!   Where the pod shares its process namespace, or a shell stands in between, nothing of that is known.
//! - *It holds the lock* of a file that only this pod has. The lock belongs to an open file that all children inherit.
//!   So it is free only when the previous candidate and all its children have closed the file, and no other process can
//!   acquire it while this process lives.
//! - *The incarnation* on the Lease is of this pod and this container. Only the holder of the lock campaigns under that
//!   name. A candidate without the lock (a second one beside a living one, by `kubectl exec`) leaves the container's
//!   name out. Otherwise the restart of the first candidate would mistake the second for its dead predecessor, or the
//!   kubelet's report of the first would be mistaken for the death of the second.
//!
//! # Caveats
//! Only for a candidate that starts its work itself: the death of a sidecar proves nothing about the work beside it.
//! Another program that campaigns in this pod under the pod's name, and does not know incarnations, keeps the dead
//! candidate's annotation and is mistaken for it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, getpid};
use tracing::warn;

use crate::campaign::{Builder, incarnation};

/// The placeholder for a pod or a container that is unknown, or that must not be named.
const UNKNOWN: &str = "-";

/// Returns `builder` with what the lock at `path` proves: either that predecessors in this container are dead, or that
/// this process must not campaign under the container's name. Without a path, or without a container in the
/// incarnation, `builder` is unchanged.
///
/// The lock is held until this process and everything that it starts from now on have ended.
pub fn campaign(builder: Builder, path: Option<&Path>) -> Builder {
    let Some(path) = path else { return builder };
    let own = builder.holder_incarnation().map(str::to_owned).unwrap_or_default();
    let mut parts = own.split('/').map(str::to_owned);
    let (Some(pod_uid), Some(container), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return builder;
    };
    if [&pod_uid, &container].into_iter().any(|part| part.is_empty() || part == UNKNOWN) {
        return builder;
    }
    match lock_for_life(path) {
        Ok(()) if getpid() == Pid::INIT => builder.dead_predecessors(format!("{pod_uid}/{container}/")),
        Ok(()) => builder,
        Err(error) => {
            let path = path.display();
            let why = match error.kind() {
                io::ErrorKind::WouldBlock => "another process of this pod holds it".to_owned(),
                _ => error.to_string(),
            };
            warn!(
                "cannot lock {path}: {why}; if this process dies as the leader, its lease must expire (run one candidate in a pod, as its container's command)"
            );
            builder.incarnation(incarnation(&pod_uid, UNKNOWN))
        }
    }
}

/// Locks `path` for as long as this process or any process that it starts has it open. Does not wait. Read permission
/// on the file is enough.
fn lock_for_life(path: &Path) -> io::Result<()> {
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file: File = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    fcntl_setfd(&file, FdFlags::empty())?;
    // Never closed here: the kernel does that at the end.
    let _ = file.into_raw_fd();
    Ok(())
}
