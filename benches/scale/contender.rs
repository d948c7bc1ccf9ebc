//! The contenders, and how each is started.

use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::Error;
use crate::support::Program;

const START: Duration = Duration::from_secs(30);
/// The time that a contender has to finish after SIGTERM.
const END: Duration = Duration::from_secs(30);
const OWN_LEASE: &str = "k8sensus-operator";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    Ours,
    Naive,
    NaiveWithCaches,
}

impl Contender {
    pub const ALL: [Self; 3] = [Self::Ours, Self::Naive, Self::NaiveWithCaches];

    /// Returns the name of the contender's own Lease, if it renews one.
    pub fn own_lease(self) -> Option<&'static str> {
        (self == Self::Ours).then_some(OWN_LEASE)
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "k8sensus",
            Self::Naive => "naive",
            Self::NaiveWithCaches => "naive with caches",
        })
    }
}

/// The programs: the operator as in the image, and the naive controller from the same profile.
pub struct Programs {
    operator: PathBuf,
    naive: PathBuf,
}

impl Programs {
    pub fn build() -> Result<Self, Error> {
        Ok(Self {
            operator: k8sensus_local::product_program("k8sensus-operator", k8sensus_local::Profile::Dist)?,
            naive: k8sensus_local::product_example("naive")?,
        })
    }
}

/// A running contender.
pub struct Running {
    pub program: Program,
    contender: Contender,
    pub started: Instant,
    metrics: Option<String>,
}

impl Running {
    pub fn start(contender: Contender, programs: &Programs, kubeconfig: &Path) -> Result<Self, Error> {
        let (mut command, metrics) = match contender {
            Contender::Ours => {
                let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
                let mut command = Command::new(&programs.operator);
                command.args(["run", "--candidate-image=localhost/k8sensus:dev", "--listen", &address]).args([
                    "--lease-name",
                    OWN_LEASE,
                    "--lease-namespace=default",
                    "--identity=keeper",
                ]);
                (command, Some(address))
            }
            Contender::Naive => (Command::new(&programs.naive), None),
            Contender::NaiveWithCaches => {
                let mut command = Command::new(&programs.naive);
                command.arg("--caches");
                (command, None)
            }
        };
        command.env("KUBECONFIG", kubeconfig);
        let started = Instant::now();
        let program = Program::start("contender", &mut command);
        let running = Self { program, contender, started, metrics };
        let ready = if contender == Contender::Ours { "starting to reconcile" } else { "started" };
        running.program.wait_for(ready, START);
        Ok(running)
    }

    /// Returns the number of reconciles.
    pub fn reconciles(&self) -> Result<usize, Error> {
        let Some(address) = &self.metrics else {
            return Ok(self.program.output().matches("reconciled ").count());
        };
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(START))?;
        write!(stream, "GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let counts = text.lines().filter_map(|line| line.strip_prefix("k8sensus_reconciles_total{")?.split(' ').nth(1));
        counts.map(|count| Ok(count.parse::<f64>()? as usize)).sum()
    }

    pub fn last_line(&self) -> String {
        self.program.output().lines().last().unwrap_or_default().to_owned()
    }

    /// Returns the peak resident memory in bytes.
    pub fn peak(&self) -> Result<u64, Error> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.program.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
        Ok(line.split_whitespace().next().unwrap_or_default().parse::<u64>()? * 1024)
    }

    /// Sends SIGTERM. A naive controller that has not ended within 30 s is killed: with many groups it first finishes
    /// the reconciles of all of them, and none of that is measured.
    ///
    /// # Errors
    /// If the operator has not ended within 30 s.
    pub fn stop(mut self) -> Result<(), Error> {
        self.program.signal(Signal::TERM);
        if self.program.ended(END).is_some() {
            return Ok(());
        }
        if self.contender == Contender::Ours {
            return Err(format!("{} has not ended {END:?} after SIGTERM: {}", self.contender, self.last_line()).into());
        }
        println!("[{}] killed: it has not ended {END:?} after SIGTERM", self.contender);
        Ok(())
    }
}
