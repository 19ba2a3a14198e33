//! Timers named `http`: requests by app, with labels of bounded kinds only (contract: syslog drains §8.1).
//!
//! An envelope enters, its timer read; up to three observations leave. Never a label of what a client may choose freely: no path,
//! address, user agent or request id.

use super::Type;
use crate::prometheus::labels::Builder;
use crate::prometheus::names::Naming;
use crate::read::{Envelope, known_method};

/// The name of the timers that HTTP requests are.
pub(super) const NAME: &[u8] = b"http";

/// How requests become series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Http {
    /// [`Naming::Plain`]: a series for each instance of an app too.
    pub by_instance: bool,
    /// [`Naming::FirehoseExporter`]: the label `node_index`, which tells several exporters apart. 0.
    pub node_index: u32,
}

/// One series that requests make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) name: &'static str,
    pub(super) of: Type,
    pub(super) help: &'static str,
    tags: &'static [&'static str],
    by_status: bool,
}

/// Tags that name an app.
const APP: [&str; 10] = [
    "app_id",
    "app_name",
    "space_id",
    "space_name",
    "organization_id",
    "organization_name",
    "process_id",
    "process_type",
    // Here and below only with instances.
    "process_instance_id",
    "instance_id",
];

/// What the firehose_exporter rolls up besides.
const FIREHOSE: [&str; 11] = [
    "app_id",
    "app_name",
    "space_id",
    "space_name",
    "organization_id",
    "organization_name",
    "process_id",
    "process_type",
    "process_instance_id",
    "instance_id",
    "method",
];

const PLAIN_FORMS: [Form; 2] = [
    Form {
        name: "http_requests_total",
        of: Type::Counter,
        help: "HTTP requests that were answered.",
        tags: &APP,
        by_status: true,
    },
    Form {
        name: "http_request_duration_seconds",
        of: Type::Histogram,
        help: "From the start of an HTTP request to the end of its answer.",
        tags: &APP,
        by_status: false,
    },
];

const FIREHOSE_FORMS: [Form; 3] = [
    Form { name: "http_total", of: Type::Counter, help: "HTTP requests.", tags: &FIREHOSE, by_status: true },
    Form {
        name: "http_duration_seconds",
        of: Type::Histogram,
        help: "From the start of an HTTP request to the end of its answer.",
        tags: &FIREHOSE,
        by_status: false,
    },
    Form {
        name: "http_response_size_bytes",
        of: Type::Summary,
        help: "Lengths of answers to HTTP requests.",
        tags: &FIREHOSE,
        by_status: true,
    },
];

/// The series that an HTTP request makes.
pub(super) fn forms(naming: Naming) -> &'static [Form] {
    match naming {
        Naming::Plain => &PLAIN_FORMS,
        Naming::FirehoseExporter { .. } => &FIREHOSE_FORMS,
    }
}

/// True for a request that another timer reports too: what the router saw as a client of an app, and, as the firehose_exporter has
/// it, what names its app by `source_id` only.
pub(super) fn is_repeated(envelope: &Envelope<'_>, naming: Naming) -> bool {
    let client = envelope.tag("peer_type").eq_ignore_ascii_case(b"client");
    match naming {
        Naming::Plain => client,
        Naming::FirehoseExporter { .. } => {
            (client && envelope.source_id == b"gorouter")
                || (is_guid(envelope.source_id) && !has_tag(envelope, b"app_id"))
        }
    }
}

fn has_tag(envelope: &Envelope<'_>, key: &[u8]) -> bool {
    envelope.tags().any(|(found, _)| found == key)
}

/// 8-4-4-4-12 hexadecimal digits.
fn is_guid(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(i, byte)| match i {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// The parts of a request that labels are made of.
#[derive(Debug)]
pub(super) struct Request<'e, 'a> {
    envelope: &'e Envelope<'a>,
    naming: Naming,
    status: &'e [u8],
    scheme: &'e [u8],
    host: &'e [u8],
    method: &'e [u8],
    http: Http,
    node_index: &'e str,
}

impl<'e, 'a> Request<'e, 'a> {
    pub(super) fn read(envelope: &'e Envelope<'a>, naming: Naming, http: Http, node_index: &'e str) -> Self {
        let status = envelope.tag("status_code");
        let (scheme, host) = match naming {
            Naming::Plain => (&b""[..], &b""[..]),
            Naming::FirehoseExporter { .. } => scheme_and_host(envelope.tag("uri")),
        };
        let status = if naming == Naming::Plain { class(status) } else { status };
        let method = known_method(envelope.tag("method"));
        Self { envelope, naming, status, scheme, host, method, http, node_index }
    }

    /// What tells its series from others of `form`: calls `visit` with each part.
    pub(super) fn identity(&self, form: &Form, mut visit: impl FnMut(&[u8])) {
        visit(self.envelope.source_id);
        for (name, value) in self.labels(form) {
            visit(name.as_bytes());
            visit(value);
        }
    }

    /// Adds its labels.
    pub(super) fn put_labels(&self, form: &Form, into: &mut Builder<'e>) {
        into.own("source_id", self.envelope.source_id);
        for (name, value) in self.labels(form) {
            into.own(name, value);
            if let Some((copy, _)) = self.naming.copies().iter().find(|(_, of)| *of == name) {
                into.own(copy, value);
            }
        }
    }

    fn labels(&self, form: &Form) -> impl Iterator<Item = (&'static str, &'e [u8])> {
        let plain = self.naming == Naming::Plain;
        let tags = if plain && !self.http.by_instance { &form.tags[..APP.len() - 2] } else { form.tags };
        let of_tags = tags.iter().map(move |name| {
            let value = match *name {
                "method" => self.method,
                "instance_id" if plain => self.envelope.instance_id,
                name => self.envelope.tag(name),
            };
            (*name, value)
        });
        let status = if plain { "status_class" } else { "status_code" };
        let of_app = !plain && !self.envelope.tag("app_id").is_empty();
        let others = [
            (status, if form.by_status { self.status } else { b"" }),
            ("scheme", self.scheme),
            ("host", self.host),
            ("origin", if of_app { b"cf_app" } else { b"" }),
            ("node_index", if plain { b"" } else { self.node_index.as_bytes() }),
        ];
        of_tags.chain(others).filter(|(_, value)| !value.is_empty())
    }
}

/// `2xx` for 200 to 299, and so on; `other` for what is no status.
fn class(status: &[u8]) -> &'static [u8] {
    match status {
        [b'1', _, _] => b"1xx",
        [b'2', _, _] => b"2xx",
        [b'3', _, _] => b"3xx",
        [b'4', _, _] => b"4xx",
        [b'5', _, _] => b"5xx",
        _ => b"other",
    }
}

/// Of an absolute URI; nothing of a path.
fn scheme_and_host(uri: &[u8]) -> (&[u8], &[u8]) {
    let Some(at) = uri.windows(3).position(|window| window == b"://") else { return (b"", b"") };
    let (scheme, rest) = (&uri[..at], &uri[at + 3..]);
    let authority = rest.split(|byte| b"/?#".contains(byte)).next().unwrap_or_default();
    // Without whatever names a user.
    let host = authority.rsplit(|byte| *byte == b'@').next().unwrap_or_default();
    if scheme.iter().all(u8::is_ascii_alphanumeric) { (scheme, host) } else { (b"", b"") }
}

/// The tag `content_length` as a number.
#[expect(clippy::cast_precision_loss, reason = "no answer is longer than 2^52 bytes")]
pub(super) fn content_length(envelope: &Envelope<'_>) -> Option<f64> {
    let length: u64 = std::str::from_utf8(envelope.tag("content_length")).ok()?.parse().ok()?;
    Some(length as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_uri_only_scheme_and_host_are_kept() {
        for (uri, scheme, host) in [
            ("https://shop.example/cart?id=7", "https", "shop.example"),
            ("http://shop.example:8080?x", "http", "shop.example:8080"),
            ("https://user:secret@shop.example/", "https", "shop.example"),
            ("/cart?next=http://evil", "", ""),
            ("/cart", "", ""),
            ("", "", ""),
        ] {
            assert_eq!(scheme_and_host(uri.as_bytes()), (scheme.as_bytes(), host.as_bytes()), "{uri}");
        }
    }

    #[test]
    fn a_guid_has_its_dashes_in_their_places() {
        assert!(is_guid(b"c0ffee00-1111-2222-3333-444455556666"));
        for other in [
            "",
            "c0ffee00-1111-2222-3333-44445555666",
            "c0ffee00-1111-2222-3333-44445555666g",
            "c0ffee0001111-2222-3333-444455556666",
        ] {
            assert!(!is_guid(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn methods_and_classes_are_few() {
        assert_eq!(
            (known_method(b"get"), known_method(b"BREW"), known_method(b"")),
            (&b"GET"[..], &b"OTHER"[..], &b""[..])
        );
        assert_eq!(
            (class(b"200"), class(b"599"), class(b"20"), class(b"999")),
            (&b"2xx"[..], &b"5xx"[..], &b"other"[..], &b"other"[..])
        );
    }
}
