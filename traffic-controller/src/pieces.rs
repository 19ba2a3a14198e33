//! Cutting a batch that is too large for one message. Pure: a selection enters, smaller ones over the same bytes leave.

use diode::fair::Bounds;
use proto::raw::Selection;

/// `part` cut into pieces within `limit`, in order; `None` when it fits as it is. An envelope larger than the limit goes alone.
///
/// Nothing is copied. O(envelopes × pieces): a batch as dopplers send it fits or falls into a few.
pub(crate) fn split(part: &Selection, limit: Bounds) -> Option<Vec<Selection>> {
    let mut cuts = Vec::new();
    let (mut envelopes, mut bytes) = (0, 0);
    for (i, entry) in part.entries().enumerate() {
        let fits = envelopes < limit.envelopes.get() && bytes + entry.size() <= limit.bytes.get();
        if !fits && envelopes > 0 {
            cuts.push(i);
            (envelopes, bytes) = (0, 0);
        }
        (envelopes, bytes) = (envelopes + 1, bytes + entry.size());
    }
    if cuts.is_empty() {
        return None;
    }
    let ends = cuts.iter().copied().chain([part.len()]);
    let starts = [0].into_iter().chain(cuts.iter().copied());
    let piece = |(start, end)| {
        let mut piece = part.clone();
        piece.retain(|i| (start..end).contains(&i));
        piece
    };
    Some(starts.zip(ends).map(piece).collect())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use proto::raw::Batch;

    use super::*;

    fn batch(sizes: &[u8]) -> Selection {
        // Each envelope is one unknown field of the wanted size.
        let mut bytes = Vec::new();
        for size in sizes {
            bytes.extend([0x0a, *size, 0x7a, size - 2]);
            bytes.resize(bytes.len() + usize::from(*size) - 2, b'x');
        }
        let (batch, refused) = Batch::index(bytes.into());
        assert_eq!((batch.len(), refused.total()), (sizes.len(), 0));
        Selection::from(batch)
    }

    fn sizes(sizes: &[u8], envelopes: usize, bytes: usize) -> Option<Vec<Vec<usize>>> {
        let bound = |value| NonZeroUsize::new(value).unwrap();
        let pieces = split(&batch(sizes), Bounds { envelopes: bound(envelopes), bytes: bound(bytes) })?;
        Some(pieces.iter().map(|piece| piece.envelopes().map(<[u8]>::len).collect()).collect())
    }

    #[test]
    fn what_fits_stays_whole() {
        assert_eq!(sizes(&[10, 10, 10], 3, 30), None);
        assert_eq!(sizes(&[], 1, 1), None);
        assert_eq!(sizes(&[10], 1, 1), None);
    }

    #[test]
    fn pieces_keep_the_order_and_both_bounds() {
        assert_eq!(sizes(&[3, 4, 5, 6, 7], 2, 100), Some(vec![vec![3, 4], vec![5, 6], vec![7]]));
        assert_eq!(sizes(&[3, 4, 5, 6, 7], 5, 12), Some(vec![vec![3, 4, 5], vec![6], vec![7]]));
        assert_eq!(sizes(&[3, 90, 4, 5], 5, 10), Some(vec![vec![3], vec![90], vec![4, 5]]));
    }
}
