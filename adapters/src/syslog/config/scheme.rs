//! How a drain speaks to its destination.

use std::fmt;

/// The ports that a URL may leave out.
const HTTPS: u16 = 443;
const HTTP: u16 = 80;
/// That of NATS.
const NATS: u16 = 4222;
/// Those of OTLP, over gRPC and over HTTP.
const OTLP: (u16, u16) = (4317, 4318);

/// How lines travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Over TCP, each with its length before it (RFC 6587 octet counting).
    Syslog,
    /// The same over TLS.
    SyslogTls,
    /// Over UDP, each line a datagram (RFC 5426).
    SyslogUdp,
    /// Each line the body of a POST over HTTPS.
    Https,
    /// Many lines, one after the other, the body of a POST over HTTPS.
    HttpsBatch,
    /// No lines: metrics, as Prometheus takes them by remote-write, over HTTP.
    RemoteWriteHttp,
    /// The same over HTTPS.
    RemoteWriteHttps,
    /// No lines: metrics and logs to the intakes of a site of Datadog, over HTTPS.
    Datadog,
    /// The same to one address, over HTTP.
    DatadogHttp,
    /// And over HTTPS.
    DatadogHttps,
    /// No lines: logs, metrics and spans to an OpenTelemetry collector, over gRPC.
    OtlpGrpc,
    /// The same over TLS.
    OtlpGrpcs,
    /// The same as the bodies of POSTs over HTTP.
    OtlpHttp,
    /// And over HTTPS.
    OtlpHttps,
    /// No lines: a page of metrics, at this address, for Prometheus to scrape.
    Prometheus,
    /// No lines: messages of a stream of NATS JetStream, each an envelope.
    Nats,
    /// The same over TLS.
    NatsTls,
}

impl Scheme {
    /// Requests, and not lines one after the other.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Https | Self::HttpsBatch) || self.is_remote_write() || self.is_datadog() || self.is_otlp()
    }

    /// Requests to an OpenTelemetry collector.
    pub fn is_otlp(self) -> bool {
        matches!(self, Self::OtlpGrpc | Self::OtlpGrpcs | Self::OtlpHttp | Self::OtlpHttps)
    }

    /// Requests over gRPC.
    pub fn is_grpc(self) -> bool {
        matches!(self, Self::OtlpGrpc | Self::OtlpGrpcs)
    }

    /// Requests to Datadog.
    pub fn is_datadog(self) -> bool {
        matches!(self, Self::Datadog | Self::DatadogHttp | Self::DatadogHttps)
    }

    /// Requests of metrics.
    pub fn is_remote_write(self) -> bool {
        matches!(self, Self::RemoteWriteHttp | Self::RemoteWriteHttps)
    }

    /// Envelopes leave as syslog messages.
    pub fn has_lines(self) -> bool {
        !self.is_remote_write() && !self.is_datadog() && !self.is_otlp() && !self.is_nats() && self != Self::Prometheus
    }

    /// Messages of a stream of NATS.
    pub fn is_nats(self) -> bool {
        matches!(self, Self::Nats | Self::NatsTls)
    }

    /// An app's owner may choose it (contract: syslog drains §2). Not datagrams, which name any machine as their sender; not what listens
    /// here, or speaks for the operator.
    pub fn is_for_apps(self) -> bool {
        matches!(self, Self::Syslog | Self::SyslogTls | Self::Https | Self::HttpsBatch)
    }

    /// Many lines go into one request.
    pub fn gathers(self) -> bool {
        self == Self::HttpsBatch
    }

    /// Over TLS.
    pub fn is_tls(self) -> bool {
        if matches!(self, Self::OtlpGrpcs | Self::OtlpHttps) {
            return true;
        }
        matches!(
            self,
            Self::SyslogTls
                | Self::Https
                | Self::HttpsBatch
                | Self::RemoteWriteHttps
                | Self::Datadog
                | Self::DatadogHttps
                | Self::NatsTls
        )
    }

    /// The port that receivers usually have; for requests the default.
    pub(super) fn usual_port(self) -> u16 {
        match self {
            Self::Syslog | Self::SyslogUdp => 514,
            Self::SyslogTls => 6514,
            Self::Https | Self::HttpsBatch | Self::RemoteWriteHttps | Self::Datadog | Self::DatadogHttps => HTTPS,
            Self::RemoteWriteHttp | Self::DatadogHttp => HTTP,
            Self::Prometheus => 9186,
            Self::OtlpGrpc | Self::OtlpGrpcs => OTLP.0,
            Self::OtlpHttp | Self::OtlpHttps => OTLP.1,
            Self::Nats | Self::NatsTls => NATS,
        }
    }
}

/// As in a URL.
impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syslog => "syslog",
            Self::SyslogTls => "syslog-tls",
            Self::SyslogUdp => "syslog-udp",
            Self::Https => "https",
            Self::HttpsBatch => "https-batch",
            Self::RemoteWriteHttp => "remote-write+http",
            Self::RemoteWriteHttps => "remote-write+https",
            Self::Datadog => "datadog",
            Self::DatadogHttp => "datadog+http",
            Self::DatadogHttps => "datadog+https",
            Self::Prometheus => "prometheus",
            Self::OtlpGrpc => "otlp+grpc",
            Self::OtlpGrpcs => "otlp+grpcs",
            Self::OtlpHttp => "otlp+http",
            Self::OtlpHttps => "otlp+https",
            Self::Nats => "nats",
            Self::NatsTls => "nats-tls",
        })
    }
}
