//! The public images that the samples name, packed from programs of this machine, because tests cannot reach a
//! registry.
//!
//! The versions are those of this machine. A sample may only use features of both images: a shell, Python with its
//! standard library, psql, and a server whose entrypoint supports `POSTGRES_PASSWORD`, `PGDATA` and
//! `/docker-entrypoint-initdb.d`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use k8sensus_local::{Cluster, Image, ImageFile, Source};

use super::node;
use crate::examples::{built, postgres};

pub const BUSYBOX: &str = "docker.io/library/busybox:1.37";
pub const PYTHON: &str = "docker.io/library/python:3.13-slim";
pub const POSTGRES: &str = "docker.io/library/postgres:17";
pub const CONTROLLER: &str = "localhost/k8sensus-controller:dev";

/// Large parts of Python's library that no sample needs.
const LEFT_OUT: [&str; 8] =
    ["__pycache__", "distutils", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter", "unittest"];

/// The behavior of the public image's entrypoint on which the samples rely.
const ENTRYPOINT: &str = r#"#!/bin/sh
set -eu
export PGDATA="${PGDATA:-/var/lib/postgresql/data}"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  printf %s "${POSTGRES_PASSWORD:?}" > /tmp/password
  initdb --username=postgres --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --no-sync
  rm /tmp/password
  echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
  pg_ctl --wait --options="-c listen_addresses=" start
  for script in /docker-entrypoint-initdb.d/*.sql; do
    psql --no-psqlrc --username=postgres --set=ON_ERROR_STOP=1 --file="$script"
  done
  pg_ctl --wait --mode=fast stop
fi
exec postgres -c 'listen_addresses=*'
"#;

/// Loads an image onto the shared node, once.
pub fn load(name: &'static str) {
    static LOADED: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    // Held during the load, so that other tests that need the image wait.
    let mut loaded = LOADED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !loaded.contains(name) {
        load_on(node(), name);
        loaded.insert(name);
    }
}

/// Loads an image onto a node.
pub fn load_on(node: &Cluster, name: &str) {
    let (entrypoint, files) = match name {
        BUSYBOX => ("/bin/sh", shell()),
        PYTHON => ("/usr/local/bin/python3", python()),
        POSTGRES => ("/usr/local/bin/docker-entrypoint.sh", postgres()),
        CONTROLLER => ("/controller", controller()),
        other => panic!("expected an image that a sample names, found {other}"),
    };
    let archive = tempfile::NamedTempFile::new().unwrap();
    let image = Image { name: name.to_owned(), entrypoint: vec![entrypoint.to_owned()], files };
    image.write(archive.path()).unwrap_or_else(|error| panic!("{error}"));
    node.load_image(archive.path()).unwrap_or_else(|error| panic!("{error}"));
}

/// Returns a shell and the tools that scripts call, all one program.
fn shell() -> Vec<ImageFile> {
    let busybox = needed("/bin/busybox", "busybox-static");
    let applets = Command::new(&busybox).arg("--list").output().unwrap().stdout;
    let applets = String::from_utf8(applets).unwrap();
    let links = applets.lines().filter(|applet| *applet != "busybox");
    let mut files: Vec<_> = links.map(|applet| link(&format!("/bin/{applet}"), "/bin/busybox")).collect();
    files.push(file(&busybox, "/bin/busybox"));
    files.push(folder("/tmp", 0o1777));
    files
}

fn python() -> Vec<ImageFile> {
    let python = fs::canonicalize(needed("/usr/bin/python3", "python3")).unwrap();
    let version = python.file_name().unwrap().to_str().unwrap();
    let library = PathBuf::from("/usr/lib").join(version);
    let mut modules = Vec::new();
    tree(&library, &mut modules, &|name| !LEFT_OUT.contains(&name) && !name.starts_with("config-"));
    assert!(!modules.is_empty(), "no {}: apt-get install --no-install-recommends python3", library.display());
    let mut files = shell();
    files.push(link("/usr/local/bin/python3", python.to_str().unwrap()));
    files.push(text("/etc/nsswitch.conf", "hosts: files dns\n"));
    let native = modules.iter().filter(|path| path.extension().is_some_and(|kind| kind == "so"));
    let programs: Vec<_> = native.cloned().chain([python]).collect();
    files.extend(libraries(&programs).iter().chain(&modules).chain(programs.last()).map(|path| same(path)));
    files
}

fn postgres() -> Vec<ImageFile> {
    let programs = postgres::programs();
    // /usr/lib/postgresql/15/bin; architecture-independent files are in /usr/share/postgresql/15.
    let home = programs.parent().unwrap();
    let shared = Path::new("/usr/share/postgresql").join(home.file_name().unwrap());
    let mut found = Vec::new();
    tree(&shared, &mut found, &|name| name != "man");
    let mut files = shell();
    let mut loaded: Vec<_> =
        ["plpgsql.so", "dict_snowball.so"].iter().map(|library| home.join("lib").join(library)).collect();
    for program in ["postgres", "initdb", "pg_ctl", "pg_isready", "psql"] {
        let path = programs.join(program);
        files.push(link(&format!("/usr/local/bin/{program}"), path.to_str().unwrap()));
        loaded.push(path);
    }
    files.extend(libraries(&loaded).iter().chain(&loaded).chain(&found).map(|path| same(path)));
    files.push(ImageFile {
        source: Source::Text(ENTRYPOINT.to_owned()),
        path: "/usr/local/bin/docker-entrypoint.sh".to_owned(),
        mode: 0o755,
    });
    // The server looks up its user's name, and its socket is in the same place as in the public image.
    files.push(text("/etc/passwd", "postgres:x:999:999::/var/lib/postgresql:/bin/sh\n"));
    files.push(text("/etc/group", "postgres:x:999:\n"));
    files.push(folder("/var/run/postgresql", 0o1777));
    files
}

/// Returns the example that `cargo test` built.
fn controller() -> Vec<ImageFile> {
    let program = [built("controller")];
    let mut files: Vec<_> = libraries(&program).iter().map(|path| same(path)).collect();
    files.push(file(&program[0], "/controller"));
    files
}

/// Returns the shared libraries of dynamically linked programs, and their loader.
fn libraries(programs: &[PathBuf]) -> BTreeSet<PathBuf> {
    let output = Command::new("ldd").args(programs).output().unwrap();
    let listing = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && !listing.contains("not found"), "ldd: {listing}");
    let lines = listing.lines().filter(|line| line.starts_with('\t'));
    lines.filter_map(|line| line.split_whitespace().find(|part| part.starts_with('/'))).map(PathBuf::from).collect()
}

/// Collects the files below a folder.
fn tree(folder: &Path, found: &mut Vec<PathBuf>, wanted: &dyn Fn(&str) -> bool) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if !wanted(path.file_name().unwrap().to_str().unwrap()) {
            continue;
        }
        // Follows links: an image needs only their targets.
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => tree(&path, found, wanted),
            Ok(_) => found.push(path),
            // A link into a package that is not installed.
            Err(_) => {}
        }
    }
}

fn needed(path: &str, package: &str) -> PathBuf {
    assert!(Path::new(path).exists(), "expected {path}, found none: apt-get install --no-install-recommends {package}");
    PathBuf::from(path)
}

fn same(path: &Path) -> ImageFile {
    file(path, path.to_str().unwrap())
}

fn file(source: &Path, path: &str) -> ImageFile {
    ImageFile { source: source.to_owned().into(), path: path.to_owned(), mode: 0o755 }
}

fn text(path: &str, text: &str) -> ImageFile {
    ImageFile { source: Source::Text(text.to_owned()), path: path.to_owned(), mode: 0o644 }
}

fn link(path: &str, target: &str) -> ImageFile {
    ImageFile { source: Source::Link(target.to_owned()), path: path.to_owned(), mode: 0o777 }
}

fn folder(path: &str, mode: u32) -> ImageFile {
    ImageFile { source: Source::Folder, path: path.to_owned(), mode }
}
