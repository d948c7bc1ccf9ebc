//! The process tree of one command: starts it, signals it, and confirms that it is gone as a whole.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpid, kill_process, kill_process_group, pidfd_open,
    pidfd_send_signal, set_child_subreaper, set_parent_process_death_signal, test_kill_process,
};
use tokio::sync::{Notify, oneshot};

use super::app::probe::Runner;
use super::starter::Starter;

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    /// The exit code, or 128 + signal, as a shell reports it.
    pub(super) code: u8,
}

/// The state of the process tree after ended children were reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reaped {
    /// At least one process still runs.
    Running { command_ended: bool },
    /// Nothing is left: the kernel reports no children, and orphans would be children of this process.
    AllGone,
}

/// The reach of a SIGKILL to the process tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KillScope {
    /// All remaining processes got it.
    All,
    /// At least one process may not be signalled: it runs as another user, and this process lacks CAP_KILL.
    SomeForeign,
}

/// A command with its descendants, and the probes and hooks beside it. Clones share the same tree.
#[derive(Clone)]
pub(super) struct Children {
    tree: Arc<Mutex<Tree>>,
    command_starter: Starter,
    /// Starts probes and hooks. A start that hangs here must not block the start of the command, nor the reverse.
    beside_starter: Starter,
    start_ended: Arc<Notify>,
}

#[derive(Default)]
struct Tree {
    command: Option<Pid>,
    exit: Option<Exit>,
    environment: Vec<(&'static str, String)>,
    /// Running probes and hooks, each the leader of a process group, with the channel that waits for its end.
    beside: HashMap<Pid, oneshot::Sender<Exit>>,
    /// The starts in progress: each may have a child whose process id is not known here yet.
    pending_starts: usize,
}

impl Children {
    /// Makes this process inherit orphans, so that "no children" means "no descendants".
    pub(super) fn adopt_orphans() -> io::Result<Self> {
        // PID 1 of a container inherits them anyway.
        set_child_subreaper(Some(getpid()))?;
        Ok(Self {
            tree: Arc::default(),
            command_starter: Starter::start("start")?,
            beside_starter: Starter::start("start-beside")?,
            start_ended: Arc::default(),
        })
    }

    /// Starts `command` with `environment` added to this process' own and with unchanged standard streams. The result
    /// arrives when the start has succeeded or failed, however long that takes; [`kill_all`](Children::kill_all) also
    /// reaches a command that is still starting.
    pub(super) fn start(
        &self,
        command: &[OsString],
        environment: &[(&'static str, String)],
    ) -> oneshot::Receiver<io::Result<()>> {
        let (children, command, environment) = (self.clone(), command.to_vec(), environment.to_vec());
        self.start_on(&self.command_starter, move || children.spawn_command(&command, environment))
    }

    /// Completes after a start has ended; [`reap`](Children::reap) may then find more than before. Cancel safe.
    pub(super) async fn start_ended(&self) {
        self.start_ended.notified().await;
    }

    fn start_on<T: Send + 'static>(
        &self,
        starter: &Starter,
        spawn: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> oneshot::Receiver<io::Result<T>> {
        let (answer, started) = oneshot::channel();
        let children = self.clone();
        self.tree().pending_starts += 1;
        starter.run(move || {
            // The start may have waited behind one that hung, for longer than its caller waits.
            let result = if answer.is_closed() { Err(Errno::CANCELED.into()) } else { spawn() };
            children.tree().pending_starts -= 1;
            // A result without a receiver is dropped, which kills its process.
            drop(answer.send(result));
            children.start_ended.notify_one();
        });
        started
    }

    fn spawn_command(&self, command: &[OsString], environment: Vec<(&'static str, String)>) -> io::Result<()> {
        let mut child = prepare(command, &environment)?;
        // On a terminal only its foreground group may read: there the command shares this process' group.
        if !io::stdin().is_terminal() {
            child.process_group(0);
        }
        let child = child.spawn()?;
        let mut tree = self.tree();
        tree.command = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        tree.exit = None;
        tree.environment = environment;
        Ok(())
    }

    /// Reaps ended children. Call it after each SIGCHLD; cheap at any time.
    pub(super) fn reap(&self) -> io::Result<Reaped> {
        let mut tree = self.tree();
        if tree.pending_starts > 0 {
            // A child that is being started must not be mistaken for an orphan: its exit code would be lost.
            tree.reap_known()?;
            return Ok(Reaped::Running { command_ended: tree.exit.is_some() });
        }
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => tree.record_end(pid, exit_of(status)),
                Ok(None) => return Ok(Reaped::Running { command_ended: tree.exit.is_some() }),
                Err(Errno::CHILD) => return Ok(Reaped::AllGone),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns the end of the command, and forgets it.
    pub(super) fn take_exit(&self) -> Option<Exit> {
        self.tree().exit.take()
    }

    /// Sends `signal` to the command, if it runs, but not to the command's own children.
    ///
    /// # Errors
    /// The kernel forbids it: the command runs as another user.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match self.tree().command.map(|command| kill_process(command, signal)) {
            // The command may have ended a moment ago; the next reap finds that.
            None | Some(Ok(()) | Err(Errno::SRCH)) => Ok(()),
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// Kills all remaining processes. Repeat until [`reap`](Children::reap) reports that all are gone: processes that
    /// fork may outrun one round. Does not wait, not even for a start in progress.
    pub(super) fn kill_all(&self) -> io::Result<KillScope> {
        if getpid() != Pid::INIT {
            return kill_descendants();
        }
        // "Process group 1" is kill(2)'s -1: everything in this PID namespace except this process. The kernel does not
        // report which processes it had to leave out.
        match kill_process_group(Pid::INIT, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        // Only descendants count, not a process from outside the container that entered its namespace.
        let remaining = descendants(processes()?);
        let is_foreign = |process: &Process| process.alive && test_kill_process(process.pid) == Err(Errno::PERM);
        Ok(if remaining.iter().any(is_foreign) { KillScope::SomeForeign } else { KillScope::All })
    }
}

impl Children {
    /// Starts a probe or a hook in a process group of its own. Fails without a running command, since then there is no
    /// leader.
    fn spawn_beside(&self, command: &[String]) -> io::Result<(SideProcess, oneshot::Receiver<Exit>)> {
        let environment = {
            let tree = self.tree();
            if tree.command.is_none() {
                return Err(io::Error::other("the command does not run"));
            }
            tree.environment.clone()
        };
        let mut child = prepare(command, &environment)?;
        child.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = child.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        let (sender, end) = oneshot::channel();
        self.tree().beside.insert(pid, sender);
        Ok((SideProcess { children: self.clone(), pid }, end))
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tree {
    fn record_end(&mut self, pid: Pid, exit: Exit) {
        if Some(pid) == self.command {
            self.command = None;
            self.exit = Some(exit);
        } else if let Some(sender) = self.beside.remove(&pid) {
            // The receiver may be gone, and then needs no answer.
            let _ = sender.send(exit);
        }
    }

    /// Reaps only the processes that this tree has started and knows.
    fn reap_known(&mut self) -> io::Result<()> {
        let known: Vec<Pid> = self.command.into_iter().chain(self.beside.keys().copied()).collect();
        for pid in known {
            match rustix::process::waitpid(Some(pid), WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.record_end(pid, exit_of(status)),
                Ok(None) | Err(Errno::INTR | Errno::CHILD) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Runner for Children {
    fn run(&self, command: Vec<String>) -> BoxFuture<'static, io::Result<u8>> {
        let children = self.clone();
        Box::pin(async move {
            let starter = children.beside_starter.clone();
            let spawn = {
                let children = children.clone();
                move || children.spawn_beside(&command)
            };
            let (_beside, end) = children.start_on(&starter, spawn).await.map_err(io::Error::other)??;
            end.await.map(|exit| exit.code).map_err(io::Error::other)
        })
    }
}

/// A running probe or hook. Dropped before its end, it is killed with its process group.
struct SideProcess {
    children: Children,
    pid: Pid,
}

impl Drop for SideProcess {
    fn drop(&mut self) {
        // Once the process was reaped, its id may belong to another process.
        if self.children.tree().beside.remove(&self.pid).is_some() {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }
}

fn prepare(command: &[impl AsRef<OsStr>], environment: &[(&'static str, String)]) -> io::Result<Command> {
    let [program, arguments @ ..] = command else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "expected a program to start, found an empty command"));
    };
    let mut child = Command::new(program);
    child.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
    let parent = getpid();
    // SAFETY: between fork and exec only prctl and getppid are called, and nothing is allocated: all of it is
    // async-signal-safe.
    unsafe {
        child.pre_exec(move || {
            // When the candidate is killed, the command dies with it, also where the candidate is not PID 1 of a
            // container.
            set_parent_process_death_signal(Some(Signal::KILL))?;
            match rustix::process::getppid() {
                Some(now) if now == parent => Ok(()),
                // The candidate died meanwhile, so this error has no reader.
                _ => Err(Errno::SRCH.into()),
            }
        });
    }
    Ok(child)
}

fn exit_of(status: WaitStatus) -> Exit {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    Exit { code: code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX) }
}

/// Kills all processes below this one.
fn kill_descendants() -> io::Result<KillScope> {
    let mut scope = KillScope::All;
    for process in descendants(processes()?) {
        // The descriptor pins the process that has the id now; it is the one found before if its parent matches.
        let descriptor = pidfd_open(process.pid, PidfdFlags::empty());
        if !Process::of(process.pid).is_some_and(|now| now.parent == process.parent || now.parent == Some(getpid())) {
            continue;
        }
        let killed = match descriptor {
            Ok(descriptor) => pidfd_send_signal(descriptor, Signal::KILL),
            // An old kernel, or a seccomp profile that forbids pidfd_open.
            Err(_) => kill_process(process.pid, Signal::KILL),
        };
        if killed == Err(Errno::PERM) {
            scope = KillScope::SomeForeign;
        }
    }
    Ok(scope)
}

/// Returns those of `all` that are descendants of this process.
fn descendants(mut all: Vec<Process>) -> Vec<Process> {
    let mut found = vec![getpid()];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(all.iter().filter(|process| process.parent == Some(parent)).map(|process| process.pid));
        next += 1;
    }
    all.retain(|process| found[1..].contains(&process.pid));
    all
}

struct Process {
    pid: Pid,
    parent: Option<Pid>,
    /// Whether it is more than a zombie.
    alive: bool,
}

impl Process {
    /// Reads the process `pid`; `None` if it is gone.
    fn of(pid: Pid) -> Option<Self> {
        Self::parse_stat(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Parses `/proc/PID/stat`, whose second field, in parentheses, may hold any characters.
    fn parse_stat(pid: Pid, stat: &str) -> Option<Self> {
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let [state, parent, ..] = fields[..] else { return None };
        // A process whose main thread has ended may still have other threads.
        let threads: u32 = fields.get(17)?.parse().ok()?;
        let alive = !matches!(state, "Z" | "X") || threads > 1;
        Some(Self { pid, parent: Pid::from_raw(parent.parse().ok()?), alive })
    }
}

/// Returns all processes, from one pass over `/proc`.
fn processes() -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let pid = entry?.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        found.extend(pid.and_then(Process::of));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{Pid, Process};

    fn process(start: &str, threads: u32) -> Option<Process> {
        Process::parse_stat(Pid::INIT, &format!("{start} 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 {threads} 0 99 0"))
    }

    #[test]
    fn stat_is_parsed_after_a_program_name_full_of_parentheses() {
        let found = process("42 (a) Z (b)) S 7", 1).unwrap();
        assert_eq!((found.parent, found.alive), (Pid::from_raw(7), true));
        assert!(Process::parse_stat(Pid::INIT, "42 (short)").is_none());
    }

    #[test]
    fn a_process_is_alive_after_its_main_thread_alone_has_ended() {
        assert!(!process("42 (a) Z 7", 1).unwrap().alive);
        assert!(process("42 (a) Z 7", 2).unwrap().alive);
    }
}
