//! `/v1/session`: a browser hands over its token once and gets a cookie in its place.
//!
//! What enters: `POST` with a token in `Authorization`, `DELETE` without. What leaves: the cookie `authorization`, which scripts cannot read
//! and which travels to this origin only; or its end. Nothing is kept here: the cookie is the token.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::header::{AUTHORIZATION, CACHE_CONTROL, SET_COOKIE};
use http::{HeaderValue, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use transport::ConnInfo;

use crate::auth::{Authorizer, Caller};
use crate::gateway;

/// The routes.
pub(crate) fn router(authorizer: Authorizer) -> Router {
    Router::new().route("/v1/session", post(begin).delete(end)).with_state(authorizer)
}

async fn begin(State(authorizer): State<Authorizer>, request: Request) -> Response {
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let known = authorizer.authenticate(&Caller::Http(request.headers())).await;
    match known {
        Ok(_) if shown.trim().is_empty() => {
            (StatusCode::BAD_REQUEST, "show a token: Authorization: Bearer TOKEN\n").into_response()
        }
        Ok(_) => answer(&utf8_percent_encode(shown, NON_ALPHANUMERIC).to_string(), "", is_encrypted(&request)),
        Err(denied) => gateway::refused(denied),
    }
}

async fn end(request: Request) -> Response {
    answer("", "; Max-Age=0", is_encrypted(&request))
}

fn is_encrypted(request: &Request) -> bool {
    request.extensions().get::<ConnInfo>().is_some_and(|info| info.tls)
}

fn answer(value: &str, age: &str, encrypted: bool) -> Response {
    let secure = if encrypted { "; Secure" } else { "" };
    let cookie = format!("authorization={value}; Path=/; HttpOnly; SameSite=Strict{secure}{age}");
    let mut cookie = HeaderValue::try_from(cookie).expect("escaped text is a header value");
    cookie.set_sensitive(true);
    (StatusCode::NO_CONTENT, [(SET_COOKIE, cookie), (CACHE_CONTROL, HeaderValue::from_static("no-store"))])
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_out_of_reach_of_scripts_and_other_sites() {
        let cookie = |encrypted| answer("bearer%20x", "", encrypted).headers()[SET_COOKIE].to_str().unwrap().to_owned();
        assert_eq!(cookie(false), "authorization=bearer%20x; Path=/; HttpOnly; SameSite=Strict");
        assert!(cookie(true).ends_with("; Secure"));
    }
}
