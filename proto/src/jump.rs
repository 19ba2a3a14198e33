//! Which node of a log-cache cluster a source belongs to: jump consistent hashing of its name's xxHash64, as the original's nodes place
//! (contract `log-cache.md` §5), so that nodes of both kinds agree. Pure.
//!
//! Placement of source instances on dopplers is another rule: [`crate::placement`].

/// The index of the node, of `nodes`, that owns `source_id`. O(its length + log nodes).
///
/// # Panics
/// Never: without nodes it is 0.
pub fn owner(source_id: &[u8], nodes: usize) -> usize {
    jump(hash(source_id), nodes)
}

fn hash(source_id: &[u8]) -> u64 {
    twox_hash::XxHash64::oneshot(0, source_id)
}

/// "A Fast, Minimal Memory, Consistent Hash Algorithm" (Lamping, Veach).
#[expect(clippy::cast_precision_loss, reason = "the algorithm is defined by these conversions")]
fn jump(mut key: u64, buckets: usize) -> usize {
    let (mut bucket, mut next) = (0_usize, 0_usize);
    while next < buckets {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let step = (1_u64 << 31) as f64 / ((key >> 33) + 1) as f64;
        next = ((bucket + 1) as f64 * step) as usize;
    }
    bucket
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As measured on the original.
    #[test]
    fn sources_go_where_the_original_puts_them() {
        assert_eq!(hash(b"0"), 7_148_434_200_721_666_028);
        for (id, nodes, node) in [("0", 4, 3), ("200", 4, 3), ("400", 4, 0), ("a", 2, 1), ("b", 2, 1), ("c", 2, 0)] {
            assert_eq!(owner(id.as_bytes(), nodes), node, "{id} of {nodes}");
        }
    }

    #[test]
    fn one_node_owns_all_and_one_more_takes_only_what_is_its_own() {
        let mut moved = 0;
        for source in 0..10_000 {
            let id = format!("source-{source}");
            assert_eq!((owner(id.as_bytes(), 0), owner(id.as_bytes(), 1)), (0, 0));
            let (three, four) = (owner(id.as_bytes(), 3), owner(id.as_bytes(), 4));
            assert!(three < 3 && (four == three || four == 3));
            moved += usize::from(four == 3);
        }
        assert!((2_300..2_700).contains(&moved), "{moved} of 10000 moved");
    }
}
