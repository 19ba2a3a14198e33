//! The router against a naive model: which subscription gets which envelope, in which order, while subscriptions come and go.

use std::collections::BTreeMap;

use doppler::{Request, Subscribed};
use proptest::prelude::*;
use proto::raw::{Batch, counter_name, gauge_names};
use proto::selector::{Rule, Selector, deterministic_hash};
use proto::v2;
use proto::v2::Envelope;

use crate::client::{Numbers, counters, events, gauge, gauges, logs, timers};
use crate::router::{batch, drain, router, wanted};

/// One thing that happens to the router.
#[derive(Clone, Debug)]
enum Step {
    Subscribe {
        shard: &'static str,
        named: bool,
        selectors: Vec<v2::Selector>,
    },
    /// The subscription at this index of those open, if any, wants these too and no more of those.
    Change(prop::sample::Index, Vec<v2::Selector>, Vec<v2::Selector>),
    /// The subscription at this index of those open, if any, leaves after it has read what it got.
    Leave(prop::sample::Index),
    Publish(Vec<Envelope>),
}

fn source() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "a", "b", "c"])
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "x", "y"])
}

fn names() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(name(), 0..3)
}

fn any_selector() -> impl Strategy<Value = v2::Selector> {
    (0..5, source(), name(), names()).prop_map(|(kind, source, name, names)| match kind {
        0 => logs(source),
        1 => counters(source, name),
        2 => gauges(source, &names),
        3 => timers(source),
        _ => events(source),
    })
}

fn any_envelope() -> impl Strategy<Value = Envelope> {
    (0..6, source(), name(), names()).prop_map(|(kind, source, name, names)| match kind {
        0 => Envelope::log(source, "line"),
        1 => Envelope::counter(source, name, 1),
        2 => gauge(source, &names),
        3 => Envelope::timer(source, name, 1, 2),
        4 => Envelope::event(source, name, "body"),
        _ => Envelope { source_id: source.to_owned(), ..Envelope::default() },
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    let shard = prop::sample::select(vec!["", "", "m", "n"]);
    let subscribe = (shard, any::<bool>(), prop::collection::vec(any_selector(), 1..4))
        .prop_map(|(shard, named, selectors)| Step::Subscribe { shard, named, selectors });
    let some = || prop::collection::vec(any_selector(), 0..4);
    let change = (any::<prop::sample::Index>(), some(), some())
        .prop_map(|(at, added, removed)| Step::Change(at, added, removed));
    prop_oneof![
        3 => subscribe,
        1 => any::<prop::sample::Index>().prop_map(Step::Leave),
        3 => change,
        4 => prop::collection::vec(any_envelope(), 1..90).prop_map(Step::Publish),
    ]
}

/// A subscription that has been opened, and when.
struct Opened {
    request: Request,
    subscribed: Option<Subscribed>,
    got: Vec<i64>,
}

/// The naive reading of the contract's table, of one selector and one decoded envelope.
fn admits(selector: &Selector, envelope: &Envelope) -> bool {
    use v2::envelope::Message;
    if selector.source_id.as_deref().is_some_and(|source| source != envelope.source_id) {
        return false;
    }
    match (&selector.rule, &envelope.message) {
        (Rule::Log, Some(Message::Log(_)))
        | (Rule::Timer, Some(Message::Timer(_)))
        | (Rule::Event, Some(Message::Event(_)))
        | (Rule::Counter(None), Some(Message::Counter(_)))
        | (Rule::Gauge(None), Some(Message::Gauge(_))) => true,
        (Rule::Counter(Some(name)), Some(Message::Counter(counter))) => counter.name == **name,
        (Rule::Gauge(Some(wanted)), Some(Message::Gauge(gauge))) => {
            let mut names: Vec<&str> = gauge.metrics.keys().map(String::as_str).collect();
            names.sort_unstable();
            if names.is_empty() {
                names.push("");
            }
            names == wanted.iter().map(|name| &**name).collect::<Vec<_>>()
        }
        _ => false,
    }
}

/// What each open subscription wanted at some moment.
type Wanted = BTreeMap<usize, Vec<Selector>>;

/// For one envelope, who gets it: every subscription without a shard that wants it, and of each group exactly one member.
fn check(opened: &[Opened], wanted: &Wanted, envelope: &Envelope, encoded: &Batch) -> Result<u64, TestCaseError> {
    let number = envelope.timestamp;
    let has = |at: usize| opened[at].got.binary_search(&number).is_ok();
    let open: Vec<usize> = wanted.keys().copied().collect();
    let wants = |at: usize| wanted[&at].iter().any(|selector| admits(selector, envelope));
    let mut copies = 0;
    for (at, each) in opened.iter().enumerate() {
        let times = each.got.iter().filter(|got| **got == number).count();
        prop_assert!(times <= 1, "{number} came {times} times to {at}");
        prop_assert!(times == 0 || (open.contains(&at) && wants(at)), "{number} is none of {at}'s");
        copies += times as u64;
    }
    for at in open.iter().copied().filter(|at| opened[*at].request.shard_id.is_empty()) {
        prop_assert_eq!(has(at), wants(at), "envelope {} and subscription {}", number, at);
    }
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for at in open.iter().copied().filter(|at| !opened[*at].request.shard_id.is_empty()) {
        let request = &opened[at].request;
        for selector in wanted[&at].iter().filter(|selector| admits(selector, envelope)) {
            let members = groups.entry(format!("{} {selector:?}", request.shard_id)).or_default();
            if !members.contains(&at) {
                members.push(at);
            }
        }
    }
    for (group, members) in &groups {
        let got: Vec<usize> = members.iter().copied().filter(|at| has(*at)).collect();
        prop_assert!(!got.is_empty(), "{number} reached nobody of {group}");
        // A member may have it from another group of the shard; if there is no other, one member has it and no more.
        let shard = &opened[members[0]].request.shard_id;
        let alone = groups.values().filter(|other| opened[other[0]].request.shard_id == *shard).count() == 1;
        prop_assert!(!alone || got.len() == 1, "{number} reached {got:?} of {group}");
        let named = |at: &usize| !opened[*at].request.deterministic_name.is_empty();
        let hash = deterministic_hash(encoded, &encoded.entries()[0]).filter(|_| members.iter().any(named));
        if let Some(hash) = hash {
            let mut ordered = members.clone();
            ordered.sort_by_key(|at| &opened[*at].request.deterministic_name);
            let placed = ordered[(hash % ordered.len() as u64) as usize];
            // Those without a name stand in no order among themselves.
            prop_assert!(has(placed) || !named(&placed), "{number} belongs to {placed} of {group}, {got:?} got it");
        }
    }
    let shards = groups.values().map(|members| &opened[members[0]].request.shard_id);
    for shard in shards {
        let of_shard = |at: &usize| opened[*at].request.shard_id == *shard;
        let groups = groups.values().filter(|members| of_shard(&members[0])).count();
        let got = open.iter().copied().filter(|at| of_shard(at) && has(*at)).count();
        prop_assert!(got <= groups, "{number} reached {got} of shard {shard} through {groups} groups");
    }
    Ok(copies)
}

proptest! {
    /// Every subscription gets exactly what the model says, once, in the order of publication; every group's envelope goes to exactly
    /// one member, and for named members to the one that the hash names; the counts are those of what was got.
    #[test]
    fn the_router_does_what_the_model_does(steps in prop::collection::vec(any_step(), 1..24)) {
        let (router, telemetry) = router();
        let mut publisher = router.publisher();
        let mut opened: Vec<Opened> = Vec::new();
        let mut published: Vec<(Envelope, Wanted)> = Vec::new();
        for step in steps {
            match step {
                Step::Subscribe { shard, named, selectors } => {
                    let name = if named { format!("{:03}", (opened.len() * 37) % 101) } else { String::new() };
                    let request = wanted(shard, &name, &selectors);
                    let subscribed = Some(router.subscribe(request.clone()));
                    opened.push(Opened { request, subscribed, got: Vec::new() });
                }
                Step::Leave(at) => {
                    let open: Vec<usize> = (0..opened.len()).filter(|at| opened[*at].subscribed.is_some()).collect();
                    if !open.is_empty() {
                        let leaver = &mut opened[*at.get(&open)];
                        let mut subscribed = leaver.subscribed.take().unwrap();
                        leaver.got.extend(drain(&mut subscribed));
                    }
                }
                Step::Change(at, added, removed) => {
                    let open: Vec<usize> = (0..opened.len()).filter(|at| opened[*at].subscribed.is_some()).collect();
                    if !open.is_empty() {
                        let Opened { request, subscribed, .. } = &mut opened[*at.get(&open)];
                        let [added, removed] = [added, removed].map(|all| wanted("", "", &all).selectors);
                        subscribed.as_mut().unwrap().change(added.clone(), removed.clone()).unwrap();
                        request.selectors.extend(added);
                        request.selectors.retain(|selector| !removed.contains(selector));
                    }
                }
                Step::Publish(envelopes) => {
                    let open = opened.iter().enumerate().filter(|(_, each)| each.subscribed.is_some());
                    let open: Wanted = open.map(|(at, each)| (at, each.request.selectors.clone())).collect();
                    let first = published.len() as i64;
                    let envelopes: Vec<Envelope> = (first..).zip(envelopes).map(|(i, envelope)| envelope.at(i)).collect();
                    publisher.publish(&batch(envelopes.clone()));
                    published.extend(envelopes.into_iter().map(|envelope| (envelope, open.clone())));
                }
            }
        }
        for opened in &mut opened {
            if let Some(subscribed) = &mut opened.subscribed {
                opened.got.extend(drain(subscribed));
            }
            prop_assert!(opened.got.is_sorted(), "in the order of publication");
        }
        let mut copies = 0;
        for (envelope, open) in &published {
            copies += check(&opened, open, envelope, &batch(vec![envelope.clone()]))?;
        }
        drop(opened);
        let numbers = Numbers::parse(&telemetry.render());
        numbers.balance();
        prop_assert_eq!((numbers.copies(), numbers.delivered(), numbers.lost()), (copies, copies, 0));
        let routed = numbers.get("hydrant_router_matched_total") + numbers.get("hydrant_router_unmatched_total");
        prop_assert_eq!(routed, published.len() as u64);
        prop_assert_eq!(numbers.get("hydrant_subscriptions"), 0);
    }
}

/// The names that the model reads from decoded envelopes are those that the router reads from bytes.
#[test]
fn the_model_and_the_router_mean_the_same_names() {
    let both = batch(vec![gauge("a", &["y", "x"]), Envelope::counter("a", "z", 1)]);
    let [gauge, counter] = both.entries() else { panic!("two envelopes") };
    assert_eq!(gauge_names(both.envelope(gauge)).to_vec(), [b"x", b"y"]);
    assert_eq!(counter_name(both.envelope(counter)), b"z");
}
