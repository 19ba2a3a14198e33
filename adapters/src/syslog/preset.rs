//! How lines look to the receiver of a drain: what its configuration says, and what is known of some receivers.
//!
//! The `line` table and a preset enter, a [`Style`] leaves, or an error that says what does not go together. What the table says wins
//! over the preset. Reads the file of a token; else pure.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::config::{Scheme, Secret};
use super::encode::{Framing, Style};

/// A receiver that expects more than RFC 5424 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Papertrail: line feeds, times that end in `Z`, at most 100 000 bytes a line, 1 024 over UDP.
    Papertrail,
    /// Loggly: the same, and its customer token and tags in a structured data element `TOKEN@41058`.
    Loggly,
    /// A TCP input of Splunk: line feeds.
    Splunk,
    /// Logz.io: line feeds, the token in brackets before each line, and an element with the type of the logs.
    Logz,
}

/// The `line` table of a drain.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LineConfig {
    /// Where a line ends, over TCP and TLS: `"octet-counting"` unless a preset says otherwise.
    pub framing: Option<LineFraming>,
    /// How times end: `"+00:00"` unless a preset says otherwise.
    pub zone: Option<Zone>,
    /// The inside of a structured data element before all others, as `id@number name="value"`. Not shown: some receivers want a token
    /// there.
    pub element: Option<Secret>,
    /// The longest line: a longer one loses its tags, and then its end. 2 048 over UDP, else none unless a preset says otherwise.
    pub max_bytes: Option<NonZeroUsize>,
}

/// Where a line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LineFraming {
    /// Its length stands before it.
    OctetCounting,
    /// A line feed stands after it.
    LineFeed,
}

/// How times end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub enum Zone {
    /// `+00:00`.
    #[serde(rename = "+00:00")]
    Offset,
    /// `Z`.
    Z,
}

/// Why a drain's lines cannot look as its configuration says. No variant shows a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StyleError {
    /// A preset that needs a token has none.
    #[error("the preset {0} needs the token of your account; set token_file, or token")]
    NoToken(&'static str),
    /// A token that nobody asks for, or two of them.
    #[error("{0}")]
    NoUse(&'static str),
    /// The file of the token cannot be read.
    #[error("token_file {file}: {error}", file = .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// Something that cannot stand where it would stand.
    #[error("{what} may hold {may} only")]
    Characters {
        /// The key.
        what: &'static str,
        /// The characters.
        may: &'static str,
    },
    /// A longest line that is no use.
    #[error("line.max_bytes is {0}; over UDP it is 480 to 65507, else at least 480")]
    MaxBytes(usize),
}

/// The largest payload of a datagram.
const DATAGRAM: usize = 65_507;
/// What receivers should take in one datagram (RFC 5426 §3.2).
const USUAL_DATAGRAM: usize = 2048;
/// What every receiver must take (RFC 5426 §3.2).
const SHORTEST: usize = 480;
/// The largest file of a token.
const MAX_TOKEN_FILE: u64 = 4096;

/// What a drain's configuration says about its lines.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) scheme: Scheme,
    pub(crate) preset: Option<Preset>,
    pub(crate) token: Option<&'a Secret>,
    pub(crate) token_file: Option<&'a Path>,
    pub(crate) labels: &'a [String],
    pub(crate) line: &'a LineConfig,
}

impl Preset {
    fn name(self) -> &'static str {
        match self {
            Self::Papertrail => "papertrail",
            Self::Loggly => "loggly",
            Self::Splunk => "splunk",
            Self::Logz => "logz",
        }
    }

    /// The most bytes of a line.
    fn max_bytes(self, scheme: Scheme) -> Option<usize> {
        match self {
            Self::Papertrail if scheme == Scheme::SyslogUdp => Some(1024),
            Self::Papertrail => Some(100_000),
            Self::Loggly | Self::Splunk | Self::Logz => None,
        }
    }
}

impl Wanted<'_> {
    /// How the drain's lines look, of a configuration that was checked. Reads the file of the token.
    ///
    /// # Errors
    /// A token that cannot be read or used.
    pub(crate) fn style(&self) -> Result<Style, StyleError> {
        let (mut style, preset) = (Style::default(), self.preset);
        style.framing = match self.scheme {
            Scheme::SyslogUdp => Framing::Datagram,
            Scheme::Https => Framing::Post,
            Scheme::Syslog | Scheme::SyslogTls => match (self.line.framing, preset) {
                (Some(LineFraming::OctetCounting), _) | (None, None) => Framing::OctetCount,
                (Some(LineFraming::LineFeed), _) | (None, Some(_)) => Framing::LineFeed,
            },
            _ => Framing::None,
        };
        style.zulu = match (self.line.zone, preset) {
            (Some(zone), _) => zone == Zone::Z,
            (None, preset) => matches!(preset, Some(Preset::Papertrail | Preset::Loggly | Preset::Logz)),
        };
        let usual = (self.scheme == Scheme::SyslogUdp).then_some(USUAL_DATAGRAM);
        let preset_max = preset.and_then(|preset| preset.max_bytes(self.scheme));
        style.max_bytes = self.line.max_bytes.map(NonZeroUsize::get).or(preset_max).or(usual);
        match preset {
            Some(Preset::Loggly) => {
                style.element = format!("{}@41058", self.token()?);
                self.labels.iter().for_each(|label| style.element.push_str(&format!(" tag=\"{label}\"")));
            }
            Some(Preset::Logz) => {
                style.prefix = format!("[{}] ", self.token()?);
                style.element = format!("type={}", self.labels.first().map_or("hydrant", String::as_str));
            }
            Some(Preset::Papertrail | Preset::Splunk) | None => {}
        }
        if let Some(element) = &self.line.element {
            style.element = element.reveal().to_owned();
        }
        Ok(style)
    }

    /// Looks whether all goes together. Opens no file.
    ///
    /// # Errors
    /// [`StyleError`].
    pub(crate) fn check(&self) -> Result<(), StyleError> {
        let wants_token = matches!(self.preset, Some(Preset::Loggly | Preset::Logz));
        if let Some(preset) = self.preset
            && wants_token
            && self.token.is_none()
            && self.token_file.is_none()
        {
            return Err(StyleError::NoToken(preset.name()));
        }
        if !wants_token && (self.token.is_some() || self.token_file.is_some()) {
            return Err(StyleError::NoUse("token and token_file go with the presets loggly and logz"));
        }
        if self.token.is_some() && self.token_file.is_some() {
            return Err(StyleError::NoUse("token and token_file are both set; keep one"));
        }
        if !wants_token && !self.labels.is_empty() {
            return Err(StyleError::NoUse("labels go with the presets loggly and logz"));
        }
        if self.preset == Some(Preset::Logz) && self.labels.len() > 1 {
            return Err(StyleError::NoUse("the preset logz takes one label, the type of the logs"));
        }
        if self.line.framing.is_some() && !matches!(self.scheme, Scheme::Syslog | Scheme::SyslogTls) {
            return Err(StyleError::NoUse("line.framing goes with syslog:// and syslog-tls:// only"));
        }
        if self.preset.is_some() && self.scheme.is_http() {
            return Err(StyleError::NoUse("presets are for syslog; over HTTPS the URL says whose the lines are"));
        }
        if wants_token && self.line.element.is_some() {
            return Err(StyleError::NoUse("line.element takes the place of what this preset puts there; keep one"));
        }
        let label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if !self.labels.iter().all(|text| !text.is_empty() && text.bytes().all(label)) {
            return Err(StyleError::Characters { what: "labels", may: "letters, digits, \"-\", \".\" and \"_\"" });
        }
        let element = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'[' && byte != b']';
        if self.line.element.as_ref().is_some_and(|text| !text.reveal().bytes().all(element)) {
            let may = "visible ASCII characters and blanks, without brackets,";
            return Err(StyleError::Characters { what: "line.element", may });
        }
        match self.line.max_bytes.map(NonZeroUsize::get) {
            Some(max) if max < SHORTEST || self.scheme == Scheme::SyslogUdp && max > DATAGRAM => {
                Err(StyleError::MaxBytes(max))
            }
            _ => Ok(()),
        }
    }

    fn token(&self) -> Result<String, StyleError> {
        let token = token(self.token, self.token_file)?.unwrap_or_default();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if token.is_empty() || !token.bytes().all(is_plain) {
            return Err(StyleError::Characters { what: "the token", may: "letters, digits, \"-\", \".\" and \"_\"" });
        }
        Ok(token)
    }
}

/// A token as it is given, or as its file has it. Reads the file.
pub(crate) fn token(token: Option<&Secret>, file: Option<&Path>) -> Result<Option<String>, StyleError> {
    match (token, file) {
        (Some(_), Some(_)) => Err(StyleError::NoUse("token and token_file are both set; keep one")),
        (None, Some(file)) => read(file).map(Some),
        (token, None) => Ok(token.map(|token| token.reveal().to_owned())),
    }
}

/// The first line of a small file.
fn read(file: &Path) -> Result<String, StyleError> {
    let failed = |error: String| StyleError::File { file: file.to_owned(), error };
    let size = std::fs::metadata(file).map_err(|error| failed(error.to_string()))?.len();
    if size > MAX_TOKEN_FILE {
        return Err(failed(format!("it has {size} bytes, and a token has fewer than {MAX_TOKEN_FILE}")));
    }
    let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests;
