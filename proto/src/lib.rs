//! The wire contract of hydrant: message types, the byte-level envelope walker and the pure rules both ends of a link must agree on.
//!
//! Envelopes travel as bytes. [`raw`] finds them in what arrived and tells what routing needs, without decoding; the generated
//! types serve the edges that must understand content.
//!
//! *Invariant*: nothing here does I/O, and nothing here panics on any input.

pub mod codec;
pub mod decimal;
pub mod envelope;
pub mod json;
pub mod jump;
pub mod loss;
pub mod placement;
pub mod raw;
pub mod reason;
pub mod rfc3339;
pub mod selector;
pub mod start;
pub mod subject;
pub mod subscribe;
pub mod v1;

pub use loggregator::v2;

/// `loggregator`, by version.
pub mod loggregator {
    /// `loggregator.v2`: what every hop carries. Services move envelopes as bytes, see [`crate::codec`].
    #[expect(missing_docs, clippy::allow_attributes_without_reason, reason = "generated from the .proto files")]
    pub mod v2 {
        tonic::include_proto!("loggregator.v2");

        include!(concat!(env!("OUT_DIR"), "/server/loggregator.v2.Ingress.rs"));
        include!(concat!(env!("OUT_DIR"), "/server/loggregator.v2.Egress.rs"));
        include!(concat!(env!("OUT_DIR"), "/client/loggregator.v2.Ingress.rs"));
        include!(concat!(env!("OUT_DIR"), "/client/loggregator.v2.Egress.rs"));
    }
}

/// `logcache`, by version.
pub mod logcache {
    /// `logcache.v1`: recent envelopes, kept and read back.
    #[expect(missing_docs, clippy::allow_attributes_without_reason, reason = "generated from the .proto files")]
    pub mod v1 {
        tonic::include_proto!("logcache.v1");
    }
}

/// `hydrant`, by version.
pub mod hydrant {
    /// `hydrant.v1`: what hydrant's own roles say to each other.
    #[expect(missing_docs, clippy::allow_attributes_without_reason, reason = "generated from the .proto files")]
    pub mod v1 {
        tonic::include_proto!("hydrant.v1");

        include!(concat!(env!("OUT_DIR"), "/server/hydrant.v1.Ingress.rs"));
        include!(concat!(env!("OUT_DIR"), "/server/hydrant.v1.Egress.rs"));
        include!(concat!(env!("OUT_DIR"), "/client/hydrant.v1.Ingress.rs"));
        include!(concat!(env!("OUT_DIR"), "/client/hydrant.v1.Egress.rs"));
    }
}

/// `events`: dropsonde v1, what firehose and app-stream clients decode.
#[expect(missing_docs, reason = "generated from the .proto files")]
pub mod events {
    tonic::include_proto!("events");
}

/// `plumbing`: the v1 transport.
#[expect(missing_docs, clippy::allow_attributes_without_reason, reason = "generated from the .proto files")]
pub mod plumbing {
    tonic::include_proto!("plumbing");

    include!(concat!(env!("OUT_DIR"), "/server/plumbing.DopplerIngestor.rs"));
    include!(concat!(env!("OUT_DIR"), "/server/plumbing.Doppler.rs"));
    include!(concat!(env!("OUT_DIR"), "/client/plumbing.DopplerIngestor.rs"));
    include!(concat!(env!("OUT_DIR"), "/client/plumbing.Doppler.rs"));
}
