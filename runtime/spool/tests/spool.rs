//! Spools on the real file system: who gets in, what files there are, and both ends at work at once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;

use hydrant_spool::fs::Disk;
use hydrant_spool::{CheckpointState, OpenError, Options, Reader, Recovered, Writer, inspect, open, remove};

fn options() -> Options {
    Options { keep_free: 0, ..Options::with_max_bytes(1 << 20) }
}

fn open_at(dir: &Path) -> (Writer, Reader, Recovered) {
    open(Arc::new(Disk), dir, options()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

/// Appends and commits one record per payload.
fn put(writer: &mut Writer, payloads: &[&str]) {
    for payload in payloads {
        writer.append(1, payload.as_bytes()).unwrap();
        writer.commit().unwrap();
    }
}

fn all(reader: &mut Reader) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let batch = reader.read(1 << 20, 1_000).unwrap();
        if batch.records.is_empty() {
            return all;
        }
        all.extend(batch.records.iter().map(|record| String::from_utf8(record.payload.to_vec()).unwrap()));
    }
}

#[test]
fn a_spool_lives_from_making_to_removal() {
    let above = tempfile::tempdir().unwrap();
    let dir = above.path().join("drains/4f2a");
    let (mut writer, mut reader, recovered) = open_at(&dir);
    assert_eq!(recovered.checkpoint, CheckpointState::Missing);
    put(&mut writer, &["one", "two", "three"]);
    assert_eq!(all(&mut reader), ["one", "two", "three"]);
    reader.ack(1).unwrap();
    reader.checkpoint().unwrap();
    assert_eq!((mode(&above.path().join("drains")), mode(&dir)), (0o700, 0o700));
    let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["00000000000000000001.seg", "checkpoint", "lock"]);
    assert!(names.iter().all(|name| mode(&dir.join(name)) == 0o600));

    let second = open(Arc::new(Disk), &dir, options()).map(|_| ()).unwrap_err();
    assert!(matches!(second, OpenError::InUse { .. }));
    assert!(second.to_string().contains("drains/4f2a"), "{second}");
    assert_eq!(inspect(&Disk, &dir).unwrap().records, 2, "a look needs no lock");
    drop(writer);
    assert!(open(Arc::new(Disk), &dir, options()).is_err(), "the reader holds it still");
    drop(reader);

    let (_writer, mut reader, recovered) = open_at(&dir);
    assert_eq!((recovered.records, recovered.checkpoint), (2, CheckpointState::Used));
    assert_eq!(all(&mut reader), ["two", "three"]);
    drop((_writer, reader));
    remove(&Disk, &dir).unwrap();
    assert!(!dir.exists());
    remove(&Disk, &dir).unwrap();
}

#[test]
fn links_pipes_and_directories_are_not_followed_or_waited_for() {
    let above = tempfile::tempdir().unwrap();
    let dir = above.path().join("spool");
    let (mut writer, reader, _) = open_at(&dir);
    put(&mut writer, &["one"]);
    drop((writer, reader));
    let target = above.path().join("precious");
    fs::write(&target, "precious").unwrap();
    fs::remove_file(dir.join("checkpoint")).unwrap();
    symlink(&target, dir.join("checkpoint")).unwrap();
    symlink(&target, dir.join("checkpoint.tmp")).unwrap();
    symlink(&target, dir.join("00000000000000000007.seg")).unwrap();
    fs::create_dir(dir.join("00000000000000000008.seg")).unwrap();
    nix::unistd::mkfifo(&dir.join("00000000000000000009.seg"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (mut writer, mut reader, recovered) = open_at(&dir);
    assert_eq!((recovered.records, recovered.foreign, recovered.checkpoint), (1, 3, CheckpointState::Missing));
    put(&mut writer, &["two"]);
    assert_eq!(all(&mut reader), ["one", "two"]);
    reader.ack(2).unwrap();
    reader.checkpoint().unwrap();
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    drop((writer, reader));
    remove(&Disk, &dir).unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 3, "what is not the spool's stays");
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
}

#[test]
fn both_ends_work_at_once() {
    const COMMITS: u64 = 200;
    const EACH: u64 = 50;
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 64 << 10, max_record: 1_000, checkpoint_records: 500, ..options() };
    let (mut writer, mut reader, _) = open(Arc::new(Disk), dir.path(), options).unwrap();
    let stats = writer.stats();
    let (committed, wake) = mpsc::sync_channel(1);
    let (acked, room) = mpsc::sync_channel::<()>(1);
    let write = thread::spawn(move || {
        for number in 0..COMMITS * EACH {
            let payload = [number.to_le_bytes().as_slice(), &[number as u8; 200]].concat();
            while writer.append(number, &payload).is_err() {
                room.recv().unwrap();
            }
            if number % EACH == EACH - 1 {
                writer.commit().unwrap();
                committed.send(()).unwrap();
            }
        }
    });
    let mut next = 0;
    while next < COMMITS * EACH {
        let batch = reader.read(16 << 10, 100).unwrap();
        assert_eq!(batch.lost, 0);
        if batch.records.is_empty() {
            wake.recv().unwrap();
        }
        for record in &batch.records {
            assert_eq!((record.sequence, record.arrival_ms), (next + 1, next));
            assert_eq!(record.payload[..8], next.to_le_bytes());
            next += 1;
        }
        reader.ack(batch.through).unwrap();
        let _ = (acked.try_send(()), wake.try_recv());
    }
    write.join().unwrap();
    let depth = stats.depth();
    assert_eq!((depth.records, depth.acked, depth.lost, depth.committed), (0, next, 0, next));
    assert!(depth.bytes <= 128 << 10, "what is delivered is deleted: {} bytes", depth.bytes);
}
