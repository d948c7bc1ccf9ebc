//! Why this process ends, for the kubelet's report of its container: the termination message.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::protocol::environment;
use rustix::fs::OFlags;

/// The longest reason in bytes: the kubelet reads the last 4096 of the file, of which a line of proof is some.
const LONGEST: usize = 3 * 1024;

static FILE: OnceLock<PathBuf> = OnceLock::new();

/// This process is its container's own: from now on [`leave`] writes to the file that the environment names, if it names one, and
/// the text of a panic is left there, too. Others in the container, such as one by `kubectl exec`, must not call this.
pub fn speak_for_the_container() {
    let Some(path) = std::env::var_os(environment::TERMINATION_MESSAGE_PATH).filter(|path| !path.is_empty()) else {
        return;
    };
    // A second call names the same file.
    let _ = FILE.set(path.into());
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        leave(&format!("this is a bug of k8sensus, please report it: {panic}"));
    }));
}

/// Appends `why` to the termination message, if this process [speaks for its container](speak_for_the_container). Never waits and
/// reports no error: it is the last thing that a process does.
pub fn leave(why: &str) {
    if let Some(path) = FILE.get() {
        let _ = append(path, why);
    }
}

/// Appends `why` as a line to the file at `path`, which must exist. In place, and nothing that it holds is lost, also where the disk
/// is full.
///
/// # Errors
/// If it cannot be opened or written.
pub fn append(path: &Path, why: &str) -> io::Result<()> {
    let mut end = why.len().min(LONGEST);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let mut file = OpenOptions::new().append(true).custom_flags(nonblocking).open(path)?;
    file.write_all(format!("{}\n", &why[..end]).as_bytes())
}
