//! Which drains the rows of a binding cache ask for.
//!
//! Rows enter; drains by name leave, and the names of those that are too many. Pure. A name is a hash of app, URL and credential: the same
//! binding has the same name in every process and after each start, and one whose credential changes is another.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};

use super::wire::{App, Credential, Row};
use crate::config::{DrainConfig, RingConfig};
use crate::drains::PrepareError;
use crate::syslog::config::{DrainUrl, DrainUrlError};
use transport::{ClientTlsError, ClientTlsTexts, TlsError};

/// A drain that is asked for.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// None for a drain of everything.
    pub(super) app: Option<App>,
    url: Arc<str>,
    /// Its apps are of no interest here.
    credential: Arc<Credential>,
}

/// What is asked for, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) wanted: BTreeMap<String, Wanted>,
    /// Those that an app has too many, with the app.
    pub(super) too_many: BTreeMap<String, Wanted>,
}

/// Why a binding has no drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// It cannot be read, or a certificate could not name its host.
    Url,
    /// One that drains of apps may not have.
    Scheme,
    /// Certificate and key.
    Credential,
    /// The authorities.
    Authority,
    /// It names no app.
    App,
    /// The app has more than it may.
    AppLimit,
    /// There are more than there may be.
    Limit,
    /// A drain of another origin has its name.
    Name,
}

impl Invalid {
    pub(crate) const ALL: [Self; 8] = [
        Self::Url,
        Self::Scheme,
        Self::Credential,
        Self::Authority,
        Self::App,
        Self::AppLimit,
        Self::Limit,
        Self::Name,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Scheme => "scheme",
            Self::Credential => "credential",
            Self::Authority => "authority",
            Self::App => "app",
            Self::AppLimit => "app_limit",
            Self::Limit => "limit",
            Self::Name => "name",
        }
    }

    /// Which of them a drain that cannot run is.
    pub(crate) fn of(error: &PrepareError) -> Self {
        let PrepareError::Tls { source, .. } = error else { return Self::Url };
        match &**source {
            ClientTlsError::NoSystemAuthorities(_)
            | ClientTlsError::File(
                TlsError::Pem { what: "ca", .. }
                | TlsError::NoCertificate { what: "ca", .. }
                | TlsError::BadCertificate { what: "ca", .. },
            ) => Self::Authority,
            ClientTlsError::File(_) => Self::Credential,
        }
    }
}

impl Plan {
    /// Of each app the first `limit` drains in the order of their URLs, whether they can run or not.
    pub(super) fn of_apps(rows: Vec<Row>, limit: usize) -> Self {
        let mut apps: BTreeMap<String, BTreeMap<(Arc<str>, String), Wanted>> = BTreeMap::new();
        for (url, credential, bound) in rows.into_iter().flat_map(credentials) {
            for app in bound.into_iter().flatten() {
                let wanted =
                    Wanted { url: Arc::clone(&url), credential: Arc::clone(&credential), app: Some(app.clone()) };
                apps.entry(app.app_id).or_default().entry((Arc::clone(&url), wanted.name())).or_insert(wanted);
            }
        }
        let mut plan = Self::default();
        for of_app in apps.into_values() {
            for (place, ((_, name), wanted)) in of_app.into_iter().enumerate() {
                let list = if place < limit { &mut plan.wanted } else { &mut plan.too_many };
                list.insert(name, wanted);
            }
        }
        plan
    }

    /// One drain of everything for each credential.
    pub(super) fn of_aggregates(rows: Vec<Row>) -> Self {
        let wanted = rows.into_iter().flat_map(credentials).map(|(url, credential, _)| {
            let wanted = Wanted { url, credential, app: None };
            (wanted.name(), wanted)
        });
        Self { wanted: wanted.collect(), too_many: BTreeMap::new() }
    }
}

type Part = (Arc<str>, Arc<Credential>, Option<Vec<App>>);

fn credentials(row: Row) -> impl Iterator<Item = Part> {
    let url: Arc<str> = row.url.into();
    row.credentials.into_iter().map(move |mut credential| {
        let apps = credential.apps.take();
        (Arc::clone(&url), Arc::new(credential), apps)
    })
}

impl Wanted {
    fn name(&self) -> String {
        let (kind, app) = match &self.app {
            Some(app) => ("app", app.app_id.as_str()),
            None => ("aggregate", ""),
        };
        let Credential { cert, key, ca, .. } = &*self.credential;
        let mut context = Context::new(&SHA256);
        for part in [kind, app, &self.url, cert, key, ca] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let hash: String = context.finish().as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("binding-{hash}")
    }

    /// The drain of this name.
    ///
    /// # Errors
    /// Why there can be none, in words that show no secret.
    pub(super) fn drain(
        &self,
        name: &str,
        metadata: bool,
        ring: &RingConfig,
    ) -> Result<DrainConfig, (Invalid, String)> {
        let url: DrainUrl = self.url.parse().map_err(|error: DrainUrlError| {
            let is_scheme = matches!(error, DrainUrlError::Scheme(_));
            (if is_scheme { Invalid::Scheme } else { Invalid::Url }, error.to_string())
        })?;
        let Some(app) = &self.app else {
            if !url.scheme.has_lines() {
                return Err((Invalid::Scheme, "a drain of everything takes lines".to_owned()));
            }
            return Ok(DrainConfig { metadata, ring: ring.clone(), ..DrainConfig::new(name, url) });
        };
        if !url.scheme.is_for_apps() {
            let text = "an app's drain URL begins with syslog://, syslog-tls://, https:// or https-batch://";
            return Err((Invalid::Scheme, text.to_owned()));
        }
        // No source would mean all of them.
        if app.app_id.is_empty() {
            return Err((Invalid::App, "the binding names no app".to_owned()));
        }
        let (sources, hostname) = (vec![app.app_id.clone()], app.hostname.clone());
        Ok(DrainConfig { sources, hostname, metadata, ring: ring.clone(), ..DrainConfig::new(name, url) })
    }

    pub(super) fn texts(&self) -> ClientTlsTexts<'_> {
        let Credential { cert, key, ca, .. } = &*self.credential;
        ClientTlsTexts { ca, cert, key }
    }

    /// What its owner is told: the contract's words where it has some (§5.3), and no secret of the URL. `None` for what is no owner's.
    pub(super) fn told(&self, reason: Invalid) -> Option<(String, String)> {
        let app = self.app.as_ref().filter(|app| !app.app_id.is_empty())?;
        let url = shown(&self.url);
        let text = match reason {
            Invalid::Url => "Cannot parse syslog drain URL.".to_owned(),
            Invalid::Scheme => {
                let scheme = url.split("://").next().unwrap_or_default();
                format!("Invalid Scheme {scheme} for syslog drain url {url}")
            }
            Invalid::Credential => format!("failed to load certificate for {url}"),
            Invalid::Authority => format!("failed to load root CA for {url}"),
            Invalid::AppLimit => {
                format!("syslog drain url {url} is not used: the app has as many drains as it may have")
            }
            Invalid::Limit => {
                format!("syslog drain url {url} is not used for now: the platform has as many drains as it may have")
            }
            Invalid::App | Invalid::Name => return None,
        };
        Some((app.app_id.clone(), text))
    }

    pub(super) fn app_id(&self) -> &str {
        self.app.as_ref().map_or("", |app| &app.app_id)
    }
}

/// Scheme and host of something that need not be a drain's URL, bounded.
fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let visible = |text: &str, most: usize| text.chars().filter(char::is_ascii_graphic).take(most).collect::<String>();
    format!("{}://{}", visible(scheme, 32), visible(host, 256))
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted").field("app", &self.app).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(url: &str, key: &str, apps: &[&str]) -> Row {
        let app = |id: &&str| App { hostname: format!("o.s.{id}"), app_id: (*id).to_owned() };
        let apps = Some(apps.iter().map(app).collect());
        let credential = Credential { cert: "C".to_owned(), key: key.to_owned(), ca: String::new(), apps };
        Row { url: url.to_owned(), credentials: vec![credential] }
    }

    fn urls(plan: &BTreeMap<String, Wanted>, app: &str) -> Vec<String> {
        let mut urls: Vec<_> =
            plan.values().filter(|wanted| wanted.app_id() == app).map(|wanted| wanted.url.to_string()).collect();
        urls.sort();
        urls
    }

    #[test]
    fn an_app_has_the_first_of_its_drains_whatever_they_are() {
        let mut rows: Vec<Row> = (0..7).rev().map(|i| row(&format!("ftp://h:{i}"), "", &["a", "b"])).collect();
        rows.push(row("syslog://h:1", "", &["c"]));
        let plan = Plan::of_apps(rows, 5);
        assert_eq!(urls(&plan.wanted, "a"), ["ftp://h:0", "ftp://h:1", "ftp://h:2", "ftp://h:3", "ftp://h:4"]);
        assert_eq!(urls(&plan.too_many, "b"), ["ftp://h:5", "ftp://h:6"]);
        assert_eq!(urls(&plan.wanted, "c"), ["syslog://h:1"]);
    }

    #[test]
    fn names_are_those_of_app_url_and_credential() {
        let names = |rows: Vec<Row>| Plan::of_apps(rows, 5).wanted.into_keys().collect::<Vec<_>>();
        let one = names(vec![row("syslog://h:1", "k", &["a"])]);
        assert_eq!(one[0], "binding-93fdc3410828cadc55a3bd1911b7d96a", "the same in every process");
        assert_eq!(names(vec![row("syslog://h:1", "k", &["a"]), row("syslog://h:1", "k", &["a"])]), one, "said twice");
        let mut renamed = row("syslog://h:1", "k", &["a"]);
        renamed.credentials[0].apps.as_mut().unwrap()[0].hostname = "other".to_owned();
        assert_eq!(names(vec![renamed]), one, "a host name changes a drain, and makes no other");
        for other in
            [row("syslog://h:2", "k", &["a"]), row("syslog://h:1", "l", &["a"]), row("syslog://h:1", "k", &["b"])]
        {
            assert_ne!(names(vec![other]), one);
        }
        let aggregate = Plan::of_aggregates(vec![row("syslog://h:1", "k", &[])]);
        assert_eq!(aggregate.wanted.len(), 1);
        assert!(!aggregate.wanted.contains_key(&one[0]));
    }

    #[test]
    fn a_drain_has_its_app_and_nothing_that_apps_may_not_have() {
        let drain = |url: &str, app: &str| {
            let plan = Plan::of_apps(vec![row(url, "k", &[app])], 5);
            plan.wanted.values().next().unwrap().drain("n", false, &RingConfig::default())
        };
        let config = drain("syslog://h:1", "a").unwrap();
        assert_eq!((config.sources.as_slice(), config.hostname.as_str()), (&["a".to_owned()][..], "o.s.a"));
        assert!(config.announces() && !config.metadata);
        let reason = |url: &str, app: &str| drain(url, app).unwrap_err().0;
        for url in [
            "syslog-udp://h:1",
            "prometheus://127.0.0.1:1",
            "remote-write+http://h:1",
            "datadog://datadoghq.com",
            "otlp+grpc://h",
        ] {
            assert_eq!(reason(url, "a"), Invalid::Scheme, "{url}");
        }
        assert_eq!(reason("http://h:1", "a"), Invalid::Scheme);
        assert_eq!(reason("syslog://h", "a"), Invalid::Url);
        assert_eq!(reason("syslog://h:1", ""), Invalid::App, "it would have been a drain of everything");
        let told = |url: &str, reason| {
            let plan = Plan::of_apps(vec![row(url, "k", &["a"])], 5);
            plan.wanted.values().next().unwrap().told(reason)
        };
        let (app, text) = told("ftp://u:canary@h:1/canary?canary#canary", Invalid::Scheme).unwrap();
        assert_eq!((app.as_str(), text.as_str()), ("a", "Invalid Scheme ftp for syslog drain url ftp://h:1"));
        assert_eq!(told("u:canary@h", Invalid::AppLimit).unwrap().1.matches("://h ").count(), 1);
        let plan = Plan::of_aggregates(vec![row("syslog://h:1", "k", &["a"])]);
        assert_eq!(plan.wanted.values().next().unwrap().told(Invalid::Url), None, "the operator's own");
        let all = plan.wanted.values().next().unwrap().drain("n", true, &RingConfig::default()).unwrap();
        assert!(all.sources.is_empty() && all.hostname.is_empty() && !all.announces());
    }
}
