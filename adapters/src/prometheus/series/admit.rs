//! How a series comes to be: what it is called, whether there is room for it, and how it goes.
//!
//! The parts of an envelope whose series is not known enter; the number of a series leaves, or the reason why there is none. The same
//! reason is given to later envelopes alike, without a second look, until series end.

use std::sync::Arc;

use proto::reason::Reason;

use super::http::{Form, Http, Request};
use super::{Options, Series, Store, Type, Value};
use crate::prometheus::labels::{Builder, Labels};
use crate::prometheus::names::{Naming, Purpose};
use crate::read::{Envelope, is_unbounded, stable_hash};

/// Marks in place of a series: there is no room for it, or no name.
const NO_ROOM: u32 = u32::MAX;
const NO_NAME: u32 = u32::MAX - 1;

/// What does not change while a store lives.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) naming: Naming,
    pub(super) http: Option<Http>,
    pub(super) node_index: Arc<str>,
    namespace: String,
    environment: String,
}

/// A series to be.
pub(super) struct Wanted<'a> {
    name: String,
    of: Type,
    help: &'static str,
    labels: Labels,
    source_id: &'a [u8],
    rolled_up: bool,
}

impl Context {
    pub(super) fn new(options: &Options) -> Self {
        let namespace = options.namespace.as_deref().unwrap_or(options.naming.default_namespace());
        Self {
            naming: options.naming,
            http: options.http,
            node_index: options.http.unwrap_or_default().node_index.to_string().into(),
            namespace: namespace.to_owned(),
            environment: options.environment.clone(),
        }
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The labels of series that are about nobody.
    pub(super) fn own_labels(&self) -> Labels {
        let mut labels = Builder::default();
        labels.own("environment", self.environment.as_bytes());
        labels.build()
    }

    /// A counter, gauge or timer. `None` if it has no name.
    pub(super) fn metric<'a>(
        &self,
        envelope: &Envelope<'a>,
        purpose: Purpose,
        name: &[u8],
        unit: &[u8],
    ) -> Option<Wanted<'a>> {
        let (name, origin) = (String::from_utf8_lossy(name), String::from_utf8_lossy(envelope.tag("origin")));
        let of = match purpose {
            Purpose::Counter | Purpose::Delta => Type::Counter,
            Purpose::Gauge => Type::Gauge,
            Purpose::Timer => Type::Histogram,
        };
        let mut tags: Vec<_> = envelope.tags().collect();
        if purpose == Purpose::Timer {
            tags.retain(|(key, _)| !is_unbounded(key));
        }
        let mut labels = Builder::default();
        labels.own("source_id", envelope.source_id);
        labels.own("instance_id", envelope.instance_id);
        labels.own("unit", unit);
        labels.own("environment", self.environment.as_bytes());
        labels.tags(&tags, self.naming, reserved(of));
        Some(Wanted {
            name: self.naming.metric(purpose, &self.namespace, &name, &origin)?,
            of,
            help: self.naming.help(purpose, &name),
            labels: labels.build(),
            source_id: envelope.source_id,
            rolled_up: purpose == Purpose::Timer,
        })
    }

    /// A series of requests.
    pub(super) fn request<'a>(&self, request: &Request<'_, '_>, envelope: &Envelope<'a>, form: &Form) -> Wanted<'a> {
        let mut labels = Builder::default();
        request.put_labels(form, &mut labels);
        labels.own("environment", self.environment.as_bytes());
        let below = if self.namespace.is_empty() { "" } else { "_" };
        Wanted {
            name: format!("{}{below}{}", self.namespace, form.name),
            of: form.of,
            help: form.help,
            labels: labels.build(),
            source_id: envelope.source_id,
            rolled_up: true,
        }
    }
}

/// Labels that Prometheus gives to samples of this type.
fn reserved(of: Type) -> &'static [&'static str] {
    match of {
        Type::Counter | Type::Gauge => &[],
        Type::Histogram => &["le"],
        Type::Summary => &["quantile"],
    }
}

impl Store {
    /// The series with this identity, which `make` says how to make.
    pub(super) fn slot<'a>(
        &mut self,
        identity: u64,
        make: impl FnOnce(&Context) -> Option<Wanted<'a>>,
    ) -> Result<u32, Reason> {
        match self.known.get(&identity) {
            Some(&NO_ROOM) => return Err(Reason::Cardinality),
            Some(&NO_NAME) => return Err(Reason::ConvertError),
            Some(&slot) => return Ok(slot),
            None => {}
        }
        let admitted = make(&self.context).ok_or(Reason::ConvertError).and_then(|wanted| self.admit(wanted));
        if self.known.len() >= 2 * self.limits.series + 1024 {
            self.known.clear();
        }
        let mark = match admitted {
            Ok(slot) => slot,
            Err(Reason::Cardinality) => NO_ROOM,
            Err(_) => NO_NAME,
        };
        self.known.insert(identity, mark);
        admitted
    }

    fn admit(&mut self, wanted: Wanted<'_>) -> Result<u32, Reason> {
        let Wanted { name, of, help, labels, source_id, rolled_up } = wanted;
        let family = self.families.enter(&name, of, help).ok_or(Reason::ConvertError)?;
        let hash = stable_hash(family.name(), labels.packed());
        let same = |slot: &u32| {
            let series = self.slots[*slot as usize].as_ref();
            series.is_some_and(|series| series.family.id == family.id && *series.labels == labels)
        };
        if let Some(slot) = self.by_labels.find(hash, same) {
            return Ok(*slot);
        }
        let source = std::hash::BuildHasher::hash_one(&self.hashes, source_id);
        let of_source = self.by_source.get(&(family.id, source)).copied().unwrap_or_default();
        let (width, bytes) = (of.width(), labels.packed().len());
        let limits = &self.limits;
        if self.series + width > limits.series
            || of_source + width > limits.series_per_source
            || self.label_bytes + bytes > limits.label_bytes
        {
            self.families.settle(family.id);
            self.offenders.record(&name, source_id);
            return Err(Reason::Cardinality);
        }
        self.series += width;
        self.label_bytes += bytes;
        *self.by_source.entry((family.id, source)).or_default() += width;
        self.families.add(family.id);
        let (labels, value) = (Arc::new(labels), Value::new(of));
        let series = Series { family, labels, value, timestamp: i64::MIN, hash, rolled_up, updated: i64::MIN, source };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        self.slots[slot as usize] = Some(series);
        let slots = &self.slots;
        self.by_labels.insert_unique(hash, slot, |slot| slots[*slot as usize].as_ref().map_or(0, |series| series.hash));
        Ok(slot)
    }

    /// Undoes [`Store::admit`] for a series that has been taken out of its slot.
    pub(super) fn forget(&mut self, slot: u32, series: &Series) {
        let width = series.family.of().width();
        self.series -= width;
        self.label_bytes -= series.labels.packed().len();
        let key = (series.family.id, series.source);
        if let Some(of_source) = self.by_source.get_mut(&key) {
            *of_source -= width;
            if *of_source == 0 {
                self.by_source.remove(&key);
            }
        }
        self.families.leave(series.family.id);
        if let Ok(found) = self.by_labels.find_entry(series.hash, |other| *other == slot) {
            found.remove();
        }
        self.free.push(slot);
    }
}
