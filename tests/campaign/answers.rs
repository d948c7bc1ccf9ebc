//! Invalid answers of the API server: the campaign does not panic, does not trust them, and logs them.

#![allow(clippy::disallowed_methods, reason = "these tests wait for real connections in real time")]

use std::any::Any;
use std::process::Command;
use std::time::{Duration, Instant};

use k8sensus::campaign::{Campaign, Term};
use k8sensus_election::Timing;
use serde_json::{Value, json};

use super::answers_server::{Nonsense, Server, http, lease, ok};
use crate::support::{CANDIDATE, Program, SHORT, within};

const SOON: Duration = Duration::from_secs(15);

/// Answers of proxies, broken servers and cut connections: unreadable, or no object at all.
const UNREADABLE: [(&str, Nonsense); 17] = [
    ("an empty body", |_| ok("")),
    ("a body of blanks", |_| ok(" \r\n ")),
    ("no JSON", |_| ok("upstream connect error or disconnect/reset before headers")),
    ("a proxy's login page", |_| {
        let page = "<html>\n<head><title>Log in</title></head>\n<body>Who are you?</body>\n</html>\n";
        http("200 OK", "text/html", &format!("content-length: {}\r\n", page.len()), page.as_bytes())
    }),
    ("a proxy's error page", |_| {
        let page = "<html>\n<body>\n".to_owned() + &"Bad Gateway\n".repeat(10_000) + "</body>\n</html>\n";
        http("502 Bad Gateway", "text/html", &format!("content-length: {}\r\n", page.len()), page.as_bytes())
    }),
    ("half an object", |proper| ok(&proper.to_string().as_bytes()[..100])),
    ("an answer cut off by a closed connection", |proper| {
        let body = proper.to_string();
        http("200 OK", "application/json", &format!("content-length: {}\r\n", body.len() + 1), body.as_bytes())
    }),
    ("a length that is too small", |proper| {
        let body = proper.to_string();
        http("200 OK", "application/json", &format!("content-length: {}\r\n", body.len() - 1), body.as_bytes())
    }),
    ("a length that is no number", |proper| {
        http("200 OK", "application/json", "content-length: some\r\n", proper.to_string().as_bytes())
    }),
    ("a missing chunk", |_| {
        http("200 OK", "application/json", "transfer-encoding: chunked\r\n", b"ffff\r\n{\"kind\":")
    }),
    ("bytes that are not UTF-8", |_| ok([b'{', b'"', 0xff, 0xfe, b'"', b':', b'1', b'}'])),
    ("no HTTP", |_| b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()),
    ("a closed connection without an answer", |_| Vec::new()),
    ("a success without a body", |_| http("204 No Content", "application/json", "", b"")),
    ("a redirect", |_| {
        http("302 Found", "text/html", "location: http://127.0.0.1:1/login\r\ncontent-length: 0\r\n", b"")
    }),
    ("null", |_| ok("null")),
    ("a JSON array", |_| ok("[[],{}]")),
];

/// Objects without a version of the Lease.
const WITHOUT_VERSION: [(&str, Nonsense); 4] = [
    ("a Status", |_| {
        ok(json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 200 })
            .to_string())
    }),
    ("a Status of a failure", |_| {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "InternalError",
            "message": "but the code says 200", "code": 500,
        });
        ok(status.to_string())
    }),
    ("a Lease without a version", |proper| {
        let mut lease = proper.clone();
        lease["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        ok(lease.to_string())
    }),
    ("an empty object", |_| ok("{}")),
];

/// Objects with a version that are not the Lease.
const OF_ANOTHER_KIND: [(&str, Nonsense); 5] = [
    ("a list of Leases", |proper| {
        let list = json!({
            "kind": "LeaseList", "apiVersion": "coordination.k8s.io/v1", "metadata": { "resourceVersion": "99" },
            "items": [proper],
        });
        ok(list.to_string())
    }),
    ("a Pod", |proper| with(proper, "/kind", json!("Pod"))),
    ("another Lease", |proper| with(proper, "/metadata/name", json!("lock"))),
    ("a Lease of another namespace", |proper| with(proper, "/metadata/namespace", json!("pond"))),
    ("a Lease with an empty version", |proper| with(proper, "/metadata/resourceVersion", json!(""))),
];

/// The Lease, but not as this candidate wrote it.
const OF_SOMETHING_ELSE: [(&str, Nonsense); 3] = [
    ("the Lease of another holder", |proper| with(proper, "/spec/holderIdentity", json!("heron"))),
    ("an outdated Lease from a cache", |proper| with(proper, "/spec/renewTime", json!("2026-03-01T12:00:00.000000Z"))),
    ("a Lease with another duration", |proper| with(proper, "/spec/leaseDurationSeconds", json!(1))),
];

fn with(proper: &Value, path: &str, value: Value) -> Vec<u8> {
    let mut object = proper.clone();
    *object.pointer_mut(path).unwrap() = value;
    ok(object.to_string())
}

/// Returns the term of a leader with a lease of 3 s, a renew deadline of 2 s and renewals every second, and the objects
/// that keep it running.
async fn leader(url: &str) -> (Term, Box<dyn Any + Send>) {
    let seconds = Duration::from_secs;
    let campaign = Campaign::builder("river", "weir")
        .identity("otter")
        .incarnation("uid/app/1")
        .timing(Timing::new(seconds(3), seconds(2), seconds(1)).unwrap())
        .create_lease(false)
        .start(&kube::Config::new(url.parse().unwrap()))
        .unwrap();
    let guard = tokio::time::timeout(SOON, campaign.lead()).await.expect("no term in time");
    let guard = guard.expect("the campaign is over");
    (guard.term().clone(), Box::new((campaign, guard)))
}

/// Returns an error if a term is still valid 2 s after its last successful write, while all later writes are answered
/// with `nonsense`. The server's time of that write is later than its send, so the check needs no tolerance.
async fn check_validity(name: &'static str, nonsense: Nonsense) -> Result<(), String> {
    let server = Server::start(lease());
    let (term, _candidate) = leader(&server.url).await;
    let renewals = server.seen().written.len();
    while server.seen().written.len() <= renewals {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.state().put = Some(nonsense);
    let last = *server.seen().written.last().unwrap();
    tokio::time::sleep_until((last + Duration::from_secs(2)).into()).await;
    let still = term.is_valid();
    let (written, tried) = (server.seen().written.clone(), server.seen().not_written);
    if *written.last().unwrap() != last || tried == 0 {
        return Err(format!("{name}: {} writes, then {tried} failed ones: the test missed its case", written.len()));
    }
    if still {
        Err(format!("{name}: still valid for {:?} after {tried} such answers", term.remaining()))
    } else {
        Ok(())
    }
}

async fn check_validities(answers: &[(&'static str, Nonsense)]) {
    let checks = answers.iter().map(|&(name, nonsense)| check_validity(name, nonsense));
    let wrong: Vec<String> = futures::future::join_all(checks).await.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn an_unreadable_answer_does_not_extend_the_term() {
    check_validities(&UNREADABLE).await;
}

#[tokio::test]
async fn an_object_without_a_version_does_not_extend_the_term() {
    check_validities(&WITHOUT_VERSION).await;
}

#[tokio::test]
async fn an_object_other_than_the_written_lease_does_not_extend_the_term() {
    check_validities(&[&OF_ANOTHER_KIND[..], &OF_SOMETHING_ELSE[..]].concat()).await;
}

fn candidate(server: &Server, user: Value) -> (Program, tempfile::NamedTempFile) {
    let kubeconfig = server.kubeconfig(user);
    let mut command = Command::new(CANDIDATE);
    command.env_clear().env("KUBECONFIG", kubeconfig.path()).env("POD_NAME", "otter").envs(SHORT);
    command.args(["--lease-name=weir", "--lease-namespace=river"]);
    (Program::start("otter", &mut command), kubeconfig)
}

/// Checks that the program did not panic and that each message is one line of readable length.
fn assert_sane(name: &str, program: &Program) {
    let output = program.output();
    assert!(!output.contains("panicked"), "{name}: {output}");
    let own = ["🚢", "Creating lease", "Lease Name: ", "Pod Name: ", "Namespace: "];
    for line in output.lines().filter(|line| !own.iter().any(|own| line.starts_with(own))) {
        // Each line starts with a timestamp: no message spans two lines.
        assert!(line.starts_with("20") && line.len() < 1_000, "{name}: {} bytes: {line:.200}", line.len());
    }
}

fn terms(program: &Program) -> usize {
    program.output().matches("I'm the new leader!").count()
}

/// Runs `scene` with each answer, all in parallel.
fn with_each(answers: &[(&'static str, Nonsense)], scene: fn(&'static str, Nonsense)) {
    std::thread::scope(|scope| {
        for &(name, nonsense) in answers {
            scope.spawn(move || scene(name, nonsense));
        }
    });
}

#[test]
fn invalid_answers_to_renewals_are_logged_and_end_the_term() {
    fn scene(name: &'static str, nonsense: Nonsense) {
        let server = Server::start(lease());
        let (mut program, _kubeconfig) = candidate(&server, json!({}));
        program.wait_for("I'm the new leader!", SOON);
        server.state().put = Some(nonsense);
        program.wait_for("cannot renew lease river/weir: ", SOON);
        program.wait_for("Evicted as leader", SOON);
        server.state().put = None;
        let output = program.output();
        let warning = output.lines().find(|line| line.contains("cannot renew")).unwrap();
        let next = ["ing again", "will try again in ", "has ended"].iter().any(|next| warning.contains(next));
        assert!(next, "{name}: the next step is missing in {warning}");
        within(30, &format!("{name}: to lead again"), || (terms(&program) == 2).then_some(()));
        assert_sane(name, &program);
        assert!(program.terminate(SOON).success(), "{name}");
    }
    let all = [&UNREADABLE[..], &WITHOUT_VERSION[..], &OF_ANOTHER_KIND[..], &OF_SOMETHING_ELSE[..]].concat();
    with_each(&all, scene);
}

#[test]
fn invalid_answers_to_reads_are_logged_and_cause_no_write() {
    fn scene(name: &'static str, nonsense: Nonsense) {
        let server = Server::start(lease());
        server.state().get = Some(nonsense);
        let (mut program, _kubeconfig) = candidate(&server, json!({}));
        program.wait_for("cannot get lease river/weir: ", SOON);
        program.wait_for("; will try again in ", SOON);
        within(30, &format!("{name}: further reads"), || (server.seen().gets.len() >= 4).then_some(()));
        assert_eq!((server.seen().written.len(), server.seen().not_written), (0, 0), "{name}");
        server.state().get = None;
        program.wait_for("I'm the new leader!", SOON);
        assert_sane(name, &program);
        assert!(program.terminate(SOON).success(), "{name}");
    }
    with_each(&[&UNREADABLE[..], &WITHOUT_VERSION[..], &OF_ANOTHER_KIND[..]].concat(), scene);
}

#[test]
fn an_invalid_watch_is_logged_once_and_does_not_end_the_term() {
    fn scene(name: &'static str, nonsense: Nonsense) {
        let server = Server::start(lease());
        server.state().list = Some(nonsense);
        let (mut program, _kubeconfig) = candidate(&server, json!({}));
        program.wait_for("cannot watch lease river/weir", SOON);
        within(30, &format!("{name}: renewals and lists"), || {
            (server.seen().written.len() >= 5 && server.seen().lists >= 4).then_some(())
        });
        let output = program.output();
        assert_eq!((terms(&program), output.matches("Evicted").count()), (1, 0), "{name}: {output}");
        assert_eq!(output.matches("cannot watch").count(), 1, "{name}: {output}");
        assert!(output.contains("will keep trying"), "{name}: {output}");
        assert_sane(name, &program);
        assert!(program.terminate(SOON).success(), "{name}");
    }
    with_each(&[&UNREADABLE[..], &WITHOUT_VERSION[..]].concat(), scene);
}

#[test]
fn an_invalid_record_protects_its_holder_for_one_lease_duration() {
    let held = |field: &str, value: Value| {
        let mut spec = json!({ "holderIdentity": "heron", "leaseDurationSeconds": 3, "leaseTransitions": 3 });
        spec[field] = value;
        spec
    };
    let specs = [
        json!(null),
        json!({}),
        json!("none"),
        json!([1, 2]),
        json!({ "holderIdentity": 7, "leaseDurationSeconds": {}, "leaseTransitions": [], "renewTime": 7 }),
        held("leaseDurationSeconds", json!(-15)),
        held("leaseDurationSeconds", json!(0)),
        held("leaseDurationSeconds", json!("15")),
        held("leaseDurationSeconds", json!(1_u64 << 62)),
        held("leaseTransitions", json!(i32::MIN)),
        held("leaseTransitions", json!(i32::MAX)),
        held("leaseTransitions", json!(u64::MAX)),
        held("renewTime", json!("9999-12-31T23:59:59.999999Z")),
        held("acquireTime", json!("-9999-01-01T00:00:00Z")),
        held("strategy", json!("Bully")),
        held("preferredHolder", json!({ "name": "heron" })),
    ];
    std::thread::scope(|scope| {
        for spec in specs {
            scope.spawn(move || {
                let mut invalid = lease();
                invalid["spec"] = spec.clone();
                let server = Server::start(invalid);
                let (mut program, _kubeconfig) = candidate(&server, json!({}));
                program.wait_for("I'm the new leader!", SOON);
                let waited = server.seen().written[0] - server.seen().gets[0];
                assert!(waited >= Duration::from_secs(3), "{spec}: acquired after {waited:?}");
                let transitions = server.seen().lease["spec"]["leaseTransitions"].as_i64();
                assert!(transitions.is_some_and(|n| (1..=i32::MAX.into()).contains(&n)), "{spec}: {transitions:?}");
                if let Some(strategy) = spec.get("strategy") {
                    assert_eq!(server.seen().lease["spec"]["strategy"], *strategy);
                }
                assert_sane(&spec.to_string(), &program);
                assert!(program.terminate(SOON).success(), "{spec}");
            });
        }
    });
}

#[test]
fn an_expired_token_ends_the_term_until_the_file_is_rotated() {
    let server = Server::start(lease());
    server.state().token = Some("first");
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "first").unwrap();
    let (mut program, _kubeconfig) = candidate(&server, json!({ "tokenFile": token.path() }));
    program.wait_for("I'm the new leader!", SOON);
    server.state().token = Some("second");
    program.wait_for("cannot renew lease river/weir: Unauthorized (401)", SOON);
    program.wait_for("Evicted as leader", SOON);

    // Another candidate starts with an expired token.
    let stale = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(stale.path(), "first").unwrap();
    let (mut late, _late_kubeconfig) = candidate(&server, json!({ "tokenFile": stale.path() }));
    late.wait_for("cannot get lease river/weir: Unauthorized (401)", SOON);
    let lasts = server.seen().refused;
    within(30, "retries of both", || (server.seen().refused >= lasts + 4).then_some(()));
    assert_eq!((terms(&program), terms(&late)), (1, 0));

    // The kubelet rotates the token by a rename, too. kube rereads the file once a minute.
    for file in [&token, &stale] {
        let next = file.path().with_extension("next");
        std::fs::write(&next, "second").unwrap();
        std::fs::rename(&next, file.path()).unwrap();
    }
    let start = Instant::now();
    within(120, "a new term", || (terms(&program) + terms(&late) == 2).then_some(()));
    println!("a renewed token was used after {:?}", start.elapsed());
    for (name, program) in [("first", &program), ("late", &late)] {
        assert_sane(name, program);
    }
    assert!(program.terminate(SOON).success());
    assert!(late.terminate(SOON).success());
}

#[test]
fn a_running_leader_survives_the_loss_of_kubeconfig_and_token_file() {
    let server = Server::start(lease());
    server.state().token = Some("first");
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "first").unwrap();
    let (mut program, kubeconfig) = candidate(&server, json!({ "tokenFile": token.path() }));
    program.wait_for("I'm the new leader!", SOON);
    let written = server.seen().written.len();
    drop((token, kubeconfig));
    within(60, "five more renewals", || (server.seen().written.len() >= written + 5).then_some(()));
    assert_eq!(terms(&program), 1);
    assert!(!program.says("Evicted"), "{}", program.output());
    assert!(program.terminate(SOON).success());
    assert_eq!(server.seen().lease["spec"]["holderIdentity"], "");
}
