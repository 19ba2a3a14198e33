//! The caches of several dopplers while lines flow, one doppler is killed and another comes: an answer is whole, or says who is missing.
//!
//! Every line has a number, and its time is made of it; so what an answer must have is known. A reader walks the sources by time, page
//! after page, from before the kill to the end, and holds each page against what was acknowledged before it asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use proto::logcache::v1;
use proto::logcache::v1::egress_client::EgressClient;
use proto::v2::EnvelopeBatch;
use serde_json::{Value, json};

use self::follower::Follower;
use self::reader::{Known, Phase, Reader, partial, walk};
use self::traffic::{LINES, Plan, SOURCES, Traffic, id};
use crate::fleet::linked;
use crate::fleet::load::say;
use crate::harness::{Process, channel, get, metrics, sum, until};

#[path = "cache_cluster/follower.rs"]
mod follower;
#[path = "cache_cluster/reader.rs"]
mod reader;
#[path = "cache_cluster/traffic.rs"]
mod traffic;

/// How long a test waits for what it awaits.
const PATIENCE: Duration = Duration::from_secs(60);

/// Dopplers, and those who find them in two files: those who read are told first who comes, and last who goes.
struct Cluster {
    dir: tempfile::TempDir,
    dopplers: Vec<Process>,
    agent: Process,
    controller: Process,
}

impl Cluster {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut dopplers = Vec::new();
        for _ in 0..3 {
            dopplers.push(Process::start("doppler", "").await);
        }
        let entry = |role: &str| {
            let file = dir.path().join(role);
            name(&file, &dopplers);
            format!("[[{role}.dopplers]]\nfile = '{}'\nrefresh = \"500ms\"\n", file.display())
        };
        let (controller, agent) = (entry("traffic_controller"), entry("agent"));
        let controller = Process::start("traffic-controller", &controller).await;
        let agent = Process::start("agent", &agent).await;
        linked(&agent, 3).await;
        Self { dir, dopplers, agent, controller }
    }

    fn rest(&self) -> SocketAddr {
        self.controller.addr("rest")
    }

    /// Tells the agent of all dopplers, and waits until it sends to them alone.
    async fn tell_agent(&self) {
        name(&self.dir.path().join("agent"), &self.dopplers);
        linked(&self.agent, self.dopplers.len() as u64).await;
    }

    /// Tells the traffic controller of all dopplers, and waits until it asks them alone.
    async fn tell_controller(&self) {
        name(&self.dir.path().join("traffic_controller"), &self.dopplers);
        let all = self.dopplers.len() as u64;
        until(self.controller.addr("admin"), |numbers| sum(numbers, "hydrant_dopplers", "") == all).await;
    }

    /// How many envelopes of each source the caches hold, each asked by itself; and how many each of them holds.
    async fn held(&self) -> (BTreeMap<String, u64>, Vec<u64>) {
        let (mut by_source, mut by_doppler) = (BTreeMap::new(), Vec::new());
        for doppler in &self.dopplers {
            let mut client = EgressClient::new(channel(doppler.addr("grpc")).await);
            let meta = client.meta(v1::MetaRequest::default()).await.unwrap().into_inner().meta;
            let counts: Vec<(String, u64)> =
                meta.into_iter().map(|(id, meta)| (id, u64::try_from(meta.count).unwrap())).collect();
            by_doppler.push(counts.iter().map(|(_, count)| count).sum());
            counts.into_iter().for_each(|(id, count)| *by_source.entry(id).or_default() += count);
        }
        (by_source, by_doppler)
    }
}

/// Writes the file that names dopplers, at once as a whole.
fn name(file: &Path, dopplers: &[Process]) {
    let text: String = dopplers.iter().map(|doppler| format!("{}\n", doppler.addr("grpc"))).collect();
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}

/// Source and number of the lines that one doppler's cache holds.
async fn lines_of(doppler: SocketAddr, plan: Plan) -> BTreeSet<(u64, u64)> {
    let mut client = EgressClient::new(channel(doppler).await);
    let mut held = BTreeSet::new();
    for source in 0..SOURCES {
        let request = v1::ReadRequest {
            source_id: id(source),
            start_time: plan.time(0),
            limit: 1000,
            envelope_types: vec![v1::EnvelopeType::Log.into()],
            ..v1::ReadRequest::default()
        };
        let batch = client.read(request).await.unwrap().into_inner().envelopes.unwrap_or_default();
        let lines = EnvelopeBatch::decode(batch).unwrap().batch;
        held.extend(lines.iter().map(|line| (source, plan.number(line.timestamp))));
    }
    held
}

/// How many counters of a source a query finds.
async fn counted(rest: SocketAddr, source: u64, plan: Plan) -> u64 {
    let query = format!("sum(count_over_time(frames%7Bsource_id%3D%22{}%22%7D[1h]))", id(source));
    // Ten minutes after the first, and so after the last.
    let time = plan.time(0) / 1_000_000_000 + 600;
    let answer = get(rest, &format!("/api/v1/query?query={query}&time={time}")).await;
    assert_eq!((answer.status, partial(&answer)), (200, None), "{}", answer.body);
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    body["data"]["result"][0]["value"][1].as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_whole_or_say_who_is_missing_while_a_doppler_dies_and_another_comes() {
    let mut cluster = Cluster::start().await;
    let (rest, gateway) = (cluster.rest(), cluster.controller.addr("gateway"));
    let traffic = Traffic::start(cluster.agent.addr("grpc"));
    let plan = traffic.plan;
    let follower = Follower::open(gateway, None).await;
    traffic.more(60).await;
    let victim = cluster.dopplers.remove(1);
    let gone = victim.addr("grpc").to_string();
    let known = Known::new(gone.clone(), lines_of(victim.addr("grpc"), plan).await);
    let reader = Reader::start(rest, &traffic, &known);
    reader.rounds(2).await;
    let cursors = follower.cursors().await;

    // It dies; its instances go elsewhere, and answers name it for as long as it is one of the set.
    known.enter(Phase::Killing);
    victim.kill().await;
    known.killed(traffic.sent());
    follower.misses(&gone).await;
    traffic.more(40).await;
    reader.rounds(2).await;
    let late = Follower::open(gateway, None).await;
    late.misses(&gone).await;

    known.enter(Phase::Leaving);
    cluster.tell_agent().await;
    cluster.tell_controller().await;
    known.enter(Phase::Left);
    traffic.more(40).await;
    reader.rounds(2).await;
    // Whoever comes back with a cursor of the dead one has not seen all that it held.
    let back = Follower::open(gateway, Some(&cursors)).await;
    back.misses(&gone).await;

    // Another comes, and takes its share.
    cluster.dopplers.push(Process::start("doppler", "").await);
    cluster.tell_controller().await;
    cluster.tell_agent().await;
    let came = cluster.dopplers[2].addr("admin");
    until(came, |numbers| sum(numbers, "hydrant_received_envelopes_total", "stage=\"doppler\"") > 1000).await;
    reader.rounds(2).await;
    let frames = traffic.end().await;
    let counts = reader.end().await;

    let lost = what_is_left(&cluster, plan, &known, frames).await;
    let all: BTreeSet<(u64, u64)> =
        (0..SOURCES).flat_map(|source| (0..frames * LINES).map(move |number| (source, number))).collect();
    let left: BTreeSet<(u64, u64)> = all.difference(&lost).copied().collect();
    for (who, wanted) in [(&follower, &left), (&late, &left)] {
        who.until("all that is left", |seen| wanted.iter().all(|line| seen.lines.contains_key(line))).await;
        let seen = who.seen();
        let again = seen.lines.iter().filter(|(_, times)| **times > 1);
        let strange = again.clone().find(|((source, number), _)| !known.is_of_instance(*source, *number));
        assert_eq!((strange, &seen.gaps), (None, &Vec::new()));
    }
    let (_, in_caches) = cluster.held().await;
    let requeued = sum(&metrics(cluster.agent.addr("admin")).await, "hydrant_link_requeued_total", "");
    let unseen = lost.iter().filter(|line| !follower.seen().lines.contains_key(line)).count();
    say(&json!({
        "id": "caches of 3 dopplers, one killed, one new", "issued": all.len(), "lost": lost.len(), "unseen": unseen, "requeued": requeued,
        "pages": counts.pages, "partial": counts.partial, "in_caches": in_caches,
    })
    .to_string());
}

/// Asserts that what the dead one alone held is missing and all else is there once, and that every way to ask says the same. Returns source
/// and number of what is missing.
async fn what_is_left(cluster: &Cluster, plan: Plan, known: &Arc<Known>, frames: u64) -> BTreeSet<(u64, u64)> {
    let rest = cluster.rest();
    let (held, _) = cluster.held().await;
    let answer = get(rest, "/api/v1/meta").await;
    assert_eq!((answer.status, partial(&answer)), (200, None), "{}", answer.body);
    let meta: Value = serde_json::from_str(&answer.body).unwrap();
    let mut lost = BTreeSet::new();
    for source in 0..SOURCES {
        let pages = walk(rest, plan, known, (source, "LOG"), frames).await;
        let numbers: Vec<u64> = pages.into_iter().flat_map(|page| page.numbers).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "source {source}: in order and once each");
        let present: BTreeSet<u64> = numbers.into_iter().collect();
        let missing: BTreeSet<u64> = (0..frames * LINES).filter(|number| !present.contains(number)).collect();
        known.explains(source, &missing, &present);
        known.is_gone(source, &missing);
        lost.extend(missing.into_iter().map(|number| (source, number)));

        let pages = walk(rest, plan, known, (source, "COUNTER"), frames).await;
        let counters: u64 = pages.iter().map(|page| page.numbers.len() as u64).sum();
        assert_eq!(counted(rest, source, plan).await, counters, "source {source}");
        let told: u64 = meta["meta"][&id(source)]["count"].as_str().unwrap().parse().unwrap();
        assert_eq!((told, told), (held[&id(source)], present.len() as u64 + counters), "source {source}");
    }
    assert!(!lost.is_empty(), "the dead one held something");
    lost
}
