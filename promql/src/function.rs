//! The functions: their names, what they give, and which code computes them.

use crate::eval::date::Civil;
use crate::tree::{Kind, Node};

/// A function, by what kind of code computes it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Function {
    Absent,
    AbsentOverTime,
    /// With both bounds, or one.
    Clamp,
    ClampMax,
    ClampMin,
    /// A part of a date, of the value as seconds since the epoch; without argument of the time of the step.
    Date(fn(Civil) -> f64),
    HistogramQuantile,
    LabelJoin,
    LabelReplace,
    /// A number for a number.
    Map(fn(f64) -> f64),
    /// Of native histograms, which there are none of.
    Native,
    /// Over the window of a range vector.
    Over(Over),
    Pi,
    Round,
    Scalar,
    Sort {
        descending: bool,
    },
    Time,
    Timestamp,
    Vector,
}

/// A function over the samples of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Avg,
    Changes,
    Count,
    Delta,
    Deriv,
    First,
    HoltWinters,
    Idelta,
    Increase,
    Irate,
    Last,
    Mad,
    Max,
    Min,
    PredictLinear,
    Present,
    Quantile,
    Rate,
    Resets,
    Stddev,
    Stdvar,
    Sum,
}

/// The name that newer versions of Prometheus, and the grammar, have for `holt_winters`.
pub(crate) const SMOOTHING: &str = "double_exponential_smoothing";

/// By name. Those that Prometheus 2.42 does not have come last.
const TABLE: [(&str, Function); 73] = [
    ("abs", Function::Map(f64::abs)),
    ("absent", Function::Absent),
    ("absent_over_time", Function::AbsentOverTime),
    ("acos", Function::Map(f64::acos)),
    ("acosh", Function::Map(f64::acosh)),
    ("asin", Function::Map(f64::asin)),
    ("asinh", Function::Map(f64::asinh)),
    ("atan", Function::Map(f64::atan)),
    ("atanh", Function::Map(f64::atanh)),
    ("avg_over_time", Function::Over(Over::Avg)),
    ("ceil", Function::Map(f64::ceil)),
    ("changes", Function::Over(Over::Changes)),
    ("clamp", Function::Clamp),
    ("clamp_max", Function::ClampMax),
    ("clamp_min", Function::ClampMin),
    ("cos", Function::Map(f64::cos)),
    ("cosh", Function::Map(f64::cosh)),
    ("count_over_time", Function::Over(Over::Count)),
    ("day_of_month", Function::Date(Civil::day_of_month)),
    ("day_of_week", Function::Date(Civil::day_of_week)),
    ("day_of_year", Function::Date(Civil::day_of_year)),
    ("days_in_month", Function::Date(Civil::days_in_month)),
    ("deg", Function::Map(|value| value * 180.0 / std::f64::consts::PI)),
    ("delta", Function::Over(Over::Delta)),
    ("deriv", Function::Over(Over::Deriv)),
    ("exp", Function::Map(f64::exp)),
    ("floor", Function::Map(f64::floor)),
    ("histogram_count", Function::Native),
    ("histogram_fraction", Function::Native),
    ("histogram_quantile", Function::HistogramQuantile),
    ("histogram_sum", Function::Native),
    ("holt_winters", Function::Over(Over::HoltWinters)),
    ("hour", Function::Date(Civil::hour)),
    ("idelta", Function::Over(Over::Idelta)),
    ("increase", Function::Over(Over::Increase)),
    ("irate", Function::Over(Over::Irate)),
    ("label_join", Function::LabelJoin),
    ("label_replace", Function::LabelReplace),
    ("last_over_time", Function::Over(Over::Last)),
    ("ln", Function::Map(f64::ln)),
    ("log10", Function::Map(f64::log10)),
    ("log2", Function::Map(f64::log2)),
    ("max_over_time", Function::Over(Over::Max)),
    ("min_over_time", Function::Over(Over::Min)),
    ("minute", Function::Date(Civil::minute)),
    ("month", Function::Date(Civil::month)),
    ("pi", Function::Pi),
    ("predict_linear", Function::Over(Over::PredictLinear)),
    ("present_over_time", Function::Over(Over::Present)),
    ("quantile_over_time", Function::Over(Over::Quantile)),
    ("rad", Function::Map(|value| value * std::f64::consts::PI / 180.0)),
    ("rate", Function::Over(Over::Rate)),
    ("resets", Function::Over(Over::Resets)),
    ("round", Function::Round),
    ("scalar", Function::Scalar),
    ("sgn", Function::Map(sign)),
    ("sin", Function::Map(f64::sin)),
    ("sinh", Function::Map(f64::sinh)),
    ("sort", Function::Sort { descending: false }),
    ("sort_desc", Function::Sort { descending: true }),
    ("sqrt", Function::Map(f64::sqrt)),
    ("stddev_over_time", Function::Over(Over::Stddev)),
    ("stdvar_over_time", Function::Over(Over::Stdvar)),
    ("sum_over_time", Function::Over(Over::Sum)),
    ("tan", Function::Map(f64::tan)),
    ("tanh", Function::Map(f64::tanh)),
    ("time", Function::Time),
    ("timestamp", Function::Timestamp),
    ("vector", Function::Vector),
    ("year", Function::Date(Civil::year)),
    ("first_over_time", Function::Over(Over::First)),
    ("histogram_avg", Function::Native),
    ("mad_over_time", Function::Over(Over::Mad)),
];

impl Function {
    /// The function of a name, and the name.
    pub(crate) fn named(name: &str) -> Option<(&'static str, Self)> {
        let name = if name == SMOOTHING { "holt_winters" } else { name };
        TABLE.into_iter().find(|(other, _)| *other == name)
    }

    pub(crate) fn gives(self) -> Kind {
        match self {
            Self::Pi | Self::Scalar | Self::Time => Kind::Scalar,
            _ => Kind::Vector,
        }
    }

    /// Whether the result depends on the time of the step even where the arguments do not.
    pub(crate) fn tells_time(self, args: &[Node]) -> bool {
        match self {
            Self::Time | Self::Timestamp | Self::Over(Over::PredictLinear) => true,
            Self::Date(_) => args.is_empty(),
            _ => false,
        }
    }
}

impl Over {
    /// Whether the result is one of the samples, so that the metric keeps its name.
    pub(crate) fn keeps_name(self) -> bool {
        matches!(self, Self::First | Self::Last)
    }
}

fn sign(value: f64) -> f64 {
    match value {
        v if v > 0.0 => 1.0,
        v if v < 0.0 => -1.0,
        v => v,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_knows_every_function_and_gives_what_we_give() {
        for (name, function) in TABLE {
            let tells = |error: &str| error.contains("unknown function");
            let written = if name == "holt_winters" { SMOOTHING } else { name };
            if let Err(error) = promql_parser::parser::parse(&format!("{written}()")) {
                assert!(!tells(&error), "{name}: {error}");
            }
            let scalar = matches!(name, "pi" | "scalar" | "time");
            assert_eq!(function.gives() == Kind::Scalar, scalar, "{name}");
        }
    }
}
