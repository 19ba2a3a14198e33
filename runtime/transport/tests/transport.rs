//! The public API over real sockets.

#[cfg(test)]
mod transport {
    mod channel;
    mod handshakes;
    mod http;
    mod listen;
    mod support;
}
