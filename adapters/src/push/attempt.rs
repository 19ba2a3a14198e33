//! One request and what its answer says.
//!
//! A request enters, and a connection if there is one; what the destination took of it leaves, or why it took nothing. Never tries again:
//! [`Push`](super::drain::Push) does.

use std::io;

use super::maker::{Request, Rules};
use crate::drains::Headers;
use crate::syslog::client::Link;
use crate::syslog::config::DrainUrl;
use crate::syslog::trust::Trust;

/// The destination took a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// Parts of it that it did not take, and never will.
    pub(crate) rejected: u64,
    /// What it says about that; safe to show.
    pub(crate) said: String,
}

/// One attempt at one request, on the connection there is or a new one.
pub(super) async fn attempt(
    link: &mut Option<Link>,
    destination: &DrainUrl,
    trust: Option<&mut Trust>,
    headers: &Headers,
    request: &Request,
) -> io::Result<Accepted> {
    if link.as_mut().is_some_and(|link| link.check().is_err()) {
        *link = None;
    }
    let open = match link {
        Some(open) => open,
        None => link.insert(Box::pin(Link::open(destination, trust, 0, None)).await?),
    };
    request.make(open, destination, headers).await
}

impl Request {
    /// Makes it, over a connection to `destination`, with `headers` besides its own.
    ///
    /// # Errors
    /// No answer, or a [`Refusal`](crate::syslog::client::Refusal).
    pub(crate) async fn make(
        &self,
        link: &mut Link,
        destination: &DrainUrl,
        headers: &Headers,
    ) -> io::Result<Accepted> {
        let all = [&self.headers[..], headers].concat();
        let below = self.path.map(|path| format!("{}{path}", destination.base()));
        let target = below.as_deref().unwrap_or_else(|| destination.target());
        let answer = link.post(target, &all, self.body.clone()).await?;
        match self.rules {
            Rules::Status => answer.success().map(|()| Accepted::default()),
            Rules::Otlp(protocol) => crate::otlp::answer::judge(protocol, &answer, &secrets(destination, headers)),
        }
    }
}

/// What of a drain may stand in no text, longest first.
fn secrets(destination: &DrainUrl, headers: &Headers) -> Vec<Vec<u8>> {
    let sensitive = headers.iter().filter(|(_, value)| value.is_sensitive()).map(|(_, value)| value.as_bytes());
    // A scheme and a blank stand before a token.
    let parts = sensitive.flat_map(|value| [Some(value), value.splitn(2, |byte| *byte == b' ').nth(1)]);
    let mut secrets: Vec<Vec<u8>> = parts.flatten().map(<[u8]>::to_vec).collect();
    secrets.extend(destination.secrets());
    secrets.retain(|secret| !secret.is_empty());
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}
