//! Generates message types and services from the `.proto` files beside this script, without protoc.

use std::path::PathBuf;

use tonic_build::manual::{Builder, Method, Service};

const FILES: [&str; 8] = [
    "loggregator/v2/envelope.proto",
    "loggregator/v2/ingress.proto",
    "loggregator/v2/egress.proto",
    "logcache/v1/logcache.proto",
    "logcache/v1/promql.proto",
    "plumbing/plumbing.proto",
    "events/events.proto",
    "hydrant/v1/hydrant.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut descriptors = protox::compile(FILES, ["proto"])?;

    // Services that move envelopes as bytes are described below.
    for file in &mut descriptors.file {
        match file.package() {
            "loggregator.v2" | "plumbing" => file.service.clear(),
            "hydrant.v1" => file.service.retain(|service| !["Ingress", "Egress"].contains(&service.name())),
            _ => {}
        }
    }
    tonic_prost_build::configure().bytes(".").emit_rerun_if_changed(false).compile_fds(descriptors)?;

    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    for (side, dir) in [(Side::Server, out.join("server")), (Side::Client, out.join("client"))] {
        std::fs::create_dir_all(&dir)?;
        let builder = Builder::new().out_dir(dir);
        let builder = match side {
            Side::Server => builder.build_client(false),
            Side::Client => builder.build_server(false),
        };
        builder.compile(&[
            ingress(side),
            egress(side),
            acknowledged(side),
            subscribe(side),
            pusher(),
            v1_subscriptions(side),
        ]);
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Side {
    Server,
    Client,
}

const WIRE: &str = "crate::codec::Wire";
const OUTGOING: &str = "crate::raw::Outgoing";

fn ingress(side: Side) -> Service {
    let batch = match side {
        Side::Server => WIRE,
        Side::Client => OUTGOING,
    };
    Service::builder()
        .name("Ingress")
        .package("loggregator.v2")
        .method(method("sender", "Sender", WIRE, "crate::v2::IngressResponse").client_streaming().build())
        .method(
            method("batch_sender", "BatchSender", batch, "crate::v2::BatchSenderResponse").client_streaming().build(),
        )
        .method(method("send", "Send", batch, "crate::v2::SendResponse").build())
        .build()
}

fn egress(side: Side) -> Service {
    let batch = match side {
        Side::Server => OUTGOING,
        Side::Client => WIRE,
    };
    Service::builder()
        .name("Egress")
        .package("loggregator.v2")
        .method(method("receiver", "Receiver", "crate::v2::EgressRequest", WIRE).server_streaming().build())
        .method(
            method("batched_receiver", "BatchedReceiver", "crate::v2::EgressBatchRequest", batch)
                .server_streaming()
                .build(),
        )
        .build()
}

fn acknowledged(side: Side) -> Service {
    let frame = match side {
        Side::Server => "crate::hydrant::v1::IngressFrame",
        Side::Client => "crate::raw::OutgoingFrame",
    };
    Service::builder()
        .name("Ingress")
        .package("hydrant.v1")
        .method(
            method("stream", "Stream", frame, "crate::hydrant::v1::IngressAck")
                .client_streaming()
                .server_streaming()
                .build(),
        )
        .build()
}

fn subscribe(side: Side) -> Service {
    let frame = match side {
        Side::Server => "crate::raw::OutgoingSubscribeFrame",
        Side::Client => "crate::hydrant::v1::SubscribeFrame",
    };
    Service::builder()
        .name("Egress")
        .package("hydrant.v1")
        .method(
            method("subscribe", "Subscribe", "crate::hydrant::v1::SubscribeRequest", frame)
                .client_streaming()
                .server_streaming()
                .build(),
        )
        .build()
}

fn pusher() -> Service {
    Service::builder()
        .name("DopplerIngestor")
        .package("plumbing")
        .method(method("pusher", "Pusher", WIRE, "crate::plumbing::PushResponse").client_streaming().build())
        .build()
}

fn v1_subscriptions(side: Side) -> Service {
    // `Response` and `BatchResponse` are one payload, or several, as field 1: what a batch of payloads encodes to.
    let payloads = match side {
        Side::Server => OUTGOING,
        Side::Client => WIRE,
    };
    let request = "crate::plumbing::SubscriptionRequest";
    Service::builder()
        .name("Doppler")
        .package("plumbing")
        .method(method("subscribe", "Subscribe", request, payloads).server_streaming().build())
        .method(method("batch_subscribe", "BatchSubscribe", request, payloads).server_streaming().build())
        .build()
}

fn method(name: &str, route: &str, input: &str, output: &str) -> tonic_build::manual::MethodBuilder {
    Method::builder()
        .name(name)
        .route_name(route)
        .input_type(input)
        .output_type(output)
        .codec_path("crate::codec::Codec")
}
