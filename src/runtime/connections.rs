//! The connections of the HTTP server: few, short and small, whoever opens them.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tracing::warn;

use super::clock::{Clock, SystemClock};
use super::origin::Origin;

/// Open connections from within the pod, as many again from its node, and from elsewhere: nobody outside takes the program's places,
/// and nobody takes those of the kubelet.
pub const MOST_CONNECTIONS: usize = 32;
/// How long a client may take to send its request's head.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// The least that hyper takes.
const BUFFER: usize = 8 * 1024;
const BACKLOG: u32 = 128;
/// The wait after the kernel gave no connection: it lacks descriptors or memory.
const AFTER_REFUSAL: Duration = Duration::from_millis(100);

/// Listens on every address of `port`, also where IPv6 is off.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let six = TcpSocket::new_v6().and_then(|socket| {
        // Whatever net.ipv6.bindv6only says.
        rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
        listen_on(socket, Ipv6Addr::UNSPECIFIED.into(), port)
    });
    match six {
        Err(error) if is_without_ipv6(&error) => {
            TcpSocket::new_v4().and_then(|socket| listen_on(socket, Ipv4Addr::UNSPECIFIED.into(), port))
        }
        listener => listener,
    }
}

fn listen_on(socket: TcpSocket, address: IpAddr, port: u16) -> io::Result<TcpListener> {
    // The container may have been restarted just now.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(address, port))?;
    socket.listen(BACKLOG)
}

fn is_without_ipv6(error: &io::Error) -> bool {
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL, Errno::PROTONOSUPPORT, Errno::NOPROTOOPT]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// What answers a request that comes from `origin`.
pub trait Answer: Clone + Send + Sync + 'static {
    /// The answer to `request`.
    fn answer(&self, request: Request<Incoming>, origin: Origin) -> impl Future<Output = Response<Full<Bytes>>> + Send;
}

/// Accepts for ever; the connections end with this future. `node` are the addresses of the pod's node.
pub async fn accept(listener: TcpListener, answers: impl Answer, node: Vec<IpAddr>) {
    let mut tasks = JoinSet::new();
    let (mut pod, mut kubelet, mut others) = (Places::default(), Places::default(), Places::default());
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok((stream, peer)) => (stream, peer.ip().to_canonical()),
            Err(error) => {
                warn!("cannot accept a connection: {error}");
                let clock = SystemClock;
                clock.sleep_until(clock.since_boot() + AFTER_REFUSAL).await;
                continue;
            }
        };
        while tasks.try_join_next().is_some() {}
        let local = stream.local_addr().ok().map(|local| local.ip());
        let origin = Origin::of(peer, local, &node);
        let places = match origin {
            Origin::Pod => &mut pod,
            Origin::Node => &mut kubelet,
            Origin::Elsewhere => &mut others,
        };
        if places.make_one(peer) {
            let waits = Arc::new(AtomicBool::new(true));
            let task = tasks.spawn(converse(stream, answers.clone(), origin, waits.clone()));
            places.0.push(Place { peer, task, waits });
        }
    }
}

#[derive(Default)]
struct Places(Vec<Place>);

struct Place {
    peer: IpAddr,
    task: AbortHandle,
    /// Its request has not come yet.
    waits: Arc<AtomicBool>,
}

impl Places {
    /// Whether one is free for `peer`. If need be one is taken from those who have most of them: the one that has been silent
    /// for longest, or else, where that makes the shares more equal, the oldest. Who floods the server drives out itself, and
    /// the kubelet gets its answers.
    fn make_one(&mut self, peer: IpAddr) -> bool {
        self.0.retain(|place| !place.task.is_finished());
        if self.0.len() < MOST_CONNECTIONS {
            return true;
        }
        let share = |of: IpAddr| self.0.iter().filter(|place| place.peer == of).count();
        let most = self.0.iter().map(|place| share(place.peer)).max().unwrap_or_default();
        let has_most = |place: &Place| share(place.peer) == most;
        let silent = self.0.iter().position(|place| has_most(place) && place.waits.load(Ordering::Relaxed));
        let any = || self.0.iter().position(has_most).filter(|_| share(peer) + 1 < most);
        let Some(taken) = silent.or_else(any) else { return false };
        self.0.remove(taken).task.abort();
        true
    }
}

/// One request and its answer.
async fn converse(stream: TcpStream, answers: impl Answer, origin: Origin, waits: Arc<AtomicBool>) {
    let service = service_fn(move |request| {
        waits.store(false, Ordering::Relaxed);
        let answers = answers.clone();
        async move { Ok::<_, Infallible>(answers.answer(request, origin).await) }
    });
    // What a client does wrong is no news.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(BUFFER)
        // A connection is cheap on loopback; one that idles would take a place.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One connection after the other from `peers`, which wait for an answer for ever; whether each has its place.
    fn flood(peers: impl IntoIterator<Item = [u8; 4]>, silent: bool) -> Vec<bool> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut places = Places::default();
        let come = peers.into_iter().map(|peer| {
            let peer = IpAddr::from(peer);
            let task = runtime.spawn(std::future::pending::<()>()).abort_handle();
            if places.make_one(peer) {
                places.0.push(Place { peer, task: task.clone(), waits: Arc::new(AtomicBool::new(silent)) });
            } else {
                task.abort();
            }
            task
        });
        let tasks: Vec<_> = come.collect();
        // Those that were given up take some turns to end.
        runtime.block_on(async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        });
        tasks.iter().map(|task| !task.is_finished()).collect()
    }

    const KUBELET: [u8; 4] = [10, 0, 0, 1];
    const FLOOD: [u8; 4] = [10, 0, 0, 2];

    #[test]
    fn who_asks_after_a_flood_is_answered_whether_the_flood_is_silent_or_not() {
        for silent in [true, false] {
            let flood_first = std::iter::repeat_n(FLOOD, 40).chain([KUBELET, KUBELET]);
            let held = flood(flood_first, silent);
            assert_eq!(held[40..], [true, true], "silent: {silent}");
        }
    }

    #[test]
    fn who_asked_before_a_flood_keeps_his_place_also_if_all_came_at_once() {
        for silent in [true, false] {
            let held = flood([KUBELET].into_iter().chain(std::iter::repeat_n(FLOOD, 100)), silent);
            assert!(held[0], "silent: {silent}");
            assert_eq!(held.iter().filter(|held| **held).count(), MOST_CONNECTIONS, "silent: {silent}");
        }
    }

    #[test]
    fn nobody_takes_a_place_from_his_like_while_that_is_in_use() {
        let held = flood((0..MOST_CONNECTIONS + 1).map(|i| [10, 0, 1, u8::try_from(i).unwrap()]), false);
        assert!(held[..MOST_CONNECTIONS].iter().all(|held| *held) && !held[MOST_CONNECTIONS]);
    }
}
