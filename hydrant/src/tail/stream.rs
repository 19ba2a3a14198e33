//! One stream of the traffic controller's: opened again where it broke off, as often as that takes.
//!
//! What enters: sources, and where to begin. What leaves: events, in order, over a bounded queue: who does not take them holds up the
//! stream and nobody else.

use std::time::Duration;

use prost::Message;
use proto::hydrant::v1::follow_client::FollowClient;
use proto::hydrant::v1::{FollowRequest, Gap};
use proto::v2;
use tokio::sync::mpsc;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status};
use transport::{Backoff, reason};

use crate::token::Bearer;

/// The service that is followed.
pub(crate) type Client = FollowClient<InterceptedService<Channel, Bearer>>;

/// Frames that wait to be shown.
const FRAMES: usize = 4;

/// Before it is opened again, at the least.
const AGAIN: Duration = Duration::from_millis(50);

/// What happens on a stream.
#[derive(Debug)]
pub(crate) enum Event {
    /// Envelopes, and what is missing before them.
    Frame(Vec<v2::Envelope>, Option<Gap>),
    /// A batch that cannot be read.
    Unreadable,
    /// Dopplers that cannot be asked.
    Missing(Vec<String>),
    /// All that was held has come.
    Live,
    /// The server has gone: why.
    Away(String),
    /// It is back.
    Back,
    /// There will be no more.
    Refused(Status),
}

/// Reads the stream into `events` until nobody takes them, it is refused, or, of history alone, it has come to its end.
pub(crate) async fn read(mut client: Client, mut request: FollowRequest, events: mpsc::Sender<Event>) {
    let mut backoff = Backoff::new(Backoff::random_seed());
    let mut away = false;
    loop {
        let end = match client.follow(request.clone()).await {
            Ok(frames) => {
                if std::mem::take(&mut away) && events.send(Event::Back).await.is_err() {
                    return;
                }
                backoff = Backoff::new(Backoff::random_seed());
                let Some(end) = follow(frames.into_inner(), &mut request, &events).await else { return };
                end
            }
            Err(status) => Err(status),
        };
        let why = match end {
            Ok(()) if request.history_only => return,
            Ok(()) => "it ended the stream".to_owned(),
            Err(status) if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) => {
                reason(&status)
            }
            Err(status) => {
                let _gone = events.send(Event::Refused(status)).await;
                return;
            }
        };
        if !std::mem::replace(&mut away, true) && events.send(Event::Away(why)).await.is_err() {
            return;
        }
        if request.history_only {
            return;
        }
        tokio::time::sleep(backoff.next_wait().max(AGAIN)).await;
    }
}

/// Reads to the end of a stream; keeps in `request` where it stands. `None` when nobody takes the events.
async fn follow(
    mut frames: tonic::Streaming<proto::hydrant::v1::FollowFrame>,
    request: &mut FollowRequest,
    events: &mpsc::Sender<Event>,
) -> Option<Result<(), Status>> {
    loop {
        let frame = match frames.message().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Some(Ok(())),
            Err(status) => return Some(Err(status)),
        };
        if !frame.missing.is_empty() {
            events.send(Event::Missing(frame.missing)).await.ok()?;
        }
        if frame.gap.is_some() || !frame.batch.is_empty() {
            let event = match v2::EnvelopeBatch::decode(frame.batch) {
                Ok(batch) => Event::Frame(batch.batch, frame.gap),
                Err(_) => Event::Unreadable,
            };
            events.send(event).await.ok()?;
        }
        if let Some(cursor) = frame.cursor {
            request.after.retain(|known| known.doppler != cursor.doppler);
            request.after.push(cursor);
        }
        if frame.live {
            events.send(Event::Live).await.ok()?;
        }
    }
}

/// A queue for the events of a stream.
pub(crate) fn queue() -> (mpsc::Sender<Event>, mpsc::Receiver<Event>) {
    mpsc::channel(FRAMES)
}
