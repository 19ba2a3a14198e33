//! Who may call which gRPC method: roles in certificates, judged once per call.
//!
//! What enters: a server's table of services and roles, its configuration, and each call's path and peer. What leaves:
//! the call, or PERMISSION_DENIED in words. Messages of a stream are not looked at.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::cert::{PeerCert, Role};
use crate::conn::ConnInfo;

/// An `access` table: `[agent.grpc.access]` and the like.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessConfig {
    /// Whether a call needs a certificate with a role that its service accepts; false: any certificate of the authorities
    /// may call any method, as with Loggregator. Needs `tls`.
    pub enforce: bool,
    /// Names of clients without a role that may call a service too, such as
    /// `{ "/loggregator.v2.Egress/" = ["reverselogproxy"] }`; a name is a DNS name or the common name. None.
    pub clients: BTreeMap<String, Vec<String>>,
}

/// One service of a server, as `/package.Service/`, and the roles that may call it.
pub type ServiceRoles = (&'static str, &'static [Role]);

/// Why a rule of access cannot be in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// Nobody shows a certificate on a plain port.
    #[error("{table}.access.enforce: roles stand in certificates; set {table}.tls too, or leave enforce out")]
    NeedsTls {
        /// The table above `access`.
        table: &'static str,
    },
    /// `clients` names a service that the port does not have.
    #[error("{table}.access.clients: there is no service {service:?} here; there are {known}")]
    NoService {
        /// The table above `access`.
        table: &'static str,
        /// As configured.
        service: String,
        /// The services that there are.
        known: String,
    },
}

/// A server's rule of access; a layer for its gRPC services. All clones count together.
#[derive(Clone, Debug, Default)]
pub struct Access {
    rule: Option<Arc<Rule>>,
    or_token: bool,
}

#[derive(Debug)]
struct Rule {
    services: Vec<ServiceRule>,
    denied: AtomicU64,
}

#[derive(Debug)]
struct ServiceRule {
    prefix: &'static str,
    roles: &'static [Role],
    clients: Vec<String>,
}

impl AccessConfig {
    /// The rule for a server with these services. `table` is the configuration table above `access`, such as
    /// `doppler.grpc`; `tls` whether the port asks clients for certificates.
    ///
    /// # Errors
    ///
    /// It is to be enforced without TLS, or names a service that is none of `services`.
    pub fn rule(&self, table: &'static str, tls: bool, services: &[ServiceRoles]) -> Result<Access, AccessError> {
        if let Some(service) = self.clients.keys().find(|key| !services.iter().any(|(prefix, _)| prefix == key)) {
            let known: Vec<_> = services.iter().map(|(prefix, _)| *prefix).collect();
            return Err(AccessError::NoService { table, service: service.clone(), known: known.join(", ") });
        }
        if !self.enforce {
            return Ok(Access::default());
        }
        if !tls {
            return Err(AccessError::NeedsTls { table });
        }
        let services = services.iter().map(|&(prefix, roles)| ServiceRule {
            prefix,
            roles,
            clients: self.clients.get(prefix).cloned().unwrap_or_default(),
        });
        let rule = Rule { services: services.collect(), denied: AtomicU64::new(0) };
        Ok(Access { rule: Some(Arc::new(rule)), or_token: false })
    }
}

impl Access {
    /// Lets callers without a certificate through: behind it somebody asks them for a token.
    #[must_use]
    pub fn or_token(self) -> Self {
        Self { or_token: true, ..self }
    }

    /// Calls refused so far.
    pub fn denied(&self) -> u64 {
        self.rule.as_ref().map_or(0, |rule| rule.denied.load(Ordering::Relaxed))
    }

    /// Judges a call of `path`, such as `/loggregator.v2.Egress/BatchedReceiver`, by `peer`.
    ///
    /// # Errors
    ///
    /// PERMISSION_DENIED, or UNIMPLEMENTED for a service that the rule does not know, so that no service is open by
    /// oversight.
    pub fn check(&self, path: &str, peer: Option<&PeerCert>) -> Result<(), Status> {
        let Some(rule) = &self.rule else { return Ok(()) };
        let Some(service) = rule.services.iter().find(|service| path.starts_with(service.prefix)) else {
            return Err(Status::unimplemented("this port has no such service"));
        };
        if peer.map_or(self.or_token, |peer| service.admits(peer)) {
            return Ok(());
        }
        rule.denied.fetch_add(1, Ordering::Relaxed);
        Err(Status::permission_denied(service.refusal(path, peer)))
    }
}

impl ServiceRule {
    fn admits(&self, peer: &PeerCert) -> bool {
        peer.roles().iter().any(|role| self.roles.contains(role))
            || self.clients.iter().any(|client| peer.is_named(client))
    }

    fn refusal(&self, path: &str, peer: Option<&PeerCert>) -> String {
        let roles: Vec<_> = self.roles.iter().map(|role| role.as_str()).collect();
        let mut text = format!("{path} needs a certificate with the role {}", roles.join(" or "));
        if !self.clients.is_empty() {
            let _infallible = write!(text, ", or the name {}", self.clients.join(" or "));
        }
        let shown = match peer {
            Some(peer) => format!("this one is {} with {}", peer.subject(), roles_of(peer)),
            None => "there is none that can be read".to_owned(),
        };
        let _infallible = write!(text, "; {shown}");
        text
    }
}

fn roles_of(peer: &PeerCert) -> String {
    match peer.roles() {
        [] => "no role".to_owned(),
        roles => format!("role {}", roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")),
    }
}

impl<S> Layer<S> for Access {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { access: self.clone(), inner }
    }
}

/// Services behind a rule of access.
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    access: Access,
    inner: S,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<Body>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<ConnInfo>().and_then(|info| info.peer.as_deref());
        match self.access.check(request.uri().path(), peer) {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(status) => Either::Left(ready(Ok(status.into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use tonic::Code;

    use super::*;
    use crate::{TestCerts, TlsFiles};

    const SERVICES: &[ServiceRoles] = &[
        ("/loggregator.v2.Egress/", &[Role::TrafficController, Role::Operator]),
        ("/loggregator.v2.Ingress/", &[Role::Agent]),
    ];

    fn cert(files: &TlsFiles) -> PeerCert {
        PeerCert::parse(&CertificateDer::from_pem_file(&files.cert).unwrap()).unwrap()
    }

    #[test]
    fn a_role_opens_its_services_and_a_name_only_where_it_is_configured() {
        let certs = TestCerts::new();
        let config: AccessConfig =
            toml::from_str("enforce = true\nclients = { \"/loggregator.v2.Egress/\" = [\"reverselogproxy\"] }")
                .unwrap();
        let access = config.rule("doppler.grpc", true, SERVICES).unwrap();
        let (agent, operator) = (certs.files_with_role("a", Role::Agent), certs.files_with_role("o", Role::Operator));
        let (agent, operator) = (cert(&agent), cert(&operator));
        let (named, nobody) = (cert(&certs.files("reverselogproxy")), cert(&certs.files("agent")));
        let code = |path: &str, peer: Option<&PeerCert>| access.check(path, peer).map_err(|status| status.code());
        let (read, write) = ("/loggregator.v2.Egress/BatchedReceiver", "/loggregator.v2.Ingress/BatchSender");
        assert_eq!(code(write, Some(&agent)), Ok(()));
        assert_eq!(code(read, Some(&operator)), Ok(()));
        assert_eq!(code(read, Some(&named)), Ok(()));
        let denied = [
            (read, Some(&agent)),
            (write, Some(&operator)),
            (write, Some(&named)),
            (write, Some(&nobody)),
            (read, None),
        ];
        for (path, peer) in denied {
            assert_eq!(code(path, peer), Err(Code::PermissionDenied), "{path} {peer:?}");
        }
        assert_eq!(access.denied(), 5);
        assert_eq!(code("/loggregator.v2.Egress", Some(&operator)), Err(Code::Unimplemented));
        assert_eq!(code("/some.New/Method", Some(&operator)), Err(Code::Unimplemented));
        assert_eq!(access.denied(), 5);
    }

    #[test]
    fn callers_without_a_certificate_may_be_left_to_who_asks_for_tokens() {
        let certs = TestCerts::new();
        let access = AccessConfig { enforce: true, ..AccessConfig::default() };
        let access = access.rule("doppler.grpc", true, SERVICES).unwrap();
        let peer = cert(&certs.files("nobody"));
        let path = "/loggregator.v2.Egress/Receiver";
        assert!(access.check(path, None).is_err());
        let access = access.or_token();
        assert!(access.check(path, None).is_ok() && access.check(path, Some(&peer)).is_err());
    }

    #[test]
    fn a_refusal_says_what_is_needed_and_what_was_shown() {
        let certs = TestCerts::new();
        let access = AccessConfig { enforce: true, ..AccessConfig::default() };
        let access = access.rule("doppler.grpc", true, SERVICES).unwrap();
        let text = |files: &TlsFiles| {
            access.check("/loggregator.v2.Egress/Receiver", Some(&cert(files))).unwrap_err().message().to_owned()
        };
        assert_eq!(
            text(&certs.files_with_role("metron", Role::Agent)),
            "/loggregator.v2.Egress/Receiver needs a certificate with the role traffic-controller or operator; \
             this one is CN=metron with role agent"
        );
        assert!(text(&certs.files("metron")).ends_with("this one is CN=metron with no role"));
    }

    #[test]
    fn without_enforce_everybody_may_everything() {
        let access = AccessConfig::default().rule("doppler.grpc", false, SERVICES).unwrap();
        access.check("/some.New/Method", None).unwrap();
        assert_eq!(access.denied(), 0);
    }

    #[test]
    fn a_rule_that_cannot_hold_is_refused_with_its_key() {
        let config: AccessConfig = toml::from_str("enforce = true").unwrap();
        assert_eq!(
            config.rule("agent.grpc", false, SERVICES).unwrap_err().to_string(),
            "agent.grpc.access.enforce: roles stand in certificates; set agent.grpc.tls too, or leave enforce out"
        );
        let config: AccessConfig = toml::from_str("clients = { \"/loggregator.v2.Egres/\" = [\"x\"] }").unwrap();
        let error = config.rule("agent.grpc", true, SERVICES).unwrap_err().to_string();
        assert!(
            error.contains("no service \"/loggregator.v2.Egres/\" here; there are /loggregator.v2.Egress/"),
            "{error}"
        );
        assert!(toml::from_str::<AccessConfig>("enforced = true").is_err());
    }
}
