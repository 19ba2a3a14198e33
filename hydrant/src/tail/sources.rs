//! Which sources are followed: those named, and those that match a regular expression, as they come to be known. Pure but for
//! [`watch`].
//!
//! *Invariant*: each is followed once, and [`FOLLOWED`] at most.

use std::collections::HashSet;
use std::time::Duration;

use regex::Regex;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::filter::regex;
use crate::overview;

/// Sources followed at most.
pub(super) const FOLLOWED: usize = 1024;

/// Sources of one stream: as many as a traffic controller takes.
pub(super) const A_STREAM: usize = 64;

/// Between two looks at what sources there are.
const LOOK: Duration = Duration::from_secs(2);

/// What somebody wants to follow.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    /// The source of this id.
    Id(String),
    /// Those that match.
    Matching(Regex),
}

/// Reads `id` or `/regex/`.
pub(crate) fn wanted(text: &str) -> Result<Wanted, String> {
    match text.strip_prefix('/').and_then(|text| text.strip_suffix('/')) {
        None if text.is_empty() => Err("a source has a name".to_owned()),
        None => Ok(Wanted::Id(text.to_owned())),
        Some("") => Err("write /./ for all sources".to_owned()),
        Some(text) => regex(text).map(Wanted::Matching),
    }
}

/// Chooses.
#[derive(Debug)]
pub(super) struct Chosen {
    regexes: Vec<Regex>,
    followed: HashSet<String>,
    /// Sources that there was no room for.
    beyond: HashSet<String>,
}

/// What a look has brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct More {
    /// To be followed from now on.
    pub(super) sources: Vec<String>,
    /// There was no room for others, for the first time.
    pub(super) full: bool,
}

impl Chosen {
    /// What is wanted, and of it what is named, once each.
    pub(super) fn new(wanted: &[Wanted]) -> (Self, More) {
        let mut chosen = Self { regexes: Vec::new(), followed: HashSet::new(), beyond: HashSet::new() };
        let mut named = Vec::new();
        for wanted in wanted {
            match wanted {
                Wanted::Id(id) => named.push(id.as_str()),
                Wanted::Matching(regex) => chosen.regexes.push(regex.clone()),
            }
        }
        let more = chosen.add(named.into_iter());
        (chosen, more)
    }

    /// Whether sources have to be looked for.
    pub(super) fn looks(&self) -> bool {
        !self.regexes.is_empty()
    }

    /// Of the sources `known`, those that match and are not followed yet.
    pub(super) fn more<'a>(&mut self, known: impl Iterator<Item = &'a str>) -> More {
        let regexes = self.regexes.clone();
        self.add(known.filter(|id| regexes.iter().any(|regex| regex.is_match(id))))
    }

    fn add<'a>(&mut self, ids: impl Iterator<Item = &'a str>) -> More {
        let mut more = More::default();
        for id in ids {
            if self.followed.contains(id) {
                continue;
            }
            if self.followed.len() < FOLLOWED {
                self.followed.insert(id.to_owned());
                more.sources.push(id.to_owned());
            } else if self.beyond.is_empty() {
                self.beyond.insert(id.to_owned());
                more.full = true;
            }
        }
        more
    }
}

/// Looks again and again, and tells what is to be followed, until nobody listens.
pub(super) async fn watch(mut chosen: Chosen, mut client: overview::Client, told: mpsc::Sender<More>) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look.tick().await;
    loop {
        look.tick().await;
        // Who cannot be asked now can be asked the next time.
        let Ok(reply) = overview::get(&mut client).await else { continue };
        let more = chosen.more(reply.sources.iter().map(|source| source.source_id.as_str()));
        if more != More::default() && told.send(more).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(texts: &[&str]) -> Vec<Wanted> {
        texts.iter().map(|text| wanted(text).expect("a source")).collect()
    }

    #[test]
    fn names_and_matches_are_followed_once() {
        let (mut chosen, named) = Chosen::new(&all(&["app", "app", "/^shop-/", "/a$/", "/var"]));
        assert_eq!(named.sources, ["app", "/var"]);
        assert!(chosen.looks());
        assert_eq!(chosen.more(["shop-1", "app", "spa", "other"].into_iter()).sources, ["shop-1", "spa"]);
        assert_eq!(chosen.more(["shop-1", "shop-2"].into_iter()).sources, ["shop-2"]);
        assert!(wanted("/(/").expect_err("no regex").contains("unclosed"));
        assert!(wanted("//").is_err() && wanted("").is_err());
    }

    #[test]
    fn there_is_a_bound_and_it_is_said_once() {
        let (mut chosen, _) = Chosen::new(&all(&["/./"]));
        let ids: Vec<String> = (0..FOLLOWED + 5).map(|i| format!("app-{i}")).collect();
        let more = chosen.more(ids.iter().map(String::as_str));
        assert_eq!((more.sources.len(), more.full), (FOLLOWED, true));
        assert_eq!(chosen.more(ids.iter().map(String::as_str)), More::default());
    }
}
