//! The cost of elections while nothing happens: requests, memory, processor time.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Error;
use crate::contender::{Candidate, Contender, Durations, World, wait_for};
use crate::process::{processor_time, resident};
use crate::support::{Program, apply, audit_position, get, kubectl, within};

const SETTLE: Duration = Duration::from_secs(10);
const WINDOW: Duration = Duration::from_secs(60);
const START: Duration = Duration::from_secs(20);
const NAMESPACE: &str = "default";

/// The standbys in each group whose requests are counted.
const STANDBYS: usize = 2;

pub const ESTIMATE: Duration = Duration::from_secs(SETTLE.as_secs() + WINDOW.as_secs() + 10);

/// The cost of one group of candidates.
#[derive(Clone, Debug)]
pub struct Cost {
    pub name: &'static str,
    /// Requests a second, of the leader and of one standby. Not counted for the shipped candidate, which sends the same
    /// requests as the library.
    pub requests: Option<[f64; 2]>,
    /// Requests a second of the whole group of three.
    pub group_requests: Option<f64>,
    /// Bytes of the leader and of one standby.
    pub resident: [u64; 2],
    /// Per minute, of the leader and of one standby.
    pub processor_time: [Duration; 2],
    pub program_size: u64,
}

/// A group of candidates whose first process leads.
struct Group {
    name: &'static str,
    account: Option<&'static str>,
    program_size: u64,
    pids: Vec<i32>,
    /// The processes, which end with this.
    _running: Running,
}

enum Running {
    Stamping { _candidates: Vec<Candidate> },
    Shipped { _programs: Vec<Program> },
}

pub fn measure(world: &World) -> Result<Vec<Cost>, Error> {
    println!("steady state: about {}", crate::lanes::minutes(ESTIMATE));
    let groups = [
        stamping(world, "k8sensus, library", "ours", Contender::Ours, &[])?,
        stamping(world, "k8sensus, library, renewing every 5 s", "ours-5s", Contender::Ours, &["--renew-interval=5s"])?,
        stamping(world, "client-go", "client-go", Contender::ClientGo, &[])?,
        shipped(world, "`k8sensus`", "plain", &[])?,
        shipped(
            world,
            "`k8sensus exec`",
            "exec",
            &["exec", "--", world.programs.candidate.to_str().unwrap_or_default(), "sample"],
        )?,
    ];
    sleep(SETTLE);
    let position = audit_position(&world.cluster);
    let times = || -> Result<Vec<Vec<Duration>>, Error> {
        groups.iter().map(|group| group.pids.iter().map(|pid| Ok(processor_time(*pid)?)).collect()).collect()
    };
    let before = times()?;
    sleep(WINDOW);
    let after = times()?;
    let requests = requests_by_user(world, position)?;
    groups
        .iter()
        .zip(before.iter().zip(&after))
        .map(|(group, (before, after))| {
            let of_user = |role: &str| {
                let account = group.account?;
                let user = format!("system:serviceaccount:{NAMESPACE}:{account}-{role}");
                Some(requests.get(&user).copied().unwrap_or_default() as f64 / WINDOW.as_secs_f64())
            };
            let requests = of_user("leader").zip(of_user("standby"));
            Ok(Cost {
                name: group.name,
                requests: requests.map(|(leader, standbys)| [leader, standbys / STANDBYS as f64]),
                group_requests: requests.map(|(leader, standbys)| leader + standbys),
                resident: [resident(group.pids[0])?, resident(group.pids[1])?],
                processor_time: [after[0].saturating_sub(before[0]), after[1].saturating_sub(before[1])],
                program_size: group.program_size,
            })
        })
        .collect()
}

fn stamping(
    world: &World,
    name: &'static str,
    account: &'static str,
    contender: Contender,
    more: &[&str],
) -> Result<Group, Error> {
    let lease = format!("steady-{account}");
    let mut candidates: Vec<Candidate> = Vec::new();
    for number in 0..=STANDBYS {
        let role = if number == 0 { "leader" } else { "standby" };
        let account = format!("{account}-{role}");
        if number < 2 {
            service_account(world, &account)?;
        }
        let token = kubectl(&world.cluster, &["create", "token", &account]).trim().to_owned();
        let kubeconfig = world.kubeconfig(&account, None, Some(token))?;
        let identity = format!("{account}-{number}");
        let candidate = Candidate::start(world, contender, Durations::DEFAULT, &lease, &identity, &kubeconfig, more);
        if number == 0 {
            wait_for("a leader in steady state", START, || candidate.has_led())?;
        }
        candidates.push(candidate);
    }
    Ok(Group {
        name,
        account: Some(account),
        program_size: fs::metadata(world.programs.of(contender))?.len(),
        pids: candidates.iter().map(|candidate| candidate.program.pid()).collect(),
        _running: Running::Stamping { _candidates: candidates },
    })
}

/// Starts a leader and a standby of the shipped candidate.
fn shipped(world: &World, name: &'static str, lease: &str, arguments: &[&str]) -> Result<Group, Error> {
    let lease = format!("steady-{lease}");
    let start = |identity: &str| {
        let mut command = Command::new(&world.programs.candidate);
        command
            .args(arguments)
            .env("K8SENSUS_LEASE_NAME", &lease)
            .env("POD_NAME", identity)
            .env("KUBECONFIG", world.cluster.kubeconfig());
        Program::start(identity, &mut command)
    };
    let leader = start(&format!("{lease}-leader"));
    within(START.as_secs(), "a holder of the Lease", || {
        let lease = get(&world.cluster, NAMESPACE, &format!("lease/{lease}"))?;
        lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty()).map(drop)
    });
    let standby = start(&format!("{lease}-standby"));
    Ok(Group {
        name,
        account: None,
        program_size: fs::metadata(&world.programs.candidate)?.len(),
        pids: vec![leader.pid(), standby.pid()],
        _running: Running::Shipped { _programs: vec![leader, standby] },
    })
}

/// Creates a service account with the permissions on Leases that candidates need.
fn service_account(world: &World, name: &str) -> Result<(), Error> {
    let verbs = ["get", "list", "watch", "create", "update"];
    let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name } },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": name },
            "rules": [{ "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs }],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
            "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": NAMESPACE }],
        },
    ]});
    Ok(apply(&world.cluster, NAMESPACE, &objects)?)
}

/// Counts the requests that ended since line `from` of the audit log.
fn requests_by_user(world: &World, from: usize) -> Result<BTreeMap<String, usize>, Error> {
    let mut counts = BTreeMap::new();
    for line in fs::read_to_string(world.cluster.audit_log())?.lines().skip(from) {
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        if event["stage"] == "ResponseComplete" {
            *counts.entry(event["user"]["username"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    Ok(counts)
}
