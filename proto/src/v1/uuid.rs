//! UUIDs as v1 carries them: sixteen bytes as two little-endian words.

use std::fmt;

use crate::events::Uuid;

/// The length of the text form.
const TEXT: usize = 36;
/// Where the text form has its separators.
const SEPARATORS: [usize; 4] = [8, 13, 18, 23];

impl Uuid {
    /// Reads the text form: 36 characters, hexadecimal in either case. What stands in the places of the separators is not looked at.
    pub fn parse(text: &str) -> Option<Self> {
        let text: &[u8; TEXT] = text.as_bytes().try_into().ok()?;
        let mut bytes = [0; 16];
        let mut at = 0;
        for byte in &mut bytes {
            if SEPARATORS.contains(&at) {
                at += 1;
            }
            *byte = hex(text[at])? << 4 | hex(text[at + 1])?;
            at += 2;
        }
        let value = u128::from_le_bytes(bytes);
        Some(Self { low: value as u64, high: (value >> 64) as u64 })
    }

    /// True when every byte is zero: stands for no UUID.
    pub fn is_zero(&self) -> bool {
        self.low == 0 && self.high == 0
    }
}

/// The text form, lower-case: `b3015d69-09cd-476d-aace-ad2d824d5ab7`.
impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = u128::from(self.high) << 64 | u128::from(self.low);
        let hex = u128::from_be_bytes(value.to_le_bytes());
        let group = |shift: u32, digits: u32| hex >> shift & ((1 << (4 * digits)) - 1);
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            group(96, 8),
            group(80, 4),
            group(64, 4),
            group(48, 4),
            group(0, 12)
        )
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_little_endian() {
        let text = "b3015d69-09cd-476d-aace-ad2d824d5ab7";
        let uuid = Uuid { low: 7_874_487_913_786_704_307, high: 13_211_957_678_352_223_914 };
        assert_eq!(Uuid::parse(text), Some(uuid));
        assert_eq!(uuid.to_string(), text);
        assert_eq!(Uuid::parse(&text.to_uppercase()), Some(uuid));
        assert_eq!(Uuid::parse("b3015d69_09cd+476d aace.ad2d824d5ab7"), Some(uuid));
    }

    #[test]
    fn only_36_characters_of_hexadecimal_are_a_uuid() {
        for text in [
            "",
            "b3015d69-09cd-476d-aace-ad2d824d5ab",
            "b3015d69-09cd-476d-aace-ad2d824d5ab77",
            "g3015d69-09cd-476d-aace-ad2d824d5ab7",
            "b3015d6909cd476daacead2d824d5ab7",
            "ж3015d69-09cd-476d-aace-ad2d824d5ab7",
            "+3015d69-09cd-476d-aace-ad2d824d5ab7",
        ] {
            assert_eq!(Uuid::parse(text), None, "{text}");
        }
    }

    #[test]
    fn zero_stands_for_none() {
        assert_eq!(Uuid::default().to_string(), "00000000-0000-0000-0000-000000000000");
        assert!(Uuid::default().is_zero());
        assert!(!Uuid { low: 0, high: 1 }.is_zero());
    }
}
