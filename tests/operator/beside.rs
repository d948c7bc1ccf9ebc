//! The containers of the leader's pod that do not lead.

use serde_json::{Value, json};

use super::rollout::Play;
use crate::support::{apply, group, namespace, operated};

#[test]
fn a_leader_beside_whose_program_another_container_does_not_work_gives_way() {
    let play = Play { cluster: operated(), ns: namespace(operated(), "beside") };
    let mut manifest = group(
        "kestrel",
        json!({
            "candidate": { "unhealthyTimeoutSeconds": 2 },
            "election": { "leaseDurationSeconds": 120, "renewDeadlineSeconds": 80, "retryPeriodSeconds": 5 },
            "template": { "spec": { "containers": [
                { "name": "app", "image": "registry.example/kestrel:1", "command": ["/kestrel"] },
                { "name": "proxy", "image": "registry.example/proxy:7" },
            ] } },
        }),
    );
    for field in ["image", "command"] {
        manifest["spec"].as_object_mut().unwrap().remove(field);
    }
    apply(play.cluster, &play.ns, &manifest).unwrap();
    let pods = play.new_pods(2, &[]);
    pods.iter().for_each(|pod| play.comes_up(pod));
    play.lead(&pods[0], true);
    // The kubelet asks the leading container anew only after a while; that is no matter.
    let report = |app: bool, proxy: bool| {
        let container = |name: &str, ready: bool| -> Value {
            json!({
                "name": name, "image": "i", "imageID": "i", "ready": ready, "restartCount": 0, "state": { "running": {} },
            })
        };
        play.report(&pods[0], &json!({ "containerStatuses": [container("app", app), container("proxy", proxy)] }));
    };
    report(false, true);
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(play.asked(), None);
    report(true, false);
    play.is_asked("Unhealthy", &pods[1]);
}
