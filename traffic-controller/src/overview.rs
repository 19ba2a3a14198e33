//! What the whole pipeline holds and has counted: for `hydrant top`, `status` and the page.
//!
//! What enters: a question, now and then. What leaves: what every doppler answers, merged, with this process's own consumers and numbers
//! and the drains of the adapters that it knows; over gRPC as `hydrant.v1` Overview, over HTTP as JSON ([`json`]). Who may not read
//! everything is told of the sources that it may read, as if there were nothing else. Nothing is kept between questions.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::routing::get;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use proto::hydrant::v1;
use proto::hydrant::v1::overview_client::OverviewClient;
use proto::hydrant::v1::overview_server;
use telemetry::{StageNumbers, Telemetry};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};
use transport::{Address, MAX_MESSAGE_BYTES};

use crate::auth::{Authorizer, Caller, Grant};
use crate::gateway;
use crate::metrics::Metrics;
use crate::upstream::Upstream;

mod drains;
mod json;

/// How long those who are asked have for their answers.
const DEADLINE: Duration = Duration::from_secs(3);

/// Questions answered at once; others wait for their turn, within the deadline.
const AT_ONCE: usize = 8;

/// Sources, and consumers, of one answer.
const MAX_ROWS: usize = 10_000;

/// The service. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Overview {
    shared: Arc<Shared>,
}

struct Shared {
    upstream: Upstream,
    adapters: Vec<Address>,
    /// Where this process is found, for people.
    address: String,
    authorizer: Authorizer,
    metrics: Metrics,
    telemetry: Telemetry,
    turns: Semaphore,
}

impl Overview {
    /// Asks the dopplers of `upstream` and `adapters`; tells of this process under `address`.
    pub(crate) fn new(
        (upstream, adapters): (Upstream, Vec<Address>),
        address: String,
        authorizer: Authorizer,
        (metrics, telemetry): (Metrics, Telemetry),
    ) -> Self {
        let turns = Semaphore::new(AT_ONCE);
        Self { shared: Arc::new(Shared { upstream, adapters, address, authorizer, metrics, telemetry, turns }) }
    }

    /// `GET /v1/overview`.
    pub(crate) fn router(self) -> Router {
        Router::new().route("/v1/overview", get(answer)).with_state(self)
    }

    async fn look(&self, grant: &Grant) -> Result<v1::OverviewReply, Status> {
        let shared = &self.shared;
        // First, as others may have to be asked, whom nobody else is to wait for.
        let visible = grant.visible().await;
        let deadline = Instant::now() + DEADLINE;
        let turn = timeout_at(deadline, shared.turns.acquire()).await;
        let _turn = turn.map_err(|_| Status::resource_exhausted("too many look at once; try again"))?;
        let everything = visible.is_everything();
        let ask = |channel| async move {
            let mut client = OverviewClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
            client.get(v1::OverviewRequest {}).await.map(Response::into_inner)
        };
        let drains = async {
            if everything { drains::ask_all(&shared.adapters, deadline).await } else { drains::Answers::default() }
        };
        let (dopplers, drains) = tokio::join!(shared.upstream.ask_each(deadline, ask), drains);
        let mut merged = merge(dopplers, |source_id| visible.shows(source_id));
        merged.drains = drains.drains;
        merged.missing.extend(drains.missing.iter().map(ToString::to_string));
        if everything {
            merged.stages.push(shared.stage());
            merged.consumers.extend(shared.consumers());
            return Ok(merged);
        }
        Ok(v1::OverviewReply {
            time: merged.time,
            source_count: merged.sources.len() as u64,
            sources: merged.sources,
            missing: merged.missing,
            ..v1::OverviewReply::default()
        })
    }
}

#[tonic::async_trait]
impl overview_server::Overview for Overview {
    async fn get(&self, request: Request<v1::OverviewRequest>) -> Result<Response<v1::OverviewReply>, Status> {
        let caller = Caller::grpc(request.metadata(), request.extensions());
        let grant = self.shared.authorizer.authenticate(&caller).await?;
        self.look(&grant).await.map(Response::new)
    }
}

async fn answer(State(overview): State<Overview>, request: HttpRequest) -> HttpResponse {
    let grant = match overview.shared.authorizer.authenticate(&Caller::browser(&request)).await {
        Ok(grant) => grant,
        Err(denied) => return gateway::refused(denied),
    };
    match overview.look(&grant).await {
        Ok(reply) => {
            ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], json::put(&reply)).into_response()
        }
        Err(status) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", status.message())).into_response(),
    }
}

impl Shared {
    fn stage(&self) -> v1::StageInfo {
        let StageNumbers { received, delivered, dropped } = StageNumbers::of(&self.telemetry, "traffic_controller");
        let dropped = dropped.into_iter().map(|(reason, envelopes)| v1::Dropped { reason, envelopes }).collect();
        v1::StageInfo {
            stage: "traffic_controller".to_owned(),
            address: self.address.clone(),
            received,
            delivered,
            dropped,
        }
    }

    /// Those who read here; who waits for most stands first.
    fn consumers(&self) -> Vec<v1::ConsumerInfo> {
        let mut all: Vec<_> = self.metrics.consumers().collect();
        all.sort_by_key(|(_, counters)| Reverse(counters.envelopes));
        all.truncate(MAX_ROWS);
        let consumer = |(name, counters): (String, diode::fair::Counters)| v1::ConsumerInfo {
            stage: "traffic_controller".to_owned(),
            address: self.address.clone(),
            name,
            waiting_envelopes: counters.envelopes as u64,
            waiting_bytes: counters.bytes as u64,
            taken: counters.taken,
            dropped: counters.evicted,
        };
        all.into_iter().map(consumer).collect()
    }
}

/// One answer of those of every doppler: sources that are shown, summed up, stages and subscriptions side by side, under their doppler's
/// address.
fn merge(
    answers: Vec<(Address, Result<v1::OverviewReply, Status>)>,
    shows: impl Fn(&str) -> bool,
) -> v1::OverviewReply {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut merged =
        v1::OverviewReply { time: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX), ..Default::default() };
    let mut sources: HashMap<String, v1::SourceInfo> = HashMap::new();
    let mut unseen = 0;
    for (address, answer) in answers {
        let Ok(reply) = answer else {
            merged.missing.push(address.to_string());
            continue;
        };
        unseen += reply.source_count.saturating_sub(reply.sources.len() as u64);
        // First of all: what is not shown takes no row either.
        for source in reply.sources.into_iter().filter(|source| shows(&source.source_id)) {
            match sources.get_mut(&source.source_id) {
                Some(known) => add(known, &source),
                None => _ = sources.insert(source.source_id.clone(), source),
            }
        }
        let here = address.to_string();
        merged.stages.extend(reply.stages.into_iter().map(|stage| v1::StageInfo { address: here.clone(), ..stage }));
        let consumer = |consumer| v1::ConsumerInfo { address: here.clone(), ..consumer };
        merged.consumers.extend(reply.consumers.into_iter().map(consumer));
    }
    merged.source_count = sources.len() as u64 + unseen;
    merged.sources = sources.into_values().collect();
    merged.sources.sort_by(|a, b| b.envelopes.cmp(&a.envelopes).then_with(|| a.source_id.cmp(&b.source_id)));
    merged.sources.truncate(MAX_ROWS);
    merged
}

fn add(known: &mut v1::SourceInfo, more: &v1::SourceInfo) {
    known.envelopes += more.envelopes;
    known.bytes += more.bytes;
    known.held += more.held;
    known.oldest_timestamp = known.oldest_timestamp.min(more.oldest_timestamp);
    known.newest_timestamp = known.newest_timestamp.max(more.newest_timestamp);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(id: &str, envelopes: u64, oldest: i64) -> v1::SourceInfo {
        v1::SourceInfo {
            source_id: id.to_owned(),
            envelopes,
            bytes: 10 * envelopes,
            held: envelopes,
            oldest_timestamp: oldest,
            newest_timestamp: oldest + 1,
        }
    }

    #[test]
    fn sources_are_summed_up_and_the_rest_stands_under_its_doppler() {
        let reply = |sources: Vec<v1::SourceInfo>, source_count| v1::OverviewReply {
            sources,
            source_count,
            stages: vec![v1::StageInfo { stage: "doppler".to_owned(), ..v1::StageInfo::default() }],
            consumers: vec![v1::ConsumerInfo { name: "#1".to_owned(), ..v1::ConsumerInfo::default() }],
            ..v1::OverviewReply::default()
        };
        let at = |text: &str| text.parse::<Address>().unwrap();
        let answers = vec![
            (at("a:1"), Ok(reply(vec![source("x", 3, 5), source("y", 2, 1)], 4))),
            (at("b:1"), Err(Status::unavailable("away"))),
            (at("c:1"), Ok(reply(vec![source("y", 2, 9)], 1))),
        ];
        let merged = merge(answers, |_| true);
        let shown: Vec<_> = merged.sources.iter().map(|s| (s.source_id.as_str(), s.envelopes, s.bytes)).collect();
        assert_eq!(shown, [("y", 4, 40), ("x", 3, 30)]);
        assert_eq!((merged.sources[0].oldest_timestamp, merged.sources[0].newest_timestamp), (1, 10));
        assert_eq!((merged.source_count, merged.missing), (4, vec!["b:1".to_owned()]));
        let places: Vec<_> = merged.consumers.iter().map(|consumer| consumer.address.as_str()).collect();
        assert_eq!(places, ["a:1", "c:1"]);
        assert_eq!(merged.stages[1].address, "c:1");
    }

    #[test]
    fn what_is_not_shown_takes_no_row() {
        let loud = (0..MAX_ROWS as u64).map(|i| source(&format!("loud-{i}"), 9, 1));
        let sources = loud.chain([source("own", 1, 1)]).collect();
        let reply = v1::OverviewReply { sources, ..v1::OverviewReply::default() };
        let merged = merge(vec![("a:1".parse().unwrap(), Ok(reply))], |id| id == "own");
        assert_eq!(merged.sources, [source("own", 1, 1)]);
    }
}
