//! The paths of the candidate's and the operator's HTTP servers.

/// The state of the election as JSON, with the promise of mode Sidecar.
pub const STATE: &str = "/";
/// 200 on the leader, 503 elsewhere.
pub const LEADER: &str = "/leader";
/// 200 on a standby, 503 elsewhere.
pub const REPLICA: &str = "/replica";
/// Requests a step-down of the leader.
pub const STEP_DOWN: &str = "/step-down";
/// Reports that the program beside a sidecar has stopped.
pub const STOPPED: &str = "/stopped";
/// Whether the candidate works.
pub const LIVEZ: &str = "/livez";
/// Whether the candidate is ready.
pub const READYZ: &str = "/readyz";
/// Whether the operator works.
pub const HEALTHZ: &str = "/healthz";
/// The answer of the program's liveness probe, for the kubelet.
pub const APP_LIVENESS: &str = "/app-health/liveness";
/// The answer of the program's readiness probe, for the kubelet.
pub const APP_READINESS: &str = "/app-health/readiness";
/// Metrics in the OpenMetrics text format.
pub const METRICS: &str = "/metrics";
