//! TLS as a client of servers that are not ours: whom to trust and what to show, chosen for each of them.
//!
//! What enters: the paths of an authority file and of a certificate with its key, each optional, or texts in their place.
//! What leaves: a rustls configuration without ALPN, renewed when the files change, and words for what a handshake found wrong. Every value
//! has a trust store of its own: what one trusts, no other does. Never connects.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore,
    SignatureScheme, WantsVerifier,
};
use tokio::sync::watch;

use super::TlsError;
use super::files::{authorities, read, shown};
use crate::cert::{PeerCert, date};

mod named;
mod texts;

pub use texts::{Authorities, ClientTlsTexts};

/// The files of a [`ClientTls`], all PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTlsFiles {
    /// The authorities that a server's certificate must chain to; `None` takes those of the system.
    pub ca: Option<PathBuf>,
    /// What is shown to a server that asks for a certificate; `None` shows nothing.
    pub shown: Option<CertAndKey>,
    /// Takes whatever certificate a server shows, of any authority, name and date; `ca` is not read.
    pub skip_verify: bool,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertAndKey {
    /// The certificate, followed by its intermediates.
    pub cert: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// Whom a client trusts, and what it shows: TLS 1.2 and 1.3 with the suites of the contract's external profile
/// (`syslog-drains.md` §2.2), no ALPN, no resumption.
///
/// Clones change together; each knows for itself which configuration it has used.
#[derive(Clone)]
pub struct ClientTls {
    shared: Arc<Shared>,
    current: watch::Receiver<Loaded>,
}

struct Shared {
    files: ClientTlsFiles,
    /// They are none, but texts, and the paths words for them.
    texts: bool,
    /// What the system trusted when the value was made.
    system: Option<Arc<RootCertStore>>,
    current: watch::Sender<Loaded>,
}

/// What one reading of the files gave.
struct Loaded {
    config: Arc<ClientConfig>,
    /// Whom it trusts; `None` takes any certificate.
    roots: Option<Arc<RootCertStore>>,
    not_after: Option<SystemTime>,
    stamps: Vec<Stamp>,
}

/// Tells one state of a file from another: device, inode, length and time of the last change. `None`: no such file.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// Why a [`ClientTls`] cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] TlsError),
    /// No authority file is named, and the system has none.
    #[error("this system has no certificate authorities ({0}); name a PEM file of those to trust as `ca`")]
    NoSystemAuthorities(String),
}

impl ClientTls {
    /// Reads and checks the files.
    ///
    /// # Errors
    ///
    /// A file is missing, is not PEM or lacks what it should hold; the key is not the certificate's; the certificate
    /// has expired or is not valid yet; no authorities are named and the system has none.
    pub fn load(files: ClientTlsFiles) -> Result<Self, ClientTlsError> {
        let system =
            if files.ca.is_none() && !files.skip_verify { Some(Arc::new(system_authorities()?)) } else { None };
        let (sender, current) = watch::channel(Loaded::read(&files, system.as_ref(), SystemTime::now())?);
        Ok(Self { shared: Arc::new(Shared { files, texts: false, system, current: sender }), current })
    }

    /// The newest configuration. Take it anew for each connection.
    pub fn config(&mut self) -> Arc<ClientConfig> {
        Arc::clone(&self.current.borrow_and_update().config)
    }

    /// Whether it was read from files, which may change.
    pub fn has_files(&self) -> bool {
        !self.shared.texts
    }

    /// When the certificate that is shown ends, to the second. `None` when none is shown, or rustls cannot tell.
    pub fn not_after(&self) -> Option<SystemTime> {
        self.current.borrow().not_after
    }

    /// Reads the files again if one of them changed since they were last read with success; `true` when that gave a new
    /// configuration. The system's authorities are not read again. On an error the old configuration stays. What was made from texts
    /// never changes.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn reload(&self) -> Result<bool, ClientTlsError> {
        if self.shared.texts || self.shared.files.stamps() == self.shared.current.borrow().stamps {
            return Ok(false);
        }
        let loaded = Loaded::read(&self.shared.files, self.shared.system.as_ref(), SystemTime::now())?;
        self.shared.current.send_replace(loaded);
        Ok(true)
    }

    /// Waits until there is a newer configuration than [`config`](Self::config) last gave.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no change is missed.
    pub async fn changed(&mut self) {
        // The sender lives as long as this value: an error cannot come.
        let _ = self.current.changed().await;
    }

    /// What a TLS error says about the server, or about us, and what to do.
    pub fn explain(&self, error: &rustls::Error) -> String {
        use CertificateError as Fault;
        match error {
            rustls::Error::InvalidCertificate(fault) => match fault {
                Fault::ExpiredContext { not_after, .. } => {
                    format!("the server's certificate expired at {}", rfc3339(*not_after))
                }
                Fault::NotValidYetContext { not_before, .. } => format!(
                    "the server's certificate is not valid before {}; check this machine's clock",
                    rfc3339(*not_before)
                ),
                Fault::NotValidForNameContext { expected, presented } => {
                    let names: Vec<_> = presented.iter().take(8).map(|name| bare(name)).collect();
                    let names = if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") };
                    let more = if presented.len() > 8 { " and others" } else { "" };
                    format!("the server's certificate is not for {}, but for {names}{more}", expected.to_str())
                }
                // The latter: an authority has the right name, and did not sign it.
                Fault::UnknownIssuer | Fault::BadSignature => {
                    let trusted = match &self.shared.files.ca {
                        Some(ca) if self.shared.texts => {
                            format!("in the ca {} or that this process trusts", ca.display())
                        }
                        Some(ca) => format!("in {}", ca.display()),
                        None => "that this system trusts".to_owned(),
                    };
                    format!("the server's certificate is of no authority {trusted}")
                }
                _ => format!("the server's certificate cannot be used: {error}"),
            },
            rustls::Error::AlertReceived(alert) => self.explain_alert(*alert),
            rustls::Error::InvalidMessage(_) => "the server does not speak TLS".to_owned(),
            error => format!("TLS failed: {error}"),
        }
    }

    fn explain_alert(&self, alert: AlertDescription) -> String {
        use AlertDescription as Alert;
        let refuses = match (&self.shared.files.shown, alert) {
            (None, Alert::CertificateRequired | Alert::HandshakeFailure | Alert::BadCertificate) => {
                "the server wants to see a certificate, and none is configured".to_owned()
            }
            (
                Some(shown),
                Alert::UnknownCA
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::CertificateRequired
                | Alert::AccessDenied
                | Alert::DecryptError
                | Alert::HandshakeFailure,
            ) => format!("the server does not take our certificate {}", shown.cert.display()),
            _ => "the server ended the connection".to_owned(),
        };
        format!("{refuses} (alert {alert:?})")
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("files", &self.shared.files)
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

impl ClientTlsFiles {
    /// Taken before the files are read: what changes in between is seen at the next look.
    fn stamps(&self) -> Vec<Stamp> {
        let ca = if self.skip_verify { None } else { self.ca.as_deref() };
        let shown = self.shown.iter().flat_map(|shown| [shown.cert.as_path(), shown.key.as_path()]);
        ca.into_iter().chain(shown).map(stamp).collect()
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec()))
}

impl Loaded {
    fn read(
        files: &ClientTlsFiles,
        system: Option<&Arc<RootCertStore>>,
        now: SystemTime,
    ) -> Result<Self, ClientTlsError> {
        let stamps = files.stamps();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = builder(&provider);
        let (builder, roots) = if files.skip_verify {
            let any = Arc::new(TakeAny(Arc::clone(&provider)));
            (builder.dangerous().with_custom_certificate_verifier(any), None)
        } else {
            let roots = match (&files.ca, system) {
                (Some(ca), _) => Arc::new(authorities(ca, &read("ca", ca)?)?),
                (None, Some(system)) => Arc::clone(system),
                (None, None) => Arc::new(system_authorities()?),
            };
            (builder.with_root_certificates(Arc::clone(&roots)), Some(roots))
        };
        let pair = files.shown.as_ref().map(|CertAndKey { cert, key }| {
            let (chain, private) = (read("cert", cert)?, read("key", key)?);
            shown((cert, &chain), (key, &private), &provider, now)
        });
        Ok(Self::new(builder, roots, pair.transpose()?, stamps))
    }

    fn new(
        builder: ConfigBuilder<ClientConfig, WantsClientCert>,
        roots: Option<Arc<RootCertStore>>,
        shown: Option<(CertifiedKey, PeerCert)>,
        stamps: Vec<Stamp>,
    ) -> Self {
        let (mut config, not_after) = match shown {
            None => (builder.with_no_client_auth(), None),
            Some((certified, parsed)) => {
                let resolver = Arc::new(SingleCertAndKey::from(certified));
                (builder.with_client_cert_resolver(resolver), Some(parsed.not_after()))
            }
        };
        // Connections are few and long. A resumed one would be checked against dates and authorities of the past.
        config.resumption = Resumption::disabled();
        Self { config: Arc::new(config), roots, not_after, stamps }
    }
}

fn builder(provider: &Arc<CryptoProvider>) -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for both versions")
}

fn system_authorities() -> Result<RootCertStore, ClientTlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map_or_else(|| "none was found".to_owned(), ToString::to_string);
    Err(ClientTlsError::NoSystemAuthorities(why))
}

fn rfc3339(at: UnixTime) -> String {
    date(UNIX_EPOCH + Duration::from_secs(at.as_secs()))
}

/// The name in rustls's `DnsName("a.example")` and its like. Whatever else is in it is written out.
fn bare(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"').escape_debug().to_string()
}

/// Checks that the server holds the key of the certificate that it shows, and nothing about the certificate.
#[derive(Debug)]
struct TakeAny(Arc<CryptoProvider>);

impl ServerCertVerifier for TakeAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
