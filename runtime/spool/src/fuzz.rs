//! The property that the fuzz target holds on arbitrary bytes, and that the tests replay over the seed corpus.

mod mend;

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::format::{CHECKPOINT, segment_name};
use crate::fs::Model;
use crate::{Options, inspect, open};

/// Takes `bytes` as the files of a spool: a byte that says whether to mend, the checkpoint, then two segments of about the same size,
/// numbered 1 and 2.
///
/// When that byte is odd, CRCs and what else is easily checked are put right first, so that what lies behind these checks is tried too.
///
/// # Panics
/// When a promise is broken: the spool does not open, the sums do not hold, what was found comes out twice or out of order, or a record
/// does not go through.
pub fn segments(bytes: &[u8]) {
    let fs = Model::new();
    let mend = bytes.first().is_some_and(|flags| flags & 1 == 1);
    let bytes = bytes.get(1..).unwrap_or_default();
    let (checkpoint, segments) = bytes.split_at(bytes.len().min(CHECKPOINT));
    let (first, second) = segments.split_at(segments.len() / 2);
    let mended = |bytes: &[u8], how: fn(&mut [u8])| {
        let mut bytes = bytes.to_vec();
        if mend {
            how(&mut bytes);
        }
        bytes
    };
    for (name, content) in [
        ("checkpoint", mended(checkpoint, mend::checkpoint)),
        (&segment_name(1), mended(first, |bytes| mend::segment(bytes, 1))),
        (&segment_name(2), mended(second, |bytes| mend::segment(bytes, 2))),
    ] {
        if !content.is_empty() {
            fs.put(name, &content);
        }
    }
    let options = Options { max_bytes: 64 << 20, segment_bytes: 1 << 20, max_record: 1_024, ..Options::default() };
    let dir = Path::new("spool");
    let report = inspect(&fs, dir).expect("any content can be looked at");
    assert!(!report.to_string().is_empty());

    let opened = open(Arc::new(fs.clone()), dir, options.clone());
    let (mut writer, mut reader, recovered) = opened.expect("any content opens");
    assert_eq!(recovered.checkpoint, report.checkpoint);
    let (mut last, mut records, mut lost) = (recovered.acked, 0, 0);
    let mut read = |reader: &mut crate::Reader| -> usize {
        let batch = reader.read(1_000, 10).expect("the model reads");
        for record in &batch.records {
            assert!(record.sequence > last, "a record comes once, and in order");
            last = record.sequence;
        }
        records += batch.records.len() as u64;
        lost += batch.lost;
        reader.ack(batch.through).expect("the model writes");
        batch.records.len()
    };
    while read(&mut reader) > 0 {}
    writer.append(1, b"one more").expect("there is room");
    writer.commit().expect("the model writes");
    assert_eq!(read(&mut reader), 1, "it goes on");
    assert_eq!(records + lost, recovered.records + 1);
    let depth = writer.stats().depth();
    assert_eq!((depth.records, depth.recovered + depth.committed), (0, depth.acked + depth.lost));
    reader.checkpoint().expect("the model writes");
    drop((writer, reader));
    let (_, _, again) = open(Arc::new(fs), dir, options).expect("it opens again");
    assert_eq!((again.records, again.acked), (0, last));
}

/// What the fuzz target begins with: spools of a few records, whole and damaged, each with a name.
///
/// # Errors
/// None in practice: the model writes.
pub fn seeds() -> io::Result<Vec<(&'static str, Vec<u8>)>> {
    let fs = Model::new();
    let options = Options { max_bytes: 4_096, segment_bytes: 512, keep_free: 0, max_record: 256, ..Options::default() };
    let (mut writer, mut reader, _) =
        open(Arc::new(fs.clone()), Path::new("spool"), options).map_err(io::Error::other)?;
    for number in 0..10_u8 {
        writer.append(u64::from(number), &[number; 40]).map_err(io::Error::other)?;
        writer.commit().map_err(io::Error::other)?;
    }
    reader.read(100, 3).map_err(io::Error::other)?;
    reader.ack(1).and_then(|()| reader.checkpoint()).map_err(io::Error::other)?;
    let file = |name: &str| fs.contents(name).unwrap_or_default();
    let (checkpoint, first, second) = (file("checkpoint"), file(&segment_name(1)), file(&segment_name(2)));
    // Both halves have the same size.
    let len = first.len().max(second.len());
    let pad = |bytes: &[u8]| [bytes, &vec![0; len - bytes.len()]].concat();
    let whole = [&[0], &checkpoint[..], &pad(&first), &pad(&second)].concat();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    Ok(vec![
        ("whole", whole.clone()),
        ("no-checkpoint", flipped(21)),
        ("header-copy", flipped(41)),
        ("record-header", flipped(CHECKPOINT + 81)),
        ("payload", flipped(CHECKPOINT + 111)),
        ("torn", whole[..whole.len() - 30].to_vec()),
        ("checkpoint-only", whole[..=CHECKPOINT].to_vec()),
        ("mended", [&[1], &whole[1..]].concat()),
        ("mended-zeros", [&[1][..], &[0; 600]].concat()),
        ("zeros", vec![0; 1_000]),
        ("empty", Vec::new()),
    ])
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Writes the seeds anew when `HYDRANT_WRITE_SEEDS` is set: after a change of the format.
    #[test]
    fn corpus() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/disk_segment_open");
        if std::env::var_os("HYDRANT_WRITE_SEEDS").is_some() {
            fs::create_dir_all(&dir).unwrap();
            for (name, bytes) in super::seeds().unwrap() {
                fs::write(dir.join(name), bytes).unwrap();
            }
        }
        let mut replayed = 0;
        for seed in fs::read_dir(dir).expect("the corpus is part of the repository") {
            super::segments(&fs::read(seed.unwrap().path()).unwrap());
            replayed += 1;
        }
        assert!(replayed >= 11, "only {replayed} seeds were replayed");
    }

    proptest::proptest! {
        /// The property on what is nearly a spool.
        #[test]
        fn nearly_spools(
            seed in 0_usize..11,
            mend in proptest::prelude::any::<bool>(),
            changes in proptest::collection::vec((proptest::prelude::any::<usize>(), proptest::prelude::any::<u8>()), 0..12),
            cut in proptest::prelude::any::<usize>(),
        ) {
            let mut bytes = super::seeds().unwrap().swap_remove(seed).1;
            let len = bytes.len().max(1);
            bytes.truncate(len - cut % len.min(200));
            for (at, byte) in changes {
                if let Some(to) = (!bytes.is_empty()).then(|| at % bytes.len()) {
                    bytes[to] = byte;
                }
            }
            if let Some(flags) = bytes.first_mut() {
                *flags = u8::from(mend);
            }
            super::segments(&bytes);
        }
    }
}
