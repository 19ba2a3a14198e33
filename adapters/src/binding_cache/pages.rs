//! All pages of `/internal/v5/syslog_drain_urls` (contract: syslog drains §5.1).

use serde::Deserialize;

use crate::bindings::wire::{Row, no_sense};
use crate::fetch::Service;

/// Pages in one look, and bytes of them. A Cloud Controller that says more is not believed.
const MAX_PAGES: usize = 10_000;
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// One answer.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Page {
    results: Option<Vec<Row>>,
    next_id: Option<u64>,
}

/// Reads all rows.
///
/// # Errors
/// An answer does not come, makes no sense, or would be followed by the same ones again.
pub(super) async fn read(service: &mut Service, batch_size: usize) -> Result<Vec<Row>, String> {
    let (mut rows, mut bytes, mut next) = (Vec::new(), 0, 0);
    for _ in 0..MAX_PAGES {
        let path = format!("/internal/v5/syslog_drain_urls?batch_size={batch_size}&next_id={next}");
        let body = service.get(&path).await.map_err(|error| error.to_string())?;
        bytes += body.len();
        if bytes > MAX_BYTES {
            return Err(format!("all answers together have more than {MAX_BYTES} bytes"));
        }
        let page: Page = serde_json::from_slice(&body).map_err(|error| no_sense(&error))?;
        rows.extend(page.results.into_iter().flatten());
        match page.next_id.unwrap_or_default() {
            0 => return Ok(rows),
            same if same <= next => return Err(format!("next_id goes from {next} to {same}, and should grow")),
            more => next = more,
        }
    }
    Err(format!("there are more than {MAX_PAGES} pages"))
}
