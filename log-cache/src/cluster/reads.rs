//! Reads of what other nodes keep: of one source at its owner, of summaries at all of them.
//!
//! What enters: requests that came here. What leaves: what the owner answers, or nothing where it is away, and then the answer says so
//! ([`PARTIAL`]): clients of the original ask on and on until there is something, and an error would end them. A request that was passed
//! on is marked, so that nodes whose lists differ do not pass it round.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use proto::hydrant::v1 as hydrant;
use proto::hydrant::v1::samples_client::SamplesClient;
use proto::logcache::v1;
use proto::logcache::v1::egress_client::EgressClient;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tracing::warn;
use transport::{Address, Throttle};

use super::{Cluster, Peer};
use crate::metrics::Passed;
use crate::read::MAX_ANSWER;

/// Names the nodes whose envelopes are missing from an answer.
const PARTIAL: &str = "x-hydrant-partial";

/// Marks a request that another node has passed on: the answer is what this one keeps.
const HOP: &str = "x-hydrant-hop";

/// How long other nodes have; less than those who ask us wait.
const WITHIN: Duration = Duration::from_secs(4);

/// How long a summary of all nodes holds.
const META_HOLDS: Duration = Duration::from_secs(1);

/// What the response's framing may add to an answer.
const FRAMING: usize = 1024;

/// A summary of all nodes.
#[derive(Clone, Debug)]
pub(super) struct MetaAnswer {
    at: Instant,
    meta: Arc<HashMap<String, v1::MetaInfo>>,
    missing: Arc<[Address]>,
}

/// What other nodes have of a selection.
#[derive(Default)]
pub(crate) struct Elsewhere {
    pub(crate) frames: Vec<hydrant::SelectFrame>,
    /// Who could not be asked.
    missing: Option<AsciiMetadataValue>,
}

impl Elsewhere {
    /// A response that says who could not be asked.
    pub(crate) fn response<T>(self, message: T) -> Response<T> {
        with_partial(message, self.missing)
    }
}

/// All frames of one node. Samples are bounded by what the request says, which the node keeps to.
async fn frames(
    channel: Channel,
    request: Request<hydrant::SelectRequest>,
) -> Result<Vec<hydrant::SelectFrame>, Status> {
    let mut client = SamplesClient::new(channel).max_decoding_message_size(MAX_ANSWER);
    let mut stream = client.select(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(frame) = stream.message().await? {
        all.push(frame);
    }
    Ok(all)
}

/// True for a request that another node has passed on.
pub(crate) fn is_passed_on(metadata: &MetadataMap) -> bool {
    metadata.contains_key(HOP)
}

impl Cluster {
    /// What the owner of the source answers; `None` when that is this node.
    pub(crate) async fn read(&self, request: &v1::ReadRequest) -> Option<Result<Response<v1::ReadResponse>, Status>> {
        let owner = self.elsewhere(&request.source_id)?;
        let answer = self.ask(owner, |mut client| {
            let request = passed_on(request.clone());
            async move { client.read(request).await }
        });
        let passed = &self.shared.metrics;
        Some(match answer.await {
            Ok(answer) => {
                passed.read(Passed::Answered);
                let partial = answer.metadata().get(PARTIAL).cloned();
                let mut answer = answer.into_inner();
                let envelopes = Some(answer.envelopes.take().unwrap_or_default());
                Ok(with_partial(v1::ReadResponse { envelopes, ..answer }, partial))
            }
            Err(status) if is_away(&status) => {
                passed.read(Passed::Away);
                warn_missing(owner, &status);
                let nothing = v1::ReadResponse { envelopes: Some(bytes::Bytes::new()), ..v1::ReadResponse::default() };
                Ok(with_partial(nothing, named([&owner.address].into_iter())))
            }
            Err(status) => {
                passed.read(Passed::Failed);
                // What our own client says of an answer over its limit.
                let code = if status.code() == Code::OutOfRange { Code::ResourceExhausted } else { status.code() };
                Err(Status::new(code, status.message()))
            }
        })
    }

    /// Takes the sources of other nodes out of a request, and asks their owners. What they answer, and who could not be asked: also one
    /// that does not know how, as an original node.
    pub(crate) async fn samples(&self, request: &mut hydrant::SelectRequest) -> Result<Elsewhere, Status> {
        let mut by_owner: HashMap<&Address, (&Peer, Vec<String>)> = HashMap::new();
        let mut own = Vec::new();
        for id in std::mem::take(&mut request.source_ids) {
            match self.elsewhere(&id) {
                None => own.push(id),
                Some(peer) => by_owner.entry(&peer.address).or_insert_with(|| (peer, Vec::new())).1.push(id),
            }
        }
        let asked: Vec<_> = by_owner.into_values().collect();
        let answers = asked.iter().map(|(peer, ids)| {
            let request = passed_on(hydrant::SelectRequest { source_ids: ids.clone(), ..request.clone() });
            timeout(WITHIN, frames(peer.channel.clone(), request))
        });
        let answers = join_all(answers.collect::<Vec<_>>()).await;
        request.source_ids = own;
        let (mut all, mut missing) = (Vec::new(), Vec::new());
        for ((peer, _), answer) in asked.iter().zip(answers) {
            let late = |_| Err(Status::deadline_exceeded("a cache node did not answer in time"));
            match answer.unwrap_or_else(late) {
                Ok(frames) => all.extend(frames),
                Err(status) if matches!(status.code(), Code::ResourceExhausted | Code::InvalidArgument) => {
                    return Err(status);
                }
                Err(status) => {
                    warn_missing(peer, &status);
                    missing.push(&peer.address);
                }
            }
        }
        Ok(Elsewhere { frames: all, missing: named(missing.into_iter()) })
    }

    /// The summaries of all nodes together, `own` being this one's. Not older than a second.
    pub(crate) async fn meta(&self, own: impl FnOnce() -> HashMap<String, v1::MetaInfo>) -> Response<v1::MetaResponse> {
        let kept = self.shared.meta.lock().clone().filter(|kept| kept.at.elapsed() < META_HOLDS);
        let answer = match kept {
            Some(kept) => kept,
            None => {
                let answer = self.ask_for_meta(own()).await;
                *self.shared.meta.lock() = Some(answer.clone());
                answer
            }
        };
        let meta = v1::MetaResponse { meta: HashMap::clone(&answer.meta) };
        with_partial(meta, named(answer.missing.iter()))
    }

    async fn ask_for_meta(&self, mut meta: HashMap<String, v1::MetaInfo>) -> MetaAnswer {
        let at = Instant::now();
        let answers = self.peers().map(|peer| {
            let request = passed_on(v1::MetaRequest { local_only: true, details: true, ..v1::MetaRequest::default() });
            self.ask(peer, |mut client| async move { client.meta(request).await })
        });
        let answers = join_all(answers.collect::<Vec<_>>()).await;
        let mut missing = Vec::new();
        for (peer, answer) in self.peers().zip(answers) {
            match answer {
                Ok(answer) => answer.into_inner().meta.into_iter().for_each(|(id, info)| add(&mut meta, id, info)),
                Err(status) => {
                    warn_missing(peer, &status);
                    missing.push(peer.address.clone());
                }
            }
        }
        MetaAnswer { at, meta: Arc::new(meta), missing: missing.into() }
    }

    /// Asks a node, in its turn, for at most [`WITHIN`].
    async fn ask<T, F>(&self, peer: &Peer, ask: impl FnOnce(EgressClient<Channel>) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let deadline = Instant::now() + WITHIN;
        let late = |_| Status::deadline_exceeded("a cache node did not answer in time");
        let turn = timeout_at(deadline, self.shared.turns.acquire()).await.map_err(late)?;
        let _turn = turn.expect("nobody closes the semaphore");
        let client = EgressClient::new(peer.channel.clone()).max_decoding_message_size(MAX_ANSWER + FRAMING);
        timeout_at(deadline, ask(client)).await.map_err(late)?
    }
}

/// Adds what a node says of a source.
fn add(meta: &mut HashMap<String, v1::MetaInfo>, id: String, info: v1::MetaInfo) {
    match meta.entry(id) {
        Entry::Vacant(entry) => drop(entry.insert(info)),
        Entry::Occupied(mut entry) => {
            let sum = entry.get_mut();
            sum.count = sum.count.saturating_add(info.count);
            sum.expired = sum.expired.saturating_add(info.expired);
            sum.oldest_timestamp = sum.oldest_timestamp.min(info.oldest_timestamp);
            sum.newest_timestamp = sum.newest_timestamp.max(info.newest_timestamp);
            sum.bytes = sum.bytes.saturating_add(info.bytes);
            sum.rate += info.rate;
        }
    }
}

fn passed_on<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(HOP, AsciiMetadataValue::from_static("1"));
    request
}

fn named<'a>(nodes: impl Iterator<Item = &'a Address>) -> Option<AsciiMetadataValue> {
    let names: Vec<String> = nodes.map(Address::to_string).collect();
    let names = (!names.is_empty()).then(|| names.join(", "))?;
    Some(AsciiMetadataValue::try_from(names).expect("addresses are ASCII without controls"))
}

fn with_partial<T>(message: T, partial: Option<AsciiMetadataValue>) -> Response<T> {
    let mut response = Response::new(message);
    if let Some(partial) = partial {
        response.metadata_mut().insert(PARTIAL, partial);
    }
    response
}

/// True when the node could not be asked. What our side makes of a broken connection may have other codes, but it has a source.
fn is_away(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => true,
        Code::Unknown | Code::Internal => std::error::Error::source(status).is_some(),
        _ => false,
    }
}

fn warn_missing(peer: &Peer, status: &Status) {
    static AWAY: Throttle = Throttle::every(Duration::from_secs(10));
    if let Some(suppressed) = AWAY.pass() {
        let (node, code, message) = (&peer.address, status.code(), status.message());
        warn!(%node, ?code, message, suppressed, "Cache node could not be asked, answer is partial");
    }
}
