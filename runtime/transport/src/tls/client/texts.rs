//! A [`ClientTls`] from PEM texts: what somebody sent, and no files.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use tokio::sync::watch;

use super::{CertAndKey, ClientTls, ClientTlsError, ClientTlsFiles, Loaded, Shared, builder, system_authorities};
use crate::tls::TlsError;
use crate::tls::files::{add_authorities, authorities, read, shown};

/// Authorities that many clients have in common. Cloning costs one reference count.
#[derive(Clone, Debug)]
pub struct Authorities(Arc<RootCertStore>);

/// What a client trusts besides those authorities, and what it shows: PEM, and empty for none.
#[derive(Clone, Copy)]
pub struct ClientTlsTexts<'a> {
    /// Authorities that a server's certificate may chain to.
    pub ca: &'a str,
    /// The certificate to show, followed by its intermediates. Nothing is shown unless its key is there too.
    pub cert: &'a str,
    /// The private key of `cert`.
    pub key: &'a str,
}

impl Authorities {
    /// None at all.
    pub fn none() -> Self {
        Self(Arc::new(RootCertStore::empty()))
    }

    /// Those of the system, and those of a PEM file. None where the system has none and no file is named. Blocks while it reads.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn of_system_and(ca: Option<&Path>) -> Result<Self, TlsError> {
        let mut roots = system_authorities().unwrap_or_else(|_| RootCertStore::empty());
        if let Some(ca) = ca {
            roots.extend(authorities(ca, &read("ca", ca)?)?.roots);
        }
        Ok(Self(Arc::new(roots)))
    }
}

impl ClientTls {
    /// Checks the texts. `place` follows "ca", "cert" and "key" in errors, as in "of the binding". The value trusts `base` and its own
    /// `ca`, and gives nothing to other values of the same base. It never changes.
    ///
    /// # Errors
    /// A text is not PEM or lacks what it should hold; the key is not the certificate's; the certificate has expired or is not valid yet;
    /// there are no authorities at all.
    pub fn from_texts(
        texts: ClientTlsTexts<'_>,
        place: &'static str,
        base: &Authorities,
    ) -> Result<Self, ClientTlsError> {
        let named = Path::new(place);
        let ca = (!texts.ca.is_empty()).then_some(named);
        let pair = (!texts.cert.is_empty() && !texts.key.is_empty()).then_some(named);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let pair_read = pair.map(|named| {
            shown((named, texts.cert.as_bytes()), (named, texts.key.as_bytes()), &provider, SystemTime::now())
        });
        let pair_read = pair_read.transpose()?;
        let roots = match ca {
            None if base.0.is_empty() => return Err(ClientTlsError::NoSystemAuthorities("none was found".to_owned())),
            None => Arc::clone(&base.0),
            Some(named) => {
                let mut roots = RootCertStore::clone(&base.0);
                add_authorities(&mut roots, named, texts.ca.as_bytes())?;
                Arc::new(roots)
            }
        };
        let builder = builder(&provider).with_root_certificates(Arc::clone(&roots));
        let files = ClientTlsFiles {
            ca: ca.map(Path::to_owned),
            shown: pair.map(|named| CertAndKey { cert: named.to_owned(), key: named.to_owned() }),
            skip_verify: false,
        };
        let (sender, current) = watch::channel(Loaded::new(builder, Some(roots), pair_read, Vec::new()));
        Ok(Self { shared: Arc::new(Shared { files, texts: true, system: None, current: sender }), current })
    }
}
