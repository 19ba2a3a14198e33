//! Which label of which metric makes a source's series so many. Pure.
//!
//! Linear counting: a value sets one of 4 096 bits, and the more distinct values there were the more bits are set. A source's sketch takes
//! at most some 17 KiB and 32 names.

/// Bits of one label.
const BITS: usize = 4_096;

/// Labels that are told apart, of all metrics of a source.
const LABELS: usize = 32;

/// Bytes of a name that are kept.
const NAME: usize = 100;

/// Distinct values of a source's labels.
#[derive(Debug)]
pub(crate) struct Sketch {
    /// Distinct names of metrics, and one of them.
    metrics: Label,
    labels: Vec<Label>,
}

#[derive(Debug)]
struct Label {
    metric: Box<[u8]>,
    key: Box<[u8]>,
    bits: Box<[u64; BITS / 64]>,
    set: usize,
}

impl Sketch {
    pub(crate) fn new() -> Self {
        Self { metrics: Label::new(&[], &[]), labels: Vec::new() }
    }

    /// Notes a new metric of this name, whose hash is `hash`.
    pub(crate) fn metric(&mut self, name: &[u8], hash: u64) {
        if self.metrics.set == 0 {
            self.metrics.metric = cut(name).into();
        }
        self.metrics.add(hash);
    }

    /// Notes a value of the label `key` of `metric`, whose hash is `hash`. Of labels past the 32nd nothing is noted.
    pub(crate) fn label(&mut self, metric: &[u8], key: &[u8], hash: u64) {
        let (metric, key) = (cut(metric), cut(key));
        let known = self.labels.iter().position(|label| *label.metric == *metric && *label.key == *key);
        let at = match known {
            Some(at) => at,
            None if self.labels.len() < LABELS => {
                self.labels.push(Label::new(metric, key));
                self.labels.len() - 1
            }
            None => return,
        };
        self.labels[at].add(hash);
    }

    /// Metric and label with most values; a metric and nothing, if there were more metrics.
    pub(crate) fn most(&self) -> (&[u8], &[u8]) {
        let label = self.labels.iter().max_by_key(|label| label.set).unwrap_or(&self.metrics);
        let most = if label.set >= self.metrics.set { label } else { &self.metrics };
        (&most.metric, &most.key)
    }
}

impl Label {
    fn new(metric: &[u8], key: &[u8]) -> Self {
        Self { metric: metric.into(), key: key.into(), bits: Box::new([0; BITS / 64]), set: 0 }
    }

    fn add(&mut self, hash: u64) {
        let bit = (hash % BITS as u64) as usize;
        let word = &mut self.bits[bit / 64];
        self.set += usize::from(*word >> (bit % 64) & 1 == 0);
        *word |= 1 << (bit % 64);
    }
}

fn cut(name: &[u8]) -> &[u8] {
    &name[..name.len().min(NAME)]
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn the_label_with_most_values_is_found() {
        let state = foldhash::fast::RandomState::default();
        let mut sketch = Sketch::new();
        assert_eq!(sketch.most(), (&b""[..], &b""[..]));
        for i in 0..20_000_u32 {
            let (path, user) = (i % 300, i);
            sketch.metric(b"http", state.hash_one("http"));
            sketch.label(b"http", b"path", state.hash_one(path));
            sketch.label(b"http", b"user", state.hash_one(user));
            sketch.label(b"queue", b"name", state.hash_one(i % 10));
        }
        assert_eq!(sketch.most(), (&b"http"[..], &b"user"[..]));
    }

    #[test]
    fn many_metrics_are_told_by_one_of_them_and_labels_are_bounded() {
        let state = foldhash::fast::RandomState::default();
        let mut sketch = Sketch::new();
        for i in 0..1_000 {
            let name = format!("user_{i}{}", "x".repeat(200));
            sketch.metric(name.as_bytes(), state.hash_one(&name));
            sketch.label(name.as_bytes(), b"zone", state.hash_one("z1"));
        }
        let (metric, label) = sketch.most();
        assert!(metric.starts_with(b"user_0x") && metric.len() == NAME && label.is_empty());
        assert_eq!(sketch.labels.len(), LABELS);
    }
}
