//! The tokens file: what is written in it, and the table that requests are looked up in. Pure but for [`read`].
//!
//! What enters: the text of a file. What leaves: a table in which every entry is possible, or an error that names file, line and
//! column and what would be right. No error shows what stands in `sha256`.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use toml::Spanned;
use toml::value::Datetime;

use super::Access;
use super::pattern::Pattern;
use super::secret::Digest;

/// Tokens in one file.
const MAX_TOKENS: usize = 10_000;

/// Sources of one token.
const MAX_SOURCES: usize = 1_000;

/// The longest name.
const MAX_NAME: usize = 128;

/// Bytes of a file.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Why a tokens file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The file is missing or may not be read.
    #[error("tokens file {}: {source}; it must be a TOML file that this process may read", path.display())]
    Read {
        /// The path as configured.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is larger than any that is meant.
    #[error("tokens file {} is larger than {} MiB", path.display(), MAX_FILE >> 20)]
    TooLarge {
        /// The path as configured.
        path: PathBuf,
    },
    /// The file is no TOML, or a key or value in it is wrong. The line itself is not shown: it may hold a token in the wrong place.
    #[error("tokens file {}, line {line}, column {column}: {problem}", path.display())]
    File {
        /// The path as configured.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// More entries than one file may have.
    #[error("tokens file {} has {count} entries; the most is {MAX_TOKENS}", path.display())]
    TooMany {
        /// The path as configured.
        path: PathBuf,
        /// How many it has.
        count: usize,
    },
}

/// Reads the bytes of a file that is not too large. Blocks.
///
/// # Errors
/// [`TokensError::Read`], [`TokensError::TooLarge`].
pub(super) fn read(path: &Path) -> Result<Vec<u8>, TokensError> {
    let failed = |source| TokensError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(TokensError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

/// One token and what it reads.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    digest: Digest,
    sources: Vec<Pattern>,
    firehose: bool,
    expires: Option<SystemTime>,
}

impl Entry {
    /// True when the token reads `access`.
    pub(super) fn allows(&self, access: Access<'_>) -> bool {
        self.firehose || access.source_id().is_some_and(|id| self.sources.iter().any(|source| source.matches(id)))
    }

    /// True when its time is over.
    pub(super) fn expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }
}

/// All tokens, sorted by digest.
#[derive(Debug)]
pub(super) struct Table {
    entries: Vec<Arc<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    tokens: Vec<WrittenToken>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenToken {
    name: Spanned<String>,
    sha256: Spanned<Digest>,
    #[serde(default)]
    sources: Vec<Pattern>,
    #[serde(default)]
    scopes: Vec<Scope>,
    expires: Option<Expires>,
}

/// What a token may do beside reading its sources.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Scope {
    /// Read every source, one by one and all at once.
    Firehose,
}

struct Expires(SystemTime);

impl<'de> Deserialize<'de> for Expires {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Datetime::deserialize(deserializer)?;
        let time: jiff::Timestamp = written
            .to_string()
            .parse()
            .map_err(|_| D::Error::custom("`expires` must be a date and time with its offset: 2027-01-01T00:00:00Z"))?;
        Ok(Self(time.into()))
    }
}

impl Table {
    /// Reads the text of the file at `path`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, TokensError> {
        let text = str::from_utf8(bytes).map_err(|error| TokensError::Read {
            path: path.to_owned(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, error),
        })?;
        let at = |offset: usize, problem: String| {
            let before = text.get(..offset).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            TokensError::File { path: path.to_owned(), line, column, problem }
        };
        let written: Written = toml::from_str(text)
            .map_err(|error| at(error.span().map_or(0, |span| span.start), error.message().trim().to_owned()))?;
        let count = written.tokens.len();
        if count > MAX_TOKENS {
            return Err(TokensError::TooMany { path: path.to_owned(), count });
        }
        let mut names = HashMap::with_capacity(count);
        let mut table = Self { entries: Vec::with_capacity(count) };
        for token in written.tokens {
            let (place, name) = (token.name.span().start, token.name.into_inner());
            if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
                return Err(at(place, format!("`name` must be 1 to {MAX_NAME} bytes without control characters")));
            }
            if token.sources.len() > MAX_SOURCES {
                let problem = format!("a token may have {MAX_SOURCES} sources at most; `*` stands for many");
                return Err(at(place, problem));
            }
            if names.insert(name.clone(), ()).is_some() {
                return Err(at(place, format!("there is a token called \"{name}\" already; each needs its own name")));
            }
            let place = token.sha256.span().start;
            let digest = token.sha256.into_inner();
            let slot = table.entries.partition_point(|entry| entry.digest.prefix() < digest.prefix());
            if let Some(same) = table.find(&digest) {
                let problem = format!("\"{name}\" has the token of \"{}\"; each needs its own", same.name);
                return Err(at(place, problem));
            }
            let entry = Entry {
                name,
                digest,
                sources: token.sources,
                firehose: token.scopes.contains(&Scope::Firehose),
                expires: token.expires.map(|Expires(at)| at),
            };
            table.entries.insert(slot, Arc::new(entry));
        }
        Ok(table)
    }

    /// The entry of a token. Finding the candidates is O(log n); they are compared in constant time.
    pub(super) fn find(&self, digest: &Digest) -> Option<&Entry> {
        let prefix = digest.prefix();
        let first = self.entries.partition_point(|entry| entry.digest.prefix() < prefix);
        let candidates = self.entries[first..].iter().take_while(|entry| entry.digest.prefix() == prefix);
        candidates.map(AsRef::as_ref).find(|entry| entry.digest.matches(digest))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Those whose time is over.
    pub(super) fn expired(&self, now: SystemTime) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(AsRef::as_ref).filter(move |entry| entry.expired(now))
    }

    /// The table without them.
    pub(super) fn without_expired(&self, now: SystemTime) -> Self {
        Self { entries: self.entries.iter().filter(|entry| !entry.expired(now)).cloned().collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::secret::token_sha256;
    use super::*;

    fn parse(text: &str) -> Result<Table, String> {
        Table::parse(Path::new("t.toml"), text.as_bytes()).map_err(|error| error.to_string())
    }

    fn entry(name: &str, token: &str, more: &str) -> String {
        format!("[[tokens]]\nname = \"{name}\"\nsha256 = \"{}\"\n{more}\n", token_sha256(token.as_bytes()))
    }

    #[test]
    fn entries_are_found_by_their_tokens_and_read_what_they_say() {
        let text = entry("ci", "one", "sources = [\"my-app\", \"shop-*\"]")
            + &entry("ops", "two", "scopes = [\"firehose\"]\nexpires = 2027-01-01T00:00:00Z")
            + &entry("idle", "three", "");
        let table = parse(&text).unwrap();
        assert_eq!(table.len(), 3);
        let find = |token: &str| table.find(&Digest::of(token.as_bytes()));
        let (ci, ops, idle) = (find("one").unwrap(), find("two").unwrap(), find("three").unwrap());
        assert_eq!((ci.name.as_str(), ops.name.as_str()), ("ci", "ops"));
        assert!(find("four").is_none() && find("").is_none());
        assert!(ci.allows(Access::Source("shop-1")) && !ci.allows(Access::Source("other")));
        assert!(!ci.allows(Access::Firehose));
        assert!(ops.allows(Access::Firehose) && ops.allows(Access::Source("other")));
        assert!(!idle.allows(Access::Source("my-app")) && !idle.allows(Access::Source("")));

        let end = UNIX_EPOCH + Duration::from_secs(1_798_761_600);
        assert!(ops.expired(end) && !ops.expired(end - Duration::from_nanos(1)) && !ci.expired(end));
        assert_eq!(table.expired(end).map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["ops"]);
        let left = table.without_expired(end);
        assert!(left.find(&Digest::of(b"two")).is_none() && left.find(&Digest::of(b"one")).is_some());
    }

    #[test]
    fn nothing_at_all_is_a_table_of_nobody() {
        assert_eq!(parse("").unwrap().len(), 0);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let wrong = |text: &str| parse(text).unwrap_err();
        let two = entry("ci", "one", "") + &entry("ci", "two", "");
        let expected =
            "tokens file t.toml, line 6, column 8: there is a token called \"ci\" already; each needs its own name";
        assert_eq!(wrong(&two), expected);
        let same = wrong(&(entry("a", "one", "") + &entry("b", "one", "")));
        assert!(same.starts_with("tokens file t.toml, line 7, column 10: \"b\" has the token of \"a\""), "{same}");
        let unknown = wrong(&entry("a", "one", "source = [\"x\"]"));
        assert!(unknown.contains("line 4, column 1") && unknown.contains("`source`") && unknown.contains("`sources`"));
        let scope = wrong(&entry("a", "one", "scopes = [\"admin\"]"));
        assert!(scope.contains("line 4, column 11") && scope.contains("`firehose`"), "{scope}");
        let local = wrong(&entry("a", "one", "expires = 2027-01-01T00:00:00"));
        assert!(local.contains("line 4, column 11") && local.contains("with its offset"), "{local}");
        let empty = wrong(&entry("a", "one", "sources = [\"\"]"));
        assert!(empty.contains("line 4, column 11") && empty.contains("1 to 256 bytes"), "{empty}");
        assert!(wrong(&entry("", "one", "")).contains("`name` must be"));
        assert!(wrong("[[token]]\n").contains("`tokens`"));
        assert!(wrong("[[tokens]]\nname = \"a\"\n").contains("sha256"));
        assert!(wrong("[[tokens]\n").starts_with("tokens file t.toml, line 1, "));
    }

    #[test]
    fn a_token_in_the_place_of_its_digest_is_not_shown() {
        let error = parse("[[tokens]]\nname = \"a\"\nsha256 = \"hy_secret\"\n").unwrap_err();
        assert!(error.contains("line 3, column 10: `sha256` must be 64 hexadecimal digits"), "{error}");
        assert!(error.contains("hydrant token hash") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn as_many_tokens_as_may_be_and_one_more() {
        let most: String = (0..MAX_TOKENS).map(|i| entry(&i.to_string(), &i.to_string(), "")).collect();
        let table = parse(&most).unwrap();
        assert!((0..MAX_TOKENS).all(|i| table.find(&Digest::of(i.to_string().as_bytes())).is_some()));
        let error = parse(&(most + &entry("more", "more", ""))).unwrap_err();
        assert_eq!(error, "tokens file t.toml has 10001 entries; the most is 10000");
        let sources = vec!["\"a\""; MAX_SOURCES + 1].join(",");
        assert!(parse(&entry("a", "one", &format!("sources = [{sources}]"))).unwrap_err().contains("1000 sources"));
    }
}
