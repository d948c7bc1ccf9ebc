//! The signals that reach the candidate and are meant for its command, too.

use std::io;
use std::task::Poll;

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

use crate::runtime::shutdown::Shutdown;

/// What asks this process to end: SIGTERM, SIGINT, and SIGQUIT, which images with `STOPSIGNAL SIGQUIT` are stopped with.
pub(super) struct Asked {
    shutdown: Shutdown,
    quit: unix::Signal,
}

impl Asked {
    pub(super) fn listen(shutdown: Shutdown) -> io::Result<Self> {
        Ok(Self { shutdown, quit: signal(SignalKind::quit())? })
    }

    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            name = self.shutdown.requested() => if name == "SIGINT" { Signal::INT } else { Signal::TERM },
            _ = self.quit.recv() => Signal::QUIT,
        }
    }
}

/// What is the command's own affair: reload, reopen logs, the terminal's size.
pub(super) struct PassedOn([(Signal, unix::Signal); 4]);

impl PassedOn {
    /// From now on none of them kills this process.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self([
            (Signal::HUP, signal(SignalKind::hangup())?),
            (Signal::USR1, signal(SignalKind::user_defined1())?),
            (Signal::USR2, signal(SignalKind::user_defined2())?),
            (Signal::WINCH, signal(SignalKind::window_change())?),
        ]))
    }

    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            let mut came = self
                .0
                .iter_mut()
                .filter_map(|(signal, stream)| stream.poll_recv(context).is_ready().then_some(*signal));
            came.next().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
