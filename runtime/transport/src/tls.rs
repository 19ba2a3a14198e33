//! TLS identity: three PEM files go in, rustls configurations come out.
//!
//! Every check that can fail is made when the files are loaded, before anything listens, and each error names the file
//! and what would be right. The configurations sit behind an [`ArcSwap`], read once per handshake, so that new files can
//! take the place of old ones while the process runs. Never looks at a peer's name: a server verifies the chain of its
//! clients and nothing more (contract `loggregator-v2.md` §9.2).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};

mod https;

pub use https::{ServerFiles, ServerIdentity};

/// The files of one identity, all three PEM and all three needed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate this process shows, followed by its intermediates. Its names must stand in the subject
    /// alternative name extension: a common name alone is not read.
    pub cert: PathBuf,
    /// The private key of `cert`: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// The authorities that a peer's certificate must chain to; one or more certificates.
    pub ca: PathBuf,
}

/// A certificate, its key and the authorities it trusts, ready to serve and to connect.
///
/// Cloning costs one reference count; all clones change together.
#[derive(Clone)]
pub struct Identity {
    current: Arc<ArcSwap<Loaded>>,
}

/// What one reading of the three files gave.
struct Loaded {
    mutual: Arc<ServerConfig>,
    optional: Arc<ServerConfig>,
    https: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    not_after: Option<SystemTime>,
}

/// Why an identity could not be loaded. Each text names the file and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file is missing or may not be read.
    #[error("{what} {path}: {source}; it must be a PEM file that this process may read", path = path.display())]
    Read {
        /// Which of the three files, as its configuration key.
        what: &'static str,
        /// The path as configured.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is there, but is not well-formed PEM.
    #[error("{what} {path} is not PEM: {source}", path = path.display())]
    Pem {
        /// Which of the three files, as its configuration key.
        what: &'static str,
        /// The path as configured.
        path: PathBuf,
        /// What the PEM reader said.
        source: pem::Error,
    },
    /// The file has no certificate section.
    #[error("{what} {path} holds no certificate; it needs a -----BEGIN CERTIFICATE----- section", path = path.display())]
    NoCertificate {
        /// Which of the three files, as its configuration key.
        what: &'static str,
        /// The path as configured.
        path: PathBuf,
    },
    /// The file has no private key section.
    #[error("key {path} holds no private key; it needs a -----BEGIN PRIVATE KEY----- section (PKCS#8, PKCS#1 or SEC1)", path = path.display())]
    NoKey {
        /// The path as configured.
        path: PathBuf,
    },
    /// A certificate cannot be parsed.
    #[error("{what} {path} holds a certificate that cannot be used: {source}", path = path.display())]
    BadCertificate {
        /// Which of the three files, as its configuration key.
        what: &'static str,
        /// The path as configured.
        path: PathBuf,
        /// What rustls said.
        source: rustls::Error,
    },
    /// The private key cannot be parsed or is of an unknown kind.
    #[error("key {path} cannot be used: {source}", path = path.display())]
    BadKey {
        /// The path as configured.
        path: PathBuf,
        /// What rustls said.
        source: rustls::Error,
    },
    /// The key does not belong to the certificate.
    #[error("key {key} does not belong to cert {cert}; both must come from the same request", key = key.display(), cert = cert.display())]
    KeyMismatch {
        /// The certificate's path as configured.
        cert: PathBuf,
        /// The key's path as configured.
        key: PathBuf,
    },
    /// The certificate's time is over.
    #[error("cert {path} expired at {not_after}; it must be renewed", path = path.display())]
    Expired {
        /// The path as configured.
        path: PathBuf,
        /// End of validity, RFC 3339.
        not_after: String,
    },
    /// The certificate's time has not begun.
    #[error("cert {path} is not valid before {not_before}; check this machine's clock", path = path.display())]
    NotYetValid {
        /// The path as configured.
        path: PathBuf,
        /// Start of validity, RFC 3339.
        not_before: String,
    },
}

/// Makes aws-lc-rs the process's TLS provider. Calling it again changes nothing.
///
/// First thing in `main`, so that libraries which ask rustls for the process's default find one.
pub fn install_crypto_provider() {
    // An error says that a provider is there already, which is what was wanted.
    let _ = aws_lc_rs::default_provider().install_default();
}

impl Identity {
    /// Reads and checks the three files.
    ///
    /// # Errors
    ///
    /// A file is missing, is not PEM or lacks what it should hold; the key is not the certificate's; the certificate
    /// has expired or is not valid yet.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let loaded = Loaded::read(files, SystemTime::now())?;
        Ok(Self { current: Arc::new(ArcSwap::from_pointee(loaded)) })
    }

    /// The configuration of a gRPC server: TLS 1.2 and 1.3, a client certificate of our authorities required, ALPN `h2`.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().mutual)
    }

    /// The same, but a client may show no certificate: for a port that asks those for a token.
    pub fn optional_client_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().optional)
    }

    /// The configuration of an HTTPS server: no client certificate asked for, ALPN `h2` and `http/1.1`.
    pub fn https_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().https)
    }

    /// The configuration of a gRPC client: shows our certificate, checks the server's chain and name, ALPN `h2`.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.current.load().client)
    }

    /// When the certificate ends, to the second. `None` when rustls cannot tell.
    pub fn not_after(&self) -> Option<SystemTime> {
        self.current.load().not_after
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("not_after", &self.not_after()).finish_non_exhaustive()
    }
}

impl Loaded {
    fn read(files: &TlsFiles, now: SystemTime) -> Result<Self, TlsError> {
        let provider = Arc::new(provider());
        let chain = certificates("cert", &files.cert)?;
        let key = private_key(&files.key)?;
        let roots = Arc::new(authorities(&files.ca)?);
        let certified = Arc::new(certified(files, chain, key, &provider)?);
        let not_after = check_validity(files, &certified, &roots, &provider, now)?;

        let bad_ca = |source| TlsError::BadCertificate { what: "ca", path: files.ca.clone(), source };
        let bad_roots = |error: rustls::server::VerifierBuilderError| bad_ca(rustls::Error::General(error.to_string()));
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let lenient = verifier.clone().allow_unauthenticated().build().map_err(bad_roots)?;
        let verifier = verifier.build().map_err(bad_roots)?;
        let resolver = Arc::new(SingleCertAndKey::from(Arc::clone(&certified)));

        let mut mutual = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(bad_ca)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(resolver.clone());
        mutual.alpn_protocols = vec![b"h2".to_vec()];

        let mut optional = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(bad_ca)?
            .with_client_cert_verifier(lenient)
            .with_cert_resolver(resolver.clone());
        optional.alpn_protocols = vec![b"h2".to_vec()];

        let mut https = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(bad_ca)?
            .with_no_client_auth()
            .with_cert_resolver(resolver.clone());
        https.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];

        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(bad_ca)?
            .with_root_certificates(roots)
            .with_client_cert_resolver(resolver);
        client.alpn_protocols = vec![b"h2".to_vec()];

        let (mutual, optional, https) = (Arc::new(mutual), Arc::new(optional), Arc::new(https));
        Ok(Self { mutual, optional, https, client: Arc::new(client), not_after })
    }
}

/// aws-lc-rs with the cipher suites of the contract (§9.2): every TLS 1.3 suite, and in TLS 1.2 ECDHE with AES-GCM
/// only. ECDSA is our addition, for certificates that are not RSA.
fn provider() -> CryptoProvider {
    use aws_lc_rs::cipher_suite as suite;
    CryptoProvider {
        cipher_suites: vec![
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS13_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        ],
        ..aws_lc_rs::default_provider()
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { what, path: path.to_owned(), source })
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(&read(what, path)?)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { what, path: path.to_owned(), source })?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate { what, path: path.to_owned() });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read("key", path)?).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey { path: path.to_owned() },
        source => TlsError::Pem { what: "key", path: path.to_owned(), source },
    })
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca", path)? {
        roots.add(certificate).map_err(|source| TlsError::BadCertificate {
            what: "ca",
            path: path.to_owned(),
            source,
        })?;
    }
    Ok(roots)
}

fn certified(
    files: &TlsFiles,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let signer = provider
        .key_provider
        .load_private_key(key)
        .map_err(|source| TlsError::BadKey { path: files.key.clone(), source })?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::KeyMismatch { cert: files.cert.clone(), key: files.key.clone() })
        }
        Err(source) => Err(TlsError::BadCertificate { what: "cert", path: files.cert.clone(), source }),
    }
}

/// Refuses a certificate whose time is over or has not begun, and returns the end of its validity.
///
/// rustls has no accessor for validity, but its verifier looks at the leaf's dates before anything else and names them
/// in its error. So we ask twice: about `now`, and about a moment after every possible end.
fn check_validity(
    files: &TlsFiles,
    certified: &CertifiedKey,
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
    now: SystemTime,
) -> Result<Option<SystemTime>, TlsError> {
    let Ok(verifier) = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider)).build()
    else {
        return Ok(None);
    };
    let name = ServerName::try_from("localhost").expect("a valid DNS name");
    let (leaf, intermediates) = certified.cert.split_first().expect("certificates() returned at least one");
    let ask = |at: UnixTime| match verifier.verify_server_cert(leaf, intermediates, &name, &[], at) {
        Err(rustls::Error::InvalidCertificate(error)) => Some(error),
        // Other findings (an authority we do not know, another name) are for the peers to judge.
        _ => None,
    };
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    match ask(UnixTime::since_unix_epoch(since_epoch)) {
        Some(CertificateError::ExpiredContext { not_after, .. }) => {
            return Err(TlsError::Expired { path: files.cert.clone(), not_after: rfc3339(not_after) });
        }
        Some(CertificateError::NotValidYetContext { not_before, .. }) => {
            return Err(TlsError::NotYetValid { path: files.cert.clone(), not_before: rfc3339(not_before) });
        }
        Some(CertificateError::BadEncoding) => {
            let source = rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
            return Err(TlsError::BadCertificate { what: "cert", path: files.cert.clone(), source });
        }
        _ => {}
    }
    // 9999-12-31T23:59:59Z is the largest date of X.509 (RFC 5280 §4.1.2.5); one second later nothing is valid.
    match ask(UnixTime::since_unix_epoch(Duration::from_secs(253_402_300_800))) {
        Some(CertificateError::ExpiredContext { not_after, .. }) => Ok(Some(system_time(not_after))),
        _ => Ok(None),
    }
}

fn system_time(at: UnixTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(at.as_secs())
}

fn rfc3339(at: UnixTime) -> String {
    humantime::format_rfc3339_seconds(system_time(at)).to_string()
}

#[cfg(test)]
mod tests;
