//! The samples that both have: made by a seeded generator, always the same.

use hydrant_promql::{Labels, NAME, Sample, Series};

/// When they begin, in milliseconds; they go on for two hours.
pub(crate) const START: i64 = 1_700_000_000_000;

const SPACING: i64 = 15_000;
const COUNT: i64 = 480;

/// A generator of numbers that are always the same (xorshift).
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// In [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() % (1 << 40)) as f64 / (1_u64 << 40) as f64
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// All series, in the order in which Prometheus meets them.
pub(crate) fn all() -> Vec<Series> {
    let mut random = Random::new(7);
    let mut all = Vec::new();
    for app in ["a", "b", "c"] {
        for instance in ["0", "1", "2"] {
            for code in ["200", "500"] {
                all.push(counter(&mut random, &[("app", app), ("instance", instance), ("code", code)]));
            }
            all.push(gauge("g", &mut random, &[("app", app), ("instance", instance)]));
        }
        all.extend(histogram("h_bucket", &mut random, app, &["0.1", "0.5", "1", "2.5", "10", "+Inf"]));
        all.push(steady(
            "info",
            &[("app", app), ("version", ["1.0", "1.1", "2.0"][(app.as_bytes()[0] - b'a') as usize])],
            1.0,
        ));
    }
    // Without +Inf, with two spellings of a bound, with one that is none.
    all.extend(histogram("odd_bucket", &mut random, "a", &["1", "2"]));
    all.extend(histogram("odd_bucket", &mut random, "b", &["1", "1.0", "2", "+Inf"]));
    all.extend(histogram("odd_bucket", &mut random, "c", &["1", "x", "+Inf"]));
    all.extend(histogram("odd_bucket", &mut random, "d", &["+Inf"]));
    all.extend(histogram("odd_bucket", &mut random, "e", &["-1", "0", "+Inf"]));
    all.push(gauge("g", &mut random, &[("app", "a"), ("instance", "0"), ("zone", "z1")]));
    all.push(gauge("weird", &mut random, &[("path", "/a/b?c=d"), ("note", "x-y_z.1"), ("empty", "")]));
    all.push(gauge("weird", &mut random, &[("path", "/long\nline"), ("note", "quote\"back\\slash")]));
    all.push(steady("one", &[], 1.0));
    all.push(steady("two", &[], 2.0));
    all.push(steady("flat", &[("app", "a")], 42.5));
    all.push(special(&mut random, &[("app", "nan")], &[f64::NAN, 1.0, 2.0]));
    all.push(special(&mut random, &[("app", "inf")], &[f64::INFINITY, 3.0, -4.0]));
    all.push(special(&mut random, &[("app", "both")], &[f64::INFINITY, f64::NEG_INFINITY, 5.0]));
    all.push(special(&mut random, &[("app", "allnan")], &[f64::NAN]));
    all.push(special(&mut random, &[("app", "allinf")], &[f64::INFINITY]));
    all.push(special(&mut random, &[("app", "huge")], &[1e308, -1e308, 1e300, 1.0]));
    all.push(special(&mut random, &[("app", "tiny")], &[1e-310, 0.0, -0.0, 1e-5]));
    // Seven minutes apart: there and not there.
    all.push(series("sparse", &[("app", "a")], (0..17).map(|i| (i * 420_000, i as f64))));
    // One goes where the other comes, under names that an operator drops.
    all.push(series("early", &[("app", "a")], (0..120).map(|i| (i * SPACING, 10.0 + i as f64))));
    all.push(series("later", &[("app", "a")], (200..400).map(|i| (i * SPACING, 20.0 - i as f64))));
    // Not on whole seconds, and not evenly.
    all.push(series("jitter", &[("app", "a")], (0..300).map(|i| (i * 21_337 + (i * i * 7) % 977, (i % 37) as f64))));
    all.push(series("single", &[("app", "a")], [(3_600_000, 7.0)]));
    let times = [0.0, 951_782_400.0, 951_868_799.0, 1_709_164_800.0, -1.0, -86_401.5, 4_102_444_800.0, 1_704_067_199.9];
    all.push(series("dates", &[], (0..COUNT).map(|i| (i * SPACING, times[i as usize % times.len()]))));
    all.push(gauge("other", &mut random, &[("source_id", "t"), ("app", "a"), ("instance", "0")]));
    all.push(gauge("g", &mut random, &[("source_id", "t"), ("app", "a"), ("instance", "0")]));
    all
}

/// A series with the source `s` unless another is named; times count from the start.
fn series(name: &str, labels: &[(&str, &str)], samples: impl IntoIterator<Item = (i64, f64)>) -> Series {
    let labels = [(NAME, name)].into_iter().chain(labels.iter().copied()).chain([("source_id", "s")]);
    let samples = samples.into_iter().map(|(at, value)| Sample { at: START + at, value });
    Series { labels: Labels::new(labels), samples: samples.collect() }
}

fn steady(name: &str, labels: &[(&str, &str)], value: f64) -> Series {
    series(name, labels, (0..COUNT).map(|i| (i * SPACING, value)))
}

/// Grows, falls back to zero now and then, and misses samples.
fn counter(random: &mut Random, labels: &[(&str, &str)]) -> Series {
    let mut value = random.below(100) as f64;
    let mut samples = Vec::new();
    for i in 0..COUNT {
        value += random.below(50) as f64;
        if random.below(60) == 0 {
            value = random.below(5) as f64;
        }
        if random.below(20) != 0 && !(200..235).contains(&i) {
            samples.push((i * SPACING, value));
        }
    }
    series("c", labels, samples)
}

fn gauge(name: &str, random: &mut Random, labels: &[(&str, &str)]) -> Series {
    let mut samples = Vec::new();
    for i in 0..COUNT {
        let value = random.unit() * 200.0 - 60.0;
        if random.below(25) != 0 {
            samples.push((i * SPACING, value));
        }
    }
    series(name, labels, samples)
}

fn special(random: &mut Random, labels: &[(&str, &str)], values: &[f64]) -> Series {
    let samples: Vec<_> = (0..COUNT).map(|i| (i * SPACING, values[random.below(values.len())])).collect();
    series("special", labels, samples)
}

fn histogram(name: &str, random: &mut Random, app: &str, bounds: &[&str]) -> Vec<Series> {
    let mut counts = vec![0.0; bounds.len()];
    let mut samples = vec![Vec::new(); bounds.len()];
    for i in 0..COUNT {
        for _ in 0..random.below(8) {
            let first = random.below(bounds.len());
            counts[first..].iter_mut().for_each(|count| *count += 1.0);
        }
        counts.iter().zip(&mut samples).for_each(|(count, samples)| samples.push((i * SPACING, *count)));
    }
    let buckets = bounds.iter().zip(samples);
    buckets.map(|(bound, samples)| series(name, &[("app", app), ("le", bound)], samples)).collect()
}
