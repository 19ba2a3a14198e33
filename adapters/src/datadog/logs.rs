//! Entries for the logs intake (contract: syslog drains §7.2).
//!
//! Messages enter with the envelope they came in; entries gather in bodies. What an entry says of its source is rendered once and then
//! found by a hash of source, instance and tags, as the series are.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::body::Bodies;
use super::text::{self, put_escaped, put_integer, put_string};
use super::wanted::Context;
use crate::read::Envelope;

/// Bytes of a message as it stands in the request; it is cut there.
pub(super) const MAX_MESSAGE: usize = 1_000_000;
/// Sources that are remembered with their tags, and bytes of those; all are forgotten when there are more.
const REMEMBERED: usize = 10_000;
const REMEMBERED_BYTES: usize = 16 << 20;

/// The entries of a drain.
#[derive(Debug)]
pub(super) struct Logs {
    pub(super) bodies: Bodies,
    hashes: RandomState,
    /// What stands between message and status.
    sources: HashMap<u64, Box<[u8]>, RandomState>,
    bytes: usize,
    max_message: usize,
    /// Messages that were longer than they may be.
    pub(super) cut: u64,
}

/// One entry.
#[derive(Debug)]
pub(super) struct Log<'a> {
    pub(super) message: &'a str,
    pub(super) is_err: bool,
    /// In nanoseconds.
    pub(super) at: i64,
}

impl Logs {
    pub(super) fn new(bodies: Bodies) -> Self {
        Self {
            bodies,
            hashes: RandomState::default(),
            sources: HashMap::default(),
            bytes: 0,
            max_message: MAX_MESSAGE,
            cut: 0,
        }
    }

    /// False if it is too long for any body.
    pub(super) fn push(&mut self, context: &Context, envelope: &Envelope<'_>, log: &Log<'_>) -> bool {
        let source = envelope.hash(&self.hashes);
        if !self.sources.contains_key(&source) {
            let rendered = render(context, envelope);
            if self.sources.len() >= REMEMBERED || self.bytes + rendered.len() > REMEMBERED_BYTES {
                self.sources.clear();
                self.bytes = 0;
            }
            self.bytes += rendered.len();
            self.sources.insert(source, rendered);
        }
        let source = &self.sources[&source];
        let mut is_cut = false;
        let is_in = self.bodies.push(1, |into| {
            into.extend_from_slice(b"{\"message\":\"");
            is_cut = put_escaped(into, log.message, self.max_message);
            into.extend_from_slice(source);
            into.extend_from_slice(if log.is_err { b",\"status\":\"error\"" } else { b",\"status\":\"info\"" });
            into.extend_from_slice(b",\"timestamp\":");
            put_integer(into, log.at.div_euclid(1_000_000));
            into.push(b'}');
        });
        self.cut += u64::from(is_cut && is_in);
        is_in
    }
}

/// From the quote that ends the message on.
fn render(context: &Context, envelope: &Envelope<'_>) -> Box<[u8]> {
    let app = envelope.tag("app_name");
    let service = match &context.service {
        Some(service) => service.into(),
        None => text::name(if app.is_empty() { envelope.source_id } else { app }),
    };
    let parts = [
        ("ddsource", context.source.as_str()),
        ("ddtags", &context.log_tags(envelope).join(",")),
        ("hostname", &context.host(envelope)),
        ("service", &service),
    ];
    let mut into = b"\"".to_vec();
    for (name, value) in parts.into_iter().filter(|(_, value)| !value.is_empty()) {
        into.push(b',');
        put_string(&mut into, name);
        into.push(b':');
        put_string(&mut into, value);
    }
    into.into()
}
