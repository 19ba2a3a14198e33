//! Merging what dopplers answer. Pure.
//!
//! Every doppler's page holds its first envelopes in the order asked for, up to its own limit, and the whole run of equal timestamps at
//! its end. So the first `limit` of all pages together, and the run they end in, are the first of all dopplers together.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::fmt::Display;

use proto::logcache::v1;
use proto::raw::{Batch, Entry};
use serde::{Serialize, Serializer};

use super::error::Refusal;

/// The largest answer (contract `log-cache.md` §1): 50 MiB.
pub(crate) const MAX_ANSWER: usize = 50 * 1024 * 1024;

/// What a request without a limit gets.
const DEFAULT_LIMIT: usize = 100;

/// Envelopes of several dopplers in the order asked for.
#[derive(Debug)]
pub(super) struct Page {
    batches: Vec<Batch>,
    /// Which batch, and where in it.
    order: Vec<(usize, Entry)>,
    /// How far a doppler came whose cache gave up looking: at this time and behind it there may be more.
    pub(super) reached: Option<i64>,
}

impl Page {
    /// The encoded envelopes, in order.
    pub(super) fn envelopes(&self) -> impl Iterator<Item = &[u8]> {
        self.order.iter().map(|(batch, entry)| self.batches[*batch].envelope(entry))
    }
}

/// Merges pages by (timestamp, doppler, arrival), or its reverse, up to the limit of `request` and the end of the run of equal
/// timestamps there.
///
/// # Errors
/// [`Refusal::TooLarge`].
pub(super) fn pages<'a>(
    pages: impl Iterator<Item = &'a v1::ReadResponse> + Clone,
    request: &v1::ReadRequest,
) -> Result<Page, Refusal> {
    let gave_up = pages.clone().filter(|page| page.partial).map(|page| page.reached);
    let reached = if request.descending { gave_up.max() } else { gave_up.min() };
    let batches: Vec<Batch> = pages.map(|page| Batch::index(page.envelopes.clone().unwrap_or_default()).0).collect();
    let all = batches.iter().enumerate().flat_map(|(i, batch)| batch.entries().iter().map(move |entry| (i, *entry)));
    // Behind the place where one gave up, others know more than it does.
    let looked_at = |entry: &Entry| match reached {
        None => true,
        Some(reached) if request.descending => entry.timestamp > reached,
        Some(reached) => entry.timestamp < reached,
    };
    let mut order: Vec<(usize, Entry)> = all.filter(|(_, entry)| looked_at(entry)).collect();
    // Stable: within a doppler the page's own order stays, which is arrival or its reverse.
    if request.descending {
        order.sort_by_key(|(doppler, entry)| std::cmp::Reverse((entry.timestamp, *doppler)));
    } else {
        order.sort_by_key(|(doppler, entry)| (entry.timestamp, *doppler));
    }
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(DEFAULT_LIMIT);
    if let Some((_, last)) = order.get(limit - 1) {
        let last = last.timestamp;
        let run = order[limit..].iter().take_while(|(_, entry)| entry.timestamp == last).count();
        order.truncate(limit + run);
    }
    let size = order.iter().map(|(_, entry)| proto::raw::wire::bytes_len(entry.size())).sum();
    if size > MAX_ANSWER {
        return Err(Refusal::TooLarge(size));
    }
    let reached = reached.filter(|_| order.len() < limit);
    Ok(Page { batches, order, reached })
}

/// A source in a few numbers, written as texts.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Meta {
    #[serde(serialize_with = "text")]
    count: i64,
    #[serde(serialize_with = "text")]
    expired: i64,
    #[serde(serialize_with = "text")]
    oldest_timestamp: i64,
    #[serde(serialize_with = "text")]
    newest_timestamp: i64,
    /// Beyond the original, for those who ask for details.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

impl From<Meta> for v1::MetaInfo {
    fn from(meta: Meta) -> Self {
        Self {
            count: meta.count,
            expired: meta.expired,
            oldest_timestamp: meta.oldest_timestamp,
            newest_timestamp: meta.newest_timestamp,
            bytes: meta.details.map_or(0, |details| details.bytes),
            rate: meta.details.map_or(0.0, |details| details.rate),
        }
    }
}

/// More of a source.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Details {
    #[serde(serialize_with = "text")]
    bytes: u64,
    /// Envelopes per second lately.
    rate: f64,
}

/// Sums up what dopplers say of each source.
pub(super) fn meta<'a>(
    answers: impl Iterator<Item = &'a v1::MetaResponse>,
    with_details: bool,
) -> BTreeMap<String, Meta> {
    let mut all: BTreeMap<String, Meta> = BTreeMap::new();
    for (id, info) in answers.flat_map(|answer| &answer.meta) {
        let details = with_details.then_some(Details { bytes: info.bytes, rate: info.rate });
        match all.entry(id.clone()) {
            MapEntry::Vacant(entry) => {
                entry.insert(Meta {
                    count: info.count,
                    expired: info.expired,
                    oldest_timestamp: info.oldest_timestamp,
                    newest_timestamp: info.newest_timestamp,
                    details,
                });
            }
            MapEntry::Occupied(mut entry) => {
                let sum = entry.get_mut();
                sum.count = sum.count.saturating_add(info.count);
                sum.expired = sum.expired.saturating_add(info.expired);
                sum.oldest_timestamp = sum.oldest_timestamp.min(info.oldest_timestamp);
                sum.newest_timestamp = sum.newest_timestamp.max(info.newest_timestamp);
                if let (Some(sum), Some(more)) = (&mut sum.details, details) {
                    sum.bytes = sum.bytes.saturating_add(more.bytes);
                    sum.rate += more.rate;
                }
            }
        }
    }
    all
}

fn text<S: Serializer>(number: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::v2::{Envelope, EnvelopeBatch};

    use super::*;

    fn answer(batch: Vec<Envelope>) -> v1::ReadResponse {
        let envelopes = Some(EnvelopeBatch { batch }.encode_to_vec().into());
        v1::ReadResponse { envelopes, ..v1::ReadResponse::default() }
    }

    fn page(lines: &[(i64, &str)]) -> v1::ReadResponse {
        answer(lines.iter().map(|(timestamp, text)| Envelope::log("a", text.to_string()).at(*timestamp)).collect())
    }

    fn texts(page: &Page) -> Vec<String> {
        let text = |bytes| String::from_utf8(Envelope::decode(bytes).unwrap().payload().to_vec()).unwrap();
        page.envelopes().map(text).collect()
    }

    fn merged(all: &[v1::ReadResponse], limit: i64, descending: bool) -> Vec<String> {
        let request = v1::ReadRequest { limit, descending, ..v1::ReadRequest::default() };
        texts(&pages(all.iter(), &request).unwrap())
    }

    #[test]
    fn where_one_gave_up_nobody_knows_more() {
        let gave_up = |reached, page| v1::ReadResponse { partial: true, reached, ..page };
        let all = [gave_up(5, page(&[(1, "a"), (4, "d")])), page(&[(2, "b"), (5, "e"), (6, "f")])];
        let request = v1::ReadRequest::default();
        let merged = pages(all.iter(), &request).unwrap();
        assert_eq!((texts(&merged).join(""), merged.reached), ("abd".to_owned(), Some(5)));
        let full = pages(all.iter(), &v1::ReadRequest { limit: 2, ..request.clone() }).unwrap();
        assert_eq!((texts(&full).join(""), full.reached), ("ab".to_owned(), None), "a full page is whole");
        let all = [gave_up(2, page(&[(9, "x")])), gave_up(7, page(&[(8, "y")])), page(&[(7, "z")])];
        let merged = pages(all.iter(), &v1::ReadRequest { descending: true, ..request }).unwrap();
        assert_eq!((texts(&merged).join(""), merged.reached), ("xy".to_owned(), Some(7)));
    }

    #[test]
    fn by_timestamp_then_doppler_then_arrival_and_its_exact_reverse() {
        let ascending = [page(&[(1, "a"), (3, "c"), (3, "d"), (9, "i")]), page(&[(2, "b"), (3, "e"), (4, "f")])];
        assert_eq!(merged(&ascending, 0, false), ["a", "b", "c", "d", "e", "f", "i"]);
        let descending = [page(&[(9, "i"), (3, "d"), (3, "c"), (1, "a")]), page(&[(4, "f"), (3, "e"), (2, "b")])];
        assert_eq!(merged(&descending, 0, true), ["i", "f", "e", "d", "c", "b", "a"]);
    }

    #[test]
    fn the_limit_holds_but_for_the_run_it_ends_in() {
        let all = [page(&[(1, "a"), (3, "c"), (3, "d"), (9, "i")]), page(&[(2, "b"), (3, "e"), (4, "f")])];
        assert_eq!(merged(&all, 2, false), ["a", "b"]);
        assert_eq!(merged(&all, 3, false), ["a", "b", "c", "d", "e"]);
        assert_eq!(merged(&all, 1000, false).len(), 7);
        assert!(merged(&[v1::ReadResponse::default(), page(&[])], 3, false).is_empty());
    }

    #[test]
    fn no_limit_is_a_hundred() {
        let lines: Vec<(i64, &str)> = (0..150).map(|i| (i, "x")).collect();
        assert_eq!(merged(&[page(&lines)], 0, false).len(), 100);
    }

    #[test]
    fn too_much_is_refused() {
        let half = vec![b'x'; MAX_ANSWER / 2];
        let big = answer(vec![Envelope::log("a", half)]);
        let all = [big.clone(), big];
        let request = v1::ReadRequest { limit: 2, ..v1::ReadRequest::default() };
        assert!(matches!(pages(all.iter(), &request), Err(Refusal::TooLarge(_))));
        let request = v1::ReadRequest { limit: 1, ..request };
        // Equal timestamps: one run, which is not split, so it is still too much.
        assert!(pages(all.iter(), &request).is_err());
    }

    #[test]
    fn numbers_of_a_source_are_summed() {
        let info = |count, expired, oldest_timestamp, newest_timestamp| v1::MetaInfo {
            count,
            expired,
            oldest_timestamp,
            newest_timestamp,
            ..v1::MetaInfo::default()
        };
        let one = v1::MetaResponse {
            meta: [("a".to_owned(), info(1, 2, 30, 40)), ("b".to_owned(), info(1, 0, 1, 1))].into(),
        };
        let two = v1::MetaResponse { meta: [("a".to_owned(), info(10, 20, 3, 35))].into() };
        let all = meta([&one, &two].into_iter(), true);
        assert_eq!(all["a"].details, Some(Details { bytes: 0, rate: 0.0 }));
        let all = meta([&one, &two].into_iter(), false);
        assert_eq!(all["a"], Meta { count: 11, expired: 22, oldest_timestamp: 3, newest_timestamp: 40, details: None });
        assert_eq!(
            serde_json::to_string(&all["b"]).unwrap(),
            r#"{"count":"1","expired":"0","oldest_timestamp":"1","newest_timestamp":"1"}"#
        );
    }
}
