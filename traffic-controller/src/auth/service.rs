//! Asking a service that knows who may read what: one request, one answer, over HTTP/1.1, with TLS where the URL says so.
//!
//! What enters: a method, a path and what to show. What leaves: a status, and the body of a 200, or an error in words. Each request has
//! a connection of its own. No redirect is followed, nothing is repeated, and neither the answer nor the time it takes is without bounds.
//! Errors never show what was sent.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use metrics::Gauge;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tracing::{info, warn};
use transport::{Address, CertAndKey, ClientTls, ClientTlsError, ClientTlsFiles};

pub use self::url::{ServiceUrl, ServiceUrlError};

mod url;

/// For name look-up, connecting and the TLS handshake together.
const CONNECT: Duration = Duration::from_secs(10);

/// For all of it.
const DEADLINE: Duration = Duration::from_secs(20);

/// A service that is asked, and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// Where it is.
    pub url: ServiceUrl,
    /// Whom to trust, and what to show. Absent: the system's authorities, and nothing.
    #[serde(default)]
    pub tls: Option<ServiceTls>,
}

/// A `tls` table: whom we trust as that service, and what we show to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
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
pub(super) enum AskError {
    #[error("cannot connect to {0}: {1}")]
    Connect(Address, io::Error),
    #[error("TLS with {0}: {1}")]
    Tls(Address, String),
    #[error("no answer from {0} within {1} s")]
    Late(Address, u64),
    #[error("the answer of {0} has more than {1} bytes")]
    TooLong(Address, usize),
    #[error("{0} does not answer in HTTP/1.1: {1}")]
    Http(Address, String),
}

/// What is asked.
pub(super) struct Ask<'a> {
    /// Behind the path of the URL; begins with `/` or `?`, or is empty.
    pub(super) path: &'a str,
    /// What to show as authorization.
    pub(super) authorization: Option<&'a HeaderValue>,
    /// What to post as a form. Without one it is a GET.
    pub(super) form: Option<String>,
    /// The largest body of an answer, in bytes; with 0 none is read.
    pub(super) most: usize,
}

/// What came back. The body is that of a 200, and empty otherwise.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// A service to ask.
pub(super) struct Service {
    url: ServiceUrl,
    tls: Option<(ClientTls, ServerName<'static>)>,
    /// Shows when our certificate ends.
    ends: Option<Gauge>,
    /// New files cannot be used, and that was said.
    told: AtomicBool,
}

impl ServiceTls {
    /// Looks whether all goes together. Opens no file.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub(super) fn check(tls: Option<&Self>, url: &ServiceUrl) -> Result<ServerName<'static>, ServiceError> {
        if tls.is_some() && !url.is_tls() {
            return Err(ServiceError::TlsOnPlain);
        }
        if tls.is_some_and(|tls| tls.cert.is_some() != tls.key.is_some()) {
            return Err(ServiceError::HalfPair);
        }
        let name = tls.and_then(|tls| tls.server_name.as_deref()).unwrap_or_else(|| url.host());
        ServerName::try_from(name.to_owned()).map_err(|_| ServiceError::ServerName(name.to_owned()))
    }
}

impl Service {
    /// Reads the files. `ends` shows when our certificate ends, and is asked for only if there is one.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub(super) fn new(
        url: ServiceUrl,
        tls: Option<&ServiceTls>,
        ends: impl FnOnce() -> Gauge,
    ) -> Result<Self, ServiceError> {
        let name = ServiceTls::check(tls, &url)?;
        if !url.is_tls() {
            return Ok(Self { url, tls: None, ends: None, told: AtomicBool::new(false) });
        }
        let files = tls.cloned().unwrap_or_default();
        let shown = files.cert.zip(files.key).map(|(cert, key)| CertAndKey { cert, key });
        let ends = shown.is_some().then(ends);
        let tls = ClientTls::load(ClientTlsFiles { ca: files.ca, shown, skip_verify: false })?;
        let service = Self { url, tls: Some((tls, name)), ends, told: AtomicBool::new(false) };
        service.show_end();
        Ok(service)
    }

    /// Another URL that is reached under the same trust; its certificate must carry its own host.
    ///
    /// # Errors
    /// [`ServiceError::ServerName`]; the system's authorities cannot be used.
    pub(super) fn elsewhere(&self, url: ServiceUrl) -> Result<Self, ServiceError> {
        let name = ServiceTls::check(None, &url)?;
        let tls = match &self.tls {
            Some((tls, _)) if url.is_tls() => Some(tls.clone()),
            None if url.is_tls() => Some(ClientTls::load(ClientTlsFiles::default())?),
            _ => None,
        };
        Ok(Self { url, tls: tls.map(|tls| (tls, name)), ends: None, told: AtomicBool::new(false) })
    }

    pub(super) fn url(&self) -> &ServiceUrl {
        &self.url
    }

    /// Looks at the files again, if there are any. Those that cannot be used change nothing. Blocks.
    pub(super) fn renew(&self) {
        let Some((tls, _)) = &self.tls else { return };
        match tls.reload() {
            Ok(changed) => {
                self.told.store(false, Ordering::Relaxed);
                if changed {
                    info!(url = %self.url, "New certificate files are used");
                    self.show_end();
                }
            }
            Err(error) => {
                if !self.told.swap(true, Ordering::Relaxed) {
                    warn!(url = %self.url, %error, "Old certificates are used: the new files cannot be");
                }
            }
        }
    }

    fn show_end(&self) {
        let end = self.tls.as_ref().and_then(|(tls, _)| tls.not_after()?.duration_since(UNIX_EPOCH).ok());
        if let (Some(gauge), Some(end)) = (&self.ends, end) {
            gauge.set(end.as_secs_f64());
        }
    }

    /// Asks once.
    ///
    /// # Errors
    /// [`AskError`]. Any status is an answer.
    pub(super) async fn ask(&self, ask: Ask<'_>) -> Result<Answer, AskError> {
        let late = || AskError::Late(self.url.address.clone(), DEADLINE.as_secs());
        timeout(DEADLINE, self.ask_in_time(ask)).await.map_err(|_| late())?
    }

    async fn ask_in_time(&self, ask: Ask<'_>) -> Result<Answer, AskError> {
        let address = &self.url.address;
        let late = || AskError::Late(address.clone(), CONNECT.as_secs());
        let most = ask.most;
        let request = self.request(ask)?;
        let connected = timeout(CONNECT, TcpStream::connect((address.host(), address.port()))).await;
        let stream = connected.map_err(|_| late())?.map_err(|error| AskError::Connect(address.clone(), error))?;
        let Some((tls, name)) = &self.tls else { return exchange(stream, request, most, address).await };
        // A value of its own: each knows for itself which files it has used.
        let mut tls = tls.clone();
        let handshake = TlsConnector::from(tls.config()).connect(name.clone(), stream);
        let stream = timeout(CONNECT, handshake).await.map_err(|_| late())?;
        let stream = stream.map_err(|error| AskError::Tls(address.clone(), in_words(&error, &tls)))?;
        // In TLS 1.3 a server says only now that it does not take our certificate.
        exchange(stream, request, most, address).await.map_err(|error| match error {
            AskError::Http(address, text) if text.contains("alert") => {
                let text = format!("the server does not take what we showed ({text}); look at tls.cert and tls.key");
                AskError::Tls(address, text)
            }
            error => error,
        })
    }

    fn request(&self, ask: Ask<'_>) -> Result<Request<Full<Bytes>>, AskError> {
        let address = &self.url.address;
        let method = if ask.form.is_some() { Method::POST } else { Method::GET };
        let path = format!("{}{}", self.url.path, ask.path);
        let mut request = Request::builder()
            .method(method)
            .uri(if path.starts_with('/') { path } else { format!("/{path}") })
            .header(HOST, address.to_string())
            .header(USER_AGENT, concat!("hydrant/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json")
            .header(CONNECTION, "close");
        if let Some(authorization) = ask.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if ask.form.is_some() {
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let body = Full::new(Bytes::from(ask.form.unwrap_or_default()));
        request.body(body).map_err(|_| AskError::Http(address.clone(), "the path cannot be asked for".to_owned()))
    }
}

/// Sends the request and reads the answer, a body of `most` bytes at most.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    most: usize,
    address: &Address,
) -> Result<Answer, AskError> {
    let failed = |error: &dyn std::error::Error| {
        let below = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        AskError::Http(address.clone(), format!("{error}{below}"))
    };
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| failed(&error))?;
    let mut answer = pin!(async {
        let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let status = answer.status();
        if status != StatusCode::OK || most == 0 {
            return Ok(Answer { status, body: Bytes::new() });
        }
        match Limited::new(answer.into_body(), most).collect().await {
            Ok(body) => Ok(Answer { status, body: body.to_bytes() }),
            Err(error) if error.is::<LengthLimitError>() => Err(AskError::TooLong(address.clone(), most)),
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
