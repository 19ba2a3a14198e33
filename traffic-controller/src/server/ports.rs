//! What each port asks of those who connect, and what a configuration must not ask for.
//!
//! What enters: a configuration. What leaves: the security of its ports, or why it cannot be served as it is written; and the
//! task that takes a new HTTPS certificate.

use std::net::SocketAddr;

use telemetry::Telemetry;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::{Identity, Security, ServerFiles, ServerIdentity, TlsFiles};

use super::BindError;
use crate::auth::AuthorizerConfig;
use crate::config::{Config, RestConfig};

/// One HTTP port as it is configured.
pub(super) struct HttpPort<'a> {
    listen: (&'static str, SocketAddr),
    tls: (&'static str, Option<&'a ServerFiles>),
    /// The key under which tokens may travel in plain text, and whether they may.
    plaintext: (&'static str, bool),
}

/// What the ports ask of those who connect.
pub(super) struct Ports {
    pub(super) http: Security,
    pub(super) grpc: Security,
    pub(super) gateway: Security,
    pub(super) rest: Security,
}

impl Ports {
    /// The certificates of gRPC, to be looked at for new files.
    pub(super) fn identities(&self) -> Vec<(&'static str, Identity)> {
        match &self.grpc {
            Security::MutualTls(identity) | Security::OptionalClientTls(identity) => {
                vec![("traffic_controller.grpc.tls", identity.clone())]
            }
            Security::Plain | Security::Https(_) | Security::OneWayTls(_) => Vec::new(),
        }
    }
}

impl Config {
    /// What can be found out without opening a file or a port.
    ///
    /// # Errors
    /// A port that others can reach would ask nobody who they are, or would take tokens in plain text; or the authorizer lacks
    /// something.
    pub fn check(&self) -> Result<(), BindError> {
        self.check_authorizer()?;
        for port in self.http_ports() {
            port.check(self.authorizer)?;
        }
        if self.grpc.tls.is_none() && !is_loopback(self.grpc.listen) {
            return Err(BindError::Plain { key: "traffic_controller.grpc.listen", addr: self.grpc.listen });
        }
        Ok(())
    }

    /// Loads the certificates of every port.
    pub(super) fn ports(&self, telemetry: &Telemetry) -> Result<Ports, BindError> {
        let [http, gateway, rest] = self.http_ports();
        let own = identity("traffic_controller.grpc.tls", self.grpc.tls.as_ref())?;
        if let Some(identity) = &own {
            telemetry.watch_certificate("traffic_controller_grpc", identity.clone());
        }
        Ok(Ports {
            http: http.security(telemetry)?,
            grpc: match own {
                None => Security::Plain,
                // Whoever shows no certificate is asked for a token.
                Some(identity) if self.authorizer != AuthorizerConfig::None => Security::OptionalClientTls(identity),
                Some(identity) => Security::MutualTls(identity),
            },
            gateway: gateway.security(telemetry)?,
            rest: rest.security(telemetry)?,
        })
    }

    fn http_ports(&self) -> [HttpPort<'_>; 3] {
        let (http, gateway, rest) = (&self.http, &self.gateway, &self.rest);
        [
            HttpPort {
                listen: ("traffic_controller.http.listen", http.listen),
                tls: ("traffic_controller.http.tls", http.tls.as_ref()),
                plaintext: ("traffic_controller.http.insecure_plaintext", http.insecure_plaintext),
            },
            HttpPort {
                listen: ("traffic_controller.gateway.listen", gateway.listen),
                tls: ("traffic_controller.gateway.tls", gateway.tls.as_ref()),
                plaintext: ("traffic_controller.gateway.insecure_plaintext", gateway.insecure_plaintext),
            },
            HttpPort {
                listen: ("traffic_controller.rest.listen", rest.listen),
                tls: ("traffic_controller.rest.tls", rest.tls.as_ref()),
                plaintext: ("traffic_controller.rest.insecure_plaintext", rest.insecure_plaintext),
            },
        ]
    }
}

impl HttpPort<'_> {
    /// The port of a cache node's own.
    pub(super) fn of_cache(rest: &RestConfig) -> HttpPort<'_> {
        HttpPort {
            listen: ("log_cache.rest.listen", rest.listen),
            tls: ("log_cache.rest.tls", rest.tls.as_ref()),
            plaintext: ("log_cache.rest.insecure_plaintext", rest.insecure_plaintext),
        }
    }

    /// True when tokens reach it in plain text from other machines.
    fn is_exposed(&self) -> bool {
        self.tls.1.is_none() && !is_loopback(self.listen.1)
    }

    pub(super) fn check(&self, authorizer: AuthorizerConfig) -> Result<(), BindError> {
        let (key, addr) = self.listen;
        if authorizer == AuthorizerConfig::None && !is_loopback(addr) {
            return Err(BindError::Unauthenticated { key, addr });
        }
        if self.is_exposed() && !self.plaintext.1 {
            return Err(BindError::PlainHttp { key, addr, tls: self.tls.0, plaintext: self.plaintext.0 });
        }
        Ok(())
    }

    pub(super) fn security(&self, telemetry: &Telemetry) -> Result<Security, BindError> {
        if self.is_exposed() {
            telemetry.insecure_mode(self.plaintext.0);
        }
        let (key, files) = self.tls;
        let identity = files.map(ServerIdentity::load).transpose().map_err(|source| BindError::Tls { key, source })?;
        Ok(identity.map_or(Security::Plain, Security::Https))
    }
}

/// The loaded files under `key`.
pub(super) fn identity(key: &'static str, files: Option<&TlsFiles>) -> Result<Option<Identity>, BindError> {
    files.map(Identity::load).transpose().map_err(|source| BindError::Tls { key, source })
}

/// Takes the certificate of an HTTPS port again whenever its files have changed, until `stop`.
pub(super) fn keep_fresh(key: &'static str, security: &Security, tracker: &TaskTracker, stop: &CancellationToken) {
    if let Security::Https(identity) = security {
        tracker.spawn(identity.clone().watch(key, stop.clone()));
    }
}

fn is_loopback(addr: SocketAddr) -> bool {
    addr.ip().to_canonical().is_loopback()
}
