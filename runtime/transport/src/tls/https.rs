//! HTTPS: a certificate and its key, shown to those who show none themselves.
//!
//! What enters: two PEM files. What leaves: a rustls configuration that asks for no client certificate, swapped for a new one when the
//! files have changed and are good. Trusts nobody: who asks is a question for the HTTP layer.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::server::ServerConfig;
use rustls::sign::SingleCertAndKey;

use super::files::{read, shown};
use super::{TlsError, provider};

/// The files of an HTTPS port, both PEM and both needed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServerFiles {
    /// The certificate to show, followed by its intermediates. Its names must stand in the subject alternative name extension.
    pub cert: PathBuf,
    /// The private key of `cert`: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// A certificate and its key, ready to serve HTTPS. Cloning costs one reference count; all clones change together.
#[derive(Clone)]
pub struct ServerIdentity {
    files: Arc<ServerFiles>,
    current: Arc<ArcSwap<Loaded>>,
}

/// What one reading of the files gave.
struct Loaded {
    config: Arc<ServerConfig>,
    one_way: Arc<ServerConfig>,
    not_after: SystemTime,
    contents: [Vec<u8>; 2],
}

impl ServerIdentity {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// A file is missing, is not PEM or lacks what it should hold; the key is not the certificate's; the certificate has expired or
    /// is not valid yet.
    pub fn load(files: &ServerFiles) -> Result<Self, TlsError> {
        let loaded = Loaded::read(files, contents(files)?, SystemTime::now())?;
        Ok(Self { files: Arc::new(files.clone()), current: Arc::new(ArcSwap::from_pointee(loaded)) })
    }

    /// Reads the files again. True when they have changed and serve every handshake from now on. Blocks while it reads.
    ///
    /// # Errors
    /// As [`load`](Self::load); what was loaded before goes on serving.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let contents = contents(&self.files)?;
        if contents == self.current.load().contents {
            return Ok(false);
        }
        let loaded = Loaded::read(&self.files, contents, SystemTime::now())?;
        self.current.store(Arc::new(loaded));
        Ok(true)
    }

    /// The configuration of an HTTPS server: no client certificate asked for, ALPN `h2` and `http/1.1`.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().config)
    }

    /// The configuration of a server that only reads: no client certificate asked for, no ALPN, and nothing sent behind the handshake. A
    /// session ticket that such a client never reads would turn its close into a reset, which takes what it sent last with it.
    pub fn one_way_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().one_way)
    }

    /// When the certificate ends, to the second.
    pub fn not_after(&self) -> SystemTime {
        self.current.load().not_after
    }
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerIdentity").field("not_after", &self.not_after()).finish_non_exhaustive()
    }
}

/// The bytes of both files, to see whether they have changed. Read before they are loaded: of files that change in between, the next
/// look sees that they have.
fn contents(files: &ServerFiles) -> Result<[Vec<u8>; 2], TlsError> {
    Ok([read("cert", &files.cert)?, read("key", &files.key)?])
}

impl Loaded {
    fn read(files: &ServerFiles, contents: [Vec<u8>; 2], now: SystemTime) -> Result<Self, TlsError> {
        let provider = Arc::new(provider());
        let bad = |source| TlsError::BadCertificate { what: "cert", path: files.cert.clone(), source };
        let (certified, cert) = shown((&files.cert, &contents[0]), (&files.key, &contents[1]), &provider, now)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(bad)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        let mut one_way = config.clone();
        super::without_resumption(&mut one_way);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { one_way: Arc::new(one_way), config: Arc::new(config), not_after: cert.not_after(), contents })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{TestCerts, TlsFiles};

    fn files(certs: &TestCerts, name: &str) -> ServerFiles {
        let TlsFiles { cert, key, .. } = certs.files(name);
        ServerFiles { cert, key }
    }

    #[test]
    fn new_files_are_taken_and_bad_ones_change_nothing() {
        let certs = TestCerts::new();
        let own = files(&certs, "web");
        let identity = ServerIdentity::load(&own).unwrap();
        let first = identity.config();
        assert_eq!(first.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert!(!identity.reload().unwrap());
        assert!(Arc::ptr_eq(&first, &identity.config()));

        std::fs::write(&own.cert, "not PEM").unwrap();
        let error = identity.reload().unwrap_err().to_string();
        assert!(error.starts_with("cert ") && error.contains("web.pem"), "{error}");
        assert!(Arc::ptr_eq(&first, &identity.config()));

        let other = files(&certs, "other");
        std::fs::copy(&other.cert, &own.cert).unwrap();
        let error = identity.reload().unwrap_err().to_string();
        assert!(error.contains("does not belong to cert"), "{error}");

        std::fs::copy(&other.key, &own.key).unwrap();
        assert!(identity.reload().unwrap());
        assert!(!Arc::ptr_eq(&first, &identity.config()));
        assert!(!identity.reload().unwrap());
    }

    #[test]
    fn a_certificate_whose_time_is_over_is_refused() {
        let certs = TestCerts::new();
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        let TlsFiles { cert, key, .. } = certs.files_valid("old", now - 2 * hour, now - hour);
        let error = ServerIdentity::load(&ServerFiles { cert, key }).unwrap_err();
        assert!(matches!(error, TlsError::Expired { .. }), "{error}");
        let fresh = ServerIdentity::load(&files(&certs, "new")).unwrap();
        assert!(fresh.not_after() > now);
    }
}
