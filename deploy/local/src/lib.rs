//! A real one-node Kubernetes on this machine: etcd, the control plane, and, for root, a node that runs pods.
//!
//! For `cargo demo` and for tests that need real components instead of a fake API server.
//!
//! # Guarantees
//! - Several instances run side by side: a control plane picks free loopback ports, a node has network, mount and
//!   process namespaces of its own.
//! - An instance that a test owns ([`Builder::start`]) ends with the owning process, even if that is killed. The next
//!   start of any instance removes the files of a killed owner.
//! - [`down`] leaves no process, mount, interface, namespace, cgroup or file of the instance.
//!
//! # Assumptions
//! Linux with pidfds (5.3 or newer). A node needs root, and packages that [`k8sensus_prerequisites`] installs or names.
//!
//! # Caveats
//! etcd runs without fsync: a crash of the machine may lose the data. The cluster has no DNS, and pods reach the API
//! server but not the internet.

#![allow(
    clippy::disallowed_methods,
    reason = "a local cluster is a developer tool that waits for real processes in real time"
)]

mod api;
mod cgroup;
mod cluster;
mod component;
mod config;
mod error;
mod folder;
mod image;
mod instance;
mod launcher;
mod network;
mod node;
mod pki;
mod process;
mod product;
mod programs;
mod progress;
mod start;
mod stop;

pub use cluster::{Builder, Cluster, PodProcess};
pub use component::Component;
pub use error::Error;
pub use folder::{Folder, state_root};
pub use image::{Image, ImageFile, Source};
pub use instance::{Instance, Mode, Node, Ports};
pub use k8sensus_prerequisites::{ensure_tests, forbid_installation};
pub use process::Process;
pub use product::{IMAGE, Profile, cargo, product_example, product_image, product_program, workspace_root};
pub use programs::go_program;
pub use stop::{down, instances, sweep};

/// The default name of an instance.
pub const DEFAULT_NAME: &str = "demo";

pub type Result<T, E = Error> = std::result::Result<T, E>;
