//! Processes that end with their test, even if it panics or is killed.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Once, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

/// Starts a process that dies with this one. `Drop` does not suffice: a static is never dropped.
fn spawn(command: &mut Command) -> Child {
    type Job = (Command, SyncSender<std::io::Result<Child>>);
    // The kernel sends the signal when the *thread* that started the process ends, so that thread must not end.
    static SPAWNER: OnceLock<SyncSender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, queue) = sync_channel::<Job>(0);
        std::thread::spawn(move || {
            for (mut command, answer) in queue {
                // SAFETY: prctl is async-signal-safe, and nothing is allocated.
                unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let job = std::mem::replace(command, Command::new(""));
    let text = format!("{job:?}");
    let (answer, child) = sync_channel(1);
    spawner.send((job, answer)).unwrap();
    child.recv().unwrap().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A process that shares the test's standard streams. Killed when dropped.
pub struct Process {
    pub child: Child,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        Self { child: spawn(command) }
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Returns the exit status if the process ends within `limit`.
    pub fn ended(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            let status = self.child.try_wait().unwrap();
            if status.is_some() || start.elapsed() >= limit {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn end(&mut self) {
        // Neither call affects a process that was already waited for, whose PID may belong to another process by now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// A process with its output in a file. Killed when dropped.
pub struct Program {
    process: Process,
    log: PathBuf,
}

impl Program {
    pub fn start(name: &str, command: &mut Command) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        static SWEPT: Once = Once::new();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        SWEPT.call_once(|| sweep(folder));
        let log = folder.join(format!("{}-{number}-{name}.log", std::process::id()));
        let file = File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Self { process: Process::start(command), log }
    }

    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    pub fn says(&self, text: &str) -> bool {
        self.output().contains(text)
    }

    pub fn wait_for(&self, text: &str, limit: Duration) {
        let start = Instant::now();
        while !self.says(text) {
            assert!(start.elapsed() < limit, "{text:?} not within {limit:?} in:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Returns the exit status if the program ends within `limit`.
    pub fn ended(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.process.ended(limit)
    }

    /// Waits until the program ends, which must happen within `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let status = self.ended(limit);
        status.unwrap_or_else(|| panic!("still running after {limit:?}:\n{}", self.output()))
    }

    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(limit)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // First, because the program may write to its log until it ends.
        self.process.end();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.output());
        } else {
            let _ = fs::remove_file(&self.log);
        }
    }
}

/// Removes the logs of test processes that are gone: a program in a static is never dropped, so its log stays.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let writer = name.strip_suffix(".log").and_then(|name| name.split_once('-')).map(|(writer, _)| writer);
        let Some(writer) = writer.and_then(|writer| writer.parse::<u32>().ok()) else { continue };
        if !Path::new("/proc").join(writer.to_string()).exists() {
            let _ = fs::remove_file(entry.path());
        }
    }
}
