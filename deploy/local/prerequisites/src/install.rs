//! Installs missing packages, or returns the commands that install them.

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::machine::Machine;
use crate::need::Need;

/// The environment variable that turns installation off, with any value but an empty one or 0.
pub const NO_INSTALL: &str = "K8SENSUS_NO_INSTALL";

/// How long apt-get waits for another program that installs packages.
const WAIT: &str = "DPkg::Lock::Timeout=300";

static FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// Turns installation off for this process, as `--no-install` does.
pub fn forbid_installation() {
    FORBIDDEN.store(true, Ordering::Relaxed);
}

pub(crate) fn is_allowed() -> bool {
    !FORBIDDEN.load(Ordering::Relaxed) && env::var_os(NO_INSTALL).is_none_or(|value| value.is_empty() || value == "0")
}

/// Makes sure that `machine` has all `needs`: installs missing packages if this user may, and prints what and why
/// first.
///
/// `others` are lines about missing prerequisites that no package provides. Concurrent processes wait for the one that
/// installs.
///
/// # Errors
/// One line for each prerequisite that is still missing, with the remedy. Nothing is installed if `others` is not
/// empty, because the installation would not suffice.
pub fn ensure(machine: &Machine, needs: &[&'static Need], others: Vec<String>) -> Result<(), Vec<String>> {
    let mut failure = None;
    if others.is_empty()
        && !missing(machine, needs).is_empty()
        && let Some(apt) = machine.installer()
    {
        failure = install(machine, &apt, needs).err();
    }
    let mut lines = others;
    lines.extend(missing(machine, needs).iter().map(|need| {
        format!("{}, needed for {}: apt-get install {}", need.name, need.purpose, need.packages.join(" "))
    }));
    // Nothing is missing now, even if apt-get reported an error.
    if lines.is_empty() {
        return Ok(());
    }
    lines.extend(failure);
    Err(lines)
}

fn missing(machine: &Machine, needs: &[&'static Need]) -> Vec<&'static Need> {
    needs.iter().copied().filter(|need| !machine.has(need)).collect()
}

/// Installs missing packages. An error is a line with the end of apt-get's output.
fn install(machine: &Machine, apt: &Path, needs: &[&'static Need]) -> Result<(), String> {
    // apt-get's own lock does not cover the package lists: a second concurrent `update` would fail immediately.
    let path = machine.root.join("run/k8sensus-install.lock");
    let lock = OpenOptions::new().create(true).append(true).open(&path);
    let lock = lock.and_then(|lock| lock.lock().map(|()| lock));
    let _lock = lock.map_err(|error| format!("cannot lock {} for installing packages: {error}", path.display()))?;
    // Another process may have installed them meanwhile.
    let missing = missing(machine, needs);
    if missing.is_empty() {
        return Ok(());
    }
    announce(&missing);
    let packages = missing.iter().flat_map(|need| need.packages.iter().copied());
    let update = run(machine, apt, &["update"], []);
    // An install may work even if the update failed: the package lists may already be on this machine.
    match (run(machine, apt, &["install", "--yes", "--no-install-recommends"], packages), update) {
        (Ok(()), _) => Ok(()),
        (Err(install), Ok(())) => Err(install),
        (Err(install), Err(update)) => Err(format!("{update}; {install}")),
    }
}

/// Prints the packages directly to standard error, so that a test harness does not hide why the machine changes.
fn announce(missing: &[&'static Need]) {
    let mut text =
        format!("installing packages with apt-get ({NO_INSTALL}=1 or `cargo demo --no-install` turns this off):\n");
    for need in missing {
        text.push_str(&format!("  {}, needed for {}\n", need.packages.join(" "), need.purpose));
    }
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn run<'a>(
    machine: &Machine,
    apt: &Path,
    arguments: &[&str],
    packages: impl IntoIterator<Item = &'a str>,
) -> Result<(), String> {
    let mut command = Command::new(apt);
    command.args(["-qq", "-o", WAIT]).args(arguments).args(packages);
    command.env("DEBIAN_FRONTEND", "noninteractive").env("PATH", &machine.path).stdin(Stdio::null());
    let what = format!("apt-get {}", arguments[0]);
    let output = command.output().map_err(|error| format!("{what}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Err(format!("{what} failed ({}): {}", output.status, lines[lines.len().saturating_sub(5)..].join("; ")))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;
    use crate::need::{NODE, SECCOMP, TESTS};

    /// A Debian machine with nothing but an apt-get, which fails if it runs twice concurrently.
    struct Fresh {
        folder: TempDir,
        machine: Machine,
    }

    const APT: &str = r#"#!/bin/sh
echo "$@" >> "$ROOT/calls"
mkdir "$ROOT/busy" || { echo "E: could not get lock" >&2; exit 100; }
/bin/sleep 0.2
program() { printf '#!/bin/sh\n' > "$ROOT/bin/$1"; chmod +x "$ROOT/bin/$1"; }
for word in "$@"; do
  case $word in
    iproute2) program ip ;;
    iptables) program iptables ;;
    util-linux) program nsenter; program mount ;;
    libseccomp-dev) program pkg-config ;;
    postgresql) mkdir -p "$ROOT/usr/lib/postgresql/17/bin"; : > "$ROOT/usr/lib/postgresql/17/bin/postgres" ;;
    busybox-static) : > "$ROOT/bin/busybox" ;;
    python3) mkdir -p "$ROOT/usr/bin"; : > "$ROOT/usr/bin/python3" ;;
  esac
done
rmdir "$ROOT/busy"
"#;

    impl Fresh {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path();
            for name in ["bin", "etc", "run"] {
                fs::create_dir(root.join(name)).unwrap();
            }
            fs::write(root.join("etc/debian_version"), "13.1\n").unwrap();
            let machine = Machine {
                root: root.to_owned(),
                path: root.join("bin").into_os_string(),
                is_root: true,
                may_install: true,
            };
            let fresh = Self { folder, machine };
            // The machine's path has no shell tools, so the fake apt-get extends it.
            let tools = "PATH=$PATH:/usr/bin:/bin\n";
            fresh.apt_get(&APT.replacen('\n', &format!("\n{tools}"), 1));
            fresh
        }

        fn apt_get(&self, script: &str) {
            let path = self.folder.path().join("bin/apt-get");
            fs::write(&path, script.replace("$ROOT", self.folder.path().to_str().unwrap())).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }

        fn calls(&self) -> Vec<String> {
            let calls = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
            calls.lines().map(str::to_owned).collect()
        }
    }

    fn all() -> Vec<&'static Need> {
        NODE.into_iter().chain([&SECCOMP]).chain(TESTS).collect()
    }

    #[test]
    fn root_on_debian_installs_missing_packages_in_one_call() {
        let fresh = Fresh::new();
        ensure(&fresh.machine, &all(), Vec::new()).unwrap();
        let install = "-qq -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends iproute2 iptables util-linux \
                       mount libseccomp-dev pkg-config postgresql busybox-static python3";
        assert_eq!(fresh.calls(), ["-qq -o DPkg::Lock::Timeout=300 update", install]);
        ensure(&fresh.machine, &all(), Vec::new()).unwrap();
        assert_eq!(fresh.calls().len(), 2, "nothing must be installed twice");
    }

    #[test]
    fn other_systems_get_commands_and_no_installation() {
        let machine = |change: fn(&mut Machine)| {
            let mut fresh = Fresh::new();
            change(&mut fresh.machine);
            fresh
        };
        for fresh in [
            machine(|machine| machine.is_root = false),
            machine(|machine| machine.may_install = false),
            machine(|machine| fs::remove_file(machine.root.join("etc/debian_version")).unwrap()),
        ] {
            let lines = ensure(&fresh.machine, &[NODE[1], TESTS[0]], Vec::new()).unwrap_err();
            let expected = [
                "iptables, needed for the node's Services: apt-get install iptables",
                "PostgreSQL, needed for the tests of fencing and of the sample with a database: apt-get install postgresql",
            ];
            assert_eq!(lines, expected);
            assert!(fresh.calls().is_empty(), "{:?}", fresh.calls());
        }
    }

    #[test]
    fn nothing_is_installed_if_that_would_not_suffice() {
        let fresh = Fresh::new();
        let lines = ensure(&fresh.machine, &NODE, vec!["Go 1.26.0 or newer".to_owned()]).unwrap_err();
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(fresh.calls().is_empty());
    }

    #[test]
    fn two_processes_that_install_at_the_same_time_both_succeed() {
        let fresh = Fresh::new();
        std::thread::scope(|scope| {
            let threads = [(); 2].map(|()| scope.spawn(|| ensure(&fresh.machine, &all(), Vec::new())));
            for thread in threads {
                thread.join().unwrap().unwrap();
            }
        });
        assert_eq!(fresh.calls().len(), 2, "only one process must install: {:?}", fresh.calls());
    }

    #[test]
    fn a_failed_installation_is_quoted_with_what_is_still_missing() {
        let fresh = Fresh::new();
        fresh.apt_get("#!/bin/sh\necho 'E: Unable to locate package' >&2\nexit 100\n");
        let lines = ensure(&fresh.machine, &[NODE[1]], Vec::new()).unwrap_err();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("iptables, "), "{lines:?}");
        assert!(lines[1].contains("apt-get install failed (exit status: 100): E: Unable to locate"), "{lines:?}");
    }
}
