//! What a cache node can be told of the others.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use transport::{Address, duration_text};

/// Nodes of a cluster, at most.
const MAX_NODES: usize = 256;

/// Where envelopes are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// Where they arrive.
    #[default]
    Arrival,
    /// At the node that owns their source, by jump hash, as with the original.
    Jump,
}

/// A `cluster` table: `[log_cache.cluster]`, `[doppler.cache_cluster]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// `"arrival"`, or `"jump"` beside other nodes.
    pub placement: Placement,
    /// All nodes by their log-cache gRPC ports, this one too, in the same order everywhere; at most 256.
    pub nodes: Vec<Address>,
    /// Which of them this one is, from 0.
    pub node_index: Option<usize>,
    /// Envelopes that may wait for a node before its loudest source loses its oldest; 10 000.
    pub ring_envelopes: NonZeroUsize,
    /// Bytes kept alive that may; 16 MiB.
    pub ring_bytes: NonZeroUsize,
    /// Envelopes in one message to a node, at most; 100.
    pub batch_envelopes: NonZeroUsize,
    /// How long an envelope waits for others; `"250ms"`.
    #[serde(with = "duration_text")]
    pub batch_age: Duration,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        let some = |value| NonZeroUsize::new(value).expect("not zero");
        Self {
            placement: Placement::Arrival,
            nodes: Vec::new(),
            node_index: None,
            ring_envelopes: some(10_000),
            ring_bytes: some(16 * 1024 * 1024),
            batch_envelopes: some(100),
            batch_age: Duration::from_millis(250),
        }
    }
}

/// Why a node cannot be one of such a cluster. `table` is the configuration table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// A list that nobody looks at.
    #[error(
        "{table}.nodes: with placement = \"arrival\" nobody would be asked; set placement = \"jump\", or leave nodes out"
    )]
    Unused {
        /// The configuration table.
        table: &'static str,
    },
    /// None, or more than a list may have.
    #[error("{table}.nodes: {count} nodes; name 1 to {MAX_NODES}, this one too, in the same order as all others do")]
    Count {
        /// The configuration table.
        table: &'static str,
        /// How many there are.
        count: usize,
    },
    /// A node that is there twice.
    #[error("{table}.nodes: {node} is there more than once")]
    Twice {
        /// The configuration table.
        table: &'static str,
        /// The node.
        node: Address,
    },
    /// It does not say which one it is.
    #[error("{table}.node_index: say which of the {count} nodes this one is, from 0 to {}", count - 1)]
    Index {
        /// The configuration table.
        table: &'static str,
        /// How many nodes there are.
        count: usize,
    },
}

impl ClusterConfig {
    /// Whether the list is one that a node can be placed in.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, table: &'static str) -> Result<(), ClusterError> {
        let count = self.nodes.len();
        if self.placement == Placement::Arrival {
            return if count == 0 { Ok(()) } else { Err(ClusterError::Unused { table }) };
        }
        if !(1..=MAX_NODES).contains(&count) {
            return Err(ClusterError::Count { table, count });
        }
        let mut earlier = self.nodes.iter().enumerate();
        if let Some((_, node)) = earlier.find(|(at, node)| self.nodes[..*at].contains(node)) {
            return Err(ClusterError::Twice { table, node: node.clone() });
        }
        if self.node_index.is_none_or(|index| index >= count) {
            return Err(ClusterError::Index { table, count });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        let config: ClusterConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check("log_cache.cluster").map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_of_nodes_names_each_once_and_this_one() {
        assert_eq!(check(""), Ok(()));
        assert_eq!(check("placement = \"jump\"\nnodes = [\"a:1\", \"b:1\"]\nnode_index = 1"), Ok(()));
        for (text, expected) in [
            ("nodes = [\"a:1\"]", "nodes: with placement = \"arrival\" nobody would be asked"),
            ("placement = \"jump\"", "nodes: 0 nodes; name 1 to 256"),
            ("placement = \"jump\"\nnodes = [\"a:1\", \"a:1\"]\nnode_index = 1", "nodes: a:1 is there more than once"),
            (
                "placement = \"jump\"\nnodes = [\"a:1\", \"b:1\"]",
                "node_index: say which of the 2 nodes this one is, from 0 to 1",
            ),
            ("placement = \"jump\"\nnodes = [\"a:1\"]\nnode_index = 1", "node_index: say which of the 1 nodes"),
            ("placement = \"hash\"", "`arrival` or `jump`"),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn the_default_survives_a_round_trip() {
        let text = toml::to_string(&ClusterConfig::default()).unwrap();
        assert_eq!(toml::from_str::<ClusterConfig>(&text).unwrap(), ClusterConfig::default());
    }
}
