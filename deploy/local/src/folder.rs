//! The folder of an instance, and the lock that lets one program at a time change the instance.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::component::Component;
use crate::error::{At, Error};

/// Returns the folder of all instances: `$K8SENSUS_STATE`, else a folder below `/var/tmp`. That path suits the data of
/// a node (images, etcd) better than a memory-backed `/run` or `/tmp`, and is short enough for sockets.
pub fn state_root() -> PathBuf {
    match std::env::var_os("K8SENSUS_STATE") {
        Some(root) if !root.is_empty() => std::path::absolute(&root).unwrap_or_else(|_| root.into()),
        _ => PathBuf::from(format!("/var/tmp/k8sensus-{}", rustix::process::geteuid().as_raw())),
    }
}

/// The files of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Folder {
    /// Returns the folder of the instance of this name, which need not exist.
    pub fn of(name: &str) -> Result<Self, Error> {
        let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let valid = name.len() <= 30
            && name.bytes().all(|c| c == b'-' || edge(Some(c)))
            && edge(name.bytes().next())
            && edge(name.bytes().last());
        if !valid {
            return Err(Error::Name { name: name.to_owned() });
        }
        Ok(Self(state_root().join(name)))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn record(&self) -> PathBuf {
        self.0.join("instance.json")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    pub fn log(&self, component: Component) -> PathBuf {
        self.logs().join(format!("{component}.log"))
    }

    pub fn audit_log(&self) -> PathBuf {
        self.logs().join("audit.log")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    pub(crate) fn pki(&self, file: &str) -> PathBuf {
        self.0.join("pki").join(file)
    }

    pub(crate) fn config(&self, file: &str) -> PathBuf {
        self.0.join("config").join(file)
    }

    pub(crate) fn etcd(&self) -> PathBuf {
        self.0.join("etcd")
    }

    /// Returns the folder that replaces `/var/lib` in the node.
    pub(crate) fn var_lib(&self) -> PathBuf {
        self.0.join("node/lib")
    }

    /// Returns the folder that replaces `/var/log` in the node.
    pub(crate) fn var_log(&self) -> PathBuf {
        self.0.join("node/log")
    }

    pub(crate) fn create(&self) -> Result<(), Error> {
        for folder in ["pki", "config/cni", "logs", "etcd"] {
            private_folder(&self.0.join(folder))?;
        }
        Ok(())
    }

    /// Waits for and acquires the exclusive lock on this instance.
    ///
    /// The lock is on the folder itself, so that nothing of it remains when the folder is removed.
    pub(crate) fn lock(&self) -> Result<File, Error> {
        let root = self.0.parent().unwrap_or(Path::new("/"));
        loop {
            private_folder(root)?;
            refuse_foreign(root)?;
            private_folder(&self.0)?;
            let folder = match File::open(&self.0) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened.at("opening", &self.0)?,
            };
            flock(&folder, FlockOperation::LockExclusive).map_err(Into::into).at("locking", &self.0)?;
            // The former holder of the lock may have removed the folder: then this is the lock of a removed folder.
            let locked = folder.metadata().at("reading", &self.0)?.ino();
            if fs::metadata(&self.0).is_ok_and(|now| now.ino() == locked) {
                return Ok(folder);
            }
        }
    }

    /// Removes everything, and the folder of all instances if this was the last one.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).at("removing", &self.0),
            _ => {}
        }
        if let Some(root) = self.0.parent() {
            // It may have other instances, or another process may have just removed it: neither is an error.
            let _ = fs::remove_dir(root);
        }
        Ok(())
    }
}

/// Creates a folder that only its owner may enter, because it holds the cluster's keys.
pub(crate) fn private_folder(path: &Path) -> Result<(), Error> {
    loop {
        match DirBuilder::new().recursive(true).mode(0o700).create(path) {
            // The removal of another instance may remove the parent meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            created => return created.at("creating", path),
        }
    }
}

/// Refuses a folder of another user: anyone may create a folder or link of this name in `/var/tmp`.
fn refuse_foreign(root: &Path) -> Result<(), Error> {
    let found = fs::symlink_metadata(root).at("reading", root)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        let reason = "expected a folder that this user owns; set K8SENSUS_STATE to such a folder".to_owned();
        return Err(Error::Folder { path: root.to_owned(), reason });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lowercase_labels_and_cannot_leave_the_folder() {
        for name in ["demo", "a", "two-1"] {
            assert_eq!(Folder::of(name).unwrap().path(), state_root().join(name));
        }
        for name in ["", "..", "a/b", "-a", "a-", "Demo", "a234567890123456789012345678901"] {
            assert!(matches!(Folder::of(name), Err(Error::Name { .. })), "{name:?}");
        }
    }
}
