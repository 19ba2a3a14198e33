//! The innermost cause of an error, for people.

use std::error::Error;

/// What is at the bottom of `error`: the words of the operating system, of the peer, or of our TLS.
///
/// Errors of gRPC wrap what happened several times, and each wrapping says less.
pub fn reason(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<tonic::Status>() {
        Some(status) if status.message().is_empty() => status.code().description().to_owned(),
        Some(status) => status.message().to_owned(),
        None => cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    #[test]
    fn the_innermost_error_speaks() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "nobody listens");
        assert_eq!(reason(&Status::from_error(Box::new(refused))), "nobody listens");
        assert_eq!(reason(&Status::unavailable("it is stopping")), "it is stopping");
        assert_eq!(reason(&Status::unavailable("")), "The service is currently unavailable");
    }
}
