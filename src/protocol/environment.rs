//! The environment variables that the operator sets in pods, candidates set for their programs, and the chart sets for
//! the operator. Each candidate and operator variable is also a flag.

/// The pod's name, by the downward API: the identity in the election.
pub const POD_NAME: &str = "POD_NAME";
/// The pod's namespace, by the downward API.
pub const POD_NAMESPACE: &str = "POD_NAMESPACE";
/// The pod's uid, by the downward API: part of the incarnation.
pub const POD_UID: &str = "POD_UID";
/// The pod's address, by the downward API: where probes of the program are sent.
pub const POD_IP: &str = "POD_IP";
/// The node's address, by the downward API: the source of the kubelet's probes.
pub const NODE_IP: &str = "K8SENSUS_NODE_IP";
/// The container's name: part of the incarnation.
pub const CONTAINER: &str = "K8SENSUS_CONTAINER";
/// The revision of the pod template, a hash.
pub const REVISION: &str = "K8SENSUS_REVISION";

/// The name of the Lease.
pub const LEASE_NAME: &str = "K8SENSUS_LEASE_NAME";
/// The namespace of the Lease.
pub const LEASE_NAMESPACE: &str = "K8SENSUS_LEASE_NAMESPACE";
/// Whether the candidate creates a missing Lease: `true` or `false`.
pub const CREATE_LEASE: &str = "K8SENSUS_CREATE_LEASE";
/// The lease duration, in whole seconds.
pub const LEASE_DURATION_SECONDS: &str = "K8SENSUS_LEASE_DURATION_SECONDS";
/// The renew deadline, in seconds.
pub const RENEW_DEADLINE_SECONDS: &str = "K8SENSUS_RENEW_DEADLINE_SECONDS";
/// The retry period, in seconds.
pub const RETRY_PERIOD_SECONDS: &str = "K8SENSUS_RETRY_PERIOD_SECONDS";
/// The time between renewals, in seconds.
pub const RENEW_INTERVAL_SECONDS: &str = "K8SENSUS_RENEW_INTERVAL_SECONDS";
/// The time from SIGTERM to SIGKILL when leadership is lost, in seconds.
pub const STOP_GRACE_PERIOD_SECONDS: &str = "K8SENSUS_STOP_GRACE_PERIOD_SECONDS";
/// How long every candidate waits, at least, for a Lease that was recreated after its deletion, in seconds.
pub const RECREATED_LEASE_SECONDS: &str = "K8SENSUS_RECREATED_LEASE_SECONDS";

/// The port of the candidate's HTTP server.
pub const HTTP_PORT: &str = "K8SENSUS_HTTP_PORT";
/// The container's probes and hooks that the candidate carries out, as JSON.
pub const APP: &str = "K8SENSUS_APP";
/// The file that the candidate locks, so that a container that restarts need not wait for its own lease.
pub const LOCK_PATH: &str = "K8SENSUS_LOCK_PATH";
/// The file with the API server's URL.
pub const API_SERVER_FILE: &str = "K8SENSUS_API_SERVER_FILE";
/// The file that the kubelet reads when the container has ended.
pub const TERMINATION_MESSAGE_PATH: &str = "K8SENSUS_TERMINATION_MESSAGE_PATH";

/// `true` in the environment of a program that a candidate runs while it leads.
pub const LEADER: &str = "K8SENSUS_LEADER";
/// The fencing token of the present term, in the environment of such a program.
pub const FENCING_TOKEN: &str = "K8SENSUS_FENCING_TOKEN";

/// The image of the candidate program.
pub const CANDIDATE_IMAGE: &str = "K8SENSUS_CANDIDATE_IMAGE";
/// The version that the program of that image reports.
pub const CANDIDATE_VERSION: &str = "K8SENSUS_CANDIDATE_VERSION";
/// The address of the operator's HTTP server.
pub const LISTEN: &str = "K8SENSUS_LISTEN";
/// How many groups the operator reconciles at a time.
pub const CONCURRENCY: &str = "K8SENSUS_CONCURRENCY";
/// The namespaces whose groups the operator reconciles, separated by commas.
pub const NAMESPACES: &str = "K8SENSUS_NAMESPACES";
/// The format of the operator's log.
pub const LOG_FORMAT: &str = "K8SENSUS_LOG_FORMAT";
