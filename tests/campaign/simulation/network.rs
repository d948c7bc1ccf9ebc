//! The network between a candidate and the server: requests and answers take time, get lost, or arrive too late.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::server::{Change, Write, status};
use super::world::{Reach, Shared};

/// The HTTP service of a candidate's clients.
#[derive(Clone)]
pub struct Network {
    pub world: Shared,
    pub member: usize,
    pub life: u64,
}

/// A complete answer, or the stream of a watch.
pub enum Answer {
    Whole(Option<Bytes>),
    Stream(mpsc::UnboundedReceiver<Bytes>),
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Answer::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Answer::Stream(lines) => lines.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line)))),
        }
    }
}

type Replied = Result<Response<Answer>, tower::BoxError>;

impl tower::Service<Request<Body>> for Network {
    type Response = Response<Answer>;
    type Error = tower::BoxError;
    type Future = BoxFuture<'static, Replied>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), tower::BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (reply, replied) = oneshot::channel();
        let is_watch = request.uri().query().is_some_and(|query| query.contains("fieldSelector"));
        let pending = (!is_watch).then(|| PendingRequest::start(&self.world, self.member, self.life));
        // Served even if the client has given up meanwhile.
        tokio::spawn(self.clone().carry(request, reply));
        Box::pin(async move {
            let reply = match replied.await {
                Ok(reply) => reply,
                Err(_) => std::future::pending().await,
            };
            pending.into_iter().for_each(PendingRequest::answered);
            reply
        })
    }
}

/// A request that waits for its answer.
struct PendingRequest {
    world: Shared,
    member: usize,
    life: u64,
    /// The end of the present term, if the answer does not arrive, and its token.
    end: Option<(Duration, u64)>,
    answered: bool,
}

impl PendingRequest {
    fn start(world: &Shared, member: usize, life: u64) -> Self {
        let (now, mut guard) = (world.elapsed(), world.lock());
        let rate = u32::try_from(guard.plan.rates[member]).expect("near a thousand");
        let member_now = &mut guard.members[member];
        member_now.open_requests += 1;
        let end = member_now.term.as_ref().filter(|term| !term.remaining().is_zero()).map(|term| {
            let token = term.token().parse().unwrap_or(u64::MAX);
            (now + term.remaining() * 1_000 / rate, token)
        });
        Self { world: world.clone(), member, life, end, answered: false }
    }

    fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for PendingRequest {
    fn drop(&mut self) {
        let (now, mut guard) = (self.world.elapsed(), self.world.lock());
        let member = &mut guard.members[self.member];
        if member.life != self.life {
            return;
        }
        member.open_requests -= 1;
        let outlived = self.end.filter(|(end, _)| now > *end + Duration::from_millis(100));
        let was_frozen = member.was_frozen;
        // The leader of a deleted Lease reads it until it has to stop, which may be after its term.
        let may_outlive = |token: u64| {
            let is_later_deletion = |change: &Change| change.kind == "DELETED" && change.version > token;
            !guard.plan.create && guard.server.changes.iter().any(is_later_deletion)
        };
        if outlived.is_some_and(|(_, token)| !may_outlive(token)) && !self.answered && !was_frozen {
            guard.fail(format!("a request of otter-{} outlived its term", self.member));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the simulation's own time")]
async fn pass(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

/// The next event of a watch.
enum Next {
    Change(Change),
    /// The version of the watch is too old.
    Gone,
    End,
}

/// The fate of one exchange.
struct Fate {
    there: u64,
    back: u64,
    lost: bool,
    reply_lost: bool,
    /// The code and the Retry-After of a request that is not executed.
    refusal: Option<(u16, Option<u64>)>,
    garbage: Option<Garbage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Garbage {
    /// The answer is cut in the middle.
    Half,
    /// 200 with a list. Nothing was executed.
    AnotherKind,
    /// 200 with the present Lease. Nothing was executed.
    Cached,
}

impl std::fmt::Display for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fate { lost: true, .. } => write!(f, "lost"),
            Fate { refusal: Some((code, _)), .. } => write!(f, "{code}"),
            Fate { there, back, reply_lost, garbage, .. } => {
                write!(f, "{there} ms there, {back} ms back")?;
                write!(f, "{}", if *reply_lost { ", answer lost" } else { "" })?;
                write!(f, "{}", if garbage.is_some() { ", garbage" } else { "" })
            }
        }
    }
}

impl Network {
    fn draw(&self) -> Fate {
        let world = &mut *self.world.lock();
        let (weather, random) = (world.weather(), &mut world.random);
        let leg = |random: &mut super::plan::Random| {
            if random.chance(weather.slow) { random.between(50, 9_500) } else { random.between(1, 20) }
        };
        let mut fate = Fate {
            there: leg(random),
            back: leg(random),
            lost: random.chance(weather.lost),
            reply_lost: random.chance(weather.reply_lost),
            refusal: None,
            garbage: random.chance(weather.garbage).then(|| match random.below(3) {
                0 => Garbage::Half,
                1 => Garbage::AnotherKind,
                _ => Garbage::Cached,
            }),
        };
        if random.chance(weather.throttled) {
            fate.refusal = Some((429, random.chance(50).then(|| random.between(1, 4))));
        } else if random.chance(weather.broken) {
            fate.refusal = Some((if random.chance(50) { 500 } else { 503 }, None));
        } else if random.chance(weather.conflict) {
            fate.refusal = Some((409, None));
        }
        world.counts.count(fate.lost, "requests lost");
        world.counts.count(fate.reply_lost, "answers lost");
        world.counts.count(fate.there > 20 || fate.back > 20, "slow exchanges");
        world.counts.count(fate.garbage == Some(Garbage::Half), "answers cut off");
        world.counts.count(fate.garbage == Some(Garbage::AnotherKind), "answers of another kind");
        world.counts.count(fate.garbage == Some(Garbage::Cached), "answers from a cache");
        match fate.refusal {
            Some((429, _)) => world.counts.count(true, "429"),
            Some((409, _)) => world.counts.count(true, "409 without a cause"),
            Some(_) => world.counts.count(true, "5xx"),
            None => {}
        }
        fate
    }

    async fn carry(self, request: Request<Body>, reply: oneshot::Sender<Replied>) {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let is_watch = query.contains("watch=true");
        self.world.lock().requests += 1;
        let fate = self.draw();
        self.world.note(|| format!("otter-{} sends {} {query}, {fate}", self.member, parts.method));
        match self.world.reach(self.member) {
            Reach::Refused => {
                let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
                let _ = reply.send(Err(refused.into()));
                return;
            }
            Reach::Silent => return,
            Reach::Open if fate.lost => return,
            Reach::Open => {}
        }
        let creates = parts.method == Method::POST;
        self.world.lock().creating += u64::from(creates);
        pass(fate.there).await;
        self.world.outage_over().await;
        self.world.lock().creating -= u64::from(creates);
        if is_watch {
            return self.serve_watch(&query, reply).await;
        }
        let (code, mut text) = match fate.refusal {
            Some((code, retry_after)) => (code, status(code, retry_after).to_string()),
            // A proxy that answers 200 to everything.
            None if fate.garbage == Some(Garbage::AnotherKind) => (200, self.world.lock().server.list().1.to_string()),
            // Not if the request repeats the stored record: the two answers would be the same.
            None if fate.garbage == Some(Garbage::Cached) && !self.repeats(&body) => {
                let (code, lease) = self.world.lock().server.get();
                (code, lease.to_string())
            }
            None => {
                let (code, answer) = self.serve(&parts.method, parts.uri.path(), &body);
                (code, answer.to_string())
            }
        };
        if fate.garbage == Some(Garbage::Half) {
            text.truncate(text.len() / 2);
        }
        let present = self.world.lock().server.changes.last().cloned();
        pass(fate.back).await;
        if fate.reply_lost || self.world.reach(self.member) != Reach::Open {
            return;
        }
        self.world.lock().members[self.member].saw_lease |= code < 300 && text.contains("holderIdentity");
        let response = Response::builder().status(code).body(Answer::Whole(Some(text.into())));
        let term = self.world.lock().members[self.member].term.clone().map(|term| (term.remaining(), term));
        let received = reply.send(response.map_err(Into::into)).is_ok();
        if let Some((left, term)) = term.filter(|_| received && parts.method == Method::PUT)
            && fate.garbage.is_some()
            && code < 300
            && !self.repeats(&body)
        {
            self.world.expect_no_extension(self.member, term, left);
        }
        let proper = fate.refusal.is_none() && fate.garbage.is_none() && parts.method == Method::GET;
        if let Some(change) = present.filter(|_| received && proper && parts.uri.path().ends_with("/weir")) {
            self.world.expect_end_of_term(self.member, self.life, &change);
        }
    }

    fn repeats(&self, body: &[u8]) -> bool {
        let sent: Option<Value> = serde_json::from_slice(body).ok();
        let world = self.world.lock();
        sent.zip(world.server.lease.as_ref()).is_some_and(|(sent, lease)| sent["spec"] == lease["spec"])
    }

    fn serve(&self, method: &Method, path: &str, body: &[u8]) -> (u16, Value) {
        let mut world = self.world.lock();
        if *method == Method::GET {
            return if path.ends_with("/weir") { world.server.get() } else { world.server.list() };
        }
        let body: Value = serde_json::from_slice(body).expect("the campaign sends JSON");
        let author = Some((self.member, self.life));
        let (code, answer, write) =
            if *method == Method::POST { world.server.post(body, author) } else { world.server.put(body, author) };
        if let Some(write) = write {
            if matches!(write, Write::Acquired { .. }) && self.world.elapsed() < world.server.foreign_until {
                world.fail(format!("otter-{} has not waited for the foreign holder", self.member));
            }
            world.check_write(self.member, self.life, &write, &answer);
            drop(world);
            self.world.changed();
            if write != Write::Renewed {
                self.world
                    .note(|| format!("otter-{} ({write:?}) at {}", self.member, answer["metadata"]["resourceVersion"]));
            }
        }
        (code, answer)
    }

    async fn serve_watch(&self, query: &str, reply: oneshot::Sender<Replied>) {
        let (lines, stream) = mpsc::unbounded_channel();
        let response = Response::builder().status(200).body(Answer::Stream(stream));
        if reply.send(response.map_err(Into::into)).is_err() {
            return;
        }
        let from = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
        let mut sent: u64 = from.and_then(|version| version.parse().ok()).unwrap_or(0);
        let generation = self.world.lock().watch_generation;
        loop {
            let next = self.world.wait_for(|world| {
                if world.watch_generation != generation || world.members[self.member].life != self.life {
                    return Some(Next::End);
                }
                if sent < world.server.compacted {
                    return Some(Next::Gone);
                }
                world.server.changes.iter().find(|change| change.version > sent).cloned().map(Next::Change)
            });
            let change = match next.await {
                Next::Change(change) => change,
                Next::Gone => {
                    let gone = json!({ "type": "ERROR", "object": status(410, None) });
                    let _ = lines.send(format!("{gone}\n").into());
                    return;
                }
                Next::End => return,
            };
            sent = change.version;
            let late = {
                let world = &mut *self.world.lock();
                let late = world.random.chance(world.weather().event_late);
                world.counts.count(late, "watch events late");
                if late { world.random.between(50, 15_000) } else { world.random.between(1, 20) }
            };
            pass(late).await;
            self.world.outage_over().await;
            self.world.reachable(self.member).await;
            let line = json!({ "type": change.kind, "object": change.object });
            if lines.send(format!("{line}\n").into()).is_err() {
                return;
            }
            self.world.expect_end_of_term(self.member, self.life, &change);
        }
    }
}
