//! Syslog messages to envelopes: RFC 5424, RFC 3164 and what resembles them. Pure.
//!
//! ```text
//! stream ──► frame (octets counted, or a line feed) ─┐
//! datagram ──────────────────────────────────────────┴─► message ──► a log in a batch
//! ```
//!
//! *Invariant*: what resembles no message is a log all the same, marked and counted; no message costs another one anything.

mod config;
mod frame;
mod message;

use std::net::IpAddr;

use bytes::Bytes;
use proto::raw::{Batch, Limits};

pub use config::{SyslogConfig, SyslogProtocol, SyslogTls};
pub use frame::{Deframer, Step};
pub use message::{Clock, Maker};

/// The property that a fuzz target holds on arbitrary bytes as one message, and that the tests replay.
///
/// # Panics
/// When a message becomes no log, or one that a later hop refuses.
pub fn fuzz_message(bytes: &[u8]) {
    let mut gather = crate::Gather::default();
    let clock = Clock { now_ns: 1_790_000_000_000_000_000, offset_seconds: 3_600 };
    Maker::new(None).put(bytes, IpAddr::from([127, 0, 0, 1]), clock, &mut gather);
    let Some((batch, refused)) = gather.take() else { return };
    assert_eq!((batch.len() as u64, refused.total()), (1, 0), "a message is a log");
    let mut encoded = Vec::new();
    proto::raw::Selection::from(batch).put(&mut encoded);
    let (checked, broken) = Batch::check(Bytes::from(encoded), &Limits::default());
    assert_eq!((checked.len(), broken.total()), (1, 0), "every hop takes what was built");
    assert!(!checked.source_id(&checked.entries()[0]).is_empty());
}

/// The property that a fuzz target holds on arbitrary bytes as a stream: the first byte says in which pieces it comes.
///
/// # Panics
/// When pieces make a difference, or more is held than a message of the largest size.
pub fn fuzz_stream(bytes: &[u8]) {
    const MAX: usize = 64;
    let Some((&piece, stream)) = bytes.split_first() else { return };
    let read = |piece: usize| {
        let (mut deframer, mut buffer, mut found) = (Deframer::new(MAX), Vec::new(), Vec::new());
        for piece in stream.chunks(piece.max(1)) {
            buffer.extend_from_slice(piece);
            let mut done = 0;
            loop {
                let (step, taken) = deframer.next(&buffer[done..]);
                done += taken;
                match step {
                    Step::Message(message) => found.push(Some(message.to_vec())),
                    Step::Oversize => found.push(None),
                    Step::More => break,
                }
            }
            buffer.drain(..done);
            assert!(buffer.len() <= MAX + 8, "{} bytes are held", buffer.len());
        }
        found.extend(deframer.last(&buffer).map(|last| Some(last.to_vec())));
        found
    };
    assert_eq!(read(piece.into()), read(stream.len()));
}

#[cfg(test)]
mod tests;
