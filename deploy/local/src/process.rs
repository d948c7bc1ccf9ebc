//! Processes that are recorded in a file and signalled later, perhaps by another program, even if pids are reused.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid};
use serde::{Deserialize, Serialize};

/// A process, identified by its pid and its start, in clock ticks since boot (`proc_pid_stat(5)`, field 22).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    pub started: u64,
}

impl Process {
    /// Returns the process that has this pid now; `None` if there is none or it is a zombie.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, started) = parse_stat(&stat)?;
        (!matches!(state, 'Z' | 'X')).then_some(Self { pid, started })
    }

    /// Returns a child that was just started, even if it has already ended: its pid cannot have been reused yet.
    pub(crate) fn of_child(pid: i32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, started) = parse_stat(&stat).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { pid, started })
    }

    pub fn current() -> Self {
        let pid = std::process::id().cast_signed();
        Self::of(pid).unwrap_or(Self { pid, started: 0 })
    }

    /// Returns whether it still runs; reaps it if it is an exited child of this process.
    pub fn alive(self) -> bool {
        self.reap();
        Self::of(self.pid) == Some(self)
    }

    /// Returns whether it is stopped by SIGSTOP.
    pub fn paused(self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        parse_stat(&stat) == Some(('T', self.started))
    }

    /// Sends a signal; does nothing if the process is gone.
    pub fn signal(self, signal: i32) -> io::Result<()> {
        let Some(descriptor) = self.open() else { return Ok(()) };
        let signal = Signal::from_named_raw(signal).ok_or(io::ErrorKind::InvalidInput)?;
        match pidfd_send_signal(&descriptor, signal) {
            Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it has exited; returns false if it has not within `limit`.
    pub fn wait(self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.alive() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let Some(descriptor) = self.open() else { continue };
            let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            let _ = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&left));
        }
        true
    }

    /// Sends SIGTERM, and SIGKILL after `grace`. A stopped process also gets SIGCONT, because it could not handle
    /// SIGTERM.
    pub fn terminate(self, grace: Duration) -> io::Result<()> {
        self.signal(libc::SIGTERM)?;
        self.signal(libc::SIGCONT)?;
        if !self.wait(grace) {
            self.signal(libc::SIGKILL)?;
            self.wait(Duration::from_secs(10));
        }
        Ok(())
    }

    /// Opens a descriptor of exactly this process. It is checked after the open, so that the pid cannot be reused in
    /// between.
    fn open(self) -> Option<OwnedFd> {
        let descriptor = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        (Self::of(self.pid) == Some(self)).then_some(descriptor)
    }

    fn reap(self) {
        // Affects only children of this process; for every other process the kernel returns ECHILD.
        let _ = waitpid(Pid::from_raw(self.pid), WaitOptions::NOHANG);
    }
}

/// Returns state and start time. The program's name, in parentheses, may itself contain spaces and parentheses.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Returns the ID of this boot of the machine: start times of processes are meaningless after a reboot.
pub(crate) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_program_name_with_spaces_and_parentheses_is_skipped() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 999 1";
        assert_eq!(parse_stat(stat), Some(('S', 4711)));
    }

    #[test]
    fn reused_pid_is_never_signalled() {
        let current = Process::current();
        let former = Process { started: current.started - 1, ..current };
        assert!(current.alive());
        assert!(!former.alive());
        former.signal(libc::SIGKILL).unwrap();
    }

    #[test]
    fn stopped_process_is_terminated_and_reaped() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of(child.id().cast_signed()).unwrap();
        process.signal(libc::SIGSTOP).unwrap();
        process.terminate(Duration::from_secs(5)).unwrap();
        assert!(!process.alive());
        child.wait().expect_err("the child was already reaped");
    }
}
