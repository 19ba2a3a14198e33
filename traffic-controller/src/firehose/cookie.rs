//! `/set-cookie`: turns a form into a cookie, for pages of the same system that read the firehose with it (contract: traffic controller v1
//! §2.5).

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_TYPE,
    HeaderName, ORIGIN, SET_COOKIE,
};
use http::{HeaderValue, StatusCode};
use tokio::time::timeout;

/// The largest form.
const MAX_FORM: usize = 4096;

/// How long a form may take to come.
const BODY_DEADLINE: Duration = Duration::from_secs(5);

/// The answer; `domain` is the cookie's, if it has one.
pub(super) async fn answer(request: Request, domain: Option<&str>) -> Response {
    let origin = request.headers().get(ORIGIN).cloned().unwrap_or(HeaderValue::from_static(""));
    let allowed: [(HeaderName, HeaderValue); 3] = [
        (ACCESS_CONTROL_ALLOW_ORIGIN, origin),
        (ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")),
        (ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("Content-Type")),
    ];
    let query = request.uri().query().unwrap_or_default().to_owned();
    let form = form(request).await;
    let cookie = form.and_then(|form| cookie(&[form.as_str(), query.as_str()], domain));
    match cookie {
        Some(cookie) => (StatusCode::OK, allowed, [(SET_COOKIE, cookie)]).into_response(),
        None => (StatusCode::BAD_REQUEST, allowed).into_response(),
    }
}

/// The body, if it is a form; `None` when it is too large or no text.
async fn form(request: Request<Body>) -> Option<String> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_form = content_type.trim_start().to_ascii_lowercase().starts_with("application/x-www-form-urlencoded");
    let bytes = timeout(BODY_DEADLINE, to_bytes(request.into_body(), MAX_FORM)).await.ok()?.ok()?;
    if is_form { String::from_utf8(bytes.into()).ok() } else { Some(String::new()) }
}

/// The cookie that the first `CookieName` and `CookieValue` of `forms` make.
fn cookie(forms: &[&str], domain: Option<&str>) -> Option<HeaderValue> {
    let first = |wanted: &str| {
        let pairs = forms.iter().flat_map(|form| form.split('&')).filter_map(|pair| pair.split_once('='));
        let mut values = pairs.filter(|(key, _)| *key == wanted).map(|(_, value)| value.replace('+', " "));
        let value = values.next()?;
        percent_encoding::percent_decode_str(&value)
            .decode_utf8()
            .ok()
            .map(String::from)
            .filter(|value| !value.is_empty())
    };
    let (name, value) = (first("CookieName")?, first("CookieValue")?);
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    // Bytes that a cookie's value cannot have are left out, as the original does.
    let value: String =
        value.chars().filter(|char| matches!(char, ' '..='~') && !matches!(char, '"' | ';' | '\\')).collect();
    if !name.bytes().all(is_token) || value.is_empty() {
        return None;
    }
    let quote = if value.contains([' ', ',']) { "\"" } else { "" };
    let domain = domain.map(|domain| format!("; Domain={domain}")).unwrap_or_default();
    HeaderValue::try_from(format!("{name}={quote}{value}{quote}{domain}; HttpOnly; Secure; SameSite=Lax")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(form: &str) -> Option<String> {
        cookie(&[form, ""], Some("doppler.example")).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn section_2_5_a_name_and_a_value_make_a_cookie() {
        let cookie = "authorization=bearer%20x; Domain=doppler.example; HttpOnly; Secure; SameSite=Lax";
        assert_eq!(made("CookieName=authorization&CookieValue=bearer%2520x").as_deref(), Some(cookie));
        assert_eq!(
            super::cookie(&["", "CookieName=a&CookieValue=b"], None).unwrap(),
            "a=b; HttpOnly; Secure; SameSite=Lax"
        );
        for missing in ["", "CookieName=a", "CookieName=&CookieValue=b", "CookieName=a&CookieValue="] {
            assert_eq!(made(missing), None, "{missing}");
        }
    }

    #[test]
    fn nothing_of_it_becomes_another_attribute_or_header() {
        let cookie = made("CookieName=a&CookieValue=b%3B+Domain%3Devil%0d%0aX%3A1").unwrap();
        assert_eq!(cookie, "a=\"b Domain=evilX:1\"; Domain=doppler.example; HttpOnly; Secure; SameSite=Lax");
        for name in ["a%3Bb", "a%3Db", "a+b", "%C3%A4"] {
            assert_eq!(made(&format!("CookieName={name}&CookieValue=b")), None, "{name}");
        }
    }
}
