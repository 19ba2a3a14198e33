//! TLS identity: three PEM files go in, rustls configurations come out.
//!
//! Every check that can fail is made when the files are loaded, before anything listens, and each error names the file
//! and what would be right. The configurations sit behind an [`ArcSwap`], read once per handshake, so that new files can
//! take the place of old ones while the process runs. Never looks at a peer's name: a server verifies the chain of its
//! clients and nothing more (contract `loggregator-v2.md` §9.2).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ServerConfig};

use crate::cert::PeerCert;

mod client;
mod credentials;
mod explain;
mod files;
mod https;
mod verify;
mod watch;

pub use client::{Authorities, CertAndKey, ClientTls, ClientTlsError, ClientTlsFiles, ClientTlsTexts};
pub use credentials::Credentials;
pub(crate) use explain::{Hello, why_client_failed};
pub use files::{TlsError, TlsFiles};
pub use https::{ServerFiles, ServerIdentity};
pub(crate) use verify::watched;

use files::{Contents, Parsed};
use verify::{Remembering, RememberingClients};

/// A certificate, its key and the authorities it trusts, ready to serve and to connect.
///
/// Cloning costs one reference count; all clones change together.
#[derive(Clone)]
pub struct Identity {
    shared: Arc<Shared>,
}

struct Shared {
    files: TlsFiles,
    current: ArcSwap<Loaded>,
    reloads: AtomicU64,
    reload_failed: AtomicBool,
}

/// What one reading of the three files gave.
struct Loaded {
    contents: Contents,
    cert: PeerCert,
    mutual: Arc<ServerConfig>,
    optional: Arc<ServerConfig>,
    https: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
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
        let loaded = Loaded::new(files, Contents::read(files)?, SystemTime::now())?;
        let shared = Shared {
            files: files.clone(),
            current: ArcSwap::from_pointee(loaded),
            reloads: AtomicU64::new(0),
            reload_failed: AtomicBool::new(false),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Reads the files again and uses them from the next handshake on. True when they had changed.
    ///
    /// Connections that are up stay as they are. Blocks while it reads three small files.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load); what was in use stays in use.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let outcome = self.try_reload();
        self.shared.reload_failed.store(outcome.is_err(), Ordering::Relaxed);
        if let Ok(true) = outcome {
            self.shared.reloads.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    fn try_reload(&self) -> Result<bool, TlsError> {
        let Shared { files, current, .. } = &*self.shared;
        let contents = Contents::read(files)?;
        if contents == current.load().contents {
            return Ok(false);
        }
        current.store(Arc::new(Loaded::new(files, contents, SystemTime::now())?));
        Ok(true)
    }

    /// The configuration of a gRPC server: TLS 1.2 and 1.3, a client certificate of our authorities required, ALPN `h2`.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.shared.current.load().mutual)
    }

    /// The same, but a client may show no certificate: for a port that asks those for a token.
    pub fn optional_client_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.shared.current.load().optional)
    }

    /// The configuration of an HTTPS server: no client certificate asked for, ALPN `h2` and `http/1.1`.
    pub fn https_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.shared.current.load().https)
    }

    /// The configuration of a gRPC client: shows our certificate, checks the server's chain and name, ALPN `h2`.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.shared.current.load().client)
    }

    /// Where the files are.
    pub fn files(&self) -> &TlsFiles {
        &self.shared.files
    }

    /// The certificate in use.
    pub fn certificate(&self) -> PeerCert {
        self.shared.current.load().cert.clone()
    }

    /// When the certificate ends, to the second.
    pub fn not_after(&self) -> SystemTime {
        self.shared.current.load().cert.not_after()
    }

    /// How often new files have taken the place of old ones.
    pub fn reloads(&self) -> u64 {
        self.shared.reloads.load(Ordering::Relaxed)
    }

    /// Whether the files, as last read, cannot be used, so that older ones are in use.
    pub fn reload_failed(&self) -> bool {
        self.shared.reload_failed.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let loaded = self.shared.current.load();
        f.debug_struct("Identity")
            .field("files", &self.shared.files)
            .field("subject", &loaded.cert.subject())
            .field("not_after", &loaded.cert.not_after())
            .finish_non_exhaustive()
    }
}

impl Loaded {
    fn new(files: &TlsFiles, contents: Contents, now: SystemTime) -> Result<Self, TlsError> {
        let provider = Arc::new(provider());
        let Parsed { certified, roots, cert } = contents.parse(files, &provider, now)?;
        let bad_ca = |source| TlsError::BadCertificate { what: "ca", path: files.ca.clone(), source };
        let no_verifier =
            |error: rustls::client::VerifierBuilderError| bad_ca(rustls::Error::General(error.to_string()));
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let lenient = clients.clone().allow_unauthenticated().build().map_err(no_verifier)?;
        let clients = clients.build().map_err(no_verifier)?;
        let servers =
            WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build().map_err(no_verifier)?;
        let resolver = Arc::new(SingleCertAndKey::from(certified));

        let mut mutual = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(bad_ca)?
            .with_client_cert_verifier(Arc::new(RememberingClients(clients)))
            .with_cert_resolver(resolver.clone());
        mutual.alpn_protocols = vec![b"h2".to_vec()];
        without_resumption(&mut mutual);

        let mut optional = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(bad_ca)?
            .with_client_cert_verifier(Arc::new(RememberingClients(lenient)))
            .with_cert_resolver(resolver.clone());
        optional.alpn_protocols = vec![b"h2".to_vec()];
        without_resumption(&mut optional);

        let mut https = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(bad_ca)?
            .with_no_client_auth()
            .with_cert_resolver(resolver.clone());
        https.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];

        // "Dangerous" is any verifier but rustls' own; ours asks rustls' own and changes no answer.
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(bad_ca)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Remembering(servers)))
            .with_client_cert_resolver(resolver);
        client.alpn_protocols = vec![b"h2".to_vec()];
        client.resumption = Resumption::disabled();

        let (mutual, optional, https) = (Arc::new(mutual), Arc::new(optional), Arc::new(https));
        Ok(Self { contents, cert, mutual, optional, https, client: Arc::new(client) })
    }
}

/// gRPC connections are few and long. A resumed one would be checked against dates and authorities of the past, and a session that could
/// be resumed keeps its client's certificates in memory.
fn without_resumption(config: &mut ServerConfig) {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
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

#[cfg(test)]
mod tests;
