//! What is answered, and what is said when nothing can be.

use std::fmt::{self, Write};

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode};
use promql::{EvalError, Value, json};
use tonic::Status;
use transport::Address;

use crate::metrics::Outcome;
use crate::recent::{MAX_ANSWER, PARTIAL, Refusal};

/// As the original's gateway has them.
const HEADERS: [(&str, &str); 2] =
    [("content-type", "application/json"), ("grpc-metadata-content-type", "application/grpc")];

/// One JSON document, and who could not be asked.
#[derive(Debug)]
pub(super) struct Answer {
    body: String,
    missing: Vec<Address>,
}

/// Why a request is not answered.
#[derive(Debug)]
pub(super) enum Failure {
    /// Whoever may not read something is told that it is not there (contract `log-cache.md` §6).
    Denied,
    /// The request.
    Refusal(Refusal),
    /// The query or a parameter, in words.
    Bad(String),
    /// The same, where the original's gateway would be asked: it has another status for it (contract `log-cache.md` §2).
    BadAtGateway(String),
    /// What came of evaluating it.
    Evaluation(EvalError),
    /// More than may be fetched for it.
    TooMuch(String),
    /// The answer is larger than any reader takes.
    TooLarge,
    /// It took too long.
    Timeout,
    /// Nobody could be asked.
    Unavailable(String),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}

impl Answer {
    /// The result of a query.
    ///
    /// # Errors
    /// [`Failure::TooLarge`].
    pub(super) fn of(value: &Value, missing: Vec<Address>) -> Result<Self, Failure> {
        let mut out = Bounded(String::new());
        json::write_success(&mut out, value).map_err(|_| Failure::TooLarge)?;
        Ok(Self::with_warnings(out.0, missing, &[]))
    }

    /// Data of another kind, as JSON.
    pub(super) fn data(data: &serde_json::Value, missing: Vec<Address>, warnings: &[String]) -> Self {
        Self::with_warnings(format!(r#"{{"status":"success","data":{data}}}"#), missing, warnings)
    }

    pub(super) fn buildinfo(version: &str) -> Self {
        let data = serde_json::json!({
            "version": version, "revision": "", "branch": "", "buildUser": "", "buildDate": "", "goVersion": "",
        });
        Self::data(&data, Vec::new(), &[])
    }

    fn with_warnings(mut body: String, missing: Vec<Address>, warnings: &[String]) -> Self {
        let missed = missing.iter().map(|address| format!("the cache of doppler {address} could not be asked"));
        let warnings: Vec<String> = missed.chain(warnings.iter().cloned()).collect();
        if !warnings.is_empty() {
            body.pop();
            let warnings = serde_json::Value::from(warnings);
            write!(body, r#","warnings":{warnings}}}"#).expect("writing to memory");
        }
        Self { body, missing }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = (HEADERS, self.body + "\n").into_response();
        if !self.missing.is_empty() {
            let missing: Vec<String> = self.missing.iter().map(ToString::to_string).collect();
            let missing = HeaderValue::try_from(missing.join(", ")).expect("addresses are ASCII without controls");
            response.headers_mut().insert(HeaderName::from_static(PARTIAL), missing);
        }
        response
    }
}

/// Text no longer than any reader takes.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_ANSWER {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

impl Failure {
    /// As the original's gateway tells it, which does not know who asks.
    pub(super) fn at_gateway(self) -> Self {
        match self {
            Self::Bad(what) => Self::BadAtGateway(what),
            Self::Evaluation(error @ EvalError::Kind(_)) => Self::BadAtGateway(error.to_string()),
            other => other,
        }
    }

    /// In words, with the kind that clients know and a status that they show the words of: others than 400 and 500 are opaque to some
    /// (contract `log-cache.md` §10).
    fn told(&self) -> (StatusCode, &'static str, String) {
        let too_large =
            || format!("the answer is larger than {MAX_ANSWER} bytes; ask for fewer series or a longer step");
        match self {
            Self::Bad(what) => (StatusCode::BAD_REQUEST, "bad_data", what.clone()),
            Self::BadAtGateway(what) => (StatusCode::INTERNAL_SERVER_ERROR, "internal", what.clone()),
            Self::Evaluation(error @ EvalError::Kind(_)) => (StatusCode::BAD_REQUEST, "bad_data", error.to_string()),
            Self::Evaluation(error) => (StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
            Self::TooMuch(what) => (StatusCode::INTERNAL_SERVER_ERROR, "internal", what.clone()),
            Self::TooLarge => (StatusCode::TOO_MANY_REQUESTS, "internal", too_large()),
            Self::Timeout => {
                (StatusCode::GATEWAY_TIMEOUT, "timeout", "query timed out in expression evaluation".to_owned())
            }
            Self::Unavailable(what) => (StatusCode::SERVICE_UNAVAILABLE, "internal", what.clone()),
            Self::Denied | Self::Refusal(_) => (StatusCode::NOT_FOUND, "not_found", "not found".to_owned()),
        }
    }
}

impl From<&Failure> for Outcome {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::Timeout => Self::TimedOut,
            Failure::Unavailable(_) => Self::Failed,
            _ => Self::Refused,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Denied => StatusCode::NOT_FOUND.into_response(),
            Self::Refusal(refusal) => refusal.into_response(),
            other => {
                let (status, kind, what) = other.told();
                (status, [HEADERS[0]], json::error(kind, &what) + "\n").into_response()
            }
        }
    }
}

impl From<Failure> for Status {
    /// What is wrong with a query is UNKNOWN (contract `log-cache.md` §2, status mapping).
    fn from(failure: Failure) -> Self {
        let (_, _, what) = failure.told();
        match failure {
            Failure::Bad(_) | Failure::BadAtGateway(_) | Failure::Evaluation(_) | Failure::TooMuch(_) => {
                Self::unknown(what)
            }
            Failure::TooLarge => Self::resource_exhausted(what),
            Failure::Timeout => Self::deadline_exceeded(what),
            Failure::Unavailable(_) => Self::unavailable(what),
            Failure::Denied | Failure::Refusal(_) => Self::not_found(what),
        }
    }
}
