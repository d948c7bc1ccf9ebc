//! The test programs do what the tests of mixed groups rely on.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::shared;
use crate::support::fixtures::{client_go, stamper};
use crate::support::overlap::Report;
use crate::support::{Program, candidate, kubectl, namespace, within};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn leaders_of_both_kinds_stamp_from_start_to_stop() {
    let ns = namespace(shared(), "stamps");
    let folder = tempfile::tempdir().unwrap();
    let [ours, theirs] = ["ours", "theirs"].map(|name| folder.path().join(name));
    let arguments = ["exec", "--", stamper().to_str().unwrap(), ours.to_str().unwrap(), "otter"];
    let mut otter = candidate(shared(), &ns, "weir", "otter", &arguments);
    let mut command = Command::new(client_go());
    command
        .args(["--lease-name=dam", "--identity=heron", "--lease-duration=3s", "--renew-deadline=2s"])
        .args(["--retry-period=1s", &format!("--lease-namespace={ns}"), &format!("--stamps={}", theirs.display())])
        .env("KUBECONFIG", shared().kubeconfig());
    let mut heron = Program::start("heron", &mut command);
    within(20, "both to stamp", || (Report::of(&[&ours, &theirs]).stretches.len() == 2).then_some(()));
    heron.terminate(SOON);
    otter.terminate(SOON);
    for (file, identity) in [(&ours, "otter"), (&theirs, "heron")] {
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.lines().next().unwrap().ends_with(&format!("{identity} start")), "{text}");
        assert!(text.lines().last().unwrap().ends_with(&format!("{identity} stop")), "{text}");
    }
    let report = Report::of(&[&ours, &theirs]);
    assert!(report.stretches.iter().any(|stretch| stretch.token.is_some_and(|token| token > 1)), "{report}");
    for lease in ["lease/weir", "lease/dam"] {
        let holder = kubectl(shared(), &["get", "-n", &ns, lease, "-o", "jsonpath={.spec.holderIdentity}"]);
        assert_eq!(holder, "", "{lease} must be released");
    }
}

#[test]
fn a_killed_stamper_leaves_its_last_stamp() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stamps");
    let mut program = Program::start("stamper", Command::new(stamper()).arg(&file).arg("otter"));
    within(10, "a stamp", || (!Report::of(&[&file]).stretches.is_empty()).then_some(()));
    program.signal(Signal::KILL);
    program.wait(SOON);
    assert!(!std::fs::read_to_string(&file).unwrap().contains("stop"));
    assert_eq!(Report::of(&[&file]).incarnations(), 1);
}
