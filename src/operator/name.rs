//! Objects by name, as log lines have them.

use kube::ResourceExt;

pub(super) fn qualified_name(resource: &impl ResourceExt) -> String {
    format!("{}/{}", resource.namespace().unwrap_or_default(), resource.name_any())
}
