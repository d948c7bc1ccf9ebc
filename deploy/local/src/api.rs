//! A minimal client of the API server for readiness checks, which are too frequent to start kubectl for each.

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::error::Error;
use crate::folder::Folder;
use crate::pki::ADMIN;

const LIMIT: Duration = Duration::from_secs(5);

pub(crate) struct Api {
    address: SocketAddr,
    config: Arc<ClientConfig>,
}

impl Api {
    /// Returns a client of the API server at this URL, as the instance's administrator.
    pub(crate) fn new(server: &str, folder: &Folder) -> Result<Self, Error> {
        let address = server
            .trim_start_matches("https://")
            .parse()
            .map_err(|_| broken(server, "expected https://ADDRESS:PORT"))?;
        let certificate = |name: &str| {
            let path = folder.pki(name);
            CertificateDer::from_pem_file(&path).map_err(|error| broken(path.display(), error))
        };
        let key = folder.pki(&format!("{ADMIN}.key"));
        let key = PrivateKeyDer::from_pem_file(&key).map_err(|error| broken(key.display(), error))?;
        let own = certificate(&format!("{ADMIN}.crt"))?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate("ca.crt")?).map_err(|error| broken("ca.crt", error))?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_root_certificates(roots).with_client_auth_cert(vec![own], key))
            .map_err(|error| broken("TLS", error))?;
        Ok(Self { address, config: Arc::new(config) })
    }

    /// Returns the body of a successful response; the error is one line.
    pub(crate) fn get(&self, path: &str) -> Result<String, String> {
        let text = |error: std::io::Error| error.to_string();
        let tcp = TcpStream::connect_timeout(&self.address, LIMIT).map_err(text)?;
        tcp.set_read_timeout(Some(LIMIT)).map_err(text)?;
        tcp.set_write_timeout(Some(LIMIT)).map_err(text)?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let connection = ClientConnection::new(Arc::clone(&self.config), name).map_err(|error| error.to_string())?;
        let mut stream = StreamOwned::new(connection, tcp);
        // HTTP/1.0: the response ends with the connection and is never chunked.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\nAccept: application/json, */*\r\n\r\n", self.address)
            .map_err(text)?;
        let mut answer = String::new();
        match stream.read_to_string(&mut answer) {
            // The server may close the connection without a TLS close_notify; the status line is checked below.
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => return Err(error.to_string()),
            _ => {}
        }
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("the response is not HTTP")?;
        match head.lines().next().and_then(|line| line.split(' ').nth(1)) {
            Some("200") => Ok(body.to_owned()),
            _ => {
                Err(format!("{}: {}", head.lines().next().unwrap_or_default(), body.lines().last().unwrap_or_default()))
            }
        }
    }
}

fn broken(what: impl Display, error: impl Display) -> Error {
    Error::Api { reason: format!("{what}: {error}") }
}
