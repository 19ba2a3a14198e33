//! The keys of an issuer, as they change.
//!
//! What enters: tokens to verify, and the issuer's key set whenever it is fetched. What leaves: the claims of tokens that one of the
//! keys has signed. One task fetches: at the start, now and then, and when a token shows that there may be new keys, but never twice
//! within five seconds, whatever tokens come. Keys that are no longer published are gone with the next fetch; a fetch that fails changes
//! nothing.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub(super) use self::set::{Fault, KeySet};
use super::Denied;
use super::claims::Claims;
use super::service::AskError;
use crate::metrics::AuthMetrics;

mod set;

/// The largest key set, in bytes.
pub(super) const MAX_BODY: usize = 1024 * 1024;

/// From the end of one fetch to the beginning of the next, at least.
const APART: Duration = Duration::from_secs(5);

/// The same while there are no keys.
const RETRY: Duration = Duration::from_secs(10);

/// The same while nothing asks for new ones: keys that were withdrawn do not stay.
const KEEP: Duration = Duration::from_secs(10 * 60);

/// How long a request waits for a fetch.
const PATIENCE: Duration = Duration::from_secs(25);

/// Why there are no new keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeysError {
    /// The issuer did not answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// It answered something else than its keys.
    #[error("{0}")]
    Answer(String),
}

/// The keys of one issuer.
pub(super) struct Keys {
    allowed: Vec<Algorithm>,
    state: watch::Sender<State>,
    /// Somebody has a token that none of the keys has signed.
    wanted: Notify,
    metrics: AuthMetrics,
}

#[derive(Default)]
struct State {
    set: Arc<KeySet>,
    /// Fetches that have ended.
    fetches: u64,
    /// When the last one did, and whether it brought keys.
    last: Option<(Instant, bool)>,
}

impl Keys {
    /// No keys yet; tokens are signed by one of the `allowed` algorithms.
    pub(super) fn new(allowed: Vec<Algorithm>, metrics: AuthMetrics) -> Self {
        Self { allowed, state: watch::Sender::default(), wanted: Notify::new(), metrics }
    }

    /// The keys in an answer of the issuer.
    pub(super) fn parse(&self, body: &[u8]) -> Result<KeySet, KeysError> {
        let set = KeySet::parse(body, &self.allowed).filter(|set| set.len() > 0);
        set.ok_or_else(|| KeysError::Answer("what the issuer answers holds no key that can be used".to_owned()))
    }

    /// What `token` says, if the issuer has signed it. Waits for a fetch when it may bring the key.
    ///
    /// # Errors
    /// [`Denied::Invalid`]; [`Denied::Unavailable`] when the issuer could not be asked for a key that is not known.
    pub(super) async fn verify(&self, token: &[u8]) -> Result<Claims, Denied> {
        let mut state = self.state.subscribe();
        let (set, fetches, last) = {
            let state = state.borrow_and_update();
            (Arc::clone(&state.set), state.fetches, state.last)
        };
        match set.verify(token, &self.allowed) {
            Ok(claims) => return Ok(claims),
            Err(Fault::Hopeless) => return Err(Denied::Invalid),
            Err(Fault::NoKey) => {}
        }
        let unknown = |brought| if brought { Denied::Invalid } else { Denied::Unavailable };
        if let Some((at, brought)) = last
            && at.elapsed() < APART
        {
            return Err(unknown(brought));
        }
        self.wanted.notify_one();
        let fetched = timeout(PATIENCE, state.wait_for(|state| state.fetches > fetches)).await;
        let (set, brought) = match fetched {
            Ok(Ok(state)) => (Arc::clone(&state.set), state.last.is_some_and(|(_, brought)| brought)),
            _ => return Err(Denied::Unavailable),
        };
        set.verify(token, &self.allowed).map_err(|_| unknown(brought))
    }

    /// Fetches keys by `fetch` until `stop`. `first` is called once there are some.
    pub(super) async fn keep<F>(&self, mut fetch: impl FnMut() -> F, first: impl FnOnce(), stop: &CancellationToken)
    where
        F: Future<Output = Result<KeySet, KeysError>> + Send,
    {
        let mut first = Some(first);
        let mut told = None;
        while let Some(fetched) = stop.run_until_cancelled(fetch()).await {
            let brought = self.take(fetched, &mut told);
            if brought && let Some(first) = first.take() {
                first();
            }
            let idle = if first.is_some() { RETRY } else { KEEP };
            let pause = async {
                sleep(APART).await;
                let _either = timeout(idle - APART, self.wanted.notified()).await;
            };
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    /// Takes the outcome of a fetch. `told` is what was said of the last one.
    fn take(&self, fetched: Result<KeySet, KeysError>, told: &mut Option<String>) -> bool {
        let brought = fetched.is_ok();
        self.metrics.keys_fetched(brought);
        let set = match fetched {
            Ok(set) => {
                if told.take().is_some() || self.state.borrow().set.len() != set.len() {
                    info!(keys = set.len(), "Keys of the issuer are in use");
                }
                self.metrics.keys(set.len());
                Some(Arc::new(set))
            }
            Err(error) => {
                let problem = Some(error.to_string());
                if *told != problem {
                    warn!(%error, "Keys of the issuer could not be fetched, those in use stay");
                    *told = problem;
                }
                None
            }
        };
        self.state.send_modify(|state| {
            if let Some(set) = set {
                state.set = set;
            }
            state.fetches += 1;
            state.last = Some((Instant::now(), brought));
        });
        brought
    }
}

#[cfg(test)]
mod tests;
