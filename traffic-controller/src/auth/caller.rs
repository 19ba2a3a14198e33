//! Where a request carries its authorization. Pure.
//!
//! What enters: a request's headers and what is known of its connection. What leaves: its token and the token's digest, or that it has
//! shown a certificate. A query is never looked at: it ends in logs and histories.

use std::ops::Range;

use axum::extract::Request;
use http::header::{AUTHORIZATION, COOKIE};
use http::{Extensions, HeaderMap, HeaderValue, Uri};
use percent_encoding::percent_decode;
use transport::{ConnInfo, own_origin};

use super::Denied;
use super::secret::{Digest, MAX_TOKEN_BYTES};

/// Who sends a request, as each protocol knows it.
pub(crate) enum Caller<'a> {
    /// Plain HTTP: the `Authorization` header.
    Http(&'a HeaderMap),
    /// A WebSocket handshake, or what a page asks of its own origin: the header, or the cookie that a browser sends in its place.
    Browser {
        uri: &'a Uri,
        headers: &'a HeaderMap,
        /// Whether the connection is encrypted.
        tls: bool,
    },
    /// gRPC: the metadata, or a certificate.
    Grpc {
        headers: &'a HeaderMap,
        /// Whether the client has shown one of our authorities.
        certificate: bool,
    },
}

/// What a request shows.
pub(super) enum Credential {
    Token(Proof),
    Certificate,
}

/// A token, as it was shown. It has no `Debug`, and its header shows nothing in one.
pub(super) struct Proof {
    digest: Digest,
    authorization: HeaderValue,
    /// Where in it the token is.
    token: Range<usize>,
}

impl Proof {
    /// `bearer TOKEN`, in any case, or the token alone.
    fn read(mut authorization: HeaderValue) -> Result<Self, Denied> {
        const SCHEME: &[u8] = b"bearer";
        authorization.set_sensitive(true);
        let value = authorization.as_bytes();
        let shown = value.trim_ascii();
        let token = match shown.split_at_checked(SCHEME.len()) {
            Some((scheme, rest))
                if scheme.eq_ignore_ascii_case(SCHEME) && rest.first().is_none_or(|byte| *byte == b' ') =>
            {
                rest.trim_ascii()
            }
            _ => shown,
        };
        if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
            return Err(Denied::Invalid);
        }
        let end = value.trim_ascii_end().len();
        let (digest, token) = (Digest::of(token), end - token.len()..end);
        Ok(Self { digest, authorization, token })
    }

    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    /// What the caller sent, as it sent it.
    pub(super) fn authorization(&self) -> &HeaderValue {
        &self.authorization
    }

    /// The token in it.
    pub(super) fn token(&self) -> &[u8] {
        &self.authorization.as_bytes()[self.token.clone()]
    }
}

impl<'a> Caller<'a> {
    /// Who sends `request`, on a port that pages come from.
    pub(crate) fn browser(request: &'a Request) -> Self {
        let tls = request.extensions().get::<ConnInfo>().is_some_and(|info| info.tls);
        Self::Browser { uri: request.uri(), headers: request.headers(), tls }
    }

    /// Who sends a call with `metadata` and `extensions`.
    pub(crate) fn grpc(metadata: &'a tonic::metadata::MetadataMap, extensions: &Extensions) -> Self {
        let certificate = extensions.get::<ConnInfo>().is_some_and(|info| info.peer.is_some());
        Self::Grpc { headers: metadata.as_ref(), certificate }
    }

    /// What the request shows. A token counts before everything else: one that is wrong is not made good by a certificate.
    pub(super) fn credential(&self) -> Result<Credential, Denied> {
        let (Self::Http(headers) | Self::Browser { headers, .. } | Self::Grpc { headers, .. }) = self;
        if let Some(proof) = in_header(headers)? {
            return Ok(Credential::Token(proof));
        }
        match self {
            Self::Grpc { certificate: true, .. } => Ok(Credential::Certificate),
            Self::Browser { uri, headers, tls } => {
                let cookie = in_cookie(headers).ok_or(Denied::Missing)?;
                if !own_origin(uri, headers, *tls) {
                    return Err(Denied::CrossSite);
                }
                let cookie = HeaderValue::from_bytes(&cookie).map_err(|_| Denied::Invalid)?;
                Proof::read(cookie).map(Credential::Token)
            }
            Self::Http(_) | Self::Grpc { .. } => Err(Denied::Missing),
        }
    }
}

/// The token in `Authorization`. Several are none: servers differ in which they believe.
fn in_header(headers: &HeaderMap) -> Result<Option<Proof>, Denied> {
    let mut values = headers.get_all(AUTHORIZATION).iter().filter(|value| !value.is_empty());
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => Proof::read(value.clone()).map(Some),
        (Some(_), Some(_)) => Err(Denied::Invalid),
    }
}

/// The value of the first cookie `authorization` that is not empty, unescaped as a query is.
fn in_cookie(headers: &HeaderMap) -> Option<Vec<u8>> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    let values = pairs.filter_map(|pair| pair.trim_ascii().strip_prefix(b"authorization="));
    let value = values.map(|value| value.trim_ascii()).find(|value| !value.is_empty())?;
    let plain = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    let spaced: Vec<u8> = plain.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Some(percent_decode(&spaced).collect())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    fn outcome(caller: &Caller<'_>) -> Result<&'static str, Denied> {
        caller.credential().map(|credential| match credential {
            Credential::Certificate => "certificate",
            Credential::Token(proof) if proof.token() == b"a token+" && proof.digest() == Digest::of(b"a token+") => {
                "the token"
            }
            Credential::Token(_) => "another token",
        })
    }

    fn http(pairs: &[(&'static str, &str)]) -> Result<&'static str, Denied> {
        outcome(&Caller::Http(&headers(pairs)))
    }

    #[test]
    fn a_bearer_in_any_case_or_the_token_alone() {
        for value in ["Bearer a token+", "bearer a token+", "BEARER   a token+", "a token+", "  a token+  "] {
            assert_eq!(http(&[("authorization", value)]), Ok("the token"), "{value}");
        }
        assert_eq!(http(&[("authorization", "bearera token+")]), Ok("another token"));
        assert_eq!(http(&[("authorization", "Basic a token+")]), Ok("another token"));
        for nothing in ["Bearer", "bearer   "] {
            assert_eq!(http(&[("authorization", nothing)]), Err(Denied::Invalid), "{nothing}");
        }
        assert_eq!(http(&[("authorization", "")]), Err(Denied::Missing));
        assert_eq!(http(&[]), Err(Denied::Missing));
        let twice = [("authorization", "a token+"), ("authorization", "a token+")];
        let mut both = headers(&twice[..1]);
        both.append(AUTHORIZATION, HeaderValue::from_static("a token+"));
        assert_eq!(outcome(&Caller::Http(&both)), Err(Denied::Invalid));
    }

    #[test]
    fn what_was_sent_is_kept_as_it_was_and_not_shown() {
        let sent = headers(&[("authorization", "  BEARER  a token+ ")]);
        let Ok(Credential::Token(proof)) = Caller::Http(&sent).credential() else { panic!("a token") };
        assert_eq!((proof.authorization().as_bytes(), proof.token()), (&b"  BEARER  a token+ "[..], &b"a token+"[..]));
        assert_eq!(format!("{:?}", proof.authorization()), "Sensitive");
    }

    #[test]
    fn a_token_has_16_kib_at_most() {
        let at = |len: usize| http(&[("authorization", &format!("Bearer {}", "x".repeat(len)))]);
        assert_eq!(at(MAX_TOKEN_BYTES), Ok("another token"));
        assert_eq!(at(MAX_TOKEN_BYTES + 1), Err(Denied::Invalid));
    }

    #[test]
    fn a_cookie_counts_for_a_websocket_of_its_own_origin_only() {
        let cookie = "x=1; authorization=bearer+a%20token%2B";
        let with = |more: &[(&'static str, &str)]| {
            let headers = headers(&[&[("host", "logs.example"), ("cookie", cookie)], more].concat());
            outcome(&Caller::Browser { uri: &"/firehose/x".parse().unwrap(), headers: &headers, tls: true })
        };
        assert_eq!(with(&[]), Ok("the token"));
        assert_eq!(with(&[("origin", "https://logs.example")]), Ok("the token"));
        for origin in ["https://evil.example", "http://logs.example", "null", "https://logs.example.evil"] {
            assert_eq!(with(&[("origin", origin)]), Err(Denied::CrossSite), "{origin}");
        }
        let header = [("origin", "https://evil.example"), ("authorization", "a token+")];
        assert_eq!(with(&header), Ok("the token"), "no page can send the header");
        assert_eq!(http(&[("cookie", cookie)]), Err(Denied::Missing));
        let other = headers(&[("host", "a"), ("cookie", "xauthorization=a; Authorization=b; authorization=")]);
        let uri = "/".parse().unwrap();
        assert_eq!(outcome(&Caller::Browser { uri: &uri, headers: &other, tls: true }), Err(Denied::Missing));
    }

    #[test]
    fn a_certificate_is_enough_on_grpc_unless_a_token_says_otherwise() {
        let (none, token) = (headers(&[]), headers(&[("authorization", "other")]));
        assert_eq!(outcome(&Caller::Grpc { headers: &none, certificate: true }), Ok("certificate"));
        assert_eq!(outcome(&Caller::Grpc { headers: &token, certificate: true }), Ok("another token"));
        assert_eq!(outcome(&Caller::Grpc { headers: &none, certificate: false }), Err(Denied::Missing));
    }
}
