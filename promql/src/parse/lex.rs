//! The words of a query.
//!
//! What enters: the text, within its limit. What leaves: tokens with their places, comments gone, strings unquoted, numbers and
//! durations read. What is wrong here is told with its place; what the words mean to each other is not looked at.

use super::{Place, SyntaxError};
use crate::duration;

/// A token and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lexeme {
    pub(super) token: Token,
    pub(super) place: Place,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A name or a keyword, as it is written.
    Word(String),
    Number(f64),
    /// In milliseconds.
    Duration(i64),
    Text(String),
    /// An operator or a bracket.
    Sign(&'static str),
}

/// Longer ones before those they begin with.
const SIGNS: [&str; 22] =
    ["==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "^", "(", ")", "{", "}", "[", "]", ",", "@", "=", ":"];

/// Splits a query into tokens.
pub(super) fn lex(text: &str) -> Result<Vec<Lexeme>, SyntaxError> {
    let mut lexer = Lexer { text, at: 0, within: None, known: (0, Place { line: 1, column: 1 }) };
    let mut lexemes = Vec::new();
    while let Some(lexeme) = lexer.next()? {
        lexemes.push(lexeme);
    }
    Ok(lexemes)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    /// The brace or bracket that is open, within which other rules hold.
    within: Option<&'static str>,
    /// Where the last token begins, and what place that is.
    known: (usize, Place),
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Result<Option<Lexeme>, SyntaxError> {
        self.skip_blank();
        self.known = (self.at, self.place(self.at));
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(None) };
        let token = match first {
            '0'..='9' => self.number()?,
            '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number()?,
            '"' | '\'' | '`' => self.string(first)?,
            '_' | 'a'..='z' | 'A'..='Z' => self.word(),
            ':' if self.within.is_none() => self.word(),
            _ => self.sign()?,
        };
        Ok(Some(Lexeme { token, place: self.known.1 }))
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest().trim_start_matches([' ', '\t', '\n', '\r']);
            self.at = self.text.len() - rest.len();
            if !rest.starts_with('#') {
                return;
            }
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
    }

    fn take(&mut self, fits: impl Fn(u8) -> bool) -> &'a str {
        let taken = &self.rest()[..self.rest().bytes().take_while(|b| fits(*b)).count()];
        self.at += taken.len();
        taken
    }

    fn error(&self, begin: usize, what: impl Into<String>) -> SyntaxError {
        SyntaxError::at(self.place(begin), what)
    }

    /// The place of what is not before the last token: counted from there, so that all tokens together cost one pass.
    fn place(&self, at: usize) -> Place {
        let (begin, place) = self.known;
        self.text[begin..at].chars().fold(place, |place, c| match c {
            '\n' => Place { line: place.line + 1, column: 1 },
            _ => Place { column: place.column + 1, ..place },
        })
    }

    fn word(&mut self) -> Token {
        let colons = self.within.is_none();
        let word = self.take(|b| b.is_ascii_alphanumeric() || b == b'_' || (b == b':' && colons));
        match word.to_ascii_lowercase().as_str() {
            "inf" if self.within.is_none() => Token::Number(f64::INFINITY),
            "nan" if self.within.is_none() => Token::Number(f64::NAN),
            _ => Token::Word(word.to_owned()),
        }
    }

    /// A number, or a duration where units follow.
    fn number(&mut self) -> Result<Token, SyntaxError> {
        let begin = self.at;
        let hex = self.rest().starts_with("0x") || self.rest().starts_with("0X");
        if hex {
            self.at += 2;
        }
        let digit = |b: u8| if hex { b.is_ascii_hexdigit() } else { b.is_ascii_digit() };
        self.take(digit);
        if self.rest().starts_with('.') {
            self.at += 1;
            self.take(digit);
        }
        if self.rest().starts_with(['e', 'E']) {
            self.at += 1;
            if self.rest().starts_with(['+', '-']) {
                self.at += 1;
            }
            self.take(|b| b.is_ascii_digit());
        }
        let ended = !self.rest().starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.');
        let number = &self.text[begin..self.at];
        if let (true, Some(number)) = (ended, read_number(number)) {
            return Ok(Token::Number(number));
        }
        self.take(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
        let whole = &self.text[begin..self.at];
        if whole.contains(['.', '_']) || whole.bytes().all(|b| b.is_ascii_digit()) {
            return Err(self.error(begin, format!("bad number or duration syntax: {whole:?}")));
        }
        match duration::parse(whole) {
            Ok(0) => Err(self.error(begin, "duration must be greater than 0")),
            Ok(millis) => Ok(Token::Duration(millis)),
            Err(duration::DurationError::Range) => Err(self.error(begin, "duration out of range")),
            Err(duration::DurationError::Syntax) => {
                Err(self.error(begin, format!("bad number or duration syntax: {whole:?}")))
            }
        }
    }

    fn string(&mut self, quote: char) -> Result<Token, SyntaxError> {
        let begin = self.at;
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            let Some(c) = self.rest().chars().next() else {
                return Err(self.error(begin, "unterminated quoted string"));
            };
            self.at += c.len_utf8();
            match c {
                c if c == quote => break,
                '\n' if quote != '`' => return Err(self.error(begin, "unterminated quoted string")),
                '\\' if quote != '`' => self.escape(quote, &mut bytes)?,
                c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Token::Text(text)),
            Err(_) => Err(self.error(begin, "escape sequences give no valid UTF-8")),
        }
    }

    /// What follows a backslash; Go's rules for strings.
    fn escape(&mut self, quote: char, bytes: &mut Vec<u8>) -> Result<(), SyntaxError> {
        let begin = self.at - 1;
        let c = self.rest().chars().next().unwrap_or('\0');
        self.at += c.len_utf8().min(self.rest().len());
        let byte = match c {
            'a' => 0x07,
            'b' => 0x08,
            'f' => 0x0c,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 0x0b,
            '\\' => b'\\',
            c if c == quote => quote as u8,
            'x' => self.digits(begin, 2, 16)? as u8,
            'u' | 'U' => {
                let code = self.digits(begin, if c == 'u' { 4 } else { 8 }, 16)?;
                let c = char::from_u32(code)
                    .ok_or_else(|| self.error(begin, "escape sequence is an invalid Unicode code point"))?;
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            '0'..='7' => {
                self.at -= 1;
                let code = self.digits(begin, 3, 8)?;
                u8::try_from(code).map_err(|_| self.error(begin, "escape sequence is no byte"))?
            }
            c => return Err(self.error(begin, format!("unknown escape sequence {c:?}"))),
        };
        bytes.push(byte);
        Ok(())
    }

    fn digits(&mut self, begin: usize, count: usize, radix: u32) -> Result<u32, SyntaxError> {
        let digits = self.rest().get(..count).filter(|digits| digits.chars().all(|c| c.is_digit(radix)));
        let digits = digits.ok_or_else(|| self.error(begin, "unfinished escape sequence"))?;
        self.at += count;
        u32::from_str_radix(digits, radix).map_err(|_| self.error(begin, "unfinished escape sequence"))
    }

    fn sign(&mut self) -> Result<Token, SyntaxError> {
        let rest = self.rest();
        let matching = ["=~", "!~"].into_iter().filter(|_| self.within == Some("{"));
        let Some(sign) = matching.chain(SIGNS).find(|sign| rest.starts_with(sign)) else {
            let c = rest.chars().next().unwrap_or_default();
            return Err(self.error(self.at, format!("unexpected character: {c:?}")));
        };
        // Within braces `==` is two signs, the second of which is refused.
        let sign = if sign == "==" && self.within == Some("{") { "=" } else { sign };
        self.at += sign.len();
        match sign {
            "{" | "[" if self.within.is_none() => self.within = Some(sign),
            "}" | "]" => self.within = None,
            _ => {}
        }
        Ok(Token::Sign(sign))
    }
}

/// A number by Go's rules: `0755` is octal, `08` is decimal.
fn read_number(text: &str) -> Option<f64> {
    let lower = text.to_ascii_lowercase();
    if let Some(hex) = lower.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().map(|number| number as f64);
    }
    let octal = lower.strip_prefix('0').filter(|digits| !digits.is_empty());
    if let Some(number) = octal.and_then(|digits| i64::from_str_radix(digits, 8).ok()) {
        return Some(number as f64);
    }
    lower.parse().ok()
}
