//! Lines that belong together to one event: stack traces of one stream of one file. Pure.
//!
//! What enters: lines in their order. What leaves: events, each of one line or of several with line feeds between them. No line is lost,
//! none changes its place; at most [`MAX_LINES`] lines, and as many bytes as an envelope's text may have, become one event.
//!
//! A trace begins with its first line: what a program logged before that stays an event of its own.

use super::config::Preset;
use super::docker::Attrs;
use super::join::Event;

/// Lines of one event.
pub const MAX_LINES: usize = 1_000;

/// Gathers the lines of one stream.
#[derive(Debug)]
pub(super) struct Lines {
    preset: Preset,
    max: usize,
    state: State,
    buffer: Vec<u8>,
    open: Option<Open>,
    /// Events that ended because they were as long as one may be.
    pub(super) split: u64,
}

/// Of the first line.
#[derive(Debug)]
struct Open {
    from: u64,
    timestamp: i64,
    attrs: Attrs,
    lines: usize,
}

/// Where in a trace a stream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// In none.
    #[default]
    Outside,
    /// Within one.
    Inside,
    /// Within the trace of a group of Python's exceptions: all of it is indented.
    Group,
    /// Behind the line of a Python trace that names the exception: another one may follow that was its cause.
    Ended,
    /// Behind the line that says that another one follows.
    Cause,
}

impl Lines {
    /// Of texts of at most `max` bytes.
    pub(super) fn new(preset: Preset, max: usize) -> Self {
        Self { preset, max, state: State::Outside, buffer: Vec::new(), open: None, split: 0 }
    }

    /// Where the event begins that may go on.
    pub(super) fn from(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.from)
    }

    /// Takes a line.
    pub(super) fn push(&mut self, line: Event<'_>, mut emit: impl FnMut(Event<'_>)) {
        let (goes_on, state) = self.preset.step(self.state, line.text);
        self.state = state;
        if let Some(open) = &mut self.open {
            if goes_on && open.lines < MAX_LINES && self.buffer.len() + 1 + line.text.len() <= self.max {
                open.lines += 1;
                self.buffer.push(b'\n');
                self.buffer.extend_from_slice(line.text);
                return;
            }
            self.split += u64::from(goes_on);
            self.flush(&mut emit);
            self.state = state;
        }
        if !self.preset.may_go_on(state) {
            return emit(line);
        }
        self.buffer.extend_from_slice(line.text);
        self.open = Some(Open { from: line.from, timestamp: line.timestamp, attrs: line.attrs.to_vec(), lines: 1 });
    }

    /// Gives out what is there of an event: nothing came for a while, or nothing will.
    pub(super) fn flush(&mut self, mut emit: impl FnMut(Event<'_>)) {
        self.state = State::Outside;
        if let Some(open) = self.open.take() {
            emit(Event { from: open.from, timestamp: open.timestamp, text: &self.buffer, attrs: &open.attrs });
            self.buffer.clear();
            self.buffer.shrink_to(8 * 1024);
        }
    }
}

impl Preset {
    /// Whether a line belongs to the one before it, and where the stream is behind it.
    fn step(self, state: State, line: &[u8]) -> (bool, State) {
        match self {
            Self::Java => (java(line), State::Inside),
            Self::Python => python(state, line),
            Self::Go => go(state, line),
            Self::Ruby => ruby(state, line),
        }
    }

    /// Whether a line could follow that belongs to those before it.
    fn may_go_on(self, state: State) -> bool {
        matches!(self, Self::Java | Self::Ruby) || state != State::Outside
    }
}

/// Frames are indented; causes are not, nor is the end of what they have in common.
fn java(line: &[u8]) -> bool {
    is_indented(line)
        || line.starts_with(b"Caused by:")
        || line.starts_with(b"Suppressed:")
        || line.starts_with(b"... ")
}

/// From `Traceback` to the line that names the exception; then those that it led to.
fn python(state: State, line: &[u8]) -> (bool, State) {
    let text = line.trim_ascii_start();
    let is_group = text.starts_with(b"+ Exception Group Traceback (most recent call last)");
    let begins = is_group || text.starts_with(b"Traceback (most recent call last)");
    let begun = if is_group { State::Group } else { State::Inside };
    match state {
        State::Group if is_indented(line) && !is_group => (true, State::Group),
        State::Group if line.is_empty() => (true, State::Ended),
        State::Group if leads_to_another(text) => (true, State::Cause),
        State::Inside if is_indented(line) => (true, State::Inside),
        State::Inside => (true, State::Ended),
        State::Ended if line.is_empty() => (true, State::Ended),
        State::Ended if leads_to_another(line) => (true, State::Cause),
        State::Cause if begins => (true, begun),
        State::Cause if line.is_empty() => (true, State::Cause),
        _ if begins => (false, begun),
        _ => (false, State::Outside),
    }
}

fn leads_to_another(line: &[u8]) -> bool {
    line.starts_with(b"During handling of the above exception")
        || line.starts_with(b"The above exception was the direct cause")
}

/// From `panic:` or `fatal error:`, or from a goroutine, on: empty lines, frames, files, registers.
fn go(state: State, line: &[u8]) -> (bool, State) {
    let begins = [b"panic: ".as_slice(), b"fatal error: ", b"runtime: ", b"SIGSEGV: ", b"SIGABRT: ", b"SIGQUIT: "]
        .iter()
        .any(|start| line.starts_with(start));
    let goroutine = line.starts_with(b"goroutine ") && line.ends_with(b":");
    let inside = line.is_empty()
        || goroutine
        || is_indented(line)
        || is_go_frame(line)
        || is_register(line)
        || line.starts_with(b"[signal ")
        || line.starts_with(b"created by ")
        || line.starts_with(b"PC=")
        || line == b"runtime stack:"
        || line.starts_with(b"...");
    match state {
        State::Outside if begins || goroutine => (false, State::Inside),
        State::Outside => (false, State::Outside),
        // What the runtime says after each other is of one failure.
        _ if inside || begins => (true, State::Inside),
        _ => (false, State::Outside),
    }
}

/// `main.(*Shop).order(0xc000012345, {0x1, 0x2})`.
fn is_go_frame(line: &[u8]) -> bool {
    let call = line.iter().position(|&byte| byte == b'(').unwrap_or(0);
    call > 0 && line.ends_with(b")") && !line[..call].contains(&b' ')
}

/// `rax    0xca`.
fn is_register(line: &[u8]) -> bool {
    let name = line.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    (2..=6).contains(&name) && line[name..].trim_ascii_start().starts_with(b"0x") && line[name..].starts_with(b" ")
}

/// Frames are indented, or are a place and the name of a method alone.
fn ruby(state: State, line: &[u8]) -> (bool, State) {
    let place = memchr::memmem::find(line, b".rb:").is_some() && memchr::memmem::find(line, b":in ").is_some();
    let frame = place && line.ends_with(b"'");
    match state {
        _ if line.starts_with(b"Traceback (most recent call last)") => (false, State::Inside),
        _ if is_indented(line) => (true, state),
        // The last line of that form names the exception.
        State::Inside if place && !frame => (true, State::Outside),
        _ => (frame, State::Outside),
    }
}

fn is_indented(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t'))
}

#[cfg(test)]
mod tests;
