//! The bytes of one file to envelopes. Pure.
//!
//! What enters: the file's bytes in their order, from where it is to be read on. What leaves: envelopes in a [`Gather`], how many bytes
//! were used, and per stream where what has not been handed on begins. Lines are read whole: what is there of one is not used until its end
//! is there too, except of a plain line longer than an envelope's text may be.

use memchr::memchr;
use proto::reason::Reason;

use super::config::{FilesConfig, Format};
use super::cri::{CriError, cri_line};
use super::docker::{DockerError, docker_line};
use super::join::{Event, Join, Piece, boundary};
use super::labels::Labels;
use super::multiline::Lines;
use crate::gather::Gather;

/// Bytes of one line of a container's log as it is written. A longer one is refused.
pub const MAX_RAW: usize = 256 * 1024;

/// Envelopes after which no further line is used: what is handed on at once is acknowledged at once.
pub const FRAME_ENVELOPES: usize = 2_000;

/// stdout and stderr.
const STREAMS: usize = 2;

/// Reads one file.
#[derive(Debug)]
pub struct Decoder {
    format: Format,
    max: usize,
    labels: Labels,
    /// Up to where the file has been used.
    position: u64,
    streams: [Stream; STREAMS],
    /// In a line that is longer than [`MAX_RAW`].
    skipping: bool,
    /// In a plain line of which a part has been handed on.
    is_split: bool,
    /// Lines that may have been sent by an agent that ran before.
    repeated: u64,
}

/// What is told of each stream, stdout first.
pub type PerStream<T> = [T; STREAMS];

/// Why a line became no envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// None of a container runtime.
    #[error(transparent)]
    Cri(#[from] CriError),
    /// None of Docker.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// Over [`MAX_RAW`].
    #[error("it is longer than {MAX_RAW} bytes")]
    Long,
}

impl LineError {
    /// What the line counts as.
    pub fn reason(self) -> Reason {
        match self {
            Self::Cri(_) | Self::Docker(_) => Reason::DecodeError,
            Self::Long => Reason::Oversize,
        }
    }
}

#[derive(Debug)]
struct Stream {
    join: Join,
    lines: Option<Lines>,
    /// Lines before this have been handed on by an agent that ran before.
    from: u64,
    /// Lines before this may have been sent by it.
    handed_to: u64,
    /// Where the first begins of those handed on since it was last asked.
    handed: Option<u64>,
}

/// Where to go on in a file that was read before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// Where each stream goes on; the file is read from the lower of the two.
    pub from: PerStream<u64>,
    /// Up to where lines of each stream had been handed on: those before it may have been sent.
    pub handed_to: PerStream<u64>,
}

impl Resume {
    /// Where the file is read from.
    pub fn offset(self) -> u64 {
        self.from[0].min(self.from[1])
    }
}

impl Decoder {
    /// Of a file with these `labels`, from `resume` on. Texts have at most `max` bytes, at least one and at most [`MAX_RAW`].
    pub fn new(config: &FilesConfig, labels: Labels, max: usize, resume: Resume) -> Self {
        let max = max.clamp(1, MAX_RAW);
        let stream = |i: usize| Stream {
            join: Join::new(max),
            lines: config.multiline.map(|preset| Lines::new(preset, max)),
            from: resume.from[i],
            handed_to: resume.handed_to[i],
            handed: None,
        };
        Self {
            format: config.format,
            max,
            labels,
            position: resume.offset(),
            streams: std::array::from_fn(stream),
            skipping: false,
            is_split: false,
            repeated: 0,
        }
    }

    /// Whose lines they are.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Up to where the file has been used.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Where each stream begins that has not been handed on to the gather: in a line or event that goes on, or behind all that was used.
    pub fn held_from(&self) -> PerStream<u64> {
        let from = |stream: &Stream| stream.lines.as_ref().and_then(Lines::from).or(stream.join.from());
        self.streams.each_ref().map(|stream| from(stream).unwrap_or(self.position).max(stream.from))
    }

    /// Whether parts are held of a line or an event that goes on.
    pub fn holds_some(&self) -> bool {
        self.streams.iter().any(|stream| {
            stream.join.from().is_some() || stream.lines.as_ref().is_some_and(|lines| lines.from().is_some())
        })
    }

    /// Where the first envelope of each stream begins of those handed on since the last time; nothing where there is none.
    pub fn take_handed(&mut self) -> PerStream<Option<u64>> {
        self.streams.each_mut().map(|stream| stream.handed.take())
    }

    /// Texts that were split for their length, and lines that may have been sent before, both since the last time.
    pub fn take_counts(&mut self) -> (u64, u64) {
        let split = self.streams.iter_mut().map(|stream| {
            let lines = stream.lines.as_mut().map_or(0, |lines| std::mem::take(&mut lines.split));
            lines + std::mem::take(&mut stream.join.split)
        });
        (split.sum(), std::mem::take(&mut self.repeated))
    }

    /// Uses what it can of `bytes`, which stand at [`Self::position`]; returns how many. It ends before a line whose end is not there, and
    /// when `gather` is full or has [`FRAME_ENVELOPES`]. `bad` is shown each line that became no envelope. With [`MAX_RAW`] bytes and an
    /// empty gather it uses some.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        now: i64,
        gather: &mut Gather,
        mut bad: impl FnMut(&[u8], LineError),
    ) -> usize {
        let mut at = 0;
        while !gather.is_full() && gather.len() < FRAME_ENVELOPES && at < bytes.len() {
            let rest = &bytes[at..];
            let end = memchr(b'\n', rest);
            let used = match (self.format, end) {
                (Format::Plain, _) if end.unwrap_or(rest.len()) > self.max => {
                    let end = boundary(rest, self.max);
                    self.streams[0].join.split += u64::from(!std::mem::replace(&mut self.is_split, true));
                    self.line(&rest[..end], at, now, gather, &mut bad);
                    end
                }
                (_, Some(end)) if self.skipping => {
                    self.skipping = false;
                    end + 1
                }
                (_, Some(end)) => {
                    self.is_split = false;
                    self.line(&rest[..end], at, now, gather, &mut bad);
                    end + 1
                }
                (_, None) if self.skipping => rest.len(),
                (_, None) if rest.len() >= MAX_RAW => {
                    self.skipping = true;
                    gather.refuse(Reason::Oversize);
                    bad(rest, LineError::Long);
                    rest.len()
                }
                (_, None) => break,
            };
            at += used;
        }
        self.position += at as u64;
        at
    }

    /// Uses all of `bytes` as [`Self::feed`] does, a last line without its line feed too, and hands on all that is held: nothing will
    /// follow. The gather may then have one line more than it is full with.
    pub fn finish(&mut self, bytes: &[u8], now: i64, gather: &mut Gather, mut bad: impl FnMut(&[u8], LineError)) {
        if !bytes.is_empty() && !self.skipping {
            self.line(bytes, 0, now, gather, &mut bad);
        }
        self.position += bytes.len() as u64;
        let Self { streams, labels, .. } = self;
        for (err, Stream { join, lines, handed, .. }) in [false, true].into_iter().zip(streams) {
            let mut put = |event: Event<'_>| put(gather, labels, err, handed, event);
            match lines {
                Some(lines) => {
                    join.flush(|event| lines.push(event, &mut put));
                    lines.flush(&mut put);
                }
                None => join.flush(put),
            }
        }
    }

    /// Hands on events that may go on: nothing came for a while. Parts of a line stay.
    pub fn silence(&mut self, gather: &mut Gather) {
        let Self { streams, labels, .. } = self;
        for (err, Stream { lines, handed, .. }) in [false, true].into_iter().zip(streams) {
            if let Some(lines) = lines {
                lines.flush(|event| put(gather, labels, err, handed, event));
            }
        }
    }

    /// Takes the line that stands `at` bytes behind the position.
    fn line(&mut self, line: &[u8], at: usize, now: i64, gather: &mut Gather, bad: &mut impl FnMut(&[u8], LineError)) {
        let from = self.position + at as u64;
        match self.format {
            Format::Plain => {
                let text = line.strip_suffix(b"\r").unwrap_or(line);
                self.piece(false, Piece { from, timestamp: now, more: false, text, attrs: &[] }, gather);
            }
            Format::Cri => match cri_line(line) {
                Ok(read) => {
                    let (timestamp, more, text) = (read.timestamp, read.more, read.text);
                    self.piece(read.err, Piece { from, timestamp, more, text, attrs: &[] }, gather);
                }
                Err(error) => {
                    gather.refuse(Reason::DecodeError);
                    bad(line, error.into());
                }
            },
            Format::Docker => match docker_line(line) {
                Ok(read) => {
                    let (timestamp, more, text) = (read.timestamp, read.more, read.text.as_bytes());
                    self.piece(read.err, Piece { from, timestamp, more, text, attrs: &read.attrs }, gather);
                }
                Err(error) => {
                    gather.refuse(Reason::DecodeError);
                    bad(line, error.into());
                }
            },
        }
    }

    fn piece(&mut self, err: bool, piece: Piece<'_>, gather: &mut Gather) {
        let Stream { join, lines, from, handed_to, handed } = &mut self.streams[usize::from(err)];
        if piece.from < *from {
            return;
        }
        self.repeated += u64::from(piece.from < *handed_to);
        let labels = &self.labels;
        let mut put = |event: Event<'_>| put(gather, labels, err, handed, event);
        match lines {
            Some(lines) => join.push(piece, |event| lines.push(event, &mut put)),
            None => join.push(piece, put),
        }
    }
}

fn put(gather: &mut Gather, labels: &Labels, err: bool, handed: &mut Option<u64>, event: Event<'_>) {
    handed.get_or_insert(event.from);
    let mut draft = gather.envelope(&labels.source_id, &labels.instance_id, event.timestamp);
    draft.tags(&labels.tags);
    for (key, value) in event.attrs {
        draft.tag(key, value);
    }
    draft.log(event.text, err);
}

#[cfg(test)]
mod tests;
