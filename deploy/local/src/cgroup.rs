//! The cgroups of a node's pods: one root in each hierarchy.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{At, Error};

const MOUNTS: &str = "/sys/fs/cgroup";
/// The controllers that the kubelet needs in a cgroup v2 root.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];
/// How long processes may take to freeze or thaw: an uninterruptible system call delays a freeze.
const FREEZE_LIMIT: Duration = Duration::from_secs(5);

/// Creates the root in every hierarchy.
pub(crate) fn create(root: &str) -> Result<(), Error> {
    for hierarchy in hierarchies()? {
        let path = hierarchy.path.join(root.trim_start_matches('/'));
        match fs::create_dir(&path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error).at("creating", &path),
            _ => {}
        }
        if hierarchy.unified && hierarchy.main {
            enable(&hierarchy.path)?;
            enable(&path)?;
        }
    }
    Ok(())
}

/// Removes the root from every hierarchy, and waits a little until the kernel has released the last process.
pub(crate) fn remove(root: &str) -> Result<(), Error> {
    let deadline = Instant::now() + Duration::from_secs(5);
    for hierarchy in hierarchies()? {
        let path = hierarchy.path.join(root.trim_start_matches('/'));
        loop {
            match remove_tree(&path) {
                Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(20));
                }
                removed => break removed.at("removing", &path)?,
            }
        }
    }
    Ok(())
}

/// Returns the existing folders of the root in all hierarchies.
pub(crate) fn existing(root: &str) -> Vec<PathBuf> {
    let paths = hierarchies()
        .unwrap_or_default()
        .into_iter()
        .map(|hierarchy| hierarchy.path.join(root.trim_start_matches('/')));
    paths.filter(|path| path.exists()).collect()
}

/// Returns the pids, on this machine, in all cgroups below the root whose path contains `part`.
pub(crate) fn processes(root: &str, part: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for path in existing(root) {
        walk(&path, &mut |folder| {
            if folder.to_string_lossy().contains(part) {
                let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
                found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            }
        });
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Returns the cgroups of this name below the root, one in each hierarchy.
pub(crate) fn named(root: &str, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in existing(root) {
        walk(&path, &mut |folder| {
            if folder.file_name().is_some_and(|found| found == name) {
                found.push(folder.to_owned());
            }
        });
    }
    found
}

/// Freezes or thaws all processes of a cgroup, given by its folders in all hierarchies, and waits until it is done.
pub(crate) fn freeze(cgroup: &[PathBuf], frozen: bool) -> Result<(), Error> {
    let [v1, v2] = if frozen { ["FROZEN", "1"] } else { ["THAWED", "0"] };
    let (file, value) = control(cgroup, "freezer.state", "cgroup.freeze", v1, v2)?;
    fs::write(&file, value).at("writing", &file)?;
    let is_done = || -> Result<bool, Error> {
        match fs::read_to_string(file.with_file_name("cgroup.events")) {
            Ok(events) if value == v2 => Ok(events.lines().any(|line| line == format!("frozen {v2}"))),
            _ => Ok(fs::read_to_string(&file).at("reading", &file)?.trim() == value),
        }
    };
    let deadline = Instant::now() + FREEZE_LIMIT;
    while !is_done()? {
        if Instant::now() > deadline {
            let reason = format!("it has not become {value} within {} s", FREEZE_LIMIT.as_secs());
            return Err(Error::Folder { path: file, reason });
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Limits the processor time of a cgroup, given by its folders in all hierarchies, to `percent` of one CPU; `None`
/// means no limit.
pub(crate) fn limit_cpu(cgroup: &[PathBuf], percent: Option<u32>) -> Result<(), Error> {
    // The period is the default of 100 ms. Limits of the containers inside must not exceed this one; they have none.
    let [v1, v2] = match percent.map(|percent| percent * 1000) {
        Some(quota) => [quota.to_string(), format!("{quota} 100000")],
        None => ["-1".to_owned(), "max 100000".to_owned()],
    };
    let (file, value) = control(cgroup, "cpu.cfs_quota_us", "cpu.max", &v1, &v2)?;
    fs::write(&file, value).at("writing", file)
}

/// Returns the control file of a cgroup, by its cgroup v1 or v2 name, and the value for it.
fn control<'a>(
    cgroup: &[PathBuf],
    v1: &str,
    v2: &str,
    value_v1: &'a str,
    value_v2: &'a str,
) -> Result<(PathBuf, &'a str), Error> {
    let in_any = |name: &str| cgroup.iter().map(|folder| folder.join(name)).find(|file| file.exists());
    let found = in_any(v1).map(|file| (file, value_v1)).or_else(|| in_any(v2).map(|file| (file, value_v2)));
    found.ok_or_else(|| Error::Folder {
        path: cgroup.first().cloned().unwrap_or_else(|| MOUNTS.into()),
        reason: format!("expected a cgroup with {v1} or {v2}; its pod may be gone"),
    })
}

struct Hierarchy {
    path: PathBuf,
    unified: bool,
    /// Whether it has all controllers, unlike a v2 hierarchy beside those of v1.
    main: bool,
}

fn hierarchies() -> Result<Vec<Hierarchy>, Error> {
    let path = Path::new("/proc/self/mountinfo");
    Ok(parse_mounts(&fs::read_to_string(path).at("reading", path)?))
}

fn parse_mounts(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((mount, kind)) = line.split_once(" - ") else { continue };
        let Some(path) = mount.split(' ').nth(4).map(PathBuf::from) else { continue };
        let unified = kind.starts_with("cgroup2 ");
        let other = found.iter().any(|hierarchy| hierarchy.path == path);
        if (unified || kind.starts_with("cgroup ")) && path.starts_with(MOUNTS) && !other {
            let main = path == Path::new(MOUNTS);
            found.push(Hierarchy { path, unified, main });
        }
    }
    found
}

/// Makes the controllers available to the children of a cgroup v2 folder.
fn enable(folder: &Path) -> Result<(), Error> {
    let available = fs::read_to_string(folder.join("cgroup.controllers")).at("reading", folder)?;
    let control = folder.join("cgroup.subtree_control");
    for controller in CONTROLLERS.into_iter().filter(|name| available.split_whitespace().any(|found| found == *name)) {
        if let Err(error) = fs::write(&control, format!("+{controller}")) {
            let reason = if error.kind() == ErrorKind::ResourceBusy {
                format!(
                    "the controller {controller} cannot be enabled while processes are in the root cgroup, as in a \
                     container; move them into a child first: \
                     `cd {MOUNTS} && mkdir init && for p in $(cat cgroup.procs); do echo $p > init/cgroup.procs; done`"
                )
            } else {
                format!("the controller {controller} cannot be enabled: {error}")
            };
            return Err(Error::Folder { path: control, reason });
        }
    }
    Ok(())
}

fn remove_tree(path: &Path) -> io::Result<()> {
    let mut folders = Vec::new();
    walk(path, &mut |folder| folders.push(folder.to_owned()));
    // The files of a cgroup cannot be removed; its folder can, deepest first.
    for folder in folders.iter().rev() {
        match fs::remove_dir(folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Visits a folder and all folders below it, each before its children.
fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    visit(folder);
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_generations_of_cgroups_are_recognised() {
        let paths = |text| parse_mounts(text).into_iter().map(|h| (h.path, h.unified, h.main)).collect::<Vec<_>>();
        let hybrid = "31 30 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                      32 31 0:28 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu\n\
                      33 31 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let expected = [("/sys/fs/cgroup/cpu".into(), false, false), ("/sys/fs/cgroup/unified".into(), true, false)];
        assert_eq!(paths(hybrid), expected);
        let unified = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(paths(unified), [("/sys/fs/cgroup".into(), true, true)]);
    }
}
