//! `hydrant certs init`: an authority and a certificate per role, as files, with the lines of configuration that use them.
//!
//! What enters: a directory, names of hosts. What leaves: PEM files, keys readable by their owner alone, and TOML on standard output.
//! Never writes over a file unless told to renew, and then never touches the authority.

use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SanType,
};
use transport::Role;

use crate::cli::{Failure, say};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long the authority is valid.
const AUTHORITY_DAYS: u32 = 3650;

/// Clocks of other machines may be behind by this much.
const SKEW: Duration = Duration::from_secs(3600);

/// `hydrant certs …`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make an authority and a certificate for each role
    ///
    /// Writes ca.pem, ca.key and, for each role, ROLE.pem and ROLE.key, and says what to put into the configuration. Keep ca.key away
    /// from the machines that run the roles: whoever has it can be any of them.
    Init(Init),
}

/// Arguments of `hydrant certs init`.
#[derive(Debug, clap::Args)]
pub(crate) struct Init {
    /// Where to write; made if it is not there
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
    /// The kind of keys. Loggregator's components take RSA only where TLS 1.2 is spoken
    #[arg(long, value_name = "KIND", default_value = "ecdsa")]
    key: Kind,
    /// How long the roles' certificates are valid
    #[arg(long, value_name = "DAYS", default_value = "397", value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// A name or address that the processes are reached under, beside localhost; may be given more than once
    #[arg(long = "host", value_name = "NAME|IP", value_parser = host)]
    hosts: Vec<Host>,
    /// Make new certificates for the roles from the authority that is there
    #[arg(long)]
    renew: bool,
}

/// Kinds of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// P-256
    Ecdsa,
    /// 2048 bits
    Rsa,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Ip(IpAddr),
    Dns(Ia5String),
}

fn host(text: &str) -> Result<Host, String> {
    if let Ok(ip) = text.parse() {
        return Ok(Host::Ip(ip));
    }
    let label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(allowed)
    };
    let name = text.strip_prefix("*.").unwrap_or(text);
    let name = (text.len() <= 253 && name.split('.').all(label)).then(|| Ia5String::try_from(text).ok()).flatten();
    name.map(Host::Dns).ok_or_else(|| "write a DNS name such as logs.example.com, or an IP address".to_owned())
}

/// Runs the command.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    let Command::Init(init) = command;
    transport::install_crypto_provider();
    let written = init.run(SystemTime::now()).map_err(Failure::Wrong)?;
    say(&mut io::stdout(), &written);
    Ok(())
}

impl Init {
    /// Makes and writes everything; returns what there is to say about it.
    fn run(&self, now: SystemTime) -> anyhow::Result<String> {
        let dir = &self.dir;
        let (ca_pem, ca_key) = (dir.join("ca.pem"), dir.join("ca.key"));
        let mut files = Vec::new();
        let issuer = if self.renew {
            let read = |path: &Path| {
                std::fs::read_to_string(path).with_context(|| {
                    format!("cannot read {}: --renew needs the authority that is there", path.display())
                })
            };
            let (pem, key) = (read(&ca_pem)?, read(&ca_key)?);
            let key = KeyPair::from_pem(&key).with_context(|| format!("{} is not a private key", ca_key.display()))?;
            Issuer::from_ca_cert_pem(&pem, key).with_context(|| format!("{} is not an authority", ca_pem.display()))?
        } else {
            self.refuse_to_overwrite()?;
            let (issuer, key, pem) = self.authority(now)?;
            files.push((ca_key, key, 0o600));
            files.push((ca_pem, pem, 0o644));
            issuer
        };
        for role in Role::ALL {
            let key = self.key_pair()?;
            let cert = self.certificate(role, now)?.signed_by(&key, &issuer)?;
            files.push((dir.join(format!("{role}.key")), key.serialize_pem(), 0o600));
            files.push((dir.join(format!("{role}.pem")), cert.pem(), 0o644));
        }
        // All are made before the first is written: what fails here leaves nothing behind.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("cannot make the directory {}", dir.display()))?;
        for (path, text, mode) in &files {
            let write = if self.renew { replace } else { create };
            write(path, text, *mode).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let dir = std::fs::canonicalize(dir).with_context(|| format!("cannot find {} again", dir.display()))?;
        Ok(self.report(&dir))
    }

    fn refuse_to_overwrite(&self) -> anyhow::Result<()> {
        let names = std::iter::once("ca").chain(Role::ALL.map(Role::as_str));
        let mut paths = names.flat_map(|name| [format!("{name}.pem"), format!("{name}.key")]);
        match paths.find(|name| self.dir.join(name).symlink_metadata().is_ok()) {
            None => Ok(()),
            Some(name) => bail!(
                "{} is already there; --renew makes new certificates from the authority there, --dir names another directory",
                self.dir.join(name).display()
            ),
        }
    }

    fn key_pair(&self) -> anyhow::Result<KeyPair> {
        let algorithm = match self.key {
            Kind::Ecdsa => &PKCS_ECDSA_P256_SHA256,
            Kind::Rsa => &PKCS_RSA_SHA256,
        };
        KeyPair::generate_for(algorithm).context("cannot make a key")
    }

    /// The authority, its key and its certificate.
    fn authority(&self, now: SystemTime) -> anyhow::Result<(Issuer<'static, KeyPair>, String, String)> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("hydrant authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = ((now - SKEW).into(), (now + DAY * AUTHORITY_DAYS).into());
        let key = self.key_pair()?;
        let (pem, text) = (params.self_signed(&key)?.pem(), key.serialize_pem());
        Ok((Issuer::new(params, key), text, pem))
    }

    fn certificate(&self, role: Role, now: SystemTime) -> anyhow::Result<CertificateParams> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(common_name_of(role));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = ((now - SKEW).into(), (now + DAY * self.days).into());
        for name in names(role).iter().chain(&["localhost"]) {
            params.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(*name)?));
        }
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        params.subject_alt_names.extend(loopback.map(SanType::IpAddress));
        params.subject_alt_names.extend(self.hosts.iter().map(|host| match host {
            Host::Ip(ip) => SanType::IpAddress(*ip),
            Host::Dns(name) => SanType::DnsName(name.clone()),
        }));
        params.subject_alt_names.push(SanType::URI(Ia5String::try_from(role.uri())?));
        Ok(params)
    }

    fn report(&self, dir: &Path) -> String {
        let what = if self.renew {
            "New certificates from the authority that was there"
        } else {
            "An authority and certificates"
        };
        let mut text = format!("{what}, valid for {} days, are in {}:\n\n", self.days, dir.display());
        if !self.renew {
            line(&mut text, "ca.pem, ca.key", "the authority; keep ca.key where no role runs");
        }
        for role in Role::ALL {
            line(&mut text, &format!("{role}.pem, {role}.key"), purpose(role));
        }
        if self.renew {
            text.push_str("\nRoles that run read them within seconds.");
            return text;
        }
        text.push_str("\nPut into the configuration of each role:\n\n");
        text.push_str(&toml(dir));
        let file = |name: &str| shell(&dir.join(name));
        let _infallible = write!(
            text,
            "\nAnd for the commands emit, tail and firehose:\n\n  export HYDRANT_CA={} HYDRANT_CERT={} HYDRANT_KEY={}",
            file("ca.pem"),
            file("operator.pem"),
            file("operator.key")
        );
        text
    }
}

fn line(text: &mut String, files: &str, what: &str) {
    let _infallible = writeln!(text, "  {files:<46} {what}");
}

/// The tables of all roles.
fn toml(dir: &Path) -> String {
    let table = |role: Role| {
        let path = |name: String| toml::Value::from(dir.join(name).display().to_string());
        let (cert, key, ca) = (path(format!("{role}.pem")), path(format!("{role}.key")), path("ca.pem".to_owned()));
        format!("{{ cert = {cert}, key = {key}, ca = {ca} }}")
    };
    let (agent, doppler) = (table(Role::Agent), table(Role::Doppler));
    let (controller, adapters) = (table(Role::TrafficController), table(Role::Adapters));
    let log_cache = table(Role::LogCache);
    format!(
        "[agent]\ndoppler_tls = {agent}\ngrpc.tls = {agent}\ngrpc.access.enforce = true\n\n\
         [doppler]\ngrpc.tls = {doppler}\ngrpc.access.enforce = true\n\n\
         [traffic_controller]\ndoppler_tls = {controller}\ngrpc.tls = {controller}\ngrpc.access.enforce = true\n\n\
         [adapters]\ndoppler_tls = {adapters}\nagent_tls = {adapters}\n\n\
         [log_cache]\ngrpc.tls = {log_cache}\ngrpc.access.enforce = true\nsyslog.tls = {log_cache}\n"
    )
}

/// A path as one word of a shell.
fn shell(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// As Loggregator's deployments have them, where they have one.
fn common_name_of(role: Role) -> &'static str {
    match names(role) {
        [first, ..] => first,
        [] => role.as_str(),
    }
}

/// The names that peers look for in a certificate of this role.
fn names(role: Role) -> &'static [&'static str] {
    match role {
        Role::Agent => &["metron"],
        Role::Doppler => &["doppler", "log-cache"],
        Role::TrafficController => &["reverselogproxy", "trafficcontroller"],
        Role::LogCache => &["log-cache"],
        Role::Adapters | Role::Consumer | Role::Operator => &[],
    }
}

fn purpose(role: Role) -> &'static str {
    match role {
        Role::Agent => "agents",
        Role::Doppler => "dopplers",
        Role::TrafficController => "traffic controllers",
        Role::Adapters => "adapters",
        Role::LogCache => "log caches of their own",
        Role::Consumer => "programs that read through the traffic controller",
        Role::Operator => "you: emit, tail, firehose",
    }
}

/// Writes a file that must not be there yet.
fn create(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Puts a file in the place of another in one step.
fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    create(&beside, text, mode)?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use transport::{Identity, TlsFiles};

    use super::*;

    fn init(dir: &Path) -> Init {
        let hosts = vec![host("logs.example.com").expect("a name"), host("10.0.0.5").expect("an address")];
        Init { dir: dir.to_owned(), key: Kind::Ecdsa, days: 30, hosts, renew: false }
    }

    fn files(dir: &Path, role: Role) -> TlsFiles {
        TlsFiles { cert: dir.join(format!("{role}.pem")), key: dir.join(format!("{role}.key")), ca: dir.join("ca.pem") }
    }

    #[test]
    fn every_role_gets_a_certificate_with_its_names_and_role() {
        for key in [Kind::Ecdsa, Kind::Rsa] {
            let temporary = tempfile::tempdir().expect("a directory");
            let dir = temporary.path().join("certs");
            let said = Init { key, ..init(&dir) }.run(SystemTime::now()).expect("made");
            for role in Role::ALL {
                let cert = Identity::load(&files(&dir, role)).expect("files that go together").certificate();
                assert_eq!((cert.roles(), cert.issuer()), (&[role][..], "CN=hydrant authority"));
                assert!(names(role).iter().all(|name| cert.is_named(name)), "{cert:?}");
                assert!(cert.is_named("localhost") && cert.is_named("logs.example.com"), "{cert:?}");
                assert!(cert.addresses().contains(&[10, 0, 0, 5].into()), "{cert:?}");
                let left = cert.not_after().duration_since(SystemTime::now()).expect("the future");
                assert!(left > DAY * 29 && left <= DAY * 30, "{left:?}");
                assert!(said.contains(&format!("{role}.pem")), "{said}");
            }
            let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
            assert_eq!(mode(&dir), 0o700);
            assert_eq!((mode(&dir.join("ca.key")), mode(&dir.join("agent.key"))), (0o600, 0o600));
            let toml = said.split("each role:\n\n").nth(1).and_then(|text| text.split("\nAnd for").next());
            let config: crate::Config = toml::from_str(toml.expect("lines to paste")).expect("a configuration");
            let dir = dir.canonicalize().expect("there");
            assert_eq!(config.doppler.grpc.tls, Some(files(&dir, Role::Doppler)));
            assert!(config.agent.grpc.access.enforce && config.traffic_controller.grpc.access.enforce);
        }
    }

    #[test]
    fn what_is_there_is_renewed_when_told_and_never_written_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let (dir, now) = (dir.path(), SystemTime::now());
        assert!(
            Init { renew: true, ..init(dir) }.run(now).expect_err("no authority").to_string().contains("--renew needs")
        );
        init(dir).run(now).expect("made");
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).expect("there");
        let (ca, agent) = (read("ca.pem"), read("agent.pem"));
        let error = init(dir).run(now).expect_err("all are there").to_string();
        assert!(error.contains("ca.pem is already there; --renew makes new certificates"), "{error}");
        assert_eq!((read("ca.pem"), read("agent.pem")), (ca.clone(), agent.clone()));

        let identity = Identity::load(&files(dir, Role::Agent)).expect("files that go together");
        std::fs::write(dir.join("agent.key.new"), "left behind").expect("written");
        Init { renew: true, ..init(dir) }.run(now).expect("renewed");
        assert_eq!(read("ca.pem"), ca);
        assert_ne!(read("agent.pem"), agent);
        assert!(identity.reload().expect("the new files"), "a running role takes them");
        assert_eq!(identity.certificate().issuer(), "CN=hydrant authority");
        let left: Vec<_> = std::fs::read_dir(dir).expect("there").collect();
        assert_eq!(left.len(), 16, "{left:?}");
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        assert_eq!(host("10.0.0.1"), Ok(Host::Ip([10, 0, 0, 1].into())));
        assert!(matches!(host("::1"), Ok(Host::Ip(_))));
        for name in ["doppler", "a-b.c_d.example", "*.example.com"] {
            assert!(matches!(host(name), Ok(Host::Dns(_))), "{name}");
        }
        for wrong in ["", "a b", "a..b", "https://a", "ü.example", &"a".repeat(64)] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }
}
