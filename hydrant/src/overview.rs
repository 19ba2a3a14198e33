//! What the pipeline holds and has counted, as the traffic controller tells it: how it is asked, and what changed between two answers.

use std::time::Duration;

use anyhow::anyhow;
use proto::hydrant::v1::overview_client::OverviewClient;
use proto::hydrant::v1::{OverviewReply, OverviewRequest};
use tokio::time::timeout;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status};
use transport::reason;

use crate::cli::Failure;
use crate::client::MAX;
use crate::token::Bearer;

pub(crate) mod change;

/// The service that is asked.
pub(crate) type Client = OverviewClient<InterceptedService<Channel, Bearer>>;

/// For an answer: a traffic controller asks its dopplers and adapters, and does not wait for those that are away.
const WITHIN: Duration = Duration::from_secs(10);

/// A client on a connection.
pub(crate) fn client((channel, bearer): (Channel, Bearer)) -> Client {
    OverviewClient::with_interceptor(channel, bearer).max_decoding_message_size(MAX)
}

/// Asks once.
pub(crate) async fn get(client: &mut Client) -> Result<OverviewReply, Status> {
    match timeout(WITHIN, client.get(OverviewRequest {})).await {
        Ok(reply) => reply.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {} s", WITHIN.as_secs()))),
    }
}

/// The same for a command that cannot go on without.
pub(crate) async fn need(client: &mut Client) -> Result<OverviewReply, Failure> {
    get(client).await.map_err(|status| refused(&status))
}

fn refused(status: &Status) -> Failure {
    let why = match status.code() {
        Code::Unimplemented => "it is older than this command, and cannot tell what sources there are".to_owned(),
        _ => reason(status),
    };
    Failure::Failed(anyhow!("the traffic controller refused: {why}"))
}
