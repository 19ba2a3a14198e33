//! Queries made at random, always the same: of every kind of expression, mostly such as give something.

use crate::samples::Random;

pub(crate) struct Generator(Random);

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    /// A vector, or now and then a number.
    pub(crate) fn query(&mut self) -> String {
        if self.one_in(12) { self.number(3) } else { self.vector(3) }
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.0.below(n) == 0
    }

    fn number(&mut self, depth: usize) -> String {
        match self.0.below(if depth == 0 { 3 } else { 6 }) {
            0 => self.0.pick(&["0", "1", "2.5", "-3", "100", "1e3", "0.25"]).to_owned(),
            1 => "time() % 1000".to_owned(),
            2 => "scalar(two{})".to_owned(),
            3 => format!(
                "({} {} {})",
                self.number(depth - 1),
                self.0.pick(&["+", "-", "*", "/", "%", "atan2"]),
                self.number(depth - 1)
            ),
            4 => format!("({} {} bool {})", self.number(depth - 1), self.comparison(), self.number(depth - 1)),
            _ => format!("scalar(sum({}))", self.vector(depth - 1)),
        }
    }

    fn comparison(&mut self) -> &'static str {
        self.0.pick(&["==", "!=", ">", "<", ">=", "<="])
    }

    fn vector(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.selector();
        }
        match self.0.below(16) {
            0 => self.selector(),
            1 | 2 => self.aggregation(depth - 1),
            3 => format!(
                "({} {} {})",
                self.vector(depth - 1),
                self.0.pick(&["+", "-", "*", "/", "%"]),
                self.number(depth - 1)
            ),
            4 => format!("({} {} {})", self.vector(depth - 1), self.comparison(), self.number(0)),
            5 => format!("({} {} bool {})", self.number(0), self.comparison(), self.vector(depth - 1)),
            6 => self.pair(depth - 1),
            7 => {
                let (operator, matching) =
                    (self.0.pick(&["and", "or", "unless"]), self.0.pick(&["", "on(app)", "ignoring(code)", "on()"]));
                format!("({} {operator} {matching} {})", self.vector(depth - 1), self.vector(depth - 1))
            }
            8 => {
                let function = self.0.pick(&[
                    "abs",
                    "ceil",
                    "floor",
                    "sgn",
                    "sqrt",
                    "ln",
                    "atan",
                    "timestamp",
                    "absent",
                    "hour",
                    "minute",
                    "-",
                    "sort",
                ]);
                format!("{function}({})", self.vector(depth - 1))
            }
            9 => {
                let bounds = (self.number(0), self.number(0));
                match self.0.below(4) {
                    0 => format!("clamp({}, {}, {})", self.vector(depth - 1), bounds.0, bounds.1),
                    1 => format!("clamp_min({}, {})", self.vector(depth - 1), bounds.0),
                    2 => format!("clamp_max({}, {})", self.vector(depth - 1), bounds.0),
                    _ => format!("round({}, {})", self.vector(depth - 1), bounds.0),
                }
            }
            10 => {
                let (to, from) =
                    (self.0.pick(&["x", "app", "code"]), self.0.pick(&["app", "instance", "code", "none"]));
                if self.one_in(2) {
                    format!(r#"label_replace({}, "{to}", "$1!", "{from}", "([a-b0-2]*).*")"#, self.vector(depth - 1))
                } else {
                    format!(r#"label_join({}, "{to}", "-", "{from}", "app")"#, self.vector(depth - 1))
                }
            }
            11 => format!(
                "histogram_quantile({}, rate(h_bucket{{}}{}))",
                self.0.pick(&["0.5", "0.9", "0.99"]),
                self.window()
            ),
            _ => self.over(depth - 1),
        }
    }

    fn aggregation(&mut self, depth: usize) -> String {
        let grouping = self.0.pick(&[
            "",
            " by (app)",
            " by (app, code)",
            " without (instance)",
            " without (app, code)",
            " by (none)",
        ]);
        let inner = self.vector(depth);
        match self.0.below(10) {
            0 => format!("quantile{grouping}({}, {inner})", self.0.pick(&["0.5", "0.9", "0.1"])),
            1 => format!(r#"count_values{grouping}("value", round({inner}, 100))"#),
            2 => format!("count{grouping}(topk{grouping}({}, {inner}))", self.0.pick(&["1", "2", "3"])),
            3 => format!("max{grouping}(bottomk{grouping}(2, {inner}))"),
            _ => {
                let aggregator = self.0.pick(&["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"]);
                format!("{aggregator}{grouping}({inner})")
            }
        }
    }

    fn pair(&mut self, depth: usize) -> String {
        let operator = self.0.pick(&["+", "-", "*", "/", ">", "<=", "== bool", "!="]);
        match self.0.below(4) {
            0 => format!("(sum by (app) ({}) {operator} max by (app) ({}))", self.vector(depth), self.vector(depth)),
            1 => format!("(c{{}}{} {operator} on(app) group_left(version) info{{}})", self.shift()),
            2 => format!("(info{{}} {operator} on(app) group_right c{{}}{})", self.shift()),
            _ => format!("({} {operator} ignoring(code) {})", self.vector(depth), self.vector(depth)),
        }
    }

    fn over(&mut self, depth: usize) -> String {
        let range = if depth > 0 && self.one_in(4) {
            let step = self.0.pick(&["", "1m", "30s", "17s"]);
            format!("({})[{}:{step}]{}", self.vector(depth - 1), self.0.pick(&["2m", "10m"]), self.shift())
        } else {
            format!(
                "{}{}{}",
                self.0.pick(&["c{}", "g{}", "c{app=\"a\"}", "jitter{}", "sparse{}", "h_bucket{le=\"1\"}"]),
                self.window(),
                self.shift()
            )
        };
        match self.0.below(12) {
            0 => format!("quantile_over_time({}, {range})", self.0.pick(&["0.5", "0.9", "0", "1"])),
            // Where `@` makes Prometheus move the window, see the differences.
            1 if !range.contains('@') => format!("predict_linear({range}, {})", self.number(0)),
            2 => format!("holt_winters({range}, 0.{}, 0.{})", 1 + self.0.below(9), 1 + self.0.below(9)),
            3..=5 => format!("{}({range})", self.0.pick(&["rate", "increase", "irate", "delta", "idelta"])),
            _ => {
                let functions = [
                    "avg_over_time",
                    "sum_over_time",
                    "min_over_time",
                    "max_over_time",
                    "count_over_time",
                    "last_over_time",
                    "present_over_time",
                    "stddev_over_time",
                    "stdvar_over_time",
                    "changes",
                    "resets",
                    "deriv",
                    "absent_over_time",
                ];
                format!("{}({range})", self.0.pick(&functions))
            }
        }
    }

    fn window(&mut self) -> String {
        format!("[{}]", self.0.pick(&["1m", "5m", "45s", "10m", "23s", "1h"]))
    }

    fn selector(&mut self) -> String {
        let selector = self.0.pick(&[
            "c{}",
            "c{app=\"a\"}",
            "c{code=\"500\"}",
            "c{app=~\"a|c\",instance!=\"1\"}",
            "g{}",
            "g{zone=\"\"}",
            "g{app!~\"b\"}",
            "info{}",
            "one{}",
            "sparse{}",
            "jitter{}",
            "h_bucket{app=\"a\"}",
            "{__name__=~\"early|later\"}",
            "flat{}",
        ]);
        format!("{selector}{}", self.shift())
    }

    fn shift(&mut self) -> String {
        let at = if self.one_in(8) {
            self.0.pick(&[" @ 1700003000", " @ start()", " @ end()", " @ 1700001234.567"])
        } else {
            ""
        };
        let offset = if self.one_in(4) {
            self.0.pick(&[" offset 1m", " offset 7m30s", " offset -2m", " offset 45s"])
        } else {
            ""
        };
        format!("{at}{offset}")
    }
}
