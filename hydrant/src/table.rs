//! Tables for people: columns as wide as what stands in them. Pure.

use std::fmt::Write;

use crate::render::palette::{DIM, RESET};
use crate::render::safe;

/// Which side of its column a cell stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// Rows under a head.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    head: [(&'static str, Side); N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// An empty table.
    pub(crate) fn new(head: [(&'static str, Side); N]) -> Self {
        Self { head, rows: Vec::new() }
    }

    /// Adds a row, made safe for a terminal.
    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| safe(&cell)));
    }

    /// The table, each line with its end.
    pub(crate) fn text(&self, colour: bool) -> String {
        let mut widths = self.head.map(|(name, _)| name.len());
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        let head = self.head.map(|(name, _)| name.to_owned());
        let (dim, reset) = if colour { (DIM, RESET) } else { ("", "") };
        let _infallible = writeln!(text, "{dim}{}{reset}", self.line(&head, &widths));
        for row in &self.rows {
            let _infallible = writeln!(text, "{}", self.line(row, &widths));
        }
        text
    }

    fn line(&self, row: &[String; N], widths: &[usize; N]) -> String {
        let mut line = String::new();
        for (i, ((cell, width), (_, side))) in row.iter().zip(widths).zip(&self.head).enumerate() {
            line.push_str(if i == 0 { "" } else { "  " });
            let _infallible = match side {
                Side::Left => write!(line, "{cell:<width$}"),
                Side::Right => write!(line, "{cell:>width$}"),
            };
        }
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let mut table = Table::new([("SOURCE", Side::Left), ("N", Side::Right), ("WHY", Side::Left)]);
        table.row(["a\x1b".to_owned(), "1 000".to_owned(), String::new()]);
        table.row(["longer-name".to_owned(), "5".to_owned(), "x".to_owned()]);
        assert_eq!(table.text(false), "SOURCE           N  WHY\na\\x1b        1 000\nlonger-name      5  x\n");
        assert!(table.text(true).starts_with("\x1b[2mSOURCE"));
    }
}
