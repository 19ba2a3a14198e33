//! The properties that the fuzz target holds on arbitrary texts, and that a test replays over its seeds.

use proto::raw::{Batch, Limits, Selection};

use super::cpu::{self, MOST, Ticks};
use super::report::Report;
use super::{disk, memory, network};
use crate::gather::Gather;

/// Takes `bytes` as the text of any of the kernel's files.
///
/// # Panics
/// When a share is no percentage, or what is reported is not what every hop takes.
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut gather = Gather::default();
    let mut report = Report::new(&mut gather, "host", 1);
    let mut before = Ticks::default();
    let mut lines = 0;
    for (name, ticks) in cpu::parse(&text) {
        lines += 1;
        if let Some(shares) = ticks.since(&before) {
            let all = [shares.user, shares.system, shares.wait, shares.idle];
            assert!(all.iter().all(|share| (0.0..=100.0).contains(share)), "{shares:?}");
            report.cpu(Some(name), &shares);
        }
        before = ticks;
    }
    assert!(lines <= MOST + 1, "processors are bounded");
    if let Some(memory) = memory::Memory::parse(&text) {
        report.memory(&memory);
    }
    if let Some(load) = memory::load(&text) {
        report.load(load);
    }
    for interface in network::interfaces(&text).take(64) {
        report.interface(&interface);
    }
    report.protocols(&text);
    if let Some(device) = disk::device(&text, "/") {
        let _none = disk::activity(&text, device);
    }
    let _none = disk::activity(&text, "8:0");
    let Some((batch, refused)) = gather.take() else { return };
    let made = batch.len();
    assert_eq!(refused.decode_error, 0, "what is built is well-formed");
    let (checked, broken) = Batch::check(Selection::from(batch).encode(), &Limits::default());
    assert_eq!((checked.len(), broken.total()), (made, 0), "every hop takes what was built");
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_fuzz_corpus_holds() {
        let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/host_text");
        let mut replayed = 0;
        for seed in std::fs::read_dir(seeds).expect("the corpus is part of the repository") {
            super::fuzz(&std::fs::read(seed.expect("readable").path()).expect("readable"));
            replayed += 1;
        }
        assert!(replayed >= 8, "only {replayed} seeds were replayed");
    }
}
