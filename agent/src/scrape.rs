//! Pages of metrics to envelopes: the Prometheus text format and OpenMetrics (contract: agents §8). Pure.
//!
//! ```text
//! page ──► exposition: samples, or why there are none ──► mapping: a gauge or counter each, in batches
//! ```
//!
//! *Invariant*: a page is taken whole or not at all, and no page takes more time or memory than its bytes allow.

mod config;
mod exposition;
mod go;
mod mapping;

use std::collections::BTreeMap;

pub use config::{ScrapeConfig, ScrapeTarget, ScrapeTls, TargetFile, TargetFileError, TargetUrl, TargetUrlError};
pub use exposition::{Format, Kind, Page, PageError, Sample};
pub use mapping::{Labels, map};

/// The property that a fuzz target holds on arbitrary bytes as a page in both formats, and that the tests replay.
///
/// # Panics
/// When an envelope is made that a later hop refuses.
pub fn fuzz(bytes: &[u8]) {
    let labels = Labels {
        source_id: "page".to_owned(),
        default_source_id: "default".to_owned(),
        instance_id: "0".to_owned(),
        labels: BTreeMap::from([("unit".to_owned(), "s".to_owned()), ("team".to_owned(), "a".to_owned())]),
    };
    for format in [Format::Text, Format::OpenMetrics] {
        let Ok(page) = Page::parse(bytes, format, 1_000) else { continue };
        let mut gather = crate::Gather::default();
        map(&page, &labels, 1, &mut gather, |gather| drop(gather.take()));
        let Some((batch, _over_a_limit)) = gather.take() else { continue };
        let mut encoded = Vec::new();
        let count = batch.len();
        proto::raw::Selection::from(batch).put(&mut encoded);
        let (checked, broken) = proto::raw::Batch::check(encoded.into(), &proto::raw::Limits::default());
        assert_eq!((checked.len(), broken.total()), (count, 0), "every hop takes what was built");
    }
}

#[cfg(test)]
mod tests;
