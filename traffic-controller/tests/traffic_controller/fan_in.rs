//! One consumer and several dopplers, which come and go.

use proto::v2;
use telemetry::Telemetry;
use tonic::Status;
use traffic_controller::Config;

use crate::doppler::Doppler;
use crate::rlp::{all_logs, client, payloads};

#[tokio::test]
async fn a_doppler_that_dies_and_returns_disturbs_nobody() {
    let (mut steady, mut mortal) = (Doppler::start(), Doppler::start());
    let config = Config::for_test().dopplers([steady.addr, mortal.addr]);
    let controller = config.bind(&Telemetry::default()).await.unwrap().spawn();
    let mut received = client(controller.addrs().grpc).batched_receiver(all_logs()).await.unwrap().into_inner();
    let (from_steady, from_mortal) = (steady.stream().await, mortal.stream().await);
    assert_eq!(from_steady.request, from_mortal.request);

    from_steady.send(&[v2::Envelope::log("a", "steady")]).await;
    assert_eq!(payloads(&mut received, 1).await, ["steady"]);
    from_mortal.send(&[v2::Envelope::log("a", "mortal")]).await;
    assert_eq!(payloads(&mut received, 1).await, ["mortal"]);

    drop(from_mortal);
    let addr = mortal.die().await;
    for i in 0..50 {
        from_steady.send(&[v2::Envelope::log("a", i.to_string())]).await;
        assert_eq!(payloads(&mut received, 1).await, [i.to_string()]);
    }

    let mut risen = Doppler::start_on(addr);
    risen.stream().await.send(&[v2::Envelope::log("a", "risen")]).await;
    assert_eq!(payloads(&mut received, 1).await, ["risen"]);
    from_steady.send(&[v2::Envelope::log("a", "steady")]).await;
    assert_eq!(payloads(&mut received, 1).await, ["steady"]);
}

#[tokio::test]
async fn a_stream_that_fails_is_opened_again_with_the_same_request() {
    let mut doppler = Doppler::start();
    let controller = Config::for_test().dopplers([doppler.addr]).bind(&Telemetry::default()).await.unwrap().spawn();
    let mut received = client(controller.addrs().grpc).batched_receiver(all_logs()).await.unwrap().into_inner();
    let first = doppler.stream().await;
    let request = first.request.clone();
    first.fail(Status::internal("broken")).await;
    let second = doppler.stream().await;
    assert_eq!(second.request, request);
    second.send(&[v2::Envelope::log("a", "again")]).await;
    assert_eq!(payloads(&mut received, 1).await, ["again"]);
}

#[tokio::test]
async fn a_consumer_waits_for_a_doppler_that_is_not_there_yet() {
    let addr = Doppler::start().die().await;
    let controller = Config::for_test().dopplers([addr]).bind(&Telemetry::default()).await.unwrap().spawn();
    let mut received = client(controller.addrs().grpc).batched_receiver(all_logs()).await.unwrap().into_inner();
    let mut doppler = Doppler::start_on(addr);
    doppler.stream().await.send(&[v2::Envelope::log("a", "at last")]).await;
    assert_eq!(payloads(&mut received, 1).await, ["at last"]);
}
