//! One connection to a NATS server.
//!
//! Servers, a login and what is needed for TLS enter; a connected client leaves, with the news of its end. A connection that ends stays
//! ended: nothing is sent again behind its owner's back, who opens another one when it is time, and knows what went through the old one.
//! What may wait in a client is bounded.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{AuthError, Client, ConnectErrorKind, ConnectOptions, Event, ServerError};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{Address, ClientTls};

mod login;

pub use login::{Login, LoginError};
pub use {async_nats, nkeys};

/// For name look-up, connecting, the TLS handshake and the login together.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Between two questions whether the server is still there. Two without an answer end the connection.
const PING: Duration = Duration::from_secs(2);
/// Commands that may wait in a client. Who sends more waits.
const COMMANDS: usize = 512;

/// Where to connect, and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// Servers of one cluster: each attempt goes to the next one.
    pub servers: Vec<Address>,
    /// Whom to trust and what to show; absent: plain text.
    pub tls: Option<ClientTls>,
    /// What a server's certificate must carry; absent: the host that was dialled.
    pub server_name: Option<ServerName<'static>>,
    /// Who we are.
    pub login: Login,
    /// How the server calls the connection in its monitoring.
    pub name: String,
    /// Messages that may wait in each subscription. What comes on top ends the connection.
    pub inbound: usize,
}

/// A connection. It ends when this and every clone of its client are gone.
#[derive(Debug)]
pub struct Link {
    client: Client,
    server: Address,
    end: Arc<End>,
}

/// What is known of the end of a connection.
#[derive(Debug, Default)]
struct End {
    /// It was there.
    established: AtomicBool,
    ended: CancellationToken,
    /// Guards what the server said last before the end. Held per event.
    said: Mutex<Option<NatsError>>,
}

/// Why there is no connection, or no more. Shows no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct NatsError {
    /// What is wrong, and what to do.
    pub text: String,
    /// It stays wrong until somebody changes something.
    pub lasting: bool,
    /// The machine is there, and nobody listens on the port.
    pub refused: bool,
}

impl NatsError {
    /// One that may go away.
    pub fn passing(text: impl Into<String>) -> Self {
        Self { text: text.into(), lasting: false, refused: false }
    }

    /// One that stays until somebody changes something.
    pub fn lasting(text: impl Into<String>) -> Self {
        Self { text: text.into(), lasting: true, refused: false }
    }
}

impl Target {
    /// Connects to the `turn`-th server.
    ///
    /// # Errors
    /// It is not there, is no NATS server, or does not let us in.
    pub async fn open(&mut self, turn: usize) -> Result<Link, NatsError> {
        let Some(server) = self.servers.get(turn % self.servers.len().max(1)).cloned() else {
            return Err(NatsError::lasting("no server is named"));
        };
        let opened = timeout(DEADLINE, self.open_at(server.clone())).await;
        let late = || Err(NatsError::passing(format!("no answer within {} s", DEADLINE.as_secs())));
        opened
            .unwrap_or_else(|_| late())
            .map_err(|error| NatsError { text: format!("{server}: {}", error.text), ..error })
    }

    async fn open_at(&mut self, server: Address) -> Result<Link, NatsError> {
        let login = self.login.clone();
        let ready = tokio::task::spawn_blocking(move || login.ready()).await;
        let ready = ready.map_err(|_| NatsError::lasting("reading the login panicked, a defect of hydrant"))?;
        let ready = Arc::new(ready.map_err(|error| NatsError::lasting(error.to_string()))?);
        let end = Arc::new(End::default());
        let options = self.options(&ready, &end)?;
        let client = options.connect(format!("nats://{server}")).await.map_err(|error| self.explain(&error))?;
        end.established.store(true, Ordering::Release);
        Ok(Link { client, server, end })
    }

    fn options(&mut self, ready: &Arc<login::Ready>, end: &Arc<End>) -> Result<ConnectOptions, NatsError> {
        let (ready, of_login, of_events) = (Arc::clone(ready), Arc::clone(end), Arc::clone(end));
        let answer = move |nonce: Vec<u8>| {
            // A client that lost its connection tries once more by itself. That attempt ends here.
            let answer = match of_login.established.load(Ordering::Acquire) {
                true => Err(AuthError::new("the connection is to stay closed")),
                false => ready.answer(&nonce),
            };
            std::future::ready(answer)
        };
        let tls = match (&mut self.tls, &self.server_name) {
            (Some(tls), Some(name)) => tls.config_named(name).map_err(|error| NatsError::lasting(error.to_string()))?,
            (Some(tls), None) => ClientConfig::clone(&tls.config()),
            // A server that insists on TLS is no server for plain text: it meets somebody who trusts nobody.
            (None, _) => trusting_nobody()?,
        };
        Ok(ConnectOptions::with_auth_callback(answer)
            .event_callback(move |event| {
                of_events.hear(event);
                std::future::ready(())
            })
            .name(&self.name)
            .require_tls(self.tls.is_some())
            .tls_client_config(tls)
            .ping_interval(PING)
            .connection_timeout(DEADLINE)
            .max_reconnects(1)
            .ignore_discovered_servers()
            .client_capacity(COMMANDS)
            .subscription_capacity(self.inbound)
            .skip_subject_validation(true))
    }

    fn explain(&self, error: &async_nats::ConnectError) -> NatsError {
        let mut source = error.source();
        while let Some(cause) = source {
            let io = cause.downcast_ref::<std::io::Error>();
            let inner = io.and_then(|io| io.get_ref());
            if let Some(fault) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                return match &self.tls {
                    Some(tls) => NatsError::lasting(tls.explain(fault)),
                    None => NatsError::lasting("the server takes connections over TLS only; write nats-tls://"),
                };
            }
            if let Some(server) = cause.downcast_ref::<ServerError>() {
                return said(server);
            }
            if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
                let text = "nobody listens there (connection refused)".to_owned();
                return NatsError { text, lasting: false, refused: true };
            }
            source = cause.source();
        }
        match error.kind() {
            ConnectErrorKind::AuthorizationViolation => said(&ServerError::AuthorizationViolation),
            ConnectErrorKind::Authentication => NatsError::lasting("the key of the login cannot sign"),
            _ => NatsError::passing(error.to_string()),
        }
    }
}

impl Link {
    /// The client. Clones of it keep the connection open.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The server at the other end.
    pub fn server(&self) -> &Address {
        &self.server
    }

    /// Whether the connection has ended.
    pub fn has_ended(&self) -> bool {
        self.end.ended.is_cancelled()
    }

    /// Waits for the end of the connection, and says why it came.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ended(&self) -> NatsError {
        self.end.ended.cancelled().await;
        self.why()
    }

    /// Why the connection ended.
    pub fn why(&self) -> NatsError {
        let said = self.end.said.lock().clone();
        said.unwrap_or_else(|| NatsError::passing(format!("{}: the connection ended", self.server)))
    }
}

impl End {
    fn hear(&self, event: Event) {
        match event {
            Event::Disconnected | Event::Closed => self.ended.cancel(),
            Event::ServerError(error) => {
                let said = said(&error);
                // What a permission forbids is not answered: who waits for an answer would wait in vain.
                let ends = said.lasting;
                *self.said.lock() = Some(said);
                if ends {
                    self.ended.cancel();
                }
            }
            Event::SlowConsumer(_) => {
                *self.said.lock() = Some(NatsError::passing("more came from the server than could be kept"));
                self.ended.cancel();
            }
            Event::Connected | Event::LameDuckMode | Event::Draining | Event::ClientError(_) => {}
        }
    }
}

/// What a server's error says.
fn said(error: &ServerError) -> NatsError {
    let text = error.to_string();
    let lower = text.to_lowercase();
    if lower.contains("authorization") || lower.contains("authentication") {
        NatsError::lasting(format!(
            "the server does not let us in ({text}): check user and password, token, creds_file or nkey_file"
        ))
    } else if lower.contains("permissions violation") {
        NatsError::lasting(format!("the server does not let us do that ({text}): change the user's permissions there"))
    } else {
        NatsError::passing(format!("the server says: {text}"))
    }
}

fn trusting_nobody() -> Result<ClientConfig, NatsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| NatsError::lasting(error.to_string()))?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_put_into_words() {
        let other = |text: &str| said(&ServerError::Other(text.to_owned()));
        assert!(said(&ServerError::AuthorizationViolation).lasting);
        assert!(other("User Authentication Expired").text.contains("creds_file"));
        let denied = other("Permissions Violation for Publish to \"hydrant.log.a.0\"");
        assert!(denied.lasting && denied.text.contains("permissions there"), "{denied:?}");
        assert!(!other("Stale Connection").lasting);
    }
}
