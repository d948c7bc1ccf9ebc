//! The namespaces of a node: all its changes to networks, mounts and processes stay inside and end with them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::config::pause;
use crate::error::{At, Error, run, tail};
use crate::folder::{Folder, private_folder};
use crate::instance::{Instance, Node};
use crate::launcher::{Lifetime, Place, spawn};
use crate::network;
use crate::process::Process;
use crate::programs::search_path;
use crate::stop::MARK;

/// The kernel settings that the kubelet requires. If the kubelet set them, that would change the whole machine and
/// outlive the cluster. The node shows it these values, so that it changes nothing.
const SHOWN_KERNEL_SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Folders of the machine that the node replaces with its own.
const REPLACED: [&str; 3] = ["/run", "/var/lib", "/var/log"];

/// Refuses paths that are hidden in the node.
pub(crate) fn check_paths(instance: &Instance, folder: &Folder) -> Result<(), Error> {
    for path in instance.programs.values().map(|path| path.as_path()).chain([folder.path()]) {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if let Some(hidden) = REPLACED.into_iter().find(|hidden| real.starts_with(hidden)) {
            let reason = format!(
                "is below {hidden}, which the node replaces with its own: \
                 set K8SENSUS_STATE and K8SENSUS_CACHE to other folders"
            );
            return Err(Error::Folder { path: real, reason });
        }
    }
    Ok(())
}

/// Starts PID 1 of new namespaces, which sets up their mounts.
pub(crate) fn start_anchor(instance: &Instance, folder: &Folder, lifetime: Lifetime) -> Result<Process, Error> {
    for path in [folder.var_lib(), folder.var_log()] {
        private_folder(&path)?;
    }
    let log = folder.logs().join("namespaces.log");
    let errors = File::create(&log).at("creating", &log)?;
    let (mut answer, sender) = std::io::pipe().at("opening a pipe for", &log)?;
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg(anchor_script())
        .arg("k8sensus-node")
        .args([&folder.var_lib(), &folder.var_log()])
        .arg(pause(instance))
        .env_clear()
        .env("PATH", search_path())
        .env(MARK, folder.path())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(sender)
        .stderr(errors);
    let anchor = spawn(command, Place::NewNamespaces, lifetime).at("starting", "the node's namespaces")?;
    let mut output = String::new();
    // The script closes its output when it executes the final program of PID 1.
    answer.read_to_string(&mut output).at("reading from", "the node's namespaces")?;
    if output != "ready\n" {
        let _ = anchor.signal(libc::SIGKILL);
        return Err(Error::Namespaces { reason: format!("the end of {}:\n{}", log.display(), tail(&log)) });
    }
    Ok(anchor)
}

fn anchor_script() -> String {
    let settings: String = SHOWN_KERNEL_SETTINGS
        .iter()
        .map(|(name, value)| {
            let copy = format!("/run/shown/{}", name.replace('/', "."));
            format!(
                "if [ -e /proc/sys/{name} ]; then echo {value} > {copy}; mount --bind {copy} /proc/sys/{name}; fi\n"
            )
        })
        .collect();
    format!(
        "set -e\n\
         mount --make-rprivate /\n\
         mount -t proc proc /proc\n\
         mount -t tmpfs -o mode=755 tmpfs /run\n\
         mkdir -p /run/shown /run/lock\n\
         {settings}\
         mount --bind \"$1\" /var/lib\n\
         mount --bind \"$2\" /var/log\n\
         mount --make-rshared /\n\
         echo ready\n\
         exec \"$3\" > /dev/null 2>&1\n"
    )
}

/// Connects the namespaces to a network. Returns `Ok(false)` if another instance just used the interface's name.
pub(crate) fn connect(node: &Node, anchor: Process) -> Result<bool, Error> {
    if !network::create_pair(node, anchor)? {
        return Ok(false);
    }
    run(inside(anchor, ["/bin/sh", "-c", &network::inner_script(node)]).env("PATH", search_path()))?;
    Ok(true)
}

/// Returns a command that runs in the node's namespaces.
pub(crate) fn inside<S: AsRef<OsStr>>(anchor: Process, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--target={}", anchor.pid)).args(["--net", "--mount", "--pid", "--"]).args(arguments);
    command
}

pub(crate) fn is_overlay(path: &Path) -> bool {
    // OVERLAYFS_SUPER_MAGIC, statfs(2).
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type == 0x794c_7630)
}
