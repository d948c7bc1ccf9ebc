//! Copies this program into a volume, so that a container whose image lacks it can start it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Copies the running program to `target`, executable for everyone, in one rename: a restarted init container must not
/// truncate what another container is about to start.
///
/// # Errors
/// If the file cannot be read or written; the text names it.
pub fn install(target: &Path) -> io::Result<()> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot install {}: {error}", target.display()));
    let half = target.with_extension("part");
    fs::copy("/proc/self/exe", &half).map_err(named)?;
    fs::set_permissions(&half, fs::Permissions::from_mode(0o555)).map_err(named)?;
    fs::rename(&half, target).map_err(named)
}
