//! What series there are: names and values of labels, whole series, kinds and units of metrics.
//!
//! What enters: selectors, which need not name sources, and a span of time. What leaves: lists, for clients that complete what is typed.
//! Without sources those are meant that the caller reads, the busiest thousand of them.

use std::collections::{BTreeMap, BTreeSet};

use promql::{Limits, NAME, SeriesSelector, parse_time};
use proto::logcache::v1::{EnvelopeType, MetaRequest};
use serde_json::json;
use tokio::time::Instant;
use transport::Address;

use super::Params;
use super::answer::{Answer, Failure};
use super::engine::Engine;
use super::fetch::{self, Part};
use super::turns::Key;
use crate::auth::Visible;

/// The label that holds the source.
pub(super) const SOURCE: &str = "source_id";

/// Sources that are looked into when none are named.
const MAX_SOURCES: usize = 1000;

/// Selectors of one request.
const MAX_SELECTORS: usize = 16;

/// What a request asks for.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Those of all, if there is none.
    pub(super) selectors: Vec<SeriesSelector>,
    range: (i64, i64),
}

impl Wanted {
    /// Reads `match[]`, `start` and `end`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn read(params: &Params) -> Result<Self, Failure> {
        let bad =
            |name: &str, what: &dyn std::fmt::Display| Failure::Bad(format!("invalid parameter \"{name}\": {what}"));
        let selectors: Vec<&str> = params.all("match[]").collect();
        if selectors.len() > MAX_SELECTORS {
            return Err(bad("match[]", &format_args!("{} selectors; the most is {MAX_SELECTORS}", selectors.len())));
        }
        let parse =
            |text: &str| SeriesSelector::parse(text, &Limits::default()).map_err(|error| bad("match[]", &error));
        let time = |name: &str, otherwise| match params.get(name) {
            None | Some("") => Ok(otherwise),
            Some(text) => parse_time(text).map_err(|error| bad(name, &error)),
        };
        let range = (time("start", i64::MIN)?, time("end", i64::MAX)?);
        Ok(Self { selectors: selectors.into_iter().map(parse).collect::<Result<_, _>>()?, range })
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    parts: Vec<Part>,
    /// Sources, where only they are asked for.
    sources: Vec<String>,
    missing: Vec<Address>,
    warnings: Vec<String>,
}

impl Engine {
    /// The series that are wanted, of those that `visible` shows; with `sources_only` the sources alone.
    pub(super) async fn series(
        &self,
        wanted: &Wanted,
        visible: &Visible,
        sources_only: bool,
        key: Key,
        deadline: Instant,
    ) -> Result<Found, Failure> {
        let _turn = self.turns.take(key, deadline).await?;
        let mut found = Found::default();
        let needs_all = wanted.selectors.is_empty() || wanted.selectors.iter().any(|one| one.sources.is_none());
        let all = if needs_all { self.sources(visible, &mut found, deadline).await? } else { Vec::new() };
        if sources_only && wanted.selectors.is_empty() {
            found.sources = all;
            return Ok(found);
        }
        let mut left = fetch::MAX_SAMPLES;
        let everything = [SeriesSelector { sources: None, matchers: Vec::new() }];
        let selectors = if wanted.selectors.is_empty() { &everything[..] } else { &wanted.selectors };
        for selector in selectors {
            let sources = match &selector.sources {
                None => all.clone(),
                Some(named) => named.iter().filter(|id| visible.shows(id)).cloned().collect(),
            };
            let request = fetch::request(sources, &selector.matchers, wanted.range, None, true);
            let fetched = fetch::fetch(&self.upstream, &request, &mut left, deadline).await?;
            found.parts.extend(fetched.parts);
            found.missing.extend(fetched.missing);
        }
        found.missing.sort_unstable();
        found.missing.dedup();
        Ok(found)
    }

    /// The busiest sources that are shown.
    async fn sources(&self, visible: &Visible, found: &mut Found, deadline: Instant) -> Result<Vec<String>, Failure> {
        let answers = self.dopplers.meta(MetaRequest::default(), deadline).await?;
        let mut all: BTreeMap<&str, i64> = BTreeMap::new();
        for (id, info) in answers.answers.iter().flat_map(|(_, answer)| &answer.meta) {
            if visible.shows(id) {
                let sum = all.entry(id).or_default();
                *sum = sum.saturating_add(info.count).saturating_add(info.expired);
            }
        }
        found.missing.extend(answers.missing);
        let mut all: Vec<(&str, i64)> = all.into_iter().collect();
        if all.len() > MAX_SOURCES {
            found
                .warnings
                .push(format!("of {} sources only the busiest {MAX_SOURCES} were looked into; name some", all.len()));
            all.sort_by_key(|(id, count)| (std::cmp::Reverse(*count), *id));
            all.truncate(MAX_SOURCES);
        }
        let mut sources: Vec<String> = all.into_iter().map(|(id, _)| id.to_owned()).collect();
        sources.sort_unstable();
        Ok(sources)
    }
}

impl Found {
    /// The names of all labels.
    pub(super) fn labels(self) -> Answer {
        let names: BTreeSet<&str> =
            self.parts.iter().flat_map(|part| part.labels.iter().map(|(name, _)| name)).collect();
        self.answer(&json!(names))
    }

    /// The values of one label.
    pub(super) fn values(self, label: &str) -> Answer {
        let of_parts = self.parts.iter().filter_map(|part| part.labels.get(label));
        let values: BTreeSet<&str> = of_parts.chain(self.sources.iter().map(String::as_str)).collect();
        self.answer(&json!(values))
    }

    /// All series by their labels.
    pub(super) fn series(self) -> Answer {
        let series: BTreeSet<Vec<(&str, &str)>> = self.parts.iter().map(|part| part.labels.iter().collect()).collect();
        let series: Vec<BTreeMap<&str, &str>> = series.into_iter().map(|labels| labels.into_iter().collect()).collect();
        self.answer(&json!(series))
    }

    /// Kinds and units by metric; of `metric` alone, if it is named.
    pub(super) fn metadata(self, metric: Option<&str>) -> Answer {
        let mut all: BTreeMap<&str, BTreeSet<(&str, &str)>> = BTreeMap::new();
        for part in &self.parts {
            let name = part.labels.get(NAME).unwrap_or_default();
            if metric.is_none_or(|metric| metric.is_empty() || metric == name) {
                let kind = if part.envelope_type == EnvelopeType::Counter { "counter" } else { "gauge" };
                let unit = if part.envelope_type == EnvelopeType::Timer { "nanoseconds" } else { &part.unit };
                all.entry(name).or_default().insert((kind, unit));
            }
        }
        let entry = |(kind, unit): (&str, &str)| json!({ "type": kind, "help": "", "unit": unit });
        let data: BTreeMap<&str, Vec<serde_json::Value>> =
            all.into_iter().map(|(name, kinds)| (name, kinds.into_iter().map(entry).collect())).collect();
        self.answer(&json!(data))
    }

    fn answer(&self, data: &serde_json::Value) -> Answer {
        Answer::data(data, self.missing.clone(), &self.warnings)
    }
}
