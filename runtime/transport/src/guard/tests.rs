//! The rule against the headers that browsers, tools and attackers send.

use http::HeaderValue;

use super::*;

const LOOPBACK: &str = "127.0.0.1:8081";

fn check(rule: &LocalOnly, target: &str, headers: &[(&'static str, &str)]) -> Result<(), Refusal> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    rule.check(&target.parse().unwrap(), &map)
}

fn local() -> LocalOnly {
    LocalOnly::on(LOOPBACK.parse().unwrap())
}

#[test]
fn loopback_names_pass_with_and_without_port() {
    for host in [
        "localhost",
        "localhost:8081",
        "LOCALHOST:8081",
        "LocalHost",
        "127.0.0.1",
        "127.0.0.1:8081",
        "127.0.0.1:9",
        "127.1.2.3:80",
        "127.255.255.254",
        "[::1]",
        "[::1]:8081",
        "[0:0:0:0:0:0:0:1]:8081",
        "[::ffff:127.0.0.1]:1",
    ] {
        assert_eq!(check(&local(), "/", &[("host", host)]), Ok(()), "{host}");
    }
}

#[test]
fn rebound_and_foreign_names_are_refused() {
    for host in [
        "evil.example",
        "evil.example:8081",
        "localhost.evil.example",
        "127.0.0.1.nip.io:8081",
        "evil-localhost",
        "notlocalhost",
        "localhost.",
        "app.localhost:8081",
        "localhost.localdomain",
        "0.0.0.0:8081",
        "0",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "128.0.0.1",
        "192.168.0.1:8081",
        "[::]:8081",
        "[::2]",
        "[fe80::1]",
        "[::ffff:10.0.0.1]:80",
        "xn--lcalhost-n4a",
    ] {
        assert_eq!(check(&local(), "/", &[("host", host)]), Err(Refusal::NotLoopback), "{host}");
    }
}

#[test]
fn a_host_that_is_missing_doubled_or_unreadable_is_refused() {
    assert_eq!(check(&local(), "/", &[]), Err(Refusal::NoHost));
    let twice = [("host", "localhost"), ("host", "localhost")];
    assert_eq!(check(&local(), "/", &twice), Err(Refusal::NoHost));
    for host in [
        "",
        " ",
        ":8081",
        "localhost:",
        "localhost:port",
        "localhost:99999",
        "localhost:+80",
        "localhost, evil.example",
        "user@localhost",
        "evil.example@localhost",
        "localhost/",
        "localhost:80:80",
        "[::1",
        "::1",
        "[localhost]",
        "[::1]x",
        "http://localhost",
        "löcalhost",
        "localhost\u{a0}",
    ] {
        assert_eq!(check(&local(), "/", &[("host", host)]), Err(Refusal::NoHost), "{host:?}");
    }
}

#[test]
fn the_target_counts_as_host_and_must_agree_with_the_header() {
    assert_eq!(check(&local(), "http://localhost:8081/x", &[]), Ok(()), "HTTP/2 sends only :authority");
    assert_eq!(check(&local(), "http://evil.example/x", &[]), Err(Refusal::NotLoopback));
    let agree = [("host", "LOCALHOST:8081")];
    assert_eq!(check(&local(), "http://localhost:8081/x", &agree), Ok(()));
    let differ = [("host", "localhost:8081")];
    assert_eq!(check(&local(), "http://evil.example/x", &differ), Err(Refusal::NoHost));
    assert_eq!(check(&local(), "http://localhost:9/x", &differ), Err(Refusal::NoHost));
}

#[test]
fn only_the_page_served_here_may_be_the_origin() {
    let with = |host: &'static str, origin: &str| check(&local(), "/", &[("host", host), ("origin", origin)]);
    for (host, origin) in [
        ("localhost:8081", "http://localhost:8081"),
        ("localhost:8081", "HTTP://LOCALHOST:8081"),
        ("127.0.0.1:8081", "http://127.0.0.1:8081"),
        ("[::1]:8081", "http://[::1]:8081"),
        ("[::1]:8081", "http://[0:0:0:0:0:0:0:1]:8081"),
        ("localhost", "http://localhost"),
        ("localhost", "http://localhost:80"),
        ("localhost:80", "http://localhost"),
        // As nozzles name their WebSocket URL.
        ("localhost:8081", "ws://localhost:8081"),
    ] {
        assert_eq!(with(host, origin), Ok(()), "{host} {origin}");
    }
    for origin in [
        "null",
        "",
        "http://evil.example",
        "http://evil.example:8081",
        "https://localhost:8081",
        "http://localhost:8082",
        "http://localhost",
        "http://127.0.0.1:8081",
        "http://[::1]:8081",
        "http://localhost:8081/",
        "localhost:8081",
        "http://localhost:8081@evil.example",
        "http://evil.example@localhost:8081",
        "http://localhost.:8081",
        "http://localhost:8081 http://evil.example",
        "file://",
        "chrome-extension://abcdefghijkl",
        "ws://localhost:8082",
        "ws://evil.example:8081",
        "wss://localhost:8081",
        "http://app.localhost:8081",
        "http://localhost:08081x",
        "http://lócalhost:8081",
    ] {
        assert_eq!(with("localhost:8081", origin), Err(Refusal::OtherOrigin), "{origin:?}");
    }
    let twice = [("host", "localhost:8081"), ("origin", "http://localhost:8081"), ("origin", "http://localhost:8081")];
    assert_eq!(check(&local(), "/", &twice), Err(Refusal::OtherOrigin));
}

#[test]
fn over_tls_the_origin_is_https() {
    let rule = local().over_tls();
    let with = |host: &'static str, origin| check(&rule, "/", &[("host", host), ("origin", origin)]);
    assert_eq!(with("localhost:8081", "https://localhost:8081"), Ok(()));
    assert_eq!(with("localhost", "https://localhost:443"), Ok(()));
    assert_eq!(with("localhost:8081", "http://localhost:8081"), Err(Refusal::OtherOrigin));
}

#[test]
fn a_page_rebound_to_this_port_is_refused_though_its_origin_equals_its_host() {
    let headers = [("host", "evil.example:8081"), ("origin", "http://evil.example:8081")];
    assert_eq!(check(&local(), "/firehose/x", &headers), Err(Refusal::NotLoopback));
}

#[test]
fn on_another_address_the_probes_take_any_host_and_nothing_else_does() {
    let rule = LocalOnly::on("0.0.0.0:14825".parse().unwrap());
    let foreign = [("host", "10.1.2.3:14825")];
    assert_eq!(check(&rule, "/live", &foreign), Ok(()));
    assert_eq!(check(&rule, "/ready?verbose", &foreign), Ok(()));
    for path in ["/metrics", "/", "/live/", "/livex", "//live", "/ready/../metrics"] {
        assert_eq!(check(&rule, path, &foreign), Err(Refusal::NotLoopback), "{path}");
    }
    assert_eq!(check(&rule, "/live", &[]), Err(Refusal::NoHost));
    let page = [("host", "10.1.2.3:14825"), ("origin", "http://evil.example")];
    assert_eq!(check(&rule, "/live", &page), Err(Refusal::OtherOrigin));

    let open = rule.opening("/metrics");
    assert_eq!(check(&open, "/metrics", &foreign), Ok(()));
    assert_eq!(check(&open, "/other", &foreign), Err(Refusal::NotLoopback));
}

#[test]
fn on_loopback_the_probes_are_guarded_too() {
    let foreign = [("host", "evil.example")];
    assert_eq!(check(&local(), "/live", &foreign), Err(Refusal::NotLoopback));
    let mapped = LocalOnly::on("[::ffff:127.0.0.1]:80".parse().unwrap());
    assert_eq!(check(&mapped, "/ready", &foreign), Err(Refusal::NotLoopback));
}
