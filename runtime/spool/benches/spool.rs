//! The spool on a real directory, below `target/tmp` of this crate's build: what the disk there can do decides.
//!
//! - `commit`: append of 144 records of 433 bytes, 64 KiB, and their commit. Delivered segments are deleted on the way.
//! - `raw`: the same bytes written and synced to a file without any of it: the yardstick for `commit`.
//! - `append`: the same without the commit, taken back: what is not the disk.
//! - `read`: reads of 64 KiB of a spool in the page cache.
//! - `open`: opening a spool of 1 GiB in the page cache; its throughput is that of the whole spool, though little of it is read.
//!
//! `sustained` is no criterion bench: it runs `commit` and `raw` in turns for 10 s each and prints what they moved, then how long a spool of
//! 1 GiB takes to open, and what is on disk for each byte of payload. `cargo bench -p hydrant-spool -- sustained`.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group};
use hydrant_spool::fs::Disk;
use hydrant_spool::{Options, Reader, Writer, inspect, open};

const PAYLOAD: usize = 433;
const RECORDS: u64 = 144;
const CHUNK: usize = RECORDS as usize * (PAYLOAD + 28);
const SEGMENT: u64 = 16 << 20;

fn spool(dir: &Path, max_bytes: u64) -> (Writer, Reader) {
    let options = Options { max_bytes, segment_bytes: SEGMENT, keep_free: 0, ..Options::default() };
    let (writer, reader, _) = open(Arc::new(Disk), dir, options).expect("the directory is ours");
    (writer, reader)
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("cargo makes the directory")
}

fn append(writer: &mut Writer) {
    for number in 0..RECORDS {
        writer.append(number, black_box(&[7; PAYLOAD])).expect("there is room");
    }
}

/// Append and commit, and the delivery that makes room again.
fn commit(writer: &mut Writer, reader: &mut Reader) {
    append(writer);
    writer.commit().expect("the disk takes it");
    if writer.stats().depth().bytes > 8 * SEGMENT {
        deliver(reader);
    }
}

fn deliver(reader: &mut Reader) -> u64 {
    let mut bytes = 0;
    loop {
        let batch = reader.read(1 << 20, 10_000).expect("the disk gives it");
        bytes += batch.records.iter().map(|record| record.payload.len() as u64).sum::<u64>();
        reader.ack(batch.through).expect("the disk takes it");
        if batch.records.is_empty() {
            return bytes;
        }
    }
}

/// The yardstick: files of a segment's size, written and synced in the same pieces.
struct Raw {
    dir: tempfile::TempDir,
    file: File,
    len: u64,
    piece: Vec<u8>,
}

impl Raw {
    fn new() -> Self {
        let dir = directory();
        let file = File::create(dir.path().join("raw")).expect("the directory is ours");
        Self { dir, file, len: 0, piece: vec![7; CHUNK] }
    }

    fn commit(&mut self) {
        if self.len + CHUNK as u64 > SEGMENT {
            self.file = File::create(self.dir.path().join("raw")).expect("the directory is ours");
            self.len = 0;
        }
        self.file.write_all_at(&self.piece, self.len).expect("the disk takes it");
        self.file.sync_data().expect("the disk takes it");
        self.len += CHUNK as u64;
    }
}

/// A spool of so many bytes that nobody reads.
fn filled(dir: &Path, bytes: u64) {
    let (mut writer, _reader) = spool(dir, 2 * bytes);
    while writer.stats().depth().bytes < bytes {
        for _ in 0..100 {
            append(&mut writer);
        }
        writer.commit().expect("the disk takes it");
    }
}

fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("spool");
    group.throughput(Throughput::Elements(RECORDS)).sample_size(50);
    group.bench_function("commit", |b| {
        let dir = directory();
        let (mut writer, mut reader) = spool(dir.path(), 512 << 20);
        b.iter(|| commit(&mut writer, &mut reader));
    });
    group.bench_function("raw", |b| {
        let mut raw = Raw::new();
        b.iter(|| raw.commit());
    });
    group.bench_function("append", |b| {
        let dir = directory();
        let (mut writer, _reader) = spool(dir.path(), 512 << 20);
        b.iter(|| {
            append(&mut writer);
            writer.take_uncommitted()
        });
    });
    let dir = directory();
    filled(dir.path(), 64 << 20);
    let (_writer, mut reader) = spool(dir.path(), 512 << 20);
    group.bench_function("read", |b| {
        let read = |reader: &mut Reader| reader.read(CHUNK, 10_000).expect("the disk gives it");
        b.iter_batched(
            || (),
            |()| {
                let mut batch = read(&mut reader);
                if batch.records.is_empty() {
                    reader.rewind();
                    batch = read(&mut reader);
                }
                batch
            },
            BatchSize::SmallInput,
        );
    });
    let dir = directory();
    filled(dir.path(), 1 << 30);
    group.throughput(Throughput::Bytes(1 << 30)).sample_size(10);
    group.bench_function("open", |b| b.iter(|| spool(dir.path(), 4 << 30)));
}

#[expect(clippy::print_stdout, reason = "its result")]
#[expect(clippy::disallowed_types, reason = "it measures time that passes")]
fn sustained() {
    let dir = directory();
    let (mut writer, mut reader) = spool(dir.path(), 512 << 20);
    let mut raw = Raw::new();
    let names = ["spool", "raw"];
    let mut totals = [(0_u64, Duration::ZERO); 2];
    // In turns of half a second: other guests of the disk disturb both alike.
    while totals[1].1 < Duration::from_secs(10) {
        for (which, (turns, time)) in totals.iter_mut().enumerate() {
            let start = std::time::Instant::now();
            while start.elapsed() < Duration::from_millis(500) {
                if which == 0 {
                    commit(&mut writer, &mut reader);
                } else {
                    raw.commit();
                }
                *turns += 1;
            }
            *time += start.elapsed();
        }
    }
    for (name, (turns, time)) in names.iter().zip(totals) {
        let (records, bytes, seconds) = ((turns * RECORDS) as f64, (turns * CHUNK as u64) as f64, time.as_secs_f64());
        let (rate, megabytes, each) = (records / seconds, bytes / seconds / 1e6, seconds * 1e3 / turns as f64);
        println!("{name}: {rate:.0} records/s, {megabytes:.1} MB/s, {each:.2} ms a commit");
    }
    drop((writer, reader));
    let dir = directory();
    filled(dir.path(), 1 << 30);
    let start = std::time::Instant::now();
    let (_writer, mut reader) = spool(dir.path(), 4 << 30);
    println!("open 1 GiB: {:?}", start.elapsed());
    let start = std::time::Instant::now();
    let report = inspect(&Disk, dir.path()).expect("the directory is ours");
    let disk: u64 = report.segments.iter().map(|segment| segment.bytes).sum();
    println!("inspect: {:?}; {:.4} bytes on disk a byte", start.elapsed(), disk as f64 / report.payload_bytes as f64);
    let start = std::time::Instant::now();
    let bytes = deliver(&mut reader);
    println!("read and acknowledge: {:.0} MB/s", bytes as f64 / start.elapsed().as_secs_f64() / 1e6);
}

criterion_group!(criterion, benches);

fn main() {
    if std::env::args().any(|argument| argument == "sustained") {
        sustained();
    } else {
        criterion();
        Criterion::default().configure_from_args().final_summary();
    }
}
