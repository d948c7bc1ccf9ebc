//! Outages of the API server within the renew deadline, which must not end a term.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use super::cuts::api_server;
use super::group::{kubeconfig, sleep};
use super::{shared, unstable};
use crate::support::proxy::{Passage, Proxy};
use crate::support::{Program, candidate_command, get, namespace, within};

/// Each candidate has two outages, which saves processes.
const CANDIDATES: usize = 50;
const OUTAGE: f64 = 7.5;
/// The time between the starts of two outages. It is an odd fraction of the default renew interval of 2 s, so that
/// outages start at many different times after a renewal, and long enough that not all candidates reconnect at once.
/// They have at least half a second to reconnect.
const APART: f64 = 0.17;

#[test]
fn a_hundred_outages_of_7_and_a_half_seconds_end_no_term() {
    // Started before, so that its start does not slow down the candidates.
    unstable();
    let ns = namespace(shared(), "outages");
    let folder = tempfile::tempdir().unwrap();
    let leaders: Vec<Leader> = (0..CANDIDATES).map(|number| Leader::start(&ns, folder.path(), number)).collect();
    for leader in &leaders {
        within(120, "each candidate to lead its own Lease", || (leader.terms() == 1).then_some(()));
    }
    std::thread::scope(|scope| {
        for (number, leader) in leaders.iter().enumerate() {
            scope.spawn(move || {
                sleep(APART * number as f64);
                for _ in 0..2 {
                    leader.way.set(Passage::Silent);
                    sleep(OUTAGE);
                    leader.way.set(Passage::Open);
                    // Until the renew deadline of 10 s before the outage has passed.
                    sleep(2.6);
                }
            });
        }
    });
    let lost: Vec<&Leader> = leaders.iter().filter(|leader| leader.terms() > 1 || leader.has_lost()).collect();
    println!("{} outages of {OUTAGE} s: {} terms lost", 2 * CANDIDATES, lost.len());
    assert!(lost.is_empty(), "{}", lost.iter().map(|leader| leader.program.output()).collect::<String>());
    for leader in &leaders {
        let lease = get(shared(), &ns, &format!("lease/{}", leader.lease)).unwrap();
        assert_eq!(lease["spec"]["holderIdentity"], "otter", "{lease:#}");
        assert_eq!(lease["spec"]["leaseTransitions"], 0, "{lease:#}");
        leader.program.signal(Signal::TERM);
    }
    for mut leader in leaders {
        leader.program.wait(Duration::from_secs(30));
    }
}

struct Leader {
    lease: String,
    way: Proxy,
    program: Program,
    terms: PathBuf,
}

impl Leader {
    fn start(ns: &str, folder: &Path, number: usize) -> Self {
        let lease = format!("weir-{number}");
        let way = Proxy::to(api_server(shared()));
        let terms = folder.join(&lease);
        let script = format!("echo started >> {}; exec sleep infinity", terms.display());
        let mut command = candidate_command(shared(), ns, &lease, "otter", &["exec", "--", "/bin/sh", "-c", &script]);
        command
            .env("KUBECONFIG", kubeconfig(shared(), &format!("https://{}", way.address()), folder, number))
            .env("K8SENSUS_LEASE_DURATION_SECONDS", "15")
            .env("K8SENSUS_RENEW_DEADLINE_SECONDS", "10")
            .env("K8SENSUS_RETRY_PERIOD_SECONDS", "2");
        Self { program: Program::start(&lease, &mut command), lease, way, terms }
    }

    fn terms(&self) -> usize {
        std::fs::read_to_string(&self.terms).unwrap_or_default().lines().count()
    }

    fn has_lost(&self) -> bool {
        ["no renewal within", "no longer held"].iter().any(|text| self.program.says(text))
    }
}
