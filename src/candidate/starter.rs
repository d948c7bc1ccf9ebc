//! Starts programs on a thread of its own: on a file system that does not answer, a start hangs, and nothing else may.

use std::io;
use std::sync::mpsc::{self, Sender};
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that runs one start after the other. It must outlive every process it started: the kernel counts the end of
/// a thread as the death of the parent of its children, which then get their death signal.
#[derive(Clone)]
pub(super) struct Starter(Sender<Job>);

impl Starter {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn start(name: &str) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::Builder::new().name(name.to_owned()).spawn(move || queue.into_iter().for_each(|job| job()))?;
        Ok(Self(jobs))
    }

    /// Queues `job` behind those that wait already.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) {
        // The thread lives as long as this sender.
        let _ = self.0.send(Box::new(job));
    }
}
