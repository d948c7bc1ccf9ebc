//! A TCP proxy to the API server whose traffic can be cut.

use std::net::SocketAddr;
use std::sync::OnceLock;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// The traffic that a proxy lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    Open,
    /// Connections stay open and new ones are accepted, but no data passes; the data passes once the proxy opens again.
    Silent,
    /// Requests pass, responses do not.
    Unanswered,
    /// Connections are reset, and new ones as soon as they are accepted.
    Reset,
}

/// A TCP proxy. It closes, with its connections, when this is dropped.
pub struct Proxy {
    address: SocketAddr,
    passage: watch::Sender<Passage>,
}

impl Proxy {
    /// Listens on a free loopback port for connections to `target`.
    pub fn to(target: SocketAddr) -> Self {
        Self::listen("127.0.0.1:0".parse().unwrap(), target)
    }

    pub fn listen(at: SocketAddr, target: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind(at).unwrap_or_else(|error| panic!("{at}: {error}"));
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (passage, watched) = watch::channel(Passage::Open);
        runtime().spawn(accept(listener, target, watched));
        Self { address, passage }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, passage: Passage) {
        self.passage.send_replace(passage);
    }
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .thread_name("proxies")
            .build()
            .unwrap()
    })
}

type Watched = watch::Receiver<Passage>;

async fn accept(listener: std::net::TcpListener, target: SocketAddr, passage: Watched) {
    let listener = TcpListener::from_std(listener).unwrap();
    let mut closed = passage.clone();
    loop {
        tokio::select! {
            // An error here means that the client disconnected again.
            Ok((client, _)) = listener.accept() => { tokio::spawn(serve(client, target, passage.clone())); }
            _ = until(&mut closed, |_| false) => return,
        }
    }
}

async fn serve(mut client: TcpStream, target: SocketAddr, mut passage: Watched) {
    // Resets both ends instead of closing them on every early return below.
    let _ = client.set_zero_linger();
    if !until(&mut passage, |passage| passage != Passage::Silent).await || *passage.borrow() == Passage::Reset {
        return;
    }
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let requests_pass = |passage| matches!(passage, Passage::Open | Passage::Unanswered);
    let answers_pass = |passage| passage == Passage::Open;
    let copies = async {
        let requests = copy(from_client, to_server, passage.clone(), requests_pass);
        let answers = copy(from_server, to_client, passage.clone(), answers_pass);
        // When one direction ends, so does the other: TLS has no half-closed connections.
        tokio::select! { () = requests => {} () = answers => {} }
    };
    let mut reset = passage.clone();
    tokio::select! {
        () = copies => {}
        _ = until(&mut reset, |passage| passage == Passage::Reset) => {}
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut passage: Watched,
    open: impl Fn(Passage) -> bool,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        // A cut also holds back the end of the stream.
        if !until(&mut passage, &open).await || read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Waits for a wanted passage; returns `false` if the proxy was dropped.
async fn until(passage: &mut Watched, wanted: impl Fn(Passage) -> bool) -> bool {
    passage.wait_for(|passage| wanted(*passage)).await.is_ok()
}
