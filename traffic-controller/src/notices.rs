//! What a traffic controller says in the pipeline itself: that it has cut a consumer (contract: traffic controller v1 §3.1).
//!
//! What enters: who was cut. What leaves: events of the source `traffic_controller`, when somebody takes them. As many wait as are bounded
//! here; the counter of slow consumers counts all.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use proto::v2;
use tokio::sync::Notify;

/// Events that wait to be taken.
const MAX_WAITING: usize = 256;

/// The longest line of an event.
const MAX_LINE: usize = 1024;

/// Events until they are taken.
#[derive(Default)]
pub(crate) struct Notices {
    /// Held to put or to take.
    waiting: Mutex<Vec<v2::Envelope>>,
    news: Notify,
}

/// Who reads over WebSocket.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) remote: Option<SocketAddr>,
    /// The `X-Forwarded-For` headers, joined.
    pub(crate) forwarded_for: String,
    /// With its query.
    pub(crate) path: String,
}

impl Reader {
    /// Of a request.
    pub(crate) fn of<B>(request: &http::Request<B>) -> Self {
        let values = request.headers().get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        Self {
            remote: request.extensions().get::<transport::ConnInfo>().map(|info| info.remote_addr),
            forwarded_for: values.collect::<Vec<_>>().join(", "),
            path: request.uri().path_and_query().map_or_else(String::new, ToString::to_string),
        }
    }
}

impl Notices {
    /// Says that `reader` was cut.
    pub(crate) fn slow_consumer(&self, reader: &Reader) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let event = slow_consumer(reader).at(i64::try_from(now.as_nanos()).unwrap_or(i64::MAX));
        let mut waiting = self.waiting.lock();
        if waiting.len() < MAX_WAITING {
            waiting.push(event);
            self.news.notify_one();
        }
    }

    /// Takes what waits.
    pub(crate) fn take(&self) -> Vec<v2::Envelope> {
        std::mem::take(&mut self.waiting.lock())
    }

    /// Waits until something does.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }
}

fn slow_consumer(reader: &Reader) -> v2::Envelope {
    let line = |text: &str| text.chars().take(MAX_LINE).collect::<String>();
    let remote = reader.remote.map_or_else(String::new, |remote| remote.to_string());
    let body = format!(
        "Remote Address: {remote}\nX-Forwarded-For: {}\nPath: {}\n\n\
         The consumer took nothing for longer than it may, and its connection was closed. It can connect again; more readers of the \
         same subscription id share the work.",
        line(&reader.forwarded_for),
        line(&reader.path),
    );
    v2::Envelope::event("traffic_controller", "Traffic Controller has disconnected slow consumer", body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_who_was_cut_and_as_many_wait_as_may() {
        let reader = Reader {
            remote: Some("127.0.0.1:5".parse().unwrap()),
            forwarded_for: "10.0.0.1, 10.0.0.2".to_owned(),
            path: format!("/firehose/a?{}", "x".repeat(5000)),
        };
        let notices = Notices::default();
        (0..MAX_WAITING + 1).for_each(|_| notices.slow_consumer(&reader));
        let taken = notices.take();
        assert_eq!((taken.len(), notices.take().len()), (MAX_WAITING, 0));
        let Some(v2::envelope::Message::Event(event)) = &taken[0].message else { panic!("{:?}", taken[0]) };
        assert_eq!(taken[0].source_id, "traffic_controller");
        assert_eq!(event.title, "Traffic Controller has disconnected slow consumer");
        let lines: Vec<_> = event.body.lines().collect();
        assert_eq!(lines[..2], ["Remote Address: 127.0.0.1:5", "X-Forwarded-For: 10.0.0.1, 10.0.0.2"]);
        assert_eq!((lines[2].len(), lines[3]), ("Path: ".len() + MAX_LINE, ""));
    }
}
