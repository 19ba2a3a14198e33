//! Which rows of Cloud Controller can be drains (contract: syslog drains §5.3).
//!
//! A row and the addresses of its host enter; the row leaves, without the credentials that cannot be used, and what is wrong with it.
//! Pure.

use std::net::IpAddr;

use transport::{AddressError, Authorities, ClientTls, ClientTlsError, ClientTlsTexts};

use crate::bindings::Invalid;
use crate::bindings::wire::Row;
use crate::drains::PrepareError;
use crate::policy::AddressPolicy;
use crate::syslog::config::{DrainUrl, DrainUrlError};

/// What is wrong with a row, or with one of its credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    NoCredentials,
    Url,
    Scheme,
    Host,
    Unresolved,
    Denied,
    Credential,
    Authority,
}

impl Fault {
    pub(crate) const ALL: [Self; 8] = [
        Self::NoCredentials,
        Self::Url,
        Self::Scheme,
        Self::Host,
        Self::Unresolved,
        Self::Denied,
        Self::Credential,
        Self::Authority,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::Url => "url",
            Self::Scheme => "scheme",
            Self::Host => "host",
            Self::Unresolved => "unresolved",
            Self::Denied => "denied",
            Self::Credential => "credential",
            Self::Authority => "authority",
        }
    }
}

/// A fault, and words for the operator's log that show no secret.
pub(super) type Found = (Fault, String);

/// The URL of a row that has one that an app's drain may have.
pub(super) fn url(row: &Row) -> Result<DrainUrl, Found> {
    if row.credentials.is_empty() {
        return Err((Fault::NoCredentials, "no app has it".to_owned()));
    }
    let url = DrainUrl::parse(&row.url).map_err(|error| {
        let fault = match &error {
            DrainUrlError::Scheme(_) => Fault::Scheme,
            DrainUrlError::NoPort(_, host) if host.is_empty() => Fault::Host,
            DrainUrlError::Address(AddressError::NoPort(_) | AddressError::BadHost(_)) => Fault::Host,
            _ => Fault::Url,
        };
        (fault, error.to_string())
    })?;
    if url.scheme.is_for_apps() {
        return Ok(url);
    }
    let text = "an app's drain URL begins with syslog://, syslog-tls://, https:// or https-batch://";
    Err((Fault::Scheme, text.to_owned()))
}

/// Whether a drain may go to all addresses of its host: agents that dial without looking take any of them.
pub(super) fn addresses(found: &Result<Vec<IpAddr>, String>, policy: &AddressPolicy) -> Result<(), Found> {
    let found = found.as_ref().map_err(|error| (Fault::Unresolved, error.clone()))?;
    found.iter().try_for_each(|addr| policy.check(*addr).map_err(|denied| (Fault::Denied, denied.to_string())))
}

/// Takes out the credentials that cannot be used.
pub(super) fn credentials(row: &mut Row, none: &Authorities, mut refuse: impl FnMut(Found)) {
    row.credentials.retain(|credential| {
        let texts = ClientTlsTexts { ca: &credential.ca, cert: &credential.cert, key: &credential.key };
        match ClientTls::from_texts(texts, "of the binding", none) {
            // It trusts those of whoever dials.
            Ok(_) | Err(ClientTlsError::NoSystemAuthorities(_)) => true,
            Err(error) => {
                let text = error.to_string();
                let error = PrepareError::Tls { drain: String::new(), source: Box::new(error) };
                let is_authority = Invalid::of(&error) == Invalid::Authority;
                refuse((if is_authority { Fault::Authority } else { Fault::Credential }, text));
                false
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::wire::Credential;
    use crate::policy::AddressRules;

    fn row(url: &str, credential: Credential) -> Row {
        Row { url: url.to_owned(), credentials: vec![credential] }
    }

    #[test]
    fn each_fault_has_its_reason() {
        let fault = |text: &str| url(&row(text, Credential::default())).unwrap_err().0;
        assert_eq!(
            url(&Row { url: "ftp://h".to_owned(), credentials: Vec::new() }).unwrap_err().0,
            Fault::NoCredentials
        );
        assert_eq!(fault("no URL"), Fault::Url);
        assert_eq!(fault("http://h:1"), Fault::Scheme);
        for url in [
            "syslog-udp://h:1",
            "prometheus://127.0.0.1:1",
            "remote-write+http://h:1",
            "datadog://datadoghq.com",
            "otlp+grpc://h",
        ] {
            assert_eq!(fault(url), Fault::Scheme, "{url}");
        }
        assert_eq!(fault("syslog://:514"), Fault::Host);
        assert_eq!(fault("syslog://"), Fault::Host);
        assert_eq!(fault("https://"), Fault::Host);
        for good in ["syslog://h:1", "syslog-tls://[2001:db8::1]:6514", "https://h/path", "https-batch://h"] {
            assert!(url(&row(good, Credential::default())).is_ok(), "{good}");
        }
    }

    #[test]
    fn one_address_that_is_denied_is_enough() {
        let policy = AddressPolicy::new(AddressRules::default(), "adapters.binding_cache.addresses");
        let verdict = |addrs: &[&str]| {
            let found = Ok(addrs.iter().map(|addr| addr.parse().unwrap()).collect());
            addresses(&found, &policy).map_err(|(fault, _)| fault)
        };
        assert_eq!(verdict(&["10.0.0.1"]), Ok(()));
        assert_eq!(verdict(&["10.0.0.1", "::1"]), Err(Fault::Denied));
        assert_eq!(addresses(&Err("no".to_owned()), &policy), Err((Fault::Unresolved, "no".to_owned())));
    }

    #[test]
    fn a_credential_that_cannot_be_used_is_taken_out_alone() {
        let none = Authorities::none();
        let with = |cert: &str, key: &str, ca: &str| Credential {
            cert: cert.to_owned(),
            key: key.to_owned(),
            ca: ca.to_owned(),
            apps: None,
        };
        let mut row = row("syslog-tls://h:1", with("", "", ""));
        row.credentials.extend([with("x", "y", ""), with("", "", "x"), with("x", "", "")]);
        let mut faults = Vec::new();
        credentials(&mut row, &none, |(fault, _)| faults.push(fault));
        assert_eq!(faults, [Fault::Credential, Fault::Authority]);
        assert_eq!(row.credentials, [with("", "", ""), with("x", "", "")]);
    }
}
