//! The labels of a series.

use std::fmt;
use std::sync::Arc;

use crate::name::is_label_name;

/// The label that holds a metric's name. It tells series apart and can be matched, and is in no answer.
pub const NAME: &str = "__name__";

/// Names and values, sorted by name, each name once, no value empty: an empty label is none. Cheap to clone; ordered as Prometheus
/// orders series.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[Label]>);

type Label = (Arc<str>, Arc<str>);

impl Labels {
    /// Makes labels of pairs in any order. Of several with one name the first counts.
    pub fn new<N: Into<Arc<str>>, V: Into<Arc<str>>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut labels: Vec<Label> = pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        labels.sort_by(|a, b| a.0.cmp(&b.0));
        labels.dedup_by(|b, a| a.0 == b.0);
        labels.retain(|(_, value)| !value.is_empty());
        Self(labels.into())
    }

    /// No labels at all.
    pub fn empty() -> Self {
        Self(Arc::new([]))
    }

    /// The value of a label; `None` when there is none. O(log labels).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.find(name).ok().map(|i| &*self.0[i].1)
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The labels but for those whose name is to go; the same labels when none is.
    pub(crate) fn without(&self, goes: impl Fn(&str) -> bool) -> Self {
        if !self.0.iter().any(|(name, _)| goes(name)) {
            return self.clone();
        }
        Self(self.0.iter().filter(|(name, _)| !goes(name)).cloned().collect())
    }

    pub(crate) fn without_name(&self) -> Self {
        self.without(|name| name == NAME)
    }

    /// The labels whose name stays.
    pub(crate) fn only(&self, stays: impl Fn(&str) -> bool) -> Self {
        self.without(|name| !stays(name))
    }

    /// The labels with one set, or removed by an empty value.
    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let mut labels = self.0.to_vec();
        match (self.find(name), value.is_empty()) {
            (Ok(i), true) => drop(labels.remove(i)),
            (Ok(i), false) => labels[i].1 = value.into(),
            (Err(_), true) => return self.clone(),
            (Err(i), false) => labels.insert(i, (name.into(), value.into())),
        }
        Self(labels.into())
    }

    /// What one list of labels takes, the text apart, which lists share.
    pub(crate) fn bytes(&self) -> usize {
        16 + self.0.len() * size_of::<Label>()
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| (**other).cmp(name))
    }
}

impl fmt::Display for Labels {
    /// As Prometheus writes them: `{a="1", b="2"}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            if is_label_name(name) {
                write!(f, "{comma}{name}={value:?}")?;
            } else {
                write!(f, "{comma}{name:?}={value:?}")?;
            }
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted_named_once_and_never_empty() {
        let labels = Labels::new([("b", "2"), ("a", "1"), ("b", "3"), ("c", "")]);
        assert_eq!(labels.to_string(), r#"{a="1", b="2"}"#);
        assert_eq!((labels.get("b"), labels.get("c")), (Some("2"), None));
    }

    #[test]
    fn labels_are_set_and_removed() {
        let labels = Labels::new([("a", "1"), ("c", "3")]);
        assert_eq!(labels.with("b", "2"), Labels::new([("a", "1"), ("b", "2"), ("c", "3")]));
        assert_eq!(labels.with("a", ""), Labels::new([("c", "3")]));
        assert_eq!(labels.with("x", ""), labels);
        assert_eq!(labels.with("c", "4").get("c"), Some("4"));
        assert_eq!(labels.only(|name| name == "a"), Labels::new([("a", "1")]));
    }

    #[test]
    fn names_that_cannot_be_written_are_quoted() {
        assert_eq!(Labels::new([("bad.label", "x\"y")]).to_string(), r#"{"bad.label"="x\"y"}"#);
    }
}
