//! Signals that are forwarded to the command, and those that end the candidate.

use std::time::Duration;

use rustix::process::Signal;

use super::exec::{file, shell};
use crate::support::{get, namespace, shared, within};

const SOON: Duration = Duration::from_secs(5);

#[test]
fn signals_are_forwarded_to_the_command() {
    let ns = namespace(shared(), "passed");
    let script = "for s in HUP USR1 USR2 WINCH; do trap \"echo $s >> $DIR/got\" $s; done; echo up > $DIR/up; \
                  while :; do sleep 0.02; done";
    let (leader, folder) = shell(&ns, "otter", script);
    file(&folder, "up");
    let mut expected = String::new();
    for (signal, name) in [
        (Signal::HUP, "HUP"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::WINCH, "WINCH"),
        (Signal::HUP, "HUP"),
    ] {
        leader.signal(signal);
        expected = format!("{expected}{name}\n");
        within(5, name, || (std::fs::read_to_string(folder.path().join("got")).ok()? == expected).then_some(()));
    }
    assert_eq!(get(shared(), &ns, "lease/weir").unwrap()["spec"]["holderIdentity"], "otter");
}

#[test]
fn a_standby_ignores_forwarded_signals_and_obeys_stop_signals() {
    let ns = namespace(shared(), "ignored");
    let (mut leader, folder) = shell(&ns, "otter", "echo up > $DIR/up; exec sleep 1000");
    file(&folder, "up");
    let (mut standby, standby_folder) = shell(&ns, "heron", "echo up > $DIR/up; exec sleep 1000");
    standby.wait_for("leader is otter", SOON);
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2, Signal::WINCH] {
        standby.signal(signal);
    }
    assert!(leader.terminate(SOON).success());
    file(&standby_folder, "up");
    let (mut third, _) = shell(&ns, "robin", "exec sleep 1000");
    third.wait_for("leader is heron", SOON);
    third.signal(Signal::QUIT);
    assert_eq!(third.wait(SOON).code(), Some(0), "as SIGTERM ends it");
    assert!(standby.terminate(SOON).success());
}
