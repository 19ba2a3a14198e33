//! What a timer's values were between two flushes, in Etsy's terms. Pure.

/// The values that are kept of a series, and how many there were.
#[derive(Debug, Default)]
pub(super) struct Values {
    kept: Vec<f64>,
    /// Values that came.
    came: u64,
    /// What they stand for: each its sample rate's inverse.
    count: f64,
}

/// Their summary. All but `count` and `count_ps` are of the values that came, sampled or not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Summary {
    pub(super) entries: [(&'static str, f64); 14],
}

impl Values {
    /// Adds one that stands for `weight` of them. Of more than `max` a random sample is kept, in which each of them is with the same
    /// probability; `random` gives a number below its argument. False if one was not kept.
    pub(super) fn add(&mut self, value: f64, weight: f64, max: usize, random: impl FnOnce(u64) -> u64) -> bool {
        self.came += 1;
        self.count += weight;
        if self.kept.len() < max {
            self.kept.push(value);
            return true;
        }
        let at = random(self.came);
        if let Some(place) = usize::try_from(at).ok().and_then(|at| self.kept.get_mut(at)) {
            *place = value;
        }
        false
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// The summary of what came in `seconds`, and starts again; `None` if nothing did.
    pub(super) fn take(&mut self, seconds: f64) -> Option<Summary> {
        let count = std::mem::take(&mut self.count);
        self.came = 0;
        if self.kept.is_empty() {
            return None;
        }
        self.kept.sort_unstable_by(f64::total_cmp);
        let summary = Summary::of(&self.kept, count, seconds);
        self.kept.clear();
        // A burst's room is not kept for ever.
        self.kept.shrink_to(64);
        Some(summary)
    }
}

impl Summary {
    /// Of values in ascending order, of which there is at least one.
    fn of(values: &[f64], count: f64, seconds: f64) -> Self {
        let squares = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>();
        let number = values.len() as f64;
        let sum: f64 = values.iter().sum();
        let mean = sum / number;
        let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / number).sqrt();
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        // Half a value counts as one; a lone value is all there is.
        let within = ((0.9 * number + 0.5).floor() as usize).clamp(1, values.len());
        let within = &values[..within];
        let sum_90: f64 = within.iter().sum();
        let (lower, upper) = (values[0], values[values.len() - 1]);
        Self {
            entries: [
                ("count", count),
                ("count_ps", count / seconds),
                ("lower", lower),
                ("upper", upper),
                ("sum", sum),
                ("sum_squares", squares(values)),
                ("mean", mean),
                ("median", median),
                ("std", deviation),
                ("count_90", within.len() as f64),
                ("mean_90", sum_90 / within.len() as f64),
                ("upper_90", within[within.len() - 1]),
                ("sum_90", sum_90),
                ("sum_squares_90", squares(within)),
            ],
        }
    }
}

/// True if an entry of a summary has the unit of the values.
pub(super) fn has_unit(entry: &str) -> bool {
    !entry.starts_with("count") && !entry.starts_with("sum_squares")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(summary: &Summary, name: &str) -> f64 {
        summary.entries.iter().find(|(entry, _)| *entry == name).unwrap().1
    }

    #[test]
    fn ten_values_in_any_order() {
        let mut values = Values::default();
        for value in [450.0, 120.0, 553.0, 994.0, 334.0, 844.0, 675.0, 496.0, 5.0, 1.0] {
            assert!(values.add(value, 2.0, 10, |_| unreachable!("there is room")));
        }
        let summary = values.take(10.0).unwrap();
        for (name, expected) in [
            ("count", 20.0),
            ("count_ps", 2.0),
            ("lower", 1.0),
            ("upper", 994.0),
            ("sum", 4472.0),
            ("mean", 447.2),
            ("median", 473.0),
            ("count_90", 9.0),
            ("upper_90", 844.0),
            ("sum_90", 3478.0),
        ] {
            assert_eq!(entry(&summary, name), expected, "{name}");
        }
        assert!(values.take(10.0).is_none(), "it starts again");
    }

    #[test]
    fn more_than_fit_are_counted_and_a_sample_of_them_is_kept() {
        let mut values = Values::default();
        let kept = (0..1_000).filter(|i| values.add(f64::from(*i), 1.0, 100, |below| below / 2)).count();
        assert_eq!(kept, 100);
        let summary = values.take(1.0).unwrap();
        assert_eq!(entry(&summary, "count"), 1_000.0);
        assert_eq!(entry(&summary, "count_90"), 90.0);
        assert!(entry(&summary, "upper") >= 100.0, "later values take the place of earlier ones");
    }
}
