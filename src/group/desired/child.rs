//! The common parts of a group's children: labels, owner, and the hash of what was applied.

use serde_json::{Value, json};

use crate::api::names::{annotation, label};
use crate::api::{GROUP, KIND, VERSION};
use crate::spec::group::Group;
use crate::spec::injection::hash;

pub(crate) fn child(group: &Group, api_version: &str, kind: &str, name: &str) -> Value {
    json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": group.namespace,
            "labels": { label::MANAGED_BY: label::MANAGED_BY_VALUE, label::GROUP: group.name },
            "ownerReferences": [{
                "apiVersion": format!("{GROUP}/{VERSION}"),
                "kind": KIND,
                "name": group.name,
                "uid": group.uid,
                "controller": true,
            }],
        },
    })
}

pub(super) fn with_hash(mut object: Value) -> Value {
    let hash = hash(&object);
    object["metadata"]["annotations"][annotation::APPLIED_HASH] = json!(hash);
    object
}
