//! Tests of `scrape`.

use std::path::Path;

use proptest::prelude::*;

use super::exposition::Problem;
use super::*;

fn read(text: &str, format: Format) -> Vec<(String, Kind, f64, String)> {
    let page = Page::parse(text.as_bytes(), format, 1_000).unwrap_or_else(|error| panic!("{text}: {error}"));
    let labels = |sample: &Sample<'_>| {
        page.labels(sample).iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    };
    page.samples().map(|sample| (sample.name.to_owned(), sample.kind, sample.value, labels(sample))).collect()
}

fn problem(text: &str, format: Format) -> (usize, Problem) {
    let error = Page::parse(text.as_bytes(), format, 3).unwrap_err();
    (error.line, error.problem)
}

#[test]
fn a_page_of_every_type() {
    let text = "# HELP depth Depth of water.\n# TYPE depth gauge\ndepth{berth=\"n\\\"1\\\\\\n\", unit = \"m\" ,} 4.25 1712345678000\n\n\
                # TYPE ships_total counter\nships_total 12\nloose\t+Inf\n# TYPE wait histogram\nwait_bucket{le=\"0.5\"} 3\n\
                wait_bucket{le=\"+Inf\"} 9\nwait_sum 14.75\nwait_count 9\n# TYPE lag summary\nlag{quantile=\"0.5\"} 0.125\nlag_sum 2\nlag_count 4\n# a remark\n";
    let expected = [
        ("depth", Kind::Gauge, 4.25, "berth=n\"1\\\n,unit=m"),
        ("ships_total", Kind::Counter, 12.0, ""),
        ("loose", Kind::Gauge, f64::INFINITY, ""),
        ("wait_bucket", Kind::Bucket, 3.0, "le=0.5"),
        ("wait_bucket", Kind::Bucket, 9.0, "le=+Inf"),
        ("wait_sum", Kind::Sum, 14.75, ""),
        ("wait_count", Kind::Count, 9.0, ""),
        ("lag", Kind::Quantile, 0.125, "quantile=0.5"),
        ("lag_sum", Kind::Sum, 2.0, ""),
        ("lag_count", Kind::Count, 4.0, ""),
    ];
    assert_eq!(
        read(text, Format::Text),
        expected.map(|(name, kind, value, labels)| (name.into(), kind, value, labels.into()))
    );
}

#[test]
fn an_openmetrics_page_of_every_type() {
    let text = "# TYPE ships counter\n# UNIT ships ships\n# HELP ships Ships.\nships_total{berth=\"1\"} 12 1712345678.5 # {trace_id=\"a b\"} 1 2\nships_created{berth=\"1\"} 1712345678\n\
                # TYPE depth_metres gauge\n# UNIT depth_metres metres\ndepth_metres 4.25\n# TYPE build info\nbuild_info{version=\"1\"} 1\n\
                # TYPE door stateset\ndoor{door=\"open\"} 1\ndoor{door=\"shut\"} 0\n# TYPE size gaugehistogram\nsize_bucket{le=\"1\"} 2\nsize_gcount 2\nsize_gsum 1.5\n\
                # TYPE odd unknown\nodd 7\n# TYPE wait histogram\nwait_bucket{le=\"+Inf\"} 1 # {} 0.5\nwait_count 1\nwait_sum 0.5\nwait_created 3\n# EOF\n";
    let found = read(text, Format::OpenMetrics);
    let found: Vec<_> = found.iter().map(|(name, kind, value, _)| (name.as_str(), *kind, *value)).collect();
    let expected = [
        ("ships_total", Kind::Counter, 12.0),
        ("depth_metres", Kind::Gauge, 4.25),
        ("build_info", Kind::Part, 1.0),
        ("door", Kind::Part, 1.0),
        ("door", Kind::Part, 0.0),
        ("size_bucket", Kind::Part, 2.0),
        ("size_gcount", Kind::Part, 2.0),
        ("size_gsum", Kind::Part, 1.5),
        ("odd", Kind::Gauge, 7.0),
        ("wait_bucket", Kind::Bucket, 1.0),
        ("wait_count", Kind::Count, 1.0),
        ("wait_sum", Kind::Sum, 0.5),
    ];
    assert_eq!(found, expected);
    let page = Page::parse(text.as_bytes(), Format::OpenMetrics, 100).unwrap();
    assert_eq!(page.samples().nth(1).unwrap().unit, "metres");
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    for (text, line, expected) in [
        ("a 1\nb", 2, Problem::Cut),
        ("a 1\nb x\n", 2, Problem::Value),
        ("a\n", 1, Problem::Value),
        ("1a 1\n", 1, Problem::Name),
        ("{\"gr\u{f6}\u{df}e\"} 1\n", 1, Problem::Name),
        ("a 1 2 3\n", 1, Problem::Rest),
        ("a 1 x\n", 1, Problem::Rest),
        ("a{b} 1\n", 1, Problem::Labels),
        ("a{b=c} 1\n", 1, Problem::Labels),
        ("a{b=\"c} 1\n", 1, Problem::Labels),
        ("a{b=\"\\x\"} 1\n", 1, Problem::Labels),
        ("a{b=\"1\" c=\"2\"} 1\n", 1, Problem::Labels),
        ("a{b:=\"1\"} 1\n", 1, Problem::Labels),
        ("a{b=\"1\",b=\"2\"} 1\n", 1, Problem::LabelTwice),
        ("# TYPE a widget\n", 1, Problem::Type),
        ("# TYPE a info\n", 1, Problem::Type),
        ("# TYPE a gauge\n# TYPE a gauge\n", 2, Problem::Again),
        ("# HELP a x\n# HELP a x\n", 2, Problem::Again),
        ("a 1\n# TYPE a gauge\n", 2, Problem::Again),
        ("# TYPE a histogram\na_bucket 1\n", 2, Problem::Bound),
        ("# TYPE a histogram\na_bucket{le=\"x\"} 1\n", 2, Problem::Bound),
        ("# TYPE a summary\na 1\n", 2, Problem::Bound),
        ("a 1\nb 1\nc 1\nd 1\n", 4, Problem::TooMany),
        ("<!doctype html>\n<html>\n", 1, Problem::Html),
    ] {
        assert_eq!(problem(text, Format::Text), (line, expected), "{text}");
    }
    let labels: String = (0..129).map(|i| format!("l{i}=\"\",")).collect();
    assert_eq!(problem(&format!("a{{{labels}}} 1\n"), Format::Text), (1, Problem::ManyLabels));
    let untyped = read("# TYPE foo Counter\nfoo_total 1\n", Format::Text);
    assert_eq!(untyped[0].1, Kind::Gauge, "the counter of that type would be called foo");
    assert_eq!(problem("a 1\n", Format::OpenMetrics), (2, Problem::NoEof));
    assert_eq!(problem("# EOF\na 1\n", Format::OpenMetrics), (2, Problem::AfterEof));
    assert!(Page::parse(b"a 1\n# EOF", Format::OpenMetrics, 3).is_ok(), "the last line feed is not needed there");
    let error = Page::parse(b"a 1\nb\xff 1\n", Format::Text, 3).unwrap_err();
    assert_eq!(error.to_string(), "line 2: it is not UTF-8");
}

#[test]
fn files_are_read_as_the_original_has_them() {
    let file = TargetFile::parse("port: 9100\n").unwrap();
    assert_eq!((file.url.to_string().as_str(), file.interval), ("http://127.0.0.1:9100/metrics", None));
    let text = "port: \"9100\"\nsource_id: db\ninstance_id: \"0\"\nscheme: https\nserver_name: db.internal\npath: deep/metrics?x=1\n\
                headers: {x-a: b}\nlabels: {team: a}\nscrape_interval: 1m30s\nca_path: /ca\nclient_key_path: /key\nclient_cert_path: /cert\nunknown: 1\n";
    let file = TargetFile::parse(text).unwrap();
    assert_eq!(file.url.to_string(), "https://127.0.0.1:9100/deep/metrics?x=1");
    assert_eq!(file.interval, Some(std::time::Duration::from_secs(90)));
    assert_eq!((file.tls.server_name.as_deref(), file.headers["x-a"].as_str()), (Some("db.internal"), "b"));
    let file =
        TargetFile::parse("port: 1\nsource_id:\ninstance_id:\nscheme:\npath:\nlabels:\nheaders:\nscrape_interval:\n")
            .unwrap();
    assert_eq!((file.url.to_string().as_str(), file.source_id.as_str()), ("http://127.0.0.1:1/metrics", ""));
    for (text, part) in [
        ("port: 0\n", "\"0\" is no number from 1 to 65535"),
        ("source_id: a\n", "is no number from 1 to 65535"),
        ("port: 65536\n", "65535"),
        ("port: x\n", "65535"),
        ("port: 1\nscheme: ftp\n", "neither http nor https"),
        ("port: 1\nscrape_interval: soon\n", "no duration"),
        ("port: 1\nscrape_interval: 0s\n", "not scraped"),
        ("port: 1\nscrape_interval: -5s\n", "not scraped"),
        ("port: 1\npath: \"a b\"\n", "path"),
        ("port: [\n", "no YAML"),
        ("- 1\n", "no YAML"),
    ] {
        let error = TargetFile::parse(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn urls_are_read_and_written_back() {
    for (text, shown) in [
        ("http://127.0.0.1:9100/metrics?a=b", "http://127.0.0.1:9100/metrics?a=b"),
        ("https://db", "https://db:443/"),
        ("http://[::1]:1?x", "http://[::1]:1/?x"),
    ] {
        assert_eq!(text.parse::<TargetUrl>().unwrap().to_string(), shown);
    }
    for text in ["db:9100", "ftp://db", "http://user:canary@db/", "http://db/#canary", "http://:1/", "http://db/a b"] {
        let error = text.parse::<TargetUrl>().unwrap_err().to_string();
        assert!(!error.contains("canary"), "{text}: {error}");
    }
}

#[test]
fn the_fuzz_seeds_keep_what_is_promised() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/prom_exposition");
    let mut count = 0;
    for seed in std::fs::read_dir(&seeds).unwrap() {
        fuzz(&std::fs::read(seed.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 40, "{count} seeds in {}", seeds.display());
}

proptest! {
    #[test]
    fn any_bytes_are_a_page_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz(&bytes);
    }

    #[test]
    fn any_near_page_is_a_page_or_an_error(
        text in r#"((# (TYPE|HELP|UNIT) [a-c]{1,2}(_sum|_total)? (gauge|counter|histogram|summary|info|stateset|x)|[a-c]{1,2}(_sum|_count|_bucket|_total|_created)?(\{(le="[0-9.+Inf]{0,4}"|[a-c]="[^"]{0,3}"|unit="s"|,){0,3}\})? (-?[0-9.e+]{1,4}|NaN|\+Inf)( [0-9]{1,3})?)\n){0,9}(# EOF\n?)?"#
    ) {
        fuzz(text.as_bytes());
    }

    /// What is written as a label's value is read back, whatever it is.
    #[test]
    fn label_values_come_back(value in ".{0,20}") {
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let text = format!("a{{b=\"{escaped}\",c=\"\"}} 1\n");
        let page = Page::parse(text.as_bytes(), Format::Text, 1).unwrap();
        let sample = page.samples().next().unwrap();
        prop_assert_eq!(page.labels(sample)[0].1.as_ref(), value.as_str());
    }
}
