//! Reading from a service of the platform: one GET, one answer, as a client of HTTP/1.1, with TLS where the URL says so.
//!
//! A path enters, the body of a 200 leaves, or an error in words. Each request has a connection of its own. No redirect is followed, and
//! neither the answer nor the time it takes is without bounds. Never repeats anything.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use metrics::Gauge;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tracing::{info, warn};
use transport::{Address, AddressError, CertAndKey, ClientTls, ClientTlsError, ClientTlsFiles};

/// For name look-up, connecting and the TLS handshake together.
const CONNECT: Duration = Duration::from_secs(10);
/// For the answer, to its end.
const ANSWER: Duration = Duration::from_secs(60);
/// The largest answer, in bytes.
pub(crate) const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Where a service is: `http://host:port` or `https://host:port`, with a path before its own if need be. Ports 80 and 443 may be left out.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceUrl {
    is_tls: bool,
    address: Address,
    /// Without a `/` at its end.
    path: String,
}

/// Why a text is no [`ServiceUrl`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceUrlError {
    /// Neither of the two.
    #[error("the URL does not begin with http:// or https://")]
    Scheme,
    /// It would be shown.
    #[error("the URL has a user name, options or a fragment; write http://host:port or https://host:port")]
    More,
    /// Host and port cannot be read.
    #[error("the URL's host and port: {0}")]
    Address(#[from] AddressError),
}

/// A `tls` table: whom we trust as that service, and what we show to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceTls {
    /// A PEM file of the authorities that the service's certificate must chain to. Absent: those of the system.
    pub ca: Option<PathBuf>,
    /// The certificate that we show, followed by its intermediates. Absent: none.
    pub cert: Option<PathBuf>,
    /// The private key of `cert`: both or none.
    pub key: Option<PathBuf>,
    /// The name or address that the service's certificate must carry. Absent: the URL's host.
    pub server_name: Option<String>,
}

/// Why a service cannot be asked, whatever it would answer.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// TLS without `https://`.
    #[error("there is a tls table, and the URL does not begin with https://")]
    TlsOnPlain,
    /// Half a pair.
    #[error("tls has one of cert and key; name both, or none")]
    HalfPair,
    /// What its certificate must carry could stand in none.
    #[error("{0:?} is no DNS name or address; set tls.server_name to one")]
    ServerName(String),
    /// A file cannot be used.
    #[error("tls: {0}")]
    Tls(#[from] ClientTlsError),
}

/// Why there is no answer that could be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("cannot connect to {0}: {1}")]
    Connect(Address, io::Error),
    #[error("TLS with {0}: {1}")]
    Tls(Address, String),
    #[error("no answer from {0} within {1} s")]
    Late(Address, u64),
    #[error("{0} answers {1}")]
    Status(Address, StatusCode),
    #[error("the answer of {0} has more than {MAX_ANSWER} bytes")]
    TooLong(Address),
    #[error("{0} does not answer in HTTP/1.1: {1}")]
    Http(Address, String),
}

/// A service to ask.
#[derive(Debug)]
pub(crate) struct Service {
    url: ServiceUrl,
    tls: Option<(ClientTls, ServerName<'static>)>,
    /// Shows when our certificate ends.
    ends: Option<Gauge>,
    /// The files cannot be used, and that was said.
    told: bool,
}

impl ServiceUrl {
    /// Whether what is read there can be read on the way, on another machine's wire.
    pub(crate) fn is_exposed(&self) -> bool {
        let host = self.address.host();
        let is_here = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        !self.is_tls && !is_here
    }
}

impl FromStr for ServiceUrl {
    type Err = ServiceUrlError;

    fn from_str(text: &str) -> Result<Self, ServiceUrlError> {
        let (is_tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(ServiceUrlError::Scheme),
        };
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if rest.contains(['@', '?', '#']) || (!path.is_empty() && PathAndQuery::from_str(path).is_err()) {
            return Err(ServiceUrlError::More);
        }
        let address = match host.parse() {
            Err(AddressError::NoPort(_)) => format!("{host}:{}", if is_tls { 443 } else { 80 }).parse()?,
            other => other?,
        };
        Ok(Self { is_tls, address, path: path.trim_end_matches('/').to_owned() })
    }
}

impl TryFrom<String> for ServiceUrl {
    type Error = ServiceUrlError;

    fn try_from(text: String) -> Result<Self, ServiceUrlError> {
        text.parse()
    }
}

impl From<ServiceUrl> for String {
    fn from(url: ServiceUrl) -> Self {
        url.to_string()
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.is_tls { "https" } else { "http" }, self.address, self.path)
    }
}

impl Service {
    /// Reads the files. `ends` shows when our certificate ends, and is asked for only if there is one.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub(crate) fn new(
        url: ServiceUrl,
        tls: Option<&ServiceTls>,
        ends: impl FnOnce() -> Gauge,
    ) -> Result<Self, ServiceError> {
        let tls = match (url.is_tls, tls) {
            (false, Some(_)) => return Err(ServiceError::TlsOnPlain),
            (false, None) => return Ok(Self { url, tls: None, ends: None, told: false }),
            (true, tls) => tls.cloned().unwrap_or_default(),
        };
        let shown = match (tls.cert, tls.key) {
            (Some(cert), Some(key)) => Some(CertAndKey { cert, key }),
            (None, None) => None,
            _ => return Err(ServiceError::HalfPair),
        };
        let name = tls.server_name.unwrap_or_else(|| url.address.host().to_owned());
        let server_name = ServerName::try_from(name.clone()).map_err(|_| ServiceError::ServerName(name))?;
        let ends = shown.is_some().then(ends);
        let loaded = ClientTls::load(ClientTlsFiles { ca: tls.ca, shown, skip_verify: false })?;
        let service = Self { url, tls: Some((loaded, server_name)), ends, told: false };
        service.show_end();
        Ok(service)
    }

    /// Looks at the files again, if there are any. Those that cannot be used change nothing. Blocks.
    pub(crate) fn renew(&mut self) {
        let Some((tls, _)) = &self.tls else { return };
        match tls.reload() {
            Ok(changed) => {
                self.told = false;
                if changed {
                    info!(url = %self.url, "New certificate files are used");
                    self.show_end();
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.told, true) {
                    warn!(url = %self.url, %error, "Old certificates are used: the new files cannot be");
                }
            }
        }
    }

    /// The body of the answer to a GET of `path`, which begins with `/`.
    ///
    /// # Errors
    /// [`FetchError`]; anything but 200 is one.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Bytes, FetchError> {
        let address = self.url.address.clone();
        let late = |within: Duration| FetchError::Late(address.clone(), within.as_secs());
        let connected = timeout(CONNECT, TcpStream::connect((address.host(), address.port()))).await;
        let stream =
            connected.map_err(|_| late(CONNECT))?.map_err(|error| FetchError::Connect(address.clone(), error))?;
        let request = Request::get(format!("{}{path}", self.url.path))
            .header(HOST, address.to_string())
            .header(USER_AGENT, concat!("hydrant/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json")
            .header(CONNECTION, "close")
            .body(Empty::new())
            .map_err(|error| FetchError::Http(address.clone(), error.to_string()))?;
        let Some((tls, name)) = &mut self.tls else {
            return timeout(ANSWER, exchange(stream, request, &address)).await.map_err(|_| late(ANSWER))?;
        };
        let handshake = TlsConnector::from(tls.config()).connect(name.clone(), stream);
        let stream = timeout(CONNECT, handshake).await.map_err(|_| late(CONNECT))?;
        let stream = stream.map_err(|error| FetchError::Tls(address.clone(), in_words(&error, tls)))?;
        let outcome = timeout(ANSWER, exchange(stream, request, &address)).await.map_err(|_| late(ANSWER))?;
        // In TLS 1.3 a server says only now that it does not take our certificate.
        outcome.map_err(|error| match error {
            FetchError::Http(address, text) if text.contains("alert") => FetchError::Tls(
                address,
                format!("the server does not take what we showed ({text}); look at tls.cert and tls.key"),
            ),
            error => error,
        })
    }

    fn show_end(&self) {
        let end = self.tls.as_ref().and_then(|(tls, _)| tls.not_after()?.duration_since(UNIX_EPOCH).ok());
        if let (Some(gauge), Some(end)) = (&self.ends, end) {
            gauge.set(end.as_secs_f64());
        }
    }
}

/// Sends the request and reads the answer.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
    address: &Address,
) -> Result<Bytes, FetchError> {
    let failed = |error: &dyn std::error::Error| {
        let below = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        FetchError::Http(address.clone(), format!("{error}{below}"))
    };
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| failed(&error))?;
    let mut answer = pin!(async {
        let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(address.clone(), answer.status()));
        }
        match Limited::new(answer.into_body(), MAX_ANSWER).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLong(address.clone())),
            Err(error) => Err(failed(&*error)),
        }
    });
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        outcome = &mut answer => outcome,
        // What it ends with is told by the answer.
        _ = &mut connection => answer.await,
    }
}

fn in_words(error: &io::Error, tls: &ClientTls) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => tls.explain(inner),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_written_back() {
        for (text, shown) in [
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("https://cache.internal/", "https://cache.internal:443"),
            ("http://[::1]/base/", "http://[::1]:80/base"),
        ] {
            assert_eq!(text.parse::<ServiceUrl>().unwrap().to_string(), shown);
        }
        let error = |text: &str| text.parse::<ServiceUrl>().unwrap_err().to_string();
        assert!(error("cache:9000").contains("http://"));
        assert!(error("ftp://cache").contains("http://"));
        for text in ["http://user:canary@cache", "http://cache/?token=canary", "http://cache/#canary"] {
            assert!(error(text).contains("has a user name") && !error(text).contains("canary"), "{text}");
        }
        assert!(error("http://:1").contains("host and port"));
        let exposed = |text: &str| text.parse::<ServiceUrl>().unwrap().is_exposed();
        assert!(exposed("http://10.0.0.1:9000") && exposed("http://cache"));
        assert!(!exposed("https://cache") && !exposed("http://localhost:1") && !exposed("http://[::1]:1"));
    }
}
