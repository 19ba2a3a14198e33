//! Lines of container logs to batches: bytes per second of one core, lines of 200 bytes.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hydrant_agent::Gather;
use hydrant_agent::files::{Decoder, FilesConfig, Format, Labels, MAX_RAW, Preset, Resume};

/// Whole lines, as many as one reading gives.
fn file(line: impl Fn(usize) -> String) -> Vec<u8> {
    let mut file = Vec::new();
    for i in 0.. {
        let line = line(i);
        if file.len() + line.len() > MAX_RAW {
            break;
        }
        file.extend_from_slice(line.as_bytes());
    }
    file
}

fn padded(head: &str, tail: &str) -> String {
    format!("{head}{}{tail}", "x".repeat(200 - head.len() - tail.len()))
}

fn files(c: &mut Criterion) {
    let cri = file(|i| padded(&format!("2024-04-05T19:34:38.{i:09}Z stdout F "), "\n"));
    let docker = file(|i| {
        let tail = format!("\\n\",\"stream\":\"stdout\",\"time\":\"2024-04-05T19:34:38.{i:09}Z\"}}\n");
        padded("{\"log\":\"", &tail)
    });
    let plain = file(|i| padded(&format!("{i} "), "\n"));
    let mut group = c.benchmark_group("files");
    let cases = [
        ("cri", Format::Cri, None, &cri),
        ("cri, java", Format::Cri, Some(Preset::Java), &cri),
        ("docker", Format::Docker, None, &docker),
        ("plain", Format::Plain, None, &plain),
    ];
    for (name, format, multiline, bytes) in cases {
        let config = FilesConfig {
            paths: Vec::new(),
            exclude: Vec::new(),
            format,
            source_id: None,
            instance_id: None,
            start: None,
            multiline,
        };
        let path = Path::new("/var/log/pods/shop_web-6f7d5c-x2xkq_0a1b2c3d-1111-2222-3333-444455556666/nginx/0.log");
        let mut decoder = Decoder::new(&config, Labels::of(&config, path, &[], None), 60 * 1024, Resume::default());
        let mut gather = Gather::default();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let used = decoder.feed(black_box(bytes), 1, &mut gather, |_, _| ());
                assert_eq!(used, bytes.len());
                gather.take()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, files);
criterion_main!(benches);
