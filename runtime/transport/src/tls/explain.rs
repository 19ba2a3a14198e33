//! Why a handshake failed, in words: whose certificate, which file, which date.
//!
//! What enters: rustls' error, the certificate that the peer showed, our identity. What leaves: one line. Pure.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

use super::Identity;
use crate::cert::{PeerCert, date};

/// What a client said first on a TLS port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hello {
    /// It closed the connection without a word, as a probe of the port does.
    Nothing,
    /// A TLS record.
    Tls,
    /// The preface of plain HTTP/2.
    Http2,
    /// The first letters of a plain HTTP/1 request.
    Http1,
    /// Something else.
    Unknown,
}

impl Hello {
    /// Judges by the first bytes, four if there are as many.
    pub(crate) fn of(first: &[u8]) -> Self {
        match first {
            [] => Self::Nothing,
            [0x16, ..] => Self::Tls,
            _ if first.starts_with(b"PRI ") => Self::Http2,
            _ if first.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b' ') => Self::Http1,
            _ => Self::Unknown,
        }
    }
}

/// On our port: why a client was not let in. `shown` is its certificate, verified or not.
/// `ours` is ours where it is asked for one.
pub(crate) fn why_client_failed(
    error: &io::Error,
    hello: Hello,
    shown: Option<&PeerCert>,
    ours: Option<&Identity>,
) -> String {
    match (hello, rustls_error(error)) {
        (Hello::Nothing, _) => "it closed the connection before it said anything".to_owned(),
        (Hello::Http2, _) => "plain text on a TLS port: gRPC without TLS; give the client certificates".to_owned(),
        (Hello::Http1, _) => "plain text on a TLS port: an HTTP request without TLS".to_owned(),
        (Hello::Unknown, _) => "neither TLS nor HTTP: not a client of this port".to_owned(),
        (Hello::Tls, Some(error)) => match (error, ours) {
            (Error::NoCertificatesPresented, Some(ours)) => format!(
                "it showed no certificate; it needs one that is signed by an authority of {}",
                ours.files().ca.display()
            ),
            (error, Some(ours)) => words(error, "the client", "clients", shown, ours),
            (error, None) => format!("the TLS handshake failed: {error}"),
        },
        (Hello::Tls, None) => with_certificate(format!("it broke off the handshake: {error}"), shown),
    }
}

/// On a connection of ours: why we do not speak to the server, or it not to us.
pub(super) fn why_server_failed(error: &io::Error, shown: Option<&PeerCert>, ours: &Identity) -> String {
    match rustls_error(error) {
        Some(Error::InvalidMessage(_)) => {
            "the server does not speak TLS: its answer is no TLS; give the server certificates, or leave TLS out here"
                .to_owned()
        }
        Some(error) => words(error, "the server", "servers", shown, ours),
        None => without_tls_error(error),
    }
}

/// Why a handshake failed that TLS itself found no fault with.
pub(super) fn without_tls_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "the server closed the connection during the TLS handshake; it does not speak TLS, or is stopping"
                .to_owned()
        }
        _ => format!("the TLS handshake failed: {error}"),
    }
}

/// After our side of the handshake: a server that speaks TLS 1.3 judges our certificate only then. `None` for an error
/// that says nothing about it.
pub(super) fn refused_later(error: &io::Error, ours: &Identity) -> Option<String> {
    match rustls_error(error)? {
        Error::AlertReceived(alert) => Some(refused(*alert, ours)),
        _ => None,
    }
}

pub(super) fn rustls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

fn words(error: &Error, peer: &str, kind: &str, shown: Option<&PeerCert>, ours: &Identity) -> String {
    match error {
        Error::InvalidCertificate(found) => {
            let by_whom = matches!(found, CertificateError::UnknownIssuer | CertificateError::BadSignature);
            let whose = match shown {
                Some(cert) if by_whom => format!(" {}, issued by {},", cert.subject(), cert.issuer()),
                Some(cert) => format!(" {}", cert.subject()),
                None => String::new(),
            };
            format!("{peer}'s certificate{whose} {}", fault(found, kind, shown, ours))
        }
        Error::AlertReceived(alert) => refused(*alert, ours),
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => {
            format!("{peer} and we have no TLS version, cipher or protocol in common: {error}")
        }
        _ => with_certificate(format!("the TLS handshake failed: {error}"), shown),
    }
}

/// What is wrong with a certificate, as the end of a sentence that begins with it.
fn fault(found: &CertificateError, kind: &str, shown: Option<&PeerCert>, ours: &Identity) -> String {
    use CertificateError as Fault;
    let ca = ours.files().ca.display();
    let end = shown.map(|cert| format!(" at {}", date(cert.not_after()))).unwrap_or_default();
    let begin = shown.map(|cert| format!(" before {}", date(cert.not_before()))).unwrap_or_default();
    match found {
        Fault::Expired | Fault::ExpiredContext { .. } => format!("expired{end}; it must be renewed"),
        Fault::NotValidYet | Fault::NotValidYetContext { .. } => {
            format!("is not valid{begin}; check the clocks of both machines")
        }
        Fault::UnknownIssuer => format!("is not signed by an authority of {ca}"),
        Fault::BadSignature => {
            format!("is not signed by an authority of {ca}: one there has that name, and another key")
        }
        Fault::NotValidForNameContext { expected, .. } => {
            format!("is not for the name {}; its names are {}", expected.to_str(), names(shown))
        }
        Fault::InvalidPurpose | Fault::InvalidPurposeContext { .. } => {
            format!("is not made for {kind}: its extended key usage says so")
        }
        other => format!("cannot be used: {}", Error::InvalidCertificate(other.clone())),
    }
}

fn names(shown: Option<&PeerCert>) -> String {
    let Some(cert) = shown else { return "unknown".to_owned() };
    let alternative = cert.names().iter().map(|name| name.escape_debug().to_string());
    let all: Vec<String> = alternative.chain(cert.addresses().iter().map(ToString::to_string)).take(10).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

/// What an alert of the peer says of our certificate.
fn refused(alert: AlertDescription, ours: &Identity) -> String {
    use AlertDescription as Alert;
    let why = match alert {
        Alert::CertificateExpired => "it is not valid at this time, says its clock",
        Alert::UnknownCA => "it is not signed by an authority that the peer trusts",
        Alert::CertificateRequired | Alert::NoCertificate => "it asks for one, and got none",
        Alert::BadCertificate => "it lacks the name that the peer checks for, or is damaged",
        Alert::CertificateRevoked => "it has been revoked",
        Alert::CertificateUnknown | Alert::UnsupportedCertificate | Alert::AccessDenied | Alert::DecryptError => {
            "it is not acceptable there"
        }
        Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity => {
            return "the peer and we have no TLS version or cipher in common".to_owned();
        }
        other => return format!("the peer ended the handshake with the TLS alert {other:?}"),
    };
    let cert = ours.certificate();
    let (file, ends) = (ours.files().cert.display(), date(cert.not_after()));
    format!("the peer refused our certificate {file} ({}, ends {ends}): {why}", cert.subject())
}

fn with_certificate(text: String, shown: Option<&PeerCert>) -> String {
    match shown {
        Some(cert) => format!("{text}; its certificate is {}", cert.subject()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_first_tells_who_it_is() {
        let preface = b"PRI ";
        assert_eq!(Hello::of(b""), Hello::Nothing);
        assert_eq!(Hello::of(&[0x16, 3, 1, 2]), Hello::Tls);
        assert_eq!(Hello::of(preface), Hello::Http2);
        for request in [&b"GET "[..], b"POST", b"HEAD", b"G"] {
            assert_eq!(Hello::of(request), Hello::Http1);
        }
        assert_eq!(Hello::of(b"<13>"), Hello::Unknown);
    }
}
