//! The rules on a real API server.

use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use kube::core::ApiResource;
use kube::{Client, Config};
use serde_json::{Value, json};

use super::rules::{cases, changes};
use crate::support::{kubectl, namespace, shared, within};

async fn client() -> Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(shared().kubeconfig()).unwrap();
    k8sensus_runtime::tls::use_ring();
    Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap()).unwrap()
}

/// Creates an object. Unknown fields are refused, as by kubectl.
async fn create(client: &Client, ns: &str, manifest: &Value, dry: bool) -> Result<Value, String> {
    let dry = if dry { "&dryRun=All" } else { "" };
    let url = format!("/apis/k8sensus.dev/v1alpha1/namespaces/{ns}/electiongroups?fieldValidation=Strict{dry}");
    let request =
        http::Request::post(url).header("content-type", "application/json").body(manifest.to_string().into_bytes());
    client.request::<Value>(request.unwrap()).await.map_err(message)
}

fn message(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message,
        other => panic!("{other}"),
    }
}

fn judge(name: &str, expected: Option<&str>, found: Result<Value, String>, wrong: &mut Vec<String>) {
    match (expected, found) {
        (None, Ok(_)) => {}
        (Some(part), Err(message)) if message.contains(part) => {}
        (expected, found) => {
            wrong.push(format!("{name}: expected {expected:?}, found {:?}", found.map(|_| "accepted")))
        }
    }
}

#[tokio::test]
async fn each_manifest_is_accepted_or_refused_with_its_message() {
    let ns = namespace(shared(), "rules");
    let client = client().await;
    let mut wrong = Vec::new();
    for case in cases() {
        judge(case.name, case.message, create(&client, &ns, &case.manifest, true).await, &mut wrong);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn each_change_is_accepted_or_refused_with_its_message() {
    let ns = namespace(shared(), "changes");
    let client = client().await;
    let resource = ApiResource::from_gvk_with_plural(
        &kube::core::GroupVersionKind::gvk("k8sensus.dev", "v1alpha1", "ElectionGroup"),
        "electiongroups",
    );
    let groups = Api::<DynamicObject>::namespaced_with(client.clone(), &ns, &resource);
    let mut wrong = Vec::new();
    for change in changes() {
        let group = json!({
            "apiVersion": "k8sensus.dev/v1alpha1", "kind": "ElectionGroup",
            "metadata": { "name": "billing" }, "spec": change.before,
        });
        let mut group: DynamicObject =
            serde_json::from_value(create(&client, &ns, &group, false).await.unwrap()).unwrap();
        group.data["spec"] = change.after;
        let changed = groups.replace("billing", &PostParams::default(), &group).await;
        let changed = changed.map(|_| Value::Null).map_err(message);
        judge(change.name, change.message, changed, &mut wrong);
        groups.delete("billing", &DeleteParams::default()).await.unwrap();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn client_side_apply_accepts_the_crd_and_explain_describes_each_field() {
    let cluster = shared();
    let path = crate::support::root().join("crds/electiongroups.k8sensus.dev.yaml");
    assert!(kubectl(cluster, &["apply", "-f", path.to_str().unwrap()]).contains("electiongroups.k8sensus.dev"));
    for field in ["spec", "spec.candidate", "spec.election", "status", "status.leader"] {
        let what = format!("electiongroup.{field}");
        // The API server publishes the schema of a new CRD a moment after it serves it.
        let text = within(90, &format!("kubectl explain {what}"), || {
            let output = cluster.kubectl().args(["explain", &what]).output().unwrap();
            output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
        });
        assert!(text.contains("DESCRIPTION:") && !text.contains("<no description>"), "{text}");
    }
}

#[tokio::test]
async fn unobserved_group_is_in_progress_to_kstatus() {
    let ns = namespace(shared(), "unseen");
    let manifest = crate::support::group("kestrel", json!({}));
    let created = create(&client().await, &ns, &manifest, false).await.unwrap();
    assert_eq!(created["status"], json!({ "observedGeneration": -1 }));
    assert_ne!(created["status"]["observedGeneration"], created["metadata"]["generation"]);
}
