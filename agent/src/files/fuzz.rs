//! The properties that the fuzz targets hold on arbitrary bytes, and that the tests replay over their seeds.

use proto::raw::{Batch, Kind, Limits, Selection};

use super::config::{FilesConfig, Format, Preset};
use super::{Decoder, FRAME_ENVELOPES, Labels, Resume, cri_line, docker_line};
use crate::gather::Gather;

/// Takes `bytes` as a part of a container runtime's log. The first byte chooses how it is read.
///
/// # Panics
/// When a promise is broken: see [`docker`].
pub fn cri(bytes: &[u8]) {
    if let Ok(line) = cri_line(bytes) {
        assert!(bytes.ends_with(line.text), "a text is the end of its line");
    }
    file(Format::Cri, bytes);
}

/// Takes `bytes` as a part of a log of Docker. The first byte chooses how it is read.
///
/// # Panics
/// When a promise is broken: an envelope is not a log line that every hop takes; or what leaves depends on how the bytes are cut when
/// they are read, or is another after a start in between.
pub fn docker(bytes: &[u8]) {
    if let Ok(line) = docker_line(bytes) {
        assert!(line.text.len() <= bytes.len(), "no escape is shorter than what it stands for");
    }
    file(Format::Docker, bytes);
}

fn file(format: Format, bytes: &[u8]) {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    if bytes.len() > FRAME_ENVELOPES {
        return;
    }
    let presets = [None, Some(Preset::Java), Some(Preset::Python), Some(Preset::Go), Some(Preset::Ruby)];
    let config = FilesConfig {
        paths: Vec::new(),
        exclude: Vec::new(),
        format,
        source_id: Some("fuzz".to_owned()),
        instance_id: None,
        start: None,
        multiline: presets[usize::from(choice >> 4) % presets.len()],
    };
    let max = 1 + usize::from(choice & 15) * 8;
    let decoder = |resume| Decoder::new(&config, Labels::of(&config, "/fuzz".as_ref(), &[], None), max, resume);

    let mut whole = (decoder(Resume::default()), Gather::default());
    whole.0.feed(bytes, 1, &mut whole.1, |_, _| ());
    let all = taken(&mut whole.1);
    assert_eq!(whole.0.position(), bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at as u64 + 1));

    let half = bytes.len() / 2;
    let mut cut = (decoder(Resume::default()), Gather::default());
    cut.0.feed(&bytes[..half], 1, &mut cut.1, |_, _| ());
    let first = taken(&mut cut.1);
    let from = cut.0.held_from();
    feed_from(&mut cut.0, bytes, &mut cut.1);
    assert_eq!([first.clone(), taken(&mut cut.1)].concat(), all, "how it is cut makes no difference");

    let mut again = (decoder(Resume { from, handed_to: from }), Gather::default());
    feed_from(&mut again.0, bytes, &mut again.1);
    assert_eq!(again.0.take_counts().1, 0, "nothing of that may have been sent");
    let mut both = [first, taken(&mut again.1)].concat();
    let mut all = all;
    if config.multiline.is_none() {
        // A start in between may end a trace, and may change how streams follow each other.
        both.sort();
        all.sort();
        assert_eq!(both, all, "a start in between loses nothing and repeats nothing");
    }
}

fn feed_from(decoder: &mut Decoder, bytes: &[u8], gather: &mut Gather) {
    let at = usize::try_from(decoder.position()).expect("it is within the bytes");
    decoder.feed(&bytes[at..], 1, gather, |_, _| ());
}

/// The envelopes gathered, each checked.
fn taken(gather: &mut Gather) -> Vec<Vec<u8>> {
    let Some((batch, _)) = gather.take() else { return Vec::new() };
    let (checked, broken) = Batch::check(Selection::from(batch.clone()).encode(), &Limits::default());
    assert_eq!((checked.len(), broken.total()), (batch.len(), 0), "every hop takes what was built");
    let envelope = |entry| {
        assert_eq!(Batch::source_id(&checked, entry), b"fuzz");
        assert_eq!(entry.kind, Kind::Log);
        checked.envelope(entry).to_vec()
    };
    checked.entries().iter().map(envelope).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// Replays what the fuzz targets begin with.
    #[test]
    fn seeds_hold() {
        for (name, run) in [("cri_line", super::cri as fn(&[u8])), ("docker_line", super::docker)] {
            let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
            let mut seeds = 0;
            for seed in std::fs::read_dir(&dir).unwrap() {
                run(&std::fs::read(seed.unwrap().path()).unwrap());
                seeds += 1;
            }
            assert!(seeds >= 3, "{} has {seeds} seeds", dir.display());
        }
    }

    proptest! {
        /// Lines of the formats in any order, with junk between them, read with any choice.
        #[test]
        fn lines_hold(choice: u8, lines in prop::collection::vec((0..8_usize, "[ a-é]{0,20}"), 0..20)) {
            let time = "2024-04-05T19:34:38.5Z";
            let mut cri = vec![choice];
            let mut docker = vec![choice];
            for (kind, text) in &lines {
                let stream = ["stdout", "stderr"][kind & 1];
                let (tag, feed) = if kind & 2 == 0 { ("F", "\\n") } else { ("P", "") };
                match kind & 4 {
                    0 => {
                        cri.extend_from_slice(format!("{time} {stream} {tag} {text}\n").as_bytes());
                        docker.extend_from_slice(
                            format!("{{\"log\":\"{text}{feed}\",\"stream\":\"{stream}\",\"time\":\"{time}\"}}\n").as_bytes(),
                        );
                    }
                    _ => [&mut cri, &mut docker].into_iter().for_each(|file| file.extend_from_slice(format!("{text}\n").as_bytes())),
                }
            }
            super::cri(&cri);
            super::docker(&docker);
        }
    }
}
