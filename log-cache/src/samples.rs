//! Samples over gRPC: `hydrant.v1` Samples.
//!
//! What enters: requests of those who evaluate queries. What leaves: series in frames of some hundred KiB. A selection may look into all
//! that a source holds, so it runs where nobody else waits, a few at a time.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, stream};
use promql::{Limits, MatchOp, Matcher};
use proto::hydrant::v1;
use proto::hydrant::v1::samples_server::Samples;
use proto::logcache::v1::EnvelopeType;
use proto::raw::Kind;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::cluster::{Elsewhere, is_passed_on};
use crate::node::Node;
use crate::select::{Select, SelectError, SelectLimits, Selected};
use crate::store::Store;

/// Samples of one answer.
const MAX_SAMPLES: usize = 1_000_000;

/// Series of one answer.
const MAX_SERIES: usize = 100_000;

/// Sources and matchers of one request.
const MAX_NAMED: usize = 1000;

/// Selections at once; others wait.
const AT_ONCE: usize = 4;

/// Samples in one frame.
const FRAME: usize = 16_384;

/// Labels and series in one frame, by number.
const FRAME_SERIES: usize = 500;

/// The implementation of `hydrant.v1.Samples`.
#[derive(Clone, Debug)]
pub struct SamplesService {
    node: Node,
    turns: Arc<Semaphore>,
}

impl SamplesService {
    pub(crate) fn new(node: Node) -> Self {
        Self { node, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// What is selected, in frames; with `everywhere`, of the nodes that own the sources, and then also who of them could not be asked.
    ///
    /// # Errors
    /// The request is wrong, or asks for too much.
    pub(crate) async fn frames(
        &self,
        mut request: v1::SelectRequest,
        everywhere: bool,
    ) -> Result<Response<Vec<v1::SelectFrame>>, Status> {
        let mut elsewhere = match &self.node.cluster {
            Some(cluster) if everywhere => cluster.samples(&mut request).await?,
            _ => Elsewhere::default(),
        };
        let mut frames = std::mem::take(&mut elsewhere.frames);
        let (sources, select, limits) = parse(request)?;
        let turns = Arc::clone(&self.turns);
        let turn = turns.acquire_owned().await.map_err(|_| Status::unavailable("the cache is stopping"))?;
        let store = self.node.store.clone();
        let task = tokio::task::spawn_blocking(move || {
            let found = all(&store, sources, select, limits);
            drop(turn);
            found
        });
        let found = task.await.map_err(|_| Status::internal("the selection failed"))?;
        frames.extend(found.map_err(|error| Status::resource_exhausted(error.to_string()))?);
        let count = |frame: &v1::SelectFrame| frame.series.iter().map(|series| series.values.len()).sum::<usize>();
        if frames.iter().map(count).sum::<usize>() > limits.samples {
            return Err(Status::resource_exhausted(SelectError::Samples(limits.samples).to_string()));
        }
        Ok(elsewhere.response(frames))
    }
}

#[tonic::async_trait]
impl Samples for SamplesService {
    type SelectStream = Pin<Box<dyn Stream<Item = Result<v1::SelectFrame, Status>> + Send>>;

    async fn select(&self, request: Request<v1::SelectRequest>) -> Result<Response<Self::SelectStream>, Status> {
        let everywhere = !is_passed_on(request.metadata());
        let (metadata, frames, extensions) = self.frames(request.into_inner(), everywhere).await?.into_parts();
        let frames: Self::SelectStream = Box::pin(stream::iter(frames.into_iter().map(Ok)));
        Ok(Response::from_parts(metadata, frames, extensions))
    }
}

/// The sources, what to select of each, and how much of all.
fn parse(request: v1::SelectRequest) -> Result<(Vec<String>, Select, SelectLimits), Status> {
    if request.source_ids.len() > MAX_NAMED || request.matchers.len() > MAX_NAMED {
        return Err(Status::invalid_argument(format!("more than {MAX_NAMED} sources or matchers; ask several times")));
    }
    let matcher = |matcher: &v1::Matcher| {
        let op = match matcher.op() {
            v1::matcher::Op::Equal => MatchOp::Equal,
            v1::matcher::Op::NotEqual => MatchOp::NotEqual,
            v1::matcher::Op::Regex => MatchOp::Regex,
            v1::matcher::Op::NotRegex => MatchOp::NotRegex,
        };
        let compiled = Matcher::compile(&matcher.label, op, &matcher.value, &Limits::default());
        compiled.map_err(|what| Status::invalid_argument(format!("matcher of label {:?}: {what}", matcher.label)))
    };
    let matchers = request.matchers.iter().map(matcher).collect::<Result<_, _>>()?;
    let (start, end, labels_only) = (request.start, request.end, request.labels_only);
    let select = Select { source_id: String::new(), matchers, start, end, before: request.before, labels_only };
    let samples = match usize::try_from(request.max_samples) {
        Ok(0) | Err(_) => MAX_SAMPLES,
        Ok(some) => some.min(MAX_SAMPLES),
    };
    Ok((request.source_ids, select, SelectLimits { samples, series: MAX_SERIES }))
}

fn all(
    store: &Store,
    sources: Vec<String>,
    mut select: Select,
    limits: SelectLimits,
) -> Result<Vec<v1::SelectFrame>, SelectError> {
    let mut left = limits;
    let mut frames = Frames::default();
    for source_id in sources {
        select.source_id = source_id;
        let found = store.select(&select, left).map_err(|error| match error {
            SelectError::Samples(_) => SelectError::Samples(limits.samples),
            SelectError::Series(_) => SelectError::Series(limits.series),
        })?;
        left.series -= found.len();
        left.samples -= found.iter().map(|series| series.samples.len()).sum::<usize>();
        found.into_iter().for_each(|series| frames.put(&series));
    }
    frames.all.push(frames.now);
    Ok(frames.all)
}

/// Series cut into frames.
#[derive(Default)]
struct Frames {
    all: Vec<v1::SelectFrame>,
    now: v1::SelectFrame,
    samples: usize,
}

impl Frames {
    fn put(&mut self, series: &Selected) {
        let label = |(name, value): (&str, &str)| v1::Label { name: name.to_owned(), value: value.to_owned() };
        let labels: Vec<v1::Label> = series.labels.iter().map(label).collect();
        let envelope_type = match series.kind {
            Kind::Counter => EnvelopeType::Counter,
            Kind::Timer => EnvelopeType::Timer,
            _ => EnvelopeType::Gauge,
        };
        let mut rest = series.samples.as_slice();
        loop {
            let (now, later) = rest.split_at(rest.len().min(FRAME.saturating_sub(self.samples)));
            let mut before = 0;
            let step = |sample: &promql::Sample| {
                let second = sample.at.div_euclid(1000);
                let step = second - before;
                before = second;
                step
            };
            self.now.series.push(v1::Series {
                labels: labels.clone(),
                steps: now.iter().map(step).collect(),
                values: now.iter().map(|sample| sample.value).collect(),
                envelope_type: envelope_type.into(),
                unit: series.unit.clone(),
            });
            self.samples += now.len();
            if self.samples >= FRAME || self.now.series.len() >= FRAME_SERIES {
                self.all.push(std::mem::take(&mut self.now));
                self.samples = 0;
            }
            rest = later;
            if rest.is_empty() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use promql::{Labels, Sample};

    use super::*;

    #[test]
    fn a_long_series_goes_on_in_later_frames() {
        let series = |len: i64| Selected {
            labels: Labels::new([("__name__", "x"), ("source_id", "a")]),
            samples: (0..len).map(|i| Sample { at: (100 + i / 3) * 1000, value: i as f64 }).collect(),
            kind: Kind::Timer,
            unit: String::new(),
        };
        let mut frames = Frames::default();
        frames.put(&series(10));
        frames.put(&series(2 * FRAME as i64));
        frames.all.push(frames.now);
        let sizes: Vec<Vec<usize>> =
            frames.all.iter().map(|frame| frame.series.iter().map(|series| series.values.len()).collect()).collect();
        assert_eq!(sizes, [vec![10, FRAME - 10], vec![FRAME], vec![10]]);
        let first = &frames.all[0].series[0];
        assert_eq!(first.steps, [100, 0, 0, 1, 0, 0, 1, 0, 0, 1]);
        assert_eq!(frames.all[2].series[0].steps[0], 100 + (2 * FRAME as i64 - 10) / 3);
        assert_eq!(first.envelope_type(), EnvelopeType::Timer);
    }

    #[test]
    fn what_cannot_be_asked_is_told() {
        let request = |pattern: &str| v1::SelectRequest {
            matchers: vec![v1::Matcher { label: "a".to_owned(), op: 2, value: pattern.to_owned() }],
            ..v1::SelectRequest::default()
        };
        assert!(parse(request("x|y")).is_ok());
        assert!(parse(request("(")).unwrap_err().message().starts_with("matcher of label \"a\": "));
        let many = v1::SelectRequest { source_ids: vec![String::new(); MAX_NAMED + 1], ..v1::SelectRequest::default() };
        assert_eq!(parse(many).unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}
