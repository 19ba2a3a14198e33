//! Binary operators and aggregators: their names, and what operators make of two numbers.

/// A binary operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterEqual,
    LessEqual,
    And,
    Or,
    Unless,
}

impl Operator {
    const NAMES: [(&'static str, Self); 16] = [
        ("+", Self::Add),
        ("-", Self::Sub),
        ("*", Self::Mul),
        ("/", Self::Div),
        ("%", Self::Mod),
        ("^", Self::Pow),
        ("atan2", Self::Atan2),
        ("==", Self::Equal),
        ("!=", Self::NotEqual),
        (">", Self::Greater),
        ("<", Self::Less),
        (">=", Self::GreaterEqual),
        ("<=", Self::LessEqual),
        ("and", Self::And),
        ("or", Self::Or),
        ("unless", Self::Unless),
    ];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(other, _)| *other == name).map(|(_, operator)| *operator)
    }

    pub(crate) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, other)| *other == self).map_or("", |(name, _)| name)
    }

    pub(crate) fn is_comparison(self) -> bool {
        matches!(self, Self::Equal | Self::NotEqual | Self::Greater | Self::Less | Self::GreaterEqual | Self::LessEqual)
    }

    pub(crate) fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }

    /// The result of arithmetic; `None` where a comparison does not hold, else its left operand. Set operators look at no numbers.
    pub(crate) fn apply(self, left: f64, right: f64) -> Option<f64> {
        let holds = match self {
            Self::Add => return Some(left + right),
            Self::Sub => return Some(left - right),
            Self::Mul => return Some(left * right),
            Self::Div => return Some(left / right),
            Self::Mod => return Some(left % right),
            Self::Pow => return Some(left.powf(right)),
            Self::Atan2 => return Some(left.atan2(right)),
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Greater => left > right,
            Self::Less => left < right,
            Self::GreaterEqual => left >= right,
            Self::LessEqual => left <= right,
            Self::And | Self::Or | Self::Unless => true,
        };
        holds.then_some(left)
    }
}

/// What an aggregation makes of each group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aggregator {
    Sum,
    Avg,
    Count,
    Min,
    Max,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    Quantile,
    CountValues,
}

impl Aggregator {
    const NAMES: [(&'static str, Self); 12] = [
        ("sum", Self::Sum),
        ("avg", Self::Avg),
        ("count", Self::Count),
        ("min", Self::Min),
        ("max", Self::Max),
        ("group", Self::Group),
        ("stddev", Self::Stddev),
        ("stdvar", Self::Stdvar),
        ("topk", Self::Topk),
        ("bottomk", Self::Bottomk),
        ("quantile", Self::Quantile),
        ("count_values", Self::CountValues),
    ];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(other, _)| *other == name).map(|(_, aggregator)| *aggregator)
    }

    pub(crate) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, other)| *other == self).map_or("", |(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_is_that_of_floats() {
        let cases = [
            (Operator::Mod, 5.0, 3.0, 2.0),
            (Operator::Mod, -5.0, 3.0, -2.0),
            (Operator::Mod, 5.5, -2.0, 1.5),
            (Operator::Pow, 2.0, -1.0, 0.5),
            (Operator::Div, 1.0, 0.0, f64::INFINITY),
            (Operator::Atan2, 1.0, 1.0, std::f64::consts::FRAC_PI_4),
        ];
        for (operator, left, right, result) in cases {
            assert_eq!(operator.apply(left, right), Some(result), "{left} {} {right}", operator.name());
        }
        assert!(Operator::Mod.apply(1.0, 0.0).is_some_and(f64::is_nan));
    }

    #[test]
    fn comparisons_keep_the_left_operand() {
        assert_eq!(Operator::Less.apply(1.0, 2.0), Some(1.0));
        assert_eq!(Operator::Less.apply(2.0, 2.0), None);
        assert_eq!(Operator::NotEqual.apply(f64::NAN, f64::NAN).map(f64::is_nan), Some(true));
        assert_eq!(Operator::Equal.apply(f64::NAN, f64::NAN), None);
    }

    #[test]
    fn names_are_found_again() {
        for (name, operator) in Operator::NAMES {
            assert_eq!((Operator::named(name), operator.name()), (Some(operator), name));
        }
        for (name, aggregator) in Aggregator::NAMES {
            assert_eq!((Aggregator::named(name), aggregator.name()), (Some(aggregator), name));
        }
    }
}
