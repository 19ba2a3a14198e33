//! Changed series as remote-write 1.0 requests (contract: syslog drains §8.2).
//!
//! Series enter as the [`Store`] changes or ends them; bodies leave, snappy blocks of an encoded `WriteRequest`. Never sends, waits or
//! retries: a caller that sends the bodies of a shard one after the other, each until it is taken or refused, sends every series in
//! order of time.
//!
//! # What is sent
//! Counters and gauges: each value, at the time of its envelope. Timers and requests change too often for that: their present state at
//! every [`Queue::roll_up`]. Histograms and summaries go as their classic series. A series that ends has a stale marker.
//! Of several values of a series in one millisecond the last is sent; one that is not newer than what was sent is dropped.
//!
//! # Bounds
//! At most [`Options::pending`] samples wait. When there is no room a value takes the place of the newest that waits for its series, and
//! only a series without one loses it: the last value of a series outlives a receiver that is away.
//!
//! # Cost
//! With ten tags, from an encoded envelope to its share of a compressed body: 0.7 to 1.0 µs of a core when each series has one sample in
//! a request, 0.5 to 0.65 µs when it has ten (`benches/remote_write.rs`; 55 and 11 bytes a sample).

mod encode;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;

use foldhash::fast::RandomState;

use self::encode::{Encoder, Point};
use super::labels::Labels;
use super::series::{Family, Series, Store, Value};

/// How updates become requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Requests that may be under way at once, each with series of its own. 1.
    pub shards: NonZeroUsize,
    /// Samples that a shard has before [`Queue::next`] makes a request of them, unless it is told to flush. 500.
    pub min_samples: usize,
    /// Samples in a request. 10 000.
    pub max_samples: usize,
    /// Bytes of a body, compressed. 1 MiB.
    pub max_bytes: usize,
    /// Samples that may wait, in all shards together. 200 000: 6 MB of counters and gauges, 40 MB of summaries at
    /// most.
    pub pending: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { shards: NonZeroUsize::MIN, min_samples: 500, max_samples: 10_000, max_bytes: 1 << 20, pending: 200_000 }
    }
}

/// The headers that go with every body, but for `User-Agent`.
pub const HEADERS: [(&str, &str); 3] = [
    ("content-encoding", "snappy"),
    ("content-type", "application/x-protobuf"),
    ("x-prometheus-remote-write-version", "0.1.0"),
];

/// A body, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// A snappy block.
    pub body: Vec<u8>,
    /// Samples in it.
    pub samples: usize,
}

/// Counts since the start, of samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Came.
    pub offered: u64,
    /// Went into a request.
    pub taken: u64,
    /// Gave way to a later one of the same millisecond.
    pub duplicate: u64,
    /// Not newer than one of the series that had gone into a request, or older than one that waits.
    pub out_of_order: u64,
    /// Gave way because as many wait as may.
    pub queue_full: u64,
}

/// A stale marker (contract: syslog drains §8.2): the series has ended.
const STALE: u64 = 0x7ff0_0000_0000_0002;
/// No record, no track.
const NONE: u32 = u32::MAX;

/// Samples that wait to be sent.
#[derive(Debug)]
pub struct Queue {
    options: Options,
    shards: Vec<Shard>,
    tracks: Vec<Track>,
    free: Vec<u32>,
    /// By number of the series in the store: its track.
    by_slot: Vec<u32>,
    /// Series to roll up, each once.
    changed: Vec<u32>,
    /// When series that have ended were sent last, by their hash, so that one that comes back does not begin before it ended.
    ended: HashMap<u64, i64, RandomState>,
    pending: usize,
    encoder: Encoder,
    counts: Counts,
}

/// What one shard has to send.
#[derive(Debug, Default)]
struct Shard {
    records: Vec<Record>,
    free: Vec<u32>,
    /// Tracks with records, each once.
    ready: VecDeque<u32>,
    samples: usize,
    /// A request that had become too large, in halves.
    split: VecDeque<Request>,
}

/// One value, and which comes next of its series.
#[derive(Debug)]
struct Record {
    at: i64,
    value: f64,
    /// Of the other samples of a histogram or summary.
    whole: Option<Box<Value>>,
    next: u32,
}

/// One series, from its first value to its stale marker.
#[derive(Debug)]
struct Track {
    family: Arc<Family>,
    labels: Arc<Labels>,
    hash: u64,
    /// In milliseconds, of what was sent or waits.
    last: i64,
    first_record: u32,
    last_record: u32,
    /// Waits in [`Queue::changed`].
    changed: bool,
    has_ended: bool,
}

impl Queue {
    /// Nothing waits.
    pub fn new(options: Options) -> Self {
        Self {
            shards: (0..options.shards.get()).map(|_| Shard::default()).collect(),
            options,
            tracks: Vec::new(),
            free: Vec::new(),
            by_slot: Vec::new(),
            changed: Vec::new(),
            ended: HashMap::default(),
            pending: 0,
            encoder: Encoder::default(),
            counts: Counts::default(),
        }
    }

    /// Takes a series that has changed, as [`Store::put`] gives it.
    pub fn push(&mut self, slot: u32, series: &Series) {
        let track = self.track(slot, series);
        if !series.rolled_up {
            return self.sample(track, milliseconds(series.timestamp), &series.value, None);
        }
        let state = &mut self.tracks[track as usize];
        if !std::mem::replace(&mut state.changed, true) {
            self.changed.push(slot);
        }
    }

    /// Takes the present state of timers and requests that have changed since the last time, as of `now`. Call it every 10 s or so.
    pub fn roll_up(&mut self, store: &Store, now: i64) {
        for slot in std::mem::take(&mut self.changed) {
            let Some(series) = store.get(slot) else { continue };
            let track = self.track(slot, series);
            if std::mem::take(&mut self.tracks[track as usize].changed) {
                self.sample(track, milliseconds(now), &series.value, None);
            }
        }
    }

    /// Takes the end of a series at `now`, as [`Store::expire`] gives it.
    pub fn end(&mut self, slot: u32, series: &Series, now: i64) {
        let Some(place) = self.by_slot.get_mut(slot as usize).filter(|track| **track != NONE) else { return };
        let track = std::mem::replace(place, NONE);
        if std::mem::take(&mut self.tracks[track as usize].changed) {
            // Its slot may soon be another's.
            self.changed.retain(|changed| *changed != slot);
        }
        let last = self.tracks[track as usize].last;
        let at = milliseconds(now).max(last.saturating_add(1));
        self.sample(track, at, &series.value, Some(STALE));
        if self.ended.len() >= 100_000 {
            self.ended.clear();
        }
        self.ended.insert(series.hash, at);
        let state = &mut self.tracks[track as usize];
        state.has_ended = true;
        if state.first_record == NONE {
            self.free.push(track);
        }
    }

    /// The next request of a shard, below [`Options::shards`]. `None` while it has less than [`Options::min_samples`], or nothing at all
    /// if it is told to `flush`.
    pub fn next(&mut self, shard: usize, flush: bool) -> Option<Request> {
        let state = &mut self.shards[shard];
        if let Some(request) = state.split.pop_front() {
            return Some(request);
        }
        if state.samples == 0 || (!flush && state.samples < self.options.min_samples) {
            return None;
        }
        let encoder = &mut self.encoder;
        encoder.start();
        while let Some(track) = state.ready.pop_front() {
            let series = &mut self.tracks[track as usize];
            let width = series.family.of().width();
            // At least one value, however wide.
            let room = self.options.max_samples.saturating_sub(encoder.samples()) / width;
            let room = room.max(usize::from(encoder.is_empty()));
            if room == 0 {
                state.ready.push_front(track);
                break;
            }
            state.run(series, room, encoder.run());
            let taken = encoder.put(&series.family, &series.labels) * width;
            state.samples -= taken;
            self.pending -= taken;
            self.counts.taken += taken as u64;
            if series.first_record != NONE {
                state.ready.push_front(track);
                break;
            }
            if series.has_ended {
                self.free.push(track);
            }
            if encoder.is_full(self.options.max_samples) {
                break;
            }
        }
        let mut requests = encoder.finish(self.options.max_bytes);
        let first = requests.pop_front();
        self.shards[shard].split = requests;
        first
    }

    /// Samples that wait in one shard.
    pub fn pending(&self, shard: usize) -> usize {
        self.shards[shard].samples + self.shards[shard].split.iter().map(|request| request.samples).sum::<usize>()
    }

    /// Counts since the start. `offered = taken + duplicate + out_of_order + queue_full` and what waits.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The track of a series; a new one for a series that is new.
    fn track(&mut self, slot: u32, series: &Series) -> u32 {
        let index = slot as usize;
        if let Some(track) = self.by_slot.get(index).filter(|track| **track != NONE) {
            return *track;
        }
        let track = Track {
            family: Arc::clone(&series.family),
            labels: Arc::clone(&series.labels),
            hash: series.hash,
            last: self.ended.remove(&series.hash).unwrap_or(i64::MIN),
            first_record: NONE,
            last_record: NONE,
            changed: false,
            has_ended: false,
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.tracks[number as usize] = track;
                number
            }
            None => {
                self.tracks.push(track);
                (self.tracks.len() - 1) as u32
            }
        };
        if self.by_slot.len() <= index {
            self.by_slot.resize(index + 1, NONE);
        }
        self.by_slot[index] = number;
        number
    }

    /// Puts one value behind those that wait. `bits` replaces the value, or every sample of a distribution.
    fn sample(&mut self, number: u32, at: i64, value: &Value, bits: Option<u64>) {
        let track = &mut self.tracks[number as usize];
        let shard_number = (track.hash % self.shards.len() as u64) as usize;
        let shard = &mut self.shards[shard_number];
        let width = track.family.of().width();
        self.counts.offered += width as u64;
        let waits = track.last_record != NONE;
        if at < track.last || (at == track.last && !waits) {
            self.counts.out_of_order += width as u64;
            return;
        }
        let is_full = self.pending + width > self.options.pending;
        if waits && (at == track.last || is_full) {
            // In place of the one that was last.
            let count = if at == track.last { &mut self.counts.duplicate } else { &mut self.counts.queue_full };
            *count += width as u64;
            shard.records[track.last_record as usize].set(at, value, bits);
            track.last = at;
            return;
        }
        if is_full {
            self.counts.queue_full += width as u64;
            return;
        }
        let record = shard.add(at, value, bits);
        if waits {
            shard.records[track.last_record as usize].next = record;
        } else {
            track.first_record = record;
            shard.ready.push_back(number);
        }
        track.last_record = record;
        track.last = at;
        shard.samples += width;
        self.pending += width;
    }
}

impl Shard {
    fn add(&mut self, at: i64, value: &Value, bits: Option<u64>) -> u32 {
        let mut record = Record { at, value: 0.0, whole: None, next: NONE };
        record.set(at, value, bits);
        if let Some(free) = self.free.pop() {
            self.records[free as usize] = record;
            return free;
        }
        self.records.push(record);
        (self.records.len() - 1) as u32
    }

    /// Takes up to `room` values of a series, oldest first.
    fn run(&mut self, track: &mut Track, room: usize, run: &mut Vec<Point>) {
        while track.first_record != NONE && run.len() < room {
            let record = &mut self.records[track.first_record as usize];
            run.push((record.at, record.value, record.whole.take()));
            self.free.push(track.first_record);
            track.first_record = record.next;
        }
        if track.first_record == NONE {
            track.last_record = NONE;
        }
    }
}

impl Record {
    #[expect(clippy::cast_precision_loss, reason = "remote-write knows no other numbers")]
    fn set(&mut self, at: i64, value: &Value, bits: Option<u64>) {
        self.at = at;
        self.whole = None;
        self.value = match (bits, value) {
            (Some(bits), _) => f64::from_bits(bits),
            (None, Value::Counter(total)) => *total as f64,
            // A signalling NaN of a sender's must not be taken for a stale marker.
            (None, Value::Gauge(value)) if value.is_nan() => f64::NAN,
            (None, Value::Gauge(value)) => *value,
            (None, whole) => {
                self.whole = Some(Box::new(whole.clone()));
                0.0
            }
        };
    }
}

fn milliseconds(nanoseconds: i64) -> i64 {
    nanoseconds.div_euclid(1_000_000)
}
