//! Builds a program set into the cache.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use k8sensus_prerequisites::recipe::{PAUSE_SOURCE, ProgramSet};
use k8sensus_prerequisites::{PAUSE, cache, is_program};
use rustix::fs::{FlockOperation, flock};

use crate::error::{At, Error, run, tail};
use crate::folder::private_folder;
use crate::progress::{Progress, seconds};

/// A Go module and the programs that are built from it.
pub(super) struct Module<'a> {
    /// The title of the progress output.
    pub(super) title: String,
    /// The folder, relative to the cache.
    pub(super) folder: String,
    /// The package to build; `tool` for all tools that `go.mod` names.
    pub(super) package: &'a str,
    /// File names and contents.
    pub(super) files: Vec<(&'a str, &'a str)>,
    pub(super) tags: &'a str,
    pub(super) ldflags: &'a str,
    pub(super) cgo: bool,
    pub(super) seconds_on_two_cores: u64,
    pub(super) programs: &'a [&'a str],
}

/// Builds the programs of a set from its Go module.
pub(super) fn set(set: &ProgramSet, number: usize, of: usize) -> Result<(), Error> {
    go(&Module {
        title: format!("building {} {} ({number} of {of})", set.name, set.version),
        folder: set.folder(),
        package: "tool",
        files: vec![("go.mod", set.go_mod), ("go.sum", set.go_sum)],
        tags: set.tags,
        ldflags: set.ldflags,
        cgo: set.cgo,
        seconds_on_two_cores: set.seconds_on_two_cores,
        programs: set.programs,
    })
}

/// Builds a module into the cache. Concurrent builds of one module wait for the first.
pub(super) fn go(module: &Module) -> Result<(), Error> {
    let target = cache().join(&module.folder);
    into_cache(&target, &format!("waiting for another build of {}", module.folder), |folder| {
        let source = folder.join("src");
        fs::create_dir(&source).at("creating", &source)?;
        for (name, text) in &module.files {
            fs::write(source.join(name), text).at("writing", source.join(name))?;
        }
        let log = source.join("build.log");
        let output = File::create(&log).at("creating", &log)?;
        let mut command = Command::new("go");
        command
            .args(["build", "-trimpath", "-tags", module.tags, "-ldflags", module.ldflags, "-o"])
            // The trailing slash makes go treat it as a folder, even for a single program.
            .arg(folder.join(""))
            .arg(module.package)
            .current_dir(&source)
            // A developer's workspace or flags must not affect the build.
            .envs([("GOWORK", "off"), ("GOFLAGS", "-mod=readonly -buildvcs=false"), ("GO111MODULE", "on")])
            .env("CGO_ENABLED", if module.cgo { "1" } else { "0" })
            .stdin(Stdio::null())
            .stderr(output.try_clone().at("opening", &log)?)
            .stdout(output);
        let status = watch(&mut command, &module.title, estimate(module.seconds_on_two_cores))?;
        let failed = |status| Error::Build { set: module.folder.clone(), status, tail: tail(&log) };
        if !status.success() {
            return Err(failed(status.to_string()));
        }
        // The path of etcd's server package ends in `server`, and so does its program.
        let server = folder.join("server");
        if module.programs.contains(&"etcd") && is_program(&server) {
            fs::rename(&server, folder.join("etcd")).at("renaming", &server)?;
        }
        if let Some(missing) = module.programs.iter().find(|program| !is_program(&folder.join(program))) {
            return Err(failed(format!("it produced no {missing}")));
        }
        fs::remove_dir_all(&source).at("removing", &source)
    })
}

/// Builds the program that holds a pod's namespaces, statically linked because its image has no other files.
pub(super) fn pause(target: &Path) -> Result<(), Error> {
    let folder = target.parent().unwrap_or(target);
    into_cache(folder, "waiting for another build of pause", |folder| {
        let source = folder.join("pause.c");
        fs::write(&source, PAUSE_SOURCE).at("writing", &source)?;
        run(Command::new("cc").args(["-static", "-O2", "-o"]).arg(folder.join(PAUSE)).arg(&source))?;
        Ok(())
    })
}

/// Lets `build` fill a new folder and moves it into the cache in one step; does nothing if it is already there.
fn into_cache(target: &Path, waiting: &str, build: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let parent = target.parent().unwrap_or(target);
    private_folder(parent)?;
    let lock_path = target.with_file_name(format!("{}.lock", name(target)));
    let lock = File::create(&lock_path).at("creating", &lock_path)?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        Progress::note(waiting);
        flock(&lock, FlockOperation::LockExclusive).map_err(Into::into).at("locking", &lock_path)?;
    }
    if target.exists() {
        return Ok(());
    }
    let prefix = format!("{}.tmp", name(target));
    for entry in fs::read_dir(parent).at("reading", parent)?.flatten() {
        // The process that created it no longer holds the lock.
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let new = target.with_file_name(format!("{prefix}-{}", std::process::id()));
    fs::create_dir(&new).at("creating", &new)?;
    let built = build(&new).and_then(|()| fs::rename(&new, target).at("renaming", &new));
    if built.is_err() {
        let _ = fs::remove_dir_all(&new);
    }
    built
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn estimate(seconds_on_two_cores: u64) -> Duration {
    let cores = thread::available_parallelism().map_or(2, |cores| cores.get() as u64);
    // Linking and the largest packages do not scale beyond about eight cores.
    Duration::from_secs((seconds_on_two_cores * 2).div_ceil(cores.min(8)))
}

fn watch(command: &mut Command, title: &str, estimate: Duration) -> Result<std::process::ExitStatus, Error> {
    let start = Instant::now();
    let mut progress = Progress::begin(title);
    let mut child = command.spawn().at("running", command.get_program())?;
    loop {
        if let Some(status) = child.try_wait().at("waiting for", command.get_program())? {
            progress.end(&format!("{title}: {}", seconds(start.elapsed())));
            return Ok(status);
        }
        progress.update(&format!("{title}: {} of about {}", seconds(start.elapsed()), seconds(estimate)));
        thread::sleep(Duration::from_millis(250));
    }
}
