//! Tokens on the command line: making them (`hydrant token`), and showing one to a traffic controller.
//!
//! A token is read from a file or from the environment, never from an argument: other people of the machine see arguments. It is
//! sent as gRPC metadata, over plain text to this machine only, and shown by nothing but `hydrant token new`.

use std::ffi::OsString;
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::{Request, Status};
use traffic_controller::{MAX_TOKEN_BYTES, new_token, token_sha256};
use transport::Address;

use crate::cli::{Failure, say};

/// The variable that holds a token.
const VARIABLE: &str = "HYDRANT_TOKEN";

/// `hydrant token`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a token and print it, with the entry for the tokens file
    ///
    /// The token is printed this once; the entry holds its SHA-256 only.
    New {
        /// What to call it: shown in logs
        #[arg(long, value_name = "NAME", default_value = "new")]
        name: String,
        /// A source that it reads; * stands for any run of characters. May be given again
        #[arg(long = "source", value_name = "SOURCE")]
        sources: Vec<String>,
    },
    /// Read a token from standard input and print its SHA-256, as the tokens file has it
    Hash,
}

/// Runs the command.
pub(crate) fn run(command: &Command) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    match command {
        Command::New { name, sources } => {
            let token = new_token();
            say(&mut out, &format!("{token}\n\n{}", entry(&token, name, sources)));
        }
        Command::Hash => {
            let token = one_token(std::io::stdin()).context("standard input").map_err(Failure::Wrong)?;
            say(&mut out, &token_sha256(token.as_bytes()));
        }
    }
    Ok(())
}

/// What the tokens file says of `token`.
fn entry(token: &str, name: &str, sources: &[String]) -> String {
    let text = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let hint = if sources.is_empty() { " # such as [\"my-app\", \"shop-*\"]" } else { "" };
    let sources: Vec<String> = sources.iter().map(|source| text(source)).collect();
    let (name, sha256, sources) = (text(name), token_sha256(token.as_bytes()), sources.join(", "));
    format!("[[tokens]]\nname = {name}\nsha256 = \"{sha256}\"\nsources = [{sources}]{hint}")
}

/// Where a command finds the token that it shows.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenArgs {
    /// A file with the token to show to the traffic controller. Without one, the token in the variable HYDRANT_TOKEN is shown, if any
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl TokenArgs {
    /// What to put into requests to `server`; `encrypted` says whether they are.
    pub(crate) fn bearer(&self, server: &Address, encrypted: bool) -> Result<Bearer, Failure> {
        self.find(std::env::var_os(VARIABLE), server, encrypted).map_err(Failure::Wrong)
    }

    fn find(&self, variable: Option<OsString>, server: &Address, encrypted: bool) -> anyhow::Result<Bearer> {
        let (token, from) = match (&self.token_file, variable.filter(|value| !value.is_empty())) {
            (Some(path), _) => {
                let from = format!("--token-file {}", path.display());
                let file = std::fs::File::open(path).with_context(|| from.clone())?;
                (one_token(file).with_context(|| from.clone())?, from)
            }
            (None, Some(value)) => (one_token(value.as_encoded_bytes()).context(VARIABLE)?, VARIABLE.to_owned()),
            (None, None) => return Ok(Bearer(None)),
        };
        if !encrypted && !is_this_machine(server) {
            return Err(anyhow!(
                "{from}: the token would travel to {server} in plain text, for everybody on the way to read; \
                 use it over TLS, or on the machine of the traffic controller"
            ));
        }
        let value = token.is_ascii().then(|| AsciiMetadataValue::try_from(format!("Bearer {token}")).ok()).flatten();
        let mut value =
            value.ok_or_else(|| anyhow!("{from}: a token has no characters but those of ASCII that can be seen"))?;
        value.set_sensitive(true);
        Ok(Bearer(Some(value)))
    }
}

/// Puts a token, if there is one, into every request.
#[derive(Clone, Debug)]
pub(crate) struct Bearer(Option<AsciiMetadataValue>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// All of `input` but white space around it. The errors do not show it.
fn one_token(input: impl Read) -> anyhow::Result<String> {
    let mut text = Vec::new();
    input.take(MAX_TOKEN_BYTES as u64 + 2).read_to_end(&mut text)?;
    let token = text.trim_ascii();
    match std::str::from_utf8(token) {
        Ok("") => Err(anyhow!("there is no token in it; `hydrant token new` makes one")),
        Ok(_) if token.len() > MAX_TOKEN_BYTES => Err(anyhow!("a token has {MAX_TOKEN_BYTES} bytes at most")),
        Ok(token) if !token.contains(|char: char| char.is_whitespace() || char.is_control()) => Ok(token.to_owned()),
        _ => Err(anyhow!("it must hold one token and nothing else")),
    }
}

/// True for addresses that only this machine reaches, and for the name that stands for them.
fn is_this_machine(server: &Address) -> bool {
    server.host().eq_ignore_ascii_case("localhost")
        || server.host().parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(variable: Option<&str>, server: &str, encrypted: bool) -> Result<Option<String>, String> {
        let server = server.parse().expect("an address");
        let bearer = TokenArgs { token_file: None }.find(variable.map(OsString::from), &server, encrypted);
        let text = |value: AsciiMetadataValue| value.to_str().expect("ASCII").to_owned();
        bearer.map(|Bearer(value)| value.map(text)).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_token_goes_over_tls_or_to_this_machine() {
        for server in ["127.0.0.1:1", "localhost:1", "[::1]:1", "127.8.9.1:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(find(Some("hy_x\n"), server, false), Ok(Some("Bearer hy_x".to_owned())), "{server}");
        }
        for server in ["10.0.0.1:1", "logs.example:1", "localhost.example:1", "[::]:1", "0.0.0.0:1"] {
            let error = find(Some("hy_x"), server, false).expect_err("plain text");
            assert!(error.starts_with("HYDRANT_TOKEN: the token would travel to "), "{error}");
            assert!(!error.contains("hy_x"), "{error}");
            assert!(find(Some("hy_x"), server, true).is_ok());
            assert_eq!(find(None, server, false), Ok(None));
        }
        assert_eq!(find(Some(""), "logs.example:1", false), Ok(None));
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_shown() {
        let long = "x".repeat(MAX_TOKEN_BYTES + 1);
        for bad in [" \n", "two words", "a\nb", &long, "s\u{1}"] {
            let error = find(Some(bad), "127.0.0.1:1", false).expect_err("no token");
            assert!(
                error.starts_with("HYDRANT_TOKEN: ") && !error.contains(bad.trim()) || bad.trim().is_empty(),
                "{error}"
            );
        }
        let error = find(Some("tökn"), "127.0.0.1:1", false).expect_err("not ASCII");
        assert!(error.contains("ASCII") && !error.contains("tökn"), "{error}");
        assert!(find(Some(&"x".repeat(MAX_TOKEN_BYTES)), "127.0.0.1:1", false).is_ok());
    }

    #[test]
    fn an_entry_is_what_a_tokens_file_takes() {
        let text = entry("abc", "a \"name\"", &["my-app".to_owned(), "shop-*".to_owned()]);
        let table: toml::Table = toml::from_str(&text).expect("TOML");
        let entry = &table["tokens"][0];
        assert_eq!(entry["name"].as_str(), Some("a \"name\""));
        assert_eq!(entry["sha256"].as_str(), Some("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
        assert_eq!(entry["sources"].as_array().map(Vec::len), Some(2));
    }
}
