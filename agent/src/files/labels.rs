//! What a file's path says of its lines: where they come from. Pure.
//!
//! What enters: the names of a file, as found and as its links lead on. What leaves: `source_id`, `instance_id` and tags of its envelopes.
//! Names are cut to what an envelope may have; nothing that a path says makes a line unfit.

use std::path::{Path, PathBuf};

use super::config::{FilesConfig, Format};
use crate::gather::Tags;

/// Bytes of a `source_id` (the wire's limit), and of an `instance_id` taken from a path.
const MAX_ID: usize = 256;

/// What all envelopes of a file have in common.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    /// Whose lines they are; at most 256 bytes.
    pub source_id: String,
    /// Which of them; at most 256 bytes.
    pub instance_id: String,
    /// Their tags.
    pub tags: Tags,
}

/// Of a pod's log, from its path.
#[derive(Debug, PartialEq, Eq)]
struct Pod<'a> {
    namespace: &'a str,
    pod: &'a str,
    uid: Option<&'a str>,
    container: &'a str,
    /// How often the container had been started before.
    restart: Option<&'a str>,
    /// The container's id.
    id: Option<&'a str>,
}

impl Labels {
    /// Of the file at `path`. `links` are the further names that symbolic links give it; `container` is what Docker calls the container,
    /// where that is known.
    pub fn of(config: &FilesConfig, path: &Path, links: &[PathBuf], container: Option<&str>) -> Self {
        let names = || std::iter::once(path).chain(links.iter().map(PathBuf::as_path));
        let mut tags = Tags::default();
        let (source_id, instance_id) = match config.format {
            Format::Cri => {
                tags.add("source_type", "CONTAINER");
                let pod = names().find_map(in_pods).or_else(|| names().find_map(in_containers));
                match pod {
                    Some(pod) => {
                        pod.tag(&mut tags);
                        (format!("{}/{}", pod.namespace, pod.container), pod.pod.to_owned())
                    }
                    None => (stem(path), String::new()),
                }
            }
            Format::Docker => {
                tags.add("source_type", "CONTAINER");
                // The link of Kubernetes says more than the directory of Docker.
                let pod = names().find_map(in_pods).or_else(|| names().find_map(in_containers));
                let id = names().find_map(docker_id);
                if let Some(id) = id {
                    tags.add("container_id", id);
                }
                let short = id.map_or_else(String::new, |id| id[..12].to_owned());
                match (pod, container) {
                    (Some(pod), _) => {
                        pod.tag(&mut tags);
                        (format!("{}/{}", pod.namespace, pod.container), pod.pod.to_owned())
                    }
                    (None, Some(name)) => {
                        tags.add("container", name);
                        (name.to_owned(), short)
                    }
                    (None, None) if id.is_some() => (short.clone(), short),
                    (None, None) => (stem(path), short),
                }
            }
            Format::Plain => {
                tags.add("source_type", "FILE");
                tags.add("path", &path.to_string_lossy());
                (stem(path), String::new())
            }
        };
        let source_id = config.source_id.clone().unwrap_or(source_id);
        let instance_id = config.instance_id.clone().unwrap_or(instance_id);
        Self { source_id: within(source_id), instance_id: within(instance_id), tags }
    }
}

impl Pod<'_> {
    fn tag(&self, tags: &mut Tags) {
        tags.add("namespace", self.namespace);
        tags.add("pod", self.pod);
        tags.add("container", self.container);
        let optional = [("pod_uid", self.uid), ("restart", self.restart), ("container_id", self.id)];
        for (key, value) in optional {
            if let Some(value) = value {
                tags.add(key, value);
            }
        }
    }
}

/// `…/<namespace>_<pod>_<uid>/<container>/<restarts>.log`
fn in_pods(path: &Path) -> Option<Pod<'_>> {
    let mut parts = path.components().rev().map(|part| part.as_os_str().to_str());
    let (file, container, pod) = (parts.next()??, parts.next()??, parts.next()??);
    let restart = file.strip_suffix(".log")?;
    let mut names = pod.split('_');
    let (namespace, pod, uid) = (names.next()?, names.next()?, names.next()?);
    let whole = names.next().is_none() && [namespace, pod, uid, container].iter().all(|name| !name.is_empty());
    let is_count = !restart.is_empty() && restart.bytes().all(|byte| byte.is_ascii_digit());
    (whole && is_count).then_some(Pod { namespace, pod, uid: Some(uid), container, restart: Some(restart), id: None })
}

/// `…/<pod>_<namespace>_<container>-<64 hexadecimal digits>.log`
fn in_containers(path: &Path) -> Option<Pod<'_>> {
    let name = path.file_name()?.to_str()?.strip_suffix(".log")?;
    let (names, id) = name.rsplit_once('-')?;
    let mut names = names.split('_');
    let (pod, namespace, container) = (names.next()?, names.next()?, names.next()?);
    let whole = names.next().is_none() && [namespace, pod, container].iter().all(|name| !name.is_empty());
    (whole && is_id(id)).then_some(Pod { namespace, pod, uid: None, container, restart: None, id: Some(id) })
}

/// `…/<64 hexadecimal digits>/…`
pub(crate) fn docker_id(path: &Path) -> Option<&str> {
    let id = path.parent()?.file_name()?.to_str()?;
    is_id(id).then_some(id)
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The name without what follows its last dot.
fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// At most [`MAX_ID`] bytes of it.
fn within(mut id: String) -> String {
    if id.len() > MAX_ID {
        let end = (0..=MAX_ID).rev().find(|&end| id.is_char_boundary(end)).unwrap_or(0);
        id.truncate(end);
    }
    id
}

#[cfg(test)]
mod tests {
    use proto::v2;

    use super::*;
    use crate::gather::Gather;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn config(format: Format) -> FilesConfig {
        FilesConfig {
            paths: Vec::new(),
            exclude: Vec::new(),
            format,
            source_id: None,
            instance_id: None,
            start: None,
            multiline: None,
        }
    }

    fn envelope(labels: &Labels) -> v2::Envelope {
        let mut gather = Gather::default();
        let mut draft = gather.envelope(&labels.source_id, &labels.instance_id, 1);
        draft.tags(&labels.tags);
        draft.log(b"x", false);
        let (batch, refused) = gather.take().unwrap();
        assert_eq!(refused.total(), 0);
        prost::Message::decode(batch.envelope(&batch.entries()[0])).unwrap()
    }

    fn labels(format: Format, path: &str, links: &[&str], container: Option<&str>) -> (String, String, Vec<String>) {
        let links: Vec<PathBuf> = links.iter().map(PathBuf::from).collect();
        let envelope = envelope(&Labels::of(&config(format), Path::new(path), &links, container));
        let mut tags: Vec<String> = envelope.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        tags.sort();
        (envelope.source_id, envelope.instance_id, tags)
    }

    #[test]
    fn a_pods_log_says_whose_it_is() {
        let pods = "/var/log/pods/shop_web-6f7d-x2x_0a1b-2c/nginx/3.log";
        let expected = [
            "container=nginx",
            "namespace=shop",
            "pod=web-6f7d-x2x",
            "pod_uid=0a1b-2c",
            "restart=3",
            "source_type=CONTAINER",
        ];
        let found = labels(Format::Cri, pods, &[], None);
        assert_eq!(found, ("shop/nginx".into(), "web-6f7d-x2x".into(), expected.map(str::to_owned).to_vec()));
        let link = format!("/var/log/containers/web-6f7d-x2x_shop_nginx-{ID}.log");
        assert_eq!(labels(Format::Cri, &link, &[pods], None), found, "the target says more than the link");
        let (source, instance, tags) = labels(Format::Cri, &link, &[], None);
        assert_eq!((source.as_str(), instance.as_str()), ("shop/nginx", "web-6f7d-x2x"));
        assert!(tags.contains(&format!("container_id={ID}")), "{tags:?}");
    }

    #[test]
    fn what_is_no_pods_log_has_the_name_of_its_file() {
        for path in
            ["/pods/a_b/nginx/0.log", "/pods/a_b_c_d/nginx/0.log", "/pods/a__c/nginx/0.log", "/pods/a_b_c/nginx/x.log"]
        {
            let (source, instance, tags) = labels(Format::Cri, path, &[], None);
            assert_eq!((source.as_str(), instance.as_str()), (if path.ends_with("x.log") { "x" } else { "0" }, ""));
            assert_eq!(tags, ["source_type=CONTAINER"]);
        }
    }

    #[test]
    fn dockers_log_has_the_containers_name_where_it_is_known() {
        let path = format!("/var/lib/docker/containers/{ID}/{ID}-json.log");
        let (source, instance, tags) = labels(Format::Docker, &path, &[], Some("shop-web-1"));
        assert_eq!((source.as_str(), instance.as_str()), ("shop-web-1", "0123456789ab"));
        assert_eq!(tags, ["container=shop-web-1".into(), format!("container_id={ID}"), "source_type=CONTAINER".into()]);
        let (source, instance, _) = labels(Format::Docker, &path, &[], None);
        assert_eq!((source.as_str(), instance.as_str()), ("0123456789ab", "0123456789ab"));
        let (source, instance, _) = labels(Format::Docker, "/var/log/pods/a_b_c/d/0.log", &[&path], None);
        assert_eq!((source.as_str(), instance.as_str()), ("a/d", "b"));
    }

    #[test]
    fn ids_of_the_configuration_win_and_all_are_cut_to_size() {
        let (source, instance, tags) = labels(Format::Plain, "/var/log/shop/orders.log", &[], None);
        assert_eq!((source.as_str(), instance.as_str()), ("orders", ""));
        assert_eq!(tags, ["path=/var/log/shop/orders.log", "source_type=FILE"]);
        let long = "é".repeat(200);
        let config =
            FilesConfig { source_id: Some("é".repeat(200)), instance_id: Some("a".into()), ..config(Format::Plain) };
        let labels = Labels::of(&config, Path::new(&format!("/{long}.log")), &[], None);
        assert_eq!((labels.source_id.len(), labels.instance_id.as_str()), (256, "a"));
        envelope(&labels);
    }
}
