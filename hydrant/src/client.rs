//! What the commands share: finding a server, and lines on standard output.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail, ensure};
use jiff::tz::TimeZone;
use proto::codec::MAX_MESSAGE;
use regex::Regex;
use tonic::transport::Channel;
use transport::{Address, ChannelOptions, ClientTls, ClientTlsFiles, Credentials, Identity, TlsFiles, reason};

use crate::cli::{Failure, say};
use crate::render::{Form, Printer};
use crate::token::{Bearer, TokenArgs};

/// Where a command's server is, and what to do when it is not there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server<'a> {
    /// What it is, with its article: "an agent".
    pub(crate) what: &'static str,
    /// `host:port`.
    pub(crate) address: &'a Address,
    /// The option that names another.
    pub(crate) option: &'static str,
    /// The name in its certificate.
    pub(crate) name: &'static str,
}

/// How a command connects: arguments of every command that speaks to a server.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Connect {
    /// Speak TLS: the authorities (PEM) that the server's certificate must come from; or set HYDRANT_CA
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// With --ca: the certificate (PEM) to show, where a token is not enough; or set HYDRANT_CERT
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// With --ca: the private key (PEM) of --cert; or set HYDRANT_KEY
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// With --ca: the name that the server's certificate must have, where it is not the usual one
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
}

impl Connect {
    /// Whether TLS is asked for.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.ca.is_some() || std::env::var_os("HYDRANT_CA").is_some_and(|value| !value.is_empty())
    }

    /// The options of a channel to a server that is usually called `name`.
    fn options(&self, name: &str, variable: impl Fn(&str) -> Option<PathBuf>) -> anyhow::Result<ChannelOptions> {
        let given = [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)];
        let found = given.map(|(what, file)| {
            (what, file.clone().or_else(|| variable(&format!("HYDRANT_{}", what.to_ascii_uppercase()))))
        });
        let credentials: Credentials = match found {
            [(_, None), (_, None), (_, None)] => {
                ensure!(self.server_name.is_none(), "--server-name is for TLS: give --ca too");
                return Ok(ChannelOptions::default());
            }
            [(_, Some(ca)), (_, None), (_, None)] => {
                ClientTls::load(ClientTlsFiles { ca: Some(ca), ..ClientTlsFiles::default() })?.into()
            }
            [(_, Some(ca)), (_, Some(cert)), (_, Some(key))] => Identity::load(&TlsFiles { cert, key, ca })?.into(),
            some => {
                let missing = some.into_iter().filter(|(_, file)| file.is_none());
                let missing: Vec<_> =
                    missing.map(|(what, _)| format!("--{what} (or HYDRANT_{})", what.to_ascii_uppercase())).collect();
                bail!("to show a certificate takes --ca, --cert and --key; there is no {}", missing.join(" and no "));
            }
        };
        let name = self.server_name.as_deref().unwrap_or(name);
        ChannelOptions::tls_to(credentials, name)
            .with_context(|| format!("--server-name {name:?} is neither a DNS name nor an address"))
    }
}

impl Server<'_> {
    /// A connection that is up.
    pub(crate) async fn connect(self, how: &Connect) -> Result<Channel, Failure> {
        transport::install_crypto_provider();
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let options = how.options(self.name, variable).map_err(Failure::Wrong)?;
        transport::connect(self.address, &options).await.map_err(|error| {
            let Self { what, address, option, .. } = self;
            let cause = reason(&error);
            // Who answers is there: then it is not one to be started.
            let next = match answered(&error) {
                true => String::new(),
                false => format!("; start one with `hydrant up`, or name another with {option} HOST:PORT"),
            };
            Failure::Failed(anyhow!("cannot reach {what} at {address}: {cause}{next}"))
        })
    }
}

/// The traffic controller that a command speaks to.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Controller {
    /// The traffic controller's gRPC address
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8084")]
    pub(crate) server: Address,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    token: TokenArgs,
}

impl Controller {
    /// A connection that is up, and the token to show on it.
    pub(crate) async fn connect(&self) -> Result<(Channel, Bearer), Failure> {
        let server = Server { what: "a traffic controller", address: &self.server, option: "--server", name: SERVER };
        let bearer = self.token.bearer(&self.server, self.connect.is_encrypted())?;
        Ok((server.connect(&self.connect).await?, bearer))
    }
}

/// Whether somebody was at the other end and TLS failed.
fn answered(error: &(dyn std::error::Error + 'static)) -> bool {
    let kind = |error: &(dyn std::error::Error + 'static)| error.downcast_ref().map(io::Error::kind);
    let mut causes = std::iter::successors(Some(error), |cause| cause.source());
    causes.any(|cause| matches!(kind(cause), Some(io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)))
}

/// The name in the certificate of a traffic controller.
const SERVER: &str = "reverselogproxy";

/// The largest message taken from a server.
pub(crate) const MAX: usize = MAX_MESSAGE;

/// Standard output, written in whole pieces: as many lines as there are, then one flush.
#[derive(Debug)]
pub(crate) struct Output {
    out: io::Stdout,
    buffer: Vec<u8>,
    /// Whether it is a terminal.
    pub(crate) terminal: bool,
    /// Whether to use colour.
    pub(crate) colour: bool,
    /// Whether the terminal is in raw mode, where a line feed does not lead back to the first column.
    pub(crate) raw: bool,
}

impl Output {
    pub(crate) fn new() -> Self {
        let out = io::stdout();
        let terminal = out.is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { out, buffer: Vec::new(), terminal, colour, raw: false }
    }

    /// A printer for lines that go here.
    pub(crate) fn printer(&self, form: Form, highlight: Vec<Regex>) -> Printer {
        let mut printer = Printer::new(form, TimeZone::system());
        (printer.colour, printer.eyes, printer.highlight) = (self.colour, self.terminal, highlight);
        printer
    }

    /// Where the next lines go.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Writes what has gathered. False when the reader has gone, as `head` does: then there is nothing more to do.
    pub(crate) fn flush(&mut self) -> bool {
        let mut out = self.out.lock();
        let written = if self.raw {
            let mut lines = self.buffer.split_inclusive(|byte| *byte == b'\n');
            lines.try_for_each(|line| match line.strip_suffix(b"\n") {
                Some(line) => out.write_all(line).and_then(|()| out.write_all(b"\r\n")),
                None => out.write_all(line),
            })
        } else {
            out.write_all(&self.buffer)
        };
        let written = written.and_then(|()| out.flush());
        self.buffer.clear();
        written.is_ok()
    }

    /// Says something on standard error.
    pub(crate) fn notice(&self, text: &str) {
        let end = if self.raw { "\r" } else { "" };
        say(&mut io::stderr(), &format!("hydrant: {text}{end}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(connect: &Connect, variables: &[(&str, &str)]) -> Result<ChannelOptions, String> {
        let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        connect.options("metron", variable).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_certificate_has_a_key_and_an_authority() {
        assert!(options(&Connect::default(), &[]).expect("plain text").tls.is_none());
        let some = Connect { cert: Some("a.pem".into()), ..Connect::default() };
        assert_eq!(
            options(&some, &[("HYDRANT_CA", "ca.pem")]).expect_err("no key"),
            "to show a certificate takes --ca, --cert and --key; there is no --key (or HYDRANT_KEY)"
        );
        let name = Connect { server_name: Some("x".to_owned()), ..Connect::default() };
        assert!(options(&name, &[]).expect_err("no files").contains("give --ca"));
    }

    #[test]
    fn files_come_from_options_before_variables() {
        let certs = transport::TestCerts::new();
        let files = certs.files("operator");
        let text = |path: &PathBuf| path.display().to_string();
        let (ca, cert, key) = (text(&files.ca), text(&files.cert), text(&files.key));
        let variables =
            [("HYDRANT_CA", ca.as_str()), ("HYDRANT_CERT", "/nowhere/a.pem"), ("HYDRANT_KEY", key.as_str())];
        let error = options(&Connect::default(), &variables).expect_err("no such file");
        assert!(error.starts_with("cert /nowhere/a.pem: "), "{error}");
        let connect = Connect { cert: Some(cert.into()), ..Connect::default() };
        let tls = options(&connect, &variables).expect("all are there").tls.expect("TLS");
        assert_eq!(tls.server_name.to_str(), "metron");
        assert!(matches!(tls.credentials, Credentials::Certificate(_)));
        let tls = options(&Connect::default(), &[("HYDRANT_CA", &ca)]).expect("an authority").tls.expect("TLS");
        assert!(matches!(tls.credentials, Credentials::Anonymous(_)));
        let connect = Connect { server_name: Some("other".to_owned()), ..connect };
        let tls = options(&connect, &variables).expect("all are there").tls.expect("TLS");
        assert_eq!(tls.server_name.to_str(), "other");
        let connect = Connect { server_name: Some("no name".to_owned()), ..connect };
        assert!(options(&connect, &variables).expect_err("a space").contains("neither a DNS name nor an address"));
    }
}
