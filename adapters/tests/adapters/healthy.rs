//! A receiver that reads: every line once and in order, whatever becomes of the dopplers.

use proto::v2;
use tokio::io::BufReader;

use crate::support::{Rig, check_laws, frame, line, lines, number, receiver, send};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_lines_arrive_once_and_in_order() {
    const LINES: usize = 50_000;
    // Fewer than the ring holds may be on their way at once.
    const AHEAD: usize = 4_000;
    let (listener, addr) = receiver().await;
    let rig = Rig::start(addr, "", |_| {}).await;
    rig.send(&lines(0..100)).await;
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = BufReader::new(stream);
    let mut sent = 100;
    for expected in 0..LINES {
        while sent < LINES && sent < expected + AHEAD {
            rig.send(&lines(sent..sent + 100)).await;
            sent += 100;
        }
        assert_eq!(line(&mut stream).await, Some(expected));
    }
    let stopping = rig.shutdown();
    let (rest, (drained, telemetry)) = tokio::join!(
        async {
            let rest = frame(&mut stream).await;
            drop(stream);
            rest
        },
        stopping
    );
    assert_eq!(rest, None, "nothing comes twice");
    assert_eq!(drained.dropped, 0);
    assert_eq!(number(&telemetry, "hydrant_delivered_envelopes_total{stage=\"drain\"}"), LINES as u64);
    assert_eq!(number(&telemetry, "hydrant_link_confirmed_total{link=\"drain\"}"), LINES as u64);
    assert_eq!(number(&telemetry, "hydrant_drain_connects_total"), 1);
    check_laws(&telemetry);
}

#[tokio::test]
async fn a_stop_delivers_what_waits() {
    let (listener, addr) = receiver().await;
    let rig = Rig::start(addr, "", |_| {}).await;
    rig.send(&lines(0..3000)).await;
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = BufReader::new(stream);
    assert_eq!(line(&mut stream).await, Some(0));
    let read = async {
        let mut received = 1;
        while let Some(number) = line(&mut stream).await {
            assert_eq!(number, received);
            received += 1;
        }
        drop(stream);
        received
    };
    let (received, (drained, telemetry)) = tokio::join!(read, rig.shutdown());
    assert_eq!(received, 3000);
    assert_eq!(drained.dropped, 0);
    assert_eq!(number(&telemetry, "hydrant_link_uncertain_total{link=\"drain\"}"), 0);
    check_laws(&telemetry);
}

#[tokio::test]
async fn a_subscription_asks_for_the_drains_sources_and_kinds_and_comes_back() {
    let (listener, addr) = receiver().await;
    let adjust = |config: &mut hydrant_adapters::Config| config.drains[0].sources = vec!["app".to_owned()];
    let mut rig = Rig::start(addr, "?drain-data=metrics", adjust).await;
    assert_eq!(rig.request.shard_id, "hydrant-drain-test");
    assert!(rig.request.use_preferred_tags);
    let asked: Vec<_> =
        rig.request.selectors.iter().map(|selector| (selector.source_id.as_str(), selector.message.clone())).collect();
    let counter = Some(v2::selector::Message::Counter(v2::CounterSelector::default()));
    let gauge = Some(v2::selector::Message::Gauge(v2::GaugeSelector::default()));
    assert_eq!(asked, [("app", counter), ("app", gauge)]);

    rig.send(&[v2::Envelope::counter("app", "first", 1)]).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    assert!(frame(&mut stream).await.unwrap().contains("name=\"first\""));
    // The doppler ends the stream: the next one carries on, over the same connection to the receiver.
    let (closed, _) = tokio::sync::mpsc::channel(1);
    drop(std::mem::replace(rig.sender(), closed));
    let (request, to_drain) = rig.subscriptions.recv().await.unwrap();
    assert_eq!(request, rig.request);
    send(&to_drain, &[v2::Envelope::counter("app", "second", 1)]).await;
    assert!(frame(&mut stream).await.unwrap().contains("name=\"second\""));
}

#[tokio::test]
async fn what_has_no_line_is_counted_and_holds_nobody_up() {
    let (listener, addr) = receiver().await;
    let mut rig = Rig::start(addr, "", |config| config.drains[0].sources = vec!["app".to_owned()]).await;
    let bad = v2::Envelope::log("app", "never").tag("bad key", "v");
    let left_out = v2::Envelope::counter("app", "n", 1);
    let mut batch = lines(0..2);
    batch.insert(1, bad);
    batch.insert(1, left_out);
    rig.send(&batch).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    assert_eq!((line(&mut stream).await, line(&mut stream).await), (Some(0), Some(1)));
    let notice = rig.notices.recv().await.unwrap();
    let text = format!(
        "1 messages lost for application app in user provided syslog drain with url syslog://{addr} (convert_error 1)"
    );
    assert_eq!(notice.payload(), text.as_bytes());
    drop(stream);
    let (_, telemetry) = rig.shutdown().await;
    assert_eq!(number(&telemetry, "hydrant_dropped_envelopes_total{stage=\"drain\",reason=\"convert_error\"}"), 1);
    assert_eq!(number(&telemetry, "hydrant_drain_filtered_envelopes_total"), 1);
    check_laws(&telemetry);
}
