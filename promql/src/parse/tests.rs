//! What is a query and what is none, and in which words that is told.

use super::*;
use crate::select::Select;
use crate::span::Span;

fn parse(text: &str, limits: &Limits) -> Result<Query, ParseError> {
    super::parse(text, &[], limits)
}

fn query(text: &str) -> Query {
    parse(text, &Limits::default()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> String {
    parse(text, &Limits::default()).err().unwrap_or_else(|| panic!("{text} is fine")).to_string()
}

fn sources(text: &str) -> Vec<String> {
    query(text).sources().map(str::to_owned).collect()
}

#[test]
fn queries_print_as_they_were_written() {
    for text in [
        r#"x{source_id="s"}"#,
        r#"x{source_id=~"a|b",code!="200",path=~"/a\\.b",name!~"x"}"#,
        r#"{source_id="s",__name__=~"a|b"}"#,
        r#"x{source_id="s"} @ 1.500 offset -5m"#,
        r#"x{source_id="s"}[5m] @ end() offset 1h30m"#,
        r#"rate(x{source_id="s"}[5m])[1h:30s] @ start()"#,
        r#"max_over_time((x{source_id="s"} > 1)[1h:])"#,
        r#"sum by (a, b) (x{source_id="s"})"#,
        r#"topk without (a) (3, x{source_id="s"})"#,
        r#"x{source_id="s"} / on (a) group_left (b) y{source_id="s"}"#,
        r#"x{source_id="s"} == bool ignoring (a) y{source_id="s"}"#,
        r#"x{source_id="s"} and y{source_id="s"} unless z{source_id="s"}"#,
        r#"label_replace(x{source_id="s"}, "a", "$1", "b", "(.*)")"#,
        r#"-(1 + 2) ^ -x{source_id="s"} * Inf - NaN"#,
        r#"holt_winters(x{source_id="s"}[5m], 0.5, 1e-7)"#,
        r#"fill{source_id="s"} + smoothed{source_id="s"} + ::x{source_id="s"}"#,
        r#"sum by ("bad.label", fill, anchored) (x{source_id="s","bad.label"="v"})"#,
        r#"time() + pi()"#,
        r#""a\"\\\n\u0001""#,
    ] {
        assert_eq!(query(text).to_string(), text);
    }
    assert_eq!(query("SUM(x{source_id='s',} ) BY(a)").to_string(), r#"sum by (a) (x{source_id="s"})"#);
    assert_eq!(query("x{source_id=`s`}[1h30m0s:60s]").to_string(), r#"x{source_id="s"}[1h30m:1m]"#);
    assert_eq!(query("0x10 + 010 + 1_e".trim_end_matches("1_e").trim_end_matches("+ ")).to_string(), "16 + 8");
}

#[test]
fn selectors_that_name_no_source_take_the_usual_ones() {
    let printed = |text: &str, usual: &[&str]| {
        let usual: Vec<String> = usual.iter().map(|source| (*source).to_owned()).collect();
        super::parse(text, &usual, &Limits::default()).map(|query| query.to_string()).map_err(|error| error.to_string())
    };
    let said = |text: &str| Ok(text.to_owned());
    assert_eq!(printed("sum(rate(x[1m]))", &["a"]), said(r#"sum(rate(x{source_id="a"}[1m]))"#));
    assert_eq!(printed(r#"x + y{source_id="b",c="d"}"#, &["a", "b", "a"]), {
        said(r#"x{source_id=~"a|b"} + y{source_id="b",c="d"}"#)
    });
    assert_eq!(printed(r#"x{source_id!="b"}"#, &["a", "b", "c"]), said(r#"x{source_id=~"a|c"}"#));
    assert_eq!(printed("x", &[]).unwrap_err(), error("x"));
    assert_eq!(printed("x +", &["a"]).unwrap_err(), error("x +"));
}

#[test]
fn sources_are_named_by_literals() {
    assert_eq!(sources(r#"x{source_id="b"} + y{source_id=~"c|a|b"}"#), ["a", "b", "c"]);
    // Alternatives are no patterns, and need be none.
    assert_eq!(sources(r#"x{source_id=~"app-.*|a[b|"}"#), ["", "a[b", "app-.*"]);
    assert_eq!(sources(r#"x{source_id="a|b"}"#), ["a|b"]);
    assert_eq!(sources("1 + 1"), [""; 0]);
    // All matchers hold at once.
    assert_eq!(sources(r#"x{source_id=~"a|b|c",source_id=~"b|c|d",source_id!="c"}"#), ["b"]);
    assert_eq!(sources(r#"x{source_id=~"a1|a2|b",source_id!~"a.*"}"#), ["b"]);
    assert_eq!(sources(r#"x{source_id="a",source_id="b"}"#), [""; 0]);
}

#[test]
fn selectors_without_sources_are_refused() {
    for text in ["x", "x{}", r#"x{source_id!="a"}"#, r#"x{source_id!~"a"}"#, "x[5m]", "1 + x", r#"sum(x{a="b"})"#] {
        let expected = "metric 'x' does not have a 'source_id' label";
        assert!(error(text).starts_with(expected), "{text}: {}", error(text));
    }
    assert!(error(r#"y{source_id="s"} + x"#).starts_with("metric 'x'"));
    assert!(error(r#"{__name__="x"}"#).starts_with("metric 'x'"));
    assert!(error(r#"{a="b"}"#).starts_with("metric ''"));
    assert!(error(r#"{source_id=""}"#).contains("must contain at least one non-empty matcher"));
}

#[test]
fn sources_are_exchanged() {
    let two = query(r#"x{source_id="app"} / sum(x{source_id=~"app|b"})"#);
    let exchanged =
        two.with_sources(|id| if id == "app" { vec!["g2".into(), "g1".into(), "app".into()] } else { vec![id.into()] });
    assert_eq!(exchanged.to_string(), r#"x{source_id=~"app|g1|g2"} / sum(x{source_id=~"app|b|g1|g2"})"#);
    assert_eq!(exchanged.sources().collect::<Vec<_>>(), ["app", "b", "g1", "g2"]);
    assert_eq!(two.sources().collect::<Vec<_>>(), ["app", "b"], "a query does not change");
    let none = two.with_sources(|_| Vec::new());
    assert_eq!((none.sources().count(), none.selects(&Span::instant(0))[0].sources.len()), (0, 0));
    assert!(parse(&none.to_string(), &Limits::default()).is_err(), "{none}");
    let one = two.with_sources(|_| vec!["a|b".into()]);
    assert_eq!(one.to_string(), r#"x{source_id="a|b"} / sum(x{source_id="a|b"})"#);
}

fn windows(text: &str, span: &Span) -> Vec<(i64, i64)> {
    query(text).selects(span).iter().map(|Select { start, end, .. }| (*start, *end)).collect()
}

#[test]
fn windows_are_what_is_looked_at() {
    let at = Span::instant(10_000_000);
    let range = Span::range(10_000_000, 10_090_000, 60_000, &Limits::default()).unwrap();
    let s = |text: &str| text.replace("{}", r#"{source_id="s"}"#);
    for (text, instant, steps) in [
        ("x{}", (9_700_000, 10_000_000), (9_700_000, 10_060_000)),
        ("x{}[1m]", (9_940_000, 10_000_000), (9_940_000, 10_060_000)),
        ("x{}[1m] offset 1m", (9_880_000, 9_940_000), (9_880_000, 10_000_000)),
        ("x{}[1m] offset -1m", (10_000_000, 10_060_000), (10_000_000, 10_120_000)),
        ("x{}[1m] @ 5", (-55_000, 5_000), (-55_000, 5_000)),
        ("x{}[1m] @ end() offset 1m", (9_880_000, 9_940_000), (9_970_000, 10_030_000)),
        ("x{}[1m] @ start()", (9_940_000, 10_000_000), (9_940_000, 10_000_000)),
        // Steps of subqueries are multiples of their step.
        ("x{}[2m:1m]", (9_600_000, 9_960_000), (9_600_000, 10_020_000)),
        ("rate(x{}[1m])[2m:1m] offset 1m", (9_780_000, 9_900_000), (9_780_000, 9_960_000)),
        ("max_over_time(rate(x{}[1m])[2m:])[2m:7s]", (9_720_000, 9_960_000), (9_720_000, 10_020_000)),
        ("(x{} @ 5)[2m:1m] offset 1m", (-295_000, 5_000), (-295_000, 5_000)),
        ("(x{} @ end())[2m:1m] @ 7", (9_700_000, 10_000_000), (9_790_000, 10_090_000)),
    ] {
        assert_eq!(windows(&s(text), &at), [instant], "{text}");
        assert_eq!(windows(&s(text), &range), [steps], "{text}");
    }
    let both = windows(&s("topk(scalar(x{}[1m:1m] offset 1m or x{}), y{})").replace("[1m:1m]", ""), &at);
    assert_eq!(both.len(), 3, "in the order in which they are written");
    let empty = Span::range(10, 9, 1, &Limits::default()).unwrap();
    assert!(windows(&s("x{} + max_over_time(x{}[1m:1s])"), &empty).iter().all(|(start, end)| start > end));
}

#[test]
fn extremes_of_time_saturate() {
    for span in [Span::instant(i64::MAX), Span::instant(i64::MIN)] {
        for text in [
            "x{} offset 292y",
            "x{} offset -292y",
            "x{}[292y] @ -9e15 offset 292y",
            "x{} @ 9e15 offset -292y",
            "max_over_time(x{}[292y:1ms])",
            "max_over_time(x{}[292y:292y] offset -292y)",
        ] {
            let windows = windows(&text.replace("{}", r#"{source_id="s"}"#), &span);
            assert!(windows.iter().all(|(start, end)| start <= end || (*start, *end) == (1, 0)), "{text}: {windows:?}");
        }
    }
}

#[test]
fn errors_tell_the_place_and_what_is_wrong() {
    for (text, expected) in [
        ("", "parse error: no expression found in input"),
        ("# x", "parse error: no expression found in input"),
        ("1 +", "1:3: parse error: unexpected end of input"),
        ("1\n + )", "2:4: parse error: unexpected right parenthesis ')'"),
        ("sum(1", "1:5: parse error: unclosed left parenthesis"),
        ("1 2", "1:3: parse error: unexpected number"),
        ("a b", "1:3: parse error: unexpected identifier \"b\""),
        ("x{a=b}", "1:5: parse error: unexpected token in label matching, expected string"),
        ("x{a=~\"[\"}", "1:6: parse error: error parsing regexp: missing closing ]"),
        ("x{__name__=\"y\"}", "1:3: parse error: metric name must not be set twice: \"x\" and in braces"),
        ("x[5]", "1:3: parse error: missing unit character in duration"),
        ("x[5m", "1:3: parse error: unclosed left bracket"),
        ("x[0s]", "1:3: parse error: duration must be greater than 0"),
        ("x[300y]", "1:3: parse error: duration out of range"),
        ("x offset", "1:3: parse error: unexpected end of input in offset, expected duration"),
        ("x offset 5", "1:10: parse error: unexpected token in offset, expected duration"),
        ("x @ 1e300", "1:5: parse error: timestamp out of bounds for @ modifier: 1000000000000000"),
        ("x @ NaN", "1:5: parse error: timestamp out of bounds for @ modifier: NaN"),
        ("5m", "1:1: parse error: unexpected duration \"5m\""),
        ("\"x", "1:1: parse error: unterminated quoted string"),
        ("'\\q'", "1:2: parse error: unknown escape sequence 'q'"),
        ("1 ! 2", "1:3: parse error: unexpected character: '!'"),
        ("é", "1:1: parse error: unexpected character: 'é'"),
        ("1.2.3", "1:1: parse error: bad number or duration syntax: \"1.2.3\""),
        ("nonsense(x{source_id=\"s\"})", "parse error: unknown function with name \"nonsense\""),
        (
            "rate(x{source_id=\"s\"})",
            "parse error: expected type range vector in call to function \"rate\", got instant vector",
        ),
        ("exp(Inf)", "parse error: expected type instant vector in call to function \"exp\", got scalar"),
        ("limitk(1, x{source_id=\"s\"})", "1:1: parse error: unknown function with name \"limitk\""),
        ("1 == 1", "parse error: comparisons between scalars must use BOOL modifier"),
    ] {
        assert!(error(text).starts_with(expected), "{text}: {}", error(text));
    }
}

#[test]
fn text_and_nesting_are_bounded() {
    let limits = Limits { query_bytes: 20, ..Limits::default() };
    assert!(parse(&"1".repeat(20), &limits).is_ok());
    assert_eq!(parse(&"1".repeat(21), &limits).unwrap_err(), ParseError::TooLong { limit: 20 });
    let deep = |n: usize| format!("{}1{}", "(".repeat(n), ")".repeat(n));
    assert!(parse(&deep(32), &Limits::default()).is_ok());
    let wide = Limits { query_bytes: 1 << 20, ..Limits::default() };
    let too_deep = ParseError::TooDeep { limit: 32 };
    for text in [
        deep(33),
        deep(10_000),
        "(".repeat(100_000),
        format!("{}1", "-".repeat(100_000)),
        format!("1{}", "+1".repeat(100_000)),
        format!("1{}", "^1".repeat(100_000)),
        format!("x{{source_id=\"s\"}}{}", "[1m:]".repeat(100_000)),
        "sum(".repeat(10_000),
        format!("{}1", "sum by (a) (-".repeat(10_000)),
    ] {
        assert_eq!(parse(&text, &wide).unwrap_err(), too_deep, "{}", &text[..text.len().min(40)]);
    }
    // Operators beside each other, in arguments of their own, are not within each other.
    assert!(parse(&format!("1{}", "+1".repeat(255)), &wide).is_ok());
    assert!(parse(&format!("1{}", "+1".repeat(256)), &wide).is_err());
    let arguments = vec!["1+1+1"; 300].join(",");
    assert!(error(&format!("time({arguments})")).contains("expected 0 argument(s)"));
}

#[test]
fn expressions_are_bounded() {
    let of = |pattern: &str| format!("x{{source_id=\"s\",a=~\"{pattern}\"}}");
    let large = ParseError::LargePattern { limit: 256 };
    assert!(parse(&of(&"a".repeat(256)), &Limits::default()).is_ok());
    assert_eq!(parse(&of(&"a".repeat(257)), &Limits::default()).unwrap_err(), large);
    assert_eq!(parse(&of("((a{100}){100}){100}"), &Limits::default()).unwrap_err(), large);
    let many = |n: usize| format!("x{{source_id=\"s\"{}}}", ",a=~\"b.\"".repeat(n));
    assert!(parse(&many(32), &Limits::default()).is_ok());
    assert_eq!(parse(&many(33), &Limits::default()).unwrap_err(), large);
    let replaced = (0..2).fold(many(31), |text, _| format!("label_replace({text}, \"a\", \"\", \"b\", \"c.\")"));
    assert_eq!(parse(&replaced, &Limits::default()).unwrap_err(), large);
}

#[test]
fn numbers_and_durations_of_any_size_are_read_or_refused() {
    for (text, number) in [
        ("1e999", "Inf"),
        ("99999999999999999999", "1e20"),
        ("0", "0"),
        ("0e0", "0"),
        ("1e-999", "0"),
        ("00", "0"),
        ("01e1", "10"),
        ("0x7fffffffffffffff", "9.223372036854776e18"),
    ] {
        assert_eq!(query(text).to_string(), number, "{text}");
    }
    for text in [
        "x[1e300s]",
        "x[99999999999999999999s]",
        "x[99999999999s]",
        "x offset 1e999",
        "x offset Inf",
        "0xffffffffffffffffff",
        "0x",
        "x[NaN]",
    ] {
        error(text);
    }
    assert_eq!(query(r#"x{source_id="s"}[5000000s]"#).selects(&Span::instant(0))[0].start, -5_000_000_000);
}
