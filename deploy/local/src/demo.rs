//! The demonstration: an election, a graceful handover and a failover, each step told, shown and timed.

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
    tell("A one-node Kubernetes, from its own components, in namespaces of its own.");
    let cluster = crate::up(name, Mode::Node)?;

    tell("The product's image, from this workspace, goes onto the node.");
    let digest = load_image(&cluster)?;

    tell("Helm installs the operator.");
    install(&cluster, &digest)?;

    tell("Three pods are to run one command: in one of them at a time.");
    let sample = workspace_root().join("deploy/samples/hello.yaml");
    kubectl(&cluster, &["apply", "-f", &short(&sample)])?;
    let leader = wait_for_leader(&cluster, None)?;
    kubectl(&cluster, &["wait", "--for=condition=Ready", "--timeout=120s", "electiongroup/hello"])?;
    show(&cluster)?;

    tell("The leader's pod is deleted: it hands over before it goes.");
    let successor = timed(&cluster, &leader, || kubectl(&cluster, &["delete", "pod", "--wait=false", &leader.holder]))?;
    kubectl(&cluster, &["wait", "--for=condition=Ready", "--timeout=120s", "electiongroup/hello"])?;

    tell("The next leader is killed: the kubelet reports its end, and the operator releases the Lease on that word.");
    timed(&cluster, &successor, || kill(&cluster, &successor.holder))?;
    kubectl(&cluster, &["wait", "--for=condition=Ready", "--timeout=120s", "electiongroup/hello"])?;
    show(&cluster)?;

    println!("\nDone in {:.0} s. The cluster stays. To go on:", start.elapsed().as_secs_f64());
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
    took(start);
    Ok(digest)
}

fn install(cluster: &Cluster, digest: &str) -> Result<(), Error> {
    let chart = short(&workspace_root().join("charts/k8sensus"));
    let (repository, tag) = IMAGE.rsplit_once(':').unwrap_or((IMAGE, "latest"));
    // The tag stays the same when the image changes; the annotation lets the operator's pods follow all the same.
    let revision = format!("podAnnotations.image={digest}");
    // An install that was interrupted holds a lock on the release, as a Secret, that nothing else would release.
    let pending = "owner=helm,name=k8sensus,status in (pending-install,pending-upgrade,pending-rollback)";
    ask(cluster, &["-n", NAMESPACE, "delete", "secrets", "--selector", pending])?;
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

/// The groups, the pods and the Lease on which all of it rests.
fn show(cluster: &Cluster) -> Result<(), Error> {
    kubectl(cluster, &["get", "electiongroups"])?;
    kubectl(cluster, &["get", "pods"])?;
    let lease = ask(cluster, &["get", "electiongroup", GROUP, "-o", "jsonpath={.status.leaseName}"])?;
    kubectl(cluster, &["get", "lease", &lease])
}

/// Who leads, and since when: the same pod may lead again after its container was restarted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Leader {
    holder: String,
    since: String,
}

fn leader(cluster: &Cluster) -> Result<Leader, Error> {
    let path = "jsonpath={.status.holderIdentity} {.status.acquireTime}";
    let answer = ask(cluster, &["get", "electiongroup", GROUP, "-o", path])?;
    let (holder, since) = answer.split_once(' ').unwrap_or_default();
    Ok(Leader { holder: holder.to_owned(), since: since.to_owned() })
}

fn wait_for_leader(cluster: &Cluster, before: Option<&Leader>) -> Result<Leader, Error> {
    let start = Instant::now();
    let mut told = start;
    loop {
        let now = leader(cluster)?;
        if !now.holder.is_empty() && Some(&now) != before {
            return Ok(now);
        }
        if start.elapsed() > LIMIT {
            return Err(Error::Waited { what: format!("a leader of {GROUP}"), limit: LIMIT, last: format!("{now:?}") });
        }
        if told.elapsed() > Duration::from_secs(5) {
            told = Instant::now();
            println!("    waiting for a leader: {:.0} s", start.elapsed().as_secs_f64());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Ends a leadership and measures until the status names the next.
fn timed(cluster: &Cluster, before: &Leader, end: impl FnOnce() -> Result<(), Error>) -> Result<Leader, Error> {
    println!("    leader: {}", before.holder);
    let start = Instant::now();
    end()?;
    let next = wait_for_leader(cluster, Some(before))?;
    println!("    successor: {}, named by the status after {:.1} s", next.holder, start.elapsed().as_secs_f64());
    Ok(next)
}

fn kill(cluster: &Cluster, pod: &str) -> Result<(), Error> {
    let uid = ask(cluster, &["get", "pod", pod, "-o", "jsonpath={.metadata.uid}"])?;
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

/// Shows a command, runs it in the workspace, and shows what it says.
fn perform(program: &str, command: &mut Command) -> Result<(), Error> {
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    command_line(&format!("{program} {}", arguments.join(" ")));
    let start = Instant::now();
    let output = output(command)?;
    for line in output.lines() {
        println!("    {line}");
    }
    took(start);
    Ok(())
}

fn ask(cluster: &Cluster, arguments: &[&str]) -> Result<String, Error> {
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

/// A path as one would type it in the workspace.
fn short(path: &Path) -> String {
    path.strip_prefix(workspace_root()).unwrap_or(path).display().to_string()
}

fn tell(sentence: &str) {
    println!("\n{sentence}");
}

fn command_line(line: &str) {
    println!("  $ {line}");
}

fn took(start: Instant) {
    if start.elapsed() > Duration::from_secs(1) {
        println!("    ({:.1} s)", start.elapsed().as_secs_f64());
    }
}
