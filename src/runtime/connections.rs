//! The connections of the HTTP servers, limited in number, duration and size, whatever their clients do.

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

/// The most open connections from within the pod, and the same number each for its node and for all other peers. So no
/// outside peer can use up the connections of the program, and no other peer those of the kubelet.
pub const MOST_CONNECTIONS: usize = 32;
/// How long a client may take to send the head of its request.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// The smallest buffer that hyper accepts.
const BUFFER: usize = 8 * 1024;
const BACKLOG: u32 = 128;
/// The wait after the kernel refused a connection for lack of descriptors or memory.
const AFTER_REFUSAL: Duration = Duration::from_millis(100);

/// Listens on `port` on every address, also where IPv6 is off.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let six = TcpSocket::new_v6().and_then(|socket| {
        // Independent of net.ipv6.bindv6only.
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
    // The port may still be in use by connections from before a restart of the container.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(address, port))?;
    socket.listen(BACKLOG)
}

fn is_without_ipv6(error: &io::Error) -> bool {
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL, Errno::PROTONOSUPPORT, Errno::NOPROTOOPT]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// An HTTP handler that knows the origin of each request.
pub trait Answer: Clone + Send + Sync + 'static {
    /// Returns the answer to `request`.
    fn answer(&self, request: Request<Incoming>, origin: Origin) -> impl Future<Output = Response<Full<Bytes>>> + Send;
}

/// Accepts connections forever; they end with this future. `node` are the addresses of the pod's node.
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
        if places.make_room(peer) {
            let is_silent = Arc::new(AtomicBool::new(true));
            let task = tasks.spawn(answer_one(stream, answers.clone(), origin, is_silent.clone()));
            places.0.push(Place { peer, task, is_silent });
        }
    }
}

/// The open connections of one origin.
#[derive(Default)]
struct Places(Vec<Place>);

struct Place {
    peer: IpAddr,
    task: AbortHandle,
    /// Whether its request has not arrived yet.
    is_silent: Arc<AtomicBool>,
}

impl Places {
    /// Returns whether there is room for a connection of `peer`. If all places are in use, this may close a connection
    /// of the peer that has most of them: the one that has been silent for longest, or else the oldest, if that makes
    /// the shares more equal. So a peer that floods the server displaces its own connections, and the kubelet gets its
    /// answers.
    fn make_room(&mut self, peer: IpAddr) -> bool {
        self.0.retain(|place| !place.task.is_finished());
        if self.0.len() < MOST_CONNECTIONS {
            return true;
        }
        let share = |peer: IpAddr| self.0.iter().filter(|place| place.peer == peer).count();
        let most = self.0.iter().map(|place| share(place.peer)).max().unwrap_or_default();
        let has_most = |place: &Place| share(place.peer) == most;
        let silent = self.0.iter().position(|place| has_most(place) && place.is_silent.load(Ordering::Relaxed));
        let any = || self.0.iter().position(has_most).filter(|_| share(peer) + 1 < most);
        let Some(victim) = silent.or_else(any) else { return false };
        self.0.remove(victim).task.abort();
        true
    }
}

/// Answers one request and closes the connection.
async fn answer_one(stream: TcpStream, answers: impl Answer, origin: Origin, is_silent: Arc<AtomicBool>) {
    let service = service_fn(move |request| {
        is_silent.store(false, Ordering::Relaxed);
        let answers = answers.clone();
        async move { Ok::<_, Infallible>(answers.answer(request, origin).await) }
    });
    // A client's errors are not worth a log line.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(BUFFER)
        // A new connection is cheap on loopback; an idle one would occupy a place.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens one connection after the other from `peers`, all of which wait forever. Returns which of them stay open.
    fn flood(peers: impl IntoIterator<Item = [u8; 4]>, silent: bool) -> Vec<bool> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut places = Places::default();
        let arrivals = peers.into_iter().map(|peer| {
            let peer = IpAddr::from(peer);
            let task = runtime.spawn(std::future::pending::<()>()).abort_handle();
            if places.make_room(peer) {
                places.0.push(Place { peer, task: task.clone(), is_silent: Arc::new(AtomicBool::new(silent)) });
            } else {
                task.abort();
            }
            task
        });
        let tasks: Vec<_> = arrivals.collect();
        // Aborted tasks take some turns to end.
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
    fn a_peer_is_answered_after_a_flood_silent_or_not() {
        for silent in [true, false] {
            let flood_first = std::iter::repeat_n(FLOOD, 40).chain([KUBELET, KUBELET]);
            let open = flood(flood_first, silent);
            assert_eq!(open[40..], [true, true], "silent: {silent}");
        }
    }

    #[test]
    fn a_peer_keeps_its_connection_during_a_later_flood() {
        for silent in [true, false] {
            let open = flood([KUBELET].into_iter().chain(std::iter::repeat_n(FLOOD, 100)), silent);
            assert!(open[0], "silent: {silent}");
            assert_eq!(open.iter().filter(|open| **open).count(), MOST_CONNECTIONS, "silent: {silent}");
        }
    }

    #[test]
    fn a_peer_cannot_displace_an_equal_peer_in_use() {
        let open = flood((0..MOST_CONNECTIONS + 1).map(|i| [10, 0, 1, u8::try_from(i).unwrap()]), false);
        assert!(open[..MOST_CONNECTIONS].iter().all(|open| *open) && !open[MOST_CONNECTIONS]);
    }
}
