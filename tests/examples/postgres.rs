//! A PostgreSQL server for one test, unreachable for all other programs.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use crate::support::{Program, prepare_machine};

pub struct Postgres {
    server: Program,
    folder: TempDir,
}

impl Postgres {
    /// Starts a server with the tables of the example.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let user = unprivileged_user();
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        let data = folder.path().join("data");
        let command = |program: &str| {
            let mut command = Command::new(programs().join(program));
            command.arg("-D").arg(&data).current_dir(folder.path()).env("LC_ALL", "C");
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command
        };
        let created = command("initdb").args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]).output();
        let created = created.unwrap();
        assert!(created.status.success(), "initdb: {}", String::from_utf8_lossy(&created.stderr));
        let mut server = command("postgres");
        server.arg("-k").arg(folder.path()).args(["-c", "listen_addresses="]);
        // So that a killed server leaves nothing in /dev/shm.
        server.args(["-c", "dynamic_shared_memory_type=mmap", "-c", "fsync=off"]);
        let server = Program::start("postgres", &mut server);
        server.wait_for("ready to accept connections", Duration::from_secs(60));
        let postgres = Self { server, folder };
        let schema = include_str!("../../examples/fenced/schema.sql");
        postgres.connect().await.batch_execute(schema).await.unwrap();
        postgres
    }

    /// Returns the connection string for clients.
    pub fn address(&self) -> String {
        format!("host={} user=postgres", self.folder.path().display())
    }

    pub async fn connect(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.address(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A graceful shutdown removes the shared memory. If the server does not end, dropping the program kills it.
        let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(self.server.pid()).unwrap(), Signal::INT);
        for _ in 0..100 {
            if !self.folder.path().join("data/postmaster.pid").exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Returns the folder of the newest server: Debian keeps the programs outside of PATH, by version.
pub fn programs() -> PathBuf {
    prepare_machine();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let number = |path: &Path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let newest = versions
        .map(|entry| entry.path())
        .filter(|path| path.join("bin/postgres").exists())
        .max_by_key(|path| number(path));
    newest
        .expect("no PostgreSQL in /usr/lib/postgresql: apt-get install --no-install-recommends postgresql")
        .join("bin")
}

/// Returns the user that the package created, because PostgreSQL refuses to run as root.
fn unprivileged_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("no user postgres: install postgresql");
    let fields: Vec<&str> = line.split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}
