//! The report for people: one row per load, and in words what a row has no room for.

use std::fmt::Write as _;

use super::{
    Agents, Comparison, Drained, Drains, Dropped, Idle, Latency, Lines, Machine, Read, Report, Run, Spread,
    Subscriptions, Tails, Usage, Written,
};
use crate::ledger::Account;
use crate::run::Plan;

impl Report {
    /// The report for people.
    pub fn table(&self) -> String {
        let Machine { processor, cores, kernel } = &self.machine;
        let mut text = format!("{}: {processor}, {cores} cores, Linux {kernel}\n", self.scenario);
        if let Some(run) = self.all_runs().next() {
            text.push_str(&said(&run.plan));
        }
        let mut rows = vec![COLUMNS.map(str::to_owned)];
        rows.extend(self.all_runs().map(row));
        if rows.len() > 1 {
            text.push('\n');
            text.push_str(&aligned(&rows));
        }
        self.all_runs().for_each(|run| notes(run, &mut text));
        if let Some(comparison) = &self.comparison {
            let Comparison { subject, yardstick, complete, cpu, throughput, runs } = comparison;
            // Writing to a String cannot fail.
            let _ = write!(text, "\n{subject} / {yardstick}, {complete} of {} pairs of runs lost nothing", runs.len());
            if *complete > 0 {
                let _ = writeln!(text, "; median of these (smallest to largest):");
                let _ = writeln!(text, "  CPU per envelope  {}", shown(cpu));
                let _ = writeln!(text, "  envelopes/s       {}", shown(throughput));
            } else {
                let _ = writeln!(text, ": nothing to compare; choose a lower --rate");
            }
        }
        if let Some(idle) = &self.idle {
            let Idle { seconds, cpu_percent, rss_bytes, peak_rss_bytes } = idle;
            let _ = writeln!(
                text,
                "\nidle for {seconds:.0} s: {cpu_percent:.2} % of a core, {} MiB resident, {} MiB at most",
                mebibytes(*rss_bytes),
                mebibytes(*peak_rss_bytes)
            );
        }
        if let Some(Agents { agents, bytes_each, reconnects, seconds }) = &self.agents {
            let _ = writeln!(
                text,
                "\n{agents} idle agents: {:.1} KiB of the doppler's memory each; {reconnects} others came and went in {seconds} s",
                *bytes_each as f64 / 1024.0
            );
        }
        if let Some(Tails { tails, bytes_each, upstream, cpu_percent }) = self.tails {
            let _ = writeln!(
                text,
                "{tails} tails: {:.1} KiB of the traffic controller's memory each, {upstream} streams from dopplers, \
                 {cpu_percent:.1} % of a core in all roles",
                bytes_each as f64 / 1024.0
            );
        }
        for Subscriptions { idle, seconds, bytes_each } in &self.subscriptions {
            let _ = writeln!(
                text,
                "{idle} idle subscriptions opened in {seconds:.2} s: {:.1} KiB of the doppler's memory each",
                *bytes_each as f64 / 1024.0
            );
        }
        for drained in &self.drained {
            let Drained { received, lines, dropped } = *drained;
            let [received, lines, dropped] = [received, lines, dropped].map(grouped);
            let exact = if drained.is_exact() { "" } else { "; NOT ACCOUNTED FOR" };
            let _ = writeln!(text, "the drain received {received}: {lines} lines arrived, {dropped} dropped{exact}");
        }
        if let Some(drains) = &self.drains {
            many(drains, &mut text);
        }
        if let Some(written) = &self.written {
            samples(written, &mut text);
        }
        if let Some(lines) = &self.lines {
            statsd(lines, &mut text);
        }
        for Read { what, count, latency: Latency { p50_ms, p99_ms, p999_ms, max_ms } } in &self.reads {
            let _ = writeln!(
                text,
                "{what}: {} reads, p50 / p99 / p99.9 / max {p50_ms:.2} / {p99_ms:.2} / {p999_ms:.2} / {max_ms:.1} ms",
                grouped(*count)
            );
        }
        text
    }
}

fn many(drains: &Drains, text: &mut String) {
    let Drains { drains: count, dead, seconds, account, latency, cpu_percent, idle_bytes_each, bytes_each, .. } =
        drains;
    let Latency { p50_ms, p99_ms, p999_ms, max_ms } = latency;
    let kib = |bytes: &u64| *bytes as f64 / 1024.0;
    let exact = if drains.is_exact() { "" } else { "; NOT ACCOUNTED FOR" };
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{count} drains, {dead} of them dead, a line a second each for {seconds:.0} s: {cpu_percent:.0} % of a core; {:.1} KiB of memory \
         each before the first line, {:.1} KiB at the end",
        kib(idle_bytes_each),
        kib(bytes_each),
    );
    let _ = writeln!(
        text,
        "of those alive {} lines were sent, {} missing, {} twice{exact}; p50 / p99 / p99.9 / max {p50_ms:.1} / {p99_ms:.1} / {p999_ms:.1} / {max_ms:.1} ms",
        grouped(account.issued),
        grouped(account.missing),
        grouped(account.duplicates),
    );
}

fn samples(written: &Written, text: &mut String) {
    let Written { to, seconds, sent, delivered, dropped, counted, requests, bytes, bad, cpu_us, peak_rss_bytes } =
        written;
    let exact = if written.is_exact() { "" } else { "; NOT ACCOUNTED FOR" };
    let _ = writeln!(
        text,
        "{} samples to {to} in {seconds:.2} s: {}/s delivered, {} dropped{exact}; {cpu_us:.2} us of the adapters' CPU each, {} MiB at most",
        grouped(*sent),
        grouped((*delivered as f64 / seconds) as u64),
        grouped(*dropped),
        mebibytes(*peak_rss_bytes),
    );
    if let (Some(counted), Some(requests), Some(bytes)) = (counted, requests, bytes) {
        let _ = writeln!(
            text,
            "the receiver counted {} in {} requests of {} B each; {bad} could not be read",
            grouped(*counted),
            grouped(*requests),
            grouped(bytes / (*requests).max(1)),
        );
    }
}

fn statsd(lines: &Lines, text: &mut String) {
    let Lines {
        mapping,
        each,
        seconds,
        lines: count,
        datagrams,
        read,
        kernel_drops,
        envelopes,
        dropped,
        received,
        cpu_us,
        peak_rss_bytes,
    } = lines;
    let exact = if lines.is_exact() { "" } else { "; NOT ACCOUNTED FOR" };
    let _ = writeln!(
        text,
        "{} lines of statsd, {each} a datagram, mapping {mapping}: {}/s; {cpu_us:.2} us of the agent's CPU each, {} MiB at most",
        grouped(*count),
        grouped((*count as f64 / seconds) as u64),
        mebibytes(*peak_rss_bytes),
    );
    let _ = writeln!(
        text,
        "{} datagrams: {} read, {} dropped by the kernel; {} envelopes: {} at the doppler, {} dropped{exact}",
        grouped(*datagrams),
        grouped(*read),
        grouped(*kernel_drops),
        grouped(*envelopes),
        grouped(*received),
        grouped(*dropped),
    );
}

const COLUMNS: [&str; 12] = [
    "run",
    "sent",
    "received",
    "missing",
    "dropped",
    "residual",
    "dup",
    "reord",
    "envelopes/s",
    "p50 / p99 / p99.9 / max ms",
    "CPU/envelope",
    "peak memory",
];

/// What a load was, in a sentence.
fn said(plan: &Plan) -> String {
    let rate = plan.rate.map_or("as fast as it goes".to_owned(), |rate| format!("{}/s", grouped(rate.get())));
    format!(
        "{} envelopes of {} B with {} tags, {rate}, in batches of {}; {} senders on {} connections; {} groups of {}\n",
        grouped(plan.count),
        plan.shape.payload_bytes,
        plan.shape.tags,
        plan.batch,
        plan.senders,
        plan.connections,
        plan.groups,
        plan.members,
    )
}

/// Counts are over all groups.
fn row(run: &Run) -> [String; 12] {
    let sum = |count: fn(&Account) -> u64| grouped(run.groups.iter().map(|group| count(&group.account)).sum());
    let dropped = run.dropped.iter().map(|dropped| dropped.count * u64::from(dropped.groups)).sum();
    let Latency { p50_ms, p99_ms, p999_ms, max_ms } = run.latency();
    let each = |value: fn(&Usage) -> String| run.servers.iter().map(value).collect::<Vec<_>>().join(" + ");
    [
        run.label.clone(),
        sum(|account| account.issued),
        sum(|account| account.unique),
        grouped(run.missing()),
        grouped(dropped),
        run.residual.to_string(),
        sum(|account| account.duplicates),
        sum(|account| account.reorders),
        grouped(run.per_second as u64),
        format!("{p50_ms:.2} / {p99_ms:.2} / {p999_ms:.2} / {max_ms:.1}"),
        format!("{} ns", each(|usage| format!("{:.0}", usage.cpu_ns_per_envelope))),
        format!("{} MiB", each(|usage| mebibytes(usage.peak_rss_bytes))),
    ]
}

/// What a row has no room for: drops by hop and reason, and what went wrong.
fn notes(run: &Run, text: &mut String) {
    let mut note = |words: String| {
        let _ = writeln!(text, "{}: {words}", run.label);
    };
    for Dropped { server, stage, reason, count, groups } in &run.dropped {
        note(format!("{server} dropped {} at {stage}, {reason} (each missing in {groups} groups)", grouped(*count)));
    }
    for (i, group) in run.groups.iter().enumerate() {
        let Account { invented, corrupt, foreign, .. } = group.account;
        if invented + corrupt > 0 {
            note(format!("group {i} got {invented} envelopes that were never sent and {corrupt} that were changed"));
        }
        if foreign > 0 {
            note(format!("group {i} also got {foreign} envelopes of others"));
        }
        group.errors.iter().for_each(|error| note(format!("group {i}: stream ended: {error}")));
    }
    if !run.dropped.is_empty() {
        note(format!("{:.0} ms after the server had taken everything the last envelope arrived", run.drained_ms));
    }
    run.errors.iter().for_each(|error| note(error.clone()));
    if run.residual != 0 {
        note(format!("NOT ACCOUNTED FOR: {} envelopes are missing that no server says it dropped", run.residual));
    }
}

/// Columns side by side: the first to the left, the others to the right.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: Vec<usize> = (0..N).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let _ = write!(text, "{:<width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
    text
}

fn shown(spread: &Spread) -> String {
    format!("{:.2} ({:.2} to {:.2})", spread.median, spread.min, spread.max)
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / (1024.0 * 1024.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
