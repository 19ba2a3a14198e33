//! Reads and summaries over gRPC: `logcache.v1.Egress`, over the caches of all dopplers.
//!
//! What enters: requests as clients of a log-cache node send them. What leaves: the merged answers of the HTTP port, as messages; who could
//! not be asked stands in the metadata `x-hydrant-partial`.

use bytes::Bytes;
use proto::logcache::v1;
use proto::logcache::v1::egress_server::{Egress, EgressServer};
use proto::raw::wire;
use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};
use transport::Address;

use super::error::Refusal;
use super::{Cache, DEADLINE, MAX_ANSWER, MAX_SOURCE_ID, PARTIAL};
use crate::auth::{Access, Caller};

/// What framing may add to an answer.
const FRAMING: usize = 64;

impl Cache {
    /// The same over gRPC.
    pub(crate) fn service(&self) -> EgressServer<Self> {
        EgressServer::new(self.clone()).max_encoding_message_size(MAX_ANSWER + FRAMING)
    }
}

#[tonic::async_trait]
impl Egress for Cache {
    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<v1::ReadResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        if request.source_id.len() > MAX_SOURCE_ID {
            let what = format!("source_id is longer than {MAX_SOURCE_ID} bytes");
            return Err(Refusal::Parameter(what).into());
        }
        let authorizer = &self.shared.authorizer;
        let mut grant = authorizer.authenticate(&Caller::grpc(&metadata, &extensions)).await?;
        grant.admit(Access::Source(&request.source_id)).await?;
        let (page, answers, _turn) = self.shared.page(&request, Instant::now() + DEADLINE).await?;
        let mut batch = Vec::new();
        page.envelopes().for_each(|envelope| wire::put_bytes(&mut batch, 1, envelope));
        let (partial, reached) = (page.reached.is_some(), page.reached.unwrap_or_default());
        let envelopes = Some(Bytes::from(batch));
        Ok(with_partial(v1::ReadResponse { envelopes, partial, reached }, &answers.missing))
    }

    /// Of the sources that the caller reads.
    async fn meta(&self, request: Request<v1::MetaRequest>) -> Result<Response<v1::MetaResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let grant = self.shared.authorizer.authenticate(&Caller::grpc(&metadata, &extensions)).await?;
        let (meta, missing) = self.shared.summary(request, &grant).await?;
        let meta = meta.into_iter().map(|(source_id, meta)| (source_id, meta.into())).collect();
        Ok(with_partial(v1::MetaResponse { meta }, &missing))
    }
}

/// A response that names who could not be asked.
pub(crate) fn with_partial<T>(message: T, missing: &[Address]) -> Response<T> {
    let mut response = Response::new(message);
    if !missing.is_empty() {
        let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
        let missing = MetadataValue::try_from(missing.join(", ")).expect("addresses are ASCII without controls");
        response.metadata_mut().insert(PARTIAL, missing);
    }
    response
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code(), refusal.to_string())
    }
}
