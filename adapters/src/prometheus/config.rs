//! The `metrics` table of a drain: how its envelopes become series, and series requests.

use std::num::NonZeroUsize;
use std::time::Duration;

use transport::duration_text;

use super::names::Naming;
use super::remote_write;
use super::series::{self, Http, Limits};

/// How envelopes become series.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// How series are named: `"plain"`, or as the firehose_exporter names them.
    pub naming: NamingConfig,
    /// Goes before every name. Absent: `firehose` for `"firehose-exporter"` and `"firehose-exporter-new"`, else nothing.
    pub namespace: Option<String>,
    /// The label `environment` of every series. Empty: no such label.
    pub environment: String,
    /// With a `firehose-exporter` naming: counters' deltas too. False.
    pub deltas: bool,
    /// Whether timers named `http` become requests, errors and durations by app. True.
    pub http: bool,
    /// The same by instance of the app. False.
    pub http_by_instance: bool,
    /// A series without envelopes for this long ends; `"10m"`.
    #[serde(with = "duration_text")]
    pub expiry: Duration,
    /// Series, of all sources together; 100 000.
    pub max_series: NonZeroUsize,
    /// Series of one metric and source; 10 000.
    pub max_series_per_source: NonZeroUsize,
    /// Remote-write: how long values gather for a request; `"5s"`.
    #[serde(with = "duration_text")]
    pub flush: Duration,
    /// Remote-write: requests that may be under way at once, each with series of its own, 1 to 16; 1.
    pub shards: NonZeroUsize,
    /// Remote-write: values in one request; 10 000.
    pub max_samples: NonZeroUsize,
    /// A page on another address than loopback: answer whatever name it is asked under. Nothing checks who asks. False.
    pub insecure_any_host: bool,
}

/// How series are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamingConfig {
    /// By the name of the metric; counters end in `_total`.
    #[default]
    Plain,
    /// As the firehose_exporter does by default: `firehose_counter_event_ORIGIN_NAME_total`.
    FirehoseExporter,
    /// As the firehose_exporter does without its old names: `firehose_NAME`.
    FirehoseExporterNew,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        let size = |value| NonZeroUsize::new(value).expect("a default is not zero");
        let (options, limits) = (series::Options::default(), Limits::default());
        Self {
            naming: NamingConfig::default(),
            namespace: None,
            environment: String::new(),
            deltas: false,
            http: true,
            http_by_instance: false,
            expiry: options.expiry,
            max_series: size(limits.series),
            max_series_per_source: size(limits.series_per_source),
            flush: Duration::from_secs(5),
            shards: NonZeroUsize::MIN,
            max_samples: size(remote_write::Options::default().max_samples),
            insecure_any_host: false,
        }
    }
}

impl MetricsConfig {
    /// How envelopes become series.
    pub(crate) fn series(&self) -> series::Options {
        let firehose = |retro_compat| Naming::FirehoseExporter { retro_compat, enable_delta: self.deltas };
        series::Options {
            naming: match self.naming {
                NamingConfig::Plain => Naming::Plain,
                NamingConfig::FirehoseExporter => firehose(true),
                NamingConfig::FirehoseExporterNew => firehose(false),
            },
            namespace: self.namespace.clone(),
            environment: self.environment.clone(),
            http: self.http.then(|| Http { by_instance: self.http_by_instance, ..Http::default() }),
            expiry: self.expiry,
            limits: Limits {
                series: self.max_series.get(),
                series_per_source: self.max_series_per_source.get(),
                ..Limits::default()
            },
        }
    }

    /// How series become requests.
    pub(crate) fn requests(&self) -> remote_write::Options {
        let shards = self.shards.min(NonZeroUsize::new(16).expect("not zero"));
        remote_write::Options { shards, max_samples: self.max_samples.get(), ..remote_write::Options::default() }
    }
}
