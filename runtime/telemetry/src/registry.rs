//! Metric families: names, help, handles, and their text form.
//!
//! What enters: registrations, each with its help, and updates through handles that are plain atomics. What leaves: the
//! Prometheus text format 0.0.4. Names are checked when they are registered, so that a scrape never meets a bad one.
//! Handles come from the recorder inside a [`Telemetry`], never from the global macros.
//!
//! Families are never expired: handles are kept for the life of a server, and a family that was dropped from the
//! registry for being idle would leave its handle counting into nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio_util::sync::CancellationToken;

/// How often samples of histograms are folded into their buckets, so that they do not pile up between scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Upper bounds of histogram buckets by the unit that a name ends in.
const SECONDS: &[f64] = &[
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
const BYTES: &[f64] =
    &[64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];
const ENVELOPES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0];

/// The metrics of one role. Cloning shares them; [`Default`] makes a registry of its own.
#[derive(Clone)]
pub struct Telemetry {
    shared: Arc<Shared>,
}

struct Shared {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// What is registered, by name.
    families: Mutex<BTreeMap<&'static str, Family>>,
    /// Run before each rendering, in the order added.
    hooks: Mutex<Vec<Arc<dyn Fn() + Send + Sync>>>,
}

/// One registered metric family, as `docs/metrics.md` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// Full name, such as `hydrant_queue_offered_total`.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// One line: what is counted, in which unit.
    pub help: &'static str,
}

/// What kind of number a family holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts samples by size; its name ends in `_seconds`, `_bytes` or `_envelopes`.
    Histogram,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        let buckets = [("_seconds", SECONDS), ("_bytes", BYTES), ("_envelopes", ENVELOPES)];
        let recorder = buckets
            .into_iter()
            .fold(PrometheusBuilder::new(), |builder, (unit, bounds)| {
                builder
                    .set_buckets_for_metric(Matcher::Suffix(unit.to_owned()), bounds)
                    .expect("the bounds are not empty")
            })
            .build_recorder();
        let handle = recorder.handle();
        Self { shared: Arc::new(Shared { recorder, handle, families: Mutex::default(), hooks: Mutex::default() }) }
    }
}

impl Telemetry {
    /// Registers a counter, or gives another handle on it when name and labels are known.
    ///
    /// Label values come from closed lists, never from a tenant. Registering allocates and locks: keep the handle;
    /// adding to it is one atomic operation.
    ///
    /// # Panics
    ///
    /// `name` is not `snake_case` ending in `_total`, `help` is empty, or the name is registered with another kind or
    /// help. Names are written in the code: any test of the registering crate meets this.
    pub fn counter(&self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        if self.register(name, Kind::Counter, help, labels) {
            self.shared.recorder.describe_counter(KeyName::from_const_str(name), None, help.into());
        }
        self.shared.recorder.register_counter(&key(name, labels), &METADATA)
    }

    /// Registers a gauge, or gives another handle on it when name and labels are known.
    ///
    /// # Panics
    ///
    /// As [`counter`](Self::counter), but that a gauge's name does not end in `_total`.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        if self.register(name, Kind::Gauge, help, labels) {
            self.shared.recorder.describe_gauge(KeyName::from_const_str(name), None, help.into());
        }
        self.shared.recorder.register_gauge(&key(name, labels), &METADATA)
    }

    /// Registers a histogram, or gives another handle on it when name and labels are known.
    ///
    /// Its buckets follow from the unit that the name ends in: 100 µs to 60 s, 64 B to 16 MiB, or 1 to 10 000 envelopes.
    /// A sample costs a push onto a shared list, folded every 5 s: per batch or request, never per envelope.
    ///
    /// # Panics
    ///
    /// As [`counter`](Self::counter), but that a histogram's name ends in `_seconds`, `_bytes` or `_envelopes`.
    pub fn histogram(&self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)]) -> Histogram {
        if self.register(name, Kind::Histogram, help, labels) {
            self.shared.recorder.describe_histogram(KeyName::from_const_str(name), None, help.into());
        }
        self.shared.recorder.register_histogram(&key(name, labels), &METADATA)
    }

    /// Says on `/metrics` that an insecure choice is in force: `hydrant_insecure_mode{choice="…"} 1`.
    pub fn insecure_mode(&self, choice: &'static str) {
        self.gauge(
            "hydrant_insecure_mode",
            "1 while the named insecure choice of the configuration is in force.",
            &[("choice", choice)],
        )
        .set(1.0);
    }

    /// Runs `hook` before each rendering, to copy numbers kept elsewhere into handles. It must not block, and must not
    /// render.
    pub fn before_render(&self, hook: impl Fn() + Send + Sync + 'static) {
        lock(&self.shared.hooks).push(Arc::new(hook));
    }

    /// Everything registered, in the Prometheus text format 0.0.4. Families without a handle do not appear.
    pub fn render(&self) -> String {
        let hooks = lock(&self.shared.hooks).clone();
        for hook in hooks {
            hook();
        }
        self.shared.handle.render()
    }

    /// The registered families by name, to compare with `docs/metrics.md`.
    pub fn families(&self) -> Vec<Family> {
        lock(&self.shared.families).values().cloned().collect()
    }

    /// Folds histogram samples every 5 s until `stop`. [`Admin::serve`](crate::Admin::serve) does it already.
    pub async fn upkeep(&self, stop: &CancellationToken) {
        let mut tick = tokio::time::interval(UPKEEP_INTERVAL);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            self.shared.handle.run_upkeep();
        }
    }

    /// Enters the family; `true` when it is new.
    fn register(&self, name: &'static str, kind: Kind, help: &'static str, labels: &[(&'static str, &str)]) -> bool {
        let family = Family { name, kind, help };
        if let Some(fault) = fault(&family, labels) {
            panic!("metric {name:?}: {fault}");
        }
        let mut families = lock(&self.shared.families);
        match families.get(name) {
            None => {
                families.insert(name, family);
                true
            }
            Some(known) => {
                let known = known.clone();
                drop(families);
                assert!(known == family, "metric {name:?} is registered as {known:?}");
                false
            }
        }
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("families", &lock(&self.shared.families).len()).finish_non_exhaustive()
    }
}

/// The exporter does not read it.
const METADATA: Metadata<'static> = Metadata::new("hydrant", Level::INFO, None);

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> = labels.iter().map(|&(key, value)| Label::new(key, value.to_owned())).collect();
    Key::from_parts(name, labels)
}

/// What `promtool check metrics` would say, and our own rules on top.
fn fault(family: &Family, labels: &[(&'static str, &str)]) -> Option<&'static str> {
    let name = family.name;
    let snake = |text: &str| {
        text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let ends_in = |units: &[&str]| units.iter().any(|unit| name.ends_with(unit));
    if !snake(name) || !labels.iter().all(|(label, _)| snake(label)) {
        return Some("names and labels are snake_case");
    }
    if family.help.is_empty() || family.help.contains('\n') {
        return Some("help is one line that says what is counted");
    }
    if ends_in(&["_milliseconds", "_ms", "_us", "_nanoseconds", "_ns", "_kilobytes", "_kb", "_mb", "_minutes"]) {
        return Some("units are seconds and bytes");
    }
    if labels.iter().any(|(label, _)| matches!(*label, "le" | "quantile" | "source_id")) {
        return Some("le and quantile belong to the format, and a source is never a label");
    }
    match family.kind {
        Kind::Counter if !ends_in(&["_total"]) => Some("a counter ends in _total"),
        Kind::Gauge if ends_in(&["_total", "_count", "_sum", "_bucket"]) => Some("this ending is not a gauge's"),
        Kind::Histogram if !ends_in(&["_seconds", "_bytes", "_envelopes"]) => {
            Some("a histogram ends in its unit: _seconds, _bytes or _envelopes")
        }
        _ => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
