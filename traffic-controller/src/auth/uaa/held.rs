//! What a UAA token was granted, while it is used.
//!
//! What enters: a caller and what it wants to read. What leaves: whether it may, and the word when it no longer may: its token has
//! ended, or whoever was asked says otherwise when asked again. That a service does not answer ends no stream before its token does.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::sleep;

use super::{Uaa, Who};
use crate::auth::caller::Proof;
use crate::auth::{Access, Denied, Visible, Wanted, clock};

/// The grant of a token. Holds the token: whoever is asked again needs it.
pub(in crate::auth) struct Held {
    uaa: Arc<Uaa>,
    proof: Proof,
    who: Who,
    admitted: Vec<Wanted>,
}

impl Held {
    pub(super) fn new(uaa: Arc<Uaa>, proof: Proof, who: Who) -> Self {
        Self { uaa, proof, who, admitted: Vec::new() }
    }

    /// Takes `access` under the grant.
    ///
    /// # Errors
    /// Why it may not be read.
    pub(in crate::auth) async fn admit(&mut self, access: Access<'_>) -> Result<(), Denied> {
        self.uaa
            .allows(&self.proof, &self.who, access)
            .await
            .inspect_err(|denied| self.uaa.metrics().denied(*denied))?;
        self.admitted.push(access.into());
        Ok(())
    }

    /// The GUIDs of apps that are called by these names.
    ///
    /// # Errors
    /// Cloud Controller could not be asked.
    pub(in crate::auth) async fn named(&self, names: &[String]) -> Result<HashMap<String, Vec<String>>, Denied> {
        self.uaa.named(&self.proof, names).await
    }

    /// What of a list may be shown.
    pub(in crate::auth) async fn visible(&self) -> Visible {
        self.uaa.visible(&self.proof, &self.who).await
    }

    /// Waits until something that was admitted may no longer be read.
    ///
    /// # Cancel safety
    /// It may be called again; but what has passed until it looks again is lost: keep it for as long as the stream.
    pub(in crate::auth) async fn revoked(&mut self) {
        loop {
            tokio::select! {
                biased;
                () = clock::reached(self.who.expires) => match self.uaa.after_end(&self.proof).await {
                    Some(who) => self.who = who,
                    None => return,
                },
                () = sleep(self.uaa.ttl()) => {}
            }
            let expires = self.who.expires;
            let stands = tokio::select! {
                stands = self.stands() => stands,
                // Whoever is slow to answer does not keep alive what has expired: that is asked about next.
                () = clock::reached(expires) => continue,
            };
            if !stands {
                return;
            }
        }
    }

    /// Asks again what was answered too long ago. No answer is no refusal.
    async fn stands(&mut self) -> bool {
        let refused = |denied| !matches!(denied, Denied::Unavailable | Denied::Limited);
        match self.uaa.again(&self.proof).await {
            Ok(Some(who)) => self.who = who,
            Ok(None) => {}
            Err(denied) if refused(denied) => return false,
            Err(_) => return true,
        }
        for wanted in &self.admitted {
            if self.uaa.allows(&self.proof, &self.who, wanted.access()).await.is_err_and(refused) {
                return false;
            }
        }
        true
    }
}
