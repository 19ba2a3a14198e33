//! Which doppler a (source_id, instance_id) goes to: rendezvous hashing, so that a doppler more or less moves only its own share.
//!
//! A doppler and a source instance each have a 64-bit hash, FNV-1a with one round of mixing; the instance goes where the two, mixed once
//! more, give the most. It is written down here and must never change: agents of all versions place alike.

/// The hash of a doppler: of its address as `host:port`.
pub fn member(address: &[u8]) -> u64 {
    mix(fnv(FNV_OFFSET, address))
}

/// The hash of a source instance: of its source_id, a zero byte and its instance_id. O(their lengths).
pub fn instance(source_id: &[u8], instance_id: &[u8]) -> u64 {
    mix(fnv(fnv(fnv(FNV_OFFSET, source_id), &[0]), instance_id))
}

/// How much an instance belongs to a member: it goes where this is highest. Two multiplications.
pub fn score(member: u64, instance: u64) -> u64 {
    mix(member ^ instance)
}

/// The index of the member for one instance; `None` without members. O(members).
pub fn place(members: &[u64], instance: u64) -> Option<usize> {
    (0..members.len()).max_by_key(|i| score(members[*i], instance))
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

    fn members(count: usize) -> Vec<u64> {
        (0..count).map(|i| member(format!("10.0.0.{i}:8082").as_bytes())).collect()
    }

    #[test]
    fn a_doppler_less_moves_only_its_own_sources() {
        let five = members(5);
        let mut moved = 0;
        for source in 0..1_000 {
            let instance = instance(format!("app-{source}").as_bytes(), b"0");
            let before = place(&five, instance).expect("five");
            let after = place(&five[..4], instance).expect("four");
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
        let four = members(4);
        let mut counts = [0; 4];
        for i in 0..1_000 {
            counts[place(&four, instance(b"app", i.to_string().as_bytes())).expect("four")] += 1;
        }
        assert!(counts.iter().all(|count| (200..300).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_source_and_its_instance_are_told_apart() {
        assert_ne!(instance(b"ab", b"c"), instance(b"a", b"bc"));
        assert_ne!(instance(b"a", b""), instance(b"", b"a"));
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(member(b"10.0.0.1:8082"), 0x4e68_5b38_df57_32d5);
        assert_eq!(instance(b"app", b"0"), 0x1ff0_2364_c281_e5f6);
        assert_eq!(place(&members(7), instance(b"app", b"0")), Some(2));
        assert_eq!(place(&[], 0), None);
    }
}
