//! Tests of `config`.

use super::*;

fn options(query: &str) -> Options {
    DrainUrl::parse(&format!("syslog://drain:514?{query}")).unwrap().options
}

fn error(text: &str) -> String {
    DrainUrl::parse(text).unwrap_err().to_string()
}

#[test]
fn kinds_follow_the_table() {
    let both = Kinds::LOGS.and(Kinds::METRICS);
    for (query, kinds) in [
        ("", Kinds::LOGS_AND_EVENTS),
        ("drain-type=logs", Kinds::LOGS),
        ("drain-type=metrics", Kinds::METRICS),
        ("drain-type=all", both),
        ("drain-type=LOGS", Kinds::LOGS_AND_EVENTS),
        ("drain-data=logs", Kinds::LOGS_AND_EVENTS),
        ("drain-data=metrics", Kinds::METRICS),
        ("drain-data=traces", Kinds::TIMERS),
        ("drain-data=all", Kinds::ALL),
        ("drain-data=", Kinds::LOGS_AND_EVENTS),
        ("Drain-Data=all", Kinds::LOGS_AND_EVENTS),
        ("drain-data=logs,metrics", Kinds::LOGS_AND_EVENTS),
        ("drain-type=all&drain-data=metrics", Kinds::METRICS),
        ("drain-data=metrics&drain-type=all", Kinds::METRICS),
        ("drain-data=traces&drain-data=all", Kinds::TIMERS),
        ("include-metrics-deprecated=false&drain-data=logs", Kinds::ALL),
        ("include-metrics-deprecated=", Kinds::LOGS_AND_EVENTS),
        ("drain%2Ddata=%61ll", Kinds::ALL),
    ] {
        assert_eq!(options(query).kinds, kinds, "{query}");
    }
}

#[test]
fn metadata_is_said_by_the_first_option_that_is_not_empty() {
    for (query, metadata) in [
        ("", None),
        ("disable-metadata=true", Some(false)),
        ("disable-metadata=false", Some(true)),
        ("disable-metadata=TRUE", None),
        ("omit-metadata=true", Some(false)),
        ("disable-metadata=false&omit-metadata=true", Some(true)),
        ("omit-metadata=false&disable-metadata=true", Some(false)),
        ("disable-metadata=&omit-metadata=true", Some(false)),
        ("disable-metadata=1&omit-metadata=true", None),
    ] {
        assert_eq!(options(query).metadata, metadata, "{query}");
    }
}

#[test]
fn log_types_compare_what_stands_before_the_first_slash() {
    let only = options("include-log-types=app,%20rtr").log_types;
    for (source_type, passes) in [
        (Some("APP/PROC/WEB"), true),
        (Some("app"), true),
        (Some("RTR"), true),
        (Some("STG"), false),
        (Some("X"), false),
        (None, false),
    ] {
        assert_eq!(only.admits(source_type), passes, "{source_type:?}");
    }
    let except = options("exclude-log-types=STG").log_types;
    for (source_type, passes) in [(Some("STG/1"), false), (Some("APP"), true), (Some("X"), true), (None, true)] {
        assert_eq!(except.admits(source_type), passes, "{source_type:?}");
    }
}

#[test]
fn values_without_effect_are_remarked_on() {
    let remarks = |query: &str| DrainUrl::parse(&format!("syslog://drain:514?{query}")).unwrap().remarks().to_vec();
    assert!(remarks("drain-data=all&omit-metadata=true&include-log-types=APP&token=x").is_empty());
    assert_eq!(
        remarks("drain-data=log"),
        ["drain-data has a value that is none of logs, metrics, traces, all; it has no effect"]
    );
    assert!(remarks("drain-type=ALL")[0].starts_with("drain-type has"));
    assert!(remarks("disable-metadata=yes")[0].starts_with("disable-metadata is neither true nor false"));
    assert!(remarks("include-log-types=APP,WEB")[0].contains("the types are API, STG"));
}

#[test]
fn each_mistake_says_what_is_right() {
    assert_eq!(error("drain:514"), format!("the drain URL has no scheme; write {SCHEMES}"));
    assert_eq!(error("http://drain:514"), format!("the drain URL's scheme is \"http\"; write {SCHEMES}"));
    assert_eq!(
        error("syslog://drain"),
        "the drain URL has no port, and syslog has no default one; write syslog://drain:514"
    );
    assert!(error("syslog-tls://drain").ends_with("write syslog-tls://drain:6514"), "{}", error("syslog-tls://drain"));
    assert!(error("syslog://drain:none").contains("from 1 to 65535"));
    assert!(error("syslog://:514").contains("no usable host"));
    assert!(error(&format!("syslog://drain:514/{}", "p".repeat(2048))).contains("at most 2048"));
    assert!(error("syslog://d:1?include-log-types=APP&exclude-log-types=RTR").contains("keep one of them"));
    assert!(
        error("syslog://d:1?include-log-types=WEB")
            .contains("include-log-types names no known type; the types are API")
    );
}

#[test]
fn requests_have_a_port_and_a_target_of_their_own() {
    let parse = |text: &str| DrainUrl::parse(text).unwrap();
    let url = parse("https://us%20er:p%40ss@logs.example/in/put?drain-data=all&token=a%20b#part");
    assert_eq!((url.scheme, url.address.to_string().as_str()), (Scheme::Https, "logs.example:443"));
    assert_eq!(url.target(), "/in/put?drain-data=all&token=a%20b", "with the options of the drain");
    assert_eq!(url.credentials().as_deref(), Some(&b"us er:p@ss"[..]));
    assert_eq!(url.options.kinds, Kinds::ALL);
    let bare = parse("https-batch://[::1]:8443?x=1");
    assert_eq!(
        (bare.scheme, bare.address.to_string().as_str(), bare.target()),
        (Scheme::HttpsBatch, "[::1]:8443", "/?x=1")
    );
    assert_eq!(parse("https://[::1]").address.to_string(), "[::1]:443");
    assert_eq!(parse("https://h").credentials(), None);
    assert!(error("https://h/a b").contains("must be written as %"));
    assert!(error("https:///path").contains("no usable host"), "{}", error("https:///path"));
    // A path may be a token.
    assert_eq!(parse("https://u:canary@h/canary?canary#canary").anonymised(), "https://h:443/…");
    assert_eq!(parse("https-batch://h/").to_string(), "https-batch://h:443");
}

#[test]
fn secrets_are_never_shown() {
    let text = "syslog://user:canary@drain:514/in/canary-free?token=canary&drain-data=all#canary";
    let url = DrainUrl::parse(text).unwrap();
    assert_eq!(url.anonymised(), "syslog://drain:514/in/canary-free");
    assert_eq!(url.to_string(), url.anonymised());
    let tls = DrainUrl::parse(&text.replace("syslog", "syslog-tls")).unwrap();
    assert_eq!((tls.scheme, tls.anonymised().as_str()), (Scheme::SyslogTls, "syslog-tls://drain:514/in/canary-free"));
    for shown in [format!("{url:?}"), format!("{url:#?}")] {
        assert!(!shown.contains("canary@") && !shown.contains("token") && !shown.contains("user:"), "{shown}");
    }
    for bad in [
        "https://user:canary/x@logs.example/",
        "https://user:1234/canary@logs.example",
        "syslog://user:canary#x@h:514",
        "syslog://user:canary?x@h:514",
        "syslog://user:canary@drain",
        "syslog://canary@:1",
        "syslog://a@b:x?token=canary",
        "syslog://canary@d:1?include-log-types=canary",
    ] {
        assert!(!error(bad).contains("canary"), "{}", error(bad));
    }
}

#[test]
fn collectors_get_everything_and_are_not_for_apps() {
    for scheme in ["otlp+grpc", "otlp+grpcs", "otlp+http", "otlp+https"] {
        let url = DrainUrl::parse(&format!("{scheme}://user:canary@h?drain-data=all")).unwrap();
        assert!(url.scheme.is_otlp() && !url.scheme.is_for_apps());
        assert_eq!(url.scheme.to_string(), scheme);
        assert_eq!((url.options.kinds, url.remarks()), (Kinds::ALL, &[][..]));
    }
}

#[test]
fn what_a_collector_is_not_sent_is_remarked() {
    let url = DrainUrl::parse("otlp+http://h/base/?drain-data=logs&token=canary").unwrap();
    assert_eq!((url.base(), url.options.kinds), ("/base", Kinds::LOGS_AND_EVENTS));
    assert!(url.remarks().len() == 1 && !url.remarks()[0].contains("canary"), "{:?}", url.remarks());
    assert_eq!(url.to_string(), "otlp+http://h:4318/…");
    assert!(DrainUrl::parse("otlp+grpc://h/").is_ok());
    let error = DrainUrl::parse("otlp+grpc://h/canary").unwrap_err().to_string();
    assert!(error.contains("otlp+grpc:// has none") && !error.contains("canary"), "{error}");
    assert_eq!(url.secrets(), Vec::<Vec<u8>>::new());
    let url = DrainUrl::parse("otlp+http://us%20er:p%40ss@h").unwrap();
    let secrets = ["us%20er", "us er", "p%40ss", "p@ss"].map(|text| text.as_bytes().to_vec());
    assert_eq!(url.secrets(), secrets);
}
