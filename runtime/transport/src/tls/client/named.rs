//! A name of its own for the server, for clients that dial by themselves and ask certificates for the host they dial.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::ClientTls;

/// Asks a certificate for this name, whatever was dialled.
#[derive(Debug)]
struct Named {
    inner: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

impl ClientTls {
    /// The newest configuration, for a server whose certificate must carry `name`, whatever host is dialled. In the handshake the server
    /// still hears of that host. Take it anew for each connection.
    ///
    /// # Errors
    /// The authorities cannot be used.
    pub fn config_named(&mut self, name: &ServerName<'static>) -> Result<ClientConfig, rustls::Error> {
        let loaded = self.current.borrow_and_update();
        let mut config = ClientConfig::clone(&loaded.config);
        if let Some(roots) = &loaded.roots {
            let provider = Arc::new(aws_lc_rs::default_provider());
            let inner = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), provider).build();
            let inner = inner.map_err(|error| rustls::Error::General(error.to_string()))?;
            config.dangerous().set_certificate_verifier(Arc::new(Named { inner, name: name.clone() }));
        }
        Ok(config)
    }
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.inner.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
