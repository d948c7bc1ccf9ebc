//! SIGTERM and SIGINT as a future.

use std::io;

/// The two signals that request the end of a program: SIGTERM and SIGINT. On Windows, the end of the system or the
/// container (`CTRL_SHUTDOWN`) and Ctrl+C (`CTRL_C`).
pub struct Shutdown {
    terminate: signals::Terminate,
    interrupt: signals::Interrupt,
}

impl Shutdown {
    /// Installs the handlers. From now on neither signal kills the process; [`requested`](Shutdown::requested) reports
    /// them.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signals::terminate()?, interrupt: signals::interrupt()? })
    }

    /// Completes at the next of the two signals and returns its name. Cancel safe.
    pub async fn requested(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => signals::NAMES[0],
            _ = self.interrupt.recv() => signals::NAMES[1],
        }
    }
}

#[cfg(unix)]
mod signals {
    use std::io;

    use tokio::signal::unix::{Signal, SignalKind, signal};

    pub(super) type Terminate = Signal;
    pub(super) type Interrupt = Signal;

    pub(super) const NAMES: [&str; 2] = ["SIGTERM", "SIGINT"];

    pub(super) fn terminate() -> io::Result<Terminate> {
        signal(SignalKind::terminate())
    }

    pub(super) fn interrupt() -> io::Result<Interrupt> {
        signal(SignalKind::interrupt())
    }
}

#[cfg(windows)]
mod signals {
    use tokio::signal::windows::{CtrlC, CtrlShutdown};
    pub(super) use tokio::signal::windows::{ctrl_c as interrupt, ctrl_shutdown as terminate};

    pub(super) type Terminate = CtrlShutdown;
    pub(super) type Interrupt = CtrlC;

    pub(super) const NAMES: [&str; 2] = ["CTRL_SHUTDOWN", "CTRL_C"];
}
