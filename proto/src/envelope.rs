//! Constructors and accessors on [`v2::Envelope`], for the edges that make or read whole envelopes.

use bytes::Bytes;

use crate::v2;
use crate::v2::envelope::Message;

impl v2::Envelope {
    /// A log line to standard output. Its timestamp is 0 until [`v2::Envelope::at`] sets it.
    pub fn log(source_id: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        let log = v2::Log { payload: payload.into(), r#type: v2::log::Type::Out.into() };
        Self::new(source_id, Message::Log(log))
    }

    /// A counter's step.
    pub fn counter(source_id: impl Into<String>, name: impl Into<String>, delta: u64) -> Self {
        Self::new(source_id, Message::Counter(v2::Counter { name: name.into(), delta, total: 0 }))
    }

    /// One gauge.
    pub fn gauge(source_id: impl Into<String>, name: impl Into<String>, value: f64, unit: impl Into<String>) -> Self {
        let metrics = [(name.into(), v2::GaugeValue { unit: unit.into(), value })].into();
        Self::new(source_id, Message::Gauge(v2::Gauge { metrics }))
    }

    /// A timer; `start` and `stop` are nanoseconds since the Unix epoch.
    pub fn timer(source_id: impl Into<String>, name: impl Into<String>, start: i64, stop: i64) -> Self {
        Self::new(source_id, Message::Timer(v2::Timer { name: name.into(), start, stop }))
    }

    /// An event.
    pub fn event(source_id: impl Into<String>, title: impl Into<String>, body: impl Into<String>) -> Self {
        Self::new(source_id, Message::Event(v2::Event { title: title.into(), body: body.into() }))
    }

    fn new(source_id: impl Into<String>, message: Message) -> Self {
        Self { source_id: source_id.into(), message: Some(message), ..Self::default() }
    }

    /// Sets the timestamp, nanoseconds since the Unix epoch.
    #[must_use]
    pub fn at(mut self, timestamp: i64) -> Self {
        self.timestamp = timestamp;
        self
    }

    /// Sets the instance.
    #[must_use]
    pub fn instance(mut self, instance_id: impl Into<String>) -> Self {
        self.instance_id = instance_id.into();
        self
    }

    /// Sets a tag.
    #[must_use]
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.insert(key.into(), value.into());
        self
    }

    /// Makes a log line one to standard error; leaves other kinds as they are.
    #[must_use]
    pub fn err(mut self) -> Self {
        if let Some(Message::Log(log)) = &mut self.message {
            log.r#type = v2::log::Type::Err.into();
        }
        self
    }

    /// The payload of a log line; empty for other kinds.
    pub fn payload(&self) -> &[u8] {
        match &self.message {
            Some(Message::Log(log)) => &log.payload,
            _ => &[],
        }
    }
}
