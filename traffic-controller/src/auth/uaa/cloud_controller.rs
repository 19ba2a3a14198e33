//! What Cloud Controller says about apps and service instances, asked in the name of the caller.
//!
//! What enters: a caller's authorization, which goes on as it came, and a GUID. What leaves: whether that caller may read it, or the
//! GUIDs of all that it may. An id that is no GUID never gets here, and what does is escaped.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::warn;
use transport::Throttle;

use super::super::Denied;
use super::super::service::{Answer, Ask, Service};
use crate::metrics::{Asked, AuthMetrics, Backend};

/// The largest page of a list, in bytes.
const MAX_PAGE: usize = 50 * 1024 * 1024;

/// Pages of one list.
const MAX_PAGES: usize = 40;

/// For both lists.
const LISTS_DEADLINE: Duration = Duration::from_secs(30);

/// Lists that are read at once: each may hold a page in memory.
const LISTS: usize = 4;

const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-');

const APPS: &str = "/v3/apps";
const SERVICE_INSTANCES: &str = "/v3/service_instances";

/// Cloud Controller, at its two addresses.
pub(super) struct CloudController {
    /// Where `/internal/v4/log_access` is.
    internal: Service,
    /// Where `/v3` is.
    api: Service,
    lists: Semaphore,
    metrics: AuthMetrics,
}

#[derive(Deserialize)]
struct Page {
    pagination: Pagination,
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Pagination {
    next: Option<Link>,
}

#[derive(Deserialize)]
struct Link {
    href: String,
}

#[derive(Deserialize)]
struct Resource {
    guid: String,
    #[serde(default)]
    name: String,
}

impl CloudController {
    pub(super) fn new(internal: Service, api: Service, metrics: AuthMetrics) -> Self {
        Self { internal, api, lists: Semaphore::new(LISTS), metrics }
    }

    /// Whether the logs of the app `guid` may be read (contract: traffic controller v1 §2.2).
    ///
    /// # Errors
    /// 401 is [`Denied::Invalid`], 403 and 404 are [`Denied::Forbidden`], everything else is [`Denied::Unavailable`].
    pub(super) async fn log_access(&self, authorization: &HeaderValue, guid: &str) -> Result<(), Denied> {
        let path = format!("/internal/v4/log_access/{}", utf8_percent_encode(guid, ESCAPED));
        self.allows(&self.internal, authorization, &path).await
    }

    /// Whether the service instance `guid` may be read.
    ///
    /// # Errors
    /// As [`log_access`](Self::log_access).
    pub(super) async fn service_instance(&self, authorization: &HeaderValue, guid: &str) -> Result<(), Denied> {
        let path = format!("{SERVICE_INSTANCES}/{}", utf8_percent_encode(guid, ESCAPED));
        self.allows(&self.api, authorization, &path).await
    }

    /// The GUIDs of all apps and service instances that may be read (contract: log cache §6).
    ///
    /// # Errors
    /// As [`log_access`](Self::log_access); a list is longer than any that is read, or takes longer.
    pub(super) async fn guids(&self, authorization: &HeaderValue) -> Result<HashSet<String>, Denied> {
        timeout(LISTS_DEADLINE, self.both_lists(authorization)).await.map_err(|_| Denied::Unavailable)?
    }

    async fn both_lists(&self, authorization: &HeaderValue) -> Result<HashSet<String>, Denied> {
        let _list = self.lists.acquire().await.map_err(|_| Denied::Unavailable)?;
        let mut guids = HashSet::new();
        for list in [APPS, SERVICE_INSTANCES] {
            self.list(authorization, list, &mut guids).await?;
        }
        Ok(guids)
    }

    /// The GUIDs of apps that have one of `names`, by name; the same name may be that of several, in spaces of their own.
    ///
    /// # Errors
    /// As [`log_access`](Self::log_access).
    pub(super) async fn apps_named(
        &self,
        authorization: &HeaderValue,
        names: &[&str],
    ) -> Result<HashMap<String, Vec<String>>, Denied> {
        let _list = self.lists.acquire().await.map_err(|_| Denied::Unavailable)?;
        // A name is read twice: as part of the URL, and as one of the list. What means something in the list is escaped there too.
        let in_list = |name: &&str| name.replace('%', "%25").replace(',', "%2C");
        let escaped: Vec<String> =
            names.iter().map(|name| utf8_percent_encode(&in_list(name), ESCAPED).to_string()).collect();
        let path = format!("{APPS}?names={}&per_page=5000", escaped.join(","));
        let answer = self.ask(&self.api, authorization, &path, MAX_PAGE).await?;
        outcome(answer.status)?;
        let page: Page = serde_json::from_slice(&answer.body).map_err(|_| Denied::Unavailable)?;
        let mut by_name: HashMap<String, Vec<String>> = HashMap::new();
        for Resource { guid, name } in page.resources {
            if is_guid(&guid) && names.contains(&name.as_str()) {
                by_name.entry(name).or_default().push(guid);
            }
        }
        Ok(by_name)
    }

    /// Looks at the certificate files again. Blocks.
    pub(super) fn renew(&self) {
        self.internal.renew();
        self.api.renew();
    }

    async fn list(&self, authorization: &HeaderValue, list: &str, guids: &mut HashSet<String>) -> Result<(), Denied> {
        let mut path = format!("{list}?per_page=5000");
        for _page in 0..MAX_PAGES {
            let answer = self.ask(&self.api, authorization, &path, MAX_PAGE).await?;
            outcome(answer.status)?;
            let page: Page = serde_json::from_slice(&answer.body).map_err(|_| Denied::Unavailable)?;
            guids.extend(page.resources.into_iter().map(|resource| resource.guid));
            let Some(next) = page.pagination.next else { return Ok(()) };
            path = next_page(list, &next.href).ok_or(Denied::Unavailable)?;
        }
        static TOO_LONG: Throttle = Throttle::every(Duration::from_secs(60));
        if let Some(suppressed) = TOO_LONG.pass() {
            warn!(list, pages = MAX_PAGES, suppressed, "List of Cloud Controller has too many pages");
        }
        Err(Denied::Unavailable)
    }

    async fn allows(&self, service: &Service, authorization: &HeaderValue, path: &str) -> Result<(), Denied> {
        outcome(self.ask(service, authorization, path, 0).await?.status)
    }

    async fn ask(
        &self,
        service: &Service,
        authorization: &HeaderValue,
        path: &str,
        most: usize,
    ) -> Result<Answer, Denied> {
        let answer = service.ask(Ask { path, authorization: Some(authorization), form: None, most }).await;
        let asked = match &answer {
            Ok(answer) => outcome(answer.status).err().map_or(Asked::Ok, |denied| match denied {
                Denied::Unavailable => Asked::Failed,
                _ => Asked::Refused,
            }),
            Err(_) => Asked::Failed,
        };
        self.metrics.asked(Backend::CloudController, asked);
        static FAILED: Throttle = Throttle::every(Duration::from_secs(10));
        if asked == Asked::Failed
            && let Some(suppressed) = FAILED.pass()
        {
            match &answer {
                Ok(answer) => {
                    warn!(status = answer.status.as_u16(), url = %service.url(), suppressed, "Cloud Controller failed");
                }
                Err(error) => warn!(%error, suppressed, "Cloud Controller could not be asked"),
            }
        }
        answer.map_err(|_| Denied::Unavailable)
    }
}

fn outcome(status: StatusCode) -> Result<(), Denied> {
    match status {
        StatusCode::OK => Ok(()),
        StatusCode::UNAUTHORIZED => Err(Denied::Invalid),
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Err(Denied::Forbidden),
        _ => Err(Denied::Unavailable),
    }
}

/// The path of the page behind `href`: of a link nothing counts but its query, so that it leads to no other host or place.
fn next_page(list: &str, href: &str) -> Option<String> {
    let (place, query) = href.split_once('?')?;
    place.ends_with(list).then(|| format!("{list}?{query}"))
}

/// True for an id as apps and service instances have it: 8, 4, 4, 4 and 12 hexadecimal digits.
pub(in crate::auth) fn is_guid(id: &str) -> bool {
    let groups = [8, 4, 4, 4, 12];
    let mut parts = id.split('-');
    let right = |(len, part): (usize, &str)| part.len() == len && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    id.len() == 36 && groups.into_iter().zip(parts.by_ref()).all(right) && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_is_groups_of_hexadecimal_digits() {
        for guid in ["b3015d69-09cd-476d-aace-ad2d824d5ab7", "B3015D69-09CD-476D-AACE-AD2D824D5AB7"] {
            assert!(is_guid(guid), "{guid}");
        }
        for other in [
            "",
            "my-app",
            "b3015d69-09cd-476d-aace-ad2d824d5ab",
            "b3015d69-09cd-476d-aace-ad2d824d5ab77",
            "b3015d69-09cd-476d-aace-ad2d824d5abg",
            "b3015d6909cd-476d-aace-ad2d824d5ab7-",
            "b3015d69-09cd-476d-aacead2d-824d5ab7",
            "b3015d69-09cd-476d-aace-ad2d824d5a/7",
            "b3015d69-09cd-476d-aace-ad2d824d5ab7/../x",
            "b3015d69-09cd-476d-aace-ad2d824d5é7",
            " b3015d69-09cd-476d-aace-ad2d824d5ab7",
        ] {
            assert!(!is_guid(other), "{other}");
        }
    }

    #[test]
    fn a_link_changes_the_page_and_nothing_else() {
        let next = |href| next_page("/v3/apps", href);
        let second = Some("/v3/apps?page=2&per_page=5000".to_owned());
        assert_eq!(next("https://api.example/v3/apps?page=2&per_page=5000"), second);
        assert_eq!(next("https://evil.example/x/v3/apps?page=2&per_page=5000"), second);
        assert_eq!(next("https://api.example/v3/users?page=2"), None);
        assert_eq!(next("https://api.example/v3/apps"), None);
    }
}
