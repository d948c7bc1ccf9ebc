//! The contenders, and how each is started.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use k8sensus_local::Cluster;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::Error;
use crate::stamps::now;
use crate::support::{Program, fixtures};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    Ours,
    ClientGo,
}

impl Contender {
    pub const BOTH: [Self; 2] = [Self::Ours, Self::ClientGo];
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "k8sensus",
            Self::ClientGo => "client-go",
        })
    }
}

/// Lease duration, renew deadline and retry period in seconds. Both renew every retry period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durations {
    pub lease: u64,
    pub deadline: u64,
    pub retry: u64,
}

impl Durations {
    pub const DEFAULT: Self = Self { lease: 15, deadline: 10, retry: 2 };
    pub const SHORT: Self = Self { lease: 3, deadline: 2, retry: 1 };

    pub fn interval(self) -> Duration {
        Duration::from_secs(self.retry)
    }
}

impl fmt::Display for Durations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.lease, self.deadline, self.retry)
    }
}

/// The environment that all measurements share.
pub struct World {
    pub cluster: Cluster,
    pub runtime: Runtime,
    pub programs: Programs,
    /// The folder for stamps and kubeconfigs.
    pub folder: PathBuf,
}

pub struct Programs {
    /// A program on this crate's library, the counterpart of the one on client-go.
    pub library: PathBuf,
    pub client_go: PathBuf,
    /// The shipped candidate.
    pub candidate: PathBuf,
}

impl Programs {
    pub fn build() -> Result<Self, Error> {
        Ok(Self {
            library: k8sensus_local::product_example("leader")?,
            client_go: fixtures::client_go().to_owned(),
            candidate: k8sensus_local::product_program("k8sensus", k8sensus_local::Profile::Dist)?,
        })
    }

    pub fn of(&self, contender: Contender) -> &Path {
        match contender {
            Contender::Ours => &self.library,
            Contender::ClientGo => &self.client_go,
        }
    }
}

/// A process that campaigns and stamps a file while it leads.
pub struct Candidate {
    pub program: Program,
    pub stamps: PathBuf,
}

impl Candidate {
    /// Starts a candidate; `more` are additional flags.
    pub fn start(
        world: &World,
        contender: Contender,
        durations: Durations,
        lease: &str,
        identity: &str,
        kubeconfig: &Path,
        more: &[&str],
    ) -> Self {
        let stamps = world.folder.join(format!("{identity}.stamps"));
        let Durations { lease: duration, deadline, retry } = durations;
        let mut command = Command::new(world.programs.of(contender));
        command
            .args([format!("--lease-name={lease}"), format!("--identity={identity}")])
            .args([format!("--lease-duration={duration}s"), format!("--renew-deadline={deadline}s")])
            .args([format!("--retry-period={retry}s"), format!("--stamps={}", stamps.display())])
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .args(more);
        Self { program: Program::start(identity, &mut command), stamps }
    }

    pub fn has_led(&self) -> bool {
        fs::metadata(&self.stamps).is_ok_and(|file| file.len() > 0)
    }

    /// Returns whether its last line is `stop`.
    pub fn has_stopped(&self) -> bool {
        fs::read_to_string(&self.stamps).is_ok_and(|text| text.ends_with(" stop\n"))
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.stamps);
    }
}

impl World {
    /// Writes the administrator's kubeconfig with another server or user.
    pub fn kubeconfig(&self, name: &str, server: Option<String>, token: Option<String>) -> Result<PathBuf, Error> {
        let mut config: Value = serde_json::from_str(&fs::read_to_string(self.cluster.kubeconfig())?)?;
        if let Some(server) = server {
            config["clusters"][0]["cluster"]["server"] = server.into();
        }
        if let Some(token) = token {
            config["users"][0]["user"] = serde_json::json!({ "token": token });
        }
        let path = self.folder.join(format!("{name}.kubeconfig"));
        fs::write(&path, config.to_string())?;
        Ok(path)
    }

    /// Returns `host:port` of the API server.
    pub fn server(&self) -> String {
        self.cluster.server().trim_start_matches("https://").to_owned()
    }
}

/// Waits until `met` returns true; the error of a timeout names `what`.
pub fn wait_for(what: &str, limit: Duration, mut met: impl FnMut() -> bool) -> Result<(), Error> {
    let end = now() + limit;
    while !met() {
        if now() > end {
            return Err(format!("not within {limit:?}: {what}").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
