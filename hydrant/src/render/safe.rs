//! Other people's text on a terminal: shown, not obeyed. Pure.

use std::fmt::Write;

/// Appends `text` with everything written out that would act on a terminal: C0 and C1 controls but the tab, delete, and the
/// characters that change the direction of text.
pub fn put_safely(line: &mut String, text: &str) {
    for char in text.chars() {
        match char {
            '\t' => line.push(char),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' => {
                let _infallible = write!(line, "\\x{:02x}", u32::from(char));
            }
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                let _infallible = write!(line, "\\u{{{:x}}}", u32::from(char));
            }
            _ => line.push(char),
        }
    }
}

/// The same as text of its own.
pub fn safe(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    put_safely(&mut line, text);
    line
}
