//! Queries over gRPC: `logcache.v1` PromQLQuerier, over the caches of all dopplers.
//!
//! What enters: requests as clients of a log-cache node send them. What leaves: merged answers; who could not be asked stands in the
//! metadata `x-hydrant-partial`.

use std::sync::Arc;

use log_cache::querier;
use promql::{Limits, Query, Span, Value};
use proto::logcache::v1::prom_ql;
use proto::logcache::v1::prom_ql_querier_server::PromQlQuerier;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};
use transport::Address;

use super::answer::Failure;
use super::engine::{self, Engine};
use super::{admitted, turns};
use crate::auth::{Authorizer, Caller};
use crate::metrics::Outcome;
use crate::recent::with_partial;

/// `logcache.v1.PromQLQuerier`.
#[derive(Clone)]
pub(crate) struct QueryService {
    engine: Arc<Engine>,
    authorizer: Authorizer,
}

impl QueryService {
    pub(super) fn new(engine: Arc<Engine>, authorizer: Authorizer) -> Self {
        Self { engine, authorizer }
    }

    async fn ask<T, U: Send + 'static>(
        &self,
        request: Request<T>,
        read: impl FnOnce(T) -> Result<(Query, Span), Failure>,
        write: impl FnOnce(Value) -> U + Send + 'static,
    ) -> Result<Response<U>, Status> {
        let deadline = Instant::now() + engine::TIMEOUT;
        let (metadata, extensions, request) = request.into_parts();
        let (began, mut is_range) = (Instant::now(), false);
        let outcome = async {
            let grant = self.authorizer.authenticate(&Caller::grpc(&metadata, &extensions)).await?;
            let (query, span) = read(request)?;
            is_range = span.is_range();
            let query = admitted(query, grant).await?;
            let key = turns::key(&metadata.into_headers(), self.authorizer.is_none());
            let done = |value, missing: Vec<Address>| Ok((write(value), missing));
            Ok::<_, Status>(self.engine.evaluate(query, span, key, deadline, done).await?)
        };
        let outcome = outcome.await;
        let counted = outcome.as_ref().map_or_else(of_status, |_| Outcome::Answered);
        self.engine.count(counted, is_range, began);
        let (result, missing) = outcome?;
        Ok(with_partial(result, &missing))
    }
}

#[tonic::async_trait]
impl PromQlQuerier for QueryService {
    async fn instant_query(
        &self,
        request: Request<prom_ql::InstantQueryRequest>,
    ) -> Result<Response<prom_ql::InstantQueryResult>, Status> {
        let read = |request: prom_ql::InstantQueryRequest| {
            Ok((parse(&request.query)?, querier::instant_span(&request).map_err(Failure::Bad)?))
        };
        self.ask(request, read, querier::instant_result).await
    }

    async fn range_query(
        &self,
        request: Request<prom_ql::RangeQueryRequest>,
    ) -> Result<Response<prom_ql::RangeQueryResult>, Status> {
        let read = |request: prom_ql::RangeQueryRequest| {
            Ok((parse(&request.query)?, querier::range_span(&request).map_err(Failure::Bad)?))
        };
        self.ask(request, read, querier::range_result).await
    }
}

fn of_status(status: &Status) -> Outcome {
    match status.code() {
        Code::DeadlineExceeded => Outcome::TimedOut,
        Code::Unavailable | Code::Internal => Outcome::Failed,
        _ => Outcome::Refused,
    }
}

fn parse(query: &str) -> Result<Query, Failure> {
    Query::parse(query, &Limits::default()).map_err(|error| Failure::Bad(error.to_string()))
}
