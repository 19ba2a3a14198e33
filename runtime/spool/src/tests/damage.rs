//! Whatever a spool's files hold, it opens, tells what is lost, and goes on.

use super::*;
use crate::format::{SEGMENT_HEADER, segment_name};

/// A spool of `records` records in segments of 512 bytes, closed, and its file system.
fn filled(records: u64) -> Model {
    let fs = Model::new();
    let (mut writer, _reader, _) = open_small(&fs);
    fill(&mut writer, 1..=records);
    drop(writer);
    fs
}

fn copy(fs: &Model) -> Model {
    let copy = Model::new();
    for name in fs.files() {
        let name = name.to_str().unwrap();
        copy.put(name, &fs.contents(name).unwrap());
    }
    copy
}

fn segments(fs: &Model) -> Vec<String> {
    let names = fs.files().into_iter().map(|name| name.into_string().unwrap());
    names.filter(|name| name.ends_with(".seg")).collect()
}

/// Opens, reads everything, then puts a record through, and holds the sums. Returns what came out and what is lost.
fn survives(fs: &Model) -> (Vec<u64>, u64, Recovered) {
    let (mut writer, mut reader, recovered) = open_small(fs);
    let (mut got, mut lost) = drain(&mut reader);
    assert!(got.is_sorted_by(|a, b| a < b));
    fill(&mut writer, [77]);
    let (more, more_lost) = drain(&mut reader);
    assert_eq!(more.len(), 1, "it goes on");
    lost += more_lost;
    assert_eq!(recovered.records + 1, (got.len() + more.len()) as u64 + lost);
    reader.ack(u64::MAX).unwrap();
    reader.checkpoint().unwrap();
    let depth = reader.stats().depth();
    assert_eq!((depth.records, depth.lost, depth.recovered + depth.committed), (0, lost, depth.acked + depth.lost));
    got.extend(more);
    drop((writer, reader));
    let (_writer, mut reader, again) = open_small(fs);
    assert_eq!((drain(&mut reader), again.records), ((Vec::new(), 0), 0), "all is acknowledged");
    (got, lost, recovered)
}

#[test]
fn truncation_at_every_byte_costs_only_what_is_cut() {
    let fs = filled(6);
    let name = segment_name(1);
    let bytes = fs.contents(&name).unwrap();
    let mut ends = vec![SEGMENT_HEADER];
    ends.extend((1..=6).scan(SEGMENT_HEADER, |end, n| {
        *end += 28 + payload(n).len();
        Some(*end)
    }));
    assert_eq!((ends[6], segments(&fs).len()), (bytes.len(), 1));
    for cut in 0..bytes.len() {
        let fs = copy(&fs);
        fs.put(&name, &bytes[..cut]);
        let whole = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
        let (got, lost, recovered) = survives(&fs);
        assert_eq!(got, (1..=whole as u64 + 1).collect::<Vec<_>>(), "cut at {cut}");
        assert_eq!(lost, 0, "a torn tail is no loss");
        if whole > 0 {
            assert_eq!(recovered.torn, (cut - ends[whole]) as u64);
        }
    }
}

#[test]
fn a_flip_of_any_byte_costs_at_most_the_record_it_is_in() {
    let fs = filled(20);
    let names = segments(&fs);
    assert!(names.len() > 2);
    let last = fs.contents(names.last().unwrap()).unwrap().len();
    let mut lossless = 0;
    for name in names.iter().map(String::as_str).chain(["checkpoint", "lock"]) {
        let bytes = fs.contents(name).unwrap();
        for at in 0..bytes.len() {
            for mask in [0x01, 0x80, 0xff] {
                let fs = copy(&fs);
                let mut flipped = bytes.clone();
                flipped[at] ^= mask;
                fs.put(name, &flipped);
                let (got, lost, recovered) = survives(&fs);
                let missing = 21 - got.len();
                assert!(missing <= 1, "{name} at {at}: {got:?}");
                // The last record of all may be a torn tail as well, and its sequence is used again.
                let in_tail = name == names.last().unwrap() && at >= last - 28 - payload(20).len();
                assert_eq!(lost, u64::from(missing == 1 && !in_tail), "{name} at {at}");
                assert_eq!(recovered.torn > 0, in_tail);
                lossless += usize::from(missing == 0);
            }
        }
    }
    assert!(lossless >= 3 * names.len() * SEGMENT_HEADER, "any byte of a header may go");
}

#[test]
fn a_checkpoint_knows_the_end() {
    let fs = filled(6);
    let (writer, mut reader, _) = open_small(&fs);
    drain(&mut reader);
    reader.ack(2).unwrap();
    reader.checkpoint().unwrap();
    drop((writer, reader));
    let name = segment_name(1);
    let bytes = fs.contents(&name).unwrap();
    fs.put(&name, &bytes[..bytes.len() - 50]);
    let (got, lost, recovered) = survives(&fs);
    assert_eq!((got, lost, recovered.lost), (vec![3, 4, 5, 7][..2].iter().copied().chain([7]).collect(), 2, 2));
}

#[test]
fn a_missing_segment_is_a_gap_that_is_counted() {
    let fs = filled(40);
    let names = segments(&fs);
    let report = inspect(&fs, Path::new("spool")).unwrap();
    for (name, segment) in names.iter().zip(&report.segments) {
        let fs = copy(&fs);
        fs.take(name);
        let (got, lost, recovered) = survives(&fs);
        if name == names.last().unwrap() {
            // The checkpoint is from the start and knows nothing of it: the end is open.
            assert_eq!((lost, got.len() as u64), (0, 41 - segment.records));
        } else {
            assert_eq!((lost, got.len() as u64), (segment.records, 41 - segment.records));
            let first = name == &names[0];
            assert_eq!(recovered.lost, if first { segment.records } else { 0 });
        }
    }
}

#[test]
fn a_segment_that_vanishes_while_it_is_open_is_a_gap() {
    let fs = Model::new();
    let (mut writer, mut reader, _) = open_small(&fs);
    fill(&mut writer, 1..=40);
    let names = segments(&fs);
    fs.take(&names[1]);
    let short = fs.contents(&names[2]).unwrap();
    fs.put(&names[2], &short[..short.len() - 1]);
    let (got, lost) = drain(&mut reader);
    assert_eq!(got.len() as u64 + lost, 40);
    assert!(lost > 3);
    reader.rewind();
    assert_eq!(drain(&mut reader), (got, 0), "lost is told once");
    reader.ack(40).unwrap();
    assert_eq!(segments(&fs).len(), 1);
}

#[test]
fn without_a_checkpoint_delivery_starts_at_the_oldest_record() {
    for spoiled in [None, Some(&b""[..]), Some(b"x"), Some(&[0; 32]), Some(&[0xff; 4_000])] {
        let fs = filled(40);
        let (writer, mut reader, _) = open_small(&fs);
        drain(&mut reader);
        reader.ack(30).unwrap();
        drop((writer, reader));
        let oldest = inspect(&fs, Path::new("spool")).unwrap().segments[0].first.unwrap();
        assert!(oldest > 1);
        match spoiled {
            None => fs.take("checkpoint"),
            Some(bytes) => fs.put("checkpoint", bytes),
        }
        let (got, lost, recovered) = survives(&fs);
        assert_eq!((got, lost), ((oldest..=41).collect(), 0), "repeats, no loss");
        let wanted = spoiled.map_or(CheckpointState::Missing, |_| CheckpointState::Unusable);
        assert_eq!(recovered.checkpoint, wanted);
    }
}

#[test]
fn garbage_does_no_harm() {
    let fs = filled(20);
    let name = segment_name(1);
    let copied = fs.contents(&name).unwrap();
    let strays = ["notes.txt", "1.seg", "checkpoint.tmp", "00000000000000000000.seg", "99999999999999999999.seg"];
    for stray in strays {
        fs.put(stray, &copied);
    }
    fs.put(&segment_name(500), &copied);
    fs.put(&segment_name((1 << 62) - 1), b"no segment, and the highest number there is");
    fs.put(&segment_name(501), b"");
    fs.put(&segment_name(502), &vec![0; 600]);
    fs.put(&segment_name(503), &vec![0xa5; 600]);
    let (got, lost, recovered) = survives(&fs);
    assert_eq!((got, lost), ((1..=21).collect(), 0));
    assert_eq!((recovered.foreign, recovered.unreadable), (6, 1_200));
    for stray in ["notes.txt", "1.seg", "99999999999999999999.seg", &segment_name(500)] {
        assert_eq!(fs.contents(stray).unwrap(), copied, "left alone");
    }
}

#[test]
fn what_another_version_wrote_is_left_alone() {
    let fs = filled(3);
    let name = segment_name(9);
    let mut header = crate::format::SegmentHeader { number: 9, first: 1, salt: 1 }.encode();
    header[8] = 2;
    let crc = crc32c::crc32c(&header[..32]).to_le_bytes();
    header[32..36].copy_from_slice(&crc);
    fs.put(&name, &header);
    let (got, _, recovered) = survives(&fs);
    assert_eq!((got, recovered.foreign), (vec![1, 2, 3, 4], 1));
    assert_eq!(fs.contents(&name).unwrap(), header);
    assert!(segments(&fs).contains(&segment_name(10)) || fs.files().len() == 3);
}

#[test]
fn a_payload_that_looks_like_records_is_not_taken_for_some() {
    let fs = Model::new();
    let (mut writer, reader, _) = open_small(&fs);
    fill(&mut writer, 1..=2);
    let inner = crate::format::RecordHeader::new(4, 0, b"").unwrap().encode(0);
    writer.append(0, &inner).unwrap();
    writer.commit().unwrap();
    fill(&mut writer, [4]);
    drop((writer, reader));
    let name = segment_name(1);
    let mut bytes = fs.contents(&name).unwrap();
    let at = SEGMENT_HEADER + 28 + payload(1).len() + 28 + payload(2).len();
    bytes[at] ^= 1;
    fs.put(&name, &bytes);
    let (_writer, mut reader, _) = open_small(&fs);
    assert_eq!(drain(&mut reader), (vec![1, 2, 4], 1));
}

#[test]
fn an_unreadable_disk_is_an_error_first_and_damage_later() {
    let fs = Model::new();
    let (mut writer, mut reader, _) = open_small(&fs);
    fill(&mut writer, 1..=5);
    fs.refuse_reads_of(".seg");
    assert!(reader.read(1_000, 10).is_err());
    fs.heal();
    assert_eq!(reader.read(1_000, 2).unwrap().through, 2, "nothing was passed over");
    fs.refuse_reads_of(".seg");
    let errors = (0..7).filter(|_| reader.read(1_000, 10).is_err()).count();
    let batch = reader.read(1_000, 10).unwrap();
    assert_eq!((errors, batch.records.len(), batch.lost, batch.through), (7, 0, 3, 5));
}

#[test]
fn what_a_disk_refuses_at_opening_is_looked_at_again() {
    let fs = filled(20);
    fs.refuse_reads_of(".seg");
    let (mut writer, mut reader, recovered) = open_small(&fs);
    assert!(recovered.records > 20, "as many as may be there");
    assert!(reader.read(1_000, 10).is_err());
    fs.heal();
    fill(&mut writer, [77]);
    let (got, lost) = drain(&mut reader);
    assert_eq!(got[..20], (1..=20).collect::<Vec<_>>());
    assert_eq!((got.len() as u64, lost), (21, recovered.records - 20));
    drop((writer, reader));
    fs.refuse_reads_of("checkpoint");
    let refused = open(Arc::new(fs.clone()), Path::new("spool"), small()).map(|_| ()).unwrap_err();
    assert!(matches!(refused, OpenError::Io { .. }), "where delivery was may be known later");
    fs.heal();
    fs.take("checkpoint");
    fs.refuse_reads_of(".seg");
    assert!(open(Arc::new(fs.clone()), Path::new("spool"), small()).is_err());
    fs.heal();
    assert_eq!(drain(&mut open_small(&fs).1).0, got);
}
