//! The reason why this process ends, for the kubelet's report of its container: the termination message.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::protocol::environment;
use rustix::fs::OFlags;

/// The longest reason in bytes: the kubelet reads the last 4096 of the file, which also hold the line with the
/// incarnation.
const LONGEST: usize = 3 * 1024;

static FILE: OnceLock<PathBuf> = OnceLock::new();

/// Marks this process as its container's own. From now on [`leave`] and panics write to the file that the environment
/// names, if it names one. Other processes of the container, such as one by `kubectl exec`, must not call this.
pub fn enable() {
    let Some(path) = std::env::var_os(environment::TERMINATION_MESSAGE_PATH).filter(|path| !path.is_empty()) else {
        return;
    };
    // A second call names the same file.
    let _ = FILE.set(path.into());
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        previous(panic);
        leave(&format!("this is a bug of k8sensus, please report it: {panic}"));
    }));
}

/// Appends `why` to the termination message, if [`enable`] was called. Never waits and reports no error, since the
/// process is about to end.
pub fn leave(why: &str) {
    if let Some(path) = FILE.get() {
        let _ = append(path, why);
    }
}

/// Appends `why` as a line to the file at `path`, which must exist. Writes in place, and loses nothing of the file's
/// content, also where the disk is full.
///
/// # Errors
/// If the file cannot be opened or written.
pub fn append(path: &Path, why: &str) -> io::Result<()> {
    let mut end = why.len().min(LONGEST);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let mut file = OpenOptions::new().append(true).custom_flags(nonblocking).open(path)?;
    file.write_all(format!("{}\n", &why[..end]).as_bytes())
}
