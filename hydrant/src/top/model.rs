//! What `hydrant top` knows and what keys do to it. Pure: no terminal, no clock.

use std::collections::{BTreeMap, VecDeque};

use proto::hydrant::v1::OverviewReply;

use super::rows::{Pane, Row};
use crate::overview::change::Change;

/// Seconds of the past that are drawn.
const PAST: usize = 60;

/// The longest filter.
const FILTER: usize = 60;

/// A key, as far as it means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Left,
    Right,
    Enter,
    Escape,
    Backspace,
    /// Ctrl-C.
    Interrupt,
    Char(char),
}

/// What a key asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Nothing,
    Quit,
    /// To follow a source.
    Tail(String),
}

/// What is known and chosen.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) pane: Pane,
    pub(crate) change: Change,
    before: Option<OverviewReply>,
    /// What each source has lost; `None` where it is not to be known.
    pub(crate) lost: Option<BTreeMap<String, u64>>,
    /// By pane, the column.
    sort: [usize; Pane::ALL.len()],
    pub(crate) filter: String,
    /// The filter is being typed.
    pub(crate) typing: bool,
    pub(crate) help: bool,
    /// The row that is chosen, and where it was.
    chosen: Option<String>,
    at: usize,
    /// The first row that is shown.
    pub(crate) first: usize,
    /// Why there is nothing new.
    pub(crate) trouble: Option<String>,
    /// Envelopes a second, the latest last.
    pub(crate) past: VecDeque<f64>,
}

impl Model {
    /// Before anything is known.
    pub(crate) fn new() -> Self {
        Self {
            pane: Pane::Sources,
            change: Change::default(),
            before: None,
            lost: Some(BTreeMap::new()),
            sort: Pane::ALL.map(Pane::usual_sort),
            filter: String::new(),
            typing: false,
            help: false,
            chosen: None,
            at: 0,
            first: 0,
            trouble: None,
            past: VecDeque::new(),
        }
    }

    /// Takes an answer, or why there is none.
    pub(crate) fn update(&mut self, answer: Result<OverviewReply, String>) {
        let reply = match answer {
            Ok(reply) => reply,
            Err(why) => {
                self.trouble = Some(why);
                return;
            }
        };
        self.trouble = None;
        self.change = Change::between(self.before.as_ref(), reply.clone());
        if self.before.replace(reply).is_some() {
            self.past.push_back(self.change.received());
            if self.past.len() > PAST {
                self.past.pop_front();
            }
        }
    }

    /// The rows of the pane, as they are filtered and sorted.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows = self.pane.rows(&self.change, self.lost.as_ref(), self.sorted_by());
        let wanted = self.filter.to_lowercase();
        if !wanted.is_empty() {
            rows.retain(|row| row.cells.iter().any(|cell| cell.text.to_lowercase().contains(&wanted)));
        }
        rows
    }

    /// How many rows a pane has, unfiltered.
    pub(crate) fn count(&self, pane: Pane) -> u64 {
        match pane {
            Pane::Sources => self.change.source_count,
            Pane::Consumers => self.change.consumers.len() as u64,
            Pane::Drains => self.change.drains.len() as u64,
            Pane::Stages => (self.change.stages.len() + self.change.missing.len()) as u64,
        }
    }

    /// The column that the pane is sorted by.
    pub(crate) fn sorted_by(&self) -> usize {
        self.sort[self.place()]
    }

    /// Where the chosen row is now; it stays with its name while others pass it.
    pub(crate) fn chosen(&self, rows: &[Row]) -> usize {
        let named = self.chosen.as_ref().and_then(|key| rows.iter().position(|row| row.key == *key));
        named.unwrap_or(self.at).min(rows.len().saturating_sub(1))
    }

    /// Does what a key says; `height` rows are visible.
    pub(crate) fn press(&mut self, key: Key, height: usize) -> Wish {
        match key {
            Key::Interrupt => return Wish::Quit,
            _ if self.help => self.help = false,
            _ if self.typing => self.edit(key),
            Key::Up | Key::Char('k') => self.step(|at| at.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.step(|at| at + 1),
            Key::PageUp => self.step(|at| at.saturating_sub(height.max(1))),
            Key::PageDown => self.step(|at| at + height.max(1)),
            Key::Home | Key::Char('g') => self.step(|_| 0),
            Key::End | Key::Char('G') => self.step(|_| usize::MAX),
            Key::Right | Key::Char('\t' | 'l') => self.turn(1),
            Key::Left | Key::Char('h') => self.turn(Pane::ALL.len() - 1),
            Key::Char('s') => {
                let place = self.place();
                self.sort[place] = (self.sort[place] + 1) % self.pane.head().len();
            }
            Key::Char('/') => self.typing = true,
            Key::Char('?') => self.help = true,
            Key::Char('q') => return Wish::Quit,
            Key::Escape => self.filter.clear(),
            Key::Enter if self.pane == Pane::Sources => {
                let rows = self.rows();
                if let Some(row) = rows.get(self.chosen(&rows)) {
                    return Wish::Tail(row.key.clone());
                }
            }
            Key::Enter | Key::Backspace | Key::Char(_) => {}
        }
        Wish::Nothing
    }

    fn edit(&mut self, key: Key) {
        match key {
            Key::Escape => {
                self.filter.clear();
                self.typing = false;
            }
            Key::Enter => self.typing = false,
            Key::Backspace => _ = self.filter.pop(),
            Key::Char(char) if !char.is_control() && self.filter.chars().count() < FILTER => self.filter.push(char),
            _ => {}
        }
        (self.chosen, self.at, self.first) = (None, 0, 0);
    }

    fn step(&mut self, to: impl Fn(usize) -> usize) {
        let rows = self.rows();
        self.at = to(self.chosen(&rows)).min(rows.len().saturating_sub(1));
        self.chosen = rows.get(self.at).map(|row| row.key.clone());
    }

    fn turn(&mut self, by: usize) {
        self.pane = Pane::ALL[(self.place() + by) % Pane::ALL.len()];
        (self.chosen, self.at, self.first) = (None, 0, 0);
        self.filter.clear();
    }

    fn place(&self) -> usize {
        Pane::ALL.iter().position(|pane| *pane == self.pane).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overview::change::tests::reply;

    fn model() -> Model {
        let mut model = Model::new();
        model.update(Ok(reply(10)));
        model.update(Ok(reply(11)));
        model
    }

    fn names(model: &Model) -> Vec<String> {
        model.rows().into_iter().map(|row| row.cells[0].text.clone()).collect()
    }

    #[test]
    fn rows_are_sorted_by_the_column_that_s_chooses() {
        let mut model = model();
        assert_eq!(names(&model), ["shop", "app"]);
        model.lost = Some(BTreeMap::from([("app".to_owned(), 3)]));
        model.press(Key::Char('s'), 10);
        assert_eq!(names(&model), ["shop", "app"]);
        model.press(Key::Char('s'), 10);
        assert_eq!(
            (model.pane.head()[model.sorted_by()].0, names(&model)),
            ("LOST", vec!["app".into(), "shop".into()])
        );
        (0..4).for_each(|_| _ = model.press(Key::Char('s'), 10));
        assert_eq!(model.sorted_by(), 1);
    }

    #[test]
    fn the_chosen_row_stays_chosen_while_others_pass_it() {
        let mut model = model();
        assert_eq!(model.press(Key::Enter, 10), Wish::Tail("shop".to_owned()));
        model.press(Key::Down, 10);
        model.press(Key::Down, 10);
        assert_eq!(model.press(Key::Enter, 10), Wish::Tail("app".to_owned()));
        let mut next = reply(12);
        next.sources[1].envelopes += 1_000;
        model.update(Ok(next));
        assert_eq!((names(&model), model.chosen(&model.rows())), (vec!["app".into(), "shop".into()], 0));
        model.press(Key::Char('G'), 10);
        assert_eq!(model.press(Key::Enter, 10), Wish::Tail("shop".to_owned()));
    }

    #[test]
    fn a_filter_is_typed_and_taken_back() {
        let mut model = model();
        for key in [Key::Char('/'), Key::Char('Q'), Key::Backspace, Key::Char('A'), Key::Char('P'), Key::Enter] {
            assert_eq!(model.press(key, 10), Wish::Nothing);
        }
        assert_eq!((names(&model), model.typing), (vec!["app".into()], false));
        model.press(Key::Escape, 10);
        assert_eq!(names(&model).len(), 2);
        model.press(Key::Char('/'), 10);
        (0..500).for_each(|_| _ = model.press(Key::Char('x'), 10));
        assert_eq!(model.filter.len(), FILTER);
        assert_eq!(model.press(Key::Enter, 10), Wish::Nothing);
        assert_eq!(model.press(Key::Enter, 10), Wish::Nothing);
    }

    #[test]
    fn panes_turn_and_quit_quits() {
        let mut model = model();
        for pane in [Pane::Consumers, Pane::Drains, Pane::Stages, Pane::Sources] {
            model.press(Key::Right, 10);
            assert_eq!(model.pane, pane);
            assert!(model.rows().iter().all(|row| row.cells.len() == pane.head().len()));
            assert!(!model.rows().is_empty());
        }
        model.press(Key::Left, 10);
        assert_eq!((model.pane, model.press(Key::Enter, 10)), (Pane::Stages, Wish::Nothing));
        model.press(Key::Char('?'), 10);
        assert!(model.help);
        assert_eq!(model.press(Key::Char('q'), 10), Wish::Nothing);
        assert_eq!((model.help, model.press(Key::Char('q'), 10)), (false, Wish::Quit));
    }

    #[test]
    fn trouble_keeps_what_was_known() {
        let mut model = model();
        model.update(Err("gone".to_owned()));
        assert_eq!((model.trouble.as_deref(), model.rows().len()), (Some("gone"), 2));
        model.update(Ok(reply(12)));
        assert_eq!((model.trouble.as_deref(), model.past.len()), (None, 2));
    }
}
