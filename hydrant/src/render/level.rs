//! How serious a line says it is: from a tag, JSON, logfmt or the prefixes that programs use. Pure.

use proto::v2;
use proto::v2::envelope::Message;

use super::structured;

/// How far into a line a level is looked for.
const NEAR: usize = 256;
/// So many words of it.
const WORDS: usize = 7;

/// How serious a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Level {
    /// Step by step.
    Trace,
    /// For those who look for a fault.
    Debug,
    /// As usual.
    Info,
    /// Something may be wrong.
    Warn,
    /// Something is wrong.
    Error,
    /// Nothing works any more.
    Fatal,
}

impl Level {
    /// Five letters at most, in capitals.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }

    /// The level that a word names, whatever its case.
    pub fn named(word: &str) -> Option<Self> {
        // The longest name has eleven letters.
        if word.len() > 11 {
            return None;
        }
        Some(match word.to_ascii_lowercase().as_str() {
            "trace" | "trc" | "verbose" | "finest" | "finer" => Self::Trace,
            "debug" | "dbg" | "fine" => Self::Debug,
            "info" | "inf" | "information" | "notice" => Self::Info,
            "warn" | "warning" | "wrn" => Self::Warn,
            "error" | "err" | "eror" | "severe" => Self::Error,
            "fatal" | "critical" | "crit" | "panic" | "emergency" | "emerg" | "alert" => Self::Fatal,
            _ => return None,
        })
    }

    /// The level of a number, as Bunyan and Pino have them: 10 for trace to 60 for fatal.
    pub fn numbered(number: u64) -> Option<Self> {
        Some(match number {
            10..20 => Self::Trace,
            20..30 => Self::Debug,
            30..40 => Self::Info,
            40..50 => Self::Warn,
            50..60 => Self::Error,
            60..70 => Self::Fatal,
            _ => return None,
        })
    }

    /// The level that an envelope states; `None` when it states none that is known.
    pub fn of(envelope: &v2::Envelope) -> Option<Self> {
        if let Some(level) = envelope.tags.get("level").and_then(|tag| Self::named(tag)) {
            return Some(level);
        }
        match &envelope.message {
            Some(Message::Log(log)) => Self::of_text(&String::from_utf8_lossy(&log.payload)),
            _ => None,
        }
    }

    /// The level that a line states.
    pub fn of_text(text: &str) -> Option<Self> {
        if let Some(line) = structured::parse(text) {
            return line.level;
        }
        let near = text.char_indices().nth(NEAR).map_or(text, |(end, _)| &text[..end]);
        logfmt(near).or_else(|| syslog(near)).or_else(|| near.split_whitespace().take(WORDS).find_map(word))
    }
}

/// `level=warn`, `lvl="error"`.
fn logfmt(text: &str) -> Option<Level> {
    let pairs = text.split_whitespace().filter_map(|word| word.split_once('='));
    let mut levels = pairs.filter(|(key, _)| ["level", "lvl", "severity", "loglevel"].contains(key));
    levels.find_map(|(_, value)| Level::named(value.trim_matches(['"', '\''])))
}

/// `<11>` at the start: RFC 5424 §6.2.1.
fn syslog(text: &str) -> Option<Level> {
    let number: u8 = text.strip_prefix('<')?.split_once('>')?.0.parse().ok()?;
    Some(match number & 7 {
        0..=2 => Level::Fatal,
        3 => Level::Error,
        4 => Level::Warn,
        5 | 6 => Level::Info,
        _ => Level::Debug,
    })
}

/// A word that is a level and looks as such: in capitals, in brackets or before a colon; or as glog begins a line.
fn word(word: &str) -> Option<Level> {
    let bare = word.trim_matches(|char: char| !char.is_ascii_alphanumeric());
    let bytes = word.as_bytes();
    if bytes.len() == 5 && bytes[1..].iter().all(u8::is_ascii_digit) {
        return match bytes[0] {
            b'I' => Some(Level::Info),
            b'W' => Some(Level::Warn),
            b'E' => Some(Level::Error),
            b'F' => Some(Level::Fatal),
            _ => None,
        };
    }
    // `ERROR:app:text` and `[error]`.
    let first = bare.split(':').next().unwrap_or(bare);
    let marked = first.bytes().all(|byte| byte.is_ascii_uppercase()) || first.len() < word.len();
    if marked { Level::named(first) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_found_where_programs_write_them() {
        for (text, level) in [
            (r#"{"level":"warning","msg":"x"}"#, Some(Level::Warn)),
            (r#"{"level":50,"msg":"x"}"#, Some(Level::Error)),
            ("time=now level=error msg=\"info: x\"", Some(Level::Error)),
            ("lvl=\"dbug\" x", None),
            ("2026-09-21T14:13:20Z  WARN hyper: slow", Some(Level::Warn)),
            ("2026-09-21 14:13:20,123 [main] ERROR c.e.App - no", Some(Level::Error)),
            ("[error] no", Some(Level::Error)),
            ("error: no such file", Some(Level::Error)),
            ("WARNING:root:careful", Some(Level::Warn)),
            ("E0912 14:13:20.123456 1 a.go:1] no", Some(Level::Error)),
            ("<11>1 2026-09-21T14:13:20Z h a - - - no", Some(Level::Error)),
            ("<187>x", Some(Level::Error)),
            ("an error and a warning in a sentence", None),
            ("no level at all", None),
            ("", None),
        ] {
            assert_eq!(Level::of_text(text), level, "{text}");
        }
    }

    #[test]
    fn a_tag_comes_first_and_levels_are_ordered() {
        let envelope = v2::Envelope::log("app", "ERROR x").tag("level", "debug");
        assert_eq!(Level::of(&envelope), Some(Level::Debug));
        assert!(Level::Warn < Level::Error && Level::Trace < Level::Debug);
        assert_eq!(Level::of(&v2::Envelope::counter("app", "ERROR", 1)), None);
    }
}
