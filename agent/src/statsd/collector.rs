//! Datagrams to batches, within the limits. Pure but for the locks of what several sockets share.
//!
//! What enters: datagrams. What leaves: a batch of what was understood and the counts of what was not. It never stops at a bad line.

use std::hash::{BuildHasher, Hash};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proto::raw::{Batch, Limits, Refused};
use proto::reason::Reason;

use super::config::{Mapping, NegativeGauges, StatsdConfig};
use super::line::{Line, Type};
use super::native::Native;
use super::{Aggregator, LineError, MAX_DATAGRAM, MAX_LINES, lines, notice, parse_line};
use crate::gather::Gather;

/// Values and members that all series keep between two flushes.
const MAX_VALUES: usize = 1_000_000;

/// Parts of the state where several sockets share it.
const SHARDS: usize = 16;

/// How lines are read.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What counters, gauges and timers become.
    pub mapping: Mapping,
    /// The source of every metric that names none.
    pub source_id: Option<String>,
    /// What a minus before a gauge's number means.
    pub negative_gauges: NegativeGauges,
    /// What has come in this time is told together.
    pub flush_interval: Duration,
    /// Series remembered.
    pub max_series: NonZeroUsize,
    /// Values of a timer and members of a set remembered.
    pub max_values: NonZeroUsize,
}

impl From<&StatsdConfig> for Settings {
    fn from(config: &StatsdConfig) -> Self {
        Self {
            mapping: config.mapping,
            source_id: config.source_id.clone(),
            negative_gauges: config.negative_gauges,
            flush_interval: config.flush_interval,
            max_series: config.max_series,
            max_values: config.max_values,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::from(&StatsdConfig::default())
    }
}

/// What is remembered between datagrams, of all sockets.
#[derive(Debug)]
pub struct State {
    settings: Settings,
    /// Each guards the series whose names hash to it, for one line at a time.
    shards: Box<[Mutex<Shard>]>,
    hasher: foldhash::fast::RandomState,
}

#[derive(Debug)]
struct Shard {
    classic: Aggregator,
    native: Native,
}

impl State {
    /// For so many collectors.
    pub fn new(settings: Settings, collectors: NonZeroUsize) -> Arc<Self> {
        let shards = if collectors.get() > 1 { SHARDS } else { 1 };
        let max_series = NonZeroUsize::new(settings.max_series.get().div_ceil(shards)).unwrap_or(NonZeroUsize::MIN);
        let shard = |_| {
            Mutex::new(Shard {
                classic: Aggregator::new(max_series),
                native: Native::new(max_series, MAX_VALUES / shards),
            })
        };
        Arc::new(Self {
            settings,
            shards: (0..shards).map(shard).collect(),
            hasher: foldhash::fast::RandomState::default(),
        })
    }

    fn shard(&self, series: impl Hash) -> &Mutex<Shard> {
        match &*self.shards {
            [one] => one,
            shards => &shards[self.hasher.hash_one(series) as usize % shards.len()],
        }
    }

    /// Series told and forgotten before they were due, and values counted but not kept, since the last time.
    pub fn take_losses(&self) -> (u64, u64) {
        self.shards.iter().fold((0, 0), |(forgotten, not_kept), shard| {
            let native = &mut shard.lock().native;
            (forgotten + std::mem::take(&mut native.forgotten), not_kept + std::mem::take(&mut native.not_kept))
        })
    }
}

/// Gathers the envelopes of some datagrams.
#[derive(Debug)]
pub struct Collector {
    state: Arc<State>,
    gather: Gather,
    /// Envelopes that a batch may have, by the limits of any hop.
    max_envelopes: usize,
}

impl Collector {
    /// One of those that share `state`.
    pub fn new(state: Arc<State>) -> Self {
        Self { state, gather: Gather::default(), max_envelopes: Limits::default().envelopes }
    }

    /// What it shares.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Takes a datagram that arrived at `now_ns`, in nanoseconds since the Unix epoch. `bad` is told each line that is not understood.
    pub fn add(&mut self, datagram: &[u8], now_ns: i64, mut bad: impl FnMut(&[u8], LineError)) {
        if datagram.len() > MAX_DATAGRAM {
            self.gather.refuse(Reason::Oversize);
            bad(datagram, LineError::Truncated);
            return;
        }
        let mut lines = lines(datagram);
        for line in lines.by_ref().take(MAX_LINES) {
            if let Err(error) = self.line(line, now_ns) {
                self.gather.refuse(error.reason());
                bad(line, error);
            }
        }
        for _ in lines {
            self.gather.refuse(Reason::TooMany);
        }
    }

    fn line(&mut self, line: &[u8], now_ns: i64) -> Result<(), LineError> {
        let Self { state, gather, .. } = self;
        let settings = &state.settings;
        if notice::is_notice(line) {
            return notice::put(line, settings.source_id.as_deref(), now_ns, gather);
        }
        let line = match settings.mapping {
            Mapping::Native => Line::parse(line)?,
            Mapping::Classic => match parse_line(line) {
                Ok(metric) => {
                    state.shard((metric.origin, metric.name)).lock().classic.apply(metric, now_ns, gather);
                    return Ok(());
                }
                // A type that the original refuses, perhaps.
                Err(error) => match Line::parse(line) {
                    Ok(line) if !matches!(line.kind, Type::Counter | Type::Gauge | Type::Timer) => line,
                    Err(better) if error == LineError::Type => return Err(better),
                    _ => return Err(error),
                },
            },
        };
        // One name may have any number of tags, and each set of them is a series.
        let series = (line.name, line.tags, line.container);
        state.shard(series).lock().native.apply(&line, settings, now_ns, gather)
    }

    /// Tells what series have gathered, into as many batches as it takes.
    pub fn flush(&mut self, now_ns: i64, mut hand_over: impl FnMut((Batch, Refused))) {
        let Self { state, gather, .. } = self;
        for shard in &state.shards {
            let full = |gather: &mut Gather| gather.take().into_iter().for_each(&mut hand_over);
            shard.lock().native.flush(&state.settings, now_ns, gather, full);
        }
        gather.take().into_iter().for_each(hand_over);
    }

    /// True when there is no room for the lines of another datagram: take the batch first.
    pub fn is_full(&self) -> bool {
        self.gather.len() + MAX_LINES > self.max_envelopes || self.gather.is_full()
    }

    /// What has been gathered since the last time; `None` if that is nothing. One allocation for the bytes, two for the index.
    pub fn take(&mut self) -> Option<(Batch, Refused)> {
        self.gather.take()
    }
}
