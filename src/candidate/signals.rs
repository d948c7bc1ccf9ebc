//! The signals to the candidate, some of which are forwarded to its command.

use std::io;
use std::task::Poll;

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

use crate::runtime::shutdown::Shutdown;

/// The signals that request the end of this process: SIGTERM, SIGINT, and SIGQUIT, for images with `STOPSIGNAL
/// SIGQUIT`.
pub(super) struct StopSignals {
    shutdown: Shutdown,
    quit: unix::Signal,
}

impl StopSignals {
    pub(super) fn listen(shutdown: Shutdown) -> io::Result<Self> {
        Ok(Self { shutdown, quit: signal(SignalKind::quit())? })
    }

    /// Waits for the next signal. Cancel safe.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            name = self.shutdown.requested() => if name == "SIGINT" { Signal::INT } else { Signal::TERM },
            _ = self.quit.recv() => Signal::QUIT,
        }
    }
}

/// The signals that only the command interprets: reload, reopen logs, the terminal's size.
pub(super) struct ForwardedSignals([(Signal, unix::Signal); 4]);

impl ForwardedSignals {
    /// Starts to listen: from now on none of these signals kills this process.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self([
            (Signal::HUP, signal(SignalKind::hangup())?),
            (Signal::USR1, signal(SignalKind::user_defined1())?),
            (Signal::USR2, signal(SignalKind::user_defined2())?),
            (Signal::WINCH, signal(SignalKind::window_change())?),
        ]))
    }

    /// Waits for the next signal. Cancel safe.
    pub(super) async fn next(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            let mut received = self
                .0
                .iter_mut()
                .filter_map(|(signal, stream)| stream.poll_recv(context).is_ready().then_some(*signal));
            received.next().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
