//! One thread that starts every process of every instance.
//!
//! Two properties of the kernel require it. The death signal that ties a component to its owner fires when the *thread*
//! that started it ends, so that thread must last as long as the process. And the process namespace of a child is set
//! on the thread that starts it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use rustix::process::{Signal, getppid, set_parent_process_death_signal, setsid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::process::Process;

/// How long a started process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// It is killed when this process ends, even if this process is killed.
    WithThisProcess,
    /// It runs until it is taken down.
    Detached,
}

/// Where a process starts.
pub(crate) enum Place {
    Host,
    /// As PID 1 of new network, mount and process namespaces.
    NewNamespaces,
    Namespaces(Namespaces),
}

/// The namespaces of a node, held open.
pub(crate) struct Namespaces {
    process: File,
    network: File,
    mount: File,
}

impl Namespaces {
    pub(crate) fn of(anchor: Process) -> io::Result<Self> {
        let open = |kind| File::open(format!("/proc/{}/ns/{kind}", anchor.pid));
        Ok(Self { process: open("pid")?, network: open("net")?, mount: open("mnt")? })
    }
}

/// Starts a process in its own session.
pub(crate) fn spawn(mut command: Command, place: Place, lifetime: Lifetime) -> io::Result<Process> {
    on_thread(move || {
        let home = File::open("/proc/thread-self/ns/pid")?;
        let owner = rustix::process::getpid();
        match &place {
            Place::Host => {}
            // SAFETY: a new process namespace concerns only this thread's future children.
            Place::NewNamespaces => unsafe { unshare_unsafe(UnshareFlags::NEWPID)? },
            Place::Namespaces(inner) => {
                move_into_link_name_space(inner.process.as_fd(), Some(LinkNameSpaceType::ProcessID))?
            }
        }
        let on_host = matches!(place, Place::Host);
        let prepare = move || {
            setsid()?;
            if lifetime == Lifetime::WithThisProcess {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                // The owner may have died before this request. (Its pid is not visible from other namespaces.)
                if on_host && getppid() != Some(owner) {
                    return Err(io::ErrorKind::NotConnected.into());
                }
            }
            match &place {
                Place::Host => {}
                // SAFETY: between fork and exec this process has one thread and shares no file system state.
                Place::NewNamespaces => unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET)? },
                Place::Namespaces(inner) => {
                    move_into_link_name_space(inner.network.as_fd(), Some(LinkNameSpaceType::Network))?;
                    move_into_link_name_space(inner.mount.as_fd(), Some(LinkNameSpaceType::Mount))?;
                }
            }
            Ok(())
        };
        // SAFETY: `prepare` makes system calls only; it neither allocates nor locks.
        let spawned = unsafe { command.pre_exec(prepare) }.spawn();
        if !on_host {
            move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::ProcessID))?;
        }
        Process::of_child(spawned?.id().cast_signed())
    })
}

type Job = Box<dyn FnOnce() + Send>;

fn on_thread<T: Send + 'static>(job: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    static THREAD: OnceLock<Sender<Job>> = OnceLock::new();
    let jobs = THREAD.get_or_init(|| {
        let (sender, receiver) = channel::<Job>();
        thread::spawn(move || receiver.into_iter().for_each(|job| job()));
        sender
    });
    let (answer, result) = channel();
    let job: Job = Box::new(move || drop(answer.send(job())));
    let lost = || io::Error::other("the thread that starts processes has ended");
    jobs.send(job).map_err(|_| lost())?;
    result.recv().map_err(|_| lost())?
}
