//! `hydrant emit`: standard input's lines as log envelopes, to the agent.
//!
//! What enters: lines. What leaves: frames of an acknowledged stream, at most a window of them open, so that the program behind the
//! pipe waits when the pipeline does; or, with `--no-wait`, batches that are dropped and counted when there is no room.

use std::collections::VecDeque;
use std::io::{BufRead, Read};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use prost::Message;
use proto::hydrant::v1::IngressAck;
use proto::hydrant::v1::ingress_client::IngressClient as AcknowledgedClient;
use proto::raw::{Batch, Outgoing, OutgoingFrame, Selection};
use proto::v2;
use proto::v2::ingress_client::IngressClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use transport::{Address, Backoff, reason};

use crate::cli::{Failure, runtime, say};
use crate::client::{Connect, Server};

/// Bytes of a line in one envelope; a longer line goes in pieces.
const LINE: usize = 61_440;

/// Lines in one frame.
const LINES: usize = 500;

/// Frames whose fate is open.
const WINDOW: usize = 32;

/// Arguments of `hydrant emit`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The source that the lines belong to
    #[arg(value_name = "SOURCE")]
    source: String,
    /// The instance of the source
    #[arg(long, value_name = "ID", default_value = "0")]
    instance: String,
    /// A tag for every line; may be given more than once
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<(String, String)>,
    /// Mark the lines as written to standard error
    #[arg(long)]
    err: bool,
    /// Never wait for the pipeline: lines that it cannot take are dropped, and counted at the end
    #[arg(long)]
    no_wait: bool,
    /// The agent's gRPC address
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:3458")]
    agent: Address,
    #[command(flatten)]
    connect: Connect,
}

fn tag(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write a tag as key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// What became of the lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sum {
    read: u64,
    delivered: u64,
    dropped: Vec<(String, u64)>,
}

impl Sum {
    fn tell(&self, source: &str) -> Result<(), Failure> {
        let dropped: u64 = self.dropped.iter().map(|(_, envelopes)| envelopes).sum();
        let lost = self.read.saturating_sub(self.delivered);
        let lines = if self.read == 1 { "line" } else { "lines" };
        let mut text = format!("hydrant: {} {lines} for {source}: {} delivered", self.read, self.delivered);
        if lost > 0 {
            let mut reasons: Vec<String> =
                self.dropped.iter().map(|(reason, envelopes)| format!("{envelopes} {reason}")).collect();
            if lost > dropped {
                reasons.push(format!("{} unknown", lost - dropped));
            }
            text.push_str(&format!(", {lost} lost ({})", reasons.join(", ")));
        }
        say(&mut std::io::stderr(), &text);
        if lost > 0 { Err(Failure::Failed(anyhow!("not every line was delivered"))) } else { Ok(()) }
    }
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let runtime = runtime()?;
    let outcome = runtime.block_on(emit(args));
    // A reader may still sit in `read` on a terminal.
    runtime.shutdown_background();
    outcome
}

async fn emit(args: Args) -> Result<(), Failure> {
    let server = Server { what: "an agent", address: &args.agent, option: "--agent", name: "metron" };
    let channel = server.connect(&args.connect).await?;
    let maker = Maker { source: args.source.clone(), instance: args.instance, tags: args.tags, err: args.err };
    let (sender, lines) = mpsc::channel(4 * LINES);
    let reading = tokio::task::spawn_blocking(move || read(std::io::stdin().lock(), &sender));
    let sum = if args.no_wait {
        drop_rather_than_wait(channel, lines, &maker).await
    } else {
        Sender::new(channel, maker).run(lines).await?
    };
    reading.await.context("reading standard input")?.context("cannot read standard input")?;
    sum.tell(&args.source)
}

/// Reads lines, without their ends, into `lines`; long ones in pieces, cut between characters.
fn read(mut input: impl BufRead, lines: &mpsc::Sender<Bytes>) -> std::io::Result<()> {
    let mut line = Vec::new();
    loop {
        let room = (LINE - line.len()) as u64;
        if input.by_ref().take(room).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let whole = line.last() == Some(&b'\n');
        if !whole && line.len() < LINE {
            continue;
        }
        let end = if whole { line.len() - 1 } else { boundary(&line) };
        let end = if whole && line[..end].last() == Some(&b'\r') { end - 1 } else { end };
        let piece = Bytes::copy_from_slice(&line[..end]);
        line.drain(..if whole { line.len() } else { end });
        if lines.blocking_send(piece).is_err() {
            return Ok(());
        }
    }
    if !line.is_empty() {
        let _stopped = lines.blocking_send(Bytes::from(line));
    }
    Ok(())
}

/// The last position, at most three bytes before the end, that does not cut a UTF-8 character.
fn boundary(bytes: &[u8]) -> usize {
    let near = bytes.len().saturating_sub(3);
    let lead = (near..bytes.len()).rev().find(|i| bytes[*i] >= 0xc0);
    match lead {
        Some(at) if at > 0 && std::str::from_utf8(&bytes[at..]).is_err() => at,
        _ => bytes.len(),
    }
}

/// Makes envelopes out of lines.
struct Maker {
    source: String,
    instance: String,
    tags: Vec<(String, String)>,
    err: bool,
}

impl Maker {
    fn batch(&self, lines: &mut Vec<Bytes>) -> Selection {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        let envelope = |(i, line)| {
            // Lines read together keep their order wherever envelopes are sorted by time.
            let envelope = v2::Envelope::log(&self.source, line).at(now + i64::from(i)).instance(&self.instance);
            let envelope = if self.err { envelope.err() } else { envelope };
            self.tags.iter().fold(envelope, |envelope, (key, value)| envelope.tag(key, value))
        };
        let batch = (0_i32..).zip(lines.drain(..)).map(envelope).collect();
        Batch::index(v2::EnvelopeBatch { batch }.encode_to_vec().into()).0.into()
    }
}

/// An acknowledged stream to the agent, opened again when it breaks.
struct Sender {
    channel: Channel,
    maker: Maker,
    /// Frames whose fate is open, oldest first; the first `sent` are on the stream.
    open: VecDeque<Outgoing>,
    sent: usize,
    finished: bool,
    sum: Sum,
    /// The counts of streams that are no more.
    before: Sum,
}

impl Sender {
    fn new(channel: Channel, maker: Maker) -> Self {
        Self {
            channel,
            maker,
            open: VecDeque::new(),
            sent: 0,
            finished: false,
            sum: Sum::default(),
            before: Sum::default(),
        }
    }

    async fn run(mut self, mut lines: mpsc::Receiver<Bytes>) -> Result<Sum, Failure> {
        let mut backoff = Backoff::new(Backoff::random_seed());
        let mut away = false;
        loop {
            match self.stream(&mut lines, &mut away).await {
                Ok(()) => return Ok(self.sum),
                Err(status) if status.code() == Code::Unimplemented => {
                    let message = "this agent acknowledges nothing; add --no-wait to send all the same";
                    return Err(Failure::Failed(anyhow!(message)));
                }
                Err(status) if matches!(status.code(), Code::InvalidArgument | Code::PermissionDenied) => {
                    return Err(Failure::Failed(anyhow!("the agent refused: {}", status.message())));
                }
                Err(status) => {
                    if !away {
                        let text = format!("hydrant: the agent went away ({}); waiting for it", reason(&status));
                        say(&mut std::io::stderr(), &text);
                        away = true;
                    }
                    self.before = self.sum.clone();
                    self.sent = 0;
                    tokio::time::sleep(backoff.next_wait().max(Duration::from_millis(20))).await;
                }
            }
        }
    }

    /// Moves lines over one stream; ends when all are read and their fate is known.
    async fn stream(&mut self, lines: &mut mpsc::Receiver<Bytes>, away: &mut bool) -> Result<(), Status> {
        let (frames, outgoing) = mpsc::channel(1);
        let mut client = AcknowledgedClient::new(self.channel.clone());
        let mut acks = client.stream(ReceiverStream::new(outgoing)).await?.into_inner();
        if std::mem::take(away) {
            say(
                &mut std::io::stderr(),
                "hydrant: the agent is back; lines that it had not acknowledged are sent again",
            );
        }
        let (mut frames, mut acknowledged, mut taken) = (Some(frames), 0, Vec::new());
        loop {
            if self.finished && self.sent == self.open.len() {
                frames = None;
            }
            if self.finished && self.open.is_empty() {
                return Ok(());
            }
            let unsent = self.sent < self.open.len();
            let room = !unsent && !self.finished && self.open.len() < WINDOW;
            tokio::select! {
                ack = acks.message() => match ack? {
                    Some(ack) => self.settle(&mut acknowledged, &ack),
                    None => return Err(Status::unavailable("it ended the stream")),
                },
                place = reserve(frames.clone()), if unsent => match place {
                    Some(place) => {
                        let batch = self.open[self.sent].clone();
                        self.sent += 1;
                        let _sender = place.send(OutgoingFrame { sequence: acknowledged + self.sent as u64, batch, ..OutgoingFrame::default() });
                    }
                    None => frames = None,
                },
                count = lines.recv_many(&mut taken, LINES), if room => {
                    self.finished = count == 0;
                    self.sum.read += count as u64;
                    if count > 0 {
                        self.open.push_back(self.maker.batch(&mut taken).into());
                    }
                }
            }
        }
    }

    fn settle(&mut self, acknowledged: &mut u64, ack: &IngressAck) {
        while *acknowledged < ack.sequence && self.sent > 0 {
            self.open.pop_front();
            *acknowledged += 1;
            self.sent -= 1;
        }
        self.sum.delivered = self.before.delivered + ack.delivered;
        self.sum.dropped.clone_from(&self.before.dropped);
        for dropped in &ack.dropped {
            match self.sum.dropped.iter_mut().find(|(reason, _)| *reason == dropped.reason) {
                Some((_, envelopes)) => *envelopes += dropped.envelopes,
                None => self.sum.dropped.push((dropped.reason.clone(), dropped.envelopes)),
            }
        }
    }
}

async fn reserve<T>(sender: Option<mpsc::Sender<T>>) -> Option<mpsc::OwnedPermit<T>> {
    match sender {
        Some(sender) => sender.reserve_owned().await.ok(),
        None => std::future::pending().await,
    }
}

/// Sends batches as long as there is room, and counts those for which there is none.
async fn drop_rather_than_wait(channel: Channel, mut lines: mpsc::Receiver<Bytes>, maker: &Maker) -> Sum {
    let (batches, outgoing) = mpsc::channel(WINDOW);
    let mut client = IngressClient::new(channel);
    let (mut sum, mut lost, mut taken) = (Sum::default(), 0, Vec::new());
    let sending = async move {
        loop {
            let count = lines.recv_many(&mut taken, LINES).await as u64;
            if count == 0 {
                return (sum, lost);
            }
            sum.read += count;
            match batches.try_send(Outgoing::from(maker.batch(&mut taken))) {
                Ok(()) => sum.delivered += count,
                Err(_) => lost += count,
            }
        }
    };
    let (ended, (mut sum, lost)) = tokio::join!(client.batch_sender(ReceiverStream::new(outgoing)), sending);
    if let Err(status) = ended {
        say(&mut std::io::stderr(), &format!("hydrant: the agent went away: {}", reason(&status)));
        // Nobody confirms a plain stream: what it had taken is not known.
        sum.delivered = 0;
    }
    if lost > 0 {
        sum.dropped.push(("queue_full".to_owned(), lost));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(input: &[u8]) -> Vec<Vec<u8>> {
        let (sender, mut lines) = mpsc::channel(1_000);
        read(input, &sender).expect("memory reads");
        drop(sender);
        std::iter::from_fn(|| lines.try_recv().ok()).map(|line| line.to_vec()).collect()
    }

    #[test]
    fn lines_come_without_their_ends() {
        assert_eq!(lines_of(b"a\nb\r\n\nlast"), [b"a".to_vec(), b"b".to_vec(), b"".to_vec(), b"last".to_vec()]);
        assert_eq!(lines_of(b""), Vec::<Vec<u8>>::new());
        assert_eq!(lines_of(b"\xff\xfe\n"), [b"\xff\xfe".to_vec()]);
    }

    #[test]
    fn a_long_line_goes_in_pieces_cut_between_characters() {
        let text = "é".repeat(LINE);
        let mut input = text.clone().into_bytes();
        input.extend(b"\nnext\n");
        let pieces = lines_of(&input);
        assert!(pieces.iter().all(|piece| piece.len() <= LINE && std::str::from_utf8(piece).is_ok()));
        assert_eq!(pieces[..pieces.len() - 1].concat(), text.into_bytes());
        assert_eq!(pieces.last().map(Vec::as_slice), Some(&b"next"[..]));
        let odd = lines_of(format!("x{}", "é".repeat(LINE)).as_bytes());
        assert!(odd.iter().all(|piece| std::str::from_utf8(piece).is_ok()));
        assert_eq!(lines_of(&vec![0xff; 2 * LINE + 5]).concat().len(), 2 * LINE + 5);
    }

    #[test]
    fn the_sum_says_what_arrived() {
        let all = Sum { read: 5, delivered: 5, dropped: Vec::new() };
        assert!(all.tell("app").is_ok());
        let some = Sum { read: 5, delivered: 2, dropped: vec![("oversize".to_owned(), 1)] };
        assert!(some.tell("app").is_err());
    }
}
