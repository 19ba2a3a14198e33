//! Where a drain's envelopes go, made of its configuration: servers, stream and subjects.

use std::time::Duration;

use proto::raw::Kind;
use proto::subject;
use transport::nats::async_nats::jetstream::stream;
use transport::nats::{Login, LoginError, Target};

use super::config::{Discard, Storage};
use super::window::WINDOW;
use crate::config::{ConfigError, DrainConfig};
use crate::syslog::trust::Trust;

/// A stream, and the way there.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) target: Target,
    pub(crate) stream: String,
    pub(crate) prefix: String,
    /// Everything that the drain may publish to.
    pub(super) subjects: Vec<String>,
    /// What a stream is like that is made; absent: none is.
    pub(super) create: Option<stream::Config>,
}

impl Place {
    /// Looks at the files of the login: blocks on the disk.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub(crate) fn new(config: &DrainConfig, trust: Option<&Trust>) -> Result<Self, ConfigError> {
        let (url, nats) = (&config.url, &config.nats);
        let wrong = |error: LoginError| ConfigError::Nats(config.name.clone(), format!("nats.{error}"));
        let login = login(config)?;
        login.check().map_err(wrong)?;
        let server_name = config.tls.as_ref().and_then(|tls| tls.server_name.as_ref());
        let target = Target {
            servers: std::iter::once(&url.address).chain(&nats.servers).cloned().collect(),
            tls: trust.map(|trust| trust.tls().clone()),
            server_name: server_name.map(|_| config.server_name(url)).transpose()?,
            login,
            name: "hydrant".to_owned(),
            inbound: 2 * WINDOW.0,
        };
        let (prefix, stream) = (nats.subject_prefix.clone(), url.base().trim_start_matches('/').to_owned());
        let kinds: Vec<Kind> = url.options.kinds.iter().collect();
        let named = (!config.sources.is_empty() && config.source_patterns.is_empty()).then_some(&config.sources);
        let subjects = match named {
            Some(sources) => kinds
                .iter()
                .flat_map(|kind| sources.iter().map(|id| subject::filter(&prefix, Some(*kind), Some(id.as_bytes()))))
                .collect(),
            None => kinds.iter().map(|kind| subject::filter(&prefix, Some(*kind), None)).collect(),
        };
        let create = nats.create.then(|| stream::Config {
            name: stream.clone(),
            subjects: vec![format!("{prefix}.>")],
            max_bytes: i64::try_from(nats.max_bytes.get()).unwrap_or(i64::MAX),
            max_messages: -1,
            max_messages_per_subject: -1,
            max_consumers: -1,
            max_message_size: -1,
            max_age: nats.max_age.unwrap_or(Duration::ZERO),
            num_replicas: usize::from(nats.replicas.get()),
            storage: match nats.storage {
                Storage::File => stream::StorageType::File,
                Storage::Memory => stream::StorageType::Memory,
            },
            discard: match nats.discard {
                Discard::Old => stream::DiscardPolicy::Old,
                Discard::New => stream::DiscardPolicy::New,
            },
            duplicate_window: nats.duplicate_window,
            ..stream::Config::default()
        });
        Ok(Self { target, stream, prefix, subjects, create })
    }
}

fn login(config: &DrainConfig) -> Result<Login, ConfigError> {
    if let Some(path) = &config.nats.creds_file {
        return Ok(Login::Credentials(path.clone()));
    }
    if let Some(path) = &config.nats.nkey_file {
        return Ok(Login::NKey(path.clone()));
    }
    if let Some(token) = config.bearer()? {
        return Ok(Login::Token(token));
    }
    Ok(match config.url.login() {
        Some((user, Some(password))) => Login::Password { user, password },
        Some((token, None)) => Login::Token(token),
        None => Login::Nobody,
    })
}
