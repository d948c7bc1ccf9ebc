//! A TCP proxy that can go silent as a lost network does: connections stay, nothing passes, new ones are accepted and
//! hear nothing. What was sent meanwhile arrives when it ends, as from a network that is mended.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Ends with its connections when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    silent: watch::Sender<bool>,
    listening: JoinHandle<()>,
}

impl Proxy {
    /// On a loopback port of its own.
    pub fn start(runtime: &Runtime, server: String) -> io::Result<Self> {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let (silent, heard) = watch::channel(false);
        let listening = runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, heard) = (server.clone(), heard.clone());
                tokio::spawn(async move {
                    let mut gone = heard.clone();
                    tokio::select! {
                        _ = connect(client, &server, heard) => {}
                        // The sender ends with the proxy.
                        () = async { while gone.changed().await.is_ok() {} } => {}
                    }
                });
            }
        });
        Ok(Self { address, silent, listening })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set_silent(&self, silent: bool) {
        self.silent.send_replace(silent);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn connect(client: TcpStream, server: &str, heard: watch::Receiver<bool>) -> io::Result<()> {
    spoken(&mut heard.clone()).await;
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = pass(&mut from_client, &mut to_server, heard.clone());
    let down = pass(&mut from_server, &mut to_client, heard);
    tokio::select! {
        result = up => result,
        result = down => result,
    }
}

/// Passes on what comes until the sender closes, except in silence.
async fn pass(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    mut heard: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        // Also of what was read just before: from the cut on not a byte passes.
        spoken(&mut heard).await;
        if read == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
    }
}

/// Waits until there is no silence.
async fn spoken(heard: &mut watch::Receiver<bool>) {
    // An error is the proxy's end, which ends the connection elsewhere.
    let _ = heard.wait_for(|silent| !silent).await;
}
