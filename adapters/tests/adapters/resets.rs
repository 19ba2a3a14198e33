//! F34: the receiver's end of the connection is reset after any number of bytes, a thousand times in all.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use proto::v2;
use tokio::io::{AsyncReadExt, BufReader};
use tokio::time::Instant;

use crate::support::{Rig, check_laws, line, number, receiver, reset};

/// Drains side by side, so that their waits pass together.
const DRAINS: u64 = 20;
const RESETS_EACH: usize = 50;
/// More bytes than all connections that are reset can carry, and few enough for the ring.
const LINES: usize = 4_000;
const PADDING: usize = 1_000;
/// A connection is reset before it has carried this much.
const LONGEST: usize = 60_000;

/// What became of the lines of one drain.
#[derive(Default)]
struct Seen {
    unique: BTreeSet<usize>,
    duplicates: u64,
}

impl Seen {
    fn note(&mut self, line: usize) {
        if !self.unique.insert(line) {
            self.duplicates += 1;
        }
    }
}

/// A small generator of numbers, so that a failure can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn padded(range: std::ops::Range<usize>) -> Vec<v2::Envelope> {
    let text = "x".repeat(PADDING);
    range.map(|i| v2::Envelope::log("app", format!("{text} {i}"))).collect()
}

/// One drain through all of its resets; returns what was seen, what was written again, and what is uncertain.
async fn torment(seed: u64, resend: bool) -> (Seen, u64, u64) {
    let mut random = Random(seed);
    let (listener, addr) = receiver().await;
    let rig = Rig::start(addr, "", |config| config.drains[0].resend = resend).await;
    for start in (0..LINES).step_by(100) {
        rig.send(&padded(start..start + 100)).await;
    }
    let mut seen = Seen::default();
    let mut buffer = vec![0; LONGEST];
    for again in 0..RESETS_EACH {
        let (mut stream, _) = listener.accept().await.unwrap();
        let wanted = random.below(LONGEST as u64) as usize;
        let read = &mut buffer[..wanted];
        let got = match wanted {
            0 => 0,
            _ if resend => stream.read_exact(read).await.unwrap(),
            // What earlier resets cost does not come again: there may be less to read than wanted.
            _ => stream.read(read).await.unwrap(),
        };
        let mut some = &read[..got];
        while let Some(line) = line(&mut some).await {
            seen.note(line);
        }
        reset(stream);
        // Something to say, so that the drain comes again when the rest is gone.
        rig.send(&padded(LINES + again..LINES + again + 1)).await;
    }
    let last = LINES + RESETS_EACH;
    rig.send(&padded(last..last + 1)).await;
    let mut stream = BufReader::new(listener.accept().await.unwrap().0);
    while !seen.unique.contains(&last) {
        seen.note(line(&mut stream).await.unwrap());
    }
    drop((stream, listener));
    let (drained, telemetry) = rig.shutdown().await;
    assert_eq!(drained.dropped, 0, "seed {seed}");
    check_laws(&telemetry);
    let link = |name: &str| number(&telemetry, &format!("hydrant_link_{name}_total{{link=\"drain\"}}"));
    (seen, link("requeued"), link("uncertain"))
}

#[tokio::test(flavor = "multi_thread")]
async fn f34_a_thousand_resets_at_any_byte_lose_nothing_or_what_is_counted_uncertain() {
    let seed = std::env::var("HYDRANT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(34_u64);
    let began = Instant::now();
    let all = (0..DRAINS).map(|i| {
        let resend = i % 2 == 0;
        async move { (resend, torment(seed * 1_000 + i + 1, resend).await) }
    });
    for (resend, (seen, requeued, uncertain)) in join_all(all).await {
        let issued = LINES + RESETS_EACH + 1;
        let missing = issued - seen.unique.len();
        println!(
            "{{\"id\":\"F34\",\"seed\":{seed},\"resets\":{RESETS_EACH},\"resend\":{resend},\"issued\":{issued},\"unique\":{},\
             \"duplicates\":{},\"requeued\":{requeued},\"uncertain\":{uncertain},\"missing\":{missing}}}",
            seen.unique.len(),
            seen.duplicates,
        );
        if resend {
            assert_eq!((missing, uncertain), (0, 0), "seed {seed}");
        } else {
            assert!(missing as u64 <= uncertain, "seed {seed}: {missing} missing, {uncertain} uncertain");
        }
        assert!(seen.duplicates <= requeued, "seed {seed}: {} repeats of {requeued}", seen.duplicates);
    }
    assert!(began.elapsed() < Duration::from_secs(120), "the waits between attempts stay short");
}
