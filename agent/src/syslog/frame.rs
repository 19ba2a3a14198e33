//! Where one message of a stream ends and the next begins (RFC 6587 §3.4): a message that starts with a digit has its length before it,
//! any other ends with a line feed or a NUL. Pure.
//!
//! What enters: the bytes that a connection has brought and nobody has taken yet. What leaves: whole messages, one at a time. A message
//! over the bound is passed over as its bytes come, so a reader never holds more than a message of the largest size and one reading.

use memchr::memchr2;

/// Digits of a length, at most.
const COUNT_DIGITS: usize = 7;

/// Takes messages off a stream.
#[derive(Debug)]
pub struct Deframer {
    max: usize,
    /// What is being passed over.
    skipping: Skipping,
    /// Bytes at the front in which there is no end.
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
pub enum Step<'a> {
    /// A message.
    Message(&'a [u8]),
    /// A message over the bound. Its bytes will be passed over.
    Oversize,
    /// Nothing that can be taken yet.
    More,
}

/// How the message at the front is told from the next.
enum Head {
    /// By its length, which is this, behind so many bytes.
    Counted {
        start: usize,
        count: usize,
    },
    Line,
    /// That is not to be seen yet.
    Unknown,
}

impl Deframer {
    /// For messages of at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { max, skipping: Skipping::No, searched: 0 }
    }

    /// What stands at the front of `bytes`, and how many of them are done with by that.
    pub fn next<'a>(&mut self, bytes: &'a [u8]) -> (Step<'a>, usize) {
        let mut passed = self.skip(bytes);
        if self.skipping != Skipping::No {
            return (Step::More, passed);
        }
        // Between messages.
        if self.searched == 0 {
            passed += bytes[passed..].iter().take_while(|byte| is_end(**byte)).count();
        }
        let rest = &bytes[passed..];
        let (step, taken) = match head(rest) {
            Head::Unknown => (Step::More, 0),
            Head::Counted { start, count } if count > self.max => {
                self.skipping = Skipping::Bytes(count);
                (Step::Oversize, start)
            }
            Head::Counted { start, count } => match rest.get(start..start + count) {
                None => (Step::More, 0),
                Some(message) => (Step::Message(message), start + count),
            },
            Head::Line => self.line(rest),
        };
        (step, passed + taken)
    }

    /// What is left when a stream has ended: a last line that nothing follows.
    pub fn last<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let is_line = self.skipping == Skipping::No && matches!(head(bytes), Head::Line) && !is_blank(bytes);
        is_line.then_some(bytes)
    }

    /// True when a stream that ends before `bytes` were enough has lost a message.
    pub fn is_within_message(&self, bytes: &[u8]) -> bool {
        // A message over the bound has been counted.
        self.skipping == Skipping::No && !is_blank(bytes)
    }

    fn skip(&mut self, bytes: &[u8]) -> usize {
        match self.skipping {
            Skipping::No => 0,
            Skipping::Bytes(left) => {
                let passed = left.min(bytes.len());
                self.skipping = if passed < left { Skipping::Bytes(left - passed) } else { Skipping::No };
                passed
            }
            Skipping::Line => match end_of(bytes) {
                None => bytes.len(),
                Some(at) => {
                    self.skipping = Skipping::No;
                    at + 1
                }
            },
        }
    }

    fn line<'a>(&mut self, bytes: &'a [u8]) -> (Step<'a>, usize) {
        let from = std::mem::take(&mut self.searched).min(bytes.len());
        let Some(end) = end_of(&bytes[from..]).map(|at| from + at) else {
            if bytes.len() > self.max {
                self.skipping = Skipping::Line;
                return (Step::Oversize, bytes.len());
            }
            self.searched = bytes.len();
            return (Step::More, 0);
        };
        let message = &bytes[..end];
        if message.len() > self.max { (Step::Oversize, end + 1) } else { (Step::Message(message), end + 1) }
    }
}

/// A length and a space are one; anything else that starts with a digit is the start of a line.
fn head(bytes: &[u8]) -> Head {
    match bytes.first() {
        None => return Head::Unknown,
        Some(b'1'..=b'9') => {}
        Some(_) => return Head::Line,
    }
    let digits = bytes.iter().take(COUNT_DIGITS + 1).take_while(|byte| byte.is_ascii_digit()).count();
    match bytes.get(digits) {
        _ if digits > COUNT_DIGITS => Head::Line,
        None => Head::Unknown,
        Some(b' ') => {
            let count = bytes[..digits].iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
            Head::Counted { start: digits + 1, count }
        }
        Some(_) => Head::Line,
    }
}

fn end_of(bytes: &[u8]) -> Option<usize> {
    memchr2(b'\n', 0, bytes)
}

fn is_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r' | 0)
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| is_end(*byte))
}
