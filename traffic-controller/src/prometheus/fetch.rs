//! Fetching series from the caches of all dopplers.
//!
//! What enters: what to select. What leaves: the series of each selection, in parts as they came, and who could not be asked. A doppler
//! that says that the request is wrong, or asks for too much, speaks for all.

use log_cache::querier;
use promql::{Labels, Matcher, Sample};
use proto::hydrant::v1;
use proto::hydrant::v1::samples_client::SamplesClient;
use proto::logcache::v1::EnvelopeType;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};
use transport::Address;

use super::answer::Failure;
use crate::recent::missing;
use crate::upstream::{Upstream, warn_missing};

/// Samples that are fetched for one query.
pub(super) const MAX_SAMPLES: usize = 1_000_000;

/// Series that are fetched for one query.
const MAX_SERIES: usize = 100_000;

/// The largest frame taken.
const MAX_FRAME: usize = 64 * 1024 * 1024;

/// One part of a series.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) labels: Labels,
    pub(super) samples: Vec<Sample>,
    pub(super) envelope_type: EnvelopeType,
    pub(super) unit: String,
}

/// What came of one selection.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    pub(super) parts: Vec<Part>,
    pub(super) missing: Vec<Address>,
}

/// A request for the series of these sources in `[start, end]` that came before the moment of a query, all in milliseconds.
pub(super) fn request(
    source_ids: Vec<String>,
    matchers: &[Matcher],
    (start, end): (i64, i64),
    before: Option<i64>,
    labels_only: bool,
) -> v1::SelectRequest {
    let matchers = matchers.iter().map(querier::matcher).collect();
    v1::SelectRequest { source_ids, matchers, start, end, labels_only, max_samples: MAX_SAMPLES as u64, before }
}

/// Asks every doppler of `upstream`, of which `left` samples may come.
pub(super) async fn fetch(
    upstream: &Upstream,
    request: &v1::SelectRequest,
    left: &mut usize,
    deadline: Instant,
) -> Result<Fetched, Failure> {
    let mut fetched = Fetched::default();
    if request.source_ids.is_empty() || request.start > request.end {
        return Ok(fetched);
    }
    let most = *left;
    let outcomes = upstream.ask_each(deadline, |channel| one(channel, request.clone(), most)).await;
    let (mut failed, mut answered) = (None, false);
    for (address, outcome) in outcomes {
        match outcome {
            Ok((parts, behind)) => {
                answered = true;
                fetched.missing.extend(behind);
                let samples: usize = parts.iter().map(|part| part.samples.len()).sum();
                *left = left.checked_sub(samples).ok_or_else(|| too_many("samples", MAX_SAMPLES))?;
                fetched.parts.extend(parts);
                if fetched.parts.len() > MAX_SERIES {
                    return Err(too_many("series", MAX_SERIES));
                }
            }
            Err(status) => match status.code() {
                Code::ResourceExhausted => return Err(Failure::TooMuch(status.message().to_owned())),
                Code::InvalidArgument => return Err(Failure::Bad(status.message().to_owned())),
                _ => {
                    warn_missing(&address, &status);
                    fetched.missing.push(address);
                    failed = Some(status);
                }
            },
        }
    }
    match failed {
        Some(status) if !answered && status.code() == Code::DeadlineExceeded => Err(Failure::Timeout),
        Some(status) if !answered && status.code() == Code::Unimplemented => {
            Err(Failure::Unavailable("no cache that could be asked knows queries".to_owned()))
        }
        Some(status) if !answered => Err(Failure::Unavailable(status.message().to_owned())),
        None if !answered => Err(Failure::Unavailable("no doppler is configured".to_owned())),
        _ => Ok(fetched),
    }
}

fn too_many(what: &str, most: usize) -> Failure {
    Failure::TooMuch(format!("the query would load more than {most} {what}; ask for less time, or for fewer series"))
}

/// What one of them has, and whom it could not ask in its turn.
async fn one(channel: Channel, request: v1::SelectRequest, most: usize) -> Result<(Vec<Part>, Vec<Address>), Status> {
    let mut client = SamplesClient::new(channel).max_decoding_message_size(MAX_FRAME);
    let response = client.select(request).await?;
    let missing = missing(response.metadata());
    let mut stream = response.into_inner();
    let (mut parts, mut samples) = (Vec::new(), 0);
    while let Some(frame) = stream.message().await? {
        for series in frame.series {
            samples += series.values.len();
            if samples > most || parts.len() == MAX_SERIES {
                let what = format!("the query would load more than {MAX_SAMPLES} samples or {MAX_SERIES} series");
                return Err(Status::resource_exhausted(what));
            }
            parts.push(part(series));
        }
    }
    Ok((parts, missing))
}

fn part(mut series: v1::Series) -> Part {
    let (envelope_type, unit) = (series.envelope_type(), std::mem::take(&mut series.unit));
    let promql::Series { labels, samples } = querier::series(series);
    Part { labels, samples, envelope_type, unit }
}
