//! `hydrant sources`: what sources there are, how much they log, what is held of them and what was lost.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use regex::Regex;
use serde_json::json;

use crate::cli::{Failure, runtime, say};
use crate::client::{Controller, Output};
use crate::filter::regex;
use crate::ledger::Ledger;
use crate::overview::change::{Change, Source};
use crate::overview::{self, Client};
use crate::table::{Side, Table};
use crate::units;

/// Between the two looks that give a rate.
const LOOKS: Duration = Duration::from_secs(1);

/// Arguments of `hydrant sources`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only those whose id matches this regular expression
    #[arg(value_name = "REGEX", value_parser = regex)]
    only: Option<Regex>,
    /// Look once: what each has sent in all, instead of what it sends a second
    #[arg(long)]
    once: bool,
    /// What comes first
    #[arg(long, value_name = "COLUMN", default_value = "lines")]
    sort: Column,
    /// One JSON object, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: Controller,
}

/// What sources are sorted by: the most, the newest or the first of the alphabet comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Column {
    Source,
    Lines,
    Bytes,
    Held,
    Newest,
    Lost,
}

impl Column {
    /// Compares two sources; `lost` of them is known from elsewhere. Without rates, the sums count.
    pub(crate) fn compare(self, rates: bool, a: (&Source, u64), b: (&Source, u64)) -> Ordering {
        let ((a, a_lost), (b, b_lost)) = (a, b);
        let lines = || if rates { b.lines.total_cmp(&a.lines) } else { Ordering::Equal };
        let all = || b.info.envelopes.cmp(&a.info.envelopes);
        let first = match self {
            Self::Source => Ordering::Equal,
            Self::Lines => lines().then_with(all),
            Self::Bytes if rates => b.bytes.total_cmp(&a.bytes).then_with(|| b.info.bytes.cmp(&a.info.bytes)),
            Self::Bytes => b.info.bytes.cmp(&a.info.bytes),
            Self::Held => b.info.held.cmp(&a.info.held),
            Self::Newest => b.info.newest_timestamp.cmp(&a.info.newest_timestamp),
            Self::Lost => b_lost.cmp(&a_lost).then_with(lines).then_with(all),
        };
        first.then_with(|| a.info.source_id.cmp(&b.info.source_id))
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let connection = args.at.connect().await?;
        let mut client = overview::client(connection.clone());
        let mut change = if args.once { first(&mut client).await? } else { two_looks(&mut client).await? };
        let ledger = Ledger::read(connection, 0).await?;
        let lost = ledger.as_ref().map(Ledger::by_source);
        if let Some(only) = &args.only {
            change.sources.retain(|source| only.is_match(&source.info.source_id));
        }
        let of = |source: &Source| lost_of(lost.as_ref(), source).unwrap_or(0);
        change.sources.sort_by(|a, b| args.sort.compare(!args.once, (a, of(a)), (b, of(b))));
        let output = Output::new();
        let text = match args.json {
            true => json(&change, lost.as_ref()).to_string(),
            false => text(&change, lost.as_ref(), output.colour),
        };
        say(&mut io::stdout(), text.trim_end());
        if !args.json && !change.missing.is_empty() {
            output.notice(&format!("incomplete: {} cannot be asked", change.missing.join(", ")));
        }
        Ok(())
    })
}

/// One look.
async fn first(client: &mut Client) -> Result<Change, Failure> {
    Ok(Change::between(None, overview::need(client).await?))
}

/// Two looks, a second apart.
pub(crate) async fn two_looks(client: &mut Client) -> Result<Change, Failure> {
    let before = overview::need(client).await?;
    tokio::time::sleep(LOOKS).await;
    Ok(Change::between(Some(&before), overview::need(client).await?))
}

fn lost_of(lost: Option<&BTreeMap<&str, u64>>, source: &Source) -> Option<u64> {
    lost.map(|lost| lost.get(source.info.source_id.as_str()).copied().unwrap_or(0))
}

fn text(change: &Change, lost: Option<&BTreeMap<&str, u64>>, colour: bool) -> String {
    let rates = change.seconds > 0.0;
    if change.sources.is_empty() {
        return "no sources; send some lines with `some-app 2>&1 | hydrant emit my-app`".to_owned();
    }
    let (lines, bytes) = if rates { ("LINES/S", "BYTES/S") } else { ("LINES", "BYTES") };
    let right = Side::Right;
    let mut table = Table::new([
        ("SOURCE", Side::Left),
        (lines, right),
        (bytes, right),
        ("HELD", right),
        ("OLDEST", right),
        ("NEWEST", right),
        ("LOST", right),
    ]);
    for source in &change.sources {
        let info = &source.info;
        let ago = |at: i64| if info.held == 0 { "-".to_owned() } else { units::age(change.time.saturating_sub(at)) };
        let (lines, bytes) = match rates {
            true => (units::count(source.lines), units::bytes(source.bytes)),
            false => (units::exact(info.envelopes), units::bytes(info.bytes as f64)),
        };
        table.row([
            info.source_id.clone(),
            lines,
            bytes,
            units::count(info.held as f64),
            ago(info.oldest_timestamp),
            ago(info.newest_timestamp),
            lost_of(lost, source).map_or_else(|| "?".to_owned(), units::exact),
        ]);
    }
    let mut text = table.text(colour);
    let unseen = change.source_count.saturating_sub(change.sources.len() as u64);
    if unseen > 0 && change.sources.len() >= 10_000 {
        text.push_str(&format!("and {} more that say less\n", units::exact(unseen)));
    }
    text
}

fn json(change: &Change, lost: Option<&BTreeMap<&str, u64>>) -> serde_json::Value {
    let rate = |rate: f64| (change.seconds > 0.0).then_some(rate);
    let sources = change.sources.iter().map(|source| {
        let info = &source.info;
        json!({
            "source_id": info.source_id,
            "envelopes": info.envelopes,
            "bytes": info.bytes,
            "envelopes_per_second": rate(source.lines),
            "bytes_per_second": rate(source.bytes),
            "held": info.held,
            "oldest_timestamp": info.oldest_timestamp.to_string(),
            "newest_timestamp": info.newest_timestamp.to_string(),
            "lost": lost_of(lost, source),
        })
    });
    let sources: Vec<_> = sources.collect();
    json!({ "time": change.time.to_string(), "source_count": change.source_count, "sources": sources, "missing": change.missing })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overview::change::tests::reply;

    #[test]
    fn a_table_of_rates_or_of_sums() {
        let lost = BTreeMap::from([("app", 1_234)]);
        let change = Change::between(Some(&reply(99)), reply(100));
        let shown = text(&change, Some(&lost), false);
        let expected = "SOURCE  LINES/S  BYTES/S  HELD  OLDEST  NEWEST   LOST\n\
                        shop          5    500 B     7      1m      0s      0\n\
                        app           2    200 B     7      1m      0s  1 234\n";
        assert_eq!(shown, expected);
        let first = Change::between(None, reply(100));
        assert!(text(&first, None, false).contains("shop      500  50 kB"), "{}", text(&first, None, false));
        let json = json(&change, Some(&lost));
        assert_eq!(
            (&json["sources"][1]["lost"], &json["sources"][0]["envelopes_per_second"]),
            (&1_234.into(), &5.0.into())
        );
        assert!(text(&Change::default(), None, false).contains("hydrant emit"));
    }

    #[test]
    fn each_column_sorts() {
        let mut change = Change::between(Some(&reply(99)), reply(100));
        let lost = |source: &Source| if source.info.source_id == "app" { 5 } else { 0 };
        for (column, first) in
            [(Column::Source, "app"), (Column::Lines, "shop"), (Column::Bytes, "shop"), (Column::Lost, "app")]
        {
            change.sources.sort_by(|a, b| column.compare(true, (a, lost(a)), (b, lost(b))));
            assert_eq!(change.sources[0].info.source_id, first, "{column:?}");
        }
    }
}
