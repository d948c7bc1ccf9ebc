//! Pauses and restarts of the API server and etcd.

use k8sensus_local::Component::{self, ApiServer, Etcd};
use rustix::process::Signal;

use super::group::{ClientGo, Group, Kind, LEASE, Member, Ours, sleep};
use super::unstable;
use crate::support::{namespace, within};

#[derive(Clone, Copy, Debug)]
enum Harm {
    Paused(Component),
    /// Killed and restarted.
    Killed(Component),
}

#[test]
fn ours_survive_pauses_and_kills_of_the_api_server_and_etcd() {
    let cluster = unstable();
    let ns = namespace(cluster, "servers");
    let mut pairs: Vec<Pair> =
        [(Ours, ClientGo), (ClientGo, Ours), (Ours, Ours)].into_iter().map(|kinds| Pair::start(&ns, kinds)).collect();
    for harm in [Harm::Paused(ApiServer), Harm::Killed(ApiServer), Harm::Paused(Etcd), Harm::Killed(Etcd)] {
        match harm {
            Harm::Paused(component) => {
                cluster.signal(component, Signal::STOP.as_raw()).unwrap();
                // No candidate can renew within its deadline.
                sleep(1.5 * LEASE.as_secs_f64());
                let still: Vec<_> = pairs.iter().flat_map(Pair::ours_at_work).collect();
                cluster.signal(component, Signal::CONT.as_raw()).unwrap();
                assert!(still.is_empty(), "{harm:?}, and still at work: {still:?}");
            }
            Harm::Killed(component) => {
                cluster.signal(component, Signal::KILL.as_raw()).unwrap();
                within(10, "the process to be gone", || cluster.pid(component).is_none().then_some(()));
                cluster.start_component(component).unwrap();
            }
        }
        for pair in &pairs {
            within(60, &format!("{:?} {harm:?}: a leader", pair.kinds), || {
                pair.members.iter().any(Member::at_work).then_some(())
            });
        }
        sleep(1.0);
    }
    for pair in &mut pairs {
        pair.members.iter_mut().for_each(Member::terminate);
        pair.group.check(&format!("API server and etcd paused and killed, {:?}", pair.kinds));
    }
}

struct Pair {
    kinds: (Kind, Kind),
    group: Group,
    members: [Member; 2],
}

impl Pair {
    fn start(ns: &str, kinds: (Kind, Kind)) -> Self {
        let group = Group::new(unstable(), ns, format!("{:?}-{:?}", kinds.0, kinds.1).to_lowercase());
        let leader = group.start(kinds.0, "otter");
        leader.wait_until_at_work();
        let standby = group.start(kinds.1, "heron");
        Self { kinds, group, members: [leader, standby] }
    }

    fn ours_at_work(&self) -> Option<String> {
        let member = self.members.iter().find(|member| member.kind == Ours && member.at_work())?;
        Some(format!("{} of {:?}", member.identity, self.kinds))
    }
}
