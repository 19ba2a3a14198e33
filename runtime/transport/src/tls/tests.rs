//! What each wrong file is told, and what a right one gives.

use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::TestCerts;

fn error(files: &TlsFiles) -> String {
    Identity::load(files).unwrap_err().to_string()
}

#[test]
fn right_files_give_both_ends_and_the_end_of_validity() {
    let certs = TestCerts::new();
    let until = UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let identity = Identity::load(&certs.files_valid("doppler", SystemTime::now() - Duration::from_secs(60), until));
    let identity = identity.unwrap();
    assert_eq!(identity.not_after(), until);
    assert_eq!(identity.server_config().alpn_protocols, [b"h2".to_vec()]);
    assert_eq!(identity.https_config().alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    assert_eq!(identity.client_config().alpn_protocols, [b"h2".to_vec()]);
}

#[test]
fn a_missing_file_is_named_with_its_key() {
    let certs = TestCerts::new();
    for what in ["cert", "key", "ca"] {
        let mut files = certs.files("doppler");
        let gone = certs.dir().join("gone.pem");
        match what {
            "cert" => files.cert.clone_from(&gone),
            "key" => files.key.clone_from(&gone),
            _ => files.ca.clone_from(&gone),
        }
        let error = error(&files);
        assert!(error.starts_with(&format!("{what} {}: ", gone.display())), "{error}");
        assert!(error.contains("must be a PEM file"), "{error}");
    }
}

#[test]
fn files_that_hold_something_else_are_told_what_belongs_there() {
    let certs = TestCerts::new();
    let good = certs.files("doppler");
    let junk = certs.dir().join("junk.pem");
    std::fs::write(&junk, "not PEM at all").unwrap();
    let torn = certs.dir().join("torn.pem");
    std::fs::write(&torn, "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
    let garbled = certs.dir().join("garbled.pem");
    std::fs::write(&garbled, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();

    assert!(error(&TlsFiles { cert: junk.clone(), ..good.clone() }).contains("holds no certificate"));
    assert!(error(&TlsFiles { ca: junk.clone(), ..good.clone() }).contains("holds no certificate"));
    assert!(error(&TlsFiles { key: junk, ..good.clone() }).contains("holds no private key"));
    assert!(error(&TlsFiles { cert: good.key.clone(), ..good.clone() }).contains("holds no certificate"));
    assert!(error(&TlsFiles { key: good.cert.clone(), ..good.clone() }).contains("holds no private key"));
    assert!(error(&TlsFiles { cert: torn, ..good.clone() }).contains("is not PEM"));
    assert!(error(&TlsFiles { cert: garbled.clone(), ..good.clone() }).contains("certificate that cannot be used"));
    assert!(error(&TlsFiles { ca: garbled, ..good }).contains("certificate that cannot be used"));
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let certs = TestCerts::new();
    let (doppler, agent) = (certs.files("doppler"), certs.files("agent"));
    let error = error(&TlsFiles { key: agent.key.clone(), ..doppler });
    assert!(error.starts_with(&format!("key {} does not belong to cert ", agent.key.display())), "{error}");
}

#[test]
fn a_certificate_outside_its_time_is_refused_with_the_date() {
    let certs = TestCerts::new();
    let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);
    let past = error(&certs.files_valid("old", at(1_000_000_000), at(1_100_000_000)));
    assert!(past.ends_with("expired at 2004-11-09T11:33:20Z; it must be renewed"), "{past}");
    let future = error(&certs.files_valid("new", at(4_000_000_000), at(4_100_000_000)));
    assert!(future.contains("is not valid before 2096-10-02T07:06:40Z"), "{future}");
}

#[test]
fn a_certificate_of_another_authority_than_ours_may_still_be_shown() {
    let (ours, theirs) = (TestCerts::new(), TestCerts::new());
    let files = TlsFiles { ca: theirs.files("x").ca, ..ours.files("doppler") };
    let identity = Identity::load(&files).unwrap();
    assert!(identity.not_after() > SystemTime::now());
}

#[test]
fn configuration_needs_all_three_and_nothing_else() {
    let whole = "cert = \"a\"\nkey = \"b\"\nca = \"c\"\n";
    assert_eq!(toml::from_str::<TlsFiles>(whole).unwrap().ca, PathBuf::from("c"));
    let error = toml::from_str::<TlsFiles>("cert = \"a\"\nkey = \"b\"\n").unwrap_err().to_string();
    assert!(error.contains("`ca`"), "{error}");
    let error = toml::from_str::<TlsFiles>(&format!("{whole}chain = \"d\"\n")).unwrap_err().to_string();
    assert!(error.contains("chain"), "{error}");
}

#[test]
fn tls_1_2_is_held_to_the_contracts_suites() {
    let suites: Vec<_> = provider()
        .cipher_suites
        .iter()
        .filter(|suite| suite.version().version == rustls::ProtocolVersion::TLSv1_2)
        .map(|suite| format!("{:?}", suite.suite()))
        .collect();
    assert_eq!(suites.len(), 4);
    assert!(
        suites.iter().all(|name| name.starts_with("TLS_ECDHE_") && name.contains("_AES_") && name.contains("_GCM_"))
    );
}

#[test]
fn installing_the_provider_twice_is_harmless() {
    install_crypto_provider();
    install_crypto_provider();
    assert!(CryptoProvider::get_default().is_some());
}

/// Writes the files of `new` over those of `old`.
fn replace(old: &TlsFiles, new: &TlsFiles) {
    for (to, from) in [(&old.cert, &new.cert), (&old.key, &new.key), (&old.ca, &new.ca)] {
        std::fs::copy(from, to).unwrap();
    }
}

#[test]
fn new_files_take_the_place_of_old_ones_and_bad_ones_do_not() {
    let (certs, next) = (TestCerts::new(), TestCerts::new());
    let files = certs.files("doppler");
    let identity = Identity::load(&files).unwrap();
    let clone = identity.clone();
    let before = identity.server_config();
    assert!(!identity.reload().unwrap(), "nothing has changed");
    assert!(Arc::ptr_eq(&before, &clone.server_config()));

    let until = UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    replace(&files, &next.files_valid("doppler", SystemTime::now() - Duration::from_secs(60), until));
    assert!(identity.reload().unwrap());
    assert_eq!((clone.not_after(), clone.reloads(), clone.reload_failed()), (until, 1, false));
    assert!(!Arc::ptr_eq(&before, &clone.server_config()));

    // A key without its certificate: what was in use stays, as often as it is tried.
    let good = std::fs::read(&files.key).unwrap();
    std::fs::copy(next.files("agent").key, &files.key).unwrap();
    for _ in 0..2 {
        assert!(matches!(identity.reload(), Err(TlsError::KeyMismatch { .. })));
        assert_eq!((clone.not_after(), clone.reloads(), clone.reload_failed()), (until, 1, true));
    }
    std::fs::write(&files.key, good).unwrap();
    assert!(!identity.reload().unwrap(), "the files are what is in use again");
    assert!(!clone.reload_failed());

    std::fs::remove_file(&files.ca).unwrap();
    assert!(matches!(identity.reload(), Err(TlsError::Read { .. })));
    assert!(clone.reload_failed());
}

/// The clock is paused; the looks are awaited, not slept for.
#[tokio::test(start_paused = true)]
async fn a_watched_identity_finds_new_files_by_itself() {
    let (certs, next) = (TestCerts::new(), TestCerts::new());
    let files = certs.files("doppler");
    let identity = Identity::load(&files).unwrap();
    let (tracker, stop) = (tokio_util::task::TaskTracker::new(), tokio_util::sync::CancellationToken::new());
    identity.watch("doppler.grpc.tls", &tracker, stop.clone());
    replace(&files, &next.files("doppler"));
    while identity.reloads() == 0 {
        tokio::time::advance(Duration::from_secs(5)).await;
    }
    std::fs::write(&files.cert, "torn").unwrap();
    while !identity.reload_failed() {
        tokio::time::advance(Duration::from_secs(5)).await;
    }
    assert_eq!(identity.reloads(), 1);
    stop.cancel();
    tracker.close();
    tracker.wait().await;
}
