//! Tails by the thousand over WebSocket: what each takes, and how late its lines are.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::sleep;

use super::bed::{Bed, ScenarioError};
use super::{Load, TailsArgs};
use crate::procs::Sample;
use crate::report::{Report, Tails};
use crate::run::{Plan, RunError, run};
use crate::scrape;

/// Opened at once.
const AT_ONCE: usize = 32;
/// What the first ones bring to life is not the price of each.
const FIRST: u32 = 32;
/// For memory that is given back late, and for streams that open.
const SETTLE: Duration = Duration::from_secs(1);

/// Opens the tails and leaves them idle to see what each takes; then tails the same sources while they speak.
pub(super) async fn tails(args: &TailsArgs) -> Result<Report, ScenarioError> {
    let bed = Bed::new(&args.setup)?;
    let (servers, dopplers) = bed.path(true, args.dopplers, Some(args.form)).await?;
    let (Some(endpoint), Some(controller)) = (servers.target.socket, servers.watched.last().map(|last| last.pid))
    else {
        return Ok(Report::new("tails"));
    };
    let sample = || Sample::of(controller).map_err(ScenarioError::Measure);
    let open = async |i: u32| {
        let opened = endpoint.open(&endpoint.path("", Some(&format!("idle-{i}")))).await;
        let refused = |source| RunError::Subscribe { address: endpoint.addr.into(), source: Box::new(source) };
        opened.map_err(refused)
    };
    let mut sockets = Vec::new();
    for i in 0..FIRST {
        sockets.push(open(i).await?);
    }
    sleep(SETTLE).await;
    let before = sample()?;
    let mut opening = futures_util::stream::iter(FIRST..FIRST + args.tails).map(open).buffer_unordered(AT_ONCE);
    while let Some(opened) = opening.next().await {
        sockets.push(opened?);
    }
    drop(opening);
    sleep(SETTLE).await;
    let bytes_each = sample()?.rss_bytes.saturating_sub(before.rss_bytes) / u64::from(args.tails);
    let mut upstream = 0;
    for admin in dopplers {
        upstream += scrape::number(admin, "hydrant_subscriptions").await?;
    }
    drop(sockets);
    sleep(SETTLE).await;

    let plan = plan(args);
    let found = run("tails", &plan, &servers.target, &servers.watched).await;
    servers.stop().await?;
    bed.close().await;
    let found = found?;
    let cpu: f64 = found.servers.iter().map(|server| server.cpu_seconds).sum();
    let mut report = Report::new("tails");
    report.tails = Some(Tails { tails: args.tails, bytes_each, upstream, cpu_percent: cpu / found.seconds * 100.0 });
    report.runs.push(found);
    Ok(report)
}

fn plan(args: &TailsArgs) -> Plan {
    let load = Load::usual();
    let mut plan = load.plan(args.rate * u64::from(args.tails), args.seconds, 1);
    let tails = std::num::NonZeroU32::new(args.tails).unwrap_or(std::num::NonZeroU32::MIN);
    (plan.senders, plan.sources, plan.apart) = (tails, tails, true);
    plan
}
