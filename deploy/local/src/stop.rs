//! Takes instances down from their record alone, independently of the process that started them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::component::Component;
use crate::error::{At, Error};
use crate::folder::{Folder, state_root};
use crate::instance::Instance;
use crate::process::Process;
use crate::{cgroup, network};

/// An environment variable of every process of an instance, with the instance's folder as its value. It finds processes
/// without a record, whose launcher was killed between starting and recording them.
pub(crate) const MARK: &str = "K8SENSUS_INSTANCE";

const LIMIT: Duration = Duration::from_secs(20);
const ANCHOR_LIMIT: Duration = Duration::from_secs(5);

/// Takes the instance down; returns whether there was one.
///
/// # Guarantees
/// On success no process, mount, interface, namespace, cgroup or file of the instance is left.
///
/// # Errors
/// If something could not be removed, or if the instance belongs to another process that still runs.
pub fn down(name: &str) -> Result<bool, Error> {
    let folder = Folder::of(name)?;
    if !folder.path().exists() {
        return Ok(false);
    }
    let _lock = folder.lock()?;
    if let Ok(Some(Instance { owner: Some(owner), .. })) = Instance::load(&folder)
        && owner.alive()
        && owner != Process::current()
    {
        return Err(Error::Owned { name: name.to_owned(), pid: owner.pid });
    }
    end(&folder)?;
    folder.remove()?;
    Ok(true)
}

/// Takes down every instance whose owner ended without taking it down.
pub fn sweep() {
    for (name, folder) in folders() {
        if matches!(Instance::load(&folder), Ok(Some(instance)) if instance.is_stale()) {
            // Another process may sweep at the same time; the next start retries.
            let _ = down(&name);
        }
    }
}

/// Returns the names of all instances, each with its record or the error of reading it.
pub fn instances() -> Vec<(String, Result<Option<Instance>, Error>)> {
    folders().into_iter().map(|(name, folder)| (name, Instance::load(&folder))).collect()
}

fn folders() -> Vec<(String, Folder)> {
    let entries = fs::read_dir(state_root()).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names.into_iter().filter_map(|name| Some((name.clone(), Folder::of(&name).ok()?))).collect()
}

/// Ends all processes, removes everything outside the folder, and empties the folder. The caller holds its lock.
pub(crate) fn end(folder: &Folder) -> Result<(), Error> {
    let node = Instance::load(folder).ok().flatten().and_then(|instance| instance.node);
    end_processes(folder);
    if let Some(node) = &node {
        network::remove_pair(node);
        cgroup::remove(&node.cgroup)?;
    }
    for entry in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
        let path = entry.path();
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.at("removing", &path)?;
    }
    let left = Leftovers::of(folder, node.as_ref().map(|node| (node.interface.as_str(), node.cgroup.as_str())));
    if left.is_empty() {
        return Ok(());
    }
    let name = folder.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    Err(Error::Leftovers { name, what: format!("{left:?}") })
}

/// Kills every process of the instance and waits for its end. There is no SIGTERM first, because no data is kept.
pub(crate) fn end_processes(folder: &Folder) {
    let mut processes = Vec::new();
    if let Ok(Some(instance)) = Instance::load(folder)
        && instance.this_boot()
    {
        // The anchor comes first: everything inside ends with it, including containers.
        processes.extend(instance.node.as_ref().and_then(|node| node.anchor));
        processes.extend(instance.processes.values());
    }
    loop {
        for process in &processes {
            let _ = process.signal(libc::SIGKILL);
        }
        // The anchor ends after all others, so these are waited for, and reaped, first. If the machine's PID 1 does not
        // reap, as in some containers, an anchor whose processes are all zombies stays, and a longer wait is useless.
        let anchor = processes.first().copied();
        for process in processes.iter().rev() {
            process.wait(if Some(*process) == anchor { ANCHOR_LIMIT } else { LIMIT });
        }
        let more = marked(folder.path());
        if more.is_empty() || more == processes {
            return;
        }
        processes = more;
    }
}

/// Returns the processes that were started as part of the instance in this folder.
fn marked(folder: &Path) -> Vec<Process> {
    let mark = [MARK.as_bytes(), b"=", folder.as_os_str().as_encoded_bytes()].concat();
    let own = std::process::id().cast_signed();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != own)
        .filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| entry == mark)
        })
        .filter_map(Process::of)
        .collect()
}

/// The remains of an instance; empty after [`down`].
#[derive(Debug, Default, PartialEq, Eq)]
struct Leftovers {
    processes: Vec<Process>,
    mounts: Vec<String>,
    interfaces: Vec<String>,
    cgroups: Vec<PathBuf>,
}

impl Leftovers {
    fn of(folder: &Folder, outside: Option<(&str, &str)>) -> Self {
        let path = folder.path().to_string_lossy().into_owned();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self {
            processes: marked(folder.path()),
            mounts: mounts.lines().filter(|line| line.contains(&format!("{path}/"))).map(str::to_owned).collect(),
            interfaces: outside
                .filter(|(interface, _)| Path::new("/sys/class/net").join(interface).exists())
                .map(|(interface, _)| interface.to_owned())
                .into_iter()
                .collect(),
            cgroups: outside.map(|(_, cgroup)| cgroup::existing(cgroup)).unwrap_or_default(),
        }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Ends one component gracefully, because the others keep running.
pub(crate) fn stop(instance: &Instance, component: Component) -> Result<(), Error> {
    match instance.running(component) {
        Some(process) => process.terminate(Duration::from_secs(10)).at("stopping", component.program()),
        None => Ok(()),
    }
}
