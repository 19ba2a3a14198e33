//! A load of numbered lines through agents, and consumers that account for every one of them.
//!
//! Every line says which agent, instance and number it is. A consumer knows for each instance which numbers have come, so that lines
//! that are missing, came twice or overtook each other are counted, not guessed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proto::codec::Wire;
use proto::v2;
use proto::v2::egress_client::EgressClient;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::{Certs, subscribed};
use crate::harness::{Process, Producer, logs, next};

/// Lines of one frame.
const FRAME: u64 = 5;

/// For what was sent to arrive after the load has ended.
const ARRIVAL: Duration = Duration::from_secs(30);

/// An instance of a source: the agent it sends to, and its number there.
pub(crate) type Instance = (usize, usize);

/// When each line was sent.
type Sent = Arc<Mutex<HashMap<Instance, Vec<Instant>>>>;

/// Lines on their way, until it is ended.
pub(crate) struct Load {
    sent: Sent,
    stop: CancellationToken,
    senders: JoinSet<Vec<(String, u64)>>,
    consumers: JoinSet<(usize, Seen)>,
    seen: Vec<Arc<Mutex<Seen>>>,
}

/// What one consumer has seen.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    instances: HashMap<Instance, Numbers>,
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
}

#[derive(Clone, Default)]
struct Numbers {
    /// When each came first.
    arrived: Vec<Option<Instant>>,
    /// One more than the highest.
    highest: usize,
    unique: u64,
}

/// How it ended.
pub(crate) struct Outcome {
    pub(crate) issued: u64,
    /// What agents told their producers that they had dropped.
    pub(crate) dropped: Vec<(String, u64)>,
    sent: HashMap<Instance, Vec<Instant>>,
    pub(crate) seen: Vec<Seen>,
}

impl Load {
    /// Reads everything from each of `controllers`, from every other one by name, which its consumers share streams for; once they have subscribed to each of `dopplers`, sends `rate` lines a second to each of
    /// `agents`, as `instances` instances each.
    pub(crate) async fn start(
        certs: &Certs,
        (agents, dopplers, controllers): (&[SocketAddr], &[&Process], &[SocketAddr]),
        (instances, rate): (usize, u64),
    ) -> Self {
        let mut load = Self {
            sent: Sent::default(),
            stop: CancellationToken::new(),
            senders: JoinSet::new(),
            consumers: JoinSet::new(),
            seen: Vec::new(),
        };
        for addr in controllers {
            load.consume(certs, *addr, agents.len()).await;
        }
        for doppler in dopplers {
            subscribed(doppler, controllers.len() as u64).await;
        }
        let pause =
            Duration::from_secs(1) * u32::try_from(FRAME * instances as u64).unwrap() / u32::try_from(rate).unwrap();
        for (agent, addr) in agents.iter().enumerate() {
            for instance in 0..instances {
                let channel = certs.channel(*addr, "consumer", "metron").await;
                let producer = Producer::over(channel).await;
                let sending = send(producer, (agent, instance), pause, Arc::clone(&load.sent), load.stop.clone());
                load.senders.spawn(sending);
            }
        }
        load
    }

    async fn consume(&mut self, certs: &Certs, controller: SocketAddr, agents: usize) {
        let channel = certs.channel(controller, "consumer", "reverselogproxy").await;
        let by_name = self.seen.len() % 2 == 1;
        let sources =
            if by_name { (0..agents).map(|agent| format!("app-{agent}")).collect() } else { vec![String::new()] };
        let selector = |source_id: String| v2::Selector { source_id, message: Some(logs()) };
        let selectors = sources.into_iter().map(selector).collect();
        let request =
            v2::EgressBatchRequest { selectors, use_preferred_tags: true, ..v2::EgressBatchRequest::default() };
        let client = EgressClient::new(channel).max_decoding_message_size(64 << 20);
        let mut stream: tonic::Streaming<Wire> = { client }.batched_receiver(request).await.unwrap().into_inner();
        let seen = Arc::<Mutex<Seen>>::default();
        let (which, own) = (self.seen.len(), Arc::clone(&seen));
        self.seen.push(seen);
        self.consumers.spawn(async move {
            while let Some(envelopes) = next(&mut stream).await {
                let now = Instant::now();
                let mut seen = own.lock();
                envelopes.iter().for_each(|envelope| seen.take(envelope, now));
            }
            let seen = own.lock().clone();
            (which, seen)
        });
    }

    /// Waits until every consumer has seen `more` lines of each instance beyond what it has now.
    pub(crate) async fn flows(&self, more: u64) {
        let now = || -> Vec<u64> { self.seen.iter().flat_map(|seen| seen.lock().counts()).collect() };
        let before = now();
        let mut look = interval(Duration::from_millis(10));
        let flowing = async {
            loop {
                look.tick().await;
                let now = now();
                if !now.is_empty()
                    && now.len() >= before.len()
                    && now
                        .iter()
                        .zip(before.iter().chain(std::iter::repeat(&0)))
                        .all(|(now, before)| *now >= before + more)
                {
                    return;
                }
            }
        };
        timeout(ARRIVAL, flowing).await.expect("lines of every instance reach every consumer");
    }

    /// Ends the load and waits until everything has arrived, or for [`ARRIVAL`].
    pub(crate) async fn end(mut self) -> Outcome {
        self.stop.cancel();
        let mut dropped = Vec::new();
        while let Some(of_sender) = self.senders.join_next().await {
            dropped.extend(of_sender.unwrap());
        }
        let sent = self.sent.lock().clone();
        let issued: u64 = sent.values().map(|times| times.len() as u64).sum();
        let all = || self.seen.iter().all(|seen| seen.lock().unique() >= issued);
        let mut look = interval(Duration::from_millis(10));
        let _late = timeout(ARRIVAL, async {
            while !all() {
                look.tick().await;
            }
        })
        .await;
        self.consumers.abort_all();
        let seen = self.seen.iter().map(|seen| seen.lock().clone()).collect();
        Outcome { issued, dropped, sent, seen }
    }
}

/// Sends frames on a schedule until told to stop; then awaits the fate of all. Returns what was dropped, by reason.
async fn send(
    mut producer: Producer,
    instance: Instance,
    pause: Duration,
    sent: Sent,
    stop: CancellationToken,
) -> Vec<(String, u64)> {
    let mut schedule = interval(pause);
    schedule.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut number = 0;
    while stop.run_until_cancelled(schedule.tick()).await.is_some() {
        let now = Instant::now();
        sent.lock().entry(instance).or_default().extend([now; FRAME as usize]);
        let lines = (number..number + FRAME).map(|number| line(instance, number)).collect();
        assert!(producer.send(lines).await, "the agent takes lines");
        number += FRAME;
    }
    producer.settled().await;
    producer.last.dropped.iter().map(|dropped| (dropped.reason.clone(), dropped.envelopes)).collect()
}

fn line((agent, instance): Instance, number: u64) -> v2::Envelope {
    let payload = format!("{agent} {instance} {number}");
    v2::Envelope::log(format!("app-{agent}"), payload).at(1).instance(instance.to_string())
}

impl Seen {
    fn take(&mut self, envelope: &v2::Envelope, now: Instant) {
        let text = std::str::from_utf8(envelope.payload()).unwrap();
        let numbers: Vec<usize> = text.split(' ').map(|number| number.parse().unwrap()).collect();
        let [agent, instance, number] = numbers[..] else { panic!("not a line of the load: {text}") };
        let of = self.instances.entry((agent, instance)).or_default();
        if of.arrived.len() <= number {
            of.arrived.resize(number + 1, None);
        }
        if of.arrived[number].is_some() {
            self.duplicates += 1;
            return;
        }
        of.arrived[number] = Some(now);
        of.unique += 1;
        self.reordered += u64::from(number < of.highest);
        of.highest = of.highest.max(number + 1);
    }

    pub(crate) fn unique(&self) -> u64 {
        self.instances.values().map(|of| of.unique).sum()
    }

    fn counts(&self) -> Vec<u64> {
        let mut counts: Vec<_> = self.instances.iter().collect();
        counts.sort_by_key(|(instance, _)| **instance);
        counts.into_iter().map(|(_, of)| of.unique).collect()
    }
}

impl Outcome {
    /// Lines that a consumer has not seen.
    pub(crate) fn missing(&self, consumer: usize) -> u64 {
        self.issued - self.seen[consumer].unique()
    }

    /// From `event` until the first line sent after it has arrived, at the first consumer, for the instance that took longest of those
    /// that `which` names.
    pub(crate) fn longest_wait(&self, event: Instant, which: impl Fn(Instance) -> bool) -> Duration {
        let waits = self.sent.iter().filter(|(instance, _)| which(**instance)).map(|(instance, sent)| {
            let seen = &self.seen[0].instances[instance].arrived;
            let after = sent.iter().zip(seen).filter(|(sent, _)| **sent >= event);
            let first = after.filter_map(|(_, arrived)| *arrived).min();
            first.map_or(Duration::MAX, |arrived| arrived.duration_since(event))
        });
        waits.max().unwrap_or_default()
    }

    /// The longest time in which an instance that `which` names had nothing to show at the first consumer.
    pub(crate) fn longest_silence(&self, which: impl Fn(Instance) -> bool) -> Duration {
        let mut longest = Duration::ZERO;
        for (_, of) in self.seen[0].instances.iter().filter(|(instance, _)| which(**instance)) {
            let mut times: Vec<Instant> = of.arrived.iter().flatten().copied().collect();
            times.sort();
            longest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default().max(longest);
        }
        longest
    }

    /// One line of JSON for whoever reads the tests' output.
    pub(crate) fn tell(&self, id: &str, more: &serde_json::Value) {
        let sum = |of: fn(&Seen) -> u64| self.seen.iter().map(of).sum::<u64>();
        let consumers = self.seen.len();
        let missing: Vec<u64> = (0..consumers).map(|consumer| self.missing(consumer)).collect();
        let ledger = serde_json::json!({
            "id": id, "consumers": consumers, "issued": self.issued, "unique": sum(Seen::unique), "missing": missing,
            "duplicates": sum(|seen| seen.duplicates), "reordered": sum(|seen| seen.reordered), "dropped": self.dropped,
            "more": more,
        });
        say(&ledger.to_string());
    }
}

/// Shows a line to whoever reads the output of the tests.
#[expect(clippy::print_stdout, reason = "a ledger is told where the tests' output is read")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}
