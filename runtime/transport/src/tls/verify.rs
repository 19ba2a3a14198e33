//! Verifiers that ask rustls' own and remember the certificate they were shown.
//!
//! A refusal of rustls does not say whose certificate it refused. What was seen is kept with the task that shakes
//! hands, in [`watched`], so that handshakes side by side share nothing. No answer, and so no alert, is changed.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::cert::PeerCert;

tokio::task_local! {
    /// The certificate that the peer of this handshake showed first in its chain.
    static SHOWN: RefCell<Option<PeerCert>>;
}

/// Runs a handshake; returns also the certificate that the peer showed, verified or not.
pub(crate) async fn watched<F: Future>(handshake: F) -> (F::Output, Option<PeerCert>) {
    let watch = async move {
        let output = handshake.await;
        (output, SHOWN.with(RefCell::take))
    };
    SHOWN.scope(RefCell::default(), watch).await
}

fn remember(certificate: &CertificateDer<'_>) {
    // Outside of `watched` nobody asks.
    let _ = SHOWN.try_with(|shown| *shown.borrow_mut() = PeerCert::parse(certificate).ok());
}

/// Of a client: verifies servers.
#[derive(Debug)]
pub(super) struct Remembering(pub(super) Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Remembering {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        remember(end_entity);
        self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Of a server: verifies clients.
#[derive(Debug)]
pub(super) struct RememberingClients(pub(super) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for RememberingClients {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        remember(end_entity);
        self.0.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
