//! The other containers of the leader's pod.

use serde_json::{Value, json};

use super::rollout::Play;
use crate::support::{apply, group, namespace, operated};

#[test]
fn leader_hands_over_if_another_container_of_its_pod_is_unready() {
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
    // The kubelet probes the leading container again only after a while, which does not matter.
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
    assert_eq!(play.step_down_request(), None);
    report(true, false);
    play.wait_for_request("Unhealthy", &pods[1]);
}
