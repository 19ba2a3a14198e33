//! What a caller was granted, for as long as it uses it.
//!
//! What enters: an entry of the tokens file, or what an issuer's token says, and what is read on its strength. What leaves: whether more
//! may be read, what of a list is shown, and the word when what was granted no longer stands: the token was removed, has expired, or
//! reads less now. Nobody asks for the file in turns: the one task that watches it wakes the grants.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::watch;
use tonic::Status;

use super::jwks::{self, Reads};
use super::secret::Digest;
use super::table::Table;
use super::{Access, Denied, EXPIRED, Wanted, uaa};
use crate::metrics::AuthMetrics;

/// What a caller may read. Streams hold it and end when it is [`revoked`](Self::revoked).
pub(crate) struct Grant(Kind);

enum Kind {
    /// The grant of a client certificate, and of a server that asks nobody: everything for ever.
    All,
    /// That of a token in the file.
    Token(Held),
    /// Those of tokens of an issuer.
    Uaa(Box<uaa::Held>),
    Claims(jwks::Held),
}

/// The grant of a token in the file.
struct Held {
    digest: Digest,
    admitted: Vec<Wanted>,
    table: watch::Receiver<Arc<Table>>,
    metrics: AuthMetrics,
}

/// What of a list may be shown to a caller, found out once for each list.
pub(crate) struct Visible(Shown);

enum Shown {
    /// Every source.
    All,
    /// These.
    These(HashSet<String>),
    /// Those that an entry of the tokens file reads.
    Entry(Digest, Arc<Table>),
    /// Those that a token's claims name.
    Claims(Arc<Reads>),
}

impl Grant {
    /// Everything, for ever.
    pub(crate) fn all() -> Self {
        Self(Kind::All)
    }

    /// What the token of `digest` reads according to the newest `table`.
    pub(super) fn token(digest: Digest, table: watch::Receiver<Arc<Table>>, metrics: AuthMetrics) -> Self {
        Self(Kind::Token(Held { digest, admitted: Vec::new(), table, metrics }))
    }

    /// What a UAA token reads.
    pub(super) fn uaa(held: uaa::Held) -> Self {
        Self(Kind::Uaa(Box::new(held)))
    }

    /// What the claims of a token say.
    pub(super) fn claims(held: jwks::Held) -> Self {
        Self(Kind::Claims(held))
    }

    /// Takes `access` under the grant.
    ///
    /// # Errors
    /// [`Denied::Forbidden`]: it may not be read. Whether there is such a source is not said. With an authorizer that asks others,
    /// whatever else has come of that.
    pub(crate) async fn admit(&mut self, access: Access<'_>) -> Result<(), Denied> {
        match &mut self.0 {
            Kind::All => Ok(()),
            Kind::Token(held) => held.admit(access),
            Kind::Uaa(held) => Box::pin(held.admit(access)).await,
            Kind::Claims(held) => held.admit(access),
        }
    }

    /// The sources that callers call by another name: of a UAA's, apps by their names (contract `log-cache.md` §6). One that is no name
    /// of anything is not among them.
    ///
    /// # Errors
    /// Those who know could not be asked.
    pub(crate) async fn named(&self, names: &[String]) -> Result<HashMap<String, Vec<String>>, Denied> {
        match &self.0 {
            Kind::Uaa(held) => Box::pin(held.named(names)).await,
            _ => Ok(HashMap::new()),
        }
    }

    /// What is shown of a list of sources. Asks, where others must be asked, once.
    pub(crate) async fn visible(&self) -> Visible {
        match &self.0 {
            Kind::All => Visible::all(),
            Kind::Token(held) => Visible(Shown::Entry(held.digest, Arc::clone(&held.table.borrow()))),
            Kind::Uaa(held) => Box::pin(held.visible()).await,
            Kind::Claims(held) => Visible(Shown::Claims(Arc::clone(&held.reads))),
        }
    }

    /// Waits until something that was admitted may no longer be read.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn revoked(&mut self) {
        match &mut self.0 {
            Kind::All => std::future::pending().await,
            Kind::Token(held) => held.revoked().await,
            Kind::Uaa(held) => Box::pin(held.revoked()).await,
            Kind::Claims(held) => held.revoked().await,
        }
    }

    /// `stream` while the grant stands; then UNAUTHENTICATED and the end.
    pub(crate) fn guard<T: Send + 'static>(
        mut self,
        stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>> {
        if matches!(self.0, Kind::All) {
            return Box::pin(stream);
        }
        let revoked = Box::pin(async move { self.revoked().await });
        Box::pin(Guarded { running: Some((Box::pin(stream), revoked)) })
    }
}

impl Held {
    fn admit(&mut self, access: Access<'_>) -> Result<(), Denied> {
        if !allows(&self.table.borrow(), &self.digest, access) {
            self.metrics.denied(Denied::Forbidden);
            return Err(Denied::Forbidden);
        }
        self.admitted.push(access.into());
        Ok(())
    }

    async fn revoked(&mut self) {
        let Self { digest, admitted, table, .. } = self;
        let gone = |table: &Arc<Table>| {
            !admitted.iter().all(|wanted| allows(table, digest, wanted.access())) || table.find(digest).is_none()
        };
        let nobody_watches = table.wait_for(gone).await.is_err();
        if nobody_watches {
            // The server has ended, and its streams with it.
            std::future::pending().await
        }
    }
}

/// True when the token of `digest` reads `access`.
fn allows(table: &Table, digest: &Digest, access: Access<'_>) -> bool {
    table.find(digest).is_some_and(|entry| entry.allows(access))
}

impl Visible {
    /// Every source.
    pub(super) fn all() -> Self {
        Self(Shown::All)
    }

    /// No source.
    pub(super) fn nothing() -> Self {
        Self(Shown::These(HashSet::new()))
    }

    /// These sources.
    pub(super) fn these(sources: HashSet<String>) -> Self {
        Self(Shown::These(sources))
    }

    /// True when every source is, and what else there is to know of a pipeline.
    pub(crate) fn is_everything(&self) -> bool {
        match &self.0 {
            Shown::All => true,
            Shown::These(_) => false,
            Shown::Entry(digest, table) => allows(table, digest, Access::Firehose),
            Shown::Claims(reads) => reads.allows(Access::Firehose),
        }
    }

    /// True when `source_id` is shown.
    pub(crate) fn shows(&self, source_id: &str) -> bool {
        match &self.0 {
            Shown::All => true,
            Shown::These(sources) => sources.contains(source_id),
            Shown::Entry(digest, table) => allows(table, digest, Access::Source(source_id)),
            Shown::Claims(reads) => reads.allows(Access::Source(source_id)),
        }
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
