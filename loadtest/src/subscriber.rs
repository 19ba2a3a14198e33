//! Consumers of a load: `Egress.BatchedReceiver` streams or WebSockets, each into a ledger and a histogram of its own.
//!
//! What enters: encoded batches. What leaves: [`Taken`], once the stream was told to stop or ended. Nothing is decoded: the marks
//! are read where they stand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hdrhistogram::Histogram;
use proto::codec::{MAX_MESSAGE, Wire};
use proto::v2;
use proto::v2::egress_client::EgressClient;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::clock::Clock;
use crate::ledger::Ledger;
use crate::payload::{Found, Reader, for_each_envelope};
use crate::socket::{Form, Socket, for_each_payload};

/// Latencies are kept to three digits, between these.
const LATENCY: (u64, u64) = (1_000, 600_000_000_000);

/// What can be seen of a group of subscribers while they run.
#[derive(Debug)]
pub struct Tally {
    /// Envelopes of the run that a member saw for the first time.
    pub unique: AtomicU64,
    /// When the last of them arrived, nanoseconds since the Unix epoch.
    pub last_arrival: AtomicU64,
    /// Per sender: one more than the highest sequence of a probe that has arrived.
    pub probes: Vec<AtomicU64>,
}

impl Tally {
    /// For this many senders.
    pub fn new(senders: u32) -> Arc<Self> {
        let probes = (0..senders).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { unique: AtomicU64::new(0), last_arrival: AtomicU64::new(0), probes })
    }
}

/// An open subscription: the server has answered, so what is published from now on is for it too.
#[derive(Debug)]
pub struct Subscriber {
    stream: Source,
    intake: Intake,
}

/// What it is read from.
#[derive(Debug)]
enum Source {
    Grpc(Box<Streaming<Wire>>),
    Socket(Box<Socket>),
}

/// What one subscriber received.
#[derive(Debug)]
pub struct Taken {
    /// Which envelopes.
    pub ledger: Ledger,
    /// Nanoseconds from the scheduled moment to arrival, of each envelope's first arrival.
    pub latency: Histogram<u64>,
    /// Messages that brought an envelope of the run for the first time.
    pub batches: u64,
    /// Why the server ended the stream, if it did with an error.
    pub error: Option<Status>,
}

impl Subscriber {
    /// Opens the stream. `run` and `probe` recognise the envelopes of the load and those that find out whether the path is open.
    ///
    /// # Errors
    /// The server refused, or could not be reached.
    pub async fn open(
        channel: Channel,
        request: v2::EgressBatchRequest,
        run: Reader,
        probe: Reader,
        tally: Arc<Tally>,
        clock: Clock,
    ) -> Result<Self, Status> {
        let mut client = EgressClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let stream = client.batched_receiver(request).await?.into_inner();
        Ok(Self { stream: Source::Grpc(Box::new(stream)), intake: Intake::new(run, probe, tally, clock) })
    }

    /// The same over an open WebSocket.
    pub fn over(socket: Socket, run: Reader, probe: Reader, tally: Arc<Tally>, clock: Clock) -> Self {
        Self { stream: Source::Socket(Box::new(socket)), intake: Intake::new(run, probe, tally, clock) }
    }

    /// Receives until `stop`, or until the server ends the stream.
    pub async fn receive(mut self, stop: CancellationToken) -> Taken {
        let error = loop {
            let Some(message) = stop.run_until_cancelled(self.stream.message()).await else { break None };
            match message {
                Ok(Some((message, form))) => self.intake.take(&message, form),
                Ok(None) => break None,
                Err(status) => break Some(status),
            }
        };
        let Intake { ledger, latency, batches, .. } = self.intake;
        Taken { ledger, latency, batches, error }
    }
}

impl Source {
    /// The next message, and its form over WebSocket.
    async fn message(&mut self) -> Result<Option<(Bytes, Option<Form>)>, Status> {
        match self {
            Self::Grpc(stream) => Ok(stream.message().await?.map(|message| (message.0, None))),
            Self::Socket(socket) => {
                let form = socket.form();
                Ok(socket.message().await?.map(|message| (message, Some(form))))
            }
        }
    }
}

/// Reads what arrives.
#[derive(Debug)]
struct Intake {
    run: Reader,
    probe: Reader,
    ledger: Ledger,
    latency: Histogram<u64>,
    batches: u64,
    tally: Arc<Tally>,
    clock: Clock,
    /// Where payloads of JSON are decoded.
    room: Vec<u8>,
}

impl Intake {
    fn new(run: Reader, probe: Reader, tally: Arc<Tally>, clock: Clock) -> Self {
        let ledger = Ledger::new(tally.probes.len() as u32);
        Self { run, probe, ledger, latency: histogram(), batches: 0, tally, clock, room: Vec::new() }
    }

    fn take(&mut self, message: &[u8], form: Option<Form>) {
        let now = self.clock.now();
        let mut unique = 0;
        // Envelopes that were due together mostly arrive together: one entry in the histogram for all of them.
        let mut due = (0, 0);
        let Self { run, probe, ledger, latency, tally, room, .. } = self;
        type Read = fn(&mut Reader, &[u8]) -> Found;
        let mut envelope = |bytes: &[u8], read: Read| match read(run, bytes) {
            Found::Ours(mark) => {
                if ledger.note(mark.sender, mark.sequence) {
                    unique += 1;
                    if mark.scheduled != due.0 {
                        record(latency, now, due);
                        due = (mark.scheduled, 0);
                    }
                    due.1 += 1;
                }
            }
            Found::Corrupt => ledger.note_corrupt(),
            Found::Foreign => match read(probe, bytes) {
                Found::Ours(mark) => {
                    if let Some(seen) = tally.probes.get(mark.sender as usize) {
                        seen.fetch_max(mark.sequence + 1, Ordering::Relaxed);
                    }
                }
                Found::Corrupt | Found::Foreign => ledger.note_foreign(),
            },
        };
        let whole = match form {
            None => for_each_envelope(message, |bytes| envelope(bytes, Reader::read)).is_ok(),
            Some(Form::V1) => {
                envelope(message, Reader::read_within);
                true
            }
            Some(Form::Json) => std::str::from_utf8(message)
                .map(|text| for_each_payload(text, room, |payload| envelope(payload, Reader::read_within)))
                .is_ok(),
        };
        if !whole {
            ledger.note_corrupt();
        }
        record(latency, now, due);
        if unique > 0 {
            self.batches += 1;
            tally.last_arrival.store(now, Ordering::Relaxed);
            tally.unique.fetch_add(unique, Ordering::Release);
        }
    }
}

/// An empty histogram of latencies in nanoseconds, all alike so that they can be added up.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LATENCY.0, LATENCY.1, 3).expect("bounds and digits within what the histogram allows")
}

fn record(latency: &mut Histogram<u64>, now: u64, (scheduled, count): (u64, u64)) {
    if count > 0 {
        latency.saturating_record_n(now.saturating_sub(scheduled), count);
    }
}

#[cfg(test)]
mod tests {
    use proto::codec::Write;

    use super::*;
    use crate::payload::{Shape, Template};

    fn batch(template: &Arc<Template>, first: u64, count: u32, scheduled: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        template.load(first, count, scheduled).write(&mut bytes);
        bytes
    }

    #[test]
    fn an_intake_counts_marks_probes_strangers_and_latency() {
        let shape = Shape { payload_bytes: 70, tags: 1 };
        let (tally, clock) = (Tally::new(2), Clock::start());
        let mut intake = Intake::new(Reader::new(1, shape), Reader::new(2, shape), Arc::clone(&tally), clock);
        let run = Template::new(1, 1, "s", "1", shape);
        let probe = Template::new(2, 1, "s", "1", shape);
        let other = Template::new(3, 0, "s", "1", shape);
        let due = clock.now() - 5_000_000;

        let mut mixed = batch(&run, 0, 3, due);
        mixed.extend(batch(&run, 3, 1, due - 1_000_000_000));
        mixed.extend(batch(&probe, 6, 1, due));
        mixed.extend(batch(&other, 0, 2, due));
        intake.take(&mixed, None);
        intake.take(&batch(&run, 2, 1, due), None);
        intake.take(&batch(&run, 4, 1, due)[..20], None);

        assert_eq!(tally.unique.load(Ordering::Relaxed), 4);
        assert!(tally.last_arrival.load(Ordering::Relaxed) > due);
        assert_eq!(tally.probes.iter().map(|seen| seen.load(Ordering::Relaxed)).collect::<Vec<_>>(), [0, 7]);
        assert_eq!((intake.latency.len(), intake.batches), (4, 1), "a repeat has no latency");
        assert!(intake.latency.value_at_quantile(0.5) >= 5_000_000);
        assert!(intake.latency.max() >= 1_005_000_000);
        let account = intake.ledger.settle(&[0, 5]);
        assert_eq!((account.unique, account.missing, account.duplicates), (4, 1, 1));
        assert_eq!((account.foreign, account.corrupt), (2, 1));
    }
}
