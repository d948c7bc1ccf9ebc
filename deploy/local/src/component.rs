//! The components of a cluster.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::instance::Mode;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Component {
    #[serde(rename = "etcd")]
    Etcd,
    #[serde(rename = "containerd")]
    Containerd,
    #[serde(rename = "kube-apiserver")]
    ApiServer,
    #[serde(rename = "kube-controller-manager")]
    ControllerManager,
    #[serde(rename = "kube-scheduler")]
    Scheduler,
    #[serde(rename = "kubelet")]
    Kubelet,
    #[serde(rename = "kube-proxy")]
    Proxy,
}

impl Component {
    /// Returns the components of an instance, in the order in which they start.
    pub fn of(mode: Mode, controller_manager: bool) -> Vec<Self> {
        let all: &[Self] = match mode {
            Mode::ControlPlane => &[Self::Etcd, Self::ApiServer, Self::ControllerManager],
            Mode::Node => &[
                Self::Etcd,
                Self::Containerd,
                Self::ApiServer,
                Self::ControllerManager,
                Self::Scheduler,
                Self::Kubelet,
                Self::Proxy,
            ],
        };
        all.iter().copied().filter(|component| controller_manager || *component != Self::ControllerManager).collect()
    }

    /// Returns the program's file name.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Containerd => "containerd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::Proxy => "kube-proxy",
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.program())
    }
}
