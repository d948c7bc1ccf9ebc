//! A machine: its files, its programs, and whether packages may be installed.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::need::{FoundBy, Need};
use crate::programs::{is_program, search_path};

/// This machine, or a folder that represents one in a test.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(crate) root: PathBuf,
    pub(crate) path: OsString,
    pub(crate) is_root: bool,
    pub(crate) may_install: bool,
}

impl Machine {
    pub fn this() -> Self {
        Self { root: "/".into(), path: search_path(), is_root: user() == 0, may_install: crate::install::is_allowed() }
    }

    pub fn is_root(&self) -> bool {
        self.is_root
    }

    pub(crate) fn has(&self, need: &Need) -> bool {
        match need.found_by {
            FoundBy::Programs(programs) => programs.iter().all(|program| self.program(program).is_some()),
            FoundBy::Library(library) => self.has_library(library),
            FoundBy::File(file) => self.root.join(file).exists(),
            FoundBy::Versioned(folder, file) => {
                let mut versions = fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten();
                versions.any(|version| version.path().join(file).exists())
            }
        }
    }

    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        env::split_paths(&self.path).map(|folder| folder.join(name)).find(|file| is_program(file))
    }

    fn has_library(&self, library: &str) -> bool {
        let Some(program) = self.program("pkg-config") else { return false };
        let mut command = Command::new(program);
        let status = command.args(["--exists", library]).env("PATH", &self.path).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    }

    /// Returns apt-get, if this user may install packages with it.
    pub(crate) fn installer(&self) -> Option<PathBuf> {
        let debian = self.root.join("etc/debian_version").exists();
        if self.is_root && self.may_install && debian { self.program("apt-get") } else { None }
    }
}

/// Returns the effective user of this process.
pub(crate) fn user() -> u32 {
    fs::metadata("/proc/self").map_or(u32::MAX, |process| process.uid())
}
