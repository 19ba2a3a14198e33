//! Throw-away certificates for tests: one authority, and certificates it signs, as files that live as long as the value.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use tempfile::TempDir;

use crate::cert::Role;
use crate::tls::{Identity, ServerFiles, ServerIdentity, TlsFiles};

/// An authority of its own in a temporary directory. Two values do not trust each other.
///
/// # Panics
///
/// Every method panics when the directory cannot be written or a key not be made.
pub struct TestCerts {
    dir: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl TestCerts {
    /// Makes the authority.
    #[expect(clippy::new_without_default, reason = "it writes files: a default would hide that")]
    pub fn new() -> Self {
        Self::named("hydrant test authority")
    }

    /// Makes an authority of this name.
    pub fn named(authority: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, authority);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let certs = Self { dir, authority };
        certs.write("ca.pem", &certs.authority.pem());
        certs
    }

    /// The files of a certificate for `name`, `localhost` and `127.0.0.1`, good for clients and servers for an hour.
    pub fn files(&self, name: &str) -> TlsFiles {
        let now = SystemTime::now();
        self.files_valid(name, now - Duration::from_secs(3600), now + Duration::from_secs(3600))
    }

    /// The same, valid between two times.
    pub fn files_valid(&self, name: &str, from: SystemTime, until: SystemTime) -> TlsFiles {
        let mut params = params(name);
        params.not_before = from.into();
        params.not_after = until.into();
        self.sign(name, &params)
    }

    /// The files of a certificate for `name` that has a role. The files bear the role's name as well.
    pub fn files_with_role(&self, name: &str, role: Role) -> TlsFiles {
        let mut params = params(name);
        params.subject_alt_names.push(SanType::URI(role.uri().try_into().expect("ASCII")));
        self.sign(&format!("{name}-{role}"), &params)
    }

    /// The files of a certificate for `name` whose subject has this common name instead.
    pub fn files_with_subject(&self, name: &str, subject: &str) -> TlsFiles {
        let mut params = params(name);
        params.distinguished_name.push(DnType::CommonName, subject);
        self.sign(name, &params)
    }

    fn sign(&self, name: &str, params: &CertificateParams) -> TlsFiles {
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.authority).expect("a certificate");
        TlsFiles {
            cert: self.write(&format!("{name}.pem"), &cert.pem()),
            key: self.write(&format!("{name}.key"), &key.serialize_pem()),
            ca: self.dir.path().join("ca.pem"),
        }
    }

    /// The loaded identity of [`files`](Self::files).
    pub fn identity(&self, name: &str) -> Identity {
        Identity::load(&self.files(name)).expect("files written just now")
    }

    /// The same certificate for an HTTPS port.
    pub fn server_files(&self, name: &str) -> ServerFiles {
        let TlsFiles { cert, key, .. } = self.files(name);
        ServerFiles { cert, key }
    }

    /// The loaded identity of [`server_files`](Self::server_files).
    pub fn server_identity(&self, name: &str) -> ServerIdentity {
        ServerIdentity::load(&self.server_files(name)).expect("files written just now")
    }

    /// Where the files are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("a writable directory");
        path
    }
}

/// For `name`, `localhost` and `127.0.0.1`, good for clients and servers from an hour ago for two.
fn params(name: &str) -> CertificateParams {
    let names = vec![name.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).expect("valid names");
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    (params.not_before, params.not_after) = ((now - hour).into(), (now + hour).into());
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}
