//! Which doppler a (source_id, instance_id) goes to: rendezvous hashing, so that a doppler more or less moves only its own share.
//!
//! The hash is FNV-1a (64 bits, over the address, a zero byte, the source, a zero byte, the instance), then one round of mixing. It
//! is written down here and must never change: agents of all versions place alike.

/// The index of the doppler for one source instance; `None` without dopplers. O(addresses).
pub fn place<A: AsRef<[u8]>>(addresses: &[A], source_id: &[u8], instance_id: &[u8]) -> Option<usize> {
    let score = |address: &A| {
        let hash = fnv(fnv(FNV_OFFSET, address.as_ref()), &[0]);
        mix(fnv(fnv(fnv(hash, source_id), &[0]), instance_id))
    };
    (0..addresses.len()).max_by_key(|i| score(&addresses[*i]))
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}

/// FNV's high bits depend little on the last bytes; rendezvous compares whole values.
fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("10.0.0.{i}:8082")).collect()
    }

    #[test]
    fn a_doppler_less_moves_only_its_own_sources() {
        let five = addresses(5);
        let mut moved = 0;
        for source in 0..1_000 {
            let source = format!("app-{source}");
            let before = place(&five, source.as_bytes(), b"0").expect("five");
            let after = place(&five[..4], source.as_bytes(), b"0").expect("four");
            if before == 4 {
                moved += 1;
            } else {
                assert_eq!(before, after);
            }
        }
        assert!((150..250).contains(&moved), "{moved} of 1000 sources were on the fifth doppler");
    }

    #[test]
    fn instances_of_one_source_spread() {
        let four = addresses(4);
        let mut counts = [0; 4];
        for instance in 0..1_000 {
            counts[place(&four, b"app", instance.to_string().as_bytes()).expect("four")] += 1;
        }
        assert!(counts.iter().all(|count| (200..300).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(place(&addresses(7), b"app", b"0"), Some(PINNED));
        assert_eq!(place(&Vec::<String>::new(), b"app", b"0"), None);
    }

    const PINNED: usize = 5;
}
