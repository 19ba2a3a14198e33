//! Colours: a stable one for each name, legible on dark and on light. Pure.
//!
//! *Invariant*: a name has the same colour in every run and on every machine.

/// How a piece of text is painted: an escape sequence, or nothing.
pub(crate) type Paint = &'static str;

/// As it comes.
pub(crate) const PLAIN: Paint = "";
/// What matters less.
pub(crate) const DIM: Paint = "\x1b[2m";
/// What went wrong.
pub(crate) const RED: Paint = "\x1b[31m";
/// The mark of standard error, and levels that are errors.
pub(crate) const ALARM: Paint = "\x1b[1;31m";
/// Levels that warn.
pub(crate) const WARN: Paint = "\x1b[1;38;5;172m";
/// Levels that inform.
pub(crate) const INFO: Paint = "\x1b[38;5;35m";
/// What was looked for.
pub(crate) const FOUND: Paint = "\x1b[1;7m";
/// Ends every paint.
pub(crate) const RESET: Paint = "\x1b[0m";

/// Of the 256 colours those in the middle: each has a contrast of at least 3:1 to black and to white. Red is for errors.
const NAMES: [(u8, Paint); 14] = [
    (32, "\x1b[38;5;32m"),
    (67, "\x1b[38;5;67m"),
    (30, "\x1b[38;5;30m"),
    (65, "\x1b[38;5;65m"),
    (64, "\x1b[38;5;64m"),
    (100, "\x1b[38;5;100m"),
    (136, "\x1b[38;5;136m"),
    (130, "\x1b[38;5;130m"),
    (137, "\x1b[38;5;137m"),
    (97, "\x1b[38;5;97m"),
    (133, "\x1b[38;5;133m"),
    (99, "\x1b[38;5;99m"),
    (132, "\x1b[38;5;132m"),
    (33, "\x1b[38;5;33m"),
];

/// The paint of a name.
pub(crate) fn of(name: &str) -> Paint {
    NAMES[index(name)].1
}

/// The same as the number of one of the 256 colours.
pub(crate) fn number_of(name: &str) -> u8 {
    NAMES[index(name)].0
}

fn index(name: &str) -> usize {
    // FNV-1a, whose low bits are mixed once more: names often differ in their last letter alone.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    ((hash ^ (hash >> 32)) % NAMES.len() as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The relative luminance of one of the colours 16 to 231 (WCAG 2).
    fn luminance(colour: u8) -> f64 {
        let linear = |step: u8| {
            let level = if step == 0 { 0.0 } else { (55.0 + 40.0 * f64::from(step)) / 255.0 };
            if level <= 0.03928 { level / 12.92 } else { ((level + 0.055_f64) / 1.055).powf(2.4) }
        };
        let cube = colour - 16;
        0.2126 * linear(cube / 36) + 0.7152 * linear(cube / 6 % 6) + 0.0722 * linear(cube % 6)
    }

    #[test]
    fn every_colour_is_legible_on_black_and_on_white() {
        for (number, paint) in NAMES {
            let of = luminance(number);
            assert!((of + 0.05) / 0.05 >= 3.0 && 1.05 / (of + 0.05) >= 3.0, "{number}: {of}");
            assert_eq!(paint, format!("\x1b[38;5;{number}m"));
        }
    }

    #[test]
    fn a_name_keeps_its_colour_and_names_differ() {
        assert_eq!(number_of("my-app"), number_of("my-app"));
        let found: std::collections::BTreeSet<u8> = (0..200).map(|i| number_of(&format!("app-{i}"))).collect();
        assert_eq!(found.len(), NAMES.len());
    }
}
