//! `hydrant explain-loss`: where envelopes were lost, whose, why and how many; and whether the counters of all stages say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use anyhow::anyhow;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use proto::hydrant::v1::OverviewReply;
use serde_json::json;

use self::advice::advice;
use crate::cli::{Failure, runtime, say};
use crate::client::{Controller, Output};
use crate::ledger::{Ledger, Lost, Of};
use crate::overview;
use crate::table::{Side, Table};
use crate::tail::since;
use crate::units;

mod advice;

/// Arguments of `hydrant explain-loss`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only what this source lost
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    /// Only what was told since: a duration such as 10m, or a time such as 2026-11-21T14:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<i64>,
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
        // The counters first: what is told meanwhile is then in both, or in the ledger alone.
        let reply = overview::need(&mut overview::client(connection.clone())).await?;
        let Some(ledger) = Ledger::read(connection, args.since.unwrap_or(0)).await? else {
            let text = "losses are told by the source `hydrant`, which this token may not read";
            return Err(Failure::Failed(anyhow!(text)));
        };
        let whole = args.source.is_none() && args.since.is_none();
        let report = Report::new(&ledger, &reply, args.source.as_deref(), whole);
        let output = Output::new();
        let text = match args.json {
            true => report.json().to_string(),
            false => report.text(&TimeZone::system(), output.colour),
        };
        say(&mut io::stdout(), text.trim_end());
        Ok(())
    })
}

/// All there is to say.
#[derive(Debug)]
struct Report {
    /// Most first.
    rows: Vec<(Of, Lost)>,
    /// Whether the counters can be compared: they know neither sources nor times.
    whole: bool,
    /// Of a stage and a reason, what its counter says and what was told, where these differ.
    differences: BTreeMap<(String, String), (u64, u64)>,
    /// Envelopes of the ledger that were evicted before they were read.
    unread: u64,
    missing: Vec<String>,
}

impl Report {
    fn new(ledger: &Ledger, reply: &OverviewReply, source: Option<&str>, whole: bool) -> Self {
        let wanted = |of: &Of| source.is_none_or(|source| of.source == source);
        let told = ledger.rows().filter(|(of, _)| wanted(of)).map(|(of, lost)| (of.clone(), *lost));
        let mut rows: Vec<(Of, Lost)> = told.collect();
        let mut differences = BTreeMap::new();
        if whole {
            let mut both: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
            for stage in &reply.stages {
                for dropped in &stage.dropped {
                    both.entry((stage.stage.clone(), dropped.reason.clone())).or_default().0 += dropped.envelopes;
                }
            }
            for (of, lost) in &rows {
                both.entry((of.stage.clone(), of.reason.clone())).or_default().1 += lost.envelopes;
            }
            differences = both;
            differences.retain(|_, (counted, told)| counted != told);
            // Adapters tell the owners of lines themselves: here is what their drains have counted.
            for drain in &reply.drains {
                for dropped in &drain.dropped {
                    let of = Of {
                        stage: "drain".to_owned(),
                        consumer: drain.name.clone(),
                        reason: dropped.reason.clone(),
                        ..Of::default()
                    };
                    rows.push((of, Lost { envelopes: dropped.envelopes, ..Lost::default() }));
                }
            }
        }
        rows.retain(|(_, lost)| lost.envelopes > 0);
        rows.sort_by(|(a, a_lost), (b, b_lost)| b_lost.envelopes.cmp(&a_lost.envelopes).then_with(|| a.cmp(b)));
        Self { rows, whole, differences, unread: ledger.unread, missing: reply.missing.clone() }
    }

    fn total(&self) -> u64 {
        self.rows.iter().map(|(_, lost)| lost.envelopes).fold(0, u64::saturating_add)
    }

    /// What counters have and nobody was named for.
    fn not_told_apart(&self) -> u64 {
        self.differences.values().map(|(counted, told)| counted.saturating_sub(*told)).sum()
    }

    fn text(&self, zone: &TimeZone, colour: bool) -> String {
        let mut text = String::new();
        if self.rows.is_empty() {
            text.push_str("No loss has been told of.\n");
        } else {
            text.push_str(&self.table(zone, colour));
            text.push_str(&format!("total: {} lost\n", units::exact(self.total())));
        }
        if self.whole {
            text.push_str(&self.check());
        } else {
            text.push_str("\nThe counters of the stages know neither sources nor times, and are not compared here.\n");
        }
        if self.unread > 0 {
            let unread = units::exact(self.unread);
            text.push_str(&format!(
                "{unread} envelopes of the source `hydrant` left the cache before they could be read.\n"
            ));
        }
        if !self.missing.is_empty() {
            text.push_str(&format!("Incomplete: {} cannot be asked.\n", self.missing.join(", ")));
        }
        let told = self.rows.iter().map(|(of, _)| (of.stage.as_str(), of.reason.as_str()));
        let counted = self.differences.iter().filter(|(_, (counted, told))| counted > told);
        let counted = counted.map(|((stage, reason), _)| (stage.as_str(), reason.as_str()));
        let causes: BTreeSet<(&str, &str)> = told.chain(counted).collect();
        for (i, (stage, reason)) in causes.into_iter().enumerate() {
            text.push_str(if i == 0 { "\n" } else { "" });
            text.push_str(&format!("{reason} at the {}: {}\n", words(stage), advice(stage, reason)));
        }
        text
    }

    fn table(&self, zone: &TimeZone, colour: bool) -> String {
        let (left, right) = (Side::Left, Side::Right);
        let head = [
            ("WHERE", left),
            ("WHOSE", left),
            ("MISSED BY", left),
            ("WHY", left),
            ("LOST", right),
            ("FIRST", left),
            ("LAST", left),
        ];
        let mut table = Table::new(head);
        let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
        let time = |nanos: i64| match Timestamp::from_nanosecond(i128::from(nanos)) {
            Ok(time) if nanos != 0 => time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
            _ => "-".to_owned(),
        };
        for (of, lost) in &self.rows {
            table.row([
                words(&of.stage),
                or(&of.source, "(several)"),
                or(&of.consumer, "(several)"),
                of.reason.clone(),
                units::exact(lost.envelopes),
                time(lost.first),
                time(lost.last),
            ]);
        }
        table.text(colour)
    }

    /// What the counters say.
    fn check(&self) -> String {
        let mut text = String::from("\n");
        if self.differences.is_empty() {
            text.push_str("The counters of all stages say the same.\n");
        }
        for ((stage, reason), (counted, told)) in &self.differences {
            let (stage, more) = (words(stage), units::exact(counted.abs_diff(*told)));
            text.push_str(&match counted > told {
                true => {
                    format!("not told apart: {more} {reason} at the {stage}, of {} counted\n", units::exact(*counted))
                }
                false => format!(
                    "told of before a restart: {more} {reason} at the {stage}, which its counter no longer has\n"
                ),
            });
        }
        if self.not_told_apart() > 0 {
            text.push_str("Losses are told every 10 s: look again if they are fresh. Reasons other than queue_full have no owner.\n");
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let losses = self.rows.iter().map(|(of, lost)| {
            json!({
                "stage": of.stage,
                "source_id": of.source,
                "consumer": of.consumer,
                "reason": of.reason,
                "envelopes": lost.envelopes,
                "first_timestamp": lost.first.to_string(),
                "last_timestamp": lost.last.to_string(),
                "advice": advice(&of.stage, &of.reason),
            })
        });
        let losses: Vec<_> = losses.collect();
        let differences = self.differences.iter().map(|((stage, reason), (counted, told))| {
            json!({ "stage": stage, "reason": reason, "counted": counted, "told": told })
        });
        let differences: Vec<_> = differences.collect();
        json!({
            "losses": losses,
            "total": self.total(),
            "compared": self.whole,
            "not_told_apart": self.not_told_apart(),
            "differences": differences,
            "unread": self.unread,
            "missing": self.missing,
        })
    }
}

/// A stage as people call it.
fn words(stage: &str) -> String {
    stage.replace('_', " ")
}

#[cfg(test)]
mod tests;
