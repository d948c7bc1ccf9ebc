//! Copies this program into a volume, so that a container whose image lacks it can start it, and puts the file beside it that
//! [`lock`](super::lock) locks.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The name of the file to be locked, in the program's folder.
const LOCK: &str = "lock";

/// Copies the running program to `target`, executable for everyone, in one rename: a restarted init container must not
/// truncate what another container is about to start. The file `lock` beside it is made where there is none, and never replaced:
/// whoever holds its lock holds that of this very file.
///
/// # Errors
/// If a file cannot be read or written; the text names it.
pub fn install(target: &Path) -> io::Result<()> {
    let cannot = |path: &Path, error: io::Error| {
        io::Error::new(error.kind(), format!("cannot install {}: {error}", path.display()))
    };
    let named = |error| cannot(target, error);
    let half = target.with_extension("part");
    fs::copy("/proc/self/exe", &half).map_err(named)?;
    fs::set_permissions(&half, fs::Permissions::from_mode(0o555)).map_err(named)?;
    fs::rename(&half, target).map_err(named)?;
    let lock = target.with_file_name(LOCK);
    make_lock(&lock).map_err(|error| cannot(&lock, error))
}

/// For everybody to read, which is enough to lock it, whatever the umask; nobody has anything to write.
fn make_lock(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => file.set_permissions(fs::Permissions::from_mode(0o444)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}
