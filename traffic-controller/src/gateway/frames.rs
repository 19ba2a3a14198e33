//! A step as a WebSocket message: one JSON object, whose first key tells what it is. Pure.

use bytes::Bytes;
use proto::hydrant::v1;
use proto::json;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::reader::{Step, json_room};
use crate::websocket::feed::Frame;

/// The message of `step`, after which the reader stands at `place`; and how many envelopes could not be read.
pub(super) fn frame(step: &Step, place: Option<&str>) -> (Frame, u64) {
    let (text, envelopes, refused) = match step {
        Step::Batch(parts, counted) => {
            let mut text = Vec::with_capacity(json_room(parts));
            let refused = json::put_batch(&mut text, parts.iter().flat_map(|part| part.envelopes()));
            put_place(&mut text, place);
            (text, counted.saturating_sub(refused), refused)
        }
        Step::Gap(gap, stage) => (json!({ "gap": gap_json(gap, stage) }).to_string().into_bytes(), 0, 0),
        Step::Live => (br#"{"live":true}"#.to_vec(), 0, 0),
        Step::Missing(dopplers) => (json!({ "missing": dopplers }).to_string().into_bytes(), 0, 0),
        Step::Place => {
            let mut text = br#"{"batch":[]}"#.to_vec();
            put_place(&mut text, place);
            (text, 0, 0)
        }
    };
    let text = Utf8Bytes::try_from(Bytes::from(text)).expect("JSON of strings is UTF-8");
    (Frame { message: Message::Text(text), envelopes }, refused)
}

/// Puts the place into an object that ends the text.
fn put_place(text: &mut Vec<u8>, place: Option<&str>) {
    if let Some(place) = place {
        text.pop();
        // Its alphabet needs no escapes.
        text.extend_from_slice(br#","cursor":""#);
        text.extend_from_slice(place.as_bytes());
        text.extend_from_slice(br#""}"#);
    }
}

fn gap_json(gap: &v1::Gap, stage: &str) -> Value {
    json!({
        "source_id": gap.source_id,
        "envelopes": gap.envelopes.to_string(),
        "reason": gap.reason,
        "stage": stage,
        "first_timestamp": gap.first_timestamp.to_string(),
        "last_timestamp": gap.last_timestamp.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::raw::{Batch, Selection, wire};
    use proto::v2;

    use super::*;

    fn text(step: &Step, place: Option<&str>) -> (Value, u64) {
        let (frame, refused) = frame(step, place);
        assert_eq!(refused, 0);
        (serde_json::from_str(frame.message.to_text().unwrap()).unwrap(), frame.envelopes)
    }

    #[test]
    fn each_step_is_an_object_of_its_own() {
        let mut batch = Vec::new();
        for line in ["</script>", "\u{2028}"] {
            wire::put_bytes(&mut batch, 1, &v2::Envelope::log("a", line).encode_to_vec());
        }
        let part = Selection::from(Batch::index(batch.into()).0);
        let (value, envelopes) = text(&Step::Batch(vec![part.clone(), part], 4), Some("AbC-_"));
        assert_eq!((value["batch"].as_array().unwrap().len(), &value["cursor"], envelopes), (4, &json!("AbC-_"), 4));
        assert_eq!(value["batch"][0]["source_id"], "a");
        assert_eq!(text(&Step::Live, Some("x")).0, json!({ "live": true }));
        assert_eq!(text(&Step::Place, Some("x")).0, json!({ "batch": [], "cursor": "x" }));
        assert_eq!(text(&Step::Missing(vec!["d:1".to_owned()]), None).0, json!({ "missing": ["d:1"] }));
        let gap =
            v1::Gap { source_id: "a".to_owned(), envelopes: 12, reason: "queue_full".to_owned(), ..Default::default() };
        let (value, _) = text(&Step::Gap(gap, "doppler"), None);
        assert_eq!((&value["gap"]["envelopes"], &value["gap"]["stage"]), (&json!("12"), &json!("doppler")));
    }
}
