//! The public API over real sockets, and the log of a whole process.

#[cfg(test)]
mod telemetry {
    mod admin;
    mod logging;
}
