//! What can go wrong, each as one sentence with a remedy.

use std::fmt;

use k8sensus_runtime::kubeconfig::ConfigError;

/// A request to the API server, as RBAC names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The verb, such as `get`.
    pub verb: &'static str,
    /// The resource with its subresource, such as `pods/log`.
    pub resource: &'static str,
    /// The namespace, `None` for all.
    pub namespace: Option<String>,
}

/// A reason why a command ends with exit code 1.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no usable configuration of a cluster.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration has another problem, such as a context that does not exist.
    #[error("{0}")]
    Kubeconfig(String),
    /// The API server does not respond.
    #[error("the API server at {server} cannot be reached ({cause}): check --context, --kubeconfig and the network")]
    Unreachable {
        /// Its URL.
        server: String,
        /// The innermost cause.
        cause: String,
    },
    /// The API server does not respond in time.
    #[error(
        "the API server at {server} did not respond within {seconds} s: try again, or with a longer --request-timeout"
    )]
    Slow {
        /// Its URL.
        server: String,
        /// The limit.
        seconds: f64,
    },
    /// The credentials are not accepted.
    #[error(
        "the API server at {0} does not accept the credentials of the kubeconfig: log in again, or use another --context"
    )]
    Unauthorized(String),
    /// A permission is missing.
    #[error("you may not {0}: ask an administrator of the cluster for a Role with this verb and resource{1}")]
    Forbidden(Access, String),
    /// The CustomResourceDefinition is missing.
    #[error("this cluster has no ElectionGroups: install k8sensus, or use another --context or --kubeconfig")]
    NotInstalled,
    /// The namespace does not exist.
    #[error("namespace {0} does not exist: choose another with --namespace, or list all groups with `list -A`")]
    NoNamespace(String),
    /// The group does not exist.
    #[error("there is no ElectionGroup {name} in namespace {namespace}: {hint}")]
    NoGroup {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
        /// Names near it, or what to do.
        hint: String,
    },
    /// The API server refused the request for another reason.
    #[error("cannot {access}: {message}")]
    Api {
        /// The request.
        access: Access,
        /// The API server's message, in one line.
        message: String,
    },
    /// The command makes no sense now, or did not succeed; the sentence says what to do.
    #[error("{0}")]
    Refused(String),
}

impl Failure {
    /// Returns the failure of a request.
    pub fn of(error: kube::Error, access: Access, server: &str) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                401 => Self::Unauthorized(server.to_owned()),
                403 => Self::Forbidden(access, user_in(&status.message)),
                // The path of an unknown resource has no details about an object.
                404 if access.resource == "electiongroups" && status.details.is_none() => Self::NotInstalled,
                _ => Self::Api { access, message: one_line(&status.message) },
            },
            kube::Error::SerdeError(error) => Self::Api {
                access,
                message: format!("the response cannot be read ({error}): is this plugin as new as the operator?"),
            },
            kube::Error::Auth(error) => {
                Self::Kubeconfig(format!("the kubeconfig's credentials cannot be used ({})", cause_of(&error)))
            }
            other => Self::Unreachable { server: server.to_owned(), cause: cause_of(&other) },
        }
    }

    /// Whether the object of the request does not exist.
    pub fn is_not_found(error: &kube::Error) -> bool {
        matches!(error, kube::Error::Api(status) if status.code == 404 && status.details.is_some())
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {} in namespace {namespace}", self.verb, self.resource),
            None => write!(f, "{} {} in all namespaces", self.verb, self.resource),
        }
    }
}

/// Returns the innermost cause, in one line: the outer ones only name the layers of the client.
fn cause_of(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    one_line(&inner.to_string())
}

/// Returns the user that a refusal quotes, in parentheses: with --as it is another one than expected.
fn user_in(message: &str) -> String {
    let user = message.split_once("User \"").and_then(|(_, rest)| rest.split_once('"'));
    user.map_or_else(String::new, |(user, _)| format!(" (you are {user})"))
}

/// Returns the text with its lines joined and control characters removed.
pub fn one_line(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, message: &str, details: bool) -> String {
        let mut status = kube::core::Status::failure(message, "Forbidden").with_code(code);
        status.details = details.then(|| serde_json::from_str("{}").unwrap());
        let access = Access { verb: "get", resource: "electiongroups", namespace: Some("aviary".to_owned()) };
        Failure::of(kube::Error::Api(Box::new(status)), access, "https://api.example").to_string()
    }

    #[test]
    fn missing_permission_names_verb_resource_namespace_and_user() {
        let message = "electiongroups.k8sensus.dev is forbidden: User \"kestrel\" cannot get resource";
        let text = refused(403, message, true);
        let expected = "you may not get electiongroups in namespace aviary: ask an administrator of the cluster for a Role \
                        with this verb and resource (you are kestrel)";
        assert_eq!(text, expected);
    }

    #[test]
    fn missing_definition_differs_from_missing_object() {
        assert!(refused(404, "404 page not found", false).starts_with("this cluster has no ElectionGroups"));
        let missing = refused(404, "electiongroups \"kestrel\" not found", true);
        assert_eq!(missing, "cannot get electiongroups in namespace aviary: electiongroups \"kestrel\" not found");
    }

    #[test]
    fn message_of_several_lines_becomes_one() {
        assert_eq!(one_line("a\n  b\u{1b}[31m\tc"), "a b [31m c");
    }
}
