//! The candidate's termination message: the text that the kubelet reports when the container has died.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::runtime::end_reason;

/// The kubelet reads only the last 4096 bytes, so it does not see the first line of a longer file.
const LONGEST: u64 = 4096;

/// The file that the kubelet reads when the container has ended, with this process' incarnation as its first line.
///
/// The operator releases the Lease of a container that died with this line in its report. A program that overwrites the
/// file with a message of its own loses only that: the Lease is then left to expire.
#[derive(Debug)]
pub(super) struct TerminationMessage {
    path: PathBuf,
    line: String,
}

impl TerminationMessage {
    /// Writes `incarnation` to `path`.
    pub(super) fn write_incarnation(path: &Path, incarnation: &str) -> io::Result<Self> {
        let message = Self { path: path.to_owned(), line: format!("{incarnation}\n") };
        message.write(message.line.as_bytes())?;
        Ok(message)
    }

    /// Removes the line, and keeps what the program itself may have written. A container that ended in order then
    /// reports what it would report without the candidate.
    pub(super) fn remove_incarnation(self) -> io::Result<()> {
        if fs::metadata(&self.path)?.len() > LONGEST {
            return Ok(());
        }
        match fs::read(&self.path)?.strip_prefix(self.line.as_bytes()) {
            Some(rest) => self.write(rest),
            None => Ok(()),
        }
    }

    /// Replaces the line with `why` the container ends, and keeps what the program itself may have written.
    pub(super) fn replace(self, why: &str) -> io::Result<()> {
        let own_text = fs::read(&self.path)?;
        let own_text = own_text.strip_prefix(self.line.as_bytes()).unwrap_or(&own_text);
        self.write(&[why.as_bytes(), b"\n", own_text].concat())
    }

    /// Appends `why` the container ends. The line stays as the proof that this process is dead.
    pub(super) fn add(self, why: &str) -> io::Result<()> {
        end_reason::append(&self.path, why)
    }

    /// Writes in place: the kubelet has mounted this very file, and where it has mounted none, no file may be created.
    fn write(&self, text: &[u8]) -> io::Result<()> {
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        let mut file = OpenOptions::new().write(true).truncate(true).custom_flags(nonblocking).open(&self.path)?;
        file.write_all(text)
    }
}
