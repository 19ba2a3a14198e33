//! The file on disk as it changes, and the grants that live through it. `now` is an argument: nothing here waits for a clock.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::UNIX_EPOCH;

use futures_util::{FutureExt, StreamExt, stream};
use telemetry::Telemetry;
use tonic::{Code, Status};

use super::super::{Access, token_sha256};
use super::*;
use crate::metrics::Metrics;

const NOW: SystemTime = UNIX_EPOCH;

struct File {
    dir: tempfile::TempDir,
    telemetry: Telemetry,
}

impl File {
    fn new(text: &str) -> Self {
        let file = Self { dir: tempfile::tempdir().unwrap(), telemetry: Telemetry::default() };
        file.write(text);
        file
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("tokens.toml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }

    fn load(&self) -> Result<Tokens, TokensError> {
        Tokens::load(&self.path(), Metrics::register(&self.telemetry).handles().auth.clone(), NOW)
    }

    fn shows(&self, sample: &str) -> bool {
        self.telemetry.render().lines().any(|line| line == sample)
    }
}

fn entry(name: &str, more: &str) -> String {
    format!("[[tokens]]\nname = \"{name}\"\nsha256 = \"{}\"\n{more}\n", token_sha256(name.as_bytes()))
}

fn grant(tokens: &Tokens, token: &str) -> Result<Grant, Denied> {
    tokens.grant(Digest::of(token.as_bytes()), NOW)
}

/// Nobody is asked about a token of the file: nothing has to be waited for.
fn admit(grant: &mut Grant, access: Access<'_>) -> Result<(), Denied> {
    grant.admit(access).now_or_never().unwrap()
}

fn shows(grant: &Grant, source_id: &str) -> bool {
    grant.visible().now_or_never().unwrap().shows(source_id)
}

fn stands(grant: &mut Grant) -> bool {
    pin!(grant.revoked()).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[test]
fn a_token_that_is_removed_ends_its_grants_and_no_other() {
    let (a, b) = (entry("a", "sources = [\"x\"]"), entry("b", "sources = [\"x\"]"));
    let file = File::new(&format!("{a}{b}"));
    let tokens = file.load().unwrap();
    assert!(file.shows("hydrant_tokens 2") && file.shows("hydrant_tokens_reload_failed 0"));
    let (mut of_a, mut of_b) = (grant(&tokens, "a").unwrap(), grant(&tokens, "b").unwrap());
    admit(&mut of_a, Access::Source("x")).unwrap();
    admit(&mut of_b, Access::Source("x")).unwrap();
    tokens.refresh(NOW);
    assert!(stands(&mut of_a) && stands(&mut of_b));
    file.write(&b);
    assert!(stands(&mut of_a), "not before the file has been looked at");
    tokens.refresh(NOW);
    assert!(!stands(&mut of_a) && stands(&mut of_b));
    assert!(!shows(&of_a, "x") && admit(&mut of_a, Access::Source("x")).is_err());
    assert_eq!(grant(&tokens, "a").err(), Some(Denied::Invalid));
    assert!(file.shows("hydrant_tokens 1"));
}

#[test]
fn a_token_that_reads_less_ends_what_it_may_no_longer_read() {
    let file = File::new(&entry("a", "sources = [\"x\", \"y\"]"));
    let tokens = file.load().unwrap();
    let mut grants = ["x", "y"].map(|source| {
        let mut grant = grant(&tokens, "a").unwrap();
        admit(&mut grant, Access::Source(source)).unwrap();
        grant
    });
    file.write(&entry("a", "sources = [\"y\"]"));
    tokens.refresh(NOW);
    assert_eq!(grants.each_mut().map(stands), [false, true]);
}

#[test]
fn a_token_whose_time_is_over_ends_its_grants_and_gives_no_more() {
    let file = File::new(&entry("a", "scopes = [\"firehose\"]\nexpires = 1970-01-01T00:01:00Z"));
    let tokens = file.load().unwrap();
    let mut grant = grant(&tokens, "a").unwrap();
    admit(&mut grant, Access::Firehose).unwrap();
    let end = NOW + Duration::from_secs(60);
    tokens.refresh(end - Duration::from_secs(1));
    assert!(stands(&mut grant));
    assert_eq!(
        tokens.grant(Digest::of(b"a"), end).err(),
        Some(Denied::Invalid),
        "at once, whenever the file is looked at"
    );
    tokens.refresh(end);
    assert!(!stands(&mut grant));
    assert!(file.shows("hydrant_tokens 0"));
}

#[test]
fn an_expired_entry_stops_neither_a_start_nor_the_rest_of_a_file() {
    let old = entry("old", "expires = 1969-12-31T23:59:59Z");
    let file = File::new(&format!("{old}{}", entry("a", "")));
    let tokens = file.load().unwrap();
    assert!(grant(&tokens, "old").is_err() && grant(&tokens, "a").is_ok());
    file.write(&format!("{old}{}", entry("b", "")));
    tokens.refresh(NOW);
    assert!(grant(&tokens, "a").is_err() && grant(&tokens, "b").is_ok());
}

#[test]
fn a_bad_file_keeps_the_old_one_and_shows() {
    let good = entry("a", "sources = [\"x\"]");
    let file = File::new(&good);
    let tokens = file.load().unwrap();
    let mut held = grant(&tokens, "a").unwrap();
    admit(&mut held, Access::Source("x")).unwrap();
    let half = format!("{good}[[tokens]]\nname = ");
    for bad in [half.as_str(), "nonsense", &good.replace("sources", "sauces")] {
        file.write(bad);
        tokens.refresh(NOW);
        assert!(stands(&mut held) && grant(&tokens, "a").is_ok(), "{bad}");
        assert!(file.shows("hydrant_tokens_reload_failed 1") && file.shows("hydrant_tokens 1"));
    }
    std::fs::remove_file(file.path()).unwrap();
    tokens.refresh(NOW);
    assert!(stands(&mut held) && file.shows("hydrant_tokens_reload_failed 1"));
    file.write(&good);
    tokens.refresh(NOW);
    assert!(stands(&mut held) && file.shows("hydrant_tokens_reload_failed 0"));
}

#[test]
fn a_start_without_a_usable_file_names_it() {
    let file = File::new("[[tokens]]\nname = 5\n");
    let error = file.load().err().unwrap().to_string();
    assert!(error.contains("tokens.toml, line 2, column 8: "), "{error}");
    std::fs::remove_file(file.path()).unwrap();
    let error = file.load().err().unwrap().to_string();
    assert!(error.contains("tokens.toml: No such file"), "{error}");
}

#[tokio::test]
async fn a_guarded_stream_ends_with_unauthenticated_and_is_dropped_at_once() {
    struct Told(Option<tokio::sync::oneshot::Sender<()>>);
    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.take().unwrap().send(());
        }
    }
    let file = File::new(&entry("a", "sources = [\"x\"]"));
    let tokens = file.load().unwrap();
    let mut grant = grant(&tokens, "a").unwrap();
    admit(&mut grant, Access::Source("x")).unwrap();
    let (tell, mut told) = tokio::sync::oneshot::channel();
    let state = Told(Some(tell));
    let endless = stream::unfold(state, |state| async move { Some((Ok::<_, Status>(1), state)) });
    let mut guarded = grant.guard(endless);
    assert_eq!(guarded.next().await.unwrap().unwrap(), 1);
    file.write("");
    tokens.refresh(NOW);
    let status = guarded.next().await.unwrap().unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "authorization expired"));
    assert!(told.try_recv().is_ok(), "what it subscribed to is gone with it");
    assert!(guarded.next().await.is_none());
}

#[tokio::test]
async fn a_stream_that_waits_is_woken() {
    let file = File::new(&entry("a", "sources = [\"x\"]"));
    let tokens = file.load().unwrap();
    let mut grant = grant(&tokens, "a").unwrap();
    admit(&mut grant, Access::Source("x")).unwrap();
    let mut guarded = grant.guard(stream::pending::<Result<(), Status>>());
    let mut next = pin!(guarded.next());
    assert!(matches!(futures_util::poll!(next.as_mut()), Poll::Pending));
    file.write("");
    tokens.refresh(NOW);
    assert_eq!(next.await.unwrap().unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test(start_paused = true)]
async fn the_file_is_looked_at_within_30_seconds() {
    let file = File::new(&entry("a", "sources = [\"x\"]"));
    let tokens = Arc::new(file.load().unwrap());
    let mut grant = grant(&tokens, "a").unwrap();
    admit(&mut grant, Access::Source("x")).unwrap();
    let (tracker, stop) = (tokio_util::task::TaskTracker::new(), CancellationToken::new());
    tracker.spawn(Arc::clone(&tokens).watch(stop.clone()));
    file.write("");
    tokio::time::timeout(Duration::from_secs(30), grant.revoked()).await.unwrap();
    stop.cancel();
    tracker.close();
    tracker.wait().await;
}
