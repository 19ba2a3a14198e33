//! From RE2's syntax to that of the `regex` crate.

/// Writes a pattern anew; what both know alike stays as it is, and is left to the other to check.
pub(super) fn translate(pattern: &str) -> Result<String, String> {
    let mut translator = Translator { rest: pattern, out: String::with_capacity(pattern.len() + 16) };
    while let Some(c) = translator.next() {
        match c {
            '\\' => translator.escape()?,
            '[' => translator.class()?,
            '{' => translator.repetition()?,
            '(' => translator.group()?,
            '}' => translator.out.push_str("\\}"),
            c => translator.out.push(c),
        }
    }
    Ok(translator.out)
}

/// The classes that are written as `[:name:]`.
const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

struct Translator<'a> {
    rest: &'a str,
    out: String,
}

/// One end of a range within brackets, or what is no character.
enum Item {
    Char(char),
    Class(String),
}

impl<'a> Translator<'a> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn eat(&mut self, prefix: &str) -> bool {
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn escape(&mut self) -> Result<(), String> {
        if self.eat("Q") {
            let (text, rest) = self.rest.split_once("\\E").unwrap_or((self.rest, ""));
            self.out.push_str(&regex_syntax::escape(text));
            self.rest = rest;
            return Ok(());
        }
        for (letter, written) in [("b", r"(?-u:\b)"), ("B", r"\B"), ("A", r"\A"), ("z", r"\z")] {
            if self.eat(letter) {
                self.out.push_str(written);
                return Ok(());
            }
        }
        match self.item_escape()? {
            Item::Char(c) => self.literal(c),
            Item::Class(class) => self.out.push_str(&class),
        }
        Ok(())
    }

    /// What may follow a backslash within brackets and without.
    fn item_escape(&mut self) -> Result<Item, String> {
        let rest = self.rest;
        let c = self.next().ok_or("trailing backslash at end of expression")?;
        let class = match c {
            'd' => "[0-9]",
            'D' => "[^0-9]",
            'w' => "[0-9A-Za-z_]",
            'W' => "[^0-9A-Za-z_]",
            's' => r"[\t\n\x0C\r ]",
            'S' => r"[^\t\n\x0C\r ]",
            'p' | 'P' => {
                let end = match self.rest.strip_prefix('{') {
                    Some(name) => name.find('}').map(|end| end + 2),
                    None => self.rest.chars().next().map(char::len_utf8),
                };
                let end = end.ok_or("invalid character class range")?;
                let class = format!("\\{c}{}", &self.rest[..end]);
                self.rest = &self.rest[end..];
                return Ok(Item::Class(class));
            }
            'a' => return Ok(Item::Char('\x07')),
            'f' => return Ok(Item::Char('\x0c')),
            'n' => return Ok(Item::Char('\n')),
            'r' => return Ok(Item::Char('\r')),
            't' => return Ok(Item::Char('\t')),
            'v' => return Ok(Item::Char('\x0b')),
            'x' => return self.hex().map(Item::Char),
            // One digit alone would refer to a group.
            '0'..='7' if c == '0' || self.rest.starts_with(|c: char| c.is_digit(8)) => {
                let digits = rest.bytes().take(3).take_while(|b| (b'0'..b'8').contains(b)).count();
                self.rest = &rest[digits..];
                let code = u32::from_str_radix(&rest[..digits], 8).ok().and_then(char::from_u32);
                return code.map(Item::Char).ok_or_else(|| "invalid escape sequence".to_owned());
            }
            c if c.is_ascii_punctuation() => return Ok(Item::Char(c)),
            c => return Err(format!("invalid escape sequence: `\\{c}`")),
        };
        Ok(Item::Class(class.to_owned()))
    }

    /// `\x7F` or `\x{10FFFF}`.
    fn hex(&mut self) -> Result<char, String> {
        let (digits, rest) = match self.rest.strip_prefix('{') {
            Some(braced) => braced.split_once('}').unwrap_or_default(),
            None => self.rest.split_at_checked(2).unwrap_or_default(),
        };
        self.rest = rest;
        let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
        let code = u32::from_str_radix(digits, 16).ok().filter(|_| plain);
        code.and_then(char::from_u32).ok_or_else(|| "invalid escape sequence: `\\x`".to_owned())
    }

    /// A character that stands for itself, within brackets and without.
    fn literal(&mut self, c: char) {
        // Escaped, the first two would be word boundaries.
        if c.is_ascii_punctuation() && !matches!(c, '<' | '>' | '_') {
            self.out.push('\\');
        }
        self.out.push(c);
    }

    /// What follows an opening bracket, up to the closing one.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.eat("^") {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            if !first && self.eat("]") {
                self.out.push(']');
                return Ok(());
            }
            first = false;
            if let Some((name, rest)) = self.rest.strip_prefix("[:").and_then(|rest| rest.split_once(":]")) {
                if !POSIX.contains(&name.strip_prefix('^').unwrap_or(name)) {
                    return Err(format!("invalid character class range: `[:{name}:]`"));
                }
                self.out.extend(["[:", name, ":]"]);
                self.rest = rest;
                continue;
            }
            match self.item()? {
                Item::Class(class) => self.out.push_str(&class),
                Item::Char(low) => {
                    self.literal(low);
                    if self.rest.starts_with('-') && !self.rest.starts_with("-]") && self.eat("-") {
                        let Item::Char(high) = self.item()? else {
                            return Err("invalid character class range".to_owned());
                        };
                        self.out.push('-');
                        self.literal(high);
                    }
                }
            }
        }
    }

    fn item(&mut self) -> Result<Item, String> {
        match self.next().ok_or("missing closing ]")? {
            '\\' => self.item_escape(),
            c => Ok(Item::Char(c)),
        }
    }

    /// What follows an opening brace: a repetition, or else the brace is text.
    fn repetition(&mut self) -> Result<(), String> {
        let repetition = self.rest.split_once('}').filter(|(inside, _)| {
            let (low, high) = inside.split_once(',').unwrap_or((inside, "0"));
            let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
            !low.is_empty() && digits(low) && digits(high)
        });
        let Some((inside, rest)) = repetition else {
            self.out.push_str("\\{");
            return Ok(());
        };
        let counts = inside.split(',').filter(|count| !count.is_empty());
        if counts.map(str::parse).any(|count: Result<u32, _>| count.is_err() || count.is_ok_and(|count| count > 1000)) {
            return Err(format!("invalid repeat count: `{{{inside}}}`"));
        }
        self.out.extend(["{", inside, "}"]);
        self.rest = rest;
        Ok(())
    }

    /// What follows an opening parenthesis: only the flags that RE2 has.
    fn group(&mut self) -> Result<(), String> {
        self.out.push('(');
        let Some(flags) = self.rest.strip_prefix('?') else { return Ok(()) };
        let named = flags.starts_with("P<");
        let end = flags.find(|c| !matches!(c, 'i' | 'm' | 's' | 'U' | '-')).unwrap_or(flags.len());
        if !named && !flags[end..].starts_with([':', ')']) {
            return Err(format!(
                "invalid or unsupported Perl syntax: `({}`",
                self.rest.chars().take(3).collect::<String>()
            ));
        }
        Ok(())
    }
}
