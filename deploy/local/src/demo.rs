//! The demonstration: an election, a graceful handover and a failover, each step explained, shown and timed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use k8sensus_local::{Cluster, Error, IMAGE, Mode, Profile, product_image, workspace_root};

const NAMESPACE: &str = "k8sensus-system";
const GROUP: &str = "hello";
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn run(name: &str) -> Result<(), Error> {
    let start = Instant::now();
    announce("Starting a one-node Kubernetes in its own Linux namespaces.");
    let cluster = crate::up(name, Mode::Node)?;

    announce("Building the image of this workspace and loading it onto the node.");
    let digest = load_image(&cluster)?;

    announce("Installing the operator with Helm.");
    install(&cluster, &digest)?;

    announce("Applying a group of three replicas, one active at a time.");
    let sample = workspace_root().join("deploy/samples/hello.yaml");
    kubectl(&cluster, &["apply", "-f", &short(&sample)])?;
    let leader = wait_for_leader(&cluster, None)?;
    kubectl(&cluster, &["wait", "--for=condition=Ready", "--timeout=120s", "electiongroup/hello"])?;
    show(&cluster)?;

    announce("Deleting the leader's pod: it hands over before it terminates.");
    let successor = timed(&cluster, &leader, || kubectl(&cluster, &["delete", "pod", "--wait=false", &leader.holder]))?;
    kubectl(&cluster, &["wait", "--for=condition=Ready", "--timeout=120s", "electiongroup/hello"])?;

    announce("Killing the next leader: the kubelet reports its container's end, and the operator releases the Lease.");
    timed(&cluster, &successor, || kill(&cluster, &successor.holder))?;
    kubectl(&cluster, &["wait", "--for=condition=Ready", "--timeout=120s", "electiongroup/hello"])?;
    show(&cluster)?;

    println!("\nDone in {:.0} s. The cluster keeps running. Next steps:", start.elapsed().as_secs_f64());
    let own = if name == k8sensus_local::DEFAULT_NAME { String::new() } else { format!(" --name {name}") };
    println!("    export KUBECONFIG={}", cluster.kubeconfig().display());
    println!("    kubectl get electiongroups --watch      # or: cargo demo -- kubectl{own} get electiongroups --watch");
    println!("    cargo demo -- status{own}");
    println!("    cargo demo -- down{own}");
    Ok(())
}

fn load_image(cluster: &Cluster) -> Result<String, Error> {
    let archive = crate::default_archive();
    command_line(&format!("cargo demo -- image --load    # {IMAGE}"));
    let start = Instant::now();
    let digest = product_image(&archive, Profile::Demo)?;
    cluster.load_image(&archive)?;
    println!("    {digest}");
    print_elapsed(start);
    Ok(digest)
}

fn install(cluster: &Cluster, digest: &str) -> Result<(), Error> {
    let chart = short(&workspace_root().join("charts/k8sensus"));
    let (repository, tag) = IMAGE.rsplit_once(':').unwrap_or((IMAGE, "latest"));
    // The tag is the same for every image; the annotation makes the operator's pods restart when the image changes.
    let revision = format!("podAnnotations.image={digest}");
    // An interrupted install leaves a lock on the release, a Secret that nothing else would delete.
    let pending = "owner=helm,name=k8sensus,status in (pending-install,pending-upgrade,pending-rollback)";
    query(cluster, &["-n", NAMESPACE, "delete", "secrets", "--selector", pending])?;
    let mut helm = cluster.helm()?;
    helm.args(["upgrade", "--install", "k8sensus", &chart, "-n", NAMESPACE, "--create-namespace"])
        .args(["--set", &format!("image.repository={repository}"), "--set", &format!("image.tag={tag}")])
        .args([
            "--set",
            "image.pullPolicy=IfNotPresent",
            "--set",
            &revision,
            "--hide-notes",
            "--wait",
            "--timeout=120s",
        ]);
    perform("helm", &mut helm)?;
    kubectl(cluster, &["-n", NAMESPACE, "wait", "--for=condition=Available", "--timeout=120s", "deployment", "--all"])
}

/// Shows the groups, the pods and the Lease.
fn show(cluster: &Cluster) -> Result<(), Error> {
    kubectl(cluster, &["get", "electiongroups"])?;
    kubectl(cluster, &["get", "pods"])?;
    let lease = query(cluster, &["get", "electiongroup", GROUP, "-o", "jsonpath={.status.leaseName}"])?;
    kubectl(cluster, &["get", "lease", &lease])
}

/// The leader and the time of its acquisition: the same pod may lead again after its container restarted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Leader {
    holder: String,
    since: String,
}

fn leader(cluster: &Cluster) -> Result<Leader, Error> {
    let path = "jsonpath={.status.holderIdentity} {.status.acquireTime}";
    let answer = query(cluster, &["get", "electiongroup", GROUP, "-o", path])?;
    let (holder, since) = answer.split_once(' ').unwrap_or_default();
    Ok(Leader { holder: holder.to_owned(), since: since.to_owned() })
}

fn wait_for_leader(cluster: &Cluster, before: Option<&Leader>) -> Result<Leader, Error> {
    let start = Instant::now();
    let mut last_report = start;
    loop {
        let now = leader(cluster)?;
        if !now.holder.is_empty() && Some(&now) != before {
            return Ok(now);
        }
        if start.elapsed() > LIMIT {
            let what = format!("new leader of {GROUP}");
            return Err(Error::Timeout { what, limit: LIMIT, last: format!("{now:?}") });
        }
        if last_report.elapsed() > Duration::from_secs(5) {
            last_report = Instant::now();
            println!("    waiting for a leader: {:.0} s", start.elapsed().as_secs_f64());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Ends a leader's term and measures the time until the status names its successor.
fn timed(cluster: &Cluster, before: &Leader, end: impl FnOnce() -> Result<(), Error>) -> Result<Leader, Error> {
    println!("    leader: {}", before.holder);
    let start = Instant::now();
    end()?;
    let next = wait_for_leader(cluster, Some(before))?;
    println!("    successor: {}, in the status after {:.1} s", next.holder, start.elapsed().as_secs_f64());
    Ok(next)
}

fn kill(cluster: &Cluster, pod: &str) -> Result<(), Error> {
    let uid = query(cluster, &["get", "pod", pod, "-o", "jsonpath={.metadata.uid}"])?;
    let processes = cluster.processes_in_pod(&uid);
    let pids: Vec<_> = processes.iter().map(|process| process.pid.to_string()).collect();
    command_line(&format!("kill -KILL {}", pids.join(" ")));
    for process in &processes {
        println!("    {}: {}", process.pid, process.command);
    }
    cluster.signal_pod(&uid, libc::SIGKILL).map(drop)
}

fn kubectl(cluster: &Cluster, arguments: &[&str]) -> Result<(), Error> {
    perform("kubectl", cluster.kubectl().args(arguments))
}

/// Shows a command, runs it in the workspace, and shows its output.
fn perform(program: &str, command: &mut Command) -> Result<(), Error> {
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    command_line(&format!("{program} {}", arguments.join(" ")));
    let start = Instant::now();
    let output = output(command)?;
    for line in output.lines() {
        println!("    {line}");
    }
    print_elapsed(start);
    Ok(())
}

fn query(cluster: &Cluster, arguments: &[&str]) -> Result<String, Error> {
    output(cluster.kubectl().args(arguments))
}

fn output(command: &mut Command) -> Result<String, Error> {
    let program = Path::new(command.get_program()).to_owned();
    let output = command.current_dir(workspace_root()).stdin(Stdio::null()).output();
    let output = output.map_err(|source| Error::Io { doing: "running", path: program, source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Command {
        command: format!("{command:?}"),
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Returns a path relative to the workspace.
fn short(path: &Path) -> String {
    path.strip_prefix(workspace_root()).unwrap_or(path).display().to_string()
}

fn announce(sentence: &str) {
    println!("\n{sentence}");
}

fn command_line(line: &str) {
    println!("  $ {line}");
}

fn print_elapsed(start: Instant) {
    if start.elapsed() > Duration::from_secs(1) {
        println!("    ({:.1} s)", start.elapsed().as_secs_f64());
    }
}
