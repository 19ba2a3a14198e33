//! Power losses and failing calls at every point of a fixed script.

use super::judge::{Judge, Step};
use super::*;
use crate::fs::Fault;

/// Touches everything: several segments, acknowledgements, checkpoints, deletions, a rewind, records taken back.
fn script() -> Vec<Step> {
    let mut script = Vec::new();
    for round in 0..12 {
        script.extend([Step::Append(1 + round % 4), Step::Commit, Step::Append(2), Step::Commit, Step::Read(200, 3)]);
        match round % 4 {
            0 => script.push(Step::Ack(100)),
            1 => script.extend([Step::Read(300, 9), Step::Ack(60), Step::Checkpoint]),
            2 => script.extend([Step::Append(1), Step::Take, Step::Rewind]),
            _ => script.extend([Step::Read(1_000, 9), Step::Ack(80)]),
        }
    }
    script
}

fn run(judge: &mut Judge) {
    for step in script() {
        judge.step(&step);
    }
}

/// How many calls the script makes that change something.
fn calls() -> u64 {
    let mut judge = Judge::new(small());
    run(&mut judge);
    judge.finish();
    assert!(judge.fs.calls() > 100);
    judge.fs.calls()
}

#[test]
fn power_loss_at_every_call_loses_nothing_committed() {
    for call in 1..=calls() {
        for seed in 0..12 {
            let mut judge = Judge::new(small());
            judge.step(&Step::Fail(call, Fault::PowerLoss));
            run(&mut judge);
            judge.step(&Step::Crash(call * 1_000 + seed));
            judge.step(&Step::Append(2));
            judge.step(&Step::Commit);
            judge.step(&Step::Crash(call * 1_000 + seed + 500));
            judge.finish();
        }
    }
}

#[test]
fn a_failing_call_anywhere_costs_nothing_committed() {
    for fault in [Fault::Io, Fault::NoSpace, Fault::Short] {
        for call in 1..=calls() {
            // Alone, and followed by another one in the clean-up.
            for also in 0..3 {
                let mut judge = Judge::new(small());
                judge.step(&Step::Fail(call, fault));
                if also > 0 {
                    judge.step(&Step::Fail(call + also, Fault::Io));
                }
                run(&mut judge);
                judge.step(&if also == 1 { Step::Kill } else { Step::Crash(call) });
                judge.step(&Step::Append(1));
                judge.step(&Step::Commit);
                judge.step(&Step::Crash(call));
                judge.finish();
            }
        }
    }
}

#[test]
fn a_failed_sync_is_never_trusted_again() {
    let fs = Model::new();
    let (mut writer, mut reader, _) = open_small(&fs);
    fill(&mut writer, 1..=2);
    writer.append(3, &payload(3)).unwrap();
    fs.inject(fs.calls() + 2, Fault::Io);
    let error = writer.commit().unwrap_err();
    assert!(matches!(&error, CommitError::Io { path, .. } if path.ends_with("00000000000000000001.seg")), "{error}");
    assert_eq!((writer.uncommitted(), writer.stats().depth().health), (1, Health::Failing));
    assert_eq!(drain(&mut reader), (vec![1, 2], 0), "what failed does not show");
    assert_eq!(writer.commit().unwrap().through, 3);
    assert_eq!(writer.stats().depth().health, Health::Accepting);
    assert_eq!(drain(&mut reader), (vec![3], 0));
    fs.crash(|_| 0);
    drop((writer, reader));
    let (_writer, mut reader, recovered) = open_small(&fs);
    assert_eq!((recovered.records, drain(&mut reader)), (3, (vec![1, 2, 3], 0)));
    assert!(fs.contents("00000000000000000002.seg").is_some(), "in a new segment");
}

#[test]
fn a_full_disk_is_told_and_passes() {
    let fs = Model::new();
    let (mut writer, mut reader, _) = open_small(&fs);
    fill(&mut writer, 1..=20);
    let used: usize = fs.files().iter().map(|name| fs.contents(name.to_str().unwrap()).unwrap().len()).sum();
    fs.set_capacity(Some(used as u64));
    writer.append(21, &payload(21)).unwrap();
    for _ in 0..3 {
        assert!(matches!(writer.commit(), Err(CommitError::NoSpace { .. })));
        assert_eq!(writer.stats().depth().health, Health::NoSpace);
    }
    assert_eq!(drain(&mut reader).0, (1..=20).collect::<Vec<_>>());
    let before = fs.files().len();
    reader.ack(20).unwrap();
    assert!(fs.files().len() < before, "the checkpoint is written over the old one, and space comes back");
    assert_eq!(writer.commit().unwrap().through, 21);
    assert_eq!(drain(&mut reader).0, [21]);
}

#[test]
fn a_checkpoint_that_fails_deletes_nothing() {
    let fs = Model::new();
    let (mut writer, mut reader, _) = open_small(&fs);
    fill(&mut writer, 1..=40);
    drain(&mut reader);
    let files = fs.files();
    for call in 1..=5 {
        fs.inject(fs.calls() + call, Fault::Io);
        assert!(reader.ack(10).is_err() || reader.checkpoint().is_err());
        fs.heal();
        let segments = |files: &[std::ffi::OsString]| files.iter().filter(|name| name.len() == 24).count();
        assert_eq!(segments(&fs.files()), segments(&files));
    }
    reader.ack(40).unwrap();
    assert!(fs.files().len() < files.len());
}

#[test]
fn a_checkpoint_on_a_full_disk_holds_once_it_is_told_to() {
    for call in 1..=6 {
        for seed in 0..40 {
            let mut judge = Judge::new(small());
            for step in [Step::Append(6), Step::Commit, Step::Read(500, 3), Step::Ack(100), Step::Checkpoint] {
                judge.step(&step);
            }
            judge.step(&Step::Read(500, 2));
            judge.step(&Step::Ack(100));
            judge.fs.inject(judge.fs.calls() + call, Fault::NoSpace);
            judge.step(&Step::Checkpoint);
            // No excuse for the checkpoint here: the call had returned.
            judge.step(&Step::Crash(seed));
            judge.finish();
        }
    }
}

#[test]
fn what_failed_commits_leave_on_disk_counts() {
    let fs = Model::new();
    let (mut writer, mut reader, _) = open_small(&fs);
    let mut refused = false;
    for number in 1..=30 {
        if writer.append(number, &[7; 200]).is_err() {
            refused = true;
            break;
        }
        // The sync fails, then the clean-up: a cut, or a removal.
        let calls = if number % 2 == 0 { 3..=5 } else { 2..=4 };
        calls.for_each(|call| fs.inject(fs.calls() + call, Fault::Io));
        let _ = writer.commit();
        fs.heal();
        let committed = writer.commit();
        refused |= matches!(committed, Err(CommitError::Full { .. }));
        assert!(writer.stats().depth().bytes <= 4_096);
    }
    assert!(refused);
    let waiting = writer.uncommitted();
    assert_eq!(writer.take_uncommitted().len() as u64, waiting);
    loop {
        let batch = reader.read(10_000, 100).unwrap();
        reader.ack(batch.through).unwrap();
        if batch.records.is_empty() {
            break;
        }
    }
    reader.checkpoint().unwrap();
    writer.append(1, b"again").unwrap();
    writer.commit().unwrap();
}

#[test]
fn what_is_found_unsynced_is_made_durable_before_it_is_shown() {
    use crate::format::{RecordHeader, SegmentHeader, segment_name};
    use crate::fs::FileSystem;
    let fs = Model::new();
    drop(open_small(&fs));
    // As a process leaves it that is killed between write and sync.
    let path = Path::new("spool").join(segment_name(1));
    let file = fs.create(&path).unwrap();
    let mut bytes = SegmentHeader { number: 1, first: 1, salt: 5 }.encode().to_vec();
    bytes.extend(RecordHeader::new(1, 1, &payload(1)).unwrap().encode(5));
    bytes.extend(payload(1));
    file.write_at(&bytes, 0).unwrap();
    let (_, mut reader, _) = open_small(&fs);
    assert_eq!(drain(&mut reader).0, [1]);
    drop(reader);
    fs.crash(|n| n - 1);
    assert_eq!(drain(&mut open_small(&fs).1).0, [1]);
}

#[test]
fn a_checkpoint_that_is_found_may_not_be_durable() {
    let fs = Model::new();
    let (mut writer, mut reader, _) = open_small(&fs);
    fill(&mut writer, 1..=20);
    drain(&mut reader);
    fs.inject(fs.calls() + 5, Fault::Io);
    assert!(reader.ack(20).is_err(), "renamed, and the directory not synced");
    drop((writer, reader));
    fs.inject(fs.calls() + 2, Fault::Io);
    let (writer, reader, recovered) = open_small(&fs);
    assert_eq!(recovered.acked, 20, "so it looks");
    drop((writer, reader));
    // The new file and its new name never reach the disk; whatever was done after that does.
    let mut changes = 0;
    fs.crash(|n| {
        changes += u64::from(n == 2);
        u64::from(n == 2 && changes <= 2)
    });
    let (_, mut reader, _) = open_small(&fs);
    assert_eq!(drain(&mut reader), ((1..=20).collect(), 0));
}

#[test]
fn what_failed_commits_leave_goes_though_nothing_is_left_to_acknowledge() {
    let fs = Model::new();
    let (mut writer, mut reader, _) = open_small(&fs);
    writer.append(1, &[7; 200]).unwrap();
    loop {
        // A new segment's sync and its removal: it stays there.
        (3..=6).for_each(|call| fs.inject(fs.calls() + call, Fault::Io));
        if matches!(writer.commit().unwrap_err(), CommitError::Full { .. }) {
            break;
        }
        fs.heal();
    }
    fs.heal();
    reader.checkpoint().unwrap();
    assert_eq!(writer.commit().unwrap().through, 1);
}
