//! Tests of `preset`.

use super::*;
use crate::config::DrainConfig;

/// How the lines of a drain with these keys look, or what is wrong.
fn style(url: &str, more: &str) -> Result<Style, String> {
    let text = format!("name = \"x\"\nurl = \"{url}\"\n{more}");
    let drain: DrainConfig = toml::from_str(&text).map_err(|error| error.to_string())?;
    let config = crate::Config { drains: vec![drain], ..crate::Config::default() };
    config.check().map_err(|error| error.to_string())?;
    config.drains[0].style().map_err(|error| error.to_string())
}

#[test]
fn without_a_word_lines_are_those_of_the_contract() {
    assert_eq!(style("syslog://h:1", ""), Ok(Style::default()));
    assert_eq!(style("syslog-tls://h:1", ""), Ok(Style::default()));
    let datagrams = Style { framing: Framing::Datagram, max_bytes: Some(2048), ..Style::default() };
    assert_eq!(style("syslog-udp://h:1", ""), Ok(datagrams));
}

#[test]
fn a_preset_fills_in_what_its_receiver_expects() {
    let lines = Style { framing: Framing::LineFeed, ..Style::default() };
    let zulu = Style { zulu: true, ..lines.clone() };
    assert_eq!(style("syslog://h:1", "preset = \"splunk\""), Ok(lines));
    let papertrail = Style { max_bytes: Some(100_000), ..zulu.clone() };
    assert_eq!(style("syslog-tls://h:1", "preset = \"papertrail\""), Ok(papertrail.clone()));
    let datagrams = Style { framing: Framing::Datagram, max_bytes: Some(1024), ..papertrail };
    assert_eq!(style("syslog-udp://h:1", "preset = \"papertrail\""), Ok(datagrams));
    let loggly = "preset = \"loggly\"\ntoken = \"a-1\"\nlabels = [\"prod\", \"web\"]";
    let element = "a-1@41058 tag=\"prod\" tag=\"web\"".to_owned();
    assert_eq!(style("syslog-tls://h:1", loggly), Ok(Style { element, ..zulu.clone() }));
    let logz = Style { prefix: "[a-1] ".to_owned(), element: "type=hydrant".to_owned(), ..zulu };
    assert_eq!(style("syslog-tls://h:1", "preset = \"logz\"\ntoken = \"a-1\""), Ok(logz.clone()));
    let typed = "preset = \"logz\"\ntoken = \"a-1\"\nlabels = [\"rails\"]";
    assert_eq!(style("syslog://h:1", typed), Ok(Style { element: "type=rails".to_owned(), ..logz }));
}

#[test]
fn what_the_table_says_wins() {
    let more = "preset = \"papertrail\"\nline = { framing = \"octet-counting\", zone = \"+00:00\", max_bytes = 500 }";
    assert_eq!(style("syslog://h:1", more), Ok(Style { max_bytes: Some(500), ..Style::default() }));
    let element = "line = { framing = \"line-feed\", zone = \"Z\", element = \"t@1 x=\\\"y\\\"\" }";
    let expected =
        Style { framing: Framing::LineFeed, zulu: true, element: "t@1 x=\"y\"".to_owned(), ..Style::default() };
    assert_eq!(style("syslog://h:1", element), Ok(expected));
}

#[test]
fn a_token_may_stand_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let more = format!("preset = \"loggly\"\ntoken_file = '{}'", file.display());
    assert!(style("syslog://h:1", &more).unwrap_err().contains("No such file"));
    std::fs::write(&file, "secret-1 \nmore\n").unwrap();
    assert_eq!(style("syslog://h:1", &more).unwrap().element, "secret-1@41058");
    std::fs::write(&file, "not a token\n").unwrap();
    let error = style("syslog://h:1", &more).unwrap_err();
    assert!(error.ends_with("the token may hold letters, digits, \"-\", \".\" and \"_\" only"), "{error}");
    std::fs::write(&file, vec![b'x'; 5000]).unwrap();
    assert!(style("syslog://h:1", &more).unwrap_err().contains("it has 5000 bytes"));
}

#[test]
fn what_does_not_go_together_is_said() {
    let error = |url: &str, more: &str| style(url, more).unwrap_err();
    let tcp = |more: &str| error("syslog://h:1", more);
    assert_eq!(
        tcp("preset = \"loggly\""),
        "drains: the drain \"x\": the preset loggly needs the token of your account; set token_file, or token"
    );
    assert!(tcp("token = \"canary\"").ends_with("token and token_file go with the presets loggly and logz"));
    assert!(tcp("labels = [\"a\"]").ends_with("labels go with the presets loggly and logz"));
    let loggly = |more: &str| tcp(&format!("preset = \"loggly\"\ntoken = \"a\"\n{more}"));
    assert!(loggly("token_file = \"/x\"").ends_with("keep one"));
    assert!(loggly("labels = [\"a b\"]").contains("labels may hold letters"));
    assert!(loggly("line.element = \"a@1\"").ends_with("keep one"));
    assert!(tcp("preset = \"logz\"\ntoken = \"a\"\nlabels = [\"a\", \"b\"]").contains("takes one label"));
    assert!(tcp("line.element = \"a]\"").contains("without brackets"));
    assert!(tcp("line.max_bytes = 479").contains("at least 480"));
    assert!(tcp("preset = \"graylog\"").contains("`papertrail`"));
    assert!(tcp("line.framing = \"newline\"").contains("`line-feed`"));
    let udp = |more: &str| error("syslog-udp://h:1", more);
    assert!(udp("line.max_bytes = 65508").contains("480 to 65507"));
    assert!(udp("line.framing = \"line-feed\"").contains("syslog:// and syslog-tls:// only"));
    assert!(error("https://h", "preset = \"splunk\"").contains("presets are for syslog"));
    let canary = "preset = \"loggly\"\ntoken = \"canary canary\"\nline = {}";
    assert!(!tcp(canary).contains("canary"), "{}", tcp(canary));
}

#[test]
fn a_token_is_never_shown() {
    let text =
        "name = \"x\"\nurl = \"syslog://h:1\"\npreset = \"loggly\"\ntoken = \"canary\"\nline.element = \"canary\"";
    let drain: DrainConfig = toml::from_str(text).unwrap();
    let dumped = serde_json::to_string(&drain).unwrap();
    assert!(!format!("{drain:?}{dumped}").contains("canary"), "{drain:?}{dumped}");
}
