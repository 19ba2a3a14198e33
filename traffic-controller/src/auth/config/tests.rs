//! What is refused before anything runs, and in which words.

use super::*;

const UAA: &str =
    "url = \"https://uaa:8443\"\ncloud_controller = { url = \"https://cc:9023\" }\napi = { url = \"https://api\" }\n";
const JWKS: &str = "issuer = \"https://login.example/realms/a\"\naudience = \"hydrant\"\n";

fn config(text: &str) -> Config {
    toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> String {
    config(text).check().unwrap_err().to_string()
}

fn uaa(more: &str) -> String {
    format!("authorizer = \"uaa\"\n[uaa]\n{UAA}{more}")
}

fn jwks(more: &str) -> String {
    format!("authorizer = \"jwks\"\n[jwks]\n{JWKS}{more}")
}

#[test]
fn what_is_needed_is_enough() {
    config(&uaa("")).check().unwrap();
    config(&uaa("client_id = \"doppler\"\nclient_secret_file = \"/x\"\ncheck_token = true")).check().unwrap();
    config(&jwks("")).check().unwrap();
    let read = config(&uaa(""));
    let table = read.uaa.as_ref().unwrap();
    assert_eq!((table.cache_ttl, table.cache_entries.get(), table.check_token), (minute(), 10_000, false));
    let text = toml::to_string(&read).unwrap();
    assert_eq!(toml::from_str::<Config>(&text).unwrap(), read, "it survives a round trip");
    let read = config(&jwks(""));
    let text = toml::to_string(&read).unwrap();
    assert_eq!(toml::from_str::<Config>(&text).unwrap(), read);
}

#[test]
fn an_authorizer_and_its_table_come_together() {
    let no_table = "traffic_controller.authorizer: \"uaa\" needs the table [traffic_controller.uaa]";
    assert_eq!(refused("authorizer = \"uaa\""), no_table);
    assert!(refused("authorizer = \"jwks\"").contains("[traffic_controller.jwks]"));
    let unused = "traffic_controller.uaa: the table would not be used; set traffic_controller.authorizer = \"uaa\", \
                  or leave the table out";
    assert_eq!(refused(&format!("[uaa]\n{UAA}")), unused);
    assert!(
        refused(&format!("authorizer = \"jwks\"\n[jwks]\n{JWKS}[uaa]\n{UAA}")).starts_with("traffic_controller.uaa")
    );
    assert!(refused(&format!("tokens = \"/x\"\n{}", jwks(""))).starts_with("traffic_controller.tokens: "));
}

#[test]
fn plain_text_to_other_machines_is_a_choice_with_a_name() {
    let plain = |table: &str, key: &str| {
        config(&table.replace("https://", "http://")).check().unwrap_err().to_string()
            == format!(
                "{key} is plain text on another machine, where it can be read and changed on the way; write https://, or set {} = true",
                if key.contains(".uaa.") {
                    "traffic_controller.uaa.insecure_plaintext"
                } else {
                    "traffic_controller.jwks.insecure_plaintext"
                }
            )
    };
    assert!(plain(&uaa(""), "traffic_controller.uaa.url: http://uaa:8443"));
    assert!(plain(&jwks(""), "traffic_controller.jwks.issuer: http://login.example:80/realms/a"));
    for key in ["cc:9023", "api"] {
        let text = uaa("").replace(&format!("https://{key}"), &format!("http://{key}"));
        assert!(refused(&text).contains("insecure_plaintext = true"), "{key}");
        let chosen = config(&text.replace("[uaa]", "[uaa]\ninsecure_plaintext = true"));
        chosen.check().unwrap();
        assert_eq!(chosen.uaa.unwrap().insecure_choices().collect::<Vec<_>>(), [UAA_PLAINTEXT]);
    }
    config(&uaa("").replace("https://uaa", "http://localhost")).check().unwrap();
    assert_eq!(config(&uaa("")).uaa.unwrap().insecure_choices().count(), 0);
    let hs256 = config(&uaa("insecure_allow_hs256 = true"));
    assert_eq!(hs256.uaa.unwrap().insecure_choices().collect::<Vec<_>>(), [HS256]);
}

#[test]
fn a_client_has_one_secret() {
    for (more, text) in [
        ("client_id = \"a\"", "client_id needs its secret"),
        ("client_secret_file = \"/x\"", "the secret needs its client_id"),
        ("client_id = \"a\"\nclient_secret = \"canary\"\nclient_secret_file = \"/x\"", "keep one"),
        ("client_id = \"a:b\"\nclient_secret = \"canary\"", "without `:`"),
        ("check_token = true", "check_token needs client_id"),
    ] {
        let said = refused(&uaa(more));
        assert!(said.starts_with("traffic_controller.uaa: ") && said.contains(text), "{said}");
        assert!(!said.contains("canary"), "{said}");
    }
    let error = toml::from_str::<Config>(&uaa("client_secret = 4711")).unwrap_err();
    assert!(error.message().contains("must be a text in quotes") && !error.message().contains("4711"), "{error}");
}

#[test]
fn a_secret_is_what_stands_in_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    let table = config(&uaa(&format!("client_id = \"a\"\nclient_secret_file = '{}'", path.display()))).uaa.unwrap();
    let said = table.client().unwrap_err().to_string();
    assert!(said.contains("client_secret_file") && said.contains("No such file"), "{said}");
    for (content, expected) in [("s3cret\n", Some("s3cret")), (" a b\r\n", Some(" a b")), ("", None), ("\n", None)] {
        std::fs::write(&path, content).unwrap();
        assert_eq!(table.client().ok().flatten().map(|(_, secret)| secret).as_deref(), expected);
    }
    std::fs::write(&path, "x".repeat(5000)).unwrap();
    assert!(!table.client().unwrap_err().to_string().contains("xxx"));
}

#[test]
fn tls_and_claims_go_together_too() {
    let said = |text: &str| refused(text);
    let half = uaa("").replace("\"https://cc:9023\" }", "\"https://cc:9023\", tls = { cert = \"/x\" } }");
    assert_eq!(
        said(&half),
        "traffic_controller.uaa.cloud_controller.url: tls has one of cert and key; name both, or none"
    );
    let plain = uaa("tls = { ca = \"/x\" }").replace("https://uaa", "http://localhost");
    assert!(said(&plain).contains("does not begin with https://"));
    let name = jwks("tls = { server_name = \"not a name\" }");
    assert!(said(&name).contains("set tls.server_name"));
    assert!(said(&jwks("").replace("\"hydrant\"", "\"\"")).starts_with("traffic_controller.jwks.audience is empty; "));
    assert!(said(&jwks("sources_claim = \"\"")).contains("traffic_controller.jwks.sources_claim"));
    assert!(said(&jwks("").replace("https://", "")).starts_with("traffic_controller.jwks.issuer: the URL does not"));
    let without = toml::from_str::<Config>("[jwks]\nissuer = \"https://x\"\n").unwrap_err();
    assert!(without.message().contains("`audience`"), "{without}");
}
