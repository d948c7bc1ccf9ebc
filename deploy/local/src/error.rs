//! Errors. Each names what was expected, what was found, the file or component, and the remedy.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::component::Component;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("this machine lacks what a local cluster needs:\n{}", list(.missing))]
    Prerequisites { missing: Vec<String> },

    #[error(
        "building {set} failed ({status}); the end of its output:\n{tail}\n\
         fix the cause and run again: program sets that are built are kept"
    )]
    Build { set: String, status: String, tail: String },

    #[error("{doing} {}: {source}", .path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },

    #[error("`{command}` failed ({status}): {output}")]
    Command { command: String, status: String, output: String },

    #[error("instance name {name:?}: expected 1 to 30 of a-z, 0-9 and -, with a letter or digit at both ends")]
    Name { name: String },

    #[error("folder {}: {reason}", .path.display())]
    Folder { path: PathBuf, reason: String },

    #[error("record {}: {reason}; `cargo demo -- down` removes the instance", .path.display())]
    Record { path: PathBuf, reason: String },

    #[error(
        "no instance {name:?} is running: `cargo demo -- up --name {name}` starts it, \
         `cargo demo -- status` lists running instances"
    )]
    NotRunning { name: String },

    #[error("instance {name:?} belongs to process {pid}, which still runs: choose another name or wait for its end")]
    Owned { name: String, pid: i32 },

    #[error("instance {name:?} is a {found}, expected a {wanted}: choose another name or take the instance down first")]
    OtherMode { name: String, found: &'static str, wanted: &'static str },

    #[error("{component} exited unexpectedly; the end of {}:\n{tail}", .log.display())]
    Died { component: Component, log: PathBuf, tail: String },

    #[error(
        "{component} was not ready within {} s (last observed: {last}); the end of {}:\n{tail}",
        .waited.as_secs(), .log.display()
    )]
    NotReady { component: Component, waited: Duration, last: String, log: PathBuf, tail: String },

    #[error("no {what} within {} s (last observed: {last})", .limit.as_secs())]
    Timeout { what: String, limit: Duration, last: String },

    #[error("this instance has no {component}: {reason}")]
    NoComponent { component: Component, reason: &'static str },

    #[error("cannot set up the node's namespaces: {reason}")]
    Namespaces { reason: String },

    #[error("certificates: {0}")]
    Certificates(#[from] rcgen::Error),

    #[error("cannot connect to the API server: {reason}")]
    Api { reason: String },

    #[error("after `down`, instance {name:?} still has {what}: please report this, with the instance's folder")]
    Leftovers { name: String, what: String },
}

impl Error {
    pub(crate) fn died(component: Component, log: PathBuf) -> Self {
        let tail = tail(&log);
        Self::Died { component, log, tail }
    }

    pub(crate) fn not_ready(component: Component, waited: Duration, last: String, log: PathBuf) -> Self {
        let tail = tail(&log);
        Self::NotReady { component, waited, last, log, tail }
    }

    /// Returns whether a component failed because its port was in use, so that other ports may help.
    pub(crate) fn is_port_taken(&self) -> bool {
        matches!(self, Self::Died { tail, .. } | Self::NotReady { tail, .. } if tail.contains("address already in use"))
    }
}

/// Adds the file to an IO error.
pub(crate) trait At<T> {
    fn at(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T, Error>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T, Error> {
        self.map_err(|source| Error::Io { doing, path: path.as_ref().to_owned(), source })
    }
}

/// Runs a command and returns its standard output.
pub(crate) fn run(command: &mut Command) -> Result<String, Error> {
    let output = command.stdin(Stdio::null()).output().at("running", command.get_program())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failed(command, output.status, &output.stderr))
}

pub(crate) fn failed(command: &Command, status: ExitStatus, output: &[u8]) -> Error {
    Error::Command {
        command: literal(command),
        status: status.to_string(),
        output: String::from_utf8_lossy(output).trim().to_owned(),
    }
}

/// Returns the command as a shell user would type it.
pub(crate) fn literal(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let _ = write!(text, " {}", argument.to_string_lossy());
    }
    text
}

/// Returns the last lines of a log, indented.
pub(crate) fn tail(log: &Path) -> String {
    const LINES: usize = 15;
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return "    (empty)".to_owned();
    }
    lines[lines.len().saturating_sub(LINES)..].iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

fn list(lines: &[String]) -> String {
    lines.iter().map(|line| format!("  - {line}")).collect::<Vec<_>>().join("\n")
}
