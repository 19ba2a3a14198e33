//! Which cgroups are containers. Pure.
//!
//! What enters: a path relative to the tree's root. What leaves: the container's id, and the uid of its pod where the path says it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Wildcards in one name, at most: what a match may cost is bounded by it.
const WILDCARDS: usize = 4;

/// A path with `*`, `**`, `<id>` and `<pod>` in it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: String,
    names: Vec<Name>,
}

/// Why a text is no pattern.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The id must be captured once, by the last name.
    #[error("{0:?} must have <id> once, in its last name, as docker/<id> has")]
    Id(String),
    /// The pod may be captured once.
    #[error("{0:?} has <pod> more than once; a container is in one pod")]
    Pod(String),
    /// A name with too many wildcards.
    #[error("{0:?} has a name with more than {WILDCARDS} of *, <id> and <pod>; use fewer")]
    Wildcards(String),
    /// An empty name.
    #[error("{0:?} has an empty name; write it without a slash at its ends and with one between names")]
    Empty(String),
}

/// What a path says of its container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found<'a> {
    pub(crate) id: &'a str,
    /// As the path spells it: systemd has `_` where the uid has `-`.
    pub(crate) pod: Option<&'a str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    /// Any number of names.
    Any,
    Of(Vec<Part>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Star,
    Id,
    Pod,
}

impl Pattern {
    /// What `path` says, if it is one of these.
    pub(crate) fn find<'a>(&self, path: &'a str) -> Option<Found<'a>> {
        let mut found = Found::default();
        names(&self.names, Some(path), &mut found).then_some(found)
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let mut list = Vec::new();
        for name in text.split('/') {
            if name.is_empty() {
                return Err(PatternError::Empty(text.to_owned()));
            }
            list.push(if name == "**" { Name::Any } else { Name::Of(parts_of(name)) });
        }
        let count = |name: &Name, wanted: &Part| match name {
            Name::Any => 0,
            Name::Of(parts) => parts.iter().filter(|part| *part == wanted).count(),
        };
        let all = |wanted: &Part| list.iter().map(|name| count(name, wanted)).sum::<usize>();
        if all(&Part::Id) != 1 || list.last().is_none_or(|last| count(last, &Part::Id) != 1) {
            return Err(PatternError::Id(text.to_owned()));
        }
        if all(&Part::Pod) > 1 {
            return Err(PatternError::Pod(text.to_owned()));
        }
        let wild = |name: &Name| [Part::Star, Part::Id, Part::Pod].iter().map(|part| count(name, part)).sum::<usize>();
        if list.iter().any(|name| wild(name) > WILDCARDS) {
            return Err(PatternError::Wildcards(text.to_owned()));
        }
        Ok(Self { text: text.to_owned(), names: list })
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.text
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn parts_of(mut name: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    while !name.is_empty() {
        let marks = [("*", Part::Star), ("<id>", Part::Id), ("<pod>", Part::Pod)];
        let next = marks.into_iter().filter_map(|(mark, part)| Some((name.find(mark)?, mark.len(), part)));
        let Some((at, len, part)) = next.min_by_key(|(at, ..)| *at) else {
            parts.push(Part::Text(name.to_owned()));
            break;
        };
        if at > 0 {
            parts.push(Part::Text(name[..at].to_owned()));
        }
        parts.push(part);
        name = &name[at + len..];
    }
    parts
}

/// Whether the names match all of `path`; `None` has no name.
fn names<'a>(pattern: &[Name], path: Option<&'a str>, found: &mut Found<'a>) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return path.is_none() };
    let split = |path: &'a str| path.split_once('/').map_or((path, None), |(name, rest)| (name, Some(rest)));
    match first {
        Name::Any => names(rest, path, found) || path.is_some_and(|path| names(pattern, split(path).1, found)),
        Name::Of(of) => path.is_some_and(|path| {
            let (name, left) = split(path);
            parts(of, name, found) && names(rest, left, found)
        }),
    }
}

/// Whether the parts match all of `name`.
fn parts<'a>(pattern: &[Part], name: &'a str, found: &mut Found<'a>) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return name.is_empty() };
    if let Part::Text(text) = first {
        return name.strip_prefix(text.as_str()).is_some_and(|name| parts(rest, name, found));
    }
    (0..=name.len()).rev().filter(|end| name.is_char_boundary(*end)).any(|end| {
        let (text, left) = name.split_at(end);
        match first {
            Part::Id if !is_id(text) => return false,
            Part::Pod if !is_uid(text) => return false,
            _ => {}
        }
        if !parts(rest, left, found) {
            return false;
        }
        match first {
            Part::Id => found.id = text,
            Part::Pod => found.pod = Some(text),
            _ => {}
        }
        true
    })
}

/// Ids of containers are digests or UUIDs. Monitors of theirs (`conmon-…`) and cgroups that only hold others are none.
fn is_id(text: &str) -> bool {
    (12..=128).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'))
}

/// A UUID, or the digest that stands for one where a pod comes from a file.
fn is_uid(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ContainersConfig;

    const ID: &str = "4f3c2a1b0e9d8c7b6a5f4e3d2c1b0a9f8e7d6c5b4a3f2e1d0c9b8a7f6e5d4c3b";

    fn find(path: &str) -> Option<(String, Option<String>)> {
        let patterns = ContainersConfig::default().patterns;
        let found = patterns.iter().find_map(|pattern| pattern.find(path))?;
        Some((found.id.to_owned(), found.pod.map(str::to_owned)))
    }

    #[test]
    fn containers_of_each_runtime_are_found() {
        let uid = "0f1e2d3c_4b5a_6978_8796_a5b4c3d2e1f0";
        let with_pod = |uid: &str| Some((ID.to_owned(), Some(uid.to_owned())));
        for class in ["kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort", "kubepods.slice/kubepods"] {
            for runtime in ["cri-containerd", "crio", "docker"] {
                assert_eq!(find(&format!("{class}-pod{uid}.slice/{runtime}-{ID}.scope")), with_pod(uid));
            }
        }
        let kind = "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable";
        assert_eq!(find(&format!("{kind}-pod{uid}.slice/cri-containerd-{ID}.scope")), with_pod(uid));
        let plain = uid.replace('_', "-");
        for path in [format!("kubepods/burstable/pod{plain}/{ID}"), format!("kubepods/pod{plain}/{ID}")] {
            assert_eq!(find(&path), with_pod(&plain));
        }
        let alone = Some((ID.to_owned(), None));
        for path in [
            format!("system.slice/docker-{ID}.scope"),
            format!("docker/{ID}"),
            format!("machine.slice/libpod-{ID}.scope"),
            format!("user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"),
            format!("libpod_parent/libpod-{ID}"),
        ] {
            assert_eq!(find(&path), alone, "{path}");
        }
        let handle = "5e9c1c7e-8f4b-4bd5-7f63-3a2b";
        for path in [format!("garden/{handle}"), format!("garden/good/{handle}"), format!("garden/bad/{handle}")] {
            assert_eq!(find(&path), Some((handle.to_owned(), None)));
        }
    }

    #[test]
    fn what_stands_beside_containers_is_none() {
        for path in [
            "",
            "system.slice/cron.service",
            "garden/good",
            "kubepods.slice",
            "docker/buildkit",
            &format!("machine.slice/libpod-conmon-{ID}.scope"),
            &format!("kubepods.slice/kubepods-pod1.slice/crio-conmon-{ID}.scope"),
            &format!("docker/{ID}/init.scope"),
            &format!("system.slice/docker-{ID}.scope.d"),
            "docker/4F3C2A1B0E9D",
        ] {
            assert_eq!(find(path), None, "{path}");
        }
    }

    #[test]
    fn a_pattern_says_what_is_wrong_with_it() {
        let wrong = |text: &str| text.parse::<Pattern>().unwrap_err().to_string();
        assert_eq!(wrong("docker/*"), "\"docker/*\" must have <id> once, in its last name, as docker/<id> has");
        assert!(wrong("<id>/x").contains("last name") && wrong("<id><id>").contains("once"));
        assert!(wrong("<pod>/<pod>/<id>").contains("more than once"));
        assert!(wrong("/docker/<id>").contains("empty name") && wrong("").contains("empty name"));
        assert!(wrong("*a*b*c*d<id>").contains("more than 4"));
        let pattern: Pattern = "a*/x<pod>y/**/<id>".parse().unwrap();
        assert_eq!(pattern.to_string(), "a*/x<pod>y/**/<id>");
        assert_eq!(pattern.find("ab/x12y/p/q/0123456789ab"), Some(Found { id: "0123456789ab", pod: Some("12") }));
        assert_eq!(pattern.find("ab/x12y/0123456789ab").map(|found| found.id), Some("0123456789ab"));
        assert_eq!(pattern.find("ab/x12y"), None);
    }
}
