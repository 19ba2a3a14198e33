//! Lists of labels: matchers in braces, and the labels of `by` and its kind.

use std::fmt::Write;

use super::super::ParseError;
use super::super::lex::{Lexeme, Token};
use super::{State, Writer, wrong};
use crate::labels::NAME;
use crate::matcher::Quoted;
use crate::name::is_label_name;
use crate::pattern::{MAX_PATTERNS, Pattern, PatternError};
use crate::tree::SOURCE;

impl Writer<'_> {
    /// `by (a, b)` and its kind: names, which the grammar takes quoted whatever they are.
    pub(super) fn grouping(&mut self, word: &str, after: State) -> Result<(), ParseError> {
        self.put(word);
        self.take();
        self.put("(");
        loop {
            let Some(lexeme) = self.take() else { return Err(self.ended("unclosed left parenthesis")) };
            match &lexeme.token {
                Token::Sign(")") => break,
                Token::Word(name) if is_label_name(name) => self.put(&Quoted(name).to_string()),
                Token::Text(name) => self.put(&Quoted(name).to_string()),
                _ => return Err(wrong(lexeme.place, "unexpected token in grouping opts, expected label")),
            }
            match self.take() {
                Some(Lexeme { token: Token::Sign(")"), .. }) => break,
                Some(Lexeme { token: Token::Sign(","), .. }) => self.put(","),
                Some(lexeme) => {
                    return Err(wrong(lexeme.place, "unexpected token in grouping opts, expected \",\" or \")\""));
                }
                None => return Err(self.ended("unclosed left parenthesis")),
            }
        }
        self.put(")");
        self.state = after;
        Ok(())
    }

    /// What stands between braces.
    pub(super) fn matchers(&mut self, name: Option<&str>) -> Result<(), ParseError> {
        self.state = State::Have;
        self.put("{");
        loop {
            let Some(lexeme) = self.take() else { return Err(self.ended("unexpected end of input inside braces")) };
            let label = match &lexeme.token {
                Token::Sign("}") => break,
                Token::Word(label) | Token::Text(label) => label,
                _ => {
                    return Err(wrong(
                        lexeme.place,
                        "unexpected token in label matching, expected identifier or \"}\"",
                    ));
                }
            };
            if let (Some(name), NAME) = (name, label.as_str()) {
                return Err(wrong(lexeme.place, format!("metric name must not be set twice: {name:?} and in braces")));
            }
            self.matcher(label)?;
            match self.take() {
                Some(Lexeme { token: Token::Sign("}"), .. }) => break,
                Some(Lexeme { token: Token::Sign(","), .. }) => self.out.text.push(','),
                Some(lexeme) => {
                    return Err(wrong(lexeme.place, "unexpected token in label matching, expected \",\" or \"}\""));
                }
                None => return Err(self.ended("unexpected end of input inside braces")),
            }
        }
        self.out.text.push('}');
        Ok(())
    }

    /// The operator and the value of a matcher.
    fn matcher(&mut self, label: &str) -> Result<(), ParseError> {
        let Some(operator) = self.take() else { return Err(self.ended("unexpected end of input inside braces")) };
        let Token::Sign(op @ ("=" | "!=" | "=~" | "!~")) = operator.token else {
            return Err(wrong(
                operator.place,
                "unexpected token in label matching, expected one of \"=\", \"!=\", \"=~\", \"!~\"",
            ));
        };
        let Some(value) = self.take() else { return Err(self.ended("unexpected end of input inside braces")) };
        let Token::Text(text) = &value.token else {
            return Err(wrong(value.place, "unexpected token in label matching, expected string"));
        };
        let _ = write!(self.out.text, "{}{op}", Quoted(label));
        if matches!(op, "=" | "!=") {
            let _ = write!(self.out.text, "{}", Quoted(text));
            return Ok(());
        }
        // Alternatives of source ids are literals.
        let pattern = if (label, op) == (SOURCE, "=~") {
            None
        } else {
            let large = ParseError::LargePattern { limit: self.limits.regex_bytes };
            if self.out.patterns.len() == MAX_PATTERNS {
                return Err(large);
            }
            Some(Pattern::new(text, self.limits.regex_bytes).map_err(|error| match error {
                PatternError::Large => large,
                PatternError::Syntax(what) => wrong(value.place, format!("error parsing regexp: {what}")),
            })?)
        };
        let _ = write!(self.out.text, "\"{}\"", self.out.patterns.len());
        self.out.patterns.push((text.clone(), pattern));
        Ok(())
    }
}
