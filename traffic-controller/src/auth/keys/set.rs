//! Which key verifies which token: key sets as issuers publish them (RFC 7517, and UAA's `token_keys`), and the tokens they sign
//! (RFC 7515, 7519). Pure.
//!
//! What enters: a key set, and a token. What leaves: the claims of a token that one of the keys has signed, by the algorithm that the
//! key is for and no other. What a token says about its own algorithm only chooses among keys: it never changes how a key is used.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

use super::super::claims::Claims;

/// Keys of one issuer; it has two while it changes them. More are left out.
const MAX_KEYS: usize = 32;

/// The longest name of a key.
const MAX_KID: usize = 256;

/// The shortest modulus of an RSA key, in bytes.
const MIN_MODULUS: usize = 256;

/// The keys of an issuer.
#[derive(Default)]
pub(in crate::auth) struct KeySet(Vec<Key>);

/// One key, for one algorithm.
struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Why a token proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::auth) enum Fault {
    /// No key could make it right: it is no signed token, or one of an algorithm that is not taken.
    Hopeless,
    /// None of the keys has signed it. Others may have.
    NoKey,
}

#[derive(Deserialize)]
struct Written {
    keys: Vec<serde_json::Value>,
}

/// A key as it is published. `value` is UAA's: a PEM public key, or the secret of an HMAC.
#[derive(Deserialize)]
struct WrittenKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    value: Option<String>,
}

impl KeySet {
    /// The keys in `body` that are for one of the `allowed` algorithms. Others are left out: an issuer may have keys for more than this.
    /// `None` when it is no key set.
    pub(in crate::auth) fn parse(body: &[u8], allowed: &[Algorithm]) -> Option<Self> {
        let written: Written = serde_json::from_slice(body).ok()?;
        let keys = written.keys.into_iter().filter_map(|key| Key::read(serde_json::from_value(key).ok()?, allowed));
        Some(Self(keys.take(MAX_KEYS).collect()))
    }

    /// How many there are.
    pub(in crate::auth) fn len(&self) -> usize {
        self.0.len()
    }

    /// What `token` says, if one of the keys has signed it. Looks at neither time nor issuer nor audience.
    ///
    /// # Errors
    /// [`Fault`].
    pub(in crate::auth) fn verify(&self, token: &[u8], allowed: &[Algorithm]) -> Result<Claims, Fault> {
        let header = decode_header(token).map_err(|_| Fault::Hopeless)?;
        // Extensions that must be understood are not (RFC 7515 §4.1.11).
        if header.crit.is_some() || !allowed.contains(&header.alg) {
            return Err(Fault::Hopeless);
        }
        let mut validation = Validation::new(header.alg);
        // All of these are looked at by whoever knows the time and whom the token should be for.
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        let named = |key: &&Key| header.kid.is_none() || key.kid == header.kid;
        let mut candidates = self.0.iter().filter(named).filter(|key| key.algorithm == header.alg);
        let signed = candidates.find_map(|key| decode(token, &key.key, &validation).ok());
        signed.map(|signed| Claims(signed.claims)).ok_or(Fault::NoKey)
    }
}

impl Key {
    fn read(written: WrittenKey, allowed: &[Algorithm]) -> Option<Self> {
        let for_signatures = written.purpose.as_deref().is_none_or(|purpose| purpose == "sig");
        if !for_signatures || written.kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID) {
            return None;
        }
        let (algorithm, names): (_, &[&str]) = match (written.kty.as_str(), written.crv.as_deref()) {
            ("RSA", _) => (Algorithm::RS256, &["RS256", "SHA256withRSA"]),
            ("EC", Some("P-256")) => (Algorithm::ES256, &["ES256"]),
            ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, &["EdDSA", "Ed25519"]),
            ("MAC", _) => (Algorithm::HS256, &["HS256", "HMACSHA256"]),
            _ => return None,
        };
        if !allowed.contains(&algorithm) || written.alg.as_deref().is_some_and(|alg| !names.contains(&alg)) {
            return None;
        }
        let key = match (algorithm, &written) {
            (Algorithm::RS256, WrittenKey { n: Some(n), e: Some(e), .. }) => {
                let modulus = URL_SAFE_NO_PAD.decode(n.trim_end_matches('=')).ok()?;
                let long_enough = modulus.iter().skip_while(|byte| **byte == 0).count() >= MIN_MODULUS;
                let exponent = URL_SAFE_NO_PAD.decode(e.trim_end_matches('=')).ok()?;
                long_enough.then(|| DecodingKey::from_rsa_raw_components(&modulus, &exponent))?
            }
            (Algorithm::RS256, WrittenKey { value: Some(pem), .. }) => {
                DecodingKey::from_rsa_der(&SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).ok()?)
            }
            (Algorithm::ES256, WrittenKey { x: Some(x), y: Some(y), .. }) => {
                DecodingKey::from_ec_components(x, y).ok()?
            }
            (Algorithm::EdDSA, WrittenKey { x: Some(x), .. }) => DecodingKey::from_ed_components(x).ok()?,
            (Algorithm::HS256, WrittenKey { value: Some(secret), .. }) if !secret.is_empty() => {
                DecodingKey::from_secret(secret.as_bytes())
            }
            _ => return None,
        };
        Some(Self { kid: written.kid, algorithm, key })
    }
}

#[cfg(test)]
mod tests;
