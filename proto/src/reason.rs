//! Why an envelope was dropped: the closed list that every count, metric label and notice uses.

/// Why an envelope did not go on. The names are the `reason` label of `hydrant_dropped_envelopes_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Not well-formed on the wire, or text that is not UTF-8.
    DecodeError,
    /// Larger than a limit.
    Oversize,
    /// More parts than a limit allows.
    TooMany,
    /// The sender may not send this.
    Unauthorised,
    /// Over its source's rate limit.
    RateLimited,
    /// No such source.
    UnknownSource,
    /// The kernel's receive buffer was full.
    KernelRcvbuf,
    /// A ring was full and this was its loudest source's oldest envelope.
    QueueFull,
    /// The process was near its memory budget.
    MemoryPressure,
    /// Waited too long.
    Expired,
    /// Its consumer did not read.
    SlowConsumer,
    /// Nobody to send it to.
    NoRoute,
    /// The peer went away with it.
    PeerLost,
    /// Every retry failed.
    RetryExhausted,
    /// The destination refused it for good.
    RejectedPermanent,
    /// No room on disk.
    DiskFull,
    /// Damaged on disk.
    DiskCorrupt,
    /// Has no form in the destination's format.
    ConvertError,
    /// The stop took longer than its grace.
    ShutdownDeadline,
    /// Too many distinct series.
    Cardinality,
}

impl Reason {
    /// Every reason, in declaration order.
    pub const ALL: [Reason; 20] = [
        Reason::DecodeError,
        Reason::Oversize,
        Reason::TooMany,
        Reason::Unauthorised,
        Reason::RateLimited,
        Reason::UnknownSource,
        Reason::KernelRcvbuf,
        Reason::QueueFull,
        Reason::MemoryPressure,
        Reason::Expired,
        Reason::SlowConsumer,
        Reason::NoRoute,
        Reason::PeerLost,
        Reason::RetryExhausted,
        Reason::RejectedPermanent,
        Reason::DiskFull,
        Reason::DiskCorrupt,
        Reason::ConvertError,
        Reason::ShutdownDeadline,
        Reason::Cardinality,
    ];

    /// The reason as metrics, logs and the wire spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::DecodeError => "decode_error",
            Reason::Oversize => "oversize",
            Reason::TooMany => "too_many",
            Reason::Unauthorised => "unauthorised",
            Reason::RateLimited => "rate_limited",
            Reason::UnknownSource => "unknown_source",
            Reason::KernelRcvbuf => "kernel_rcvbuf",
            Reason::QueueFull => "queue_full",
            Reason::MemoryPressure => "memory_pressure",
            Reason::Expired => "expired",
            Reason::SlowConsumer => "slow_consumer",
            Reason::NoRoute => "no_route",
            Reason::PeerLost => "peer_lost",
            Reason::RetryExhausted => "retry_exhausted",
            Reason::RejectedPermanent => "rejected_permanent",
            Reason::DiskFull => "disk_full",
            Reason::DiskCorrupt => "disk_corrupt",
            Reason::ConvertError => "convert_error",
            Reason::ShutdownDeadline => "shutdown_deadline",
            Reason::Cardinality => "cardinality",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
