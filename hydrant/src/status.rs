//! `hydrant status`: whether the pipeline is well, on one screen, and as an exit code.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use anyhow::anyhow;
use proto::v2;
use proto::v2::envelope::Message;
use serde_json::json;

use crate::cli::{Failure, runtime, say};
use crate::client::{Controller, Output};
use crate::filter::Kind;
use crate::overview::change::{Change, sum};
use crate::render::palette::{ALARM, INFO, RESET};
use crate::sources::two_looks;
use crate::table::{Side, Table};
use crate::{ledger, overview, units};

/// Consumers shown: those that wait for most.
const CONSUMERS: usize = 8;
/// Drains shown: those in trouble first.
const DRAINS: usize = 8;
/// Certificates that end sooner are told of.
const EXPIRY: Duration = Duration::from_secs(14 * 24 * 3600);
/// How far back what the pipeline says of its certificates is looked for.
const RECENT: Duration = Duration::from_secs(60);

/// Arguments of `hydrant status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One JSON object, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: Controller,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let connection = args.at.connect().await?;
        let change = two_looks(&mut overview::client(connection.clone())).await?;
        let mut certificates = Vec::new();
        let since = change.time.saturating_sub_unsigned(RECENT.as_nanos() as u64);
        let read = ledger::own(connection, since, Kind::Gauge, |envelope| {
            certificates.extend(certificate(envelope, change.time));
        });
        read.await?;
        certificates.sort();
        certificates.dedup();
        let troubles = troubles(&change, certificates);
        let output = Output::new();
        let text = match args.json {
            true => json(&change, &troubles).to_string(),
            false => text(&args.at.server.to_string(), &change, &troubles, output.colour),
        };
        say(&mut io::stdout(), text.trim_end());
        match troubles.is_empty() {
            true => Ok(()),
            false => Err(Failure::Failed(anyhow!("not healthy: {}", troubles.join("; ")))),
        }
    })
}

/// What is wrong with a certificate, if an envelope says so.
fn certificate(envelope: &v2::Envelope, now: i64) -> Option<String> {
    let Some(Message::Gauge(gauge)) = &envelope.message else { return None };
    let name = envelope.tags.get("certificate")?;
    let value = |metric: &str| gauge.metrics.get(metric).map(|value| value.value);
    if value("hydrant_certificate_reload_failed").is_some_and(|failed| failed > 0.0) {
        return Some(format!("the files of the certificate {name} cannot be used; an older one is in use"));
    }
    let left = value("hydrant_certificate_not_after_timestamp_seconds")? - now as f64 / 1e9;
    if left <= 0.0 {
        Some(format!("the certificate {name} has ended"))
    } else if left < EXPIRY.as_secs_f64() {
        Some(format!("the certificate {name} ends in {} days", (left / 86_400.0) as u64))
    } else {
        None
    }
}

/// Everything that is wrong; nothing when all is well.
fn troubles(change: &Change, certificates: Vec<String>) -> Vec<String> {
    let mut troubles = Vec::new();
    if !change.missing.is_empty() {
        troubles.push(format!("{} cannot be asked", change.missing.join(", ")));
    }
    if !change.stages.is_empty() && !change.stages.iter().any(|stage| stage.info.stage == "doppler") {
        troubles.push("no doppler answers".to_owned());
    }
    for drain in &change.drains {
        if ["failing", "broken"].contains(&drain.info.state.as_str()) {
            troubles.push(format!("the drain {} is {}", drain.info.name, drain.info.state));
        }
    }
    if change.lost() > 0.0 {
        troubles.push(format!(
            "{} envelopes a second are being lost; see `hydrant explain-loss`",
            units::count(change.lost())
        ));
    }
    troubles.extend(certificates);
    troubles
}

fn text(server: &str, change: &Change, troubles: &[String], colour: bool) -> String {
    let paint = |paint: &'static str, text: &str| match colour {
        true => format!("{paint}{text}{RESET}"),
        false => text.to_owned(),
    };
    let mut text = match troubles.is_empty() {
        true => format!("hydrant at {server} is {}\n", paint(INFO, "healthy")),
        false => format!("hydrant at {server} is {}\n", paint(ALARM, "not healthy")),
    };
    troubles.iter().for_each(|trouble| text.push_str(&format!("  {} {trouble}\n", paint(ALARM, "!"))));
    if change.stages.is_empty() && change.missing.is_empty() {
        text.push_str("This token reads its own sources only, and sees nothing of the pipeline's state.\n");
        return text;
    }
    text.push_str(&format!(
        "{} envelopes/s in, {} lost/s, {} sources\n\n",
        units::count(change.received()),
        units::count(change.lost()),
        units::exact(change.source_count)
    ));
    let (left, right) = (Side::Left, Side::Right);
    let head =
        [("ROLE", left), ("ADDRESS", left), ("IN/S", right), ("OUT/S", right), ("LOST/S", right), ("LOST", right)];
    let mut table = Table::new(head);
    for stage in &change.stages {
        table.row([
            stage.info.stage.replace('_', " "),
            stage.info.address.clone(),
            units::count(stage.received),
            units::count(stage.delivered),
            units::count(stage.lost),
            units::exact(sum(&stage.info.dropped)),
        ]);
    }
    let adapters: BTreeSet<&str> = change.drains.iter().map(|drain| drain.info.address.as_str()).collect();
    for address in adapters {
        let own = || change.drains.iter().filter(|drain| drain.info.address == address);
        table.row([
            "adapters".to_owned(),
            address.to_owned(),
            String::new(),
            units::count(own().map(|drain| drain.delivered).sum()),
            units::count(own().map(|drain| drain.lost).sum()),
            units::exact(own().map(|drain| sum(&drain.info.dropped)).sum()),
        ]);
    }
    let none =
        |name: &str| [name.to_owned(), String::new(), String::new(), String::new(), String::new(), String::new()];
    for missing in &change.missing {
        let mut row = none("away");
        row[1].clone_from(missing);
        table.row(row);
    }
    text.push_str(&table.text(colour));
    text.push_str(&consumers(change, colour));
    text.push_str(&drains(change, colour));
    text
}

fn consumers(change: &Change, colour: bool) -> String {
    if change.consumers.is_empty() {
        return "\nNobody reads.\n".to_owned();
    }
    let mut all: Vec<_> = change.consumers.iter().collect();
    all.sort_by_key(|one| std::cmp::Reverse((one.info.waiting_envelopes, one.info.dropped)));
    let (left, right) = (Side::Left, Side::Right);
    let head =
        [("CONSUMER", left), ("AT", left), ("TAKEN/S", right), ("WAITING", right), ("BYTES", right), ("LOST", right)];
    let mut table = Table::new(head);
    for one in all.iter().take(CONSUMERS) {
        table.row([
            one.info.name.clone(),
            one.info.stage.replace('_', " "),
            units::count(one.taken),
            units::exact(one.info.waiting_envelopes),
            units::bytes(one.info.waiting_bytes as f64),
            units::exact(one.info.dropped),
        ]);
    }
    format!("\n{}{}", table.text(colour), more(all.len(), CONSUMERS))
}

fn drains(change: &Change, colour: bool) -> String {
    if change.drains.is_empty() {
        return String::new();
    }
    let calm = |state: &str| ["broken", "failing", "degraded"].iter().position(|known| *known == state).unwrap_or(9);
    let mut all: Vec<_> = change.drains.iter().collect();
    all.sort_by_key(|drain| calm(&drain.info.state));
    let (left, right) = (Side::Left, Side::Right);
    let head = [("DRAIN", left), ("STATE", left), ("OUT/S", right), ("WAITING", right), ("LOST", right), ("TO", left)];
    let mut table = Table::new(head);
    for drain in all.iter().take(DRAINS) {
        table.row([
            drain.info.name.clone(),
            drain.info.state.clone(),
            units::count(drain.delivered),
            units::exact(drain.info.waiting_envelopes),
            units::exact(sum(&drain.info.dropped)),
            drain.info.url.clone(),
        ]);
    }
    format!("\n{}{}", table.text(colour), more(all.len(), DRAINS))
}

fn more(all: usize, shown: usize) -> String {
    if all > shown { format!("and {} more; `hydrant top` shows all\n", all - shown) } else { String::new() }
}

fn json(change: &Change, troubles: &[String]) -> serde_json::Value {
    let stages = change.stages.iter().map(|stage| {
        json!({
            "stage": stage.info.stage, "address": stage.info.address, "received_per_second": stage.received,
            "delivered_per_second": stage.delivered, "lost_per_second": stage.lost, "lost": sum(&stage.info.dropped),
        })
    });
    let consumers = change.consumers.iter().map(|one| {
        json!({
            "name": one.info.name, "stage": one.info.stage, "address": one.info.address, "taken_per_second": one.taken,
            "waiting_envelopes": one.info.waiting_envelopes, "waiting_bytes": one.info.waiting_bytes, "lost": one.info.dropped,
        })
    });
    let drains = change.drains.iter().map(|drain| {
        json!({
            "name": drain.info.name, "url": drain.info.url, "state": drain.info.state, "delivered_per_second": drain.delivered,
            "waiting_envelopes": drain.info.waiting_envelopes, "lost": sum(&drain.info.dropped), "last_error": drain.info.last_error,
        })
    });
    json!({
        "healthy": troubles.is_empty(),
        "troubles": troubles,
        "received_per_second": change.received(),
        "lost_per_second": change.lost(),
        "source_count": change.source_count,
        "stages": stages.collect::<Vec<_>>(),
        "consumers": consumers.collect::<Vec<_>>(),
        "drains": drains.collect::<Vec<_>>(),
        "missing": change.missing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overview::change::tests::reply;

    #[test]
    fn all_that_is_wrong_is_named() {
        let mut well = reply(10);
        well.stages.iter_mut().for_each(|stage| stage.dropped.clear());
        let change = Change::between(None, well.clone());
        assert!(troubles(&change, Vec::new()).is_empty());
        let shown = text("127.0.0.1:8084", &change, &[], false);
        assert!(shown.starts_with("hydrant at 127.0.0.1:8084 is healthy\n"), "{shown}");
        assert!(shown.lines().count() < 24 && shown.lines().all(|line| line.len() <= 80), "{shown}");

        let mut ill = reply(12);
        ill.missing.push("10.0.0.1:8082".to_owned());
        ill.drains[0].state = "failing".to_owned();
        ill.stages.retain(|stage| stage.stage != "doppler");
        let change = Change::between(Some(&reply(10)), ill);
        let all = troubles(&change, vec!["the certificate x has ended".to_owned()]);
        let parts =
            ["10.0.0.1:8082 cannot", "no doppler", "papertrail is failing", "1 envelopes a second", "has ended"];
        assert_eq!(all.len(), parts.len(), "{all:?}");
        assert!(all.iter().zip(parts).all(|(trouble, part)| trouble.contains(part)), "{all:?}");
        let shown = text("127.0.0.1:8084", &change, &all, false);
        assert!(shown.contains("not healthy\n  ! 10.0.0.1") && shown.contains("away"), "{shown}");
        assert_eq!(json(&change, &all)["healthy"], false);
    }

    #[test]
    fn certificates_that_end_or_cannot_be_read_are_told() {
        const DAY: i64 = 86_400_000_000_000;
        let gauge =
            |name: &str, value: f64| v2::Envelope::gauge("hydrant", name, value, "").tag("certificate", "doppler_grpc");
        let ends = |day: i64| gauge("hydrant_certificate_not_after_timestamp_seconds", (day * DAY) as f64 / 1e9);
        assert_eq!(certificate(&ends(100), 50 * DAY), None);
        assert!(certificate(&ends(53), 50 * DAY).expect("soon").contains("ends in 3 days"));
        assert!(certificate(&ends(49), 50 * DAY).expect("over").contains("has ended"));
        assert!(
            certificate(&gauge("hydrant_certificate_reload_failed", 1.0), 0).expect("bad").contains("cannot be used")
        );
        assert_eq!(certificate(&gauge("hydrant_certificate_reload_failed", 0.0), 0), None);
    }
}
