//! Merging without dopplers: the tests are the dopplers.

use bytes::Bytes;
use prost::Message;
use proto::v2::{Envelope, EnvelopeBatch};

use super::*;

struct Feed {
    address: &'static str,
    events: mpsc::Sender<Event>,
    sequence: u64,
}

impl Feed {
    async fn history(&mut self, timestamps: &[i64]) {
        let text = |timestamp: &i64| Envelope::log("a", format!("{}@{timestamp}", &self.address[..1])).at(*timestamp);
        let batch: Bytes = EnvelopeBatch { batch: timestamps.iter().map(text).collect() }.encode_to_vec().into();
        self.sequence += timestamps.len() as u64;
        let cursor = v1::Cursor { doppler: self.address.to_owned(), epoch: 1, sequence: self.sequence };
        self.frame(v1::FollowFrame { batch, cursor: Some(cursor), ..v1::FollowFrame::default() }).await;
    }

    async fn live(&self) {
        self.frame(v1::FollowFrame { live: true, ..v1::FollowFrame::default() }).await;
    }

    async fn frame(&self, frame: v1::FollowFrame) {
        self.say(Event::Frame(frame)).await;
    }

    async fn say(&self, event: Event) {
        self.events.send(event).await.unwrap();
    }
}

struct Setup {
    joins: mpsc::Sender<Lane>,
    merge: Merge,
}

impl Setup {
    fn expecting(expected: usize) -> Self {
        Self::of(expected, &v1::FollowRequest::default())
    }

    fn of(expected: usize, request: &v1::FollowRequest) -> Self {
        let (joins, joining) = mpsc::channel(16);
        Self { joins, merge: Merge::new(joining, expected, Vec::new(), request) }
    }

    async fn join(&self, address: &'static str) -> Feed {
        let (events, lane) = mpsc::channel(16);
        self.joins.send(Lane { address: address.parse().unwrap(), events: lane }).await.unwrap();
        Feed { address, events, sequence: 0 }
    }

    /// Reads on until `what` frames of interest have come: texts, `live`, `missing …`, `gap …`, and `cursor …` where one stands alone.
    async fn next(&mut self) -> String {
        let frame = self.merge.next().await.expect("not at its end");
        let batch = EnvelopeBatch::decode(frame.batch).unwrap().batch;
        let text = |envelope: &Envelope| String::from_utf8(envelope.payload().to_vec()).unwrap();
        let mut parts: Vec<String> = batch.iter().map(text).collect();
        parts.extend(frame.missing.iter().map(|address| format!("missing {address}")));
        parts.extend(frame.gap.map(|gap| format!("gap {}", gap.envelopes)));
        parts.extend(frame.cursor.map(|cursor| format!("{}:{}", &cursor.doppler[..1], cursor.sequence)));
        parts.extend(frame.live.then(|| "live".to_owned()));
        parts.join(" ")
    }
}

#[tokio::test(start_paused = true)]
async fn history_is_merged_by_timestamp_then_the_mark_then_live_as_it_comes() {
    let mut setup = Setup::expecting(2);
    let (mut a, mut b) = (setup.join("a:1").await, setup.join("b:1").await);
    a.history(&[1, 4, 6]).await;
    a.live().await;
    b.history(&[2, 3]).await;
    b.history(&[5, 9]).await;
    b.live().await;
    // `b` may have more after 3: only what is certain leaves.
    assert_eq!(setup.next().await, "a@1 b@2 b@3 b:2");
    assert_eq!(setup.next().await, "a@4 b@5 a@6 a:3");
    assert_eq!(setup.next().await, "b@9 b:4");
    assert_eq!(setup.next().await, "live");
    b.history(&[7]).await;
    assert_eq!(setup.next().await, "b@7 b:5");
    a.history(&[20, 21]).await;
    assert_eq!(setup.next().await, "a@20 a@21 a:5");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_away_is_named_and_not_waited_for() {
    let mut setup = Setup::expecting(2);
    let (mut a, mut b) = (setup.join("a:1").await, setup.join("b:1").await);
    a.history(&[1]).await;
    a.live().await;
    b.say(Event::Away).await;
    let began = Instant::now();
    assert_eq!(setup.next().await, "missing b:1");
    assert_eq!(setup.next().await, "a@1 a:1");
    assert_eq!(setup.next().await, "live");
    assert_eq!(began.elapsed(), Duration::ZERO);
    // Back: its history comes out at once, and its own mark is no second one.
    b.history(&[0]).await;
    b.live().await;
    a.history(&[9]).await;
    assert_eq!(setup.next().await, "b@0 b:1");
    assert_eq!(setup.next().await, "a@9 a:2");
}

#[tokio::test(start_paused = true)]
async fn one_that_says_nothing_is_waited_for_a_second() {
    let mut setup = Setup::expecting(2);
    let (mut a, mut b) = (setup.join("a:1").await, setup.join("b:1").await);
    a.history(&[1, 2]).await;
    a.live().await;
    let began = Instant::now();
    assert_eq!(setup.next().await, "missing b:1");
    assert_eq!(began.elapsed(), PATIENCE);
    assert_eq!(setup.next().await, "a@1 a@2 a:2");
    assert_eq!(setup.next().await, "live");
    b.history(&[1]).await;
    assert_eq!(setup.next().await, "b@1 b:1");
}

#[tokio::test(start_paused = true)]
async fn without_dopplers_it_is_live_at_once_and_those_that_come_are_heard() {
    let mut setup = Setup::expecting(0);
    assert_eq!(setup.next().await, "live");
    let mut a = setup.join("a:1").await;
    a.history(&[1]).await;
    assert_eq!(setup.next().await, "a@1 a:1");
}

#[tokio::test(start_paused = true)]
async fn gaps_pass_at_once() {
    let mut setup = Setup::expecting(1);
    let a = setup.join("a:1").await;
    let gap = Some(v1::Gap { source_id: "a".to_owned(), envelopes: 7, ..v1::Gap::default() });
    a.frame(v1::FollowFrame { gap, ..v1::FollowFrame::default() }).await;
    a.live().await;
    assert_eq!(setup.next().await, "gap 7");
    assert_eq!(setup.next().await, "live");
}

#[tokio::test(start_paused = true)]
async fn history_alone_ends_after_the_mark() {
    let request = v1::FollowRequest { history_only: true, ..v1::FollowRequest::default() };
    let mut setup = Setup::of(2, &request);
    let (mut a, b) = (setup.join("a:1").await, setup.join("b:1").await);
    a.history(&[1]).await;
    a.live().await;
    a.say(Event::Ended).await;
    b.say(Event::Away).await;
    assert_eq!(setup.next().await, "missing b:1");
    assert_eq!(setup.next().await, "a@1 a:1");
    assert_eq!(setup.next().await, "live");
    assert_eq!(setup.merge.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_doppler_that_leaves_the_set_is_forgotten() {
    let mut setup = Setup::expecting(2);
    let (mut a, b) = (setup.join("a:1").await, setup.join("b:1").await);
    drop(b);
    a.history(&[1]).await;
    a.live().await;
    assert_eq!(setup.next().await, "a@1 a:1");
    assert_eq!(setup.next().await, "live");
    assert_eq!(setup.merge.lanes.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn long_history_leaves_in_bounded_frames_and_none_is_always_last() {
    let mut setup = Setup::expecting(2);
    let (mut a, mut b) = (setup.join("a:1").await, setup.join("b:1").await);
    let many: Vec<i64> = (0..1500).collect();
    a.history(&many).await;
    a.live().await;
    b.live().await;
    let first = setup.merge.next().await.unwrap();
    assert_eq!(Batch::index(first.batch).0.len(), FRAME_ENVELOPES);
    assert_eq!(first.cursor, None, "in the middle of what the doppler sent");
    let second = setup.merge.next().await.unwrap();
    assert_eq!((Batch::index(second.batch).0.len(), second.cursor.unwrap().sequence), (500, 1500));
    assert_eq!(setup.next().await, "live");
    for _ in 0..4 {
        a.history(&[1]).await;
        b.history(&[2]).await;
    }
    let order: Vec<String> = [setup.next().await, setup.next().await, setup.next().await, setup.next().await].into();
    assert!(order.iter().filter(|text| text.starts_with('b')).count() == 2, "{order:?}");
}
