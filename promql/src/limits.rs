//! How much one query may cost.

/// Bounds of one query; each is the largest value that is still let through. A deadline is the caller's, by way of `cancelled`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Length of the query text, in bytes. Default: 4096.
    pub query_bytes: usize,
    /// Brackets within brackets; operators nest eight times as deep. What is let through by default needs less than 512 KiB of stack.
    /// Default: 32.
    pub depth: usize,
    /// Steps of one range query. Default: 11,000.
    pub points: usize,
    /// Samples held at one time while a query is evaluated: those of results, of subqueries, and of the window at hand; not those the
    /// caller has fetched. Also the steps of one subquery. Default: 1,000,000.
    pub samples: usize,
    /// Length of one regular expression, in bytes. Default: 256.
    pub regex_bytes: usize,
    /// Memory of intermediate results and of the answer, in bytes. Default: 64 MiB.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { query_bytes: 4096, depth: 32, points: 11_000, samples: 1_000_000, regex_bytes: 256, bytes: 64 << 20 }
    }
}
