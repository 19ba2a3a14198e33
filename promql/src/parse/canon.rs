//! The words of a query, checked for what can be told with a place, bounded, and written again in one way only.
//!
//! What enters: tokens. What leaves: text in which every construct is spelled as the grammar behind it reads it rightly, and the regular
//! expressions apart, compiled. Brackets are balanced and nest within the limit, and so do operators: their number within each open
//! bracket, added up, is never less than the height of the tree to come.

mod lists;
mod times;

use super::lex::{Lexeme, Token};
use super::{ParseError, Place, SyntaxError};
use crate::duration;
use crate::function::SMOOTHING;
use crate::limits::Limits;
use crate::matcher::Quoted;
use crate::pattern::Pattern;

/// A query for the grammar to read.
#[derive(Debug)]
pub(super) struct Canon {
    pub(super) text: String,
    /// What `=~` and `!~` compare with; the text has an index in its place.
    pub(super) patterns: Vec<(String, Option<Pattern>)>,
}

/// What stands before names that the grammar would take for keywords, which Prometheus does not have; and before itself.
pub(super) const ESCAPE: &str = "::";

/// Writes tokens again.
pub(super) fn rewrite(lexemes: &[Lexeme], limits: &Limits) -> Result<Canon, ParseError> {
    let out = Canon { text: String::new(), patterns: Vec::new() };
    let mut writer = Writer { lexemes, next: 0, limits, out, levels: vec![1], state: State::Want };
    writer.all()?;
    Ok(writer.out)
}

/// Whether an operand may come next.
#[derive(Clone, Copy, PartialEq)]
enum State {
    /// It must.
    Want,
    /// It may not: one is complete.
    Have,
    /// The arguments of an aggregation may, and so may an operator.
    Either,
}

struct Writer<'a> {
    lexemes: &'a [Lexeme],
    next: usize,
    limits: &'a Limits,
    out: Canon,
    /// For all open parentheses, and for the query itself: operators since it was opened, or since the last comma.
    levels: Vec<usize>,
    state: State,
}

impl<'a> Writer<'a> {
    fn all(&mut self) -> Result<(), ParseError> {
        if self.lexemes.is_empty() {
            return Err(SyntaxError::somewhere("no expression found in input").into());
        }
        while let Some(lexeme) = self.take() {
            self.one(lexeme)?;
        }
        if self.levels.len() > 1 {
            return Err(self.ended("unclosed left parenthesis"));
        }
        if self.state == State::Want {
            return Err(self.ended("unexpected end of input"));
        }
        Ok(())
    }

    fn one(&mut self, lexeme: &'a Lexeme) -> Result<(), ParseError> {
        let place = lexeme.place;
        match &lexeme.token {
            Token::Word(word) => self.word(word, place),
            Token::Number(number) => {
                self.operand(place, "number")?;
                self.number(*number);
                Ok(())
            }
            Token::Text(text) => {
                self.operand(place, "string")?;
                self.put(&Quoted(text).to_string());
                Ok(())
            }
            Token::Duration(millis) => {
                Err(wrong(place, format!("unexpected duration {:?}", duration::format(*millis))))
            }
            Token::Sign(sign) => self.sign(sign, place),
        }
    }

    fn sign(&mut self, sign: &'static str, place: Place) -> Result<(), ParseError> {
        match sign {
            "(" => {
                // After a name it opens arguments.
                self.levels.push(1);
                self.bounded()?;
                self.state = State::Want;
            }
            ")" => {
                if self.levels.len() == 1 {
                    return Err(wrong(place, "unexpected right parenthesis ')'"));
                }
                let empty = matches!(self.before(2), Some(Token::Sign("(")));
                if self.state == State::Want && !empty {
                    return Err(wrong(place, "unexpected right parenthesis ')', expected an expression"));
                }
                self.levels.pop();
                self.state = State::Have;
            }
            "{" => {
                // After a metric's name it goes on with the selector.
                let name = match self.before(2) {
                    Some(Token::Word(name)) if self.state == State::Have => Some(name.as_str()),
                    _ => None,
                };
                if name.is_none() {
                    self.operand(place, "left brace '{'")?;
                }
                return self.matchers(name);
            }
            "[" => return self.brackets(place),
            "@" => return self.at(place),
            "," if self.levels.len() > 1 && self.state != State::Want => {
                *self.levels.last_mut().expect("the first level is never closed") = 1;
                self.state = State::Want;
            }
            "+" | "-" if self.state == State::Want => self.operator()?,
            "+" | "-" | "*" | "/" | "%" | "^" | "==" | "!=" | "<=" | "<" | ">=" | ">" if self.state != State::Want => {
                self.operator()?;
                self.state = State::Want;
            }
            sign => return Err(wrong(place, format!("unexpected {sign:?}"))),
        }
        self.put(sign);
        Ok(())
    }

    fn word(&mut self, word: &'a str, place: Place) -> Result<(), ParseError> {
        let lower = word.to_ascii_lowercase();
        let opens = self.peek() == Some(&Token::Sign("("));
        match (lower.as_str(), self.state) {
            ("and" | "or" | "unless" | "atan2", State::Have | State::Either) => {
                self.operator()?;
                self.state = State::Want;
                self.put(&lower);
            }
            ("offset", State::Have | State::Either) => return self.offset(place),
            ("by" | "without", _) if opens => return self.grouping(&lower, State::Either),
            ("on" | "ignoring" | "group_left" | "group_right", State::Want) if opens => {
                return self.grouping(&lower, State::Want);
            }
            ("bool" | "group_left" | "group_right", State::Want) => self.put(&lower),
            (_, State::Have) => return Err(wrong(place, format!("unexpected identifier {word:?}"))),
            ("smoothed" | "anchored" | "fill" | "fill_left" | "fill_right" | "limitk" | "limit_ratio", _) if opens => {
                return Err(wrong(place, format!("unknown function with name {word:?}")));
            }
            ("smoothed" | "anchored" | "fill" | "fill_left" | "fill_right" | "limitk" | "limit_ratio", _) => {
                self.name(&format!("{ESCAPE}{word}"));
            }
            _ if word.starts_with(ESCAPE) => self.name(&format!("{ESCAPE}{word}")),
            _ if word == "holt_winters" && opens => self.name(SMOOTHING),
            _ => self.name(word),
        }
        Ok(())
    }

    fn name(&mut self, name: &str) {
        self.state = State::Have;
        self.put(name);
    }

    fn operand(&mut self, place: Place, what: &str) -> Result<(), ParseError> {
        if self.state == State::Have {
            return Err(wrong(place, format!("unexpected {what}")));
        }
        self.state = State::Have;
        Ok(())
    }

    fn operator(&mut self) -> Result<(), ParseError> {
        *self.levels.last_mut().expect("the first level is never closed") += 1;
        self.bounded()
    }

    fn bounded(&self) -> Result<(), ParseError> {
        let (brackets, limit) = (self.levels.len() - 1, self.limits.depth);
        let height: usize = self.levels.iter().sum();
        if brackets > limit || height > limit.saturating_mul(8) { Err(ParseError::TooDeep { limit }) } else { Ok(()) }
    }

    fn take(&mut self) -> Option<&'a Lexeme> {
        let lexeme = self.lexemes.get(self.next)?;
        self.next += 1;
        Some(lexeme)
    }

    fn peek(&self) -> Option<&'a Token> {
        self.lexemes.get(self.next).map(|lexeme| &lexeme.token)
    }

    /// The token so many before the next.
    fn before(&self, count: usize) -> Option<&'a Token> {
        self.next.checked_sub(count).map(|i| &self.lexemes[i].token)
    }

    fn put(&mut self, what: &str) {
        self.out.text.push_str(what);
        self.out.text.push(' ');
    }

    /// The grammar takes `0e0` for octal; it has these words, but not their signs.
    fn number(&mut self, number: f64) {
        let sign = if number.is_sign_negative() { "-" } else { "" };
        match number.abs() {
            n if n.is_nan() => self.put("NaN"),
            n if n.is_infinite() => self.put(&format!("{sign}Inf")),
            0.0 => self.put(&format!("{sign}0")),
            n => self.put(&format!("{sign}{n:e}")),
        }
    }

    fn ended(&self, what: &str) -> ParseError {
        let place = self.lexemes.last().map_or(Place { line: 1, column: 1 }, |lexeme| lexeme.place);
        wrong(place, what)
    }
}

fn wrong(place: Place, what: impl Into<String>) -> ParseError {
    SyntaxError::at(place, what).into()
}
