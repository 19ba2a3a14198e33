//! `GET /`: one plain page that says what runs where and what to try.
//!
//! What enters: the roles, as `hydrant` knows them. What leaves: one self-contained HTML document, rendered once. It loads nothing,
//! runs no script and repeats nothing that a client sent.

use std::fmt::{Display, Write};

use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};

const DOCUMENT: &str = include_str!("../assets/index.html");

/// Where the roles go in [`DOCUMENT`].
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

/// The page for `roles`, in their order. `local` says that this port answers on this machine only.
pub(crate) fn render(roles: &[RoleInfo], local: bool) -> String {
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
    DOCUMENT.replace(ROLES, rows.trim_start()).replace(FOOTER, footer)
}

/// The answer with a rendered page.
pub(crate) fn response(page: String) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
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
    fn the_page_asks_for_nothing_and_runs_nothing() {
        for forbidden in ["<script", "src=", "url(", "@import", "http-equiv", "<link", "<img", "onclick", "onload"] {
            assert_eq!(DOCUMENT.find(forbidden), None, "{forbidden}");
        }
    }
}
