//! The moving parts of one run: subscriptions, probes, senders, and the wait for the last envelope.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proto::v2;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::transport::Channel;

use super::{Peer, Plan, RunError, Target};
use crate::clock::{Clock, nanos};
use crate::generator::{Sender, Sent, batch_sender};
use crate::ledger::Ledger;
use crate::payload::{Load, Reader, Template};
use crate::report::{Group, progress};
use crate::schedule::Schedule;
use crate::socket::Endpoint;
use crate::subscriber::{Subscriber, Taken, Tally, histogram};

/// How often the state of a run is looked at. Nothing that is measured depends on it.
const LOOK: Duration = Duration::from_millis(20);

/// After a load's time is over, its senders' streams may take this long to end.
const LATE: Duration = Duration::from_secs(20);

/// Connections that many subscriptions share.
const SHARED: u32 = 16;

/// From the last look before a load to its first envelope.
const LEAD: Duration = Duration::from_millis(20);

/// What all parts of one run share.
pub(super) struct Bench<'a> {
    plan: &'a Plan,
    target: &'a Target,
    clock: Clock,
    tracker: TaskTracker,
    tallies: Vec<Arc<Tally>>,
    run: u64,
}

/// A member of a group, which returns what it received once it was told to stop.
type Subscription = JoinHandle<Taken>;

/// A sender's call, which returns what the server answered.
type Call = JoinHandle<Result<(), Status>>;

/// What a run came to.
pub(super) struct Ended {
    /// Envelopes sent.
    pub(super) issued: u64,
    /// From the first scheduled moment to the last arrival.
    pub(super) time: Duration,
    /// The most that a batch left behind its schedule.
    pub(super) behind: Duration,
    /// From the last sender's end to the last arrival.
    pub(super) drained: Duration,
    pub(super) groups: Vec<Group>,
    /// What the servers answered to senders, if not OK.
    pub(super) errors: Vec<String>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(plan: &'a Plan, target: &'a Target) -> Self {
        let tallies = (0..plan.groups.get()).map(|_| Tally::new(plan.senders.get())).collect();
        let clock = Clock::start();
        Self { plan, target, clock, tracker: TaskTracker::new(), tallies, run: clock.now() }
    }

    /// Probes are of a run of their own, so that a late one is never taken for an envelope of the load.
    fn probe_run(&self) -> u64 {
        self.run ^ 1 << 63
    }

    fn source(&self, sender: u32) -> String {
        format!("loadtest-{:04}", sender % self.plan.sources)
    }

    fn template(&self, run: u64, sender: u32) -> Arc<Template> {
        let instance = (sender / self.plan.sources).to_string();
        Template::new(run, sender, &self.source(sender), &instance, self.plan.shape)
    }

    /// Opens every subscription and starts to receive.
    pub(super) async fn subscribe(&self, stop: &CancellationToken) -> Result<Vec<Vec<Subscription>>, RunError> {
        let mut groups = Vec::new();
        for (group, tally) in self.tallies.iter().enumerate() {
            let mut members = Vec::new();
            if let Some(endpoint) = &self.target.socket {
                groups.push(self.sockets(group, endpoint, tally, stop).await?);
                continue;
            }
            for (channel, request) in self.requests(group).await? {
                let reader = |run| Reader::new(run, self.plan.shape);
                let (run, probe) = (reader(self.run), reader(self.probe_run()));
                let open = Subscriber::open(channel, request, run, probe, Arc::clone(tally), self.clock);
                let subscriber = open.await.map_err(|source| RunError::Subscribe {
                    address: self.target.egress.address.clone(),
                    source: Box::new(source),
                })?;
                members.push(self.tracker.spawn(subscriber.receive(stop.clone())));
            }
            groups.push(members);
        }
        Ok(groups)
    }

    /// The members of a group over WebSocket, each with a connection of its own.
    async fn sockets(
        &self,
        group: usize,
        endpoint: &Endpoint,
        tally: &Arc<Tally>,
        stop: &CancellationToken,
    ) -> Result<Vec<Subscription>, RunError> {
        let shard = format!("loadtest-{:016x}-{group}", self.run);
        let paths: Vec<String> = if self.plan.apart {
            let sources = self.plan.sources.get().min(self.plan.senders.get());
            (0..sources).map(|source| endpoint.path(&shard, Some(&self.source(source)))).collect()
        } else {
            (0..self.plan.members.get()).map(|_| endpoint.path(&shard, None)).collect()
        };
        let mut members = Vec::new();
        for path in paths {
            let socket = endpoint
                .open(&path)
                .await
                .map_err(|source| RunError::Subscribe { address: endpoint.addr.into(), source: Box::new(source) })?;
            let reader = |run| Reader::new(run, self.plan.shape);
            let (run, probe) = (reader(self.run), reader(self.probe_run()));
            let subscriber = Subscriber::over(socket, run, probe, Arc::clone(tally), self.clock);
            members.push(self.tracker.spawn(subscriber.receive(stop.clone())));
        }
        Ok(members)
    }

    /// What the members of a group ask for, and over which connection each.
    async fn requests(&self, group: usize) -> Result<Vec<(Channel, v2::EgressBatchRequest)>, RunError> {
        if !self.plan.apart {
            let channels = connect_all(&self.target.egress, self.plan.members.get()).await?;
            return Ok(channels.into_iter().map(|channel| (channel, self.request(group))).collect());
        }
        let shared = connect_all(&self.target.egress, SHARED).await?;
        let all = self.request(group).selectors.into_iter().zip(shared.into_iter().cycle());
        let own = |selector| v2::EgressBatchRequest {
            selectors: vec![selector],
            use_preferred_tags: true,
            ..v2::EgressBatchRequest::default()
        };
        Ok(all.map(|(selector, channel)| (channel, own(selector))).collect())
    }

    fn request(&self, group: usize) -> v2::EgressBatchRequest {
        let logs = |source_id: String| v2::Selector {
            source_id,
            message: Some(v2::selector::Message::Log(v2::LogSelector {})),
        };
        let selectors = if self.plan.by_source || self.plan.apart {
            (0..self.plan.sources.get().min(self.plan.senders.get())).map(|source| logs(self.source(source))).collect()
        } else {
            vec![logs(String::new())]
        };
        v2::EgressBatchRequest {
            shard_id: format!("loadtest-{:016x}-{group}", self.run),
            selectors,
            use_preferred_tags: true,
            ..v2::EgressBatchRequest::default()
        }
    }

    /// Opens the senders' connections.
    pub(super) async fn connect(&self) -> Result<Vec<Channel>, RunError> {
        connect_all(&self.target.ingress, self.plan.connections.get()).await
    }

    /// Sends probes from every sender until each has reached every group, and then waits for the last of them: from here on, what
    /// is sent finds the path open and nothing of the probes left on it.
    pub(super) async fn probe(&self, channels: &[Channel]) -> Result<(), RunError> {
        let deadline = Instant::now() + self.plan.open;
        let mut streams = Vec::new();
        for sender in 0..self.plan.senders.get() {
            let (probes, loads) = mpsc::channel::<Load>(1);
            let channel = channels[sender as usize % channels.len()].clone();
            let call = self.tracker.spawn(batch_sender(channel, ReceiverStream::new(loads)));
            streams.push((self.template(self.probe_run(), sender), probes, call));
        }
        let mut sent = 0;
        while let Some((group, sender)) = self.first_behind(1) {
            if Instant::now() >= deadline {
                return Err(self.no_path(group, sender, streams).await);
            }
            for (template, probes, _) in &streams {
                // A full channel holds a probe already; a closed one shows at the deadline.
                let _ = probes.try_send(template.load(sent, 1, self.clock.now()));
            }
            sent += 1;
            sleep(LOOK).await;
        }
        for (_, probes, call) in streams {
            drop(probes);
            // The answer does not matter: originals end a stream with an error of their own.
            let _ = timeout_at(deadline, call).await;
        }
        let quiet = Instant::now() + self.plan.settle;
        while self.first_behind(sent).is_some() && Instant::now() < quiet {
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// A group that has seen fewer than `wanted` probes of a sender.
    fn first_behind(&self, wanted: u64) -> Option<(usize, usize)> {
        self.tallies.iter().enumerate().find_map(|(group, tally)| {
            let sender = tally.probes.iter().position(|seen| seen.load(Ordering::Relaxed) < wanted)?;
            Some((group, sender))
        })
    }

    async fn no_path(
        &self,
        group: usize,
        sender: usize,
        streams: Vec<(Arc<Template>, mpsc::Sender<Load>, Call)>,
    ) -> RunError {
        let mut said = String::new();
        if let Some((_, probes, call)) = streams.into_iter().nth(sender) {
            drop(probes);
            if let Ok(Ok(Err(status))) = timeout(LOOK, call).await {
                said = format!("; it answered {}: {}", status.code(), status.message());
            }
        }
        let (ingress, egress) = (self.target.ingress.address.clone(), self.target.egress.address.clone());
        RunError::NoPath { ingress, egress, within: self.plan.open, sender, group, said }
    }

    /// Starts the senders.
    pub(super) fn send(&self, channels: &[Channel], stop: &CancellationToken) -> Senders {
        let Plan { rate, count: total, batch, senders, .. } = *self.plan;
        let start = self.clock.now() + nanos(LEAD);
        let mut started = Senders { start, calls: Vec::new(), sent: Vec::new(), stop: stop.child_token() };
        for sender in 0..senders.get() {
            let sent = Arc::<Sent>::default();
            started.sent.push(Arc::clone(&sent));
            let sender = Sender {
                acknowledged: self.plan.acknowledged,
                channel: channels[sender as usize % channels.len()].clone(),
                template: self.template(self.run, sender),
                schedule: Schedule { start, rate, total, batch, senders, sender },
                end: start + nanos(self.plan.limit),
                sent,
            };
            started.calls.push(self.tracker.spawn(sender.send(self.clock, started.stop.clone())));
        }
        started
    }

    /// Waits until every group has everything, or until nothing more has come for a while after the last sender ended.
    pub(super) async fn wait(&self, label: &str, senders: &Senders) {
        let bar = progress(label, self.plan.count);
        let deadline = Instant::now() + self.plan.limit + LATE;
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            sleep(LOOK).await;
            // In this order, or the last envelopes could be missed in the sum.
            let ended = senders.calls.iter().all(JoinHandle::is_finished);
            let issued: u64 = senders.issued().sum();
            let unique = || self.tallies.iter().map(|tally| tally.unique.load(Ordering::Acquire));
            bar.set_position(unique().min().unwrap_or_default());
            if ended && unique().all(|unique| unique >= issued) {
                break;
            }
            if !ended || unique().sum::<u64>() != seen {
                (seen, since) = (unique().sum(), Instant::now());
            } else if since.elapsed() >= self.plan.settle {
                break;
            }
            if Instant::now() >= deadline {
                // A peer that takes nothing must not hold the run up.
                senders.stop.cancel();
            }
        }
        bar.finish_and_clear();
    }

    /// Stops everything and settles the accounts.
    pub(super) async fn end(
        self,
        senders: Senders,
        subscriptions: Vec<Vec<Subscription>>,
        stop: &CancellationToken,
    ) -> Ended {
        // What comes twice may come a little later.
        sleep(LOOK * 5).await;
        stop.cancel();
        let Senders { start, calls, sent, .. } = senders;
        let mut errors = Vec::new();
        for (i, call) in calls.into_iter().enumerate() {
            if let Ok(Err(status)) = call.await {
                errors.push(format!("sender {i}: {}: {}", status.code(), status.message()));
            }
        }
        let issued: Vec<u64> = sent.iter().map(|sent| sent.issued.load(Ordering::Relaxed)).collect();
        let mut groups = Vec::new();
        for members in subscriptions {
            groups.push(settle(members, &issued).await);
        }
        self.tracker.close();
        self.tracker.wait().await;

        let last = self.tallies.iter().map(|tally| tally.last_arrival.load(Ordering::Relaxed)).max();
        let ended = sent.iter().map(|sent| sent.ended.load(Ordering::Relaxed)).max();
        let behind = sent.iter().map(|sent| sent.latest.load(Ordering::Relaxed)).max();
        Ended {
            issued: issued.iter().sum(),
            time: Duration::from_nanos(last.unwrap_or_default().saturating_sub(start)),
            behind: Duration::from_nanos(behind.unwrap_or_default()),
            drained: Duration::from_nanos(last.unwrap_or_default().saturating_sub(ended.unwrap_or_default())),
            groups,
            errors,
        }
    }
}

/// Senders at work.
pub(super) struct Senders {
    /// The first scheduled moment.
    start: u64,
    calls: Vec<Call>,
    sent: Vec<Arc<Sent>>,
    /// Resets the streams that do not end by themselves.
    stop: CancellationToken,
}

impl Senders {
    fn issued(&self) -> impl Iterator<Item = u64> {
        self.sent.iter().map(|sent| sent.issued.load(Ordering::Relaxed))
    }
}

/// One account for all members of a group.
async fn settle(members: Vec<Subscription>, issued: &[u64]) -> Group {
    let mut ledger = Ledger::new(issued.len() as u32);
    let mut latency = histogram();
    let (mut batches, mut errors) = (0, Vec::new());
    for member in members {
        match member.await {
            Ok(taken) => {
                ledger.merge(&taken.ledger);
                latency.add(&taken.latency).expect("histograms of the same bounds");
                batches += taken.batches;
                errors.extend(taken.error.map(|status| format!("{}: {}", status.code(), status.message())));
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    Group { account: ledger.settle(issued), latency: (&latency).into(), batches, errors }
}

async fn connect_all(peer: &Peer, count: u32) -> Result<Vec<Channel>, RunError> {
    let mut channels = Vec::new();
    for _ in 0..count {
        let connected = transport::connect(&peer.address, &peer.options).await;
        channels.push(connected.map_err(|source| RunError::Connect { address: peer.address.clone(), source })?);
    }
    Ok(channels)
}
