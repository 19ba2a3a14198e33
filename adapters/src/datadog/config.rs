//! The `datadog` table of a drain.

use std::time::Duration;

use transport::duration_text;

use super::options::{Api, Options, Preset};

/// How envelopes look in Datadog.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatadogConfig {
    /// `"nozzle"`: names and tags as the dashboards of datadog-firehose-nozzle know them. Absent: our own.
    pub preset: Option<DatadogPreset>,
    /// The form of the metrics intake; `"v2"`, with the preset `"v1"`.
    pub api: Option<DatadogApi>,
    /// Goes before the name of every metric. Absent: nothing; with the preset `cloudfoundry.nozzle.`.
    pub prefix: Option<String>,
    /// Tags of every series and log, as `key:value`. None.
    pub tags: Vec<String>,
    /// The host of every series and log. Absent: the tag `index`.
    pub host: Option<String>,
    /// The tag `env` of every series and log. Absent: that of the envelope.
    pub env: Option<String>,
    /// The service of every log and series. Absent: of a log the tag `app_name`, else its source.
    pub service: Option<String>,
    /// The source of every log, for Datadog's pipelines. Absent: `hydrant`.
    pub source: Option<String>,
    /// From one flush to the next. Absent: 10 s, with the preset 15 s.
    #[serde(deserialize_with = "some_duration", serialize_with = "some_text")]
    pub interval: Option<Duration>,
}

/// Names and tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DatadogPreset {
    /// As datadog-firehose-nozzle makes them.
    Nozzle,
}

/// A form of the metrics intake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DatadogApi {
    /// That of older receivers.
    V1,
    /// The present one.
    V2,
}

impl DatadogConfig {
    /// What it says, over the defaults.
    pub(crate) fn options(&self) -> Options {
        let defaults = if self.preset.is_some() { Options::nozzle() } else { Options::default() };
        Options {
            preset: if self.preset.is_some() { Preset::Nozzle } else { Preset::Plain },
            api: self.api.map_or(defaults.api, |api| if api == DatadogApi::V1 { Api::V1 } else { Api::V2 }),
            prefix: self.prefix.clone().unwrap_or(defaults.prefix),
            tags: self.tags.clone(),
            host: self.host.clone(),
            env: self.env.clone(),
            service: self.service.clone(),
            source: self.source.clone().unwrap_or(defaults.source),
            interval: self.interval.unwrap_or(defaults.interval),
            limits: defaults.limits,
        }
    }
}

fn some_duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration_text::deserialize(deserializer).map(Some)
}

fn some_text<S: serde::Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => duration_text::serialize(duration, serializer),
        None => serializer.serialize_none(),
    }
}
