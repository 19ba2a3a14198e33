//! Keys that change, on a paused clock.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde_json::json;
use telemetry::Telemetry;
use tokio::time::advance;
use tokio_util::task::TaskTracker;

use super::*;
use crate::metrics::Metrics;
use crate::test_issuer::TestIssuer;

/// An issuer that can change its keys and be away.
struct Bed {
    keys: Arc<Keys>,
    /// What it publishes; `None` while it is away.
    published: Arc<Mutex<Option<Vec<u8>>>>,
    fetches: Arc<AtomicUsize>,
    telemetry: Telemetry,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Bed {
    fn start(published: Option<&TestIssuer>) -> Self {
        let telemetry = Telemetry::default();
        let metrics = Metrics::register(&telemetry).handles().auth.clone();
        let bed = Self {
            keys: Arc::new(Keys::new(vec![Algorithm::RS256], metrics)),
            published: Arc::default(),
            fetches: Arc::default(),
            telemetry,
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        bed.publish(published);
        let (keys, published, fetches) = (Arc::clone(&bed.keys), Arc::clone(&bed.published), Arc::clone(&bed.fetches));
        let stop = bed.stop.clone();
        bed.tracker.spawn(async move {
            let fetch = || {
                fetches.fetch_add(1, Ordering::Relaxed);
                let body = published.lock().clone();
                let keys = &keys;
                async move {
                    let away = || KeysError::Answer("away".to_owned());
                    body.ok_or_else(away).and_then(|body| keys.parse(&body))
                }
            };
            keys.keep(fetch, || {}, &stop).await;
        });
        bed
    }

    fn publish(&self, issuer: Option<&TestIssuer>) {
        let body = issuer.map(|issuer| json!({ "keys": [issuer.published()] }).to_string().into_bytes());
        *self.published.lock() = body;
    }

    async fn verify(&self, token: &str) -> Result<(), Denied> {
        self.keys.verify(token.as_bytes()).await.map(|_claims| ())
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::Relaxed)
    }
}

fn token(issuer: &TestIssuer) -> String {
    issuer.sign(&json!({ "exp": 1 }))
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_fetched_for_the_first_token_that_shows_it_and_the_old_one_is_gone() {
    let (old, new) = (TestIssuer::new("old"), TestIssuer::new("new"));
    let bed = Bed::start(Some(&old));
    assert_eq!(bed.verify(&token(&old)).await, Ok(()), "it waits for the first fetch");
    advance(APART).await;
    bed.publish(Some(&new));
    assert_eq!(bed.verify(&token(&old)).await, Ok(()), "nothing asks yet");
    assert_eq!(bed.verify(&token(&new)).await, Ok(()));
    assert_eq!(bed.verify(&token(&old)).await, Err(Denied::Invalid));
    assert_eq!(bed.fetches(), 2);
    assert!(bed.telemetry.render().contains("hydrant_auth_keys 1\n"));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_changes_under_its_name_is_fetched_as_well() {
    let (old, new) = (TestIssuer::new("1"), TestIssuer::new("1"));
    let bed = Bed::start(Some(&old));
    assert_eq!(bed.verify(&token(&old)).await, Ok(()));
    advance(APART).await;
    bed.publish(Some(&new));
    assert_eq!(bed.verify(&token(&new)).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn however_many_unknown_keys_are_shown_fetches_are_five_seconds_apart() {
    let (known, stranger) = (TestIssuer::new("known"), TestIssuer::new("stranger"));
    let bed = Bed::start(Some(&known));
    assert_eq!(bed.verify(&token(&known)).await, Ok(()));
    let forged = token(&stranger);
    for _second in 0..60 {
        for _request in 0..20 {
            assert_eq!(bed.verify(&forged).await, Err(Denied::Invalid));
            assert_eq!(bed.verify(&token(&known)).await, Ok(()), "nobody else waits");
        }
        advance(Duration::from_secs(1)).await;
    }
    assert!((2..=13).contains(&bed.fetches()), "{}", bed.fetches());
}

#[tokio::test(start_paused = true)]
async fn nonsense_fetches_nothing() {
    let known = TestIssuer::new("known");
    let bed = Bed::start(Some(&known));
    assert_eq!(bed.verify(&token(&known)).await, Ok(()));
    advance(APART).await;
    for nonsense in ["a.b.c", "opaque", ""] {
        assert_eq!(bed.verify(nonsense).await, Err(Denied::Invalid));
    }
    assert_eq!(bed.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_is_away_costs_nobody_whose_key_is_known() {
    let (known, new) = (TestIssuer::new("known"), TestIssuer::new("new"));
    let bed = Bed::start(None);
    assert_eq!(bed.verify(&token(&known)).await, Err(Denied::Unavailable));
    bed.publish(Some(&known));
    advance(RETRY).await;
    assert_eq!(bed.verify(&token(&known)).await, Ok(()));
    bed.publish(None);
    advance(APART).await;
    assert_eq!(bed.verify(&token(&new)).await, Err(Denied::Unavailable));
    assert_eq!(bed.verify(&token(&known)).await, Ok(()));
    let text = bed.telemetry.render();
    assert!(text.contains("hydrant_auth_key_fetches_total{outcome=\"failed\"} 2\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn keys_that_were_withdrawn_do_not_stay() {
    let (old, new) = (TestIssuer::new("old"), TestIssuer::new("new"));
    let bed = Bed::start(Some(&old));
    assert_eq!(bed.verify(&token(&old)).await, Ok(()));
    bed.publish(Some(&new));
    tokio::time::sleep(KEEP + APART).await;
    assert_eq!(bed.verify(&token(&old)).await, Err(Denied::Invalid));
    bed.stop.cancel();
    bed.tracker.close();
    bed.tracker.wait().await;
}
