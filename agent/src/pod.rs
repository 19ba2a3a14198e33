//! What a container of Kubernetes is called as a source, in its logs and its metrics alike. Pure.
//!
//! What enters: namespace, pod, uid and container. What leaves: `source_id`, `instance_id` and tags.

/// The longest `source_id` that the first hop takes, in bytes.
const SOURCE_ID_BYTES: usize = 256;

/// A container of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pod<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) uid: &'a str,
    pub(crate) container: &'a str,
}

impl<'a> Pod<'a> {
    /// `namespace/container`, which all replicas share; cut to 256 bytes between two characters.
    pub(crate) fn source_id(&self) -> String {
        let mut id = format!("{}/{}", self.namespace, self.container);
        let end = (0..=SOURCE_ID_BYTES.min(id.len())).rev().find(|at| id.is_char_boundary(*at));
        id.truncate(end.unwrap_or(0));
        id
    }

    /// The pod, which tells replicas apart.
    pub(crate) fn instance_id(&self) -> &'a str {
        self.name
    }

    /// `namespace`, `pod`, `pod_uid` and `container`.
    pub(crate) fn tags(&self) -> [(&'static str, &'a str); 4] {
        [("namespace", self.namespace), ("pod", self.name), ("pod_uid", self.uid), ("container", self.container)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_share_a_source_and_differ_in_the_instance() {
        let pod = Pod { namespace: "shop", name: "cart-7d9f-x2x", uid: "u-1", container: "cart" };
        assert_eq!((pod.source_id().as_str(), pod.instance_id()), ("shop/cart", "cart-7d9f-x2x"));
        let tags = [("namespace", "shop"), ("pod", "cart-7d9f-x2x"), ("pod_uid", "u-1"), ("container", "cart")];
        assert_eq!(pod.tags(), tags);
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let long = "ä".repeat(200);
        let pod = Pod { namespace: "n", name: "p", uid: "u", container: &long };
        let id = pod.source_id();
        assert_eq!(id.len(), 256);
        assert_eq!(id, format!("n/{}", "ä".repeat(127)));
    }
}
