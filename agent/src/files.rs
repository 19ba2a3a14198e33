//! Files of lines: logs of containers, and any others. Pure, but for what [`crate::ingress`] does with it.
//!
//! ```text
//! bytes of a file ─► lines ─► parts joined, traces kept together ─► envelopes
//! ```
//!
//! What enters: a file's bytes, from where they are to be read on. What leaves: envelopes of log lines, and where in the file what has not
//! been handed on begins: whoever reads keeps that, and goes on there. No line costs another one anything; one that is none of its format
//! is counted and lost alone.

mod checkpoint;
mod config;
mod cri;
mod decoder;
mod docker;
mod fuzz;
mod join;
mod labels;
mod metrics;
mod multiline;

pub use checkpoint::{Checkpoint, CheckpointError, Entry};
pub(crate) use config::MATCH;
pub use config::{FileReadingConfig, FilesConfig, Format, Pattern, PatternError, Preset, Start};
pub use cri::{CriError, CriLine, cri_line};
pub use decoder::{Decoder, FRAME_ENVELOPES, LineError, MAX_RAW, PerStream, Resume};
pub use docker::{Attrs, DockerError, DockerLine, docker_line};
pub use fuzz::{cri as fuzz_cri, docker as fuzz_docker};
pub use labels::Labels;
pub(crate) use labels::docker_id;
pub(crate) use metrics::FilesMetrics;
pub use multiline::MAX_LINES;
