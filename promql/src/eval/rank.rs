//! What needs values in order: quantiles, and the greatest and the least of each group.

use std::cmp::Ordering;

/// The quantile of values, which are left sorted, NaN before all else. Between two values it is interpolated.
pub(super) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_unstable_by(|a, b| ascending(*a, *b));
    let rank = q * (values.len() - 1) as f64;
    let lower = rank.floor() as usize;
    let upper = (lower + 1).min(values.len() - 1);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}

/// By value, NaN first.
pub(super) fn ascending(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

/// By value, NaN last: as `sort` and `bottomk` order elements.
pub(super) fn least_first(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// By value descending, NaN last: as `sort_desc` and `topk` order elements.
pub(super) fn greatest_first(a: f64, b: f64) -> Ordering {
    b.partial_cmp(&a).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        let mut values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!([0.0, 0.5, 1.0].map(|q| quantile(q, &mut values)), [1.0, 2.5, 4.0]);
        assert_eq!([-0.1, 1.1].map(|q| quantile(q, &mut values)), [f64::NEG_INFINITY, f64::INFINITY]);
        assert!(quantile(0.5, &mut []).is_nan() && quantile(f64::NAN, &mut values).is_nan());
        assert_eq!(quantile(0.25, &mut [f64::NAN, 1.0, 2.0, 3.0, 4.0]), 1.0);
    }

    #[test]
    fn nan_is_sorted_to_an_end() {
        let sorted = |order: fn(f64, f64) -> Ordering| {
            let mut values = [2.0, f64::NAN, 1.0, f64::INFINITY];
            values.sort_by(|a, b| order(*a, *b));
            values.map(|value| value.to_string()).join(" ")
        };
        assert_eq!(sorted(ascending), "NaN 1 2 inf");
        assert_eq!(sorted(least_first), "1 2 inf NaN");
        assert_eq!(sorted(greatest_first), "inf 2 1 NaN");
    }
}
