//! Starting and stopping.

use proto::v2;
use telemetry::Telemetry;
use tonic::Code;
use traffic_controller::{BindError, Config};

use crate::doppler::Doppler;
use crate::http::ask;
use crate::rlp::{all_logs, client, payloads};

#[tokio::test]
async fn a_stop_sends_what_is_left_and_ends_streams_with_ok() {
    let mut doppler = Doppler::start();
    let server = Config::for_test().dopplers([doppler.addr]).bind(&Telemetry::default()).await.unwrap();
    let readiness = server.readiness();
    assert!(!readiness.is_ready());
    let controller = server.spawn();
    let mut received = client(controller.addrs().grpc).batched_receiver(all_logs()).await.unwrap().into_inner();
    let single = v2::EgressRequest { selectors: all_logs().selectors, ..Default::default() };
    let mut idle = client(controller.addrs().grpc).receiver(single).await.unwrap().into_inner();
    let stream = doppler.stream().await;
    assert!(readiness.is_ready());

    let many: Vec<_> = (0..450).map(|i| v2::Envelope::log("a", i.to_string())).collect();
    stream.send(&many).await;
    // The first message tells that all of the doppler's batch have arrived.
    let mut got = payloads(&mut received, 1).await;
    let (drained, ()) = tokio::join!(controller.shutdown(), async {
        got.extend(payloads(&mut received, 450 - got.len()).await);
        assert!(received.message().await.expect("OK").is_none());
        assert!(idle.message().await.expect("OK").is_none());
    });
    assert_eq!(got, (0..450).map(|i: usize| i.to_string()).collect::<Vec<_>>());
    assert_eq!(drained.unwrap().dropped, 0);
    assert!(!readiness.is_ready());
    stream.closed().await;
}

#[tokio::test]
async fn nobody_is_served_after_a_stop() {
    let controller = Config::for_test().bind(&Telemetry::default()).await.unwrap().spawn();
    let addr = controller.addrs().grpc;
    controller.shutdown().await.unwrap();
    assert_eq!(client(addr).batched_receiver(all_logs()).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn the_admin_port_tells_how_it_is() {
    let controller = Config::for_test().bind(&Telemetry::default()).await.unwrap().spawn();
    let addr = controller.addrs().admin;
    assert!(ask(addr, "GET", "/live", &[]).await.starts_with("HTTP/1.1 200 "));
    assert!(ask(addr, "GET", "/ready", &[]).await.starts_with("HTTP/1.1 200 "));
    let metrics = ask(addr, "GET", "/metrics", &[]).await;
    for name in ["hydrant_queue_offered_total", "hydrant_slow_consumers_total", "hydrant_connections_open"] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
}

#[tokio::test]
async fn ports_that_others_reach_are_refused_with_what_to_do() {
    let outside = "0.0.0.0:0".parse().unwrap();
    let error = async |config: Config| match config.bind(&Telemetry::default()).await {
        Ok(_) => panic!("it must not bind"),
        Err(error) => error,
    };
    let mut config = Config::for_test();
    config.http.listen = outside;
    let text = error(config).await.to_string();
    assert!(text.starts_with("traffic_controller.http.listen: 0.0.0.0:0 can be reached from other machines"), "{text}");
    assert!(text.contains("listen on 127.0.0.1"), "{text}");

    let mut config = Config::for_test();
    config.rest.listen = outside;
    assert!(matches!(error(config).await, BindError::Unauthenticated { key: "traffic_controller.rest.listen", .. }));

    let mut config = Config::for_test();
    config.grpc.listen = outside;
    let text = error(config).await.to_string();
    assert!(text.contains("set traffic_controller.grpc.tls"), "{text}");
}

#[tokio::test]
async fn a_busy_port_is_named() {
    let taken = Config::for_test().bind(&Telemetry::default()).await.unwrap();
    let mut config = Config::for_test();
    config.grpc.listen = taken.addrs().grpc;
    let Err(error) = config.bind(&Telemetry::default()).await else { panic!("it must not bind") };
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("traffic_controller.grpc.listen: {} is already in use", taken.addrs().grpc)),
        "{text}"
    );
}
