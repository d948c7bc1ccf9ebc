//! Connections to the app.

use tokio::net::TcpStream;

/// Returns the probe's own host, or `address` if it has none.
pub(super) fn host_or<'a>(host: Option<&'a str>, address: &'a str) -> &'a str {
    host.filter(|host| !host.is_empty()).unwrap_or(address)
}

/// Connects to `host`, which may be in brackets.
pub(super) async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let connected = TcpStream::connect((bare, port)).await;
    connected.map_err(|error| format!("cannot connect to {host}, port {port}: {error}"))
}
