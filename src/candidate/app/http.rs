//! httpGet, with the kubelet's headers and its rules for redirects.

use http::header::{ACCEPT, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

use super::dial::{connect, host_or};
use super::spec::HttpGet;
use super::tls;

/// The user agent of a probe: apps and their logs recognize the kubelet by the first word.
pub(super) const PROBE: &str = concat!("kube-probe/k8sensus-", env!("CARGO_PKG_VERSION"));
/// The user agent of a hook, likewise.
pub(super) const LIFECYCLE: &str = concat!("kube-lifecycle/k8sensus-", env!("CARGO_PKG_VERSION"));

const MOST_REDIRECTS: usize = 10;
/// The most bytes that are read of a body.
const MOST_OF_BODY: usize = 10 << 10;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection's background task, aborted when this is dropped.
pub(super) struct Background(JoinHandle<()>);

impl Background {
    pub(super) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The target of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

/// Returns the status of the app, after redirects to its own host. A redirect to another host is itself the answer.
pub(super) async fn get(get: &HttpGet, address: &str, agent: &'static str) -> Result<u16, String> {
    let host = host_or(get.host.as_deref(), address);
    let tls = get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    let path = get.path.as_deref().unwrap_or_default();
    let mut target = Target { tls, host: bracketed(host), port: get.port, path: rooted(path) };
    let mut headers = headers(get, agent)?;
    // As Go counts them: the first request is one of them.
    for _ in 0..MOST_REDIRECTS {
        let (status, location) = send(&target, &headers).await?;
        let redirected = matches!(status, 301 | 302 | 303 | 307 | 308);
        let Some(location) = location.filter(|_| redirected) else { return Ok(status) };
        let next = target.join(&location)?;
        if next.host != target.host {
            return Ok(status);
        }
        if next.port != target.port {
            headers.remove(HOST);
        }
        target = next;
    }
    Err(format!("stopped after {MOST_REDIRECTS} redirects"))
}

async fn send(target: &Target, headers: &HeaderMap) -> Result<(u16, Option<String>), String> {
    let tcp = connect(&target.host, target.port).await?;
    let stream: Box<dyn Stream> =
        if target.tls { Box::new(tls::connect(&target.host, tcp).await?) } else { Box::new(tcp) };
    let failed = |error: hyper::Error| format!("no HTTP answer from {}, port {}: {error}", target.host, target.port);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let _connection = Background::spawn(async {
        // A failure of the connection also fails the request.
        let _ = connection.await;
    });
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::GET;
    *request.uri_mut() =
        target.path.parse::<Uri>().map_err(|error| format!("{:?} is not a path: {error}", target.path))?;
    *request.headers_mut() = headers.clone();
    if !headers.contains_key(HOST) {
        let authority =
            HeaderValue::try_from(target.authority()).map_err(|error| format!("{}: {error}", target.host))?;
        request.headers_mut().insert(HOST, authority);
    }
    let response = sender.send_request(request).await.map_err(failed)?;
    let status = response.status().as_u16();
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok()).map(str::to_owned);
    // Read the body, or the app would report a broken pipe at each probe.
    let mut body = response.into_body();
    let mut read = 0;
    while read < MOST_OF_BODY
        && let Some(frame) = body.frame().await
    {
        read += frame.map_err(failed)?.data_ref().map_or(0, Bytes::len);
    }
    Ok((status, location))
}

/// Returns the user's headers, plus the kubelet's default for each one missing. An empty Accept header is removed.
fn headers(get: &HttpGet, agent: &'static str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for header in get.http_headers.iter().flatten() {
        let wrong = |what: &str| format!("the header {:?} of httpGet is not valid HTTP: check its {what}", header.name);
        let name: HeaderName = header.name.parse().map_err(|_| wrong("name"))?;
        let value: HeaderValue = header.value.parse().map_err(|_| wrong("value"))?;
        if name == HOST {
            headers.insert(name, value);
        } else {
            headers.append(name, value);
        }
    }
    if !headers.contains_key(USER_AGENT) {
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    }
    match headers.get(ACCEPT).map(HeaderValue::is_empty) {
        None => drop(headers.insert(ACCEPT, HeaderValue::from_static("*/*"))),
        Some(true) => drop(headers.remove(ACCEPT)),
        Some(false) => {}
    }
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(headers)
}

impl Target {
    fn authority(&self) -> String {
        let usual = if self.tls { 443 } else { 80 };
        if self.port == usual { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// Returns the target of a redirect to `location`.
    fn join(&self, location: &str) -> Result<Self, String> {
        let location = location.split('#').next().unwrap_or_default();
        let (tls, rest) = if let Some(rest) = without_scheme(location, "https:") {
            (true, rest)
        } else if let Some(rest) = without_scheme(location, "http:") {
            (false, rest)
        } else {
            (self.tls, location)
        };
        let Some(rest) = rest.strip_prefix("//") else {
            return Ok(Self { path: self.path_to(location), ..self.clone() });
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let wrong = || format!("redirected to {location:?}, which is not an address");
        let authority: http::uri::Authority = authority.parse().map_err(|_| wrong())?;
        let usual = if tls { 443 } else { 80 };
        Ok(Self {
            tls,
            host: authority.host().to_ascii_lowercase(),
            port: authority.port_u16().unwrap_or(usual),
            path: rooted(path),
        })
    }

    fn path_to(&self, location: &str) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        match location.chars().next() {
            None => self.path.clone(),
            Some('/') => rooted(location),
            Some('?') => rooted(&format!("{path}{location}")),
            Some(_) => rooted(&format!("{}{location}", &path[..=path.rfind('/').unwrap_or(0)])),
        }
    }
}

fn without_scheme<'a>(location: &'a str, scheme: &str) -> Option<&'a str> {
    let head = location.get(..scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then(|| &location[scheme.len()..])
}

fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_ascii_lowercase() }
}

/// Returns `path` with a leading slash, and with the characters escaped that a request line may not contain.
fn rooted(path: &str) -> String {
    let mut rooted = if path.starts_with('/') { String::new() } else { "/".to_owned() };
    for byte in path.bytes() {
        match byte {
            b'!' | b'#'..=b';' | b'=' | b'?'..=b'[' | b']' | b'_' | b'a'..=b'z' | b'~' => rooted.push(char::from(byte)),
            _ => rooted.push_str(&format!("%{byte:02X}")),
        }
    }
    rooted
}
