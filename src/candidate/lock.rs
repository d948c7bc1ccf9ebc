//! A lock that tells a container's next candidate that the last one is dead, and its command with it.
//!
//! The kubelet starts a container again in the same pod within moments, but the Lease that the dead process held would protect
//! it for the rest of its duration. The next candidate may take it at once if nothing of the last one runs any more. That is
//! proved by three things together:
//!
//! - *It is PID 1.* The kernel ends the first process of a PID namespace only after every other process in it; so what the
//!   container's last PID 1 had started has died before this one could be started in its place. Where the pod shares its
//!   processes, or a shell stands in between, nothing of that is known.
//! - *It holds the lock* of a file that only this pod has. The lock belongs to an open file that all children inherit, so it is free
//!   only when the last candidate and all that it started have closed it; and nobody else takes it while this process lives.
//! - *The incarnation* on the Lease is of this pod and this container. Only who holds the lock campaigns under that name. Who does
//!   not (a second candidate beside a living one, by `kubectl exec`) leaves the container's name out: else the restart of the first
//!   would take the second for its dead predecessor, or the kubelet's report of the first for the death of the second.
//!
//! # Caveats
//! Only for a candidate that starts its work itself: the death of a sidecar says nothing of the work beside it. Some other program
//! that campaigns in this pod under the pod's name, and knows no incarnations, keeps the dead one's annotation and is taken for it.

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

/// What stands for a pod or a container that is not known, or that must not be named.
const NOBODY: &str = "-";

/// `builder` with what the lock at `path` proves: that predecessors in this container are dead, or that this process must
/// not campaign in the container's name. Where nothing names a path, or the incarnation names no container, nothing changes.
///
/// The lock is held until this process has ended and everything that it starts from now on.
pub fn campaign(builder: Builder, path: Option<&Path>) -> Builder {
    let Some(path) = path else { return builder };
    let own = builder.holder_incarnation().map(str::to_owned).unwrap_or_default();
    let mut parts = own.split('/').map(str::to_owned);
    let (Some(pod_uid), Some(container), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return builder;
    };
    if [&pod_uid, &container].into_iter().any(|part| part.is_empty() || part == NOBODY) {
        return builder;
    }
    match hold(path) {
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
            builder.incarnation(incarnation(&pod_uid, NOBODY))
        }
    }
}

/// Locks `path` for as long as this process or anything that it starts has it open; does not wait. The file may be one that can
/// only be read.
fn hold(path: &Path) -> io::Result<()> {
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file: File = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    fcntl_setfd(&file, FdFlags::empty())?;
    // Never closed: the kernel does that at the end.
    let _ = file.into_raw_fd();
    Ok(())
}
