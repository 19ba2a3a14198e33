//! Lines as somebody wants them: `-o template='{time} {message}'`. Pure.

use std::fmt;

use super::safe::put_safely;

/// What can stand between braces; `tag.NAME` besides.
pub(crate) const NAMES: [&str; 7] = ["time", "source", "instance", "type", "level", "message", "tag.NAME"];

/// A template, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(Field),
}

/// A thing of an envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Time,
    Source,
    Instance,
    Type,
    Level,
    Message,
    Tag(String),
}

/// What is wrong with a template.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    /// A name that means nothing.
    #[error("{{{0}}} is none of {names}", names = Names)]
    Unknown(String),
    /// A brace that is never closed.
    #[error("a {{ has no }}; write {{{{ for a brace that is meant")]
    Open,
    /// A brace that was never opened.
    #[error("a }} has no {{; write }}}} for a brace that is meant")]
    Closed,
    /// A backslash before something else.
    #[error("a backslash stands before n, t or another backslash")]
    Backslash,
}

struct Names;

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = NAMES.iter().map(|name| format!("{{{name}}}")).collect();
        f.write_str(&names.join(", "))
    }
}

impl Template {
    /// Takes `text` apart: `{name}`, `{{` and `}}` for braces, `\n`, `\t` and `\\`.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let (mut pieces, mut plain) = (Vec::new(), String::new());
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                '{' | '}' if chars.peek() == Some(&char) => {
                    chars.next();
                    plain.push(char);
                }
                '{' => {
                    let mut name = String::new();
                    loop {
                        match chars.next() {
                            Some('}') => break,
                            Some(char) => name.push(char),
                            None => return Err(TemplateError::Open),
                        }
                    }
                    if !plain.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    }
                    pieces.push(Piece::Field(field(name)?));
                }
                '}' => return Err(TemplateError::Closed),
                '\\' => plain.push(match chars.next() {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('\\') => '\\',
                    _ => return Err(TemplateError::Backslash),
                }),
                char => plain.push(char),
            }
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// Appends the line, without its end. What `value` gives is made safe; the template's own text is taken at its word.
    pub(crate) fn fill(&self, line: &mut String, value: impl Fn(&Field) -> String) {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => line.push_str(text),
                Piece::Field(field) => put_safely(line, &value(field)),
            }
        }
    }
}

fn field(name: String) -> Result<Field, TemplateError> {
    Ok(match name.as_str() {
        "time" => Field::Time,
        "source" => Field::Source,
        "instance" => Field::Instance,
        "type" => Field::Type,
        "level" => Field::Level,
        "message" => Field::Message,
        _ => match name.strip_prefix("tag.") {
            Some(tag) if !tag.is_empty() => Field::Tag(tag.to_owned()),
            _ => return Err(TemplateError::Unknown(name)),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_filled_and_made_safe() {
        let template = Template::parse(r"{source}/{instance}\t{{{tag.a.b}}} {message}").expect("a template");
        let mut line = String::new();
        template.fill(&mut line, |field| match field {
            Field::Source => "app".to_owned(),
            Field::Instance => "0".to_owned(),
            Field::Tag(name) => name.clone(),
            _ => "x\x1b[31m\ny".to_owned(),
        });
        assert_eq!(line, "app/0\t{a.b} x\\x1b[31m\\ny");
    }

    #[test]
    fn what_is_wrong_is_said_with_what_is_right() {
        let error = |text: &str| Template::parse(text).expect_err("wrong").to_string();
        assert_eq!(
            error("{nam}"),
            "{nam} is none of {time}, {source}, {instance}, {type}, {level}, {message}, {tag.NAME}"
        );
        assert!(error("{tag.}").contains("none of") && error("{}").contains("none of"));
        assert!(
            error("{time").contains("no }") && error("time}").contains("no {") && error(r"\x").contains("backslash")
        );
    }
}
