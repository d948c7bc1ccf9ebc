//! Names of objects in log lines.

use kube::ResourceExt;

/// Returns `<namespace>/<name>`.
pub(super) fn qualified_name(resource: &impl ResourceExt) -> String {
    format!("{}/{}", resource.namespace().unwrap_or_default(), resource.name_any())
}
