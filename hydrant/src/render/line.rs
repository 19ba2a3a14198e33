//! One line in the making: safe text in painted pieces, and what was looked for in it marked. Pure.

use std::ops::Range;

use regex::Regex;

use super::palette::{FOUND, PLAIN, Paint, RESET};
use super::safe::put_safely;

/// Matches marked in one line.
const MATCHES: usize = 100;

/// A line, with or without its end.
#[derive(Debug, Default)]
pub(crate) struct Line {
    text: String,
    /// Where a paint begins; it holds to the next.
    paints: Vec<(usize, Paint)>,
    /// Where matches are looked for.
    message: usize,
}

impl Line {
    /// Appends other people's text.
    pub(crate) fn put(&mut self, paint: Paint, text: &str) {
        self.begin(paint);
        put_safely(&mut self.text, text);
    }

    /// Appends our own text.
    pub(crate) fn own(&mut self, paint: Paint, text: &str) {
        self.begin(paint);
        self.text.push_str(text);
    }

    fn begin(&mut self, paint: Paint) {
        if self.paints.last().is_none_or(|(_, last)| *last != paint) {
            self.paints.push((self.text.len(), paint));
        }
    }

    /// Appends spaces until it is so many characters wide.
    pub(crate) fn pad(&mut self, width: usize) {
        let missing = width.saturating_sub(self.width());
        self.begin(PLAIN);
        self.text.extend(std::iter::repeat_n(' ', missing));
    }

    /// Its characters.
    pub(crate) fn width(&self) -> usize {
        self.text.chars().count()
    }

    /// What comes from here on is the message.
    pub(crate) fn message_begins(&mut self) {
        self.message = self.text.len();
    }

    /// Without colour.
    pub(crate) fn plain(self) -> String {
        self.text
    }

    /// Appends it in colour, with what `highlight` matches in the message marked.
    pub(crate) fn paint(&self, into: &mut String, highlight: &[Regex]) {
        let found = self.found(highlight);
        let ends = |range: &Range<usize>| [range.start, range.end];
        let mut stops: Vec<usize> = self.paints.iter().map(|(at, _)| *at).collect();
        stops.extend(found.iter().flat_map(ends));
        stops.push(self.text.len());
        stops.sort_unstable();
        stops.dedup();
        let mut at = 0;
        for stop in stops {
            if stop == at {
                continue;
            }
            let paint = self.paints.iter().rev().find(|(begin, _)| *begin <= at).map_or(PLAIN, |(_, paint)| *paint);
            let found = found.iter().any(|range| range.contains(&at));
            into.push_str(paint);
            into.push_str(if found { FOUND } else { "" });
            into.push_str(&self.text[at..stop]);
            into.push_str(if found || !paint.is_empty() { RESET } else { "" });
            at = stop;
        }
    }

    fn found(&self, highlight: &[Regex]) -> Vec<Range<usize>> {
        let message = &self.text[self.message..];
        let matches = highlight.iter().flat_map(|regex| regex.find_iter(message)).filter(|found| !found.is_empty());
        matches.take(MATCHES).map(|found| self.message + found.start()..self.message + found.end()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::palette::{DIM, RED};
    use super::*;

    #[test]
    fn matches_are_marked_across_paints_and_in_the_message_alone() {
        let mut line = Line::default();
        line.put(DIM, "ab");
        line.message_begins();
        line.put(PLAIN, "xa");
        line.put(RED, "b\x1b");
        let mut painted = String::new();
        line.paint(&mut painted, &[Regex::new("ab").expect("a regex")]);
        let expected = format!("{DIM}ab{RESET}x{FOUND}a{RESET}{RED}{FOUND}b{RESET}{RED}\\x1b{RESET}");
        assert_eq!(painted, expected);
        assert_eq!((line.width(), line.plain().as_str()), (9, "abxab\\x1b"));
    }
}
