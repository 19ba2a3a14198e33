//! A spool on the model file system: what each call does, what damage costs, and what a power loss leaves.

mod crash;
mod damage;
mod judge;
mod model;

use std::path::Path;
use std::sync::Arc;

use super::fs::Model;
use super::*;

/// Small limits, so that few records fill segments.
fn small() -> Options {
    Options { max_bytes: 4_096, segment_bytes: 512, keep_free: 0, max_record: 256, checkpoint_records: 1_000 }
}

fn open_with(fs: &Model, options: Options) -> (Writer, Reader, Recovered) {
    open(Arc::new(fs.clone()), Path::new("spool"), options).unwrap()
}

fn open_small(fs: &Model) -> (Writer, Reader, Recovered) {
    open_with(fs, small())
}

/// The payload of the record with this number: tells itself from every other.
fn payload(number: u64) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.extend((0..number % 40).map(|i| (number * 7 + i) as u8));
    payload
}

/// Appends and commits records of these numbers, each in a commit of its own.
fn fill(writer: &mut Writer, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        writer.append(number, &payload(number)).unwrap();
        writer.commit().unwrap();
    }
}

/// Reads all there is: sequences, and how many were lost. Each record's payload must be that of its arrival.
fn drain(reader: &mut Reader) -> (Vec<u64>, u64) {
    let (mut sequences, mut lost) = (Vec::new(), 0);
    loop {
        let batch = reader.read(300, 7).unwrap();
        lost += batch.lost;
        for record in &batch.records {
            assert_eq!(record.payload, payload(record.arrival_ms));
            sequences.push(record.sequence);
        }
        if batch.records.is_empty() {
            return (sequences, lost);
        }
    }
}

#[test]
fn records_come_out_as_they_went_in_once_they_are_committed() {
    let fs = Model::new();
    let (mut writer, mut reader, recovered) = open_small(&fs);
    let new = CheckpointState::Missing;
    let nothing =
        Recovered { acked: 0, records: 0, bytes: 0, lost: 0, torn: 0, unreadable: 0, foreign: 0, checkpoint: new };
    assert_eq!(recovered, nothing);
    assert_eq!(writer.append(5, b"one").unwrap(), 1);
    assert_eq!(writer.append(6, b"").unwrap(), 2);
    assert_eq!(reader.read(1_000, 10).unwrap(), Batch::default(), "not committed");
    assert_eq!(writer.commit().unwrap(), Committed { records: 2, bytes: 2 * 28 + 3, through: 2 });
    assert_eq!(writer.commit().unwrap(), Committed { records: 0, bytes: 0, through: 2 });
    let batch = reader.read(1_000, 10).unwrap();
    assert_eq!((batch.lost, batch.through), (0, 2));
    let records: Vec<_> = batch.records.iter().map(|r| (r.sequence, r.arrival_ms, &r.payload[..])).collect();
    assert_eq!(records, [(1, 5, &b"one"[..]), (2, 6, b"")]);
    assert!(reader.read(1_000, 10).unwrap().records.is_empty());
}

#[test]
fn a_read_keeps_its_bounds_but_always_gives_a_record() {
    let fs = Model::new();
    let (mut writer, mut reader, _) = open_small(&fs);
    for _ in 0..4 {
        writer.append(1, &[7; 72]).unwrap();
    }
    writer.commit().unwrap();
    let mut read = |bytes, records| reader.read(bytes, records).unwrap().records.len();
    assert_eq!(read(299, 10), 2, "100 bytes each on disk");
    assert_eq!(read(0, 10), 1);
    reader.rewind();
    let mut read = |bytes, records| reader.read(bytes, records).unwrap().records.len();
    assert_eq!((read(1_000, 3), read(1_000, 0)), (3, 1));
}

#[test]
fn delivery_goes_on_behind_the_checkpoint() {
    let fs = Model::new();
    let (mut writer, mut reader, _) = open_small(&fs);
    fill(&mut writer, 1..=40);
    assert_eq!(drain(&mut reader).0, (1..=40).collect::<Vec<_>>());
    reader.ack(10).unwrap();
    reader.checkpoint().unwrap();
    reader.ack(11).unwrap();
    drop((writer, reader));
    let (mut writer, mut reader, recovered) = open_small(&fs);
    assert_eq!((recovered.records, recovered.checkpoint), (30, CheckpointState::Used));
    assert_eq!(writer.stats().depth().oldest_arrival_ms, Some(11));
    fill(&mut writer, 41..=42);
    assert_eq!(drain(&mut reader), ((11..=42).collect(), 0), "11 again: its acknowledgement was not durable");
    reader.ack(u64::MAX).unwrap();
    reader.checkpoint().unwrap();
    drop((writer, reader));
    let (mut writer, mut reader, recovered) = open_small(&fs);
    assert_eq!((recovered.records, recovered.bytes), (0, 0), "the segment that was open is deleted now");
    fill(&mut writer, [43]);
    assert_eq!(drain(&mut reader).0, [43], "sequences go on though no segment was left");
}

#[test]
fn a_rewind_repeats_what_is_not_acknowledged() {
    let fs = Model::new();
    let (mut writer, mut reader, _) = open_small(&fs);
    fill(&mut writer, 1..=30);
    reader.rewind();
    for _ in 0..3 {
        assert_eq!(reader.read(300, 5).unwrap().records.len(), 5);
    }
    reader.ack(7).unwrap();
    reader.rewind();
    assert_eq!(drain(&mut reader).0, (8..=30).collect::<Vec<_>>());
    reader.rewind();
    assert_eq!(reader.read(300, 2).unwrap().through, 9);
    reader.ack(20).unwrap();
    assert_eq!(drain(&mut reader).0, (21..=30).collect::<Vec<_>>(), "an acknowledgement from before the rewind counts");
    reader.rewind();
    assert_eq!(drain(&mut reader).0, (21..=30).collect::<Vec<_>>());
}

#[test]
fn segments_go_when_the_checkpoint_is_past_them() {
    let fs = Model::new();
    let (mut writer, mut reader, _) = open_small(&fs);
    let segments = || fs.files().iter().filter(|name| name.to_str().unwrap().ends_with(".seg")).count();
    fill(&mut writer, 1..=40);
    let (all, bytes) = (segments(), writer.stats().depth().bytes);
    assert!(all > 4);
    drain(&mut reader);
    reader.ack(12).unwrap();
    assert!(segments() < all, "an acknowledgement that lets a segment go writes the checkpoint");
    assert!(writer.stats().depth().bytes < bytes);
    reader.ack(40).unwrap();
    assert_eq!(segments(), 1, "that being written stays");
}

#[test]
fn a_full_spool_refuses_and_takes_again_when_segments_go() {
    let fs = Model::new();
    let (mut writer, mut reader, _) = open_small(&fs);
    let mut taken = 0;
    let refused = loop {
        match writer.append(taken + 1, &payload(taken + 1)) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        writer.commit().unwrap();
        assert!(writer.stats().depth().bytes <= 4_096);
    };
    assert!(matches!(refused, AppendError::Full { max: 4_096, .. }), "{refused}");
    assert_eq!(writer.stats().depth().health, Health::Full);
    assert_eq!(drain(&mut reader).0, (1..=taken).collect::<Vec<_>>());
    reader.ack(taken).unwrap();
    for _ in 0..3 {
        writer.append(9, &[0; 256]).unwrap();
        writer.commit().unwrap();
    }
    assert_eq!(writer.stats().depth().health, Health::Accepting);
}

#[test]
fn limits_are_told() {
    let fs = Model::new();
    let (mut writer, _reader, _) = open_small(&fs);
    let error = writer.append(0, &[0; 257]).unwrap_err();
    assert_eq!(error.to_string(), "record of 257 bytes is longer than 256");
    writer.append(0, &[0; 256]).unwrap();
    assert_eq!(writer.append(0, &[0; 256]), Err(AppendError::Uncommitted { bytes: 284 }));
    let second = open(Arc::new(fs.clone()), Path::new("spool"), small()).map(|_| ()).unwrap_err();
    assert_eq!(second.to_string(), "spool spool is in use");
    assert!(matches!(remove(&fs, Path::new("spool")), Err(RemoveError::InUse { .. })));
    let wrong = |options| open(Arc::new(Model::new()), Path::new("spool"), options).map(|_| ()).unwrap_err();
    for options in [
        Options { max_record: u32::MAX, ..small() },
        Options { max_record: 413, ..small() },
        Options { segment_bytes: 2_049, ..small() },
        Options { segment_bytes: 2 << 30, max_bytes: 8 << 30, ..small() },
    ] {
        assert!(matches!(wrong(options), OpenError::Options { .. }));
    }
    for max in [10 << 10, 1 << 20, 64 << 20, 4 << 30] {
        drop(open_with(&Model::new(), Options::with_max_bytes(max)));
    }
}

#[test]
fn some_of_the_file_system_stays_free() {
    let fs = Model::new();
    fs.set_capacity(Some(2_000));
    let (mut writer, _reader, _) = open_with(&fs, Options { keep_free: 50, ..small() });
    let mut now = 0;
    let refused = loop {
        now += 1_000;
        match writer.append(now, &[0; 72]) {
            Ok(_) => writer.commit().unwrap(),
            Err(error) => break error,
        };
    };
    assert_eq!(refused.to_string(), "less than 50 % of the file system would stay free");
    assert_eq!(writer.stats().depth().health, Health::NoSpace);
    assert!((800..=1_000).contains(&writer.stats().depth().bytes));
    fs.set_capacity(Some(4_000));
    writer.append(now, &[0; 72]).unwrap();
}

#[test]
fn what_waits_can_be_taken_back() {
    let fs = Model::new();
    let (mut writer, mut reader, _) = open_small(&fs);
    fill(&mut writer, [1]);
    writer.append(2, &payload(2)).unwrap();
    writer.append(3, &payload(3)).unwrap();
    let back = writer.take_uncommitted();
    assert_eq!(back.iter().map(|record| (record.sequence, record.arrival_ms)).collect::<Vec<_>>(), [(2, 2), (3, 3)]);
    assert_eq!(back[1].payload, payload(3));
    fill(&mut writer, [4]);
    assert_eq!(drain(&mut reader), (vec![1, 2], 0), "nothing is lost by it");
    let depth = writer.stats().depth();
    assert_eq!((depth.appended, depth.committed, depth.uncommitted, depth.taken), (4, 2, 0, 2));
}

#[test]
fn the_numbers_tell_depth_and_age() {
    let fs = Model::new();
    let (mut writer, mut reader, _) = open_small(&fs);
    let stats = writer.stats();
    fill(&mut writer, 1..=20);
    assert_eq!((stats.depth().records, stats.depth().oldest_arrival_ms), (20, Some(1)));
    let first = reader.read(300, 5).unwrap();
    let second = reader.read(300, 5).unwrap();
    reader.ack(first.through).unwrap();
    assert_eq!((stats.depth().records, stats.depth().oldest_arrival_ms), (15, Some(6)));
    reader.ack(second.through).unwrap();
    assert_eq!(stats.depth().oldest_arrival_ms, Some(6), "what comes next is not read yet");
    drain(&mut reader);
    reader.ack(20).unwrap();
    assert_eq!((stats.depth().records, stats.depth().oldest_arrival_ms, stats.depth().acked), (0, None, 20));
    fill(&mut writer, [21]);
    assert_eq!(stats.depth().oldest_arrival_ms, Some(21));
}

#[test]
fn inspect_sees_what_is_there_while_it_is_open() {
    let fs = Model::new();
    let (mut writer, mut reader, _) = open_small(&fs);
    fill(&mut writer, 1..=20);
    drain(&mut reader);
    reader.ack(2).unwrap();
    reader.checkpoint().unwrap();
    let report = inspect(&fs, Path::new("spool")).unwrap();
    assert_eq!((report.records, report.acked, report.lost, report.foreign), (18, 2, 0, 0));
    assert_eq!((report.oldest_arrival_ms, report.newest_arrival_ms), (Some(3), Some(20)));
    assert_eq!(report.payload_bytes, (3..=20).map(|n| payload(n).len() as u64).sum::<u64>());
    assert_eq!(report.segments.iter().map(|segment| segment.records).sum::<u64>(), 20);
    assert!(report.segments.iter().all(|segment| segment.readable && segment.damaged.is_empty() && segment.torn == 0));
    let text = report.to_string();
    assert!(text.contains("waiting: 18 records"), "{text}");
    assert!(text.contains("segment 1: "), "{text}");
}

#[test]
fn remove_leaves_what_is_not_the_spools() {
    let fs = Model::new();
    let (mut writer, reader, _) = open_small(&fs);
    fill(&mut writer, 1..=20);
    fs.put("notes.txt", b"mine");
    drop((writer, reader));
    remove(&fs, Path::new("spool")).unwrap();
    assert_eq!(fs.files(), ["notes.txt"]);
    remove(&fs, Path::new("spool")).unwrap();
}
