//! `hydrant top` on the screen, of whatever size. Pure: a model enters, cells of a buffer leave.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph};

use super::model::Model;
use super::rows::{Cell, Pane, Row, Tone};
use crate::render::palette::number_of;
use crate::table::Side;
use crate::units;

/// Lines that are not rows: two above, the head, and one below.
const AROUND: u16 = 5;
/// A name keeps so many characters, whatever else goes; and as many of a long one, as long as a few columns stay.
const NAME: usize = 12;
const LONG_NAME: usize = 36;
const FEW: usize = 4;

const HELP: [&str; 13] = [
    "arrows, j k      move",
    "PgUp PgDn g G    move far",
    "Tab, left right  the next pane",
    "s                sort by the next column",
    "/                filter; Enter keeps it, Esc takes it away",
    "Enter            tail the source; q comes back",
    "q                quit",
    "",
    "LINES/S          put into the cache, a second",
    "WAITING          not yet taken by who asked for it",
    "LOST             dropped since the process started;",
    "                 of sources, as told every 10 s",
    "HELD             in the cache now",
];

/// Rows that fit a screen of so many lines.
pub(crate) fn visible(height: u16) -> usize {
    usize::from(height.saturating_sub(AROUND))
}

/// Draws everything.
pub(crate) fn draw(frame: &mut Frame<'_>, model: &mut Model, server: &str, colour: bool) {
    let area = frame.area();
    let line = |y: u16| Rect { y, height: 1.min(area.height.saturating_sub(y)), ..area };
    frame.render_widget(Paragraph::new(title(model, server, usize::from(area.width))), line(0));
    frame.render_widget(Paragraph::new(panes(model)), line(1));
    let rows = model.rows();
    let chosen = model.chosen(&rows);
    let visible = visible(area.height);
    model.first = model.first.min(chosen).max((chosen + 1).saturating_sub(visible.max(1)));
    model.first = model.first.min(rows.len().saturating_sub(visible));
    let shown = rows.iter().enumerate().skip(model.first).take(visible);
    let widths = widths(model.pane, &rows, usize::from(area.width));
    frame.render_widget(Paragraph::new(head(model, &widths)), line(3));
    for (y, (i, row)) in (4..).zip(shown) {
        let mut text = row_line(row, &widths, model.pane, colour);
        if i == chosen {
            text = text.patch_style(Style::new().add_modifier(Modifier::REVERSED));
        }
        frame.render_widget(Paragraph::new(text), line(y));
    }
    if rows.is_empty() && area.height > AROUND {
        frame.render_widget(Paragraph::new(dim(&format!("  {}", nothing(model)))), line(4));
    }
    if area.height > AROUND {
        frame.render_widget(Paragraph::new(foot(model)), line(area.height - 1));
    }
    if model.help {
        help(frame, area);
    }
}

fn dim(text: &str) -> Line<'static> {
    Line::from(Span::styled(text.to_owned(), Style::new().add_modifier(Modifier::DIM)))
}

fn alarm() -> Style {
    Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)
}

fn title(model: &Model, server: &str, width: usize) -> Line<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut spans = vec![Span::styled(" hydrant ", bold), Span::raw(format!("{server}  "))];
    if let Some(trouble) = &model.trouble {
        spans.push(Span::styled(format!("no answer: {trouble}"), alarm()));
        return Line::from(spans);
    }
    if model.past.is_empty() {
        spans.push(Span::raw("looking"));
        return Line::from(spans);
    }
    spans.push(Span::raw(format!("{}/s in  ", units::count(model.change.received()))));
    let lost = model.change.lost();
    let style = if lost > 0.0 { alarm() } else { Style::new().add_modifier(Modifier::DIM) };
    spans.push(Span::styled(format!("{} lost/s  ", units::count(lost)), style));
    if !model.change.missing.is_empty() {
        spans.push(Span::styled(format!("{} away  ", model.change.missing.len()), alarm()));
    }
    let taken: usize = spans.iter().map(Span::width).sum();
    let room = width.saturating_sub(taken + 1).min(model.past.len());
    let curve = curve(model.past.iter().skip(model.past.len() - room).copied());
    let gap = width.saturating_sub(taken + room + 1);
    spans.push(Span::raw(" ".repeat(gap)));
    spans.push(Span::styled(curve, Style::new().fg(Color::Indexed(number_of("hydrant")))));
    Line::from(spans)
}

/// Numbers as a curve that begins at nothing.
fn curve(numbers: impl Iterator<Item = f64> + Clone) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = numbers.clone().fold(0.0, f64::max).max(1e-9);
    numbers.map(|number| STEPS[((number / most * 7.0).round() as usize).min(7)]).collect()
}

fn panes(model: &Model) -> Line<'static> {
    let mut spans = Vec::new();
    for pane in Pane::ALL {
        let text = format!(" {} {} ", pane.title(), units::exact(model.count(pane)));
        let style = match pane == model.pane {
            true => Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
            false => Style::new().add_modifier(Modifier::DIM),
        };
        spans.push(Span::styled(text, style));
        spans.push(Span::raw(" "));
    }
    Line::from(spans)
}

/// How wide each column is. Of what does not fit, the last column is cut if it is text, then a long name; then columns go, the last first.
fn widths(pane: Pane, rows: &[Row], width: usize) -> Vec<usize> {
    // With room for the mark of the column that sorts.
    let mut widths: Vec<usize> = pane.head().iter().map(|(name, _)| name.len() + 1).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(&row.cells) {
            *width = (*width).max(Span::raw(&*cell.text).width());
        }
    }
    let all = |widths: &[usize]| widths.iter().sum::<usize>() + 2 * widths.len();
    let is_text = pane.head().last().is_some_and(|(_, side)| *side == Side::Left);
    if is_text && let Some((last, others)) = widths.split_last_mut() {
        *last = (*last).min(width.saturating_sub(all(others) + 2).max(NAME));
    }
    for least in [LONG_NAME, NAME] {
        let excess = all(&widths).saturating_sub(width);
        widths[0] = widths[0].saturating_sub(excess).max(least.min(widths[0]));
        let columns = if least == LONG_NAME { FEW } else { 1 };
        while widths.len() > columns && all(&widths) > width {
            widths.pop();
        }
    }
    // What is left over stands behind the name, so that numbers do not move with names.
    if !is_text {
        widths[0] += width.saturating_sub(all(&widths)).min(36_usize.saturating_sub(widths[0]));
    }
    widths
}

fn head(model: &Model, widths: &[usize]) -> Line<'static> {
    let mut spans = Vec::new();
    for (i, ((name, side), width)) in model.pane.head().iter().zip(widths).enumerate() {
        let name = if i == model.sorted_by() { format!("{name}▾") } else { (*name).to_owned() };
        let style = match i == model.sorted_by() {
            true => Style::new().add_modifier(Modifier::BOLD),
            false => Style::new().add_modifier(Modifier::DIM),
        };
        spans.push(Span::styled(fit(&name, *width, *side), style));
        spans.push(Span::raw("  "));
    }
    spans.insert(0, Span::raw(" "));
    Line::from(spans)
}

fn row_line(row: &Row, widths: &[usize], pane: Pane, colour: bool) -> Line<'static> {
    let mut spans = vec![Span::raw(" ")];
    for ((cell, width), (_, side)) in row.cells.iter().zip(widths).zip(pane.head()) {
        spans.push(Span::styled(fit(&cell.text, *width, *side), style(cell, colour)));
        spans.push(Span::raw("  "));
    }
    Line::from(spans)
}

fn style(cell: &Cell, colour: bool) -> Style {
    match cell.tone {
        Tone::Plain => Style::new(),
        Tone::Dim => Style::new().add_modifier(Modifier::DIM),
        Tone::Alarm if colour => alarm(),
        Tone::Alarm => Style::new().add_modifier(Modifier::BOLD),
        Tone::Name if colour => Style::new().fg(Color::Indexed(number_of(&cell.text))),
        Tone::Name => Style::new(),
    }
}

/// `text` in so many columns: cut, or filled up with spaces.
fn fit(text: &str, width: usize, side: Side) -> String {
    let is = Span::raw(text).width();
    if is <= width {
        let space = " ".repeat(width - is);
        return match side {
            Side::Left => format!("{text}{space}"),
            Side::Right => format!("{space}{text}"),
        };
    }
    let mut cut = String::new();
    let mut taken = 0;
    for char in text.chars() {
        let wide = Span::raw(char.to_string()).width();
        if taken + wide + 1 > width {
            break;
        }
        taken += wide;
        cut.push(char);
    }
    if width > 0 {
        cut.push('…');
        taken += 1;
    }
    cut + &" ".repeat(width.saturating_sub(taken))
}

fn nothing(model: &Model) -> &'static str {
    match model.pane {
        _ if !model.filter.is_empty() => "nothing matches the filter",
        _ if model.past.is_empty() => "",
        Pane::Sources => "no sources yet: some-app 2>&1 | hydrant emit my-app",
        Pane::Consumers => "nobody reads",
        Pane::Drains => "no drains: hydrant drain add NAME URL",
        Pane::Stages => "this token does not see the pipeline's state",
    }
}

fn foot(model: &Model) -> Line<'static> {
    if model.typing {
        return Line::from(vec![
            Span::styled(" filter: ", Style::new().add_modifier(Modifier::BOLD)),
            Span::raw(model.filter.clone()),
            Span::styled(" ", Style::new().add_modifier(Modifier::REVERSED)),
        ]);
    }
    let keys = " q quit   Tab pane   s sort   / filter   Enter tail   ? help";
    match model.filter.is_empty() {
        true => dim(keys),
        false => Line::from(vec![
            Span::styled(format!(" filter: {} ", model.filter), Style::new().add_modifier(Modifier::BOLD)),
            Span::styled("  Esc takes it away".to_owned(), Style::new().add_modifier(Modifier::DIM)),
        ]),
    }
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let width = HELP.iter().map(|line| line.len()).max().unwrap_or(0) as u16 + 4;
    let height = HELP.len() as u16 + 2;
    let within = Rect {
        x: area.width.saturating_sub(width) / 2,
        y: area.height.saturating_sub(height) / 2,
        width: width.min(area.width),
        height: height.min(area.height),
    };
    let lines: Vec<Line<'_>> = HELP.iter().map(|line| Line::from(format!(" {line}"))).collect();
    let block = ratatui::widgets::Block::bordered().title(" keys ");
    frame.render_widget(Clear, within);
    frame.render_widget(Paragraph::new(lines).block(block), within);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::model::Key;
    use super::*;
    use crate::overview::change::tests::reply;

    fn drawn(model: &mut Model, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen");
        terminal.draw(|frame| draw(frame, model, "127.0.0.1:8084", true)).expect("drawn");
        // A screen of nothing cannot be printed.
        if width == 0 { String::new() } else { terminal.backend().to_string() }
    }

    fn model() -> Model {
        let mut model = Model::new();
        model.update(Ok(reply(10)));
        model.update(Ok(reply(11)));
        model
    }

    #[test]
    fn every_size_can_be_drawn() {
        let mut model = model();
        for help in [false, true] {
            model.help = help;
            for pane in Pane::ALL {
                model.pane = pane;
                for width in (0..30).chain([80, 200]) {
                    for height in (0..12).chain([24, 50]) {
                        drawn(&mut model, width, height);
                    }
                }
            }
        }
    }

    #[test]
    fn a_screen_has_a_title_panes_rows_and_keys() {
        let mut model = model();
        let shown = drawn(&mut model, 80, 12);
        for part in
            ["hydrant 127.0.0.1:8084  10/s in", "2 lost/s", " Sources 2 ", "LINES/S▾", "shop ", "500 B", "q quit"]
        {
            assert!(shown.contains(part), "{part} is missing from\n{shown}");
        }
        model.press(Key::Char('/'), 5);
        model.press(Key::Char('a'), 5);
        let shown = drawn(&mut model, 80, 12);
        assert!(shown.contains("filter: a") && shown.contains("app") && !shown.contains("shop"), "{shown}");
        model.update(Err("connection refused".to_owned()));
        assert!(drawn(&mut model, 80, 12).contains("no answer: connection refused"));
    }

    #[test]
    fn the_chosen_row_is_in_sight() {
        let mut many = reply(11);
        let source = many.sources[0].clone();
        many.sources = (0..100)
            .map(|i| proto::hydrant::v1::SourceInfo { source_id: format!("app-{i:03}"), ..source.clone() })
            .collect();
        let mut model = Model::new();
        model.update(Ok(many));
        assert!(drawn(&mut model, 80, 24).contains("app-000"));
        model.press(Key::End, visible(24));
        assert!(drawn(&mut model, 80, 24).contains("app-099"));
        model.press(Key::PageUp, visible(24));
        assert!(drawn(&mut model, 80, 24).contains("app-080"));
    }

    #[test]
    fn text_is_cut_or_filled_to_the_column() {
        assert_eq!(fit("abc", 5, Side::Right), "  abc");
        assert_eq!(fit("abcdef", 4, Side::Left), "abc…");
        assert_eq!(fit("日本語", 4, Side::Left), "日… ");
        assert_eq!(fit("abc", 0, Side::Left), "");
        assert_eq!(curve([0.0, 5.0, 10.0].into_iter()), "▁▅█");
    }
}
