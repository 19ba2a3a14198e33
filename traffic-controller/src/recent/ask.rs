//! Asking every doppler's cache at once.
//!
//! What enters: one request. What leaves: the answers, in the order of the dopplers, and who could not be asked. A doppler that says
//! the request is wrong speaks for all; one that is away, late or has no cache is missing from the answer and nothing else.

use proto::logcache::v1;
use proto::logcache::v1::egress_client::EgressClient;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use transport::Address;

use super::PARTIAL;
use super::error::Refusal;
use super::merge::MAX_ANSWER;
use crate::upstream::{Upstream, warn_missing};

/// What framing may add to an answer.
const FRAMING: usize = 1024;

/// The caches of all dopplers.
pub(crate) struct Dopplers(Upstream);

/// What dopplers answered, and which did not.
pub(crate) struct Answers<T> {
    /// At least one, in the order of the dopplers.
    pub(crate) answers: Vec<(Address, T)>,
    /// Dopplers and cache nodes whose envelopes are missing.
    pub(crate) missing: Vec<Address>,
}

impl Dopplers {
    pub(crate) fn new(upstream: Upstream) -> Self {
        Self(upstream)
    }

    /// Reads from all of them.
    pub(super) async fn read(
        &self,
        request: &v1::ReadRequest,
        deadline: Instant,
    ) -> Result<Answers<v1::ReadResponse>, Refusal> {
        let read = |mut client: EgressClient<Channel>| {
            let request = request.clone();
            async move { client.read(request).await }
        };
        self.each(deadline, read).await
    }

    /// Has all of them sum up their sources.
    pub(crate) async fn meta(
        &self,
        request: v1::MetaRequest,
        deadline: Instant,
    ) -> Result<Answers<v1::MetaResponse>, Refusal> {
        let meta = |mut client: EgressClient<Channel>| {
            let request = request.clone();
            async move { client.meta(request).await }
        };
        self.each(deadline, meta).await
    }

    async fn each<T, F>(
        &self,
        deadline: Instant,
        ask: impl Fn(EgressClient<Channel>) -> F,
    ) -> Result<Answers<T>, Refusal>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let client = |channel| EgressClient::new(channel).max_decoding_message_size(MAX_ANSWER + FRAMING);
        let outcomes = self.0.ask_each(deadline, |channel| ask(client(channel))).await;
        let mut all = Answers { answers: Vec::new(), missing: Vec::new() };
        let mut failed = None;
        for (address, outcome) in outcomes {
            match outcome {
                Ok(answer) => {
                    all.missing.extend(missing(answer.metadata()));
                    all.answers.push((address, answer.into_inner()));
                }
                Err(status) if concerns_request(&status) => return Err(Refusal::Doppler(status)),
                Err(status) => {
                    warn_missing(&address, &status);
                    all.missing.push(address);
                    failed.get_or_insert(status);
                }
            }
        }
        match (all.answers.is_empty(), failed) {
            (false, _) => Ok(all),
            (true, None) => Err(Refusal::NoDoppler),
            (true, Some(status)) if status.code() == Code::DeadlineExceeded => Err(Refusal::Doppler(status)),
            (true, Some(status)) => Err(Refusal::Doppler(Status::unavailable(status.message()))),
        }
    }
}

/// The nodes that an answer says were missing from it: a cache node answers for others of its cluster.
pub(crate) fn missing(metadata: &MetadataMap) -> Vec<Address> {
    let values = metadata.get_all(PARTIAL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|address| address.trim().parse().ok()).collect()
}

/// True when another doppler would say the same of the request. What our side makes of a broken connection may be UNKNOWN too, but it
/// has a source.
fn concerns_request(status: &Status) -> bool {
    match status.code() {
        Code::Unknown => std::error::Error::source(status).is_none(),
        Code::InvalidArgument | Code::ResourceExhausted | Code::OutOfRange => true,
        _ => false,
    }
}
