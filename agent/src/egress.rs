//! The ring to the dopplers: takes what there is as soon as a link can carry it, and gives each envelope to the doppler of its source
//! instance. While no doppler can be reached everything stays in the ring, which drops fairly.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diode::fair;
use proto::placement::place;
use proto::raw::{Outgoing, Selection};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use transport::Address;

use crate::config::EgressConfig;
use crate::link::Message;
use crate::parcel::Parcel;

/// Which links are up.
#[derive(Debug)]
pub(crate) struct Live {
    up: Vec<AtomicBool>,
    changed: Notify,
}

impl Live {
    pub(crate) fn new(links: usize) -> Arc<Self> {
        let up = (0..links).map(|_| AtomicBool::new(false)).collect();
        Arc::new(Self { up, changed: Notify::new() })
    }

    /// Marks a link; true if that is news.
    pub(crate) fn set(&self, link: usize, up: bool) -> bool {
        let was = self.up[link].swap(up, Ordering::AcqRel);
        self.changed.notify_waiters();
        was != up
    }

    fn now(&self) -> Vec<usize> {
        (0..self.up.len()).filter(|link| self.up[*link].load(Ordering::Acquire)).collect()
    }

    /// Waits until some link is up, and says which are.
    async fn some(&self) -> Vec<usize> {
        loop {
            let changed = self.changed.notified();
            let links = self.now();
            if !links.is_empty() {
                return links;
            }
            changed.await;
        }
    }
}

/// The task between the ring and the links.
pub(crate) struct Dispatcher {
    ring: fair::Reader<Parcel>,
    links: Vec<(Address, mpsc::Sender<Message>)>,
    live: Arc<Live>,
    limit: fair::Bounds,
    /// Cancelled once the ring is closed.
    closed: CancellationToken,
    /// Taken from the ring, for a link that has no room yet. Few: nothing more is taken meanwhile.
    ready: VecDeque<(usize, Message)>,
}

impl Dispatcher {
    pub(crate) fn new(
        ring: fair::Reader<Parcel>,
        links: Vec<(Address, mpsc::Sender<Message>)>,
        live: Arc<Live>,
        config: &EgressConfig,
        closed: CancellationToken,
    ) -> Self {
        let limit = fair::Bounds { envelopes: config.batch_envelopes, bytes: config.batch_bytes };
        Self { ring, links, live, limit, closed, ready: VecDeque::new() }
    }

    /// Runs until the ring is closed and empty, or until it is cut. Returns the envelopes left behind.
    pub(crate) async fn run(mut self, cut: CancellationToken) -> u64 {
        tokio::select! {
            biased;
            () = self.dispatch() => 0,
            () = cut.cancelled() => self.abandon(),
        }
    }

    /// # Cancel safety
    /// Every envelope is in the ring, in `ready` or with a link.
    async fn dispatch(&mut self) {
        loop {
            while let Some((link, _)) = self.ready.front() {
                let Ok(room) = self.links[*link].1.reserve().await else { return };
                if let Some((_, message)) = self.ready.pop_front() {
                    room.send(message);
                }
            }
            // Links first: what stays in the ring is still subject to its fairness, and joins a larger batch.
            let Some(up) = self.links_up().await else { return };
            if let [only] = up[..]
                && self.links[only].1.reserve().await.is_err()
            {
                return;
            }
            let mut taken = Vec::new();
            if self.ring.recv_many(self.limit, &mut taken).await == 0 {
                return;
            }
            let placed = match up[..] {
                [only] => vec![(only, taken)],
                _ => self.place(&up, taken),
            };
            for (link, parcels) in placed {
                let messages = self.messages(parcels);
                self.ready.extend(messages.into_iter().map(|message| (link, message)));
            }
        }
    }

    /// Counts what is left, and tells those who wait that its fate is unknown.
    fn abandon(mut self) -> u64 {
        self.ring.close();
        let mut left = 0;
        for (_, message) in self.ready.drain(..) {
            left += message.void();
        }
        while let Ok(parcel) = self.ring.try_recv() {
            left += parcel.selection.len() as u64;
            parcel.ticket.iter().for_each(|ticket| ticket.void());
        }
        left
    }

    /// The links that are up, once some are; `None` when the ring has closed empty meanwhile.
    async fn links_up(&self) -> Option<Vec<usize>> {
        tokio::select! {
            biased;
            up = self.live.some() => return Some(up),
            () = self.closed.cancelled() => {}
        }
        if self.ring.counters().envelopes == 0 { None } else { Some(self.live.some().await) }
    }

    fn messages(&self, parcels: impl IntoIterator<Item = Parcel>) -> Vec<Message> {
        let mut tickets = Vec::new();
        let selections: Vec<Selection> = parcels
            .into_iter()
            .map(|parcel| {
                tickets.extend(parcel.ticket);
                parcel.selection
            })
            .collect();
        let batches = Outgoing::bounded(selections, self.limit.envelopes.get(), self.limit.bytes.get());
        let last = batches.len().saturating_sub(1);
        let tickets = &mut tickets;
        // Messages leave in order: what rides on the last one has left with it.
        let message = |(i, batch)| Message::new(batch, if i == last { std::mem::take(tickets) } else { Vec::new() });
        batches.into_iter().enumerate().map(message).collect()
    }

    /// The parcels by the link that their envelopes go to.
    fn place(&self, up: &[usize], parcels: impl IntoIterator<Item = Parcel>) -> Vec<(usize, Vec<Parcel>)> {
        let addresses: Vec<String> = up.iter().map(|link| self.links[*link].0.to_string()).collect();
        let mut placed: Vec<(usize, Vec<Parcel>)> = up.iter().map(|link| (*link, Vec::new())).collect();
        for parcel in parcels {
            let batch = parcel.selection.batch();
            let doppler = |i: usize| {
                let entry = parcel.selection.entry(i);
                place(&addresses, batch.source_id(entry), batch.instance_id(entry)).unwrap_or(0)
            };
            let dopplers: Vec<usize> = (0..parcel.selection.len()).map(doppler).collect();
            for (at, (_, parcels)) in placed.iter_mut().enumerate() {
                let mut selection = parcel.selection.clone();
                selection.retain(|i| dopplers[i] == at);
                if !selection.is_empty() {
                    parcels.push(Parcel { selection, ticket: parcel.ticket.clone() });
                }
            }
        }
        placed
    }
}
