//! A TCP proxy that can go silent like a lost network: connections stay open, new ones are accepted, and no data
//! passes. Data sent in the meantime arrives when the silence ends, as after a network repair.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The proxy. Its connections end when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    silent: watch::Sender<bool>,
    listener: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy on a free loopback port.
    pub fn start(runtime: &Runtime, server: String) -> io::Result<Self> {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let (silent, silence) = watch::channel(false);
        let listener = runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, silence) = (server.clone(), silence.clone());
                tokio::spawn(async move {
                    let mut gone = silence.clone();
                    tokio::select! {
                        _ = connect(client, &server, silence) => {}
                        // The sender ends with the proxy.
                        () = async { while gone.changed().await.is_ok() {} } => {}
                    }
                });
            }
        });
        Ok(Self { address, silent, listener })
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
        self.listener.abort();
    }
}

async fn connect(client: TcpStream, server: &str, silence: watch::Receiver<bool>) -> io::Result<()> {
    wait_until_audible(&mut silence.clone()).await;
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = pass(&mut from_client, &mut to_server, silence.clone());
    let down = pass(&mut from_server, &mut to_client, silence);
    tokio::select! {
        result = up => result,
        result = down => result,
    }
}

/// Copies data until the sender closes, except during a silence.
async fn pass(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    mut silence: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        // Holds back data that was read just before, too: from the cut on no byte passes.
        wait_until_audible(&mut silence).await;
        if read == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
    }
}

/// Waits until the proxy is not silent.
async fn wait_until_audible(silence: &mut watch::Receiver<bool>) {
    // An error means that the proxy was dropped, which ends the connection elsewhere.
    let _ = silence.wait_for(|silent| !silent).await;
}
