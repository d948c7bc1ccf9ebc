//! Brings an instance up: keeps what runs and starts what is missing.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::api::Api;
use crate::component::Component;
use crate::config::{self, BRIDGE_ADDRESS, CONTAINERD_SOCKET, NODE_NAME, PAUSE_IMAGE};
use crate::error::{At, Error};
use crate::folder::Folder;
use crate::image::{Image, ImageFile, import};
use crate::instance::{Instance, Mode, Ports};
use crate::launcher::{Lifetime, Namespaces, Place, spawn};
use crate::process::{self, Process};
use crate::programs::{self, search_path};
use crate::stop::{MARK, end};
use crate::{cgroup, network, node, pki};

const COMPONENT_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// The wanted instance.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) mode: Mode,
    pub(crate) controller_manager: bool,
    pub(crate) audit: bool,
    pub(crate) api_server_args: Vec<String>,
    pub(crate) lifetime: Lifetime,
}

/// What `bring_up` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Started,
    /// The instance was running; these components were not and were restarted.
    Found {
        restarted: Vec<Component>,
    },
}

pub(crate) fn bring_up(plan: &Plan) -> Result<(Instance, Folder, Outcome), Error> {
    let folder = Folder::of(&plan.name)?;
    // Before the lock: a build takes minutes, and `status` and `down` need not wait for it.
    let programs = programs::for_mode(plan.mode)?;
    let _lock = folder.lock()?;
    if let Some(found) = usable(plan, &folder)? {
        return converge(found, folder);
    }
    let mut attempts = 3;
    loop {
        attempts -= 1;
        end(&folder)?;
        folder.create()?;
        match create(plan, &folder, programs.clone()) {
            Ok(instance) => return Ok((instance, folder, Outcome::Started)),
            // Another program bound a port after it was chosen: retries with other ports.
            Err(error) if error.is_port_taken() && plan.mode == Mode::ControlPlane && attempts > 0 => {}
            Err(error) => {
                // The logs stay for inspection; the processes must not.
                crate::stop::end_processes(&folder);
                return Err(error);
            }
        }
    }
}

/// Returns the recorded instance, if it can be kept.
fn usable(plan: &Plan, folder: &Folder) -> Result<Option<Instance>, Error> {
    let Some(found) = Instance::load(folder)? else { return Ok(None) };
    if found.is_stale() {
        return Ok(None);
    }
    if let Some(owner) = found.owner {
        return Err(Error::Owned { name: plan.name.clone(), pid: owner.pid });
    }
    // A killed launcher may have left it without certificates or network: creating it again is faster than checking.
    if !found.components().iter().all(|component| found.processes.contains_key(component)) {
        return Ok(None);
    }
    let runs = found.components().into_iter().any(|component| found.running(component).is_some());
    let kept = match found.mode {
        Mode::ControlPlane => runs,
        // Everything inside the namespaces ends with the anchor.
        Mode::Node => found.anchor().is_some(),
    };
    if kept && plan.lifetime == Lifetime::WithThisProcess {
        return Err(Error::Folder {
            path: folder.path().to_owned(),
            reason: "an instance of this name is running: take it down first".into(),
        });
    }
    if kept && found.mode != plan.mode {
        return Err(Error::OtherMode { name: plan.name.clone(), found: found.mode.name(), wanted: plan.mode.name() });
    }
    Ok(kept.then_some(found))
}

fn converge(mut instance: Instance, folder: Folder) -> Result<(Instance, Folder, Outcome), Error> {
    let missing: Vec<_> =
        instance.components().into_iter().filter(|component| instance.running(*component).is_none()).collect();
    start_all(&mut instance, &folder, &missing, Lifetime::Detached)?;
    Ok((instance, folder, Outcome::Found { restarted: missing }))
}

fn create(plan: &Plan, folder: &Folder, programs: BTreeMap<String, PathBuf>) -> Result<Instance, Error> {
    let mut instance = describe(plan, folder, programs)?;
    instance.save(folder)?;
    if plan.mode == Mode::Node {
        node::check_paths(&instance, folder)?;
        create_namespaces(&mut instance, folder, plan)?;
    }
    let addresses: Vec<&str> =
        ["127.0.0.1", BRIDGE_ADDRESS].into_iter().chain(instance.node.iter().map(|node| &*node.address)).collect();
    pki::write(folder, &addresses)?;
    pki::write_kubeconfigs(folder, &instance.name, &instance.server)?;
    config::write(&instance, folder)?;
    let components = instance.components();
    start_all(&mut instance, folder, &components, plan.lifetime)?;
    Ok(instance)
}

fn describe(plan: &Plan, folder: &Folder, programs: BTreeMap<String, PathBuf>) -> Result<Instance, Error> {
    let node = match plan.mode {
        Mode::ControlPlane => None,
        Mode::Node => Some(network::choose(&plan.name)?),
    };
    let ports = match plan.mode {
        Mode::ControlPlane => free_ports()?,
        // The instance has its own network, so all ports are free.
        Mode::Node => Ports { api_server: 6443, etcd: 2379, etcd_peer: 2380 },
    };
    let mut instance = Instance {
        name: plan.name.clone(),
        mode: plan.mode,
        server: String::new(),
        kubeconfig: folder.kubeconfig(),
        owner: (plan.lifetime == Lifetime::WithThisProcess).then(Process::current),
        boot: process::boot(),
        ports,
        controller_manager: plan.controller_manager,
        audit: plan.audit,
        api_server_args: plan.api_server_args.clone(),
        programs,
        processes: BTreeMap::new(),
        node,
    };
    instance.server = server(&instance);
    Ok(instance)
}

fn server(instance: &Instance) -> String {
    let address = instance.node.as_ref().map_or("127.0.0.1", |node| &node.address);
    format!("https://{address}:{}", instance.ports.api_server)
}

/// Returns three free ports. All are bound at the same time, so they differ.
fn free_ports() -> Result<Ports, Error> {
    let listen = || TcpListener::bind("127.0.0.1:0").at("looking for a free port on", "127.0.0.1");
    let listeners = [listen()?, listen()?, listen()?];
    let port = |listener: &TcpListener| {
        listener.local_addr().map(|address| address.port()).at("reading", "the address of a port")
    };
    Ok(Ports { api_server: port(&listeners[0])?, etcd: port(&listeners[1])?, etcd_peer: port(&listeners[2])? })
}

fn create_namespaces(instance: &mut Instance, folder: &Folder, plan: &Plan) -> Result<(), Error> {
    let anchor = node::start_anchor(instance, folder, plan.lifetime)?;
    loop {
        let Some(node) = &mut instance.node else { return Ok(()) };
        node.anchor = Some(anchor);
        let node = node.clone();
        instance.server = server(instance);
        // Saved before anything else exists outside the namespaces, so that `down` knows what to remove.
        instance.save(folder)?;
        if node::connect(&node, anchor)? {
            return cgroup::create(&node.cgroup);
        }
        instance.node = Some(network::choose(&instance.name)?);
    }
}

/// Starts these components in the given order and waits until they are ready.
fn start_all(
    instance: &mut Instance,
    folder: &Folder,
    components: &[Component],
    lifetime: Lifetime,
) -> Result<(), Error> {
    // The later components wait for each other on their own, and the API server takes the longest.
    let (first, later): (Vec<Component>, Vec<Component>) =
        components.iter().partition(|component| matches!(component, Component::Etcd | Component::Containerd));
    for component in first {
        start(instance, folder, component, lifetime)?;
    }
    if later.contains(&Component::ApiServer) {
        if components.contains(&Component::Etcd) {
            wait_ready(instance, folder, Component::Etcd)?;
        }
        start(instance, folder, Component::ApiServer, lifetime)?;
    }
    if components.contains(&Component::Containerd) {
        wait_ready(instance, folder, Component::Containerd)?;
        import_pause(instance, folder)?;
    }
    wait_ready(instance, folder, Component::ApiServer)?;
    for component in later.into_iter().filter(|component| *component != Component::ApiServer) {
        start(instance, folder, component, lifetime)?;
    }
    if instance.mode == Mode::Node {
        wait_ready(instance, folder, Component::Kubelet)?;
    }
    match components.iter().find(|component| instance.running(**component).is_none()) {
        Some(dead) => Err(Error::died(*dead, folder.log(*dead))),
        None => Ok(()),
    }
}

pub(crate) fn start(
    instance: &mut Instance,
    folder: &Folder,
    component: Component,
    lifetime: Lifetime,
) -> Result<(), Error> {
    let log = folder.log(component);
    let output = File::options().create(true).append(true).open(&log).at("opening", &log)?;
    let mut command = Command::new(config::program(instance, component.program()));
    command
        .args(config::arguments(component, instance, folder))
        // Without the caller's environment: a proxy, a KUBECONFIG or Go's settings would affect the components.
        .env_clear()
        .env("PATH", component_path(instance))
        .env("HOME", folder.path())
        .env(MARK, folder.path())
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(output.try_clone().at("opening", &log)?)
        .stdout(output);
    let place = match instance.anchor() {
        Some(anchor) => Place::Namespaces(Namespaces::of(anchor).at("opening the namespaces of", folder.path())?),
        None if instance.mode == Mode::Node => {
            return Err(Error::NoComponent { component, reason: "its node is gone; `up` starts it again" });
        }
        None => Place::Host,
    };
    let process = spawn(command, place, lifetime).at("starting", config::program(instance, component.program()))?;
    instance.processes.insert(component, process);
    instance.save(folder)
}

/// Returns the `PATH` of components: containerd finds its shim there, and the shim runc.
fn component_path(instance: &Instance) -> std::ffi::OsString {
    let own = ["containerd", "runc"].map(|program| config::program_folder(instance, program).to_owned());
    let path = search_path();
    std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path))).unwrap_or(path)
}

/// Waits until a component is ready; returns immediately for components on which nothing waits.
pub(crate) fn wait_ready(instance: &Instance, folder: &Folder, component: Component) -> Result<(), Error> {
    let deadline = Instant::now() + COMPONENT_LIMIT;
    let api = Api::new(&instance.server, folder)?;
    loop {
        let last = match probe(instance, component, &api) {
            Ok(()) => return Ok(()),
            Err(last) => last,
        };
        if let Some(dead) = [component, Component::Etcd, Component::Containerd]
            .into_iter()
            .find(|component| instance.processes.contains_key(component) && instance.running(*component).is_none())
        {
            return Err(Error::died(dead, folder.log(dead)));
        }
        if Instant::now() > deadline {
            return Err(Error::not_ready(component, COMPONENT_LIMIT, last, folder.log(component)));
        }
        thread::sleep(POLL);
    }
}

fn probe(instance: &Instance, component: Component, api: &Api) -> Result<(), String> {
    match component {
        Component::Etcd if instance.mode == Mode::ControlPlane => {
            TcpStream::connect(("127.0.0.1", instance.ports.etcd)).map(drop).map_err(|error| error.to_string())
        }
        // etcd inside a node is unreachable from here; the API server waits for it.
        Component::Etcd | Component::ControllerManager | Component::Scheduler | Component::Proxy => Ok(()),
        Component::Containerd => {
            let anchor = instance.anchor().ok_or("its node is gone")?;
            // Through the anchor's root, because the node has its own `/run`.
            let socket = format!("/proc/{}/root{CONTAINERD_SOCKET}", anchor.pid);
            std::os::unix::net::UnixStream::connect(&socket).map(drop).map_err(|error| format!("{socket}: {error}"))
        }
        Component::ApiServer => api.get("/readyz").map(drop),
        Component::Kubelet => node_ready(&api.get(&format!("/api/v1/nodes/{NODE_NAME}"))?),
    }
}

/// Checks that the node is ready and has no taints: only then are pods scheduled.
fn node_ready(node: &str) -> Result<(), String> {
    let node: serde_json::Value = serde_json::from_str(node).map_err(|error| error.to_string())?;
    let list = |pointer: &str| node.pointer(pointer).and_then(|list| list.as_array()).cloned().unwrap_or_default();
    let ready = list("/status/conditions").into_iter().find(|condition| condition["type"] == "Ready");
    let taints: Vec<_> = list("/spec/taints").into_iter().map(|taint| taint["key"].clone()).collect();
    match ready {
        Some(condition) if condition["status"] == "True" && taints.is_empty() => Ok(()),
        Some(condition) if condition["status"] == "True" => {
            Err(format!("node {NODE_NAME} is ready but tainted: {taints:?}"))
        }
        Some(condition) => Err(format!("node {NODE_NAME} is not ready: {}", condition["message"])),
        None => Err(format!("node {NODE_NAME} has not reported yet")),
    }
}

fn import_pause(instance: &Instance, folder: &Folder) -> Result<(), Error> {
    let archive = folder.config("pause.tar");
    Image {
        name: PAUSE_IMAGE.into(),
        entrypoint: vec!["/pause".into()],
        files: vec![ImageFile { source: config::pause(instance).to_owned().into(), path: "pause".into(), mode: 0o755 }],
    }
    .write(&archive)?;
    import(instance, &archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_is_ready_once_it_reports_ready_and_has_no_taints() {
        let node = |status: &str, taints: &str| {
            let conditions = format!(r#"[{{"type":"Ready","status":"{status}","message":"why"}}]"#);
            format!(r#"{{"spec":{{"taints":{taints}}},"status":{{"conditions":{conditions}}}}}"#)
        };
        assert_eq!(node_ready(&node("True", "[]")), Ok(()));
        assert!(node_ready(&node("False", "[]")).unwrap_err().contains("why"));
        assert!(node_ready(&node("True", r#"[{"key":"node.kubernetes.io/not-ready"}]"#)).is_err());
        assert!(node_ready("{}").is_err());
    }

    #[test]
    fn ports_of_an_instance_differ() {
        let ports = free_ports().unwrap();
        assert!(ports.api_server != ports.etcd && ports.etcd != ports.etcd_peer && ports.etcd_peer != ports.api_server);
    }
}
