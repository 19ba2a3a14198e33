//! The walk over good and damaged bytes, whole and in pieces.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const SALT: u32 = 77;

/// Records with these sequences and lengths, without a segment header before them.
fn records(of: &[(u64, usize)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (sequence, len) in of {
        let payload = vec![*sequence as u8; *len];
        bytes.extend(RecordHeader::new(*sequence, *sequence, &payload).unwrap().encode(SALT));
        bytes.extend(payload);
    }
    bytes
}

/// Walks over `bytes`, of which each call gets `piece` or as many as it asks for. Sequences found, and bytes of damage.
fn walk(bytes: &[u8], limit: u64, piece: usize) -> (Vec<u64>, u64) {
    let start = SEGMENT_HEADER as u64;
    let header = SegmentHeader { number: 1, first: 1, salt: SALT };
    let mut walk = Walk::new(&header, limit, start + bytes.len() as u64);
    let (mut found, mut damaged, mut needed, mut whole) = (Vec::new(), 0, 0, 0);
    while !walk.is_done() {
        let from = (walk.offset - start) as usize;
        let end = bytes.len().min(from + piece.max(needed));
        needed = walk.feed(&bytes[from..end], |what| {
            match what {
                Found::Record(header, payload) => {
                    assert!(bytes[from..][payload.clone()].iter().all(|byte| *byte == header.sequence as u8));
                    whole += RECORD_HEADER + payload.len();
                    found.push(header.sequence);
                }
                Found::Damaged(range) => damaged += range.end - range.start,
            }
            ControlFlow::Continue(())
        });
        assert!(needed == 0 || needed > end - from || walk.offset > start + from as u64, "it gets on");
    }
    assert_eq!(whole as u64 + damaged, bytes.len() as u64, "every byte is one or the other");
    (found, damaged)
}

#[test]
fn sequences_rise_and_stay_below_the_limit() {
    let bytes = records(&[(1, 3), (2, 0), (2, 5), (1, 5), (4, 2), (9, 1), (3, 1)]);
    assert_eq!(walk(&bytes, 9, 1_000).0, [1, 2, 4]);
    assert_eq!(walk(&bytes, 10, 1_000).0, [1, 2, 4, 9]);
}

#[test]
fn a_length_that_cannot_be_is_damage() {
    let mut bytes = records(&[(1, 3)]);
    let header = RecordHeader { len: 1_000, ..RecordHeader::new(2, 2, b"").unwrap() };
    bytes.extend(header.encode(SALT));
    bytes.extend(records(&[(3, 3)]));
    assert_eq!(walk(&bytes, 10, 1_000), (vec![1, 3], 28));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Pieces of any size give what the whole gives; damage costs only the records that it touches.
    #[test]
    fn pieces_and_damage_change_nothing_else(
        lengths in vec(0_usize..90, 1..20),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        piece in 1_usize..300,
    ) {
        let of: Vec<_> = lengths.iter().enumerate().map(|(at, len)| (at as u64 + 1, *len)).collect();
        let good = records(&of);
        let mut bytes = good.clone();
        for (at, byte) in &damage {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        let mut intact = Vec::new();
        let mut at = 0;
        for (sequence, len) in of {
            let end = at + RECORD_HEADER + len;
            if bytes[at..end] == good[at..end] {
                intact.push(sequence);
            }
            at = end;
        }
        let whole = walk(&bytes, u64::MAX, bytes.len());
        prop_assert_eq!(&whole.0, &intact);
        prop_assert_eq!(walk(&bytes, u64::MAX, piece), whole);
    }
}
