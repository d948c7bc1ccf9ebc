//! A sample task that makes an election visible.

use crate::protocol::environment;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// The time between two lines of the sample task.
pub const PERIOD: Duration = Duration::from_secs(10);

/// The sample task's line.
pub const LINE: &str = "k8sensus is running sample task.";

/// Prints [`LINE`] every [`PERIOD`], with the fencing token if there is one, until the process is ended. Beside a
/// sidecar, as the environment shows, it also asks the sidecar whether it leads, and ignores the answer: the Lease
/// shows the election.
pub fn forever() -> ! {
    let sidecar =
        std::env::var(environment::HTTP_PORT).ok().filter(|_| std::env::var_os(environment::LEADER).is_none());
    let sidecar = sidecar.and_then(|port| port.parse().ok());
    let token = std::env::var(environment::FENCING_TOKEN).map(|token| format!(" Fencing token: {token}"));
    let token = token.unwrap_or_default();
    loop {
        println!("{LINE}{token}");
        if let Some(port) = sidecar {
            // If the sidecar does not answer yet, the next line retries.
            let _ = ask(port);
        }
        std::thread::sleep(PERIOD);
    }
}

fn ask(port: u16) -> io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    io::copy(&mut stream, &mut io::sink()).map(drop)
}
