//! What the commands share: finding a server, and lines on standard output.

use std::io::{self, IsTerminal, Write};

use anyhow::anyhow;
use proto::codec::MAX_MESSAGE;
use tonic::transport::Channel;
use transport::{Address, ChannelOptions};

use crate::cli::Failure;

/// Where a command's server is, and what to do when it is not there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server<'a> {
    /// What it is, with its article: "an agent".
    pub(crate) what: &'static str,
    /// `host:port`.
    pub(crate) address: &'a Address,
    /// The option that names another.
    pub(crate) option: &'static str,
}

impl Server<'_> {
    /// A connection that is up.
    pub(crate) async fn connect(self) -> Result<Channel, Failure> {
        transport::install_crypto_provider();
        transport::connect(self.address, &ChannelOptions::default()).await.map_err(|error| {
            let Self { what, address, option } = self;
            let cause = root_cause(&error);
            Failure::Failed(anyhow!(
                "cannot reach {what} at {address}: {cause}; start one with `hydrant up`, or name another with {option} HOST:PORT"
            ))
        })
    }
}

/// The innermost error: what the operating system or the peer said.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The largest message taken from a server.
pub(crate) const MAX: usize = MAX_MESSAGE;

/// Standard output, written in whole pieces: as many lines as there are, then one flush.
#[derive(Debug)]
pub(crate) struct Output {
    out: io::Stdout,
    buffer: Vec<u8>,
    /// Whether to use colour.
    pub(crate) colour: bool,
}

impl Output {
    pub(crate) fn new() -> Self {
        let out = io::stdout();
        let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { out, buffer: Vec::new(), colour }
    }

    /// Where the next lines go.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Writes what has gathered. False when the reader has gone, as `head` does: then there is nothing more to do.
    pub(crate) fn flush(&mut self) -> bool {
        let mut out = self.out.lock();
        let written = out.write_all(&self.buffer).and_then(|()| out.flush());
        self.buffer.clear();
        written.is_ok()
    }
}
