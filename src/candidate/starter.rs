//! Starts programs on a thread of its own: where a file system does not answer, a start hangs, and nothing else may.

use std::io;
use std::sync::mpsc::{self, Sender};
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that carries out one start after the other. It must outlive whatever it started: the kernel counts the end of a thread
/// as that of the parent of its children, which then get their death signal.
#[derive(Clone)]
pub(super) struct Starter(Sender<Job>);

impl Starter {
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(name: &str) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::Builder::new().name(name.to_owned()).spawn(move || queue.into_iter().for_each(|job| job()))?;
        Ok(Self(jobs))
    }

    /// Runs `job` behind those that wait already.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) {
        // The thread lives as long as this sender.
        let _ = self.0.send(Box::new(job));
    }
}
