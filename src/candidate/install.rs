//! Copies this program into a volume, so that a container whose image lacks it can start it, and writes two files
//! beside it: the one that [`lock`](super::lock) locks, and the API server's URL. The environment of that other
//! container is the user's, and may hold anything; only the kubelet and the operator set the environment of the
//! container that runs `install`.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::runtime::kubeconfig;

/// The name of the lock file, in the program's folder.
const LOCK: &str = "lock";
/// The name of the file with the API server's URL, likewise.
const API_SERVER: &str = "api-server";

/// Copies the running program to `target`, executable by all users, in one rename: a restarted init container must not
/// truncate the program that another container is about to start. The file `lock` beside it is created where it is
/// missing and never replaced, since a process that holds its lock holds that of this very file. If the environment
/// names the API server, the file `api-server` gets its URL.
///
/// # Errors
/// If a file cannot be read or written; the error names it.
pub fn install(target: &Path) -> io::Result<()> {
    let cannot = |path: &Path, error: io::Error| {
        io::Error::new(error.kind(), format!("cannot install {}: {error}", path.display()))
    };
    write_in_one_rename(target, 0o555, |partial| fs::copy("/proc/self/exe", partial).map(drop))
        .map_err(|error| cannot(target, error))?;
    if let Some(url) = kubeconfig::server_of_environment() {
        let path = target.with_file_name(API_SERVER);
        write_in_one_rename(&path, 0o444, |partial| fs::write(partial, &url)).map_err(|error| cannot(&path, error))?;
    }
    let lock = target.with_file_name(LOCK);
    create_lock(&lock).map_err(|error| cannot(&lock, error))
}

/// Creates `path` by `write`, with the permissions `mode`.
fn write_in_one_rename(path: &Path, mode: u32, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let partial = path.with_extension("part");
    write(&partial)?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(mode))?;
    fs::rename(&partial, path)
}

/// Creates the lock file, readable by all users whatever the umask: to lock it, read permission is enough.
fn create_lock(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => file.set_permissions(fs::Permissions::from_mode(0o444)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}
