//! Bodies of requests: JSON objects in, as few compressed arrays of them as the intake takes out.
//!
//! Objects enter one by one with the number of envelopes that are in them; requests leave. A body is closed when one more object would
//! make it too long, and cut in halves that are compressed again while it is too long on the wire.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use super::options::{Api, Preset};

/// Which intake a request is for: they stand on hosts of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Metrics: `api.<site>`.
    Series,
    /// Logs: `http-intake.logs.<site>`.
    Logs,
}

/// A request, but for the host and `DD-API-KEY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which host it goes to.
    pub target: Target,
    /// The path to POST to, below whatever the receiver has in front of it.
    pub path: &'static str,
    /// `content-type` and `content-encoding`.
    pub headers: Vec<(&'static str, String)>,
    /// Compressed.
    pub body: Vec<u8>,
    /// The envelopes that were [`Kept`](super::Outcome::Kept) and are in it; each in one request only.
    pub envelopes: u64,
}

/// What an intake takes in one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Bytes on the wire.
    pub(super) wire: usize,
    /// Bytes once decompressed.
    pub(super) whole: usize,
    /// Objects.
    pub(super) objects: usize,
}

impl Sizes {
    /// The metrics intake (contract: syslog drains §7.1).
    pub(super) fn series(api: Api) -> Self {
        match api {
            Api::V1 => Self { wire: 3_200_000, whole: 62_914_560, objects: usize::MAX },
            Api::V2 => Self { wire: 512_000, whole: 5_242_880, objects: usize::MAX },
        }
    }

    /// The logs intake (contract: syslog drains §7.2).
    pub(super) const LOGS: Self = Self { wire: usize::MAX, whole: 5_000_000, objects: 1000 };

    /// True if an object of at most so many bytes fits into a body alone, however badly it compresses.
    pub(super) fn fit(&self, object: usize) -> bool {
        let around = 64 + object / 100;
        object.saturating_add(around) <= self.wire.min(self.whole)
    }
}

/// Bodies being made for one intake.
#[derive(Debug)]
pub(super) struct Bodies {
    sizes: Sizes,
    target: Target,
    path: &'static str,
    encoding: &'static str,
    /// What stands before and after the objects.
    around: [&'static [u8]; 2],
    /// Objects, each with a comma after it.
    objects: Vec<u8>,
    /// After each object: bytes so far, and the envelopes that are in it.
    ends: Vec<(usize, u64)>,
    closed: Vec<Request>,
}

impl Bodies {
    pub(super) fn series(api: Api, preset: Preset, sizes: Sizes) -> Self {
        let path = if api == Api::V1 { "/api/v1/series" } else { "/api/v2/series" };
        Self::new(sizes, Target::Series, path, [b"{\"series\":[", b"]}"], preset)
    }

    pub(super) fn logs(preset: Preset, sizes: Sizes) -> Self {
        Self::new(sizes, Target::Logs, "/api/v2/logs", [b"[", b"]"], preset)
    }

    fn new(sizes: Sizes, target: Target, path: &'static str, around: [&'static [u8]; 2], preset: Preset) -> Self {
        Self {
            sizes,
            target,
            path,
            encoding: if preset == Preset::Nozzle { "deflate" } else { "gzip" },
            around,
            objects: Vec::new(),
            ends: Vec::new(),
            closed: Vec::new(),
        }
    }

    /// Takes the object that `write` appends. False, and not taken, if it is too long for any body.
    pub(super) fn push(&mut self, envelopes: u64, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let start = self.objects.len();
        write(&mut self.objects);
        let len = self.objects.len() - start;
        self.objects.push(b',');
        let around: usize = self.around.iter().map(|part| part.len()).sum();
        if around + len > self.sizes.whole {
            self.objects.truncate(start);
            return false;
        }
        if start > 0 && (around + start + len > self.sizes.whole || self.ends.len() >= self.sizes.objects) {
            let object = self.objects.split_off(start);
            self.close();
            self.objects.extend_from_slice(&object);
        }
        self.ends.push((self.objects.len(), envelopes));
        true
    }

    /// True when there are requests that nothing can be added to.
    pub(super) fn has_closed(&self) -> bool {
        !self.closed.is_empty()
    }

    /// The requests that nothing can be added to.
    pub(super) fn take_closed(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.closed)
    }

    /// Everything.
    pub(super) fn finish(&mut self) -> Vec<Request> {
        self.close();
        self.take_closed()
    }

    fn close(&mut self) {
        // Ranges of `ends`, first ones last.
        let mut ranges = vec![(0, self.ends.len())];
        while let Some((from, to)) = ranges.pop().filter(|(from, to)| from < to) {
            let start = from.checked_sub(1).map_or(0, |last| self.ends[last].0);
            let (end, _) = self.ends[to - 1];
            let [before, after] = self.around;
            // Without the last comma.
            let body = self.compress(&[before, &self.objects[start..end - 1], after]);
            if body.len() > self.sizes.wire && to - from > 1 {
                let middle = from + (to - from) / 2;
                ranges.extend([(middle, to), (from, middle)]);
                continue;
            }
            self.closed.push(Request {
                target: self.target,
                path: self.path,
                headers: vec![
                    ("content-type", "application/json".to_owned()),
                    ("content-encoding", self.encoding.to_owned()),
                ],
                body,
                envelopes: self.ends[from..to].iter().map(|(_, envelopes)| envelopes).sum(),
            });
        }
        self.objects.clear();
        self.ends.clear();
    }

    fn compress(&self, parts: &[&[u8]]) -> Vec<u8> {
        fn all<W: Write>(mut into: W, parts: &[&[u8]]) -> std::io::Result<W> {
            parts.iter().try_for_each(|part| into.write_all(part))?;
            Ok(into)
        }
        // Tags repeat from object to object: little effort finds most of it.
        let effort = Compression::fast();
        let compressed = if self.encoding == "gzip" {
            all(GzEncoder::new(Vec::new(), effort), parts).and_then(GzEncoder::finish)
        } else {
            all(ZlibEncoder::new(Vec::new(), effort), parts).and_then(ZlibEncoder::finish)
        };
        compressed.expect("writing to a Vec cannot fail")
    }
}
