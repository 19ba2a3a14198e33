//! How envelopes become requests: what a drain chooses.

use std::time::Duration;

/// Which form of the metrics intake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Api {
    /// `/api/v1/series`, which older receivers and VictoriaMetrics take.
    V1,
    /// `/api/v2/series`.
    #[default]
    V2,
}

/// Whose names and tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preset {
    /// Hydrant's own.
    #[default]
    Plain,
    /// Those of datadog-firehose-nozzle.
    Nozzle,
}

/// How envelopes become requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The form of the metrics intake. [`Api::V2`].
    pub api: Api,
    /// Names, tags, and with [`Preset::Nozzle`] zlib in place of gzip. [`Preset::Plain`].
    pub preset: Preset,
    /// Goes before the name of every metric. Empty.
    pub prefix: String,
    /// Tags of every series and log, as `key:value`.
    pub tags: Vec<String>,
    /// The host of every series and log. `None`: the tag `index` of the envelope, in [`Preset::Nozzle`] else its tag `origin`.
    pub host: Option<String>,
    /// The tag `env` of every series and log. `None`: that of the envelope, if it has one.
    pub env: Option<String>,
    /// The `service` of every log, and that tag of every series. `None`: of a log the tag `app_name`, else the source id; of a series the
    /// tag that the envelope has, if any.
    pub service: Option<String>,
    /// The `ddsource` of every log. `hydrant`.
    pub source: String,
    /// From one flush to the next; what counts say they are of, in whole seconds. 10 s.
    pub interval: Duration,
    /// How much is kept between flushes.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            api: Api::V2,
            preset: Preset::Plain,
            prefix: String::new(),
            tags: Vec::new(),
            host: None,
            env: None,
            service: None,
            source: "hydrant".to_owned(),
            interval: Duration::from_secs(10),
            limits: Limits::default(),
        }
    }
}

impl Options {
    /// As datadog-firehose-nozzle is set up when nobody says otherwise (contract: syslog drains §7.4).
    pub fn nozzle() -> Self {
        Self {
            api: Api::V1,
            preset: Preset::Nozzle,
            prefix: "cloudfoundry.nozzle.".to_owned(),
            source: "datadog-firehose-nozzle".to_owned(),
            interval: Duration::from_secs(15),
            ..Self::default()
        }
    }
}

/// How many series are remembered. What finds no room is dropped and counted; what is there stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Series as Datadog counts them: a timer is four, a metric with several names as many. 100 000.
    pub series: usize,
    /// The same of one metric and one source. 10 000.
    pub series_per_source: usize,
    /// Bytes of the names, tags and hosts of all series. 128 MiB.
    pub bytes: usize,
    /// A series without envelopes for this long is forgotten. 10 min.
    pub expiry: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { series: 100_000, series_per_source: 10_000, bytes: 128 << 20, expiry: Duration::from_secs(600) }
    }
}
