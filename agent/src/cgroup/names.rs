//! What pods and containers are called, from the names of log files (kubelet's `/var/log/pods` and `/var/log/containers`). Pure.

use std::collections::HashMap;

use crate::pod::Pod;

/// What log files say. Bounded by who fills it.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// By uid.
    pods: HashMap<String, PodNames>,
    /// Container by id.
    containers: HashMap<String, String>,
}

#[derive(Debug)]
struct PodNames {
    namespace: String,
    name: String,
    /// A container of it has been named by its id.
    linked: bool,
}

/// What is known of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known<'a> {
    /// All of it.
    Container(Pod<'a>),
    /// Its pod; which of its containers it is, no log file says. `container` is empty.
    Pod(Pod<'a>),
    /// It holds a pod's namespaces together and runs nothing: others of its pod are known by name.
    Sandbox,
    /// Nothing.
    Nothing,
}

impl Names {
    /// Takes the name of a directory of logs, `namespace_pod_uid`. Another name says nothing.
    pub(crate) fn add_pod(&mut self, directory: &str) {
        // Neither a namespace nor a pod may have an underscore in its name.
        let parts: Vec<&str> = directory.splitn(4, '_').collect();
        if let [namespace, name, uid] = parts[..]
            && !uid.is_empty()
        {
            let names = PodNames { namespace: namespace.to_owned(), name: name.to_owned(), linked: false };
            self.pods.insert(uid.to_owned(), names);
        }
    }

    /// Takes the name of a link, `pod_namespace_container-id.log`. Another name says nothing.
    pub(crate) fn add_link(&mut self, link: &str) {
        let named = link.strip_suffix(".log").and_then(|link| link.rsplit_once('-'));
        let Some((names, id)) = named else { return };
        let parts: Vec<&str> = names.splitn(4, '_').collect();
        if let [_pod, _namespace, container] = parts[..]
            && !container.is_empty()
            && !id.is_empty()
        {
            self.containers.insert(id.to_owned(), container.to_owned());
        }
    }

    /// Notes that a container with this id is in this pod. Must have been said of all before [`Names::known`] is asked.
    pub(crate) fn note(&mut self, id: &str, uid: &str) {
        if self.containers.contains_key(id)
            && let Some(pod) = self.pods.get_mut(uid)
        {
            pod.linked = true;
        }
    }

    /// What is known of the container `id` of the pod `uid`.
    pub(crate) fn known<'a>(&'a self, id: &str, uid: &'a str) -> Known<'a> {
        let Some(PodNames { namespace, name, linked }) = self.pods.get(uid) else { return Known::Nothing };
        let pod = Pod { namespace, name, uid, container: "" };
        match self.containers.get(id) {
            Some(container) => Known::Container(Pod { container, ..pod }),
            None if *linked => Known::Sandbox,
            None => Known::Pod(pod),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_say_what_containers_are_called() {
        let mut names = Names::default();
        names.add_pod("shop_cart-7d9f-x2x_0f1e-2d3c");
        names.add_pod("shop_idle-1_aaaa");
        names.add_link("cart-7d9f-x2x_shop_cart-web-0123456789ab.log");
        for wrong in ["shop", "a_b", "a_b_c_d", "a_b_"] {
            names.add_pod(wrong);
        }
        for wrong in ["x.txt", "a_b_c.log", "a_b-1.log", "a_b_c_d-1.log", "a_b_-1.log", "a_b_c-.log"] {
            names.add_link(wrong);
        }
        names.note("0123456789ab", "0f1e-2d3c");
        names.note("ffff", "0f1e-2d3c");
        names.note("eeee", "aaaa");
        let pod = Pod { namespace: "shop", name: "cart-7d9f-x2x", uid: "0f1e-2d3c", container: "cart-web" };
        assert_eq!(names.known("0123456789ab", "0f1e-2d3c"), Known::Container(pod));
        assert_eq!(names.known("ffff", "0f1e-2d3c"), Known::Sandbox);
        let pod = Pod { namespace: "shop", name: "idle-1", uid: "aaaa", container: "" };
        assert_eq!(names.known("eeee", "aaaa"), Known::Pod(pod));
        assert_eq!(names.known("eeee", "bbbb"), Known::Nothing);
        assert_eq!((names.pods.len(), names.containers.len()), (2, 1));
    }
}
