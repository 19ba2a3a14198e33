//! The three files of an identity: read, taken apart and checked, with an error for each thing that can be wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::cert::{PeerCert, date};

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

/// What the three files held at one moment. Not shown by `Debug`: a key is among them.
#[derive(PartialEq, Eq)]
pub(super) struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
}

/// The three files, taken apart and found to go together.
pub(super) struct Parsed {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) cert: PeerCert,
}

impl Contents {
    pub(super) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self { cert: read("cert", &files.cert)?, key: read("key", &files.key)?, ca: read("ca", &files.ca)? })
    }

    /// Takes the contents apart. `files` is named by errors, `now` must be within the certificate's time.
    pub(super) fn parse(
        &self,
        files: &TlsFiles,
        provider: &CryptoProvider,
        now: SystemTime,
    ) -> Result<Parsed, TlsError> {
        let (certified, cert) = shown((&files.cert, &self.cert), (&files.key, &self.key), provider, now)?;
        let roots = Arc::new(authorities(&files.ca, &self.ca)?);
        Ok(Parsed { certified: Arc::new(certified), roots, cert })
    }
}

/// The bytes of a file.
pub(super) fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { what, path: path.to_owned(), source })
}

/// A certificate and its key, each with the path that errors name: they belong together, and `now` is within the certificate's time.
pub(super) fn shown(
    cert: (&Path, &[u8]),
    key: (&Path, &[u8]),
    provider: &CryptoProvider,
    now: SystemTime,
) -> Result<(CertifiedKey, PeerCert), TlsError> {
    let chain = certificates("cert", cert.0, cert.1)?;
    let certified = certified(cert.0, key.0, chain, private_key(key.0, key.1)?, provider)?;
    let leaf = certified.cert.first().expect("certificates() returned at least one");
    let parsed = PeerCert::parse(leaf).map_err(|error| TlsError::BadCertificate {
        what: "cert",
        path: cert.0.to_owned(),
        source: rustls::Error::General(error.to_string()),
    })?;
    check_validity(cert.0, &parsed, now)?;
    Ok((certified, parsed))
}

fn certificates(what: &'static str, path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { what, path: path.to_owned(), source })?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate { what, path: path.to_owned() });
    }
    Ok(found)
}

fn private_key(path: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey { path: path.to_owned() },
        source => TlsError::Pem { what: "key", path: path.to_owned(), source },
    })
}

pub(super) fn authorities(path: &Path, text: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    add_authorities(&mut roots, path, text)?;
    Ok(roots)
}

pub(super) fn add_authorities(roots: &mut RootCertStore, path: &Path, text: &[u8]) -> Result<(), TlsError> {
    for certificate in certificates("ca", path, text)? {
        roots.add(certificate).map_err(|source| TlsError::BadCertificate {
            what: "ca",
            path: path.to_owned(),
            source,
        })?;
    }
    Ok(())
}

fn certified(
    cert: &Path,
    path: &Path,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let signer = provider
        .key_provider
        .load_private_key(key)
        .map_err(|source| TlsError::BadKey { path: path.to_owned(), source })?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::KeyMismatch { cert: cert.to_owned(), key: path.to_owned() })
        }
        Err(source) => Err(TlsError::BadCertificate { what: "cert", path: cert.to_owned(), source }),
    }
}

/// Refuses a certificate whose time is over or has not begun.
fn check_validity(path: &Path, cert: &PeerCert, now: SystemTime) -> Result<(), TlsError> {
    if now < cert.not_before() {
        return Err(TlsError::NotYetValid { path: path.to_owned(), not_before: date(cert.not_before()) });
    }
    if now > cert.not_after() {
        return Err(TlsError::Expired { path: path.to_owned(), not_after: date(cert.not_after()) });
    }
    Ok(())
}
