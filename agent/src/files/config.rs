//! What an agent can be told of files to read: `[[agent.files]]` and `[agent.file_reading]`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use transport::duration_text;

/// How patterns match: as shells do, `*` and `?` neither a `/` nor the dot of a hidden name.
pub(crate) const MATCH: glob::MatchOptions =
    glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// An entry of `[[agent.files]]`: files of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FilesConfig {
    /// Patterns of absolute paths, with `*`, `?`, `[…]` and `**`. A file that several patterns or links name is read once.
    pub paths: Vec<Pattern>,
    /// Patterns of those that are left out. None.
    #[serde(default)]
    pub exclude: Vec<Pattern>,
    /// How lines are written.
    pub format: Format,
    /// The `source_id`; absent: `namespace/container` for `cri`, the container's name for `docker`, the file's name without its extension
    /// for `plain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_id: Option<String>,
    /// The `instance_id`; absent: the pod's name for `cri`, the container's short id for `docker`, none for `plain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Where to begin in files that are there when this entry is new; absent: at the beginning for `cri` and `docker`, at the end for
    /// `plain`. Files that come later are read from their beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// Which lines belong together; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiline: Option<Preset>,
}

/// How the lines of a file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// As container runtimes of Kubernetes do: `<time> <stdout|stderr> <P|F> <text>`.
    Cri,
    /// As Docker's `json-file` driver does.
    Docker,
    /// Each line is a text.
    Plain,
}

/// Where a file is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// With its first line.
    Beginning,
    /// With the line that is written next.
    End,
}

/// Whose stack traces are kept in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Java and what else runs on its machine.
    Java,
    /// Python.
    Python,
    /// Go.
    Go,
    /// Ruby.
    Ruby,
}

/// The `[agent.file_reading]` table: what all entries share.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileReadingConfig {
    /// Where it is kept how far each file has been read, in `agent-files.json`; the directory that the process keeps its state in. One
    /// agent alone can use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<PathBuf>,
    /// Between two looks at files; `"250ms"`. At those that have been quiet for 10 s it looks once a second.
    #[serde(with = "duration_text")]
    pub poll_interval: Duration,
    /// Between two looks for new files; `"1s"`, and never more often than costs a two-hundredth of a processor.
    #[serde(with = "duration_text")]
    pub scan_interval: Duration,
    /// How often it is written down how far files have been read, at most; `"1s"`.
    #[serde(with = "duration_text")]
    pub checkpoint_interval: Duration,
    /// Bytes of one envelope's text; 60 KiB, at most 256 KiB. A longer line, or lines that belong together, become several.
    pub max_line_bytes: NonZeroUsize,
    /// Files open at the same time; 1 000, and at most half of what the process may open. Others wait for one that has been quiet.
    pub max_files: NonZeroUsize,
}

impl Default for FileReadingConfig {
    fn default() -> Self {
        let some = |value| NonZeroUsize::new(value).unwrap_or(NonZeroUsize::MIN);
        Self {
            state_dir: None,
            poll_interval: Duration::from_millis(250),
            scan_interval: Duration::from_secs(1),
            checkpoint_interval: Duration::from_secs(1),
            max_line_bytes: some(60 * 1024),
            max_files: some(1_000),
        }
    }
}

impl FilesConfig {
    /// Where files are begun that are there when the entry is new.
    pub(crate) fn start(&self) -> Start {
        self.start.unwrap_or(match self.format {
            Format::Cri | Format::Docker => Start::Beginning,
            Format::Plain => Start::End,
        })
    }

    /// Whether a file of this path is meant, as far as its name says.
    pub(crate) fn wants(&self, path: &Path) -> bool {
        self.paths.iter().any(|pattern| pattern.matches(path)) && !self.excludes(path)
    }

    /// Whether it is left out.
    pub(crate) fn excludes(&self, path: &Path) -> bool {
        self.exclude.iter().any(|pattern| pattern.matches(path))
    }

    /// What says, at the next start, that it was there at this one.
    pub(crate) fn name(&self) -> String {
        self.paths.iter().map(Pattern::as_str).collect::<Vec<_>>().join(" ")
    }
}

/// A pattern of absolute paths.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(glob::Pattern);

/// Why a text is no pattern.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    /// A bracket without its other one, or `**` beside something else.
    #[error("{0:?} is no pattern: {1}; write one like \"/var/log/pods/*/*/*.log\"")]
    Syntax(String, glob::PatternError),
    /// It would depend on where the process was started.
    #[error("{0:?} does not begin with /; write an absolute path")]
    Relative(String),
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        if !text.starts_with('/') {
            return Err(PatternError::Relative(text));
        }
        glob::Pattern::new(&text).map(Self).map_err(|error| PatternError::Syntax(text, error))
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0.as_str().to_owned()
    }
}

impl Pattern {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    fn matches(&self, path: &Path) -> bool {
        self.0.matches_path_with(path, MATCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Result<FilesConfig, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn an_entry_says_what_is_wrong_with_it() {
        for (text, fault) in [
            ("paths = [\"/a\"]", "missing field `format`"),
            ("format = \"cri\"", "missing field `paths`"),
            ("paths = [\"a/*.log\"]\nformat = \"plain\"", "write an absolute path"),
            ("paths = [\"/a/[\"]\nformat = \"plain\"", "is no pattern"),
            ("paths = [\"/a\"]\nformat = \"json\"", "unknown variant `json`"),
            ("paths = [\"/a\"]\nformat = \"cri\"\nmultiline = \"perl\"", "unknown variant `perl`"),
            ("paths = [\"/a\"]\nformat = \"cri\"\nstat = \"end\"", "unknown field `stat`"),
        ] {
            let error = entry(text).unwrap_err().to_string();
            assert!(error.contains(fault), "{error}");
        }
    }

    #[test]
    fn where_files_begin_depends_on_their_format() {
        let start = |format: &str| entry(&format!("paths = [\"/a\"]\nformat = {format:?}")).unwrap().start();
        assert_eq!([start("cri"), start("docker"), start("plain")], [Start::Beginning, Start::Beginning, Start::End]);
    }

    #[test]
    fn a_path_is_wanted_as_a_shell_would() {
        let text = "paths = [\"/v/*/[a-c]?.log\", \"/w/**/x\"]\nexclude = [\"/v/no*/*\"]\nformat = \"plain\"";
        let entry = entry(text).unwrap();
        for (path, wanted) in [
            ("/v/p/a1.log", true),
            ("/v/p/q/a1.log", false),
            ("/v/p/d1.log", false),
            ("/v/none/a1.log", false),
            ("/v/.p/a1.log", false),
            ("/w/x", true),
            ("/w/1/2/x", true),
        ] {
            assert_eq!(entry.wants(Path::new(path)), wanted, "{path}");
        }
        let again: FilesConfig = toml::from_str(&toml::to_string(&entry).unwrap()).unwrap();
        assert_eq!(again, entry);
    }
}
