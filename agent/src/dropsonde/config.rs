//! What the dropsonde front can be told.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

/// The `[agent.dropsonde]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DropsondeConfig {
    /// Whether to listen; true.
    pub enabled: bool,
    /// Where to listen, over UDP; 127.0.0.1:3457. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// Bytes that the kernel is asked to hold for the socket; 4 MiB. It may grant less, and says so in the log.
    pub receive_buffer_bytes: NonZeroUsize,
}

impl Default for DropsondeConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: (Ipv4Addr::LOCALHOST, 3457).into(),
            receive_buffer_bytes: NonZeroUsize::new(4 * 1024 * 1024).expect("not zero"),
        }
    }
}
