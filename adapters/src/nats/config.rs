//! The `nats` table of a drain: which servers, who we are there, and what a stream is like that has to be made.

use std::num::{NonZeroU8, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use proto::subject;
use transport::{Address, duration_text};

use crate::syslog::config::DrainUrl;

/// The most servers of one drain.
const MAX_SERVERS: usize = 32;
/// The most copies that a stream can have.
const MAX_REPLICAS: u8 = 5;
/// The smallest stream that is made, in bytes.
const LEAST_BYTES: u64 = 1024 * 1024;

/// How envelopes reach a stream.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsConfig {
    /// Other servers of the same cluster, as `host:port`; each attempt to connect goes to the next one. None.
    pub servers: Vec<Address>,
    /// What the subjects of messages begin with; `"hydrant"`. After it come kind, source and instance.
    pub subject_prefix: String,
    /// A file with credentials, as `nsc` writes them: a JWT and a seed. Read anew for each connection. Absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creds_file: Option<PathBuf>,
    /// A file whose first line is the seed of an NKey. Read anew for each connection. Absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nkey_file: Option<PathBuf>,
    /// Whether a stream that is missing is made; true. One that is there is never changed.
    pub create: bool,
    /// A stream that is made: the most bytes that it keeps; 1 GiB.
    pub max_bytes: NonZeroU64,
    /// A stream that is made: how long it keeps a message. Absent: as long as there is room.
    #[serde(deserialize_with = "some_duration", serialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// A stream that is made: on how many servers it is, 1 to 5; 1.
    pub replicas: NonZeroU8,
    /// A stream that is made: whether it is on disk, `"file"`, or in the servers' memory, `"memory"`. `"file"`.
    pub storage: Storage,
    /// A stream that is made: what goes when it is full, the `"old"` messages or the `"new"` ones, which then wait here. `"old"`.
    pub discard: Discard,
    /// A stream that is made: for how long it knows which messages it has, and leaves out those that are sent again; `"2m"`.
    #[serde(with = "duration_text")]
    pub duplicate_window: Duration,
}

/// Where a stream is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// On disk.
    #[default]
    File,
    /// In the memory of the servers.
    Memory,
}

/// What a full stream does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Discard {
    /// Forgets its oldest messages.
    #[default]
    Old,
    /// Takes no new ones.
    New,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            subject_prefix: "hydrant".to_owned(),
            creds_file: None,
            nkey_file: None,
            create: true,
            max_bytes: NonZeroU64::new(1 << 30).expect("a default is not zero"),
            max_age: None,
            replicas: NonZeroU8::MIN,
            storage: Storage::File,
            discard: Discard::Old,
            duplicate_window: Duration::from_secs(120),
        }
    }
}

impl NatsConfig {
    /// Looks at it together with the URL and whether the drain has a token.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub(crate) fn check(&self, url: &DrainUrl, token: bool) -> Result<(), String> {
        let stream = url.base().trim_start_matches('/');
        if let Some(fault) = subject::name_fault(stream) {
            return Err(format!("its URL names no stream: {fault}; write {}://{}/STREAM", url.scheme, url.address));
        }
        if let Some(fault) = subject::prefix_fault(&self.subject_prefix) {
            return Err(format!("nats.subject_prefix is {:?}: {fault}", self.subject_prefix));
        }
        if self.servers.len() >= MAX_SERVERS {
            return Err(format!(
                "nats.servers has {} servers; at most {} are taken",
                self.servers.len(),
                MAX_SERVERS - 1
            ));
        }
        let logins = [url.login().is_some(), token, self.creds_file.is_some(), self.nkey_file.is_some()];
        if logins.into_iter().filter(|given| *given).count() > 1 {
            return Err("it has two logins; keep one of user and password in the URL, token or token_file, nats.creds_file, nats.nkey_file".to_owned());
        }
        if self.replicas.get() > MAX_REPLICAS {
            return Err(format!("nats.replicas is {}; it is 1 to {MAX_REPLICAS}", self.replicas));
        }
        if self.max_bytes.get() < LEAST_BYTES || i64::try_from(self.max_bytes.get()).is_err() {
            return Err(format!("nats.max_bytes is {}; it is {LEAST_BYTES} to {}", self.max_bytes, i64::MAX));
        }
        if self.max_age.is_some_and(|age| age < self.duplicate_window) {
            return Err(
                "nats.duplicate_window is longer than nats.max_age; what a stream has forgotten it cannot know again"
                    .to_owned(),
            );
        }
        if self.duplicate_window < Duration::from_millis(100) || self.duplicate_window > Duration::from_secs(86_400) {
            return Err("nats.duplicate_window is 100ms to 1day".to_owned());
        }
        Ok(())
    }
}

fn some_duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration_text::deserialize(deserializer).map(Some)
}

#[expect(clippy::ref_option, reason = "what serde asks for")]
fn some_text<S: serde::Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => duration_text::serialize(duration, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn error(url: &str, more: &str) -> String {
        let text = format!("[[drains]]\nname = \"x\"\nurl = \"{url}\"\n{more}");
        let config: Config = toml::from_str(&text).unwrap();
        config.check().map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[cfg(feature = "nats")]
    #[test]
    fn a_drain_to_a_stream_is_checked() {
        for (url, more) in [
            ("nats://h/LOGS", ""),
            ("nats://user:pass@h:4222/LOGS?drain-data=logs", ""),
            ("nats-tls://h/LOGS", "tls = { ca = \"ca.pem\" }"),
            ("nats://h/LOGS", "token = \"t\""),
            (
                "nats://h/LOGS",
                "[drains.nats]\nservers = [\"b:4222\"]\ncreds_file = \"c\"\nmax_age = \"7days\"\nstorage = \"memory\"\ndiscard = \"new\"\nreplicas = 3\n",
            ),
        ] {
            assert_eq!(error(url, more), "", "{url} {more}");
        }
        for (url, more, part) in [
            ("nats://h:4222", "", "write nats://h:4222/STREAM"),
            ("nats://h:4222/a.b", "", "names no stream"),
            ("nats://h/S", "nats = { subject_prefix = \"a.*\" }", "nats.subject_prefix is \"a.*\""),
            ("nats://canary@h/S", "token = \"canary\"", "two logins"),
            ("nats://h/S", "nats = { creds_file = \"a\", nkey_file = \"b\" }", "two logins"),
            ("nats://h/S", "nats = { replicas = 7 }", "nats.replicas is 7; it is 1 to 5"),
            ("nats://h/S", "nats = { max_bytes = 5 }", "nats.max_bytes is 5"),
            ("nats://h/S", "nats = { max_age = \"1m\" }", "duplicate_window is longer"),
            ("nats://h/S", "tls = {}", "nats-tls://"),
            ("nats://h/S", "preset = \"splunk\"", "takes no lines"),
            ("syslog://h:1", "nats = { create = false }", "has a nats table, and its URL is syslog://h:1"),
        ] {
            let error = error(url, more);
            assert!(error.contains(part) && !error.contains("canary"), "{url} {more}: {error}");
        }
    }

    #[cfg(not(feature = "nats"))]
    #[test]
    fn without_the_feature_a_stream_is_refused() {
        let error = error("nats://user:canary@h/LOGS", "");
        assert_eq!(
            error,
            "drains: the drain \"x\" goes to nats://h:4222/LOGS, and this hydrant was built without NATS; build it with --features nats"
        );
    }
}
