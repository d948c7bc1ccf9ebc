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

use crate::runtime::clock::{Clock, SystemClock};

/// Open connections from within the pod, and as many again from elsewhere: nobody outside takes the app's places.
pub(super) const MOST_CONNECTIONS: usize = 32;
/// How long a client may take to send its request's head.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// The least that hyper takes.
const BUFFER: usize = 8 * 1024;
const BACKLOG: u32 = 128;
/// The wait after the kernel gave no connection: it lacks descriptors or memory.
const AFTER_REFUSAL: Duration = Duration::from_millis(100);

/// Listens on every address of `port`, also where IPv6 is off.
pub(super) fn listen(port: u16) -> io::Result<TcpListener> {
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

/// What answers a request; `true` if it comes over the loopback interface.
pub(super) trait Answer: Clone + Send + Sync + 'static {
    fn answer(
        &self,
        request: Request<Incoming>,
        from_inside: bool,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send;
}

/// Accepts for ever; the connections end with this future.
pub(super) async fn accept(listener: TcpListener, answers: impl Answer) {
    let mut tasks = JoinSet::new();
    let (mut inside, mut outside) = (Places::default(), Places::default());
    loop {
        let (stream, from_inside) = match listener.accept().await {
            Ok((stream, peer)) => (stream, peer.ip().to_canonical().is_loopback()),
            Err(error) => {
                warn!("cannot accept a connection: {error}");
                let clock = SystemClock;
                clock.sleep_until(clock.since_boot() + AFTER_REFUSAL).await;
                continue;
            }
        };
        while tasks.try_join_next().is_some() {}
        let places = if from_inside { &mut inside } else { &mut outside };
        if places.make_one() {
            let waits = Arc::new(AtomicBool::new(true));
            let task = tasks.spawn(converse(stream, answers.clone(), from_inside, waits.clone()));
            places.0.push(Place { task, waits });
        }
    }
}

#[derive(Default)]
struct Places(Vec<Place>);

struct Place {
    task: AbortHandle,
    /// Its request has not come yet.
    waits: Arc<AtomicBool>,
}

impl Places {
    /// Whether one is free. The client that has been silent for longest leaves for it: who floods the server with silence
    /// drives out itself.
    fn make_one(&mut self) -> bool {
        self.0.retain(|place| !place.task.is_finished());
        if self.0.len() < MOST_CONNECTIONS {
            return true;
        }
        match self.0.iter().position(|place| place.waits.load(Ordering::Relaxed)) {
            Some(oldest) => {
                self.0.remove(oldest).task.abort();
                true
            }
            None => false,
        }
    }
}

/// One request and its answer.
async fn converse(stream: TcpStream, answers: impl Answer, from_inside: bool, waits: Arc<AtomicBool>) {
    let service = service_fn(move |request| {
        waits.store(false, Ordering::Relaxed);
        let answers = answers.clone();
        async move { Ok::<_, Infallible>(answers.answer(request, from_inside).await) }
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
