//! `GET /`: the live page, and the files that it is made of ([`assets`]).
//!
//! What enters: the roles, as `hydrant` knows them. What leaves: one HTML document, rendered once, whose modules ask this port for
//! everything else as any client would, with the same rights. It repeats nothing that a client sent.

use std::fmt::{Display, Write};

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};

mod assets;

const DOCUMENT: &str = include_str!("../assets/index.html");

/// What the page may do: load its own files, and talk to where it came from. No text becomes markup or code, whatever a script does.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// Where the modules go in [`DOCUMENT`], to be loaded at once instead of one after the other.
const MODULES: &str = "<!-- modules -->";

/// Where the roles go in it.
const ROLES: &str = "<!-- roles -->";

/// Where the footer goes in it.
const FOOTER: &str = "<!-- footer -->";

/// One line of the page: a role of this process or a port of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleInfo {
    /// The role, such as `doppler`.
    pub name: String,
    /// What is there, for people, such as `gRPC ingress and egress`.
    pub what: String,
    /// Where it is, such as `gRPC 127.0.0.1:8082`. Several, with `, ` between them, stand below each other.
    pub address: String,
}

impl RoleInfo {
    /// A line of the page.
    pub fn new(name: impl Into<String>, what: impl Into<String>, address: &impl Display) -> Self {
        Self { name: name.into(), what: what.into(), address: address.to_string() }
    }
}

/// `GET /` and `GET /assets/{name}`. The page shows `roles`, in their order; `local` says that this port answers on this machine only.
pub(crate) fn router(roles: &[RoleInfo], local: bool) -> Router {
    let page = render(roles, local);
    assets::router().route("/", get(async move || response(page.clone())))
}

fn render(roles: &[RoleInfo], local: bool) -> String {
    let rows = roles.iter().fold(String::new(), |mut rows, role| {
        let (name, what) = (escaped(&role.name), escaped(&role.what));
        let addresses: String =
            role.address.split(", ").map(|address| format!("<code>{}</code>", escaped(address))).collect();
        write!(rows, "\n        <tr><th scope=\"row\">{name}</th><td>{what}</td><td>{addresses}</td></tr>")
            .expect("a String takes everything");
        rows
    });
    let footer = if local {
        "This port answers on this machine only."
    } else {
        "What flows through here is shown to those who may read it."
    };
    let modules: Vec<_> = assets::ASSETS.iter().filter(|asset| asset.is_script()).map(|asset| asset.name).collect();
    let modules = modules.iter().fold(String::new(), |mut links, name| {
        write!(links, "\n    <link rel=\"modulepreload\" href=\"/assets/{name}\">").expect("a String takes everything");
        links
    });
    DOCUMENT.replace(MODULES, modules.trim_start()).replace(ROLES, rows.trim_start()).replace(FOOTER, footer)
}

/// The answer with a rendered page.
fn response(page: String) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, page).into_response()
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_stand_in_the_page_in_order_and_escaped() {
        let roles = [
            RoleInfo::new("agent", "<b>\"statsd\" & 'gRPC'</b>", &"127.0.0.1:3458"),
            RoleInfo::new("doppler", "", &"b"),
        ];
        let page = render(&roles, true);
        assert!(page.contains("<td>&lt;b&gt;&quot;statsd&quot; &amp; &#39;gRPC&#39;&lt;/b&gt;</td>"), "{page}");
        assert!(!page.contains(ROLES) && !page.contains(FOOTER));
        assert!(page.contains("on this machine only") && !render(&roles, false).contains("on this machine only"));
        assert!(page.find(">agent<").unwrap() < page.find(">doppler<").unwrap());
    }

    #[test]
    fn the_page_has_its_own_files_and_nothing_inline() {
        let page = render(&[], true);
        for forbidden in
            ["<style", "style=", "onclick", "onload", "http-equiv", "://", "<img", "<iframe", "<form action"]
        {
            assert_eq!(page.find(forbidden), None, "{forbidden}");
        }
        for script in page.split("<script").skip(1) {
            assert!(script.starts_with(" type=\"module\" src=\"/assets/main.js\"></script>"), "{script}");
        }
        assert!(page.contains("<link rel=\"modulepreload\" href=\"/assets/tail.js\">") && !page.contains(MODULES));
        for file in page.split("\"/assets/").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(assets::ASSETS.iter().any(|asset| asset.name == file), "{file}");
        }
    }
}
