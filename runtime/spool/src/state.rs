//! What the two ends of a spool share: which segments there are, how far commits and acknowledgements have come, and the sums.
//!
//! Commits and acknowledgements enter; views for the reader and numbers for metrics leave. The lock is never held while a file is
//! touched, so that looking at the numbers waits for no disk.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::format::SegmentHeader;
use crate::fs::{FileSystem, Lock};

/// A look at a spool's numbers from outside. Cheap to clone; outlives both ends.
#[derive(Clone)]
pub struct Stats {
    state: Arc<Mutex<State>>,
}

/// The numbers of a spool at one moment. Those of records since it was opened are sums, and
/// `appended = committed + uncommitted + taken` and `recovered + committed = acked + lost + records`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Records that are committed and not acknowledged, read or not. A damaged one counts until the reader comes to it.
    pub records: u64,
    /// Bytes of segment files on disk.
    pub bytes: u64,
    /// Records that wait for their commit.
    pub uncommitted: u64,
    /// Bytes on disk that these will take.
    pub uncommitted_bytes: u64,
    /// Arrival of the oldest record not acknowledged, in milliseconds since the Unix epoch, or of one slightly older. `None` when there
    /// is none, or when it is not known before it is read.
    pub oldest_arrival_ms: Option<u64>,
    /// Records that were there when the spool was opened.
    pub recovered: u64,
    /// Records appended.
    pub appended: u64,
    /// Records committed.
    pub committed: u64,
    /// Records taken back before their commit.
    pub taken: u64,
    /// Records acknowledged.
    pub acked: u64,
    /// Records that the reader found damaged or missing.
    pub lost: u64,
    /// Whether the spool takes records.
    pub health: Health,
}

/// Whether a spool takes records, as its last append or commit found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It does.
    #[default]
    Accepting,
    /// It is at `max_bytes`.
    Full,
    /// The file system is nearly full, or is full.
    NoSpace,
    /// Writing or syncing failed.
    Failing,
}

/// What both ends hold.
pub(crate) struct Shared {
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) dir: PathBuf,
    /// Guards the segment list and the sums, so that a commit shows to the reader and to metrics as one change.
    state: Arc<Mutex<State>>,
    /// Given back when both ends are gone.
    _lock: Box<dyn Lock>,
}

/// Under the lock.
pub(crate) struct State {
    /// By number, which is the order of their records.
    pub(crate) segments: VecDeque<Segment>,
    /// The sequence after the last one committed.
    pub(crate) next: u64,
    /// Everything up to and with this sequence is acknowledged.
    pub(crate) acked: u64,
    /// Sequences above `acked` that are lost, in order.
    gaps: VecDeque<Range<u64>>,
    /// `records` and `bytes` are filled in when somebody asks.
    pub(crate) sums: Depth,
}

/// A segment file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// Only the number counts while the header is not read.
    pub(crate) header: SegmentHeader,
    /// The disk refused to read the header at opening.
    pub(crate) refused: bool,
    /// Offset behind the last committed record: what is there beyond is not read.
    pub(crate) len: u64,
    /// Bytes on disk.
    pub(crate) size: u64,
    /// Where the sequences of later segments start. Unknown, hence the highest there is, while it is written.
    pub(crate) limit: u64,
}

impl Stats {
    /// The numbers now. Waits for no disk.
    pub fn depth(&self) -> Depth {
        lock(&self.state).depth()
    }
}

impl Shared {
    pub(crate) fn new(fs: Arc<dyn FileSystem>, dir: PathBuf, held: Box<dyn Lock>, state: State) -> Arc<Self> {
        Arc::new(Self { fs, dir, state: Arc::new(Mutex::new(state)), _lock: held })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats { state: self.state.clone() }
    }
}

impl State {
    pub(crate) fn new(segments: VecDeque<Segment>, next: u64, acked: u64, sums: Depth) -> Self {
        Self { segments, next, acked, gaps: VecDeque::new(), sums }
    }

    pub(crate) fn depth(&self) -> Depth {
        let lost_ahead: u64 = self.gaps.iter().map(|gap| gap.end - gap.start).sum();
        Depth { records: self.next - 1 - self.acked - lost_ahead, bytes: self.bytes(), ..self.sums }
    }

    /// Bytes of segment files on disk. O(segments).
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size).sum()
    }

    /// The first segment numbered `number` or higher.
    pub(crate) fn segment_from(&self, number: u64) -> Option<Segment> {
        let at = self.segments.partition_point(|segment| segment.header.number < number);
        self.segments.get(at).copied()
    }

    pub(crate) fn segment_mut(&mut self, number: u64) -> Option<&mut Segment> {
        self.segments.iter_mut().find(|segment| segment.header.number == number)
    }

    /// Notes that the sequences of `gap` are lost, and returns how many of them were not known to be.
    pub(crate) fn lose(&mut self, gap: Range<u64>) -> u64 {
        let mut gap = gap.start.max(self.acked + 1)..gap.end;
        if gap.is_empty() {
            return 0;
        }
        let (mut known, mut kept) = (0, VecDeque::new());
        let overlaps = |other: &Range<u64>| other.start <= gap.end && gap.start <= other.end;
        let (touching, apart): (Vec<_>, Vec<_>) = self.gaps.drain(..).partition(overlaps);
        let wanted = gap.clone();
        for other in touching {
            known += other.end.min(wanted.end).saturating_sub(other.start.max(wanted.start));
            gap = gap.start.min(other.start)..gap.end.max(other.end);
        }
        kept.extend(apart);
        let at = kept.partition_point(|other: &Range<u64>| other.start < gap.start);
        kept.insert(at, gap);
        self.gaps = kept;
        let new = wanted.end - wanted.start - known;
        self.sums.lost += new;
        new
    }

    /// Acknowledges everything up to and with `through`, which is committed.
    pub(crate) fn ack(&mut self, through: u64) {
        let mut records = through.saturating_sub(self.acked);
        while let Some(gap) = self.gaps.front_mut().filter(|gap| gap.start <= through) {
            let end = gap.end.min(through + 1);
            records -= end - gap.start;
            gap.start = end;
            if gap.is_empty() {
                self.gaps.pop_front();
            }
        }
        self.acked = self.acked.max(through);
        self.sums.acked += records;
    }
}

/// Every change under the lock is complete before anything can panic, so a poisoned lock guards a whole state.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "a list of gaps")]
    fn a_gap_counts_once() {
        let mut state = State::new(VecDeque::new(), 101, 0, Depth::default());
        assert_eq!(state.lose(10..20), 10);
        assert_eq!(state.lose(12..15), 0, "found again after a rewind");
        assert_eq!(state.lose(15..25), 5);
        assert_eq!(state.lose(40..41), 1);
        assert_eq!(state.lose(5..8), 3);
        assert_eq!(state.gaps, [5..8, 10..25, 40..41]);
        assert_eq!(state.depth().records, 100 - 19);
        state.ack(12);
        assert_eq!((state.sums.acked, state.depth().records), (12 - 3 - 3, 88 - 13));
        state.ack(50);
        assert_eq!((state.sums.acked, state.sums.lost, state.depth().records), (50 - 19, 19, 50));
        assert_eq!(state.gaps, []);
        assert_eq!(state.lose(41..61), 10, "what is acknowledged is not lost");
        assert_eq!(state.gaps, [51..61]);
    }
}
