//! Tokens and their digests: what is shown once, and what is kept of it; and the secret that a configuration holds.
//!
//! What enters: a token. What leaves: its SHA-256, compared in constant time and never printed but by [`token_sha256`], which is how
//! it comes into the file. A [`Secret`] is never printed.

use std::fmt;
use std::hash::{Hash, Hasher};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest token; a longer one is not known.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// What a token made by [`new_token`] begins with: so that one that leaks into a file is found for what it is.
const PREFIX: &str = "hy_";

/// A new token: `hy_` and 32 random bytes as base64url.
///
/// # Panics
/// The operating system has no random bytes.
pub fn new_token() -> String {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).expect("the operating system has random bytes");
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// The SHA-256 of a token in lower-case hexadecimal, as a tokens file has it.
pub fn token_sha256(token: &[u8]) -> String {
    Digest::of(token).0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of a token. Its `Debug` shows nothing; its order is that of its bytes, for tables only.
#[derive(Clone, Copy)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// What tables are sorted by. It says a quarter of the digest away and nothing of the token.
    pub(super) fn prefix(&self) -> [u8; 8] {
        self.0[..8].try_into().expect("8 of 32 bytes")
    }

    /// In a time that does not depend on where they differ.
    pub(super) fn matches(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }

    fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return None;
        }
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (value(pair[0])? << 4) | value(pair[1])?;
        }
        Some(Self(bytes))
    }
}

/// In constant time.
impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other)
    }
}

impl Eq for Digest {}

impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.prefix().hash(state);
    }
}

/// Text of a configuration that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// The error does not show what stands there instead of a text.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer);
        text.map(Self).map_err(|_| D::Error::custom("a secret must be a text in quotes"))
    }
}

/// A configuration that is dumped shows no secret.
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("<REDACTED>")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<REDACTED>")
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

/// The error does not show the text: it may be a token in the wrong place.
impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| {
            D::Error::custom("`sha256` must be 64 hexadecimal digits; `hydrant token hash` makes them of a token")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_sha_256_in_hexadecimal_and_shows_nothing() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(token_sha256(b"abc"), hex);
        let read = Digest::from_hex(&hex.to_ascii_uppercase()).unwrap();
        assert!(read.matches(&Digest::of(b"abc")) && !read.matches(&Digest::of(b"abd")));
        assert_eq!(format!("{read:?}"), "Digest(…)");
        for bad in ["", &hex[1..], &format!("{hex}0"), &hex.replace('a', "g"), &hex.replace("ba", "é")] {
            assert!(Digest::from_hex(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn new_tokens_differ_and_are_safe_in_headers_and_cookies() {
        let (one, other) = (new_token(), new_token());
        assert_ne!(one, other);
        assert_eq!(one.len(), 3 + 43);
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        assert!(one.starts_with("hy_") && one.bytes().all(safe), "{one}");
    }
}
