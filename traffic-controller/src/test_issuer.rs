//! An issuer of tokens for tests: one RSA key, and what it signs. It shares no code with what verifies.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// A key, and the name under which it is published. Two values never have the same key.
///
/// # Panics
/// Every method panics when it cannot do what it is for.
pub struct TestIssuer {
    kid: String,
    key: RsaKeyPair,
}

impl TestIssuer {
    /// Makes a key of 2048 bits.
    pub fn new(kid: &str) -> Self {
        Self { kid: kid.to_owned(), key: RsaKeyPair::generate(KeySize::Rsa2048).expect("a key") }
    }

    /// A token of this key that says `claims`.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(&json!({ "alg": "RS256", "typ": "JWT", "kid": self.kid }), claims)
    }

    /// A token of this key, whatever `header` says of itself.
    pub fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let text = unsigned(header, claims);
        let mut signature = vec![0; self.key.public_modulus_len()];
        let random = SystemRandom::new();
        self.key.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).expect("a signature");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The key as UAA publishes it in `token_keys`: the modulus and the exponent, and both once more as PEM.
    pub fn published(&self) -> Value {
        // SEQUENCE { INTEGER modulus, INTEGER 65537 }, the modulus with a zero before it.
        let der = self.key.public_key().as_ref();
        let (rest, exponent) = der.split_at(der.len() - 3);
        let modulus = &rest[rest.len() - 2 - self.key.public_modulus_len()..rest.len() - 2];
        json!({
            "kty": "RSA", "alg": "RS256", "use": "sig", "kid": self.kid, "value": self.pem(),
            "n": URL_SAFE_NO_PAD.encode(modulus), "e": URL_SAFE_NO_PAD.encode(exponent),
        })
    }

    /// The public key.
    pub fn pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = self.key.public_key().as_der().expect("a public key has a form");
        let lines: Vec<String> = STANDARD
            .encode(der.as_ref())
            .as_bytes()
            .chunks(64)
            .map(|line| String::from_utf8_lossy(line).into())
            .collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }
}

/// Header and claims, as they are signed.
pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    format!("{header}.{claims}")
}
