//! A receiver that is away for long, at 500 lines a second: what is lost is what did not fit, to the line, and delivery goes on at once.
//!
//! `HYDRANT_OUTAGE` sets the seconds of the outage; 20 without it.

use std::time::Duration;

use hydrant_adapters::Buffer;
use tokio::time::{Instant, MissedTickBehavior};

use crate::disk::{listen, nobody};
use crate::support::{Rig, check_laws, line, lines, number};

/// Lines in a tick, and ticks in a second.
const LINES: usize = 10;
const TICKS: u32 = 50;

#[expect(clippy::print_stdout, reason = "a fault test prints its ledger")]
async fn outage(id: &str, buffer: Buffer) {
    let seconds: u32 = std::env::var("HYDRANT_OUTAGE").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let dir = tempfile::tempdir().unwrap();
    let addr = nobody().await;
    let rig = Rig::start(addr, "", |config| {
        config.drains[0].buffer = buffer;
        config.drains[0].disk.keep_free_percent = 0;
        config.state_dir = Some(dir.path().to_owned());
    })
    .await;
    let mut tick = tokio::time::interval(Duration::from_secs(1) / TICKS);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut sent = 0;
    let mut send = async || {
        tick.tick().await;
        rig.send(&lines(sent..sent + LINES)).await;
        sent += LINES;
        sent
    };
    for _ in 0..seconds * TICKS {
        send().await;
    }
    let back = Instant::now();
    let listener = listen(addr).await;
    let (mut stream, mut sent) = (None, 0);
    // The load goes on meanwhile.
    while stream.is_none() {
        tokio::select! {
            accepted = listener.accept() => stream = Some(accepted.unwrap().0),
            now = send() => sent = now,
        }
    }
    let resumed = back.elapsed();
    sent = send().await.max(sent);
    let mut stream = stream.unwrap();
    let (mut unique, mut last) = (0_u64, None);
    while last != Some(sent - 1) {
        let number = line(&mut stream).await.unwrap();
        assert!(last.is_none_or(|last| number > last), "{number} after {last:?}: in order, and none twice");
        (unique, last) = (unique + 1, Some(number));
    }
    let caught_up = back.elapsed();
    let lost = number(&rig.telemetry, "hydrant_dropped_envelopes_total{stage=\"drain\",reason=\"queue_full\"}");
    println!(
        "{{\"id\":\"{id}\",\"outage_s\":{seconds},\"rate\":{},\"issued\":{sent},\"unique\":{unique},\"duplicates\":0,\"queue_full\":{lost},\
         \"residual\":{},\"resumed_ms\":{},\"caught_up_ms\":{}}}",
        LINES as u32 * TICKS,
        sent as u64 - unique - lost,
        resumed.as_millis(),
        caught_up.as_millis()
    );
    assert_eq!(sent as u64, unique + lost, "every line is accounted for");
    assert!(resumed < Duration::from_secs(2), "it went on after {resumed:?}");
    match buffer {
        Buffer::Memory => assert!(unique >= 10_000.min(sent as u64), "the ring was full of lines"),
        Buffer::Disk => assert_eq!(lost, 0, "all were on disk"),
    }
    drop(stream);
    let (_, telemetry) = rig.shutdown().await;
    if buffer == Buffer::Memory {
        check_laws(&telemetry);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f29_in_memory_exactly_what_does_not_fit_is_lost() {
    outage("F29", Buffer::Memory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f30_on_disk_nothing_is_lost() {
    outage("F30", Buffer::Disk).await;
}
