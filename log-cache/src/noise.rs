//! Text that does not compress, for tests that mean to fill memory.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// So many characters, each time others; the same in every run of a test on one thread.
pub(crate) fn noise(len: usize) -> String {
    static STATE: AtomicU64 = AtomicU64::new(1);
    let mut text = String::with_capacity(len);
    for _ in 0..len {
        let state = STATE.load(Relaxed).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        STATE.store(state, Relaxed);
        text.push(char::from(b'!' + (state >> 57) as u8 % 90));
    }
    text
}
