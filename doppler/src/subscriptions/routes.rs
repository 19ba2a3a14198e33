//! Who wants what of one source, or of any: subscriptions of their own and groups. What enters: a run of envelopes. What leaves:
//! which subscription gets which of them. It takes no lock.

use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use proto::raw::{Batch, Entry, Kind};
use proto::selector::{Rule, deterministic_hash};

use super::Subscription;
use super::list::List;

/// Neighbours that stay together when a group shares out a batch: whole runs cost less than single envelopes, and members are never
/// further apart than this.
const RUN: usize = 32;

/// The subscriptions of one source, or of any source.
#[derive(Clone, Debug, Default)]
pub(super) struct Routes {
    pub(super) direct: List<Direct>,
    pub(super) groups: List<Group>,
}

/// A subscription without a shard, and what it wants of a source.
#[derive(Debug)]
pub(super) struct Direct {
    subscription: Arc<Subscription>,
    /// Bits of the kinds of which it wants all.
    kinds: u8,
    /// Rules that look at names.
    named: Vec<Rule>,
}

/// Members that share what one rule admits of a source, or of any.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: u64,
    rule: Rule,
    members: ArcSwap<Members>,
}

#[derive(Debug, Default)]
struct Members {
    /// In order of their names, bytewise; those without one first.
    all: Vec<Member>,
    /// Some member has a name.
    deterministic: bool,
}

#[derive(Clone, Debug)]
struct Member {
    name: Box<str>,
    subscription: Arc<Subscription>,
    /// Envelopes given to this member by free choice.
    given: Arc<AtomicU64>,
}

impl Direct {
    pub(super) fn new(subscription: &Arc<Subscription>, rules: &[&Rule]) -> Self {
        let whole = rules.iter().filter(|rule| rule.is_whole_kind());
        let kinds = whole.fold(0, |bits, rule| bits | rule.kind().bit());
        let named = rules.iter().filter(|rule| kinds & rule.kind().bit() == 0);
        Self { subscription: Arc::clone(subscription), kinds, named: named.map(|rule| Rule::clone(rule)).collect() }
    }

    /// Bits of the kinds of which it wants some.
    fn wants(&self) -> u8 {
        self.named.iter().fold(self.kinds, |bits, rule| bits | rule.kind().bit())
    }

    fn admits(&self, batch: &Batch, entry: &Entry) -> bool {
        let bit = entry.kind.bit();
        self.kinds & bit != 0
            || self.named.iter().any(|rule| rule.kind() == entry.kind && rule.admits(batch.envelope(entry)))
    }
}

impl Group {
    /// One that nobody has joined.
    pub(super) fn new(id: u64, rule: Rule) -> Self {
        Self { id, rule, members: ArcSwap::default() }
    }

    pub(super) fn join(&self, subscription: &Arc<Subscription>) {
        let mut all = self.members.load().all.clone();
        // A newcomer starts level with those who have got least, or it would get everything until it has caught up.
        let given = all.iter().map(|member| member.given.load(Ordering::Relaxed)).min().unwrap_or(0);
        all.push(Member {
            name: subscription.deterministic_name().into(),
            subscription: Arc::clone(subscription),
            given: Arc::new(AtomicU64::new(given)),
        });
        self.set(all);
    }

    /// Takes a member out; true when none is left.
    pub(super) fn part(&self, id: u64) -> bool {
        let mut all = self.members.load().all.clone();
        all.retain(|member| member.subscription.id() != id);
        let empty = all.is_empty();
        self.set(all);
        empty
    }

    fn set(&self, mut all: Vec<Member>) {
        all.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        let deterministic = all.iter().any(|member| !member.name.is_empty());
        self.members.store(Arc::new(Members { all, deterministic }));
    }
}

/// Neighbours in a batch.
#[derive(Clone, Copy)]
pub(super) struct Span<'a> {
    pub(super) batch: &'a Batch,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// Positions in a batch that a subscription gets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Positions<'a> {
    /// All from the first up to, but not including, the second.
    Range(usize, usize),
    /// These.
    Some(&'a [u32]),
}

impl Routes {
    pub(super) fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.groups.is_empty()
    }

    /// Bits of the kinds of which somebody wants some.
    pub(super) fn wants(&self) -> u8 {
        let direct = self.direct.iter().fold(0, |bits, direct| bits | direct.wants());
        self.groups.iter().fold(direct, |bits, group| bits | group.rule.kind().bit())
    }

    /// Calls `pick` with the subscriptions that get some of `span`.
    pub(super) fn matches(
        &self,
        span: Span<'_>,
        scratch: &mut Vec<u32>,
        pick: &mut impl FnMut(&Arc<Subscription>, Positions<'_>),
    ) {
        let entries = &span.batch.entries()[span.from..span.to];
        let kinds = entries.iter().fold(0, |bits, entry| bits | entry.kind.bit());
        for direct in self.direct.iter() {
            if kinds & !direct.kinds == 0 {
                pick(&direct.subscription, Positions::Range(span.from, span.to));
            } else if kinds & direct.kinds != 0 || !direct.named.is_empty() {
                span.find(scratch, |entry| direct.admits(span.batch, entry));
                pick(&direct.subscription, Positions::Some(scratch));
            }
        }
        for group in self.groups.iter() {
            let kind = group.rule.kind();
            if kinds & kind.bit() == 0 {
                continue;
            }
            let members = group.members.load();
            if kinds == kind.bit() && group.rule.is_whole_kind() && members.all.len() == 1 {
                pick(&members.all[0].subscription, Positions::Range(span.from, span.to));
                continue;
            }
            span.find(scratch, |entry| entry.kind == kind && group.rule.admits(span.batch.envelope(entry)));
            members.share_out(span.batch, kind, scratch, pick);
        }
    }
}

impl Span<'_> {
    /// Fills `found` with the positions that are admitted.
    fn find(&self, found: &mut Vec<u32>, mut admits: impl FnMut(&Entry) -> bool) {
        found.clear();
        let entries = self.batch.entries()[self.from..self.to].iter().enumerate();
        found.extend(entries.filter(|(_, entry)| admits(entry)).map(|(i, _)| (self.from + i) as u32));
    }
}

impl Members {
    /// Gives each position, all of one kind, to one member.
    fn share_out(
        &self,
        batch: &Batch,
        kind: Kind,
        positions: &[u32],
        pick: &mut impl FnMut(&Arc<Subscription>, Positions<'_>),
    ) {
        if self.all.is_empty() {
            return;
        }
        if self.deterministic && matches!(kind, Kind::Counter | Kind::Gauge) {
            for position in positions {
                let hash = deterministic_hash(batch, &batch.entries()[*position as usize]);
                let member = hash.map_or(0, |hash| (hash % self.all.len() as u64) as usize);
                pick(&self.all[member].subscription, Positions::Some(slice::from_ref(position)));
            }
            return;
        }
        for run in positions.chunks(RUN) {
            let least = self.all.iter().min_by_key(|member| member.given.load(Ordering::Relaxed));
            let member = least.expect("there are members");
            member.given.fetch_add(run.len() as u64, Ordering::Relaxed);
            pick(&member.subscription, Positions::Some(run));
        }
    }
}
