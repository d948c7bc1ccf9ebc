//! `instance.json`: everything that another program needs to find, use and end an instance.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::component::Component;
use crate::error::{At, Error};
use crate::folder::Folder;
use crate::process::{self, Process};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// etcd, API server and controller manager on loopback: no root, no pods.
    ControlPlane,
    /// A complete node in its own namespaces.
    Node,
}

impl Mode {
    pub const fn name(self) -> &'static str {
        match self {
            Self::ControlPlane => "control plane",
            Self::Node => "node",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub name: String,
    pub mode: Mode,
    /// URL of the API server, as seen from this machine.
    pub server: String,
    pub kubeconfig: PathBuf,
    /// The process with which the instance ends; `None` if it runs until it is taken down.
    pub owner: Option<Process>,
    /// The boot of the machine in which the processes started.
    pub boot: String,
    pub ports: Ports,
    pub controller_manager: bool,
    pub audit: bool,
    pub api_server_args: Vec<String>,
    /// The path of each program, by its file name.
    pub programs: BTreeMap<String, PathBuf>,
    pub processes: BTreeMap<Component, Process>,
    pub node: Option<Node>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    pub api_server: u16,
    pub etcd: u16,
    pub etcd_peer: u16,
}

/// The parts of a node that exist outside its namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// PID 1 of the namespaces: everything inside ends with it. `None` until it runs.
    pub anchor: Option<Process>,
    /// The host's end of the veth pair.
    pub interface: String,
    pub host_address: String,
    /// The address of the node's API server.
    pub address: String,
    /// The kubelet's root in each cgroup hierarchy.
    pub cgroup: String,
}

impl Instance {
    /// Returns the recorded instance; `None` if there is no record.
    pub fn load(folder: &Folder) -> Result<Option<Self>, Error> {
        let path = folder.record();
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.at("reading", &path)?,
        };
        serde_json::from_str(&text).map(Some).map_err(|error| Error::Record { path, reason: error.to_string() })
    }

    /// Replaces the record atomically, so that a reader never gets a partial record.
    pub(crate) fn save(&self, folder: &Folder) -> Result<(), Error> {
        let path = folder.record();
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::Record { path: path.clone(), reason: error.to_string() })?;
        let new = path.with_extension("json.new");
        fs::write(&new, text).at("writing", &new)?;
        fs::rename(&new, &path).at("writing", &path)
    }

    /// Returns the component's process, if it runs.
    pub fn running(&self, component: Component) -> Option<Process> {
        self.processes.get(&component).copied().filter(|process| self.this_boot() && process.alive())
    }

    pub fn components(&self) -> Vec<Component> {
        Component::of(self.mode, self.controller_manager)
    }

    /// Returns the anchor of the node's namespaces, if it runs.
    pub(crate) fn anchor(&self) -> Option<Process> {
        self.node.as_ref()?.anchor.filter(|anchor| self.this_boot() && anchor.alive())
    }

    /// Returns whether its owner ended without taking it down.
    pub fn is_stale(&self) -> bool {
        self.owner.is_some_and(|owner| !self.this_boot() || !owner.alive())
    }

    pub(crate) fn this_boot(&self) -> bool {
        self.boot == process::boot()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn kestrel() -> Instance {
        Instance {
            name: "kestrel".into(),
            mode: Mode::Node,
            server: "https://10.243.7.2:6443".into(),
            kubeconfig: "/state/kestrel/kubeconfig".into(),
            owner: Some(Process { pid: 4_000_000, started: 1 }),
            boot: process::boot(),
            ports: Ports { api_server: 6443, etcd: 2379, etcd_peer: 2380 },
            controller_manager: true,
            audit: true,
            api_server_args: vec!["--v=4".into()],
            programs: [("etcd".to_owned(), PathBuf::from("/programs/etcd"))].into(),
            processes: [(Component::ApiServer, Process::current())].into(),
            node: Some(Node {
                anchor: Some(Process { pid: 4_000_001, started: 2 }),
                interface: "k8sensus7".into(),
                host_address: "10.243.7.1".into(),
                address: "10.243.7.2".into(),
                cgroup: "/k8sensus-kestrel".into(),
            }),
        }
    }

    #[test]
    fn record_round_trips_and_names_components_by_program() {
        let text = serde_json::to_string(&kestrel()).unwrap();
        assert_eq!(serde_json::from_str::<Instance>(&text).unwrap(), kestrel());
        assert!(text.contains(r#""processes":{"kube-apiserver":{"#), "{text}");
    }

    #[test]
    fn nothing_recorded_before_a_reboot_is_running() {
        let before = Instance { boot: "another".into(), ..kestrel() };
        assert!(kestrel().running(Component::ApiServer).is_some());
        assert!(before.running(Component::ApiServer).is_none());
    }

    #[test]
    fn an_instance_is_stale_once_its_owner_is_gone() {
        assert!(kestrel().is_stale());
        assert!(!Instance { owner: Some(Process::current()), ..kestrel() }.is_stale());
        assert!(!Instance { owner: None, ..kestrel() }.is_stale());
    }
}
