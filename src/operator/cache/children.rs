//! The children, each reduced to its owner and whether it is as desired.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::core::ApiResource;
use serde_json::{Value, json};

use super::groups::version_of;
use crate::api::names::label;
use crate::group::Desired;
use crate::group::desired::drift;
use crate::group::judge::endpoints::{ServicePort, comparable, ports_of};
use crate::group::observed::DeploymentView;
use crate::group::observed::trouble::replica_failure;
use crate::group::spec::leader_service;

/// The kinds of children that are named after their group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Deployment,
    ServiceAccount,
    Role,
    RoleBinding,
    DisruptionBudget,
    Service,
    EndpointSlice,
}

static RESOURCES: LazyLock<[ApiResource; Kind::ALL.len()]> = LazyLock::new(|| {
    [
        ApiResource::erase::<Deployment>(&()),
        ApiResource::erase::<ServiceAccount>(&()),
        ApiResource::erase::<Role>(&()),
        ApiResource::erase::<RoleBinding>(&()),
        ApiResource::erase::<PodDisruptionBudget>(&()),
        ApiResource::erase::<Service>(&()),
        ApiResource::erase::<EndpointSlice>(&()),
    ]
});

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Deployment,
        Self::ServiceAccount,
        Self::Role,
        Self::RoleBinding,
        Self::DisruptionBudget,
        Self::Service,
        Self::EndpointSlice,
    ];

    pub(crate) fn resource(self) -> &'static ApiResource {
        &RESOURCES[self as usize]
    }

    /// Returns the name of the child of that group.
    pub(crate) fn name_of(self, group: &str) -> Cow<'_, str> {
        match self {
            Self::Service | Self::EndpointSlice => leader_service::name_of(group).into(),
            _ => group.into(),
        }
    }

    /// Returns the group whose child of this kind has that name.
    pub(super) fn group_of(self, name: &str) -> &str {
        match self {
            Self::Service | Self::EndpointSlice => name.strip_suffix(leader_service::SUFFIX).unwrap_or(name),
            _ => name,
        }
    }

    /// Returns the desired child of this kind, if there is one.
    fn wanted(self, desired: &Desired) -> Option<&Value> {
        match self {
            Self::Deployment => Some(&desired.deployment),
            Self::ServiceAccount => desired.service_account.as_ref(),
            Self::Role => Some(&desired.role),
            Self::RoleBinding => Some(&desired.role_binding),
            Self::DisruptionBudget => desired.disruption_budget.as_ref(),
            Self::Service => desired.service.as_ref(),
            // It depends on the Lease and the pods, not on the spec.
            Self::EndpointSlice => None,
        }
    }
}

/// What is known of a child.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ChildView {
    pub(crate) uid: Box<str>,
    version: u64,
    /// The uid of its controller.
    controller: Option<Box<str>>,
    /// The group that its label names: reconciled on a change as well as the group of its name.
    pub(super) group: Option<Box<str>>,
    /// A hash of everything that a user may edit.
    content: u64,
    /// The hash of the desired object that this content matches, if that is known.
    matched: Option<u64>,
    pub(crate) detail: Detail,
}

/// What a reconcile needs of a child of one kind.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Detail {
    None,
    Deployment(Box<DeploymentView>),
    /// The ServiceAccounts that a RoleBinding binds.
    Accounts(Box<[Box<str>]>),
    /// The ports of a Service.
    Ports(Box<[ServicePort]>),
    /// `addressType` of an EndpointSlice.
    Addresses(Box<str>),
}

impl ChildView {
    /// Returns the view of `object`. Whether it is as desired is not known yet, except for an EndpointSlice.
    pub(super) fn of(kind: Kind, object: &DynamicObject) -> Self {
        Self {
            uid: object.uid().unwrap_or_default().into(),
            version: version_of(&object.metadata),
            controller: controller_of(object).map(Into::into),
            group: object.labels().get(label::GROUP).map(|name| name.as_str().into()),
            content: content_of(object),
            matched: (kind == Kind::EndpointSlice).then(|| hash_of(&comparable(&value_of(object)))),
            detail: match kind {
                Kind::Deployment => Detail::Deployment(Box::new(deployment_view(object))),
                Kind::RoleBinding => Detail::Accounts(accounts_of(object)),
                Kind::Service => Detail::Ports(ports_of(&object.data).into()),
                Kind::EndpointSlice => {
                    Detail::Addresses(object.data["addressType"].as_str().unwrap_or_default().into())
                }
                _ => Detail::None,
            },
        }
    }

    /// Returns the view after a comparison of its `object` with what its group desires.
    pub(super) fn compared(self, kind: Kind, object: &DynamicObject, desired: &Desired) -> Self {
        match kind.wanted(desired) {
            Some(wanted) if drift::is_as_desired(wanted, &value_of(object)) => self.matching(wanted),
            _ => self,
        }
    }

    /// Whether it is known to match a desired object.
    pub(super) fn is_compared(&self) -> bool {
        self.matched.is_some()
    }

    /// Keeps the match of `before`, if the content is the same.
    pub(super) fn with_match_of(self, before: Option<&Self>) -> Self {
        let same = before.filter(|before| before.content == self.content && before.uid == self.uid);
        Self { matched: self.matched.or_else(|| same?.matched), ..self }
    }

    /// Returns the view with the result that it matches `wanted`.
    pub(super) fn matching(self, wanted: &Value) -> Self {
        Self { matched: Some(hash_of(wanted)), ..self }
    }

    pub(crate) fn is_controlled_by(&self, uid: &str) -> bool {
        self.controller.as_deref() == Some(uid)
    }

    pub(crate) fn matches(&self, wanted: &Value) -> bool {
        self.matched == Some(hash_of(wanted))
    }

    /// Whether this matches the desired object of that [hash](hash_of).
    pub(super) fn has_hash(&self, hash: u64) -> bool {
        self.matched == Some(hash)
    }

    /// Whether `object` is an older state of the same child.
    pub(super) fn is_newer_than(&self, object: &DynamicObject) -> bool {
        self.is_of_later(object) && *self.uid == *object.uid().unwrap_or_default()
    }

    /// Whether this is known to be later than `object`, of the same child or of a later one.
    pub(super) fn is_of_later(&self, object: &DynamicObject) -> bool {
        let version = version_of(&object.metadata);
        version > 0 && version < self.version
    }

    /// Whether the two differ at most in their version.
    pub(super) fn has_same_state_as(&self, other: &Self) -> bool {
        *self == Self { version: self.version, ..other.clone() }
    }
}

pub(crate) fn controller_of(object: &DynamicObject) -> Option<&str> {
    let owner = object.metadata.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))?;
    Some(&owner.uid)
}

/// Returns a hash of a desired object, valid within this process only.
pub(super) fn hash_of(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    hasher.finish()
}

/// Returns a hash of everything but what the API server and controllers report: their writes are no drift.
fn content_of(object: &DynamicObject) -> u64 {
    let mut data = object.data.clone();
    if let Some(data) = data.as_object_mut() {
        data.remove("status");
    }
    let metadata = &object.metadata;
    let annotations = metadata.annotations.iter().flatten();
    let annotations: Vec<_> = annotations.filter(|(key, _)| !key.starts_with("deployment.kubernetes.io/")).collect();
    hash_of(&json!([data, metadata.labels, annotations, metadata.owner_references, metadata.deletion_timestamp]))
}

pub(crate) fn value_of(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

fn accounts_of(binding: &DynamicObject) -> Box<[Box<str>]> {
    let subjects = binding.data["subjects"].as_array().map(Vec::as_slice).unwrap_or_default();
    let own = |subject: &&Value| {
        subject["kind"] == "ServiceAccount" && subject["namespace"].as_str() == binding.metadata.namespace.as_deref()
    };
    subjects.iter().filter(own).filter_map(|subject| subject["name"].as_str().map(Into::into)).collect()
}

fn deployment_view(deployment: &DynamicObject) -> DeploymentView {
    let status = &deployment.data["status"];
    let number = |name: &str| status[name].as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or_default();
    let progressing = condition(&status["conditions"], "Progressing");
    let exceeded = progressing.filter(|condition| condition["reason"] == "ProgressDeadlineExceeded");
    DeploymentView {
        replicas: number("replicas"),
        ready: number("readyReplicas"),
        updated: number("updatedReplicas"),
        observed: status["observedGeneration"].as_i64() >= deployment.metadata.generation,
        deadline_exceeded: exceeded.map(|condition| condition["message"].as_str().unwrap_or_default().to_owned()),
        replica_failure: replica_failure(status),
    }
}

pub(super) fn condition<'a>(conditions: &'a Value, kind: &str) -> Option<&'a Value> {
    conditions.as_array()?.iter().find(|condition| condition["type"] == kind)
}
