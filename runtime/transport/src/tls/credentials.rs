//! What a client shows to a server, and whom it trusts.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;

use super::explain::{refused_later, rustls_error, why_server_failed, without_tls_error};
use super::{ClientTls, Identity};
use crate::cert::PeerCert;

/// What we show to a server, and the authorities that its certificate must come from.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// A certificate.
    Certificate(Identity),
    /// Nothing: the server knows us by something else, such as a token.
    Anonymous(ClientTls),
}

impl From<Identity> for Credentials {
    fn from(identity: Identity) -> Self {
        Self::Certificate(identity)
    }
}

impl From<ClientTls> for Credentials {
    fn from(tls: ClientTls) -> Self {
        Self::Anonymous(tls)
    }
}

impl Credentials {
    /// For one connection that speaks HTTP/2. Take it anew for each.
    pub(crate) fn client_config(&self) -> Arc<ClientConfig> {
        match self {
            Self::Certificate(identity) => identity.client_config(),
            Self::Anonymous(tls) => {
                let mut config = ClientConfig::clone(&tls.clone().config());
                config.alpn_protocols = vec![b"h2".to_vec()];
                Arc::new(config)
            }
        }
    }

    /// Why a handshake failed, in words. `shown` is the server's certificate, verified or not.
    pub(crate) fn why_failed(&self, error: &io::Error, shown: Option<&PeerCert>) -> String {
        match (self, rustls_error(error)) {
            (Self::Certificate(identity), _) => why_server_failed(error, shown, identity),
            (Self::Anonymous(tls), Some(error)) => tls.explain(error),
            (Self::Anonymous(_), None) => without_tls_error(error),
        }
    }

    /// After our side of the handshake: a server that speaks TLS 1.3 judges what we showed only then. `None` for an error that says
    /// nothing about it.
    pub(crate) fn refused_later(&self, error: &io::Error) -> Option<String> {
        match (self, rustls_error(error)) {
            (Self::Certificate(identity), _) => refused_later(error, identity),
            (Self::Anonymous(tls), Some(error @ rustls::Error::AlertReceived(_))) => Some(tls.explain(error)),
            (Self::Anonymous(_), _) => None,
        }
    }
}
