//! Why a request is not answered, as clients of a log cache know it (contract `log-cache.md` §2, status mapping).

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Serialize;
use tonic::{Code, Status};

/// Why a request is not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// No such path.
    #[error("Not Found")]
    NotFound,
    /// Neither GET nor a posted form.
    #[error("Method Not Allowed")]
    Method,
    /// A form that could not be read.
    #[error("the form could not be read")]
    Body,
    /// A parameter that cannot be parsed; the text is that of the original.
    #[error("{0}")]
    Parameter(String),
    /// Too many requests before this one.
    #[error("too many requests at once; try again")]
    Busy,
    /// The merged answer is larger than any reader takes.
    #[error("grpc: received message larger than max ({0} vs. {max})", max = super::merge::MAX_ANSWER)]
    TooLarge(usize),
    /// There is nobody to ask.
    #[error("no doppler is configured")]
    NoDoppler,
    /// What a doppler said, or that none could be asked.
    #[error("{}", .0.message())]
    Doppler(Status),
}

#[derive(Serialize)]
struct Body<'a> {
    code: i32,
    message: &'a str,
    details: [(); 0],
}

impl Refusal {
    /// True when fewer envelopes could be answered.
    pub(crate) fn is_too_large(&self) -> bool {
        self.code() == Code::ResourceExhausted
    }

    pub(super) fn code(&self) -> Code {
        match self {
            Self::NotFound => Code::NotFound,
            Self::Method => Code::Unimplemented,
            Self::Body | Self::Parameter(_) => Code::InvalidArgument,
            Self::TooLarge(_) => Code::ResourceExhausted,
            Self::Busy | Self::NoDoppler => Code::Unavailable,
            Self::Doppler(status) => match status.code() {
                // What our own client says of an answer over its limit.
                Code::OutOfRange => Code::ResourceExhausted,
                code => code,
            },
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = self.code();
        let status = match code {
            Code::InvalidArgument => StatusCode::BAD_REQUEST,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let body = Body { code: code.into(), message: &self.to_string(), details: [] };
        let mut body = serde_json::to_vec(&body).expect("a number and a text have a JSON form");
        body.push(b'\n');
        (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}
