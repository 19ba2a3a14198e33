//! Durations in configurations as people write them: `"60s"`, `"1m 30s"`. For `#[serde(with = "…")]`.

use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// Reads `"60s"`.
///
/// # Errors
/// Not a text, not a duration, or zero; the error shows how one is written.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    match humantime::parse_duration(&text) {
        Ok(Duration::ZERO) => Err(D::Error::custom("a duration of zero; write one like \"60s\"")),
        Ok(duration) => Ok(duration),
        Err(error) => Err(D::Error::custom(format!("{error}; a duration is written like \"60s\" or \"1m 30s\""))),
    }
}

/// Writes `"60s"`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}
