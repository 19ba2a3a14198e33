//! What has happened to every series since the last flush.
//!
//! Values enter as envelopes bring them; JSON objects of the series that changed leave at a flush, one for each name. A series stays
//! known from flush to flush, with its names and tags rendered, and a counter with its total, until it expires.
//!
//! # Bounds
//! Those of [`Limits`]. What envelopes are looked up in has at most twice as many entries as there may be series, and is forgotten when
//! it is full.
//!
//! # Cost
//! An envelope of a series that is known is read once and hashed: nothing is sorted, rendered or allocated. Two series whose identity
//! has one 64-bit hash (seeded for each process) would be taken for one: among 100 000 series by a chance of 3 in 10^10.

mod object;
mod offenders;

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use proto::reason::Reason;
use smallvec::SmallVec;

use self::object::Form;
pub use self::offenders::OFFENDERS;
use self::offenders::Offenders;
use super::body::{Bodies, Sizes};
use super::options::{Api, Limits};
use super::text::put_string;
use super::wanted::Wanted;
use crate::prometheus::series::Offender;
use crate::read::Counter;

/// Marks in place of a series: there is no room for it, no name, or no request that it fits into.
const NO_ROOM: u32 = u32::MAX;
const NO_NAME: u32 = u32::MAX - 1;
const TOO_LONG: u32 = u32::MAX - 2;

/// Series are looked through for those that have expired this often, in nanoseconds.
const LOOK_EVERY: i64 = 60_000_000_000;

/// The type of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Of {
    /// Deltas are added up.
    Counter,
    /// The newest value.
    Gauge,
    /// Count, sum, mean and maximum of seconds.
    Timer,
}

/// A series: who it is, and what has happened since the last flush.
#[derive(Debug)]
struct Series {
    names: SmallVec<[Box<str>; 1]>,
    /// A JSON array.
    tags: Box<[u8]>,
    /// A JSON string, or nothing.
    host: Box<[u8]>,
    unit: &'static str,
    of: Of,
    hash: u64,
    /// A hash of the first name and the source.
    owner: u64,
    updated: i64,
    /// Has something to send.
    is_active: bool,
    /// Envelopes that it has to account for.
    envelopes: u64,
    /// Of a gauge: the time of its value, in nanoseconds.
    at: i64,
    /// The value of a gauge, the sum of a timer.
    value: f64,
    /// The longest of a timer.
    max: f64,
    /// What a counter has gone on by; how many a timer has seen.
    count: u64,
    /// The last total of a counter, and when that was.
    total: Option<(i64, u64)>,
    /// The second that counts were sent for last.
    sent: i64,
}

/// All series of a drain.
#[derive(Debug)]
pub(super) struct Store {
    form: Form,
    sizes: Sizes,
    limits: Limits,
    expiry: i64,
    hashes: RandomState,
    /// By the hash of what stands in an envelope: the series, or a mark.
    known: HashMap<u64, u32, RandomState>,
    slots: Vec<Option<Series>>,
    free: Vec<u32>,
    /// By what is sent of them.
    by_text: HashTable<u32>,
    by_owner: HashMap<u64, usize, RandomState>,
    /// Those with something to send, each once, in the order in which they came.
    active: Vec<u32>,
    /// As Datadog counts them.
    series: usize,
    bytes: usize,
    offenders: Offenders,
    looked: i64,
}

impl Store {
    pub(super) fn new(api: Api, interval: u64, sizes: Sizes, limits: Limits) -> Self {
        Self {
            form: Form { api, interval },
            sizes,
            limits,
            expiry: i64::try_from(limits.expiry.as_nanos()).unwrap_or(i64::MAX),
            hashes: RandomState::default(),
            known: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            by_text: HashTable::new(),
            by_owner: HashMap::default(),
            active: Vec::new(),
            series: 0,
            bytes: 0,
            offenders: Offenders::default(),
            looked: 0,
        }
    }

    pub(super) fn hashes(&self) -> &RandomState {
        &self.hashes
    }

    /// As Datadog counts them.
    pub(super) fn len(&self) -> usize {
        self.series
    }

    /// The series with this identity, which `make` says how to make.
    pub(super) fn slot<'a>(&mut self, identity: u64, make: impl FnOnce() -> Option<Wanted<'a>>) -> Result<u32, Reason> {
        match self.known.get(&identity) {
            Some(&NO_ROOM) => return Err(Reason::Cardinality),
            Some(&NO_NAME) => return Err(Reason::ConvertError),
            Some(&TOO_LONG) => return Err(Reason::Oversize),
            Some(&slot) => return Ok(slot),
            None => {}
        }
        let admitted = make().ok_or(Reason::ConvertError).and_then(|wanted| self.admit(wanted));
        if self.known.len() >= 2 * self.limits.series + 1024 {
            self.known.clear();
        }
        let mark = match admitted {
            Ok(slot) => slot,
            Err(Reason::Cardinality) => NO_ROOM,
            Err(Reason::Oversize) => TOO_LONG,
            Err(_) => NO_NAME,
        };
        self.known.insert(identity, mark);
        admitted
    }

    fn admit(&mut self, wanted: Wanted<'_>) -> Result<u32, Reason> {
        let Wanted { names, tags, host, of, unit, source_id } = wanted;
        let (tags, host) = render(&tags, &host);
        let hash = self.hashes.hash_one((of, &names[0], &tags, &host));
        let same = |slot: &u32| {
            let series = self.slots[*slot as usize].as_ref();
            series.is_some_and(|one| (one.of, &one.names, &one.tags, &one.host) == (of, &names, &tags, &host))
        };
        if let Some(slot) = self.by_text.find(hash, same) {
            return Ok(*slot);
        }
        let owner = self.hashes.hash_one((&names[0], source_id));
        let of_owner = self.by_owner.get(&owner).copied().unwrap_or_default();
        let series = Series {
            names,
            tags,
            host,
            unit,
            of,
            hash,
            owner,
            updated: i64::MIN,
            is_active: false,
            envelopes: 0,
            at: i64::MIN,
            value: 0.0,
            max: 0.0,
            count: 0,
            total: None,
            sent: i64::MIN,
        };
        if !self.sizes.fit(series.longest_object()) {
            return Err(Reason::Oversize);
        }
        let (width, bytes) = (series.width(), series.bytes());
        if self.series + width > self.limits.series
            || of_owner + width > self.limits.series_per_source
            || self.bytes + bytes > self.limits.bytes
        {
            self.offenders.record(&series.names[0], source_id);
            return Err(Reason::Cardinality);
        }
        self.series += width;
        self.bytes += bytes;
        *self.by_owner.entry(owner).or_default() += width;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        self.slots[slot as usize] = Some(series);
        let slots = &self.slots;
        self.by_text.insert_unique(hash, slot, |slot| slots[*slot as usize].as_ref().map_or(0, |series| series.hash));
        Ok(slot)
    }

    /// Takes what a counter says; false if that is only from where to count.
    pub(super) fn counter(&mut self, slot: u32, at: i64, now: i64, counter: Counter<'_>) -> bool {
        let Some(series) = &mut self.slots[slot as usize] else { return false };
        series.updated = now;
        let Some(delta) = series.delta(at, counter) else { return false };
        series.count = series.count.saturating_add(delta);
        self.activate(slot);
        true
    }

    /// Takes what a counter says as a gauge of its total.
    #[expect(clippy::cast_precision_loss, reason = "Datadog knows no other numbers")]
    pub(super) fn total(&mut self, slot: u32, at: i64, now: i64, counter: Counter<'_>) {
        let Some(series) = &self.slots[slot as usize] else { return };
        if counter.is_step() {
            let before = series.value;
            let at = at.max(series.at);
            self.gauge(slot, at, now, before + counter.delta as f64);
        } else {
            self.gauge(slot, at, now, counter.total as f64);
        }
    }

    /// Takes a finite value, if it is not older than what the series has since the last flush.
    pub(super) fn gauge(&mut self, slot: u32, at: i64, now: i64, value: f64) {
        let Some(series) = &mut self.slots[slot as usize] else { return };
        series.updated = now;
        if !series.is_active || at >= series.at {
            (series.at, series.value) = (at, value);
        }
        self.activate(slot);
    }

    /// Takes a duration.
    pub(super) fn timer(&mut self, slot: u32, now: i64, seconds: f64) {
        let Some(series) = &mut self.slots[slot as usize] else { return };
        series.updated = now;
        if !series.is_active {
            (series.value, series.max) = (0.0, 0.0);
        }
        series.count = series.count.saturating_add(1);
        series.value += seconds;
        series.max = series.max.max(seconds);
        self.activate(slot);
    }

    /// Lets a series that has something to send account for an envelope.
    pub(super) fn account(&mut self, slot: u32) {
        if let Some(series) = &mut self.slots[slot as usize] {
            series.envelopes += 1;
        }
    }

    fn activate(&mut self, slot: u32) {
        if let Some(series) = &mut self.slots[slot as usize]
            && !std::mem::replace(&mut series.is_active, true)
        {
            self.active.push(slot);
        }
    }

    /// Writes all that has happened since the last time, and forgets series that have expired. Gives the number of points.
    pub(super) fn flush(&mut self, now: i64, bodies: &mut Bodies) -> u64 {
        let mut points = 0;
        let mut active = std::mem::take(&mut self.active);
        for slot in active.drain(..) {
            if let Some(series) = &mut self.slots[slot as usize] {
                points += series.flush(now, self.form, bodies);
            }
        }
        self.active = active;
        if now.saturating_sub(self.looked) >= LOOK_EVERY || now < self.looked {
            self.looked = now;
            self.expire(now);
        }
        points
    }

    fn expire(&mut self, now: i64) {
        let before = self.free.len();
        for slot in 0..self.slots.len() {
            let expiry = self.expiry;
            if let Some(series) = self.slots[slot].take_if(|series| now.saturating_sub(series.updated) >= expiry) {
                self.forget(slot as u32, &series);
            }
        }
        if self.free.len() > before {
            // What found no room may have it now.
            self.known.retain(|_, slot| self.slots.get(*slot as usize).is_some_and(Option::is_some));
        }
    }

    /// Undoes [`Store::admit`] for a series that has been taken out of its slot.
    fn forget(&mut self, slot: u32, series: &Series) {
        let width = series.width();
        self.series -= width;
        self.bytes -= series.bytes();
        if let Some(of_owner) = self.by_owner.get_mut(&series.owner) {
            *of_owner -= width;
            if *of_owner == 0 {
                self.by_owner.remove(&series.owner);
            }
        }
        if let Ok(found) = self.by_text.find_entry(series.hash, |other| *other == slot) {
            found.remove();
        }
        self.free.push(slot);
    }

    /// The sources whose metrics had no room since the last call, at most [`OFFENDERS`]. O(series) for each.
    pub(super) fn offenders(&mut self) -> Vec<Offender> {
        let owner = |metric: &str, source: &str| self.hashes.hash_one((Box::<str>::from(metric), source.as_bytes()));
        self.offenders.take(|metric, source| {
            let owner = owner(metric, source);
            let of_owner = self.slots.iter().flatten().filter(move |series| series.owner == owner);
            of_owner.map(|series| &series.tags[..])
        })
    }
}

impl Series {
    fn bytes(&self) -> usize {
        self.tags.len() + self.host.len() + self.names.iter().map(|name| name.len()).sum::<usize>()
    }

    /// By how much a counter went on. `None` if nothing but its total is known and none before it.
    fn delta(&mut self, at: i64, counter: Counter<'_>) -> Option<u64> {
        let before = self.total;
        if counter.is_step() {
            self.total = before.map(|(then, total)| (then, total.wrapping_add(counter.delta)));
            return Some(counter.delta);
        }
        let is_late = before.is_some_and(|(then, _)| at < then);
        if !is_late {
            self.total = Some((at, counter.total));
        }
        match before {
            _ if counter.delta != 0 => Some(counter.delta),
            None => None,
            Some(_) if is_late => Some(0),
            // A total that falls has begun anew.
            Some((_, before)) => Some(counter.total.checked_sub(before).unwrap_or(counter.total)),
        }
    }
}

/// Tags and host as JSON.
fn render(tags: &[String], host: &str) -> (Box<[u8]>, Box<[u8]>) {
    let mut array = vec![b'['];
    for (i, tag) in tags.iter().enumerate() {
        if i > 0 {
            array.push(b',');
        }
        put_string(&mut array, tag);
    }
    array.push(b']');
    let mut text = Vec::new();
    if !host.is_empty() {
        put_string(&mut text, host);
    }
    (array.into(), text.into())
}
