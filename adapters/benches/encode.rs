//! What an envelope costs on its way to a line: reading it and writing its RFC 5424 form.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hydrant_adapters::syslog::config::Options;
use hydrant_adapters::syslog::encode::{Encoder, Parts, Style};
use prost::Message;
use ten_tags::envelope;

#[path = "envelopes/ten_tags.rs"]
mod ten_tags;

/// The same envelope over and over, its tags in another order each time, as a map of its sender has them.
fn shuffled() -> Vec<Vec<u8>> {
    (0..64).map(|_| envelope().encode_to_vec()).collect()
}

/// Envelopes of one instance with a tag that is never the same.
fn changing() -> Vec<Vec<u8>> {
    (0..64).map(|i| envelope().tag("process_id", format!("c0ffee00-1111-2222-3333-{i:012}")).encode_to_vec()).collect()
}

fn encode(criterion: &mut Criterion) {
    let mut out = Vec::with_capacity(4096);
    let mut group = criterion.benchmark_group("syslog");
    group.throughput(Throughput::Elements(1));
    for (name, envelopes) in [("known_tags", shuffled()), ("changing_tags", changing())] {
        let mut encoder = Encoder::new(&Options::default(), "org.space.app", true, Style::default());
        let mut next = envelopes.iter().cycle();
        group.bench_function(name, |bencher| {
            let mut spare = Vec::new();
            bencher.iter(|| {
                out.clear();
                let bytes = next.next().map_or(&[][..], Vec::as_slice);
                Parts::read(black_box(bytes), &mut spare).map(|parts| encoder.encode(&parts, &mut out))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
