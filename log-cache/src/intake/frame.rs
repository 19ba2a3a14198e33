//! Where one message of a stream ends and the next begins: octet counting (RFC 6587 §3.4.1) or a line feed at each end (§3.4.2). Pure.
//!
//! What enters: the bytes that a connection has brought and nobody has taken yet. What leaves: whole messages, one at a time. A message over
//! the bound is passed over as its bytes come, so a reader never holds more than a message of the largest size and one reading.

/// How messages are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Framing {
    /// The length in bytes and a space precede each message; line feeds between messages are passed over.
    #[default]
    OctetCounting,
    /// A line feed follows each message.
    LineFeed,
}

/// Digits of a length, at most.
const COUNT_DIGITS: usize = 7;

/// Takes messages off a stream.
#[derive(Debug)]
pub(super) struct Deframer {
    framing: Framing,
    max: usize,
    /// What is being passed over.
    skipping: Skipping,
    /// Bytes at the front in which there is no line feed.
    searched: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Skipping {
    No,
    Bytes(usize),
    Line,
}

/// What stands at the front of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// A message.
    Line(&'a [u8]),
    /// A message over the bound. Its bytes will be passed over.
    Oversize,
    /// Nothing that can be taken yet.
    More,
    /// No length where one must be: nobody knows where the next message begins.
    Lost,
}

impl Deframer {
    /// For messages of at most `max` bytes.
    pub(super) fn new(framing: Framing, max: usize) -> Self {
        Self { framing, max, skipping: Skipping::No, searched: 0 }
    }

    /// What stands at the front of `bytes`, and how many of them are done with by that.
    pub(super) fn next<'a>(&mut self, bytes: &'a [u8]) -> (Step<'a>, usize) {
        let passed = self.skip(bytes);
        let rest = &bytes[passed..];
        let (step, taken) = match (self.skipping, self.framing) {
            (Skipping::No, Framing::OctetCounting) => self.counted(rest),
            (Skipping::No, Framing::LineFeed) => self.delimited(rest),
            _ => (Step::More, 0),
        };
        (step, passed + taken)
    }

    /// What is left when a stream has ended in form: with line feeds, a last message without one.
    pub(super) fn last<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let is_whole = self.framing == Framing::LineFeed && self.skipping == Skipping::No && !is_blank(bytes);
        is_whole.then_some(bytes)
    }

    /// True when a stream that ends before `bytes` were enough has lost a message.
    pub(super) fn is_within_message(&self, bytes: &[u8]) -> bool {
        // A message over the bound has been counted.
        self.skipping == Skipping::No && !is_blank(bytes)
    }

    /// Passes over what is to be passed over.
    fn skip(&mut self, bytes: &[u8]) -> usize {
        match self.skipping {
            Skipping::No => 0,
            Skipping::Bytes(left) => {
                let passed = left.min(bytes.len());
                self.skipping = if passed < left { Skipping::Bytes(left - passed) } else { Skipping::No };
                passed
            }
            Skipping::Line => match line_feed(bytes) {
                None => bytes.len(),
                Some(at) => {
                    self.skipping = Skipping::No;
                    at + 1
                }
            },
        }
    }

    fn counted<'a>(&mut self, bytes: &'a [u8]) -> (Step<'a>, usize) {
        let between = bytes.iter().take_while(|byte| **byte == b'\n').count();
        let bytes = &bytes[between..];
        let digits = bytes.iter().take(COUNT_DIGITS + 1).take_while(|byte| byte.is_ascii_digit()).count();
        if digits > COUNT_DIGITS || bytes.first() == Some(&b'0') {
            return (Step::Lost, between);
        }
        let start = digits + 1;
        match bytes.get(digits) {
            None => return (Step::More, between),
            Some(b' ') if digits > 0 => {}
            Some(_) => return (Step::Lost, between),
        }
        let count = bytes[..digits].iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
        if count > self.max {
            self.skipping = Skipping::Bytes(count);
            return (Step::Oversize, between + start);
        }
        match bytes.get(start..start + count) {
            None => (Step::More, between),
            Some(line) => (Step::Line(line), between + start + count),
        }
    }

    fn delimited<'a>(&mut self, bytes: &'a [u8]) -> (Step<'a>, usize) {
        let mut begin = 0;
        loop {
            let rest = &bytes[begin..];
            let from = std::mem::take(&mut self.searched).min(rest.len());
            let Some(end) = line_feed(&rest[from..]).map(|at| from + at) else {
                if rest.len() > self.max {
                    self.skipping = Skipping::Line;
                    return (Step::Oversize, bytes.len());
                }
                self.searched = rest.len();
                return (Step::More, begin);
            };
            let line = &rest[..end];
            begin += end + 1;
            if line.len() > self.max {
                return (Step::Oversize, begin);
            }
            if !is_blank(line) {
                return (Step::Line(line), begin);
            }
        }
    }
}

fn line_feed(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}

/// Nothing but line ends: no message.
fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\n' | b'\r'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 100;

    /// What a stream gives when it comes in pieces: messages, `None` for one over the bound, and whether its end was found.
    fn read(framing: Framing, stream: &[u8], piece: usize) -> (Vec<Option<Vec<u8>>>, bool) {
        let (mut deframer, mut buffer, mut found) = (Deframer::new(framing, MAX), Vec::new(), Vec::new());
        for piece in stream.chunks(piece.max(1)) {
            buffer.extend_from_slice(piece);
            let mut done = 0;
            loop {
                let (step, taken) = deframer.next(&buffer[done..]);
                done += taken;
                match step {
                    Step::Line(line) => found.push(Some(line.to_vec())),
                    Step::Oversize => found.push(None),
                    Step::More => break,
                    Step::Lost => return (found, false),
                }
            }
            buffer.drain(..done);
            assert!(buffer.len() <= MAX + COUNT_DIGITS + 1, "{} bytes are held", buffer.len());
        }
        found.extend(deframer.last(&buffer).map(|line| Some(line.to_vec())));
        (found, true)
    }

    fn lines(lines: &[&str]) -> Vec<Option<Vec<u8>>> {
        lines.iter().map(|line| Some(line.as_bytes().to_vec())).collect()
    }

    #[test]
    fn counted_messages_stand_close_or_behind_line_feeds() {
        for piece in [1, 2, 7, 1000] {
            let all = read(Framing::OctetCounting, b"3 abc\n5 d\ne\nf2 gh\n\n\n1  ", piece);
            assert_eq!(all, (lines(&["abc", "d\ne\nf", "gh", " "]), true), "in pieces of {piece}");
        }
    }

    #[test]
    fn a_message_over_the_bound_costs_only_itself() {
        let long = "x".repeat(5_000);
        for piece in [1, 64, 10_000] {
            let stream = format!("2 ab5000 {long}2 cd");
            let expected = vec![Some(b"ab".to_vec()), None, Some(b"cd".to_vec())];
            assert_eq!(read(Framing::OctetCounting, stream.as_bytes(), piece), (expected.clone(), true));
            let stream = format!("ab\n{long}\ncd\n");
            assert_eq!(read(Framing::LineFeed, stream.as_bytes(), piece), (expected, true));
        }
    }

    #[test]
    fn what_is_no_length_ends_the_stream() {
        for stream in ["<14>1", "1a bc", "01 a", " a", "0 ", "12345678 a", "1 a- b", "\r2 ab"] {
            assert!(!read(Framing::OctetCounting, stream.as_bytes(), 1).1, "{stream}");
        }
        assert_eq!(read(Framing::OctetCounting, b"1 a9999999 b", 100), (vec![Some(b"a".to_vec()), None], true));
    }

    #[test]
    fn lines_end_with_a_line_feed_and_the_last_with_the_stream() {
        for piece in [1, 3, 1000] {
            assert_eq!(read(Framing::LineFeed, b"a\n\n\r\nb\r\nc", piece), (lines(&["a", "b\r", "c"]), true));
        }
        assert_eq!(read(Framing::LineFeed, b"a\n\n", 1), (lines(&["a"]), true));
    }

    #[test]
    fn a_stream_that_ends_within_a_message_has_lost_it() {
        for (stream, within) in [("", false), ("\n", false), ("1", true), ("10 ab", true), ("9999999 ab", false)] {
            let mut deframer = Deframer::new(Framing::OctetCounting, MAX);
            let mut rest = stream.as_bytes();
            loop {
                let (step, taken) = deframer.next(rest);
                rest = &rest[taken..];
                if step == Step::More {
                    break;
                }
            }
            assert_eq!(deframer.is_within_message(rest), within, "{stream:?}");
        }
    }

    proptest! {
        /// However a stream is cut into readings, the same messages come out of it, and never more is held than one of the largest.
        #[test]
        fn pieces_do_not_matter(
            stream in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b' '), b'0'..=b'9', any::<u8>()], 0..600),
            piece in 1_usize..40,
        ) {
            for framing in [Framing::OctetCounting, Framing::LineFeed] {
                prop_assert_eq!(read(framing, &stream, piece), read(framing, &stream, stream.len()));
            }
        }

        /// What was framed by length comes out as it was.
        #[test]
        fn framed_messages_come_back(messages in proptest::collection::vec("[ -~\n]{1,90}", 0..20), piece in 1_usize..200) {
            let stream: String = messages.iter().map(|message| format!("{} {message}", message.len())).collect();
            let expected: Vec<_> = messages.iter().map(|message| Some(message.as_bytes().to_vec())).collect();
            prop_assert_eq!(read(Framing::OctetCounting, stream.as_bytes(), piece), (expected, true));
        }
    }
}
