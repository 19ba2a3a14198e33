//! Where a reader stands in the caches of all dopplers, as one opaque text that it hands back to go on. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message as _;
use proto::hydrant::v1;

/// The longest text that is looked at: a hundred dopplers and more.
const MAX_TEXT: usize = 8 * 1024;

/// A place in the cache of each doppler.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Place(Vec<v1::Cursor>);

impl Place {
    /// Goes on to `cursor` with its doppler.
    pub(super) fn advance(&mut self, cursor: v1::Cursor) {
        match self.0.iter_mut().find(|known| known.doppler == cursor.doppler) {
            Some(known) => *known = cursor,
            None => self.0.push(cursor),
        }
    }

    /// True before the first frame with a cursor.
    pub(super) fn is_unknown(&self) -> bool {
        self.0.is_empty()
    }

    /// The cursors, as a request to follow has them.
    pub(super) fn cursors(&self) -> Vec<v1::Cursor> {
        self.0.clone()
    }

    /// The text.
    pub(super) fn text(&self) -> String {
        let request = v1::FollowRequest { after: self.0.clone(), ..v1::FollowRequest::default() };
        URL_SAFE_NO_PAD.encode(request.encode_to_vec())
    }

    /// The place of a text; `None` when it is none of ours.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let request = v1::FollowRequest::decode(&*URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let only = v1::FollowRequest { after: request.after.clone(), ..v1::FollowRequest::default() };
        (only == request && !request.after.is_empty()).then_some(Self(request.after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(doppler: &str, sequence: u64) -> v1::Cursor {
        v1::Cursor { doppler: doppler.to_owned(), epoch: 7, sequence }
    }

    #[test]
    fn a_place_survives_as_text_and_has_one_cursor_for_each_doppler() {
        let mut place = Place::default();
        assert!(place.is_unknown());
        for (doppler, sequence) in [("a:1", 1), ("b:1", 5), ("a:1", 9)] {
            place.advance(cursor(doppler, sequence));
        }
        let text = place.text();
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'), "{text}");
        assert_eq!(Place::parse(&text), Some(Place(vec![cursor("a:1", 9), cursor("b:1", 5)])));
    }

    #[test]
    fn what_is_no_place_is_told_apart() {
        let other =
            v1::FollowRequest { source_ids: vec!["x".to_owned()], after: vec![cursor("a", 1)], ..Default::default() };
        let other = URL_SAFE_NO_PAD.encode(other.encode_to_vec());
        for text in ["", "!", "AAAA", "x y", &other, &"A".repeat(MAX_TEXT + 1)] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }
}
