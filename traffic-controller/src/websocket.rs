//! WebSocket for servers: the handshake of RFC 6455 §4.2 on an HTTP request, and the connection after it ([`session`]).
//!
//! What enters: a request's head. What leaves: the answer that switches protocols, or the one that says why not. Offers no
//! subprotocol and no extension.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub(crate) mod feed;
mod metered;
pub(crate) mod session;

/// A handshake that the server can accept.
#[derive(Debug)]
pub(crate) struct Handshake {
    accept: HeaderValue,
}

/// Why a request is no handshake (contract: traffic controller v1 §2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoHandshake {
    /// A header is missing or wrong, or it is not HTTP/1.1.
    BadRequest,
    /// All of a handshake's headers but another method than GET.
    MethodNotAllowed,
}

impl Handshake {
    /// Reads the handshake out of a request's head.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read<B>(request: &Request<B>) -> Result<Self, NoHandshake> {
        let headers = request.headers();
        if request.version() != Version::HTTP_11
            || !has_token(headers, &CONNECTION, "upgrade")
            || !has_token(headers, &UPGRADE, "websocket")
        {
            return Err(NoHandshake::BadRequest);
        }
        if request.method() != Method::GET {
            return Err(NoHandshake::MethodNotAllowed);
        }
        let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| !key.is_empty()).ok_or(NoHandshake::BadRequest)?;
        if !has_token(headers, &SEC_WEBSOCKET_VERSION, "13") {
            return Err(NoHandshake::BadRequest);
        }
        let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).expect("base64 is a header value");
        Ok(Self { accept })
    }

    /// The answer that accepts it.
    pub(crate) fn response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept);
        response
    }
}

impl IntoResponse for NoHandshake {
    fn into_response(self) -> Response {
        let (status, body) = match self {
            Self::BadRequest => (StatusCode::BAD_REQUEST, "Bad Request\n"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n"),
        };
        (status, [(SEC_WEBSOCKET_VERSION, "13"), (X_CONTENT_TYPE_OPTIONS, "nosniff")], body).into_response()
    }
}

/// True when one of the comma-separated words under `name` is `token`, in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, headers: &[(&str, &str)]) -> Request<()> {
        let request = Request::builder().method(method).uri("/firehose/a");
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
    }

    const GOOD: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn the_answer_is_the_one_of_the_rfc() {
        let response = Handshake::read(&request("GET", &GOOD)).unwrap().response();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers().len(), 3);
    }

    #[test]
    fn a_handshake_needs_each_of_its_headers() {
        for missing in 0..GOOD.len() {
            let mut headers = GOOD.to_vec();
            let (name, _) = headers.remove(missing);
            assert_eq!(Handshake::read(&request("GET", &headers)).unwrap_err(), NoHandshake::BadRequest, "{name}");
        }
        let mut old = GOOD;
        old[2].1 = "8";
        assert_eq!(Handshake::read(&request("GET", &old)).unwrap_err(), NoHandshake::BadRequest);
        let mut http2 = request("GET", &GOOD);
        *http2.version_mut() = Version::HTTP_2;
        assert_eq!(Handshake::read(&http2).unwrap_err(), NoHandshake::BadRequest);
    }

    #[test]
    fn another_method_is_told_so_only_when_it_asks_to_upgrade() {
        assert_eq!(Handshake::read(&request("POST", &GOOD)).unwrap_err(), NoHandshake::MethodNotAllowed);
        assert_eq!(Handshake::read(&request("POST", &[])).unwrap_err(), NoHandshake::BadRequest);
    }
}
