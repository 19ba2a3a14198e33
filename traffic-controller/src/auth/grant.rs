//! What a caller was granted, for as long as it uses it.
//!
//! What enters: an entry of the tokens file, and what is read on its strength. What leaves: whether more may be read, and the word when
//! what was granted no longer stands: the token was removed, has expired, or reads less now. Nobody asks in turns: the one task that
//! watches the file wakes the grants.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::watch;
use tonic::Status;

use super::secret::Digest;
use super::table::Table;
use super::{Access, Denied, EXPIRED};
use crate::metrics::AuthMetrics;

/// What a caller may read. Streams hold it and end when it is [`revoked`](Self::revoked).
pub(crate) struct Grant(Option<Held>);

/// The grant of a token. The one of a client certificate, and of a server that asks nobody, is everything for ever.
struct Held {
    digest: Digest,
    /// The sources that were admitted; `None` is every source.
    admitted: Vec<Option<String>>,
    table: watch::Receiver<Arc<Table>>,
    metrics: AuthMetrics,
}

impl Grant {
    /// Everything, for ever.
    pub(crate) fn all() -> Self {
        Self(None)
    }

    /// What the token of `digest` reads according to the newest `table`.
    pub(super) fn token(digest: Digest, table: watch::Receiver<Arc<Table>>, metrics: AuthMetrics) -> Self {
        Self(Some(Held { digest, admitted: Vec::new(), table, metrics }))
    }

    /// Takes `access` under the grant.
    ///
    /// # Errors
    /// [`Denied::Forbidden`]: it may not be read. Whether there is such a source is not said.
    pub(crate) fn admit(&mut self, access: Access<'_>) -> Result<(), Denied> {
        let Some(held) = &mut self.0 else { return Ok(()) };
        if !held.allows(access) {
            held.metrics.denied(Denied::Forbidden);
            return Err(Denied::Forbidden);
        }
        held.admitted.push(match access {
            Access::Firehose => None,
            Access::Source(id) => Some(id.to_owned()),
        });
        Ok(())
    }

    /// True when `source_id` may be read: for what is shown of a list.
    pub(crate) fn shows(&self, source_id: &str) -> bool {
        self.0.as_ref().is_none_or(|held| held.allows(Access::Source(source_id)))
    }

    /// True when every source may be read.
    pub(crate) fn reads_everything(&self) -> bool {
        self.0.as_ref().is_none_or(|held| held.allows(Access::Firehose))
    }

    /// Waits until something that was admitted may no longer be read.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn revoked(&mut self) {
        let Some(Held { digest, admitted, table, .. }) = &mut self.0 else { return std::future::pending().await };
        let gone = |table: &Arc<Table>| {
            !table.find(digest).is_some_and(|entry| {
                admitted.iter().all(|source| entry.allows(source.as_deref().map_or(Access::Firehose, Access::Source)))
            })
        };
        let nobody_watches = table.wait_for(gone).await.is_err();
        if nobody_watches {
            // The server has ended, and its streams with it.
            std::future::pending().await
        }
    }

    /// `stream` while the grant stands; then UNAUTHENTICATED and the end.
    pub(crate) fn guard<T: Send + 'static>(
        mut self,
        stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>> {
        if self.0.is_none() {
            return Box::pin(stream);
        }
        let revoked = Box::pin(async move { self.revoked().await });
        Box::pin(Guarded { running: Some((Box::pin(stream), revoked)) })
    }
}

impl Held {
    fn allows(&self, access: Access<'_>) -> bool {
        self.table.borrow().find(&self.digest).is_some_and(|entry| entry.allows(access))
    }
}

type Boxed<F> = Pin<Box<F>>;

/// A stream and the word that ends it.
struct Guarded<S> {
    running: Option<(Boxed<S>, Boxed<dyn Future<Output = ()> + Send>)>,
}

impl<T, S: Stream<Item = Result<T, Status>>> Stream for Guarded<S> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some((stream, revoked)) = &mut self.running else { return Poll::Ready(None) };
        if revoked.as_mut().poll(cx).is_ready() {
            // With the stream go its subscriptions, at once.
            self.running = None;
            return Poll::Ready(Some(Err(Status::unauthenticated(EXPIRED))));
        }
        stream.as_mut().poll_next(cx)
    }
}
