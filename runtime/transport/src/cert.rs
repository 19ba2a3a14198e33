//! What stands in a certificate: whose it is, its names, its role in hydrant, and its time.
//!
//! What enters: DER bytes, which may be anything. What leaves: a [`PeerCert`] whose texts are fit for a log. Verifies
//! nothing: that is done by rustls before anybody believes what is read here.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};

/// What precedes the role in a URI of the subject alternative names.
const ROLE: &str = "hydrant:role/";

/// Characters of a subject or a name that are shown; a peer writes them.
const SHOWN: usize = 200;

/// What a process is for, as its certificate says in a URI `hydrant:role/<role>` among its subject alternative names.
///
/// Names are not roles: the certificates of an installation of Loggregator have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Takes envelopes from producers and sends them to dopplers.
    Agent,
    /// Routes envelopes.
    Doppler,
    /// Serves consumers.
    TrafficController,
    /// Sends envelopes to other systems.
    Adapters,
    /// Keeps recent envelopes.
    LogCache,
    /// Reads through the traffic controller.
    Consumer,
    /// A person who runs all this.
    Operator,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 7] = [
        Self::Agent,
        Self::Doppler,
        Self::TrafficController,
        Self::Adapters,
        Self::LogCache,
        Self::Consumer,
        Self::Operator,
    ];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Doppler => "doppler",
            Self::TrafficController => "traffic-controller",
            Self::Adapters => "adapters",
            Self::LogCache => "log-cache",
            Self::Consumer => "consumer",
            Self::Operator => "operator",
        }
    }

    /// The URI that gives a certificate this role.
    pub fn uri(self) -> String {
        format!("{ROLE}{self}")
    }

    fn of_uri(uri: &str) -> Option<Self> {
        let role = uri.strip_prefix(ROLE)?;
        Self::ALL.into_iter().find(|known| known.as_str() == role)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A certificate, read. Cheap to keep: a few short texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCert {
    subject: String,
    issuer: String,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    roles: Vec<Role>,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// The bytes are not an X.509 certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an X.509 certificate")]
pub struct NotACertificate;

impl PeerCert {
    /// Reads a DER certificate.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn parse(der: &[u8]) -> Result<Self, NotACertificate> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| NotACertificate)?;
        let common_names = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        let mut cert = Self {
            subject: shown(certificate.subject()),
            issuer: shown(certificate.issuer()),
            names: Vec::new(),
            addresses: Vec::new(),
            roles: Vec::new(),
            not_before: time(certificate.validity().not_before.timestamp()),
            not_after: time(certificate.validity().not_after.timestamp()),
        };
        let alternative = certificate.subject_alternative_name().ok().flatten();
        for name in alternative.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => cert.names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => cert.addresses.extend(address(bytes)),
                GeneralName::URI(uri) => cert.roles.extend(Role::of_uri(uri)),
                _ => {}
            }
        }
        for name in common_names {
            if !cert.names.iter().any(|known| known == name) {
                cert.names.push(name.to_owned());
            }
        }
        if cert.subject.is_empty() {
            cert.subject = cert.names.first().map_or_else(|| "(no subject)".to_owned(), |name| fit(name));
        }
        Ok(cert)
    }

    /// Whose certificate it is, such as `CN=doppler`, without control characters.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Who signed it, or is said to have.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Its DNS names, then its common name if that is another.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether `name` is one of its names. Exactly: a wildcard stands for itself.
    pub fn is_named(&self, name: &str) -> bool {
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// Its addresses.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Its role in hydrant; the first, if it has several.
    pub fn role(&self) -> Option<Role> {
        self.roles.first().copied()
    }

    /// Its roles in hydrant. One, as a rule; none, when it was not made for hydrant.
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// From when on it is valid, to the second.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// Until when it is valid, to the second.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

/// A time as RFC 3339, to the second. Times outside the years 1970 to 9999 are shown as the nearest within.
pub(crate) fn date(at: SystemTime) -> String {
    /// 9999-12-31T23:59:59Z, the largest date of X.509 (RFC 5280 §4.1.2.5).
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).min(LAST);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}

fn time(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let at = if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    at.unwrap_or(UNIX_EPOCH)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn shown(name: &X509Name<'_>) -> String {
    fit(&name.to_string())
}

/// Text of a peer made fit for one line of a log.
fn fit(text: &str) -> String {
    let mut fit: String = text.chars().take(SHOWN).flat_map(escape).collect();
    if text.chars().nth(SHOWN).is_some() {
        fit.push('…');
    }
    fit
}

fn escape(c: char) -> impl Iterator<Item = char> {
    let plain =
        !c.is_control() && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let (as_it_is, escaped) = if plain { (Some(c), None) } else { (None, Some(c.escape_unicode())) };
    as_it_is.into_iter().chain(escaped.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::TestCerts;

    fn parse(files: &crate::TlsFiles) -> PeerCert {
        PeerCert::parse(&CertificateDer::from_pem_file(&files.cert).unwrap()).unwrap()
    }

    #[test]
    fn a_certificate_tells_its_names_role_and_time() {
        let (from, until) = (time(1_000_000_000), time(4_000_000_000));
        let certs = TestCerts::new();
        let cert = parse(&certs.files_valid("doppler", from, until));
        assert_eq!((cert.subject(), cert.issuer()), ("CN=doppler", "CN=hydrant test authority"));
        assert_eq!(cert.names(), ["doppler", "localhost"]);
        assert_eq!(cert.addresses(), [IpAddr::from([127, 0, 0, 1])]);
        assert!(cert.is_named("Doppler") && !cert.is_named("dopple"));
        assert_eq!((cert.not_before(), cert.not_after()), (from, until));
        assert_eq!(cert.role(), None, "a name is not a role");
        for role in Role::ALL {
            assert_eq!(parse(&certs.files_with_role("some-name", role)).role(), Some(role));
        }
    }

    #[test]
    fn a_role_is_taken_from_its_uri_and_nothing_like_it() {
        assert_eq!(Role::of_uri("hydrant:role/traffic-controller"), Some(Role::TrafficController));
        for other in
            ["hydrant:role/", "hydrant:role/Agent", "hydrant:role/agent/", "https://hydrant:role/agent", "agent"]
        {
            assert_eq!(Role::of_uri(other), None, "{other}");
        }
    }

    #[test]
    fn what_a_peer_wrote_cannot_break_a_line() {
        let certs = TestCerts::new();
        let cert = parse(&certs.files_with_subject("x", "evil\n2026 INFO all is well\u{202e}"));
        assert_eq!(cert.subject(), "CN=evil\\u{a}2026 INFO all is well\\u{202e}");
        assert!(fit(&"x".repeat(1_000)).chars().count() == SHOWN + 1);
    }

    #[test]
    fn anything_else_is_no_certificate() {
        assert_eq!(PeerCert::parse(b""), Err(NotACertificate));
        assert_eq!(PeerCert::parse(&[0x30, 0x82, 0xff, 0xff]), Err(NotACertificate));
    }

    #[test]
    fn every_date_can_be_shown() {
        assert_eq!(date(time(-1)), "1970-01-01T00:00:00Z");
        assert_eq!(date(time(1_795_500_000)), "2026-11-24T06:00:00Z");
        assert_eq!(date(time(i64::MAX)), "9999-12-31T23:59:59Z");
        assert_eq!(date(time(253_402_300_800)), "9999-12-31T23:59:59Z");
    }
}
