//! The process tree of one command: started, signalled and confirmed gone as a whole.

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

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    /// Its exit code, or 128 + signal, as a shell reports it.
    pub(super) code: u8,
}

/// What a look at the children brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reaped {
    /// Some process still runs.
    Running { command_ended: bool },
    /// Nothing is left: the kernel says that there are no children, and orphans would be ours.
    AllGone,
}

/// How far a SIGKILL went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KillScope {
    /// To all that was left.
    All,
    /// Some process may not be signalled: it runs as another user, and this one lacks CAP_KILL.
    SomeForeign,
}

/// A command and all that it started, and what runs beside it. Clones are the same.
#[derive(Clone)]
pub(super) struct Children {
    tree: Arc<Mutex<Tree>>,
    command_starter: Starter,
    /// Starts probes and hooks: one that hangs must not keep the command from being started, nor the other way round.
    beside_starter: Starter,
    start_ended: Arc<Notify>,
}

#[derive(Default)]
struct Tree {
    command: Option<Pid>,
    exit: Option<Exit>,
    environment: Vec<(&'static str, String)>,
    /// Each the leader of a process group, with whoever waits for its end.
    beside: HashMap<Pid, oneshot::Sender<Exit>>,
    /// Starts that were asked for and have not ended: each may have a child whose number is not known here yet.
    starts: usize,
}

impl Children {
    /// Makes this process the one that inherits orphans, so that "no children" means "no descendants".
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

    /// Starts `command` with `environment` added to this process' own. Standard streams are handed on untouched. The answer comes
    /// when the start has succeeded or failed, however long that takes; [`kill_all`](Children::kill_all) reaches what is being started.
    pub(super) fn start(
        &self,
        command: &[OsString],
        environment: &[(&'static str, String)],
    ) -> oneshot::Receiver<io::Result<()>> {
        let (children, command, environment) = (self.clone(), command.to_vec(), environment.to_vec());
        self.start_by(&self.command_starter, move || children.spawn_command(&command, environment))
    }

    /// Completes after a start has ended. Then [`reap`](Children::reap) may see what it could not see before. Cancel safe.
    pub(super) async fn start_ended(&self) {
        self.start_ended.notified().await;
    }

    fn start_by<T: Send + 'static>(
        &self,
        starter: &Starter,
        spawn: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> oneshot::Receiver<io::Result<T>> {
        let (answer, started) = oneshot::channel();
        let children = self.clone();
        self.tree().starts += 1;
        starter.run(move || {
            // It may have waited behind a start that hung for longer than anybody waits for this one.
            let result = if answer.is_closed() { Err(Errno::CANCELED.into()) } else { spawn() };
            children.tree().starts -= 1;
            // What nobody waits for any more is dropped, and thereby killed.
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

    /// Collects what has ended. Call it after each SIGCHLD; cheap at any time.
    pub(super) fn reap(&self) -> io::Result<Reaped> {
        let mut tree = self.tree();
        if tree.starts > 0 {
            // Whatever is being started is not to be taken for an orphan: nobody would know how it ended.
            tree.reap_known()?;
            return Ok(Reaped::Running { command_ended: tree.exit.is_some() });
        }
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => tree.has_ended(pid, exit_of(status)),
                Ok(None) => return Ok(Reaped::Running { command_ended: tree.exit.is_some() }),
                Err(Errno::CHILD) => return Ok(Reaped::AllGone),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Forgets the command that has ended and says how.
    pub(super) fn take_exit(&self) -> Option<Exit> {
        self.tree().exit.take()
    }

    /// Sends `signal` to the command, if that runs. Its own children are its own affair.
    ///
    /// # Errors
    /// The kernel forbids it: the command runs as another user.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match self.tree().command.map(|command| kill_process(command, signal)) {
            // It may have ended a moment ago; reaping will tell.
            None | Some(Ok(()) | Err(Errno::SRCH)) => Ok(()),
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// Kills whatever is left. Repeat until [`reap`](Children::reap) says that all is gone: what forks may outrun one
    /// round. Waits for nobody, also not for a start that is under way.
    pub(super) fn kill_all(&self) -> io::Result<KillScope> {
        if getpid() != Pid::INIT {
            return kill_descendants();
        }
        // "Process group 1" is kill(2)'s -1: everything in this PID namespace but this process. It does not say whom it had
        // to leave out.
        match kill_process_group(Pid::INIT, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        // Not that of who looks in from outside of the container: what the command left behind is this process' child.
        let left = descendants(processes()?);
        let is_beyond = |one: &Process| one.lives && test_kill_process(one.pid) == Err(Errno::PERM);
        Ok(if left.iter().any(is_beyond) { KillScope::SomeForeign } else { KillScope::All })
    }
}

impl Children {
    /// Starts a probe or a hook in a process group of its own. Only beside the command: without it nobody leads.
    fn spawn_beside(&self, command: &[String]) -> io::Result<(Beside, oneshot::Receiver<Exit>)> {
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
        let (waiting, end) = oneshot::channel();
        self.tree().beside.insert(pid, waiting);
        Ok((Beside { children: self.clone(), pid }, end))
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tree {
    fn has_ended(&mut self, pid: Pid, exit: Exit) {
        if Some(pid) == self.command {
            self.command = None;
            self.exit = Some(exit);
        } else if let Some(waiting) = self.beside.remove(&pid) {
            // Who does not wait any more needs no answer.
            let _ = waiting.send(exit);
        }
    }

    /// Collects those that were started and have ended since, and no others.
    fn reap_known(&mut self) -> io::Result<()> {
        let known: Vec<Pid> = self.command.into_iter().chain(self.beside.keys().copied()).collect();
        for pid in known {
            match rustix::process::waitpid(Some(pid), WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.has_ended(pid, exit_of(status)),
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
            let (_beside, end) = children.start_by(&starter, spawn).await.map_err(io::Error::other)??;
            end.await.map(|exit| exit.code).map_err(io::Error::other)
        })
    }
}

/// A process that somebody waits for. Dropped before its end, it is killed with its group.
struct Beside {
    children: Children,
    pid: Pid,
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Once it was reaped its number may be another's.
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
            // A killed candidate takes its command along where it is not PID 1 of a container.
            set_parent_process_death_signal(Some(Signal::KILL))?;
            match rustix::process::getppid() {
                Some(now) if now == parent => Ok(()),
                // The candidate died meanwhile; nobody is left to read this.
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
    let mut reach = KillScope::All;
    for one in descendants(processes()?) {
        // Whoever has the number now is held by the descriptor, and is still the one that was found if its parent is.
        let held = pidfd_open(one.pid, PidfdFlags::empty());
        if !Process::of(one.pid).is_some_and(|now| now.parent == one.parent || now.parent == Some(getpid())) {
            continue;
        }
        let killed = match held {
            Ok(held) => pidfd_send_signal(held, Signal::KILL),
            // An old kernel, or a profile that forbids it.
            Err(_) => kill_process(one.pid, Signal::KILL),
        };
        if killed == Err(Errno::PERM) {
            reach = KillScope::SomeForeign;
        }
    }
    Ok(reach)
}

/// Those of `all` that are below this process.
fn descendants(mut all: Vec<Process>) -> Vec<Process> {
    let mut found = vec![getpid()];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(all.iter().filter(|one| one.parent == Some(parent)).map(|one| one.pid));
        next += 1;
    }
    all.retain(|one| found[1..].contains(&one.pid));
    all
}

struct Process {
    pid: Pid,
    parent: Option<Pid>,
    /// It is no zombie.
    lives: bool,
}

impl Process {
    /// `None` if it is gone.
    fn of(pid: Pid) -> Option<Self> {
        Self::in_stat(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// From `/proc/PID/stat`, whose second field, in parentheses, may hold anything.
    fn in_stat(pid: Pid, stat: &str) -> Option<Self> {
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let [state, parent, ..] = fields[..] else { return None };
        // The main thread alone may have ended.
        let threads: u32 = fields.get(17)?.parse().ok()?;
        let lives = !matches!(state, "Z" | "X") || threads > 1;
        Some(Self { pid, parent: Pid::from_raw(parent.parse().ok()?), lives })
    }
}

/// All that run, from one pass over `/proc`.
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

    fn process(begin: &str, threads: u32) -> Option<Process> {
        Process::in_stat(Pid::INIT, &format!("{begin} 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 {threads} 0 99 0"))
    }

    #[test]
    fn the_parent_is_found_behind_a_program_name_full_of_parentheses() {
        let found = process("42 (a) Z (b)) S 7", 1).unwrap();
        assert_eq!((found.parent, found.lives), (Pid::from_raw(7), true));
        assert!(Process::in_stat(Pid::INIT, "42 (short)").is_none());
    }

    #[test]
    fn a_process_whose_main_thread_alone_has_ended_lives() {
        assert!(!process("42 (a) Z 7", 1).unwrap().lives);
        assert!(process("42 (a) Z 7", 2).unwrap().lives);
    }
}
