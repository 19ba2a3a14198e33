//! Durations and times: ranges and subqueries in brackets, `offset`, `@`.

use std::fmt::Write;

use super::super::lex::{Lexeme, Token};
use super::super::{ParseError, Place};
use super::{State, Writer, wrong};

impl Writer<'_> {
    /// `[5m]`, `[5m:]` or `[5m:1m]`.
    pub(super) fn brackets(&mut self, place: Place) -> Result<(), ParseError> {
        if self.state == State::Want {
            return Err(wrong(place, "unexpected \"[\""));
        }
        // A subquery adds to the height.
        self.operator()?;
        self.put("[");
        self.duration("missing unit character in duration")?;
        if self.peek() == Some(&Token::Sign(":")) {
            self.take();
            self.put(":");
            if matches!(self.peek(), Some(Token::Duration(_) | Token::Number(_))) {
                self.duration("missing unit character in duration")?;
            }
        }
        match self.take() {
            Some(Lexeme { token: Token::Sign("]"), .. }) => self.put("]"),
            Some(lexeme) => return Err(wrong(lexeme.place, "unexpected token in brackets, expected \"]\"")),
            None => return Err(self.ended("unclosed left bracket")),
        }
        self.state = State::Have;
        Ok(())
    }

    pub(super) fn offset(&mut self, place: Place) -> Result<(), ParseError> {
        self.put("offset");
        self.state = State::Have;
        if let Some(Token::Sign(sign @ ("+" | "-"))) = self.peek() {
            self.take();
            self.put(sign);
        }
        if self.peek().is_none() {
            return Err(wrong(place, "unexpected end of input in offset, expected duration"));
        }
        self.duration("unexpected token in offset, expected duration")
    }

    fn duration(&mut self, else_wrong: &str) -> Result<(), ParseError> {
        match self.take() {
            Some(Lexeme { token: Token::Duration(millis), .. }) => {
                // The grammar's numbers are of 32 bits; days are few enough for them.
                let _ = write!(self.out.text, "{}d{}ms ", millis / 86_400_000, millis % 86_400_000);
                Ok(())
            }
            Some(lexeme) => Err(wrong(lexeme.place, else_wrong)),
            None => Err(self.ended(else_wrong)),
        }
    }

    /// `@` and its time.
    pub(super) fn at(&mut self, place: Place) -> Result<(), ParseError> {
        if self.state == State::Want {
            return Err(wrong(place, "unexpected \"@\""));
        }
        self.put("@");
        self.state = State::Have;
        let mut sign = 1.0;
        if let Some(Token::Sign(op @ ("+" | "-"))) = self.peek() {
            self.take();
            sign = if *op == "-" { -1.0 } else { 1.0 };
        }
        let Some(lexeme) = self.take() else {
            return Err(wrong(place, "unexpected end of input in @, expected timestamp"));
        };
        match &lexeme.token {
            Token::Number(seconds) if (seconds * 1e3).abs() < 9.2e18 => {
                self.number(sign * seconds);
                Ok(())
            }
            Token::Number(seconds) => {
                Err(wrong(lexeme.place, format!("timestamp out of bounds for @ modifier: {seconds}")))
            }
            Token::Word(word) if matches!(word.to_ascii_lowercase().as_str(), "start" | "end") => {
                self.put(&word.to_ascii_lowercase());
                for bracket in ["(", ")"] {
                    match self.take() {
                        Some(Lexeme { token: Token::Sign(sign), .. }) if *sign == bracket => self.put(bracket),
                        _ => return Err(wrong(lexeme.place, format!("expected {word}() in @"))),
                    }
                }
                Ok(())
            }
            _ => Err(wrong(lexeme.place, "unexpected token in @, expected timestamp")),
        }
    }
}
