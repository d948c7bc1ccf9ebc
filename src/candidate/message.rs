//! The candidate's termination message: what the kubelet reports when the container has died.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::runtime::end_reason;

/// The kubelet reads the last 4096 bytes: of a longer file it does not see the line.
const LONGEST: u64 = 4096;

/// The file that the kubelet reads when the container has ended, with this process' incarnation as its first line.
///
/// The operator releases the Lease of a container that died with this line in its report. A program that writes a message of
/// its own over it loses nothing but that: then the Lease is left to expire.
#[derive(Debug)]
pub(super) struct TerminationMessage {
    path: PathBuf,
    line: String,
}

impl TerminationMessage {
    /// Writes `incarnation` to `path`.
    pub(super) fn leave(path: &Path, incarnation: &str) -> io::Result<Self> {
        let message = Self { path: path.to_owned(), line: format!("{incarnation}\n") };
        message.write(message.line.as_bytes())?;
        Ok(message)
    }

    /// Takes the line back, and leaves what the program itself may have written. A container that ended in good order then says
    /// what it would say without the candidate.
    pub(super) fn take_back(self) -> io::Result<()> {
        if fs::metadata(&self.path)?.len() > LONGEST {
            return Ok(());
        }
        match fs::read(&self.path)?.strip_prefix(self.line.as_bytes()) {
            Some(rest) => self.write(rest),
            None => Ok(()),
        }
    }

    /// Takes the line back and says `why` the container ends, before what the program itself may have written.
    pub(super) fn replace(self, why: &str) -> io::Result<()> {
        let theirs = fs::read(&self.path)?;
        let theirs = theirs.strip_prefix(self.line.as_bytes()).unwrap_or(&theirs);
        self.write(&[why.as_bytes(), b"\n", theirs].concat())
    }

    /// Adds `why` the container ends to the line, which stays the proof that this process is dead.
    pub(super) fn add(self, why: &str) -> io::Result<()> {
        end_reason::append(&self.path, why)
    }

    /// In place: the kubelet has mounted this very file, and where it has mounted none nothing may come to be.
    fn write(&self, text: &[u8]) -> io::Result<()> {
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        let mut file = OpenOptions::new().write(true).truncate(true).custom_flags(nonblocking).open(&self.path)?;
        file.write_all(text)
    }
}
