//! The files that the page is made of, as they stand in this program.
//!
//! What enters: the name of a file, and the tag of what a browser has of it. What leaves: the file, or that it has not changed. The files
//! hold nothing of the pipeline: whoever asks gets them.

use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::firehose::not_found;

/// Keeps other sites from using the files in pages of theirs.
const SAME_ORIGIN: (HeaderName, &str) = (HeaderName::from_static("cross-origin-resource-policy"), "same-origin");

/// A file below `/assets/`.
pub(super) struct Asset {
    pub(super) name: &'static str,
    body: &'static [u8],
}

macro_rules! assets {
    ($($name:literal)*) => {
        &[$(Asset { name: $name, body: include_bytes!(concat!("../../assets/", $name)) }),*]
    };
}

/// All of them.
pub(super) const ASSETS: &[Asset] = assets! {
    "main.js" "ansi.js" "answer.js" "api.js" "back.js" "chart.js" "dom.js" "filter.js" "format.js" "keys.js" "level.js" "line.js" "list.js"
    "looks.js" "metrics.js" "model.js" "names.js" "offers.js" "permalink.js" "pipeline.js" "poll.js" "promql.js" "query.js" "rates.js"
    "row.js" "series.js" "session.js" "sources.js" "status.js" "store.js" "stream.js" "tables.js" "tail.js"
    "style.css" "log.css" "views.css" "icon.svg"
};

impl Asset {
    /// Whether it is a module of the page.
    pub(super) fn is_script(&self) -> bool {
        self.name.ends_with(".js")
    }

    fn content_type(&self) -> &'static str {
        match self.name.rsplit('.').next() {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            _ => "image/svg+xml",
        }
    }
}

/// A file and its tag, which is another one for another content.
#[derive(Clone, Copy)]
struct Tagged(&'static Asset, u64);

impl Tagged {
    fn of(asset: &'static Asset) -> Self {
        let hash = digest(&SHA256, asset.body);
        let start = hash.as_ref().first_chunk().expect("SHA-256 has 32 bytes");
        Self(asset, u64::from_be_bytes(*start))
    }

    fn tag(self) -> HeaderValue {
        let text = format!("\"{}\"", URL_SAFE_NO_PAD.encode(self.1.to_be_bytes()));
        HeaderValue::try_from(text).expect("base64 in quotes is a header")
    }
}

/// `GET /assets/{name}`.
pub(super) fn router() -> Router {
    let all: Vec<_> = ASSETS.iter().map(Tagged::of).collect();
    Router::new().route("/assets/{name}", get(asset)).with_state(all)
}

async fn asset(State(all): State<Vec<Tagged>>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    let Some(found) = all.into_iter().find(|tagged| tagged.0.name == name) else { return not_found().await };
    let tag = found.tag();
    let fixed = [(CACHE_CONTROL, "no-cache"), (X_CONTENT_TYPE_OPTIONS, "nosniff"), SAME_ORIGIN];
    if has(&headers, &tag) {
        return (StatusCode::NOT_MODIFIED, fixed, [(ETAG, tag)]).into_response();
    }
    (fixed, [(ETAG, tag)], [(CONTENT_TYPE, found.0.content_type())], found.0.body).into_response()
}

/// Whether `If-None-Match` names `tag` (RFC 9110 §13.1.2): weak tags are compared by what they hold.
fn has(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let named = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = named.flat_map(|value| value.split(',')).map(|named| named.trim().trim_start_matches("W/"));
    tags.any(|named| named == "*" || named.as_bytes() == tag.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn text(asset: &Asset) -> &'static str {
        std::str::from_utf8(asset.body).unwrap()
    }

    #[test]
    fn every_file_is_served_and_every_import_is_a_file() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
        let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
        let files = names.filter(|entry| entry.file_type().unwrap().is_file());
        let files: BTreeSet<_> = files.map(|entry| entry.file_name().into_string().unwrap()).collect();
        let mut served: BTreeSet<_> = ASSETS.iter().map(|asset| asset.name.to_owned()).collect();
        served.insert("index.html".to_owned());
        assert_eq!(files, served);
        for asset in ASSETS.iter().filter(|asset| asset.is_script()) {
            for line in text(asset).lines().filter_map(|line| line.split_once(" from \"./")) {
                let name = line.1.trim_end_matches("\";");
                assert!(ASSETS.iter().any(|other| other.name == name), "{} imports {name}", asset.name);
            }
        }
    }

    #[test]
    fn text_of_others_cannot_become_markup_or_code() {
        for asset in ASSETS.iter().filter(|asset| asset.is_script()) {
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "\"style\"",
                "http:",
            ] {
                let allowed = forbidden == "http:" && asset.name == "dom.js"; // the name of SVG's vocabulary
                assert!(allowed || !text(asset).contains(forbidden), "{} says {forbidden}", asset.name);
            }
        }
        for asset in ASSETS.iter().filter(|asset| asset.name.ends_with(".css")) {
            assert!(
                !text(asset).contains("url(") && !text(asset).contains("@import"),
                "{} loads something",
                asset.name
            );
        }
    }

    #[test]
    fn tags_are_of_the_content_and_are_found_in_lists() {
        let [one, other] = [Tagged::of(&ASSETS[0]), Tagged::of(&ASSETS[1])].map(Tagged::tag);
        assert_ne!(one, other);
        let asks = |value: &str| {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_str(value).unwrap())]);
            has(&headers, &one)
        };
        let known = one.to_str().unwrap();
        assert!(asks(known) && asks("*") && asks(&format!("\"x\", W/{known}")));
        assert!(!asks("\"x\"") && !asks("") && !has(&HeaderMap::new(), &one));
    }
}
