//! One TOML file made of the crates' configurations, with scalar keys overridable by environment variables.
//!
//! What enters: a file's text and the environment. What leaves: a [`Config`] in which every value is possible, or an error that names
//! the key, where it stands and what would be right.

mod listens;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use telemetry::LogConfig;

use crate::cache_node::LogCacheConfig;
use crate::classic::SelfMetricsConfig;

pub use self::listens::ListenTwice;

/// What precedes the path of a key in the name of its variable.
const PREFIX: &str = "HYDRANT_";

/// The configuration of all roles. Each role reads its own table and `[log]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The process's own log, on standard error.
    pub log: LogConfig,
    /// How the process stops.
    pub stop: StopConfig,
    /// Doppler's and traffic controller's own numbers as envelopes, under an original Loggregator's names.
    pub self_metrics: SelfMetricsConfig,
    /// The agent.
    pub agent: agent::Config,
    /// The doppler with its cache.
    pub doppler: doppler::Config,
    /// The traffic controller.
    pub traffic_controller: traffic_controller::Config,
    /// A cache node of its own.
    pub log_cache: LogCacheConfig,
    /// The adapters and their drains.
    pub adapters: adapters::Config,
}

/// The `[stop]` table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StopConfig {
    /// From the moment at which a process that is told to stop is not ready until it begins to stop; `"0s"`.
    #[serde(with = "or_none")]
    pub grace: Duration,
}

/// Durations as [`transport::duration_text`] has them, and zero.
mod or_none {
    use super::{Deserialize, Duration};

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|error| {
            serde::de::Error::custom(format!("{error}; a duration is written like \"60s\" or \"1m 30s\""))
        })
    }

    pub(super) use transport::duration_text::serialize;
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; give the path of a TOML file, or leave --config out for the defaults", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is no TOML, or a key or value in it is wrong. The line itself is not shown: it may hold a drain's password.
    #[error("{}, line {line}, column {column}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A variable names no key, or its value is wrong.
    #[error("environment variable {name}: {problem}")]
    Variable {
        /// The variable.
        name: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl Config {
    /// The log as it is set up: what the NATS client says of every attempt is left out, unless the filter names it. Its owners say it in
    /// their words, and not too often.
    pub(crate) fn log(&self) -> LogConfig {
        let mut log = self.log.clone();
        if cfg!(feature = "nats") && !log.filter.contains("async_nats") {
            log.filter.push_str(",async_nats=off");
        }
        log
    }

    /// Reads `path`, or the defaults without one, and lays the variables `HYDRANT_TABLE__KEY` over it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let text = match path {
            None => String::new(),
            Some(path) => {
                std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?
            }
        };
        let at = |error: toml::de::Error| {
            let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            let path = path.map(Path::to_owned).unwrap_or_default();
            ConfigError::File { path, line, column, problem: error.message().trim().to_owned() }
        };
        let mut config: Self = toml::from_str(&text).map_err(at)?;
        let mut table: toml::Table = toml::from_str(&text).map_err(at)?;
        let mut variables: Vec<(String, String)> = environment.into_iter().filter_map(ours).collect();
        variables.sort();
        for (name, value) in variables {
            config = lay_over(&mut table, &name, &value).map_err(|problem| ConfigError::Variable { name, problem })?;
        }
        Ok(config)
    }
}

/// A variable that is meant for the configuration: all others have no `__` in their names.
fn ours((name, value): (OsString, OsString)) -> Option<(String, String)> {
    let name = name.into_string().ok()?;
    let value = value.to_string_lossy().into_owned();
    (name.starts_with(PREFIX) && name.contains("__")).then_some((name, value))
}

/// Sets one key. The value is taken as TOML where it is some (`true`, `5`, `["a"]`) and the key wants that, else as text.
fn lay_over(table: &mut toml::Table, name: &str, value: &str) -> Result<Config, String> {
    let path: Vec<String> = name[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
    let as_toml =
        toml::from_str::<toml::Table>(&format!("value = {value}")).ok().and_then(|mut table| table.remove("value"));
    let mut problem = String::new();
    for candidate in [as_toml, Some(toml::Value::String(value.to_owned()))].into_iter().flatten() {
        let mut attempt = table.clone();
        set(&mut attempt, &path, candidate)?;
        match toml::Value::Table(attempt.clone()).try_into::<Config>() {
            Ok(config) => {
                *table = attempt;
                return Ok(config);
            }
            Err(error) => problem = error.message().trim().to_owned(),
        }
    }
    Err(problem)
}

fn set(table: &mut toml::Table, path: &[String], value: toml::Value) -> Result<(), String> {
    let (key, tables) = path.split_last().ok_or("names no key")?;
    let mut at = table;
    for name in tables {
        let next = at.entry(name.as_str()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        at = next.as_table_mut().ok_or_else(|| format!("`{name}` is a key, not a table"))?;
    }
    at.insert(key.clone(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("hydrant.toml");
        std::fs::write(&path, text).expect("written");
        let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let error = |error: ConfigError| error.to_string().replace(&format!("{}", dir.path().display()), "DIR");
        Config::load(Some(&path), environment).map_err(error)
    }

    #[test]
    fn nothing_configured_is_the_default() {
        assert_eq!(load("", &[]), Ok(Config::default()));
        assert_eq!(Config::load(None, []).expect("the default"), Config::default());
    }

    #[test]
    fn the_default_survives_being_written_and_read() {
        let text = toml::to_string(&Config::default()).expect("serializable");
        assert_eq!(load(&text, &[]), Ok(Config::default()));
    }

    #[test]
    fn a_typo_is_shown_where_it_stands_with_what_is_right() {
        let error = load("[doppler.grpc]\nlisen = \"127.0.0.1:0\"\n", &[]).expect_err("a typo");
        assert!(error.starts_with("DIR/hydrant.toml, line 2, column 1: "), "{error}");
        assert!(error.contains("unknown field `lisen`") && error.contains("`listen`"), "{error}");
        let error = load("[agent.statsd]\nlisten = \"8125\"\n", &[]).expect_err("no address");
        assert!(error.contains("line 2, column 10") && error.contains("invalid socket address"), "{error}");
    }

    #[test]
    fn an_error_does_not_show_the_line_and_what_is_secret_in_it() {
        let text = "[[adapters.drains]]\nname = \"a\"\nurl = \"syslog://user:hunter2@host\"\n";
        let error = load(text, &[]).expect_err("no port");
        assert!(error.contains("line 3, column 7") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::load(Some(Path::new("/nowhere/hydrant.toml")), []).expect_err("no such file").to_string();
        assert!(error.starts_with("cannot read /nowhere/hydrant.toml: No such file"), "{error}");
    }

    #[test]
    fn variables_lie_over_the_file() {
        let config = load(
            "[doppler.grpc]\nlisten = \"127.0.0.1:1\"\n[doppler.cache]\nenabled = true\n",
            &[
                ("HYDRANT_DOPPLER__GRPC__LISTEN", "127.0.0.1:2"),
                ("HYDRANT_DOPPLER__CACHE__ENABLED", "false"),
                ("HYDRANT_AGENT__EGRESS__RING_ENVELOPES", "5"),
                ("HYDRANT_LOG__FILTER", "debug"),
                ("HYDRANT_TOOLS", "not a key"),
                ("PATH", "/bin"),
            ],
        )
        .expect("all are right");
        assert_eq!(config.doppler.grpc.listen, "127.0.0.1:2".parse().expect("an address"));
        assert!(!config.doppler.cache.enabled);
        assert_eq!(config.agent.egress.ring_envelopes.get(), 5);
        assert_eq!(config.log.filter, "debug");
    }

    #[test]
    fn a_wrong_variable_is_named() {
        let error = load("", &[("HYDRANT_DOPPLER__GRPC__LISEN", "127.0.0.1:2")]).expect_err("a typo");
        assert!(error.contains("HYDRANT_DOPPLER__GRPC__LISEN") && error.contains("`listen`"), "{error}");
        let error = load("", &[("HYDRANT_DOPPLER__GRPC__LISTEN", "nowhere")]).expect_err("no address");
        assert!(error.contains("HYDRANT_DOPPLER__GRPC__LISTEN") && error.contains("socket address"), "{error}");
        let error =
            load("", &[("HYDRANT_LOG__FILTER__DEEPER", "x"), ("HYDRANT_LOG__FILTER", "info")]).expect_err("no table");
        assert!(error.contains("`filter` is a key, not a table"), "{error}");
    }
}
