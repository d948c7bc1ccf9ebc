//! Two processes with the same name.

use super::cuts::api_server;
use super::group::{Group, LEASE, Ours, sleep};
use super::shared;
use crate::support::namespace;
use crate::support::proxy::{Passage, Proxy};

#[test]
fn two_processes_with_one_name_never_work_at_once() {
    let ns = namespace(shared(), "twins");
    let group = Group::new(shared(), &ns, "weir");
    let way = Proxy::to(api_server(shared()));
    let mut first = group.start_behind(&way, Ours, "otter");
    first.wait_until_at_work();
    let mut second = group.start(Ours, "otter");
    sleep(1.2 * LEASE.as_secs_f64());
    first.wait_until_at_work();
    assert!(!second.at_work());

    way.set(Passage::Silent);
    second.wait_until_at_work();
    way.set(Passage::Open);
    sleep(LEASE.as_secs_f64());
    second.wait_until_at_work();
    assert!(!first.at_work());

    second.kill();
    first.wait_until_at_work();
    let mut third = group.start(Ours, "otter");
    sleep(1.0);
    first.freeze();
    third.wait_until_at_work();
    first.thaw(&group);
    sleep(LEASE.as_secs_f64());
    third.wait_until_at_work();
    assert!(!first.at_work());
    third.terminate();
    first.wait_until_at_work();
    first.terminate();
    let report = group.check("twins");
    assert!(report.incarnations() >= 5, "{report}");
}
