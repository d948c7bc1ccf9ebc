//! Copies this program into a volume, so that a container whose image lacks it can start it, and puts two files beside it: the one
//! that [`lock`](super::lock) locks, and the API server's URL. The environment of that other container is the user's, and may say
//! anything; that of the container which installs is the kubelet's and the operator's alone.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::runtime::kubeconfig;

/// The name of the file to be locked, in the program's folder.
const LOCK: &str = "lock";
/// The name of the file with the API server's URL, likewise.
const API_SERVER: &str = "api-server";

/// Copies the running program to `target`, executable for everyone, in one rename: a restarted init container must not
/// truncate what another container is about to start. The file `lock` beside it is made where there is none, and never replaced:
/// a process that holds its lock holds that of this very file. Where the environment says where the API server is, the file `api-server` gets
/// its URL.
///
/// # Errors
/// If a file cannot be read or written; the text names it.
pub fn install(target: &Path) -> io::Result<()> {
    let cannot = |path: &Path, error: io::Error| {
        io::Error::new(error.kind(), format!("cannot install {}: {error}", path.display()))
    };
    in_one_rename(target, 0o555, |half| fs::copy("/proc/self/exe", half).map(drop))
        .map_err(|error| cannot(target, error))?;
    if let Some(url) = kubeconfig::server_of_environment() {
        let path = target.with_file_name(API_SERVER);
        in_one_rename(&path, 0o444, |half| fs::write(half, &url)).map_err(|error| cannot(&path, error))?;
    }
    let lock = target.with_file_name(LOCK);
    make_lock(&lock).map_err(|error| cannot(&lock, error))
}

/// Makes `path` by `write`, with the permissions `mode`.
fn in_one_rename(path: &Path, mode: u32, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let half = path.with_extension("part");
    write(&half)?;
    fs::set_permissions(&half, fs::Permissions::from_mode(mode))?;
    fs::rename(&half, path)
}

/// For everybody to read, which is enough to lock it, whatever the umask; nobody has anything to write.
fn make_lock(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => file.set_permissions(fs::Permissions::from_mode(0o444)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}
