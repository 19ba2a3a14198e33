//! Tokens signed by keys made here, and everything that is like one and is none.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;
use crate::test_issuer::{TestIssuer, unsigned};

const UAA: &[Algorithm] = &[Algorithm::RS256];
const UAA_WITH_HS256: &[Algorithm] = &[Algorithm::RS256, Algorithm::HS256];
const OPENID: &[Algorithm] = &[Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

fn set(keys: &[Value], allowed: &[Algorithm]) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes(), allowed).unwrap()
}

/// The subject of a token that is taken.
fn subject(set: &KeySet, token: &str, allowed: &[Algorithm]) -> Result<String, Fault> {
    set.verify(token.as_bytes(), allowed).map(|claims| claims.text("sub").unwrap_or_default().to_owned())
}

fn claims() -> Value {
    json!({ "sub": "me", "exp": 1, "aud": ["any"] })
}

fn with_hmac(secret: &[u8], header: &Value) -> String {
    let text = unsigned(header, &claims());
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))
}

#[test]
fn the_key_of_its_name_verifies_a_token_and_no_other_does() {
    let (one, two, stranger) = (TestIssuer::new("1"), TestIssuer::new("2"), TestIssuer::new("1"));
    let both = set(&[one.published(), two.published()], UAA);
    assert_eq!(both.len(), 2);
    assert_eq!(subject(&both, &one.sign(&claims()), UAA).as_deref(), Ok("me"));
    assert_eq!(subject(&both, &two.sign(&claims()), UAA).as_deref(), Ok("me"));
    assert_eq!(subject(&both, &stranger.sign(&claims()), UAA), Err(Fault::NoKey));
    let none = json!({ "alg": "RS256" });
    assert_eq!(subject(&both, &two.sign_as(&none, &claims()), UAA).as_deref(), Ok("me"), "without a name any may");
    assert_eq!(subject(&both, &stranger.sign_as(&none, &claims()), UAA), Err(Fault::NoKey));
    let other = json!({ "alg": "RS256", "kid": "3" });
    assert_eq!(subject(&both, &one.sign_as(&other, &claims()), UAA), Err(Fault::NoKey));
    assert_eq!(subject(&KeySet::default(), &one.sign(&claims()), UAA), Err(Fault::NoKey));
}

#[test]
fn a_token_that_was_changed_is_none() {
    let issuer = TestIssuer::new("1");
    let keys = set(&[issuer.published()], UAA);
    let token = issuer.sign(&claims());
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = parts[..] else { panic!("three parts") };
    let mut more = claims();
    more["scope"] = json!(["doppler.firehose"]);
    let forged = unsigned(&json!({ "alg": "RS256", "kid": "1" }), &more);
    assert_eq!(subject(&keys, &format!("{forged}.{signature}"), UAA), Err(Fault::NoKey));
    assert_eq!(subject(&keys, &format!("{header}.{payload}."), UAA), Err(Fault::NoKey));
    for nothing in ["", ".", "..", "a.b.c", header, &format!("{header}.{payload}"), &format!("{token}.x"), "é.é.é"] {
        assert_eq!(subject(&keys, nothing, UAA), Err(Fault::Hopeless), "{nothing}");
    }
}

#[test]
fn the_public_key_is_no_secret_to_sign_with() {
    let issuer = TestIssuer::new("1");
    let header = json!({ "alg": "HS256", "kid": "1" });
    let published = issuer.published();
    let modulus = URL_SAFE_NO_PAD.decode(published["n"].as_str().unwrap()).unwrap();
    for allowed in [UAA, UAA_WITH_HS256, OPENID] {
        let keys = set(std::slice::from_ref(&published), allowed);
        for secret in [issuer.pem().as_bytes(), issuer.pem().trim().as_bytes(), &modulus] {
            assert!(subject(&keys, &with_hmac(secret, &header), allowed).is_err());
        }
    }
}

#[test]
fn no_signature_is_none() {
    let keys = set(&[TestIssuer::new("1").published()], UAA_WITH_HS256);
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let text = unsigned(&json!({ "alg": alg, "kid": "1" }), &claims());
        assert_eq!(subject(&keys, &format!("{text}."), UAA_WITH_HS256), Err(Fault::Hopeless), "{alg}");
    }
    let text = unsigned(&json!({ "kid": "1" }), &claims());
    assert_eq!(subject(&keys, &format!("{text}."), UAA_WITH_HS256), Err(Fault::Hopeless));
}

#[test]
fn shared_secrets_count_only_where_they_are_allowed() {
    let secret = json!({ "kty": "MAC", "alg": "HS256", "value": "shared", "use": "sig", "kid": "s" });
    let token = with_hmac(b"shared", &json!({ "alg": "HS256", "kid": "s" }));
    let allowed = set(std::slice::from_ref(&secret), UAA_WITH_HS256);
    assert_eq!(subject(&allowed, &token, UAA_WITH_HS256).as_deref(), Ok("me"));
    assert_eq!(subject(&allowed, &token, UAA), Err(Fault::Hopeless));
    let other = with_hmac(b"other", &json!({ "alg": "HS256", "kid": "s" }));
    assert_eq!(subject(&allowed, &other, UAA_WITH_HS256), Err(Fault::NoKey));
    let empty = json!({ "kty": "MAC", "alg": "HS256", "value": "", "kid": "s" });
    let symmetric = json!({ "kty": "oct", "alg": "HS256", "k": "c2hhcmVk", "kid": "s" });
    for (keys, allowed) in [([secret], UAA), ([empty], UAA_WITH_HS256), ([symmetric], OPENID)] {
        assert_eq!(set(&keys, allowed).len(), 0);
    }
}

#[test]
fn elliptic_keys_verify_where_they_are_allowed() {
    let random = SystemRandom::new();
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let ed = Ed25519KeyPair::generate().unwrap();
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let point = ec.public_key().as_ref();
    let published = [
        json!({ "kty": "EC", "crv": "P-256", "kid": "c", "x": encode(&point[1..33]), "y": encode(&point[33..]) }),
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": "d", "alg": "EdDSA", "x": encode(ed.public_key().as_ref()) }),
    ];
    let keys = set(&published, OPENID);
    let text = unsigned(&json!({ "alg": "ES256", "kid": "c" }), &claims());
    let by_ec = format!("{text}.{}", encode(ec.sign(&random, text.as_bytes()).unwrap().as_ref()));
    let text = unsigned(&json!({ "alg": "EdDSA", "kid": "d" }), &claims());
    let by_ed = format!("{text}.{}", encode(ed.sign(text.as_bytes()).as_ref()));
    for token in [&by_ec, &by_ed] {
        assert_eq!(subject(&keys, token, OPENID).as_deref(), Ok("me"));
        assert_eq!(subject(&keys, token, UAA), Err(Fault::Hopeless));
    }
    assert_eq!(set(&published, UAA).len(), 0);
    // The name of the one key and the algorithm of the other.
    let text = unsigned(&json!({ "alg": "EdDSA", "kid": "c" }), &claims());
    let crossed = format!("{text}.{}", encode(ed.sign(text.as_bytes()).as_ref()));
    assert_eq!(subject(&keys, &crossed, OPENID), Err(Fault::NoKey));
}

#[test]
fn keys_for_something_else_are_left_out_and_the_others_count() {
    let issuer = TestIssuer::new("1");
    let with = |name: &str, value: Value| {
        let mut key = issuer.published();
        key[name] = value;
        key
    };
    let short = TestIssuer::new("short").published();
    let short = json!({ "kty": "RSA", "kid": "short", "e": "AQAB", "n": &short["n"].as_str().unwrap()[..171] });
    let others = [
        with("use", json!("enc")),
        with("alg", json!("RSA-OAEP")),
        with("alg", json!("RS512")),
        with("kty", json!("EC")),
        with("kid", json!("x".repeat(257))),
        with("n", json!("!")),
        json!({ "kty": "EC", "crv": "P-521", "x": "AA", "y": "AA" }),
        json!("a key"),
        json!({}),
        short,
    ];
    for other in &others {
        assert_eq!(set(std::slice::from_ref(other), OPENID).len(), 0, "{other}");
    }
    let keys = set(&[&others[..], &[issuer.published()]].concat(), OPENID);
    assert_eq!(subject(&keys, &issuer.sign(&claims()), OPENID).as_deref(), Ok("me"));
    let many: Vec<Value> = (0..100).map(|i| with("kid", json!(i.to_string()))).collect();
    assert_eq!(set(&many, UAA).len(), MAX_KEYS);
    for body in ["", "[]", "{}", r#"{"keys":{}}"#, "<html>"] {
        assert!(KeySet::parse(body.as_bytes(), OPENID).is_none(), "{body}");
    }
}

#[test]
fn a_key_may_come_as_pem_alone() {
    let issuer = TestIssuer::new("1");
    let key = json!({ "kty": "RSA", "alg": "SHA256withRSA", "use": "sig", "kid": "1", "value": issuer.pem() });
    assert_eq!(subject(&set(&[key], UAA), &issuer.sign(&claims()), UAA).as_deref(), Ok("me"));
}

#[test]
fn what_must_be_understood_is_not() {
    let issuer = TestIssuer::new("1");
    let keys = set(&[issuer.published()], UAA);
    let header = json!({ "alg": "RS256", "kid": "1", "crit": ["b64"], "b64": false });
    assert_eq!(subject(&keys, &issuer.sign_as(&header, &claims()), UAA), Err(Fault::Hopeless));
    // Keys that a token brings along are not looked at.
    let own = TestIssuer::new("1");
    let header = json!({ "alg": "RS256", "kid": "1", "jwk": own.published(), "jku": "https://evil.example" });
    assert_eq!(subject(&keys, &own.sign_as(&header, &claims()), UAA), Err(Fault::NoKey));
}
