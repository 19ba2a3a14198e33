//! What evaluating costs: a rate over 100,000 samples, and a sum over 1,000 series at 300 steps; beside them what is slow by nature.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hydrant_promql::{Labels, Limits, Query, Sample, Series, Span};

const SPACING: i64 = 15_000;

/// Series of counters that are reset now and then.
fn series(count: usize, samples: usize) -> Vec<Series> {
    let one = |i: usize| {
        let labels = [
            ("__name__", "x".to_owned()),
            ("source_id", "s".to_owned()),
            ("l", (i % 10).to_string()),
            ("i", i.to_string()),
        ];
        let sample = |n: usize| Sample { at: n as i64 * SPACING, value: ((n + i) % 977) as f64 * 1.5 };
        Series { labels: Labels::new(labels), samples: (0..samples).map(sample).collect() }
    };
    (0..count).map(one).collect()
}

fn benches(c: &mut Criterion) {
    let limits = Limits { samples: 10_000_000, ..Limits::default() };
    let mut group = c.benchmark_group("evaluate");
    for (name, query, count, samples, steps) in [
        ("rate/100_series_x_1000_samples", "rate(x{source_id=\"s\"}[5m])", 100, 1_000, 300),
        ("rate/1_series_x_100000_samples", "rate(x{source_id=\"s\"}[5m])", 1, 100_000, 11_000),
        ("sum_by/1000_series_x_300_steps", "sum by (l) (x{source_id=\"s\"})", 1_000, 300, 300),
        ("sum_by_rate/1000_series_x_300_steps", "sum by (l) (rate(x{source_id=\"s\"}[5m]))", 1_000, 300, 300),
        ("topk/1000_series_x_300_steps", "topk(5, x{source_id=\"s\"})", 1_000, 300, 300),
        ("ratio/1000_series_x_300_steps", "x{source_id=\"s\"} / on (l, i) x{source_id=\"s\"}", 1_000, 300, 300),
        ("instant/sum_by_rate_1000_series", "sum by (l) (rate(x{source_id=\"s\"}[5m]))", 1_000, 21, 1),
    ] {
        let parsed = Query::parse(query, &limits).expect("a query");
        let end = samples as i64 * SPACING;
        let span = if steps == 1 {
            Span::instant(end)
        } else {
            Span::range(0, end, end / (steps - 1), &limits).expect("a range")
        };
        let data: Vec<_> = parsed.selects(&span).iter().map(|_| series(count, samples)).collect();
        group.throughput(Throughput::Elements((count * samples) as u64));
        group.bench_function(name, |b| {
            b.iter_batched(
                || data.clone(),
                |data| parsed.evaluate(black_box(&span), data, &limits, &|| false),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
    let text = "sum by (app) (rate(http_requests{source_id=\"s\",code=~\"5..\"}[5m])) / on (app) group_left sum by (app) (rate(http_requests{source_id=\"s\"}[5m])) > 0.1";
    c.bench_function("parse", |b| b.iter(|| Query::parse(black_box(text), &limits)));
}

criterion_group!(evaluate, benches);
criterion_main!(evaluate);
