//! Two of our candidates and two of client-go's on one Lease, under a random sequence of faults. The API server and
//! etcd fail occasionally too (`servers.rs`, on the same control plane).
//!
//! `K8SENSUS_MIXED_SEED` repeats a sequence, as far as real time allows; `K8SENSUS_MIXED_ROUNDS` sets its length.

use serde_json::json;

use super::cuts::api_server;
use super::group::{ClientGo, Group, Member, Ours, now, sleep};
use super::unstable;
use crate::support::proxy::{Passage, Proxy};
use crate::support::random::{Random, setting};
use crate::support::{namespace, within};

const GROUPS: u64 = 3;

#[derive(Debug)]
enum Fault {
    Terminated,
    Killed,
    Frozen { seconds: f64 },
    Cut { passage: Passage, seconds: f64 },
    Edited { patch: serde_json::Value },
}

#[test]
fn under_random_faults_ours_are_never_the_second_leader() {
    let ns = namespace(unstable(), "random");
    let seed = setting("K8SENSUS_MIXED_SEED").unwrap_or_else(|| u64::from(now().subsec_nanos()));
    let rounds = setting("K8SENSUS_MIXED_ROUNDS").unwrap_or(5);
    println!("K8SENSUS_MIXED_SEED={seed} K8SENSUS_MIXED_ROUNDS={rounds} repeats this");
    std::thread::scope(|scope| {
        for number in 0..GROUPS {
            let ns = &ns;
            scope.spawn(move || storm(ns, Random::from(seed.wrapping_add(number)), rounds));
        }
    });
}

fn storm(ns: &str, mut random: Random, rounds: u64) {
    let seed = random.state();
    let group = Group::new(unstable(), ns, format!("seed-{seed}"));
    let kinds = [("otter", Ours), ("crake", Ours), ("heron", ClientGo), ("egret", ClientGo)];
    let mut members: Vec<(Proxy, Member)> = kinds
        .into_iter()
        .map(|(identity, kind)| {
            let way = Proxy::to(api_server(unstable()));
            let member = group.start_behind(&way, kind, identity);
            (way, member)
        })
        .collect();
    for _ in 0..rounds {
        within(90, &format!("seed {seed}: a leader"), || leader(&members));
        sleep(random.between(0.2, 1.5));
        // Mostly the leader, but a fault of a standby must do no harm either.
        let chosen = random.below(4);
        let chosen = leader(&members).filter(|_| random.below(4) > 0).unwrap_or(chosen);
        let fault = fault(&mut random);
        println!("seed {seed}: {} {fault:?}", members[chosen].1.identity);
        inject(&group, &mut members[chosen], fault);
    }
    within(90, &format!("seed {seed}: a leader at the end"), || leader(&members));
    members.iter_mut().for_each(|(_, member)| member.terminate());
    group.check(&format!("seed {seed}, {rounds} faults"));
}

fn leader(members: &[(Proxy, Member)]) -> Option<usize> {
    members.iter().position(|(_, member)| member.at_work())
}

fn fault(random: &mut Random) -> Fault {
    let seconds = random.between(2.0, 6.0);
    match random.below(10) {
        0 => Fault::Terminated,
        1 => Fault::Killed,
        2..=3 => Fault::Frozen { seconds },
        4..=5 => Fault::Cut { passage: Passage::Silent, seconds },
        6 => Fault::Cut { passage: Passage::Unanswered, seconds },
        7 => Fault::Cut { passage: Passage::Reset, seconds },
        // Neither emptied nor deleted: client-go acquires such a Lease at its next try, perhaps before ours observe the
        // change.
        8 => Fault::Edited { patch: json!({"spec": {"holderIdentity": "crane", "leaseTransitions": 0}}) },
        _ => Fault::Edited { patch: json!({"spec": {"renewTime": "9999-12-31T23:59:59.999999Z"}}) },
    }
}

fn inject(group: &Group, (way, member): &mut (Proxy, Member), fault: Fault) {
    match fault {
        Fault::Terminated | Fault::Killed => {
            if let Fault::Killed = fault {
                member.kill()
            } else {
                member.terminate()
            }
            let (kind, identity) = (member.kind, member.identity.clone());
            *member = group.start_behind(way, kind, &identity);
        }
        Fault::Frozen { seconds } => {
            member.freeze();
            sleep(seconds);
            member.thaw(group);
        }
        Fault::Cut { passage, seconds } => {
            way.set(passage);
            sleep(seconds);
            way.set(Passage::Open);
        }
        Fault::Edited { patch } => {
            let lease = format!("lease/{}", group.lease);
            let mut kubectl = unstable().kubectl();
            kubectl.args(["patch", "--request-timeout=5s", "-n", &group.namespace, &lease, "--type=merge"]);
            // The edit fails while the API server is down.
            let _ = kubectl.args(["--patch", &patch.to_string()]).output().unwrap();
        }
    }
}
