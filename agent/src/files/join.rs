//! Parts of a line to the whole: one stream of one file. Pure.
//!
//! What enters: pieces in their order. What leaves: events, each of a line or, where that is longer than an envelope's text may be, of a
//! part of it. Nothing that enters is left out.

use super::docker::Attrs;

/// What was read of a stream: a whole line, or a part of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    /// Where it begins in the file.
    pub(super) from: u64,
    /// Nanoseconds since the Unix epoch.
    pub(super) timestamp: i64,
    /// Whether the line goes on.
    pub(super) more: bool,
    pub(super) text: &'a [u8],
    pub(super) attrs: &'a [(String, String)],
}

/// What becomes an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event<'a> {
    /// Where it begins in the file.
    pub(super) from: u64,
    pub(super) timestamp: i64,
    pub(super) text: &'a [u8],
    pub(super) attrs: &'a [(String, String)],
}

/// Joins the pieces of one stream.
#[derive(Debug)]
pub(super) struct Join {
    max: usize,
    /// What is there of a line that goes on; at most `max` bytes.
    buffer: Vec<u8>,
    open: Option<Open>,
    /// Lines that were longer than `max`.
    pub(super) split: u64,
}

/// Of the first piece.
#[derive(Debug)]
struct Open {
    from: u64,
    timestamp: i64,
    attrs: Attrs,
    /// The line is counted as a long one.
    is_split: bool,
}

impl Join {
    /// Of texts of at most `max` bytes.
    pub(super) fn new(max: usize) -> Self {
        Self { max, buffer: Vec::new(), open: None, split: 0 }
    }

    /// Where the line begins that goes on.
    pub(super) fn from(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.from)
    }

    /// Takes a piece.
    pub(super) fn push(&mut self, piece: Piece<'_>, mut emit: impl FnMut(Event<'_>)) {
        let Piece { from, timestamp, more, text, attrs } = piece;
        if self.open.is_none() && !more && text.len() <= self.max {
            return emit(Event { from, timestamp, text, attrs });
        }
        let mut is_split = false;
        if let Some(open) = &mut self.open {
            if self.buffer.len() + text.len() <= self.max {
                self.buffer.extend_from_slice(text);
                if !more {
                    self.flush(emit);
                }
                return;
            }
            is_split = true;
            self.split += u64::from(!std::mem::replace(&mut open.is_split, true));
            self.flush(&mut emit);
        }
        let mut rest = text;
        while rest.len() > self.max {
            self.split += u64::from(!std::mem::replace(&mut is_split, true));
            let (part, later) = rest.split_at(boundary(rest, self.max));
            emit(Event { from, timestamp, text: part, attrs });
            rest = later;
        }
        // Of a piece that was split nothing is held: who goes on after a stop begins with a whole piece.
        if more && text.len() <= self.max {
            self.buffer.extend_from_slice(rest);
            self.open = Some(Open { from, timestamp, attrs: attrs.to_vec(), is_split });
        } else {
            emit(Event { from, timestamp, text: rest, attrs });
        }
    }

    /// Gives out what is there of a line.
    pub(super) fn flush(&mut self, mut emit: impl FnMut(Event<'_>)) {
        if let Some(open) = self.open.take() {
            emit(Event { from: open.from, timestamp: open.timestamp, text: &self.buffer, attrs: &open.attrs });
            self.buffer.clear();
            // A line that was long once does not keep its room.
            self.buffer.shrink_to(8 * 1024);
        }
    }
}

/// Where to split a text of more than `max` bytes: not within a character, where it has any.
pub(super) fn boundary(text: &[u8], max: usize) -> usize {
    let inside = |at: usize| text[at] & 0xc0 == 0x80;
    (max.saturating_sub(3).max(1)..=max).rev().find(|&at| !inside(at)).unwrap_or(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(from: u64, text: &str, more: bool) -> Piece<'_> {
        Piece { from, timestamp: i64::try_from(from).unwrap(), more, text: text.as_bytes(), attrs: &[] }
    }

    fn joined(max: usize, pieces: &[(u64, &str, bool)]) -> (Vec<(u64, String)>, Join) {
        let mut join = Join::new(max);
        let mut events = Vec::new();
        for &(from, text, more) in pieces {
            join.push(piece(from, text, more), |event| {
                events.push((event.from, String::from_utf8(event.text.to_vec()).unwrap()));
            });
        }
        (events, join)
    }

    #[test]
    fn parts_become_a_line_that_begins_where_the_first_did() {
        let (events, join) =
            joined(100, &[(0, "a", false), (10, "b", true), (20, "", true), (30, "c", false), (40, "d", true)]);
        assert_eq!(events, [(0, "a".to_owned()), (10, "bc".to_owned())]);
        assert_eq!(join.from(), Some(40));
        assert_eq!(join.split, 0);
    }

    #[test]
    fn a_long_line_becomes_several_and_nothing_of_it_is_lost() {
        let (events, join) =
            joined(4, &[(0, "abcdefghij", false), (20, "abc", true), (30, "defghijk", true), (40, "l", false)]);
        let texts: Vec<_> = events.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["abcd", "efgh", "ij", "abc", "defg", "hijk", "l"]);
        assert_eq!((join.split, join.from()), (2, None));
    }

    #[test]
    fn a_character_is_not_split() {
        let (events, _) = joined(4, &[(0, "aaéé€", false)]);
        let texts: Vec<_> = events.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["aaé", "é", "€"]);
        assert_eq!(boundary(&[0x80; 10], 4), 4, "bytes that are no text are split anywhere");
    }
}
