//! What each wrong file is told, what makes a value read its files again, and what errors say.

use super::*;
use crate::TestCerts;

fn shown(certs: &TestCerts, name: &str) -> ClientTlsFiles {
    let files = certs.files(name);
    ClientTlsFiles {
        ca: Some(files.ca),
        shown: Some(CertAndKey { cert: files.cert, key: files.key }),
        skip_verify: false,
    }
}

fn error(files: &ClientTlsFiles) -> String {
    ClientTls::load(files.clone()).unwrap_err().to_string()
}

#[test]
fn every_file_that_cannot_be_used_is_named() {
    let certs = TestCerts::new();
    let good = shown(&certs, "drain");
    let gone = certs.dir().join("gone.pem");
    let pair = good.shown.clone().unwrap();
    let with = |cert: &Path, key: &Path| ClientTlsFiles {
        shown: Some(CertAndKey { cert: cert.to_owned(), key: key.to_owned() }),
        ..good.clone()
    };
    for (what, files) in [
        ("ca", ClientTlsFiles { ca: Some(gone.clone()), ..good.clone() }),
        ("cert", with(&gone, &pair.key)),
        ("key", with(&pair.cert, &gone)),
    ] {
        let error = error(&files);
        assert!(error.starts_with(&format!("{what} {}: ", gone.display())), "{error}");
    }
    assert!(error(&with(&pair.cert, &certs.files("other").key)).contains("does not belong to cert"));
    assert!(error(&with(&pair.cert, &pair.cert)).contains("holds no private key"));
    let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);
    let old = certs.files_valid("old", at(1_000_000_000), at(1_100_000_000));
    assert!(error(&with(&old.cert, &old.key)).contains("expired at 2004-11-09T11:33:20Z"));
    let new = certs.files_valid("new", at(4_000_000_000), at(4_100_000_000));
    assert!(error(&with(&new.cert, &new.key)).contains("not valid before 2096-10-02T07:06:40Z"));
}

#[test]
fn the_end_of_what_is_shown_is_known_and_alpn_is_not_offered() {
    let certs = TestCerts::new();
    let until = UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let files = certs.files_valid("drain", SystemTime::now() - Duration::from_secs(60), until);
    let pair = CertAndKey { cert: files.cert, key: files.key };
    let mut tls =
        ClientTls::load(ClientTlsFiles { ca: Some(files.ca), shown: Some(pair), skip_verify: false }).unwrap();
    assert_eq!(tls.not_after(), Some(until));
    assert!(tls.config().alpn_protocols.is_empty());
    let mut nothing = ClientTls::load(ClientTlsFiles { skip_verify: true, ..ClientTlsFiles::default() }).unwrap();
    assert_eq!(nothing.not_after(), None);
    assert!(!nothing.config().client_auth_cert_resolver.has_certs());
}

#[test]
fn the_suites_are_those_of_the_external_profile() {
    let mut tls = ClientTls::load(ClientTlsFiles { skip_verify: true, ..ClientTlsFiles::default() }).unwrap();
    let config = tls.config();
    let mut suites: Vec<_> = config
        .crypto_provider()
        .cipher_suites
        .iter()
        .filter(|suite| suite.version().version == rustls::ProtocolVersion::TLSv1_2)
        .filter_map(|suite| suite.suite().as_str())
        .collect();
    suites.sort_unstable();
    assert_eq!(
        suites,
        [
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        ]
    );
}

#[tokio::test]
async fn files_are_read_again_when_they_change_and_the_old_ones_stay_on_an_error() {
    let certs = TestCerts::new();
    let files = shown(&certs, "drain");
    let pair = files.shown.clone().unwrap();
    let mut tls = ClientTls::load(files).unwrap();
    let first = tls.config();
    assert!(!tls.reload().unwrap(), "nothing changed");

    let until = UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let renewed = certs.files_valid("renewed", SystemTime::now() - Duration::from_secs(60), until);
    std::fs::rename(&renewed.cert, &pair.cert).unwrap();
    let error = tls.reload().unwrap_err().to_string();
    assert!(error.contains("does not belong to cert"), "{error}");
    assert!(Arc::ptr_eq(&first, &tls.config()), "the old configuration stays");
    tls.reload().unwrap_err();

    std::fs::rename(&renewed.key, &pair.key).unwrap();
    let mut clone = tls.clone();
    assert!(tls.reload().unwrap());
    clone.changed().await;
    assert_eq!(clone.not_after(), Some(until));
    assert!(!Arc::ptr_eq(&first, &clone.config()));
    assert!(!tls.reload().unwrap());
}

#[test]
fn the_systems_authorities_are_the_default() {
    match ClientTls::load(ClientTlsFiles::default()) {
        Ok(tls) => {
            let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
            assert_eq!(tls.explain(&unknown), "the server's certificate is of no authority that this system trusts");
        }
        // A machine without any.
        Err(error) => assert!(error.to_string().contains("name a PEM file of those to trust as `ca`"), "{error}"),
    }
}

#[test]
fn errors_say_what_is_wrong_with_whom() {
    let certs = TestCerts::new();
    let files = shown(&certs, "drain");
    let (ca, cert) = (files.ca.clone().unwrap(), files.shown.clone().unwrap().cert);
    let tls = ClientTls::load(files).unwrap();
    let bad = |fault| tls.explain(&rustls::Error::InvalidCertificate(fault));
    let (time, date) = (UnixTime::now(), UnixTime::since_unix_epoch(Duration::from_secs(1_100_000_000)));
    assert_eq!(
        bad(CertificateError::ExpiredContext { time, not_after: date }),
        "the server's certificate expired at 2004-11-09T11:33:20Z"
    );
    assert!(
        bad(CertificateError::NotValidYetContext { time, not_before: date })
            .ends_with("not valid before 2004-11-09T11:33:20Z; check this machine's clock")
    );
    let expected = ServerName::try_from("logs.example").unwrap();
    let presented = vec!["DnsName(\"a.example\")".to_owned(), "IpAddress(10.0.0.1)".to_owned()];
    assert_eq!(
        bad(CertificateError::NotValidForNameContext { expected, presented }),
        "the server's certificate is not for logs.example, but for a.example, 10.0.0.1"
    );
    assert_eq!(
        bad(CertificateError::UnknownIssuer),
        format!("the server's certificate is of no authority in {}", ca.display())
    );
    assert!(bad(CertificateError::BadSignature).contains("of no authority in"), "two authorities may have one name");
    let alert = |tls: &ClientTls, alert| tls.explain(&rustls::Error::AlertReceived(alert));
    assert_eq!(
        alert(&tls, AlertDescription::UnknownCA),
        format!("the server does not take our certificate {} (alert UnknownCA)", cert.display())
    );
    let bare = ClientTls::load(ClientTlsFiles { ca: Some(ca), ..ClientTlsFiles::default() }).unwrap();
    assert_eq!(
        alert(&bare, AlertDescription::CertificateRequired),
        "the server wants to see a certificate, and none is configured (alert CertificateRequired)"
    );
    assert_eq!(alert(&bare, AlertDescription::InternalError), "the server ended the connection (alert InternalError)");
    assert_eq!(super::bare("DnsName(\"a\u{1b}[31m\")"), "a\\u{1b}[31m");
}

#[test]
fn texts_are_checked_like_files_and_told_apart_from_them() {
    let certs = TestCerts::new();
    let files = certs.files("drain");
    let text = |path: &Path| std::fs::read_to_string(path).unwrap();
    let (ca, cert, key) = (text(&files.ca), text(&files.cert), text(&files.key));
    let base = Authorities::of_system_and(Some(&files.ca)).unwrap();
    let load = |ca: &str, cert: &str, key: &str| {
        ClientTls::from_texts(ClientTlsTexts { ca, cert, key }, "of the binding", &base)
    };
    let mut whole = load(&ca, &cert, &key).unwrap();
    assert!(whole.config().client_auth_cert_resolver.has_certs() && whole.not_after().is_some());
    assert!(!whole.reload().unwrap(), "there is nothing to look at");
    for (cert, key) in [("", ""), (cert.as_str(), ""), ("", key.as_str())] {
        assert!(!load("", cert, key).unwrap().config().client_auth_cert_resolver.has_certs(), "half a pair is none");
    }
    let error = |ca: &str, cert: &str, key: &str| load(ca, cert, key).unwrap_err().to_string();
    assert!(error("x", "", "").starts_with("ca of the binding holds no certificate"));
    assert!(error("", "x", &key).starts_with("cert of the binding holds no certificate"));
    assert!(error("", &cert, "x").starts_with("key of the binding holds no private key"));
    let other = text(&certs.files("other").key);
    assert!(error("", &cert, &other).starts_with("key of the binding does not belong to cert of the binding"));
    let stranger = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
    assert_eq!(
        whole.explain(&stranger),
        "the server's certificate is of no authority in the ca of the binding or that this process trusts"
    );
}
