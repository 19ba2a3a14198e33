//! One page of a target: one GET over a connection of its own, within bounds of time and bytes. No redirect is followed.

use std::io::{self, Read as _};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use transport::ClientTls;

use crate::scrape::{Format, TargetUrl};

/// What is preferred, of what can be read.
const BOTH: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// A page as it came, unpacked.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) body: Bytes,
    pub(super) format: Format,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("no whole page within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("the answer is {0}, not 200; its first words: {1}")]
    Status(StatusCode, String),
    #[error("the page has more than {0} bytes; raise agent.scrape.max_body_bytes if it should")]
    TooLong(usize),
    #[error("the answer is not HTTP/1.1: {0}")]
    Http(String),
    #[error("the page is said to be gzip and is not: {0}")]
    Gzip(io::Error),
}

/// What is asked for, and how.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) url: TargetUrl,
    pub(super) headers: HeaderMap,
    pub(super) tls: Option<(ClientTls, ServerName<'static>)>,
    pub(super) timeout: Duration,
    pub(super) max_bytes: usize,
}

/// The headers to send. `negotiate` asks for OpenMetrics too, unless `own` asks for something.
///
/// # Errors
/// The name of a header that is none.
pub(super) fn headers<'a>(
    own: impl IntoIterator<Item = (&'a String, &'a String)>,
    negotiate: bool,
) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("hydrant/", env!("CARGO_PKG_VERSION"))));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if negotiate {
        headers.insert(ACCEPT, HeaderValue::from_static(BOTH));
    }
    for (name, value) in own {
        let parsed = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value));
        let (Ok(header), Ok(value)) = parsed else { return Err(name.clone()) };
        headers.insert(header, value);
    }
    Ok(headers)
}

impl Ask {
    /// Gets the page.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub(super) async fn get(&mut self) -> Result<Fetched, FetchError> {
        let within = self.timeout;
        let limit = self.max_bytes;
        let (headers, body) = timeout(within, self.exchange()).await.map_err(|_| FetchError::Late(within))??;
        let is = |name: HeaderName, what: &str| {
            headers.get(name).and_then(|value| value.to_str().ok()).is_some_and(|value| value.trim().starts_with(what))
        };
        let format = if is(CONTENT_TYPE, "application/openmetrics-text") { Format::OpenMetrics } else { Format::Text };
        let body = if is(CONTENT_ENCODING, "gzip") { unpack(&body, limit)? } else { body };
        Ok(Fetched { body, format })
    }

    async fn exchange(&mut self) -> Result<(HeaderMap, Bytes), FetchError> {
        let address = &self.url.address;
        let stream = TcpStream::connect((address.host(), address.port())).await.map_err(FetchError::Connect)?;
        let mut request = Request::get(&self.url.path)
            .header(HOST, address.to_string())
            .body(Empty::new())
            .map_err(|error| FetchError::Http(error.to_string()))?;
        request.headers_mut().extend(self.headers.clone());
        let Some((tls, name)) = &mut self.tls else { return answer(stream, request, self.max_bytes).await };
        let handshake = TlsConnector::from(tls.config()).connect(name.clone(), stream).await;
        let stream = handshake.map_err(|error| FetchError::Tls(in_words(&error, tls)))?;
        answer(stream, request, self.max_bytes).await
    }
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
    max_bytes: usize,
) -> Result<(HeaderMap, Bytes), FetchError> {
    let failed = |error: &dyn std::error::Error| {
        let below = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        let text = format!("{error}{below}");
        // In TLS 1.3 a server says only now that it does not take our certificate.
        if text.contains("alert") { FetchError::Tls(text) } else { FetchError::Http(text) }
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let mut answer = pin!(async {
        let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let (head, body) = answer.into_parts();
        let body = match Limited::new(body, max_bytes).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(FetchError::TooLong(max_bytes)),
            Err(error) => return Err(failed(&*error)),
        };
        if head.status != StatusCode::OK {
            return Err(FetchError::Status(head.status, body[..body.len().min(100)].escape_ascii().to_string()));
        }
        Ok((head.headers, body))
    });
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        outcome = &mut answer => outcome,
        // What it ends with is told by the answer.
        _ = &mut connection => answer.await,
    }
}

/// Unpacks no more than `limit` bytes, however small what is packed.
fn unpack(packed: &[u8], limit: usize) -> Result<Bytes, FetchError> {
    let mut body = Vec::new();
    MultiGzDecoder::new(packed).take(limit as u64 + 1).read_to_end(&mut body).map_err(FetchError::Gzip)?;
    if body.len() > limit { Err(FetchError::TooLong(limit)) } else { Ok(body.into()) }
}

fn in_words(error: &io::Error, tls: &ClientTls) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => tls.explain(inner),
        None => error.to_string(),
    }
}
