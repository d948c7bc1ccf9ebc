//! A running instance, for programs and tests.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use crate::cgroup;
use crate::component::Component;
use crate::config;
use crate::error::{At, Error};
use crate::folder::Folder;
use crate::image;
use crate::instance::{Instance, Mode};
use crate::launcher::Lifetime;
use crate::node;
use crate::process::Process;
use crate::programs;
use crate::start::{self, Outcome, Plan};
use crate::stop;

/// A running instance. If it was started with [`Builder::start`], dropping this takes it down.
#[derive(Debug)]
pub struct Cluster {
    folder: Folder,
    kubeconfig: PathBuf,
    server: String,
    state: Mutex<Instance>,
    lifetime: Lifetime,
    restarted: Option<Vec<Component>>,
}

/// The settings of a cluster.
#[derive(Clone, Debug)]
pub struct Builder {
    name: Option<String>,
    mode: Mode,
    controller_manager: bool,
    audit: bool,
    api_server_args: Vec<String>,
}

/// A process of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodProcess {
    /// The pid on this machine.
    pub pid: i32,
    /// The pid inside the node, for [`Cluster::inside`].
    pub inner_pid: i32,
    /// The command line, its arguments separated by spaces.
    pub command: String,
}

impl Builder {
    /// Sets the name. Default: `demo` for [`Builder::up`], a unique name for [`Builder::start`].
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Adds an argument of the API server, such as `--v=4`. It comes last, so it overrides the instance's own.
    pub fn api_server_arg(mut self, argument: impl Into<String>) -> Self {
        self.api_server_args.push(argument.into());
        self
    }

    /// Sets whether [`Cluster::audit_log`] records every request, without bodies. Default: no.
    pub fn audit(mut self, audit: bool) -> Self {
        self.audit = audit;
        self
    }

    /// Sets whether the controller manager runs; without it there is no garbage collection. Default: yes.
    pub fn controller_manager(mut self, wanted: bool) -> Self {
        self.controller_manager = wanted;
        self
    }

    /// Starts an instance that ends when the result is dropped, or with this process.
    ///
    /// # Errors
    /// Also if an instance of this name is already running.
    pub fn start(self) -> Result<Cluster, Error> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        stop::sweep();
        end_at_exit();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let default = format!("t{}-{number}", std::process::id());
        self.bring_up(&default, Lifetime::WithThisProcess)
    }

    /// Makes sure that an instance runs: starts it, or its missing components. It runs until it is taken down.
    pub fn up(self) -> Result<Cluster, Error> {
        stop::sweep();
        self.bring_up(crate::DEFAULT_NAME, Lifetime::Detached)
    }

    fn bring_up(self, default_name: &str, lifetime: Lifetime) -> Result<Cluster, Error> {
        let plan = Plan {
            name: self.name.unwrap_or_else(|| default_name.to_owned()),
            mode: self.mode,
            controller_manager: self.controller_manager,
            audit: self.audit,
            api_server_args: self.api_server_args,
            lifetime,
        };
        let (instance, folder, outcome) = start::bring_up(&plan)?;
        if lifetime == Lifetime::WithThisProcess {
            owned().push(plan.name);
        }
        let restarted = match outcome {
            Outcome::Started => None,
            Outcome::Found { restarted } => Some(restarted),
        };
        let mut cluster = Cluster::new(instance, folder, lifetime);
        cluster.restarted = restarted;
        Ok(cluster)
    }
}

impl Cluster {
    /// Builds a control plane: etcd, API server and controller manager on loopback. It needs no root and runs no pods.
    pub fn control_plane() -> Builder {
        Self::builder(Mode::ControlPlane)
    }

    /// Builds a complete node that runs pods. Needs root.
    pub fn node() -> Builder {
        Self::builder(Mode::Node)
    }

    fn builder(mode: Mode) -> Builder {
        Builder { name: None, mode, controller_manager: true, audit: false, api_server_args: Vec::new() }
    }

    /// Opens an instance that is already running.
    pub fn open(name: &str) -> Result<Self, Error> {
        let folder = Folder::of(name)?;
        let instance = Instance::load(&folder)?.filter(|instance| instance.running(Component::ApiServer).is_some());
        let instance = instance.ok_or_else(|| Error::NotRunning { name: name.to_owned() })?;
        Ok(Self::new(instance, folder, Lifetime::Detached))
    }

    fn new(instance: Instance, folder: Folder, lifetime: Lifetime) -> Self {
        Self {
            kubeconfig: instance.kubeconfig.clone(),
            server: instance.server.clone(),
            folder,
            state: Mutex::new(instance),
            lifetime,
            restarted: None,
        }
    }

    pub fn name(&self) -> String {
        self.state().name.clone()
    }

    pub fn mode(&self) -> Mode {
        self.state().mode
    }

    /// Returns the components that [`Builder::up`] restarted, if the instance was already running.
    pub fn found_running(&self) -> Option<&[Component]> {
        self.restarted.as_deref()
    }

    /// Returns the administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Returns the URL of the API server.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Returns the current record of the instance.
    pub fn instance(&self) -> Instance {
        self.state().clone()
    }

    /// Returns a `kubectl` command of the cluster's version, as its administrator.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(config::program(&self.state(), "kubectl"));
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// Returns a `helm` command, as the cluster's administrator. The first call may build Helm, which takes minutes.
    pub fn helm(&self) -> Result<Command, Error> {
        let mut command = Command::new(programs::helm()?);
        command.env("KUBECONFIG", &self.kubeconfig);
        Ok(command)
    }

    /// Returns the log file of a component.
    pub fn log(&self, component: Component) -> PathBuf {
        self.folder.log(component)
    }

    /// Returns the audit log, one line of JSON for each request (`audit.k8s.io/v1`), if [`Builder::audit`] enabled it.
    pub fn audit_log(&self) -> PathBuf {
        self.folder.audit_log()
    }

    /// Returns the component's pid on this machine, if it runs.
    pub fn pid(&self, component: Component) -> Option<i32> {
        self.state().running(component).map(|process| process.pid)
    }

    /// Sends a signal, such as `libc::SIGSTOP`, to a component.
    pub fn signal(&self, component: Component, signal: i32) -> Result<(), Error> {
        let process = self.state().running(component);
        let process = process.ok_or(Error::NoComponent { component, reason: "it is not running" })?;
        process.signal(signal).at("sending a signal to", component.program())
    }

    /// Ends a component with SIGTERM, after ten seconds with SIGKILL, and waits until it is gone.
    pub fn stop(&self, component: Component) -> Result<(), Error> {
        stop::stop(&self.state(), component)
    }

    /// Starts a component that was stopped or killed, and waits until it is ready.
    pub fn start_component(&self, component: Component) -> Result<(), Error> {
        let mut state = self.state();
        if !state.components().contains(&component) {
            return Err(Error::NoComponent { component, reason: "instances of this mode do not include it" });
        }
        if state.running(component).is_none() {
            start::start(&mut state, &self.folder, component, self.lifetime)?;
        }
        start::wait_ready(&state, &self.folder, component)
    }

    /// Loads an OCI archive into the node.
    pub fn load_image(&self, archive: &Path) -> Result<(), Error> {
        image::import(&self.state(), archive)
    }

    /// Returns a command that runs in the node's network, mount and process namespaces.
    pub fn inside<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Command, Error> {
        let anchor = self.state().anchor();
        let reason = "it is only a control plane, or its node is gone";
        let anchor = anchor.ok_or(Error::NoComponent { component: Component::Kubelet, reason })?;
        Ok(node::inside(anchor, arguments))
    }

    /// Returns the processes of a pod's containers, without that of the sandbox.
    pub fn processes_in_pod(&self, pod_uid: &str) -> Vec<PodProcess> {
        let Some(root) = self.state().node.as_ref().map(|node| node.cgroup.clone()) else { return Vec::new() };
        let pids = cgroup::processes(&root, &format!("/pod{pod_uid}"));
        pids.into_iter().filter_map(pod_process).filter(|process| process.command != "/pause").collect()
    }

    /// Returns the pids of a pod's containers on this machine, without that of the sandbox.
    pub fn pids_in_pod(&self, pod_uid: &str) -> Vec<i32> {
        self.processes_in_pod(pod_uid).into_iter().map(|process| process.pid).collect()
    }

    /// Sends a signal to every process of a pod's containers; returns their number.
    pub fn signal_pod(&self, pod_uid: &str, signal: i32) -> Result<usize, Error> {
        let processes: Vec<_> = self.pids_in_pod(pod_uid).into_iter().filter_map(Process::of).collect();
        for process in &processes {
            process.signal(signal).at("sending a signal to", format!("a process of pod {pod_uid}"))?;
        }
        Ok(processes.len())
    }

    /// Freezes every process of a pod, including its sandbox, until [`thaw_pod`](Self::thaw_pod). Unlike SIGSTOP, no
    /// process can detect this, and with cgroups v1 even SIGKILL waits for the thaw.
    pub fn freeze_pod(&self, pod_uid: &str) -> Result<(), Error> {
        cgroup::freeze(&self.pod_cgroups(pod_uid), true)
    }

    /// Thaws a pod that was frozen by [`freeze_pod`](Self::freeze_pod).
    pub fn thaw_pod(&self, pod_uid: &str) -> Result<(), Error> {
        cgroup::freeze(&self.pod_cgroups(pod_uid), false)
    }

    /// Limits all processes of a pod together to `percent` of one CPU; `None` removes the limit.
    pub fn limit_cpu_of_pod(&self, pod_uid: &str, percent: Option<u32>) -> Result<(), Error> {
        cgroup::limit_cpu(&self.pod_cgroups(pod_uid), percent)
    }

    fn pod_cgroups(&self, pod_uid: &str) -> Vec<PathBuf> {
        let root = self.state().node.as_ref().map(|node| node.cgroup.clone());
        root.map(|root| cgroup::named(&root, &format!("pod{pod_uid}"))).unwrap_or_default()
    }

    /// Takes the instance down; returns an error if something is left.
    pub fn down(self) -> Result<(), Error> {
        let name = self.name();
        owned().retain(|owned| *owned != name);
        stop::down(&name).map(drop)
    }

    fn state(&self) -> MutexGuard<'_, Instance> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::WithThisProcess {
            let name = self.name();
            let mut owned = owned();
            if owned.contains(&name) {
                owned.retain(|owned| *owned != name);
                drop(owned);
                if let Err(error) = stop::down(&name) {
                    eprintln!("{error}");
                }
            }
        }
    }
}

fn pod_process(pid: i32) -> Option<PodProcess> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
    // One pid for each nested namespace: first of this machine, then of the node, then of the container.
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    let inner_pid = numbers.split_whitespace().nth(1)?.parse().ok()?;
    Some(PodProcess { pid, inner_pid, command })
}

/// Returns the names of the instances that this process must take down.
fn owned() -> MutexGuard<'static, Vec<String>> {
    static OWNED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    OWNED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes owned instances down at exit: clusters in statics are never dropped, and Rust's test harness calls `exit`.
fn end_at_exit() {
    extern "C" fn end_all() {
        let names = std::mem::take(&mut *owned());
        for name in names {
            // A panic must not cross into C; the next start sweeps what is left.
            let _ = std::panic::catch_unwind(|| stop::down(&name));
        }
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler is a function that lives as long as the program.
        unsafe { libc::atexit(end_all) };
    });
}
