//! The candidate's HTTP server: the leader, how long its leadership is valid, and the way to release it.
//!
//! One listener on every address. The paths for the app are answered only on the pod's own loopback interface; other
//! peers get 403 with the reason. `access.rs` defines which connections count as inside. Probes and metrics are
//! answered to all.
//!
//! | | from | answer |
//! |---|---|---|
//! | `GET /` | loopback | 200 and the JSON below |
//! | `GET /leader` | loopback | the same JSON, 200 while this candidate leads, else 503 |
//! | `GET /replica` | loopback | the same JSON, 503 while this candidate leads, else 200 |
//! | `POST /step-down` | loopback | 202: leadership will be released; 409 if this candidate does not lead |
//! | `POST /stopped?fencingToken=…` | loopback | sidecar: 200, the app has stopped; with a command: 409 |
//! | `GET /livez` | all | 200, or 503 with the reason to restart the process |
//! | `GET /readyz` | all | 503 until the Lease was first observed, then 200, even without an API server |
//! | `GET /app-health/liveness` | all | with a command: 200 or 503 on its behalf; else 404 |
//! | `GET /app-health/readiness` | all | the same; with a command also 503 while `/readyz` is 503 |
//! | `GET /metrics` | all | OpenMetrics: the metrics of client-go's election under the same names |
//!
//! `/stopped` reports that the app has stopped leading in the term of that token, and releases the Lease if that term
//! is still the current one. Without a token it applies to the current term, if any promise was made in it. So a late
//! request cannot end a later term. With a command the candidate observes the end itself.
//!
//! In a sidecar `/readyz` is also 503 while the program does not ask.
//!
//! `HEAD` is answered as `GET` without a body. A connection is closed after its answer.
//!
//! # The JSON
//! | field | type | meaning |
//! |---|---|---|
//! | `name` | string | the leader's name, as in the old leader-elector sidecar |
//! | `is_leader` | boolean | this candidate leads for `validForSeconds` |
//! | `leader` | string | as `name`; empty if there is no leader or none is known |
//! | `identity` | string | this candidate's own name |
//! | `leaseName`, `leaseNamespace` | string | the Lease |
//! | `leaseTransitions` | number | the Lease's value at the start of this candidate's term; only while it leads |
//! | `fencingToken` | string | rises with each term; pass it to the systems you write to; only while it leads |
//! | `validForSeconds` | number | how long `is_leader` holds, *from the send of the request*; 0 on a standby |
//!
//! `name` is this candidate's own name only while `is_leader` is true, so a client may compare it with its own name.
//!
//! # Promises
//! - Sidecar: every answer with `is_leader: true` is a promise: no other candidate leads before it expires. It lasts at
//!   most the retry period, and never beyond the end of leadership, which without an API server is the renew deadline
//!   after the last renewal was sent. The Lease is released only when the last promise has expired, or the app has sent
//!   `POST /stopped`. An app that has no newer answer after `validForSeconds` must stop.
//! - With a command: the answer is meant for the command and its child processes. Those are dead before another
//!   candidate leads. For other containers of the pod it is no promise, since the Lease is released as soon as the
//!   command is gone.

use std::io;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes, Incoming};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::access::{PATHS, refusal};
use super::response::{reply, text, verdict};
use crate::campaign::{Campaign, Metrics};
use crate::protocol::paths;
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::connections::{self, Answer, PATIENCE};
use crate::runtime::origin::Origin;

/// The longest body of a request; none needs one.
const LONGEST_BODY: usize = 4 * 1024;

/// A kind of the app's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// Whether the container has to be restarted.
    Liveness,
    /// Whether the container may receive traffic.
    Readiness,
}

/// Answers to the app's probes, given on its behalf.
pub trait AppHealth: Send + Sync + 'static {
    /// Runs or reports `probe`. `Ok` becomes a 200, `Err` a 503, each with its text. Every client that reaches the pod
    /// may call it at any rate, so concurrent calls must share costly work. Dropped when the client hangs up.
    fn check(&self, probe: ProbeKind) -> BoxFuture<'static, Result<String, String>>;
}

/// The leadership that this candidate may claim.
pub(super) trait LeadershipSource: Send + Sync + 'static {
    /// Returns the leadership that may be claimed now, if any.
    fn leading(&self) -> Option<Leading>;

    /// Checks whether this candidate could take over.
    ///
    /// # Errors
    /// The reason why it could not, as a sentence.
    fn ready(&self) -> Result<(), &'static str> {
        Ok(())
    }

    /// Records that the app has stopped leading, in the term of `token` if it names one. Returns the text of the
    /// answer.
    ///
    /// # Errors
    /// The reason, as a sentence, if this candidate does not accept that.
    fn stopped(&self, token: Option<&str>) -> Result<&'static str, &'static str>;
}

/// A claim of leadership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leading {
    pub(super) fencing_token: String,
    pub(super) lease_transitions: i32,
    pub(super) valid_for: Duration,
}

/// An HTTP port that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on port {port} for the HTTP server: {source}; free it, or choose another with --http-port")]
pub struct ListenError {
    port: u16,
    source: io::Error,
}

/// The bound server.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    node: Vec<IpAddr>,
}

/// A running server; it stops when this is dropped.
#[derive(Debug)]
pub struct Serving(JoinHandle<()>);

impl Server {
    /// Binds `port` on every address, so that a port in use is reported at the start; 0 binds any free port. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn bind(port: u16) -> Result<Self, ListenError> {
        let listener = connections::listen(port).map_err(|source| ListenError { port, source })?;
        Ok(Self { listener, node: Vec::new() })
    }

    /// Reserves connections for the addresses `node`, which no other peer can take.
    pub fn keep_places_for(self, node: Vec<IpAddr>) -> Self {
        Self { node, ..self }
    }

    /// Returns the bound port.
    ///
    /// # Errors
    /// If the kernel does not report it.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Starts to answer, as a task of the current runtime.
    pub fn serve(self, answers: Answers) -> Serving {
        Serving(tokio::spawn(connections::accept(self.listener, SharedAnswers(Arc::new(answers)), self.node)))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The source of the server's answers.
pub struct Answers {
    campaign: Arc<Campaign>,
    leadership: Box<dyn LeadershipSource>,
    app: Option<Arc<dyn AppHealth>>,
    registry: Registry,
}

impl Answers {
    /// Returns the answers of a candidate that runs a command. `metrics` are the campaign's.
    pub fn beside_command(campaign: Arc<Campaign>, app: Arc<dyn AppHealth>, metrics: &Metrics) -> Self {
        let leadership = Box::new(CommandLeadership(campaign.clone()));
        Self { campaign, leadership, app: Some(app), registry: registry(metrics) }
    }

    /// Returns the answers of a candidate beside an app, which answers its own probes. `metrics` are the campaign's.
    pub(super) fn beside_app(campaign: Arc<Campaign>, leadership: impl LeadershipSource, metrics: &Metrics) -> Self {
        Self { campaign, leadership: Box::new(leadership), app: None, registry: registry(metrics) }
    }

    fn election(&self, path: &str) -> Response<Full<Bytes>> {
        let leading = self.leadership.leading();
        let status = match (path, &leading) {
            (paths::LEADER, None) | (paths::REPLICA, Some(_)) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::OK,
        };
        let holder = self.campaign.watch().borrow().holder.clone().unwrap_or_default();
        let identity = self.campaign.identity();
        let leader = match &leading {
            Some(_) => identity,
            // The Lease may name it for longer than it may lead, or another process of the same name may hold it.
            None if holder == identity => "",
            None => &holder,
        };
        let lease = self.campaign.lease();
        let valid_for = leading.as_ref().map_or(Duration::ZERO, |leading| leading.valid_for);
        let body = serde_json::to_vec(&Election {
            name: leader,
            is_leader: leading.is_some(),
            leader,
            identity,
            lease_name: &lease.name,
            lease_namespace: &lease.namespace,
            lease_transitions: leading.as_ref().map(|leading| leading.lease_transitions),
            fencing_token: leading.as_ref().map(|leading| leading.fencing_token.as_str()),
            valid_for_seconds: whole_millis(valid_for).as_secs_f64(),
        });
        match body {
            Ok(body) => reply(status, "application/json", body),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    fn step_down(&self) -> Response<Full<Bytes>> {
        if self.campaign.watch().borrow().is_leader() {
            self.campaign.step_down();
            return text(StatusCode::ACCEPTED, "leadership will be released");
        }
        text(StatusCode::CONFLICT, "this candidate does not lead: there is nothing to release")
    }

    fn stopped(&self, query: Option<&str>) -> Response<Full<Bytes>> {
        let token = query.map(|query| query.strip_prefix("fencingToken=").ok_or(query)).transpose();
        let token = match token {
            Ok(token) => token,
            Err(query) => {
                return text(
                    StatusCode::BAD_REQUEST,
                    format!("expected /stopped or /stopped?fencingToken=TOKEN, found ?{query}"),
                );
            }
        };
        match self.leadership.stopped(token) {
            Ok(why) => text(StatusCode::OK, why),
            Err(why) => text(StatusCode::CONFLICT, why),
        }
    }

    fn live(&self) -> Response<Full<Bytes>> {
        verdict(self.campaign.health().check().map_err(|error| error.to_string()).map(|()| "ok".to_owned()))
    }

    /// Checks readiness. Waits briefly for the Lease, since the kubelet probes a pod as soon as it has started.
    async fn ready(&self) -> Result<String, String> {
        let mut leadership = self.campaign.watch();
        let seen = async { leadership.wait_for(|shown| shown.holder.is_some()).await.is_ok() };
        tokio::select! {
            true = seen => self.leadership.ready().map(|()| "ok".to_owned()).map_err(str::to_owned),
            () = SystemClock.sleep_until(SystemClock.since_boot() + PATIENCE / 2) => {
                Err(format!("lease {} was not seen yet: expected an answer from the API server", self.campaign.lease()))
            }
        }
    }

    async fn app_health(&self, probe: ProbeKind) -> Response<Full<Bytes>> {
        let Some(app) = &self.app else {
            return text(StatusCode::NOT_FOUND, "this sidecar runs no command: probe the app itself");
        };
        // A standby that has never observed the Lease could not take over.
        let seen = if probe == ProbeKind::Readiness { self.ready().await } else { Ok(String::new()) };
        verdict(if seen.is_ok() { app.check(probe).await } else { seen })
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut metrics = String::new();
        match encode(&mut metrics, &self.registry) {
            Ok(()) => {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                reply(StatusCode::OK, kind, metrics.into_bytes())
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}

/// One set of answers for all connections.
#[derive(Clone)]
struct SharedAnswers(Arc<Answers>);

impl Deref for SharedAnswers {
    type Target = Answers;

    fn deref(&self) -> &Answers {
        &self.0
    }
}

impl Answer for SharedAnswers {
    async fn answer(&self, request: Request<Incoming>, origin: Origin) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let Some((_, allowed, audience)) = PATHS.into_iter().find(|(known, ..)| *known == path) else {
            let known: Vec<_> = PATHS.into_iter().map(|(path, allowed, _)| format!("{allowed} {path}")).collect();
            return text(StatusCode::NOT_FOUND, format!("no such path; there are: {}", known.join("; ")));
        };
        if let Some(why) = refusal(&head, audience, origin) {
            return text(StatusCode::FORBIDDEN, why);
        }
        if !allowed.split(", ").any(|method| head.method.as_str() == method) {
            let why = format!("{path} accepts {allowed}, found {}", head.method.as_str());
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, why);
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
            return response;
        }
        // Only requests that act wait for their body: connections are limited, and the probes need theirs.
        if head.method == Method::POST && !has_ended(body).await {
            let why = format!("expected no body, at most one of {LONGEST_BODY} bytes sent without delay");
            return text(StatusCode::PAYLOAD_TOO_LARGE, why);
        }
        match path {
            paths::STEP_DOWN => self.step_down(),
            paths::STOPPED => self.stopped(head.uri.query()),
            paths::LIVEZ => self.live(),
            paths::READYZ => verdict(self.ready().await),
            paths::APP_LIVENESS => self.app_health(ProbeKind::Liveness).await,
            paths::APP_READINESS => self.app_health(ProbeKind::Readiness).await,
            paths::METRICS => self.metrics(),
            _ => self.election(path),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Election<'a> {
    name: &'a str,
    #[serde(rename = "is_leader")]
    is_leader: bool,
    leader: &'a str,
    identity: &'a str,
    lease_name: &'a str,
    lease_namespace: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_transitions: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fencing_token: Option<&'a str>,
    valid_for_seconds: f64,
}

/// The leadership of a command: it dies before its leadership ends, so it may act for as long as its term lasts.
struct CommandLeadership(Arc<Campaign>);

impl LeadershipSource for CommandLeadership {
    fn leading(&self) -> Option<Leading> {
        let term = self.0.watch().borrow().term.clone()?;
        let valid_for = term.remaining();
        (!valid_for.is_zero()).then(|| Leading {
            fencing_token: term.token().to_owned(),
            lease_transitions: term.transitions(),
            valid_for,
        })
    }

    fn stopped(&self, _: Option<&str>) -> Result<&'static str, &'static str> {
        Err("this candidate runs the command and observes its end itself: just exit")
    }
}

fn registry(metrics: &Metrics) -> Registry {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    registry
}

/// Reads the unused body: an answer that overtakes its request's body may be lost with the connection.
async fn has_ended(body: Incoming) -> bool {
    if body.is_end_stream() {
        return true;
    }
    let clock = SystemClock;
    tokio::select! {
        read = Limited::new(body, LONGEST_BODY).collect() => read.is_ok(),
        () = clock.sleep_until(clock.since_boot() + PATIENCE) => false,
    }
}

/// Rounds down, so that a promise does not grow in transit.
fn whole_millis(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
