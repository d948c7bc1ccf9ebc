//! SIGTERM and SIGINT as a future.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The two signals that request the end of a program.
pub struct Shutdown {
    terminate: Signal,
    interrupt: Signal,
}

impl Shutdown {
    /// Installs the handlers. From now on neither signal kills the process; [`requested`](Shutdown::requested) reports
    /// them.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Completes at the next SIGTERM or SIGINT and returns its name. Cancel safe.
    pub async fn requested(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
