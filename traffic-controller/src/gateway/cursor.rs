//! Where a reader stands in the caches of all dopplers, as one opaque text that it hands back to go on. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message as _;
use proto::hydrant::v1;

/// The longest text that is looked at: so many dopplers of the longest names.
const MAX_TEXT: usize = 32 * 1024;

/// Dopplers of one place.
const MAX_DOPPLERS: usize = 64;

/// The longest name of a doppler: a host name and a port.
const MAX_NAME: usize = 262;

/// A place in the cache of each doppler.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Place(Vec<v1::Cursor>);

impl Place {
    /// Goes on to `cursor` with its doppler. Of too many dopplers the one that has been silent longest is forgotten.
    pub(super) fn advance(&mut self, cursor: v1::Cursor) {
        self.0.retain(|known| known.doppler != cursor.doppler);
        if self.0.len() >= MAX_DOPPLERS {
            self.0.remove(0);
        }
        self.0.push(cursor);
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
        let mut names: Vec<&str> = request.after.iter().map(|cursor| cursor.doppler.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let named = names.len() == request.after.len() && names.iter().all(|name| (1..=MAX_NAME).contains(&name.len()));
        let bounded = (1..=MAX_DOPPLERS).contains(&request.after.len());
        (only == request && named && bounded).then_some(Self(request.after))
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
        assert_eq!(Place::parse(&text), Some(Place(vec![cursor("b:1", 5), cursor("a:1", 9)])));
        (0..MAX_DOPPLERS as u64).for_each(|i| place.advance(cursor(&format!("{}:1", "x".repeat(255)), i)));
        (0..MAX_DOPPLERS as u64 - 1).for_each(|i| place.advance(cursor(&format!("{i}{}:1", "y".repeat(200)), i)));
        assert_eq!((place.0.len(), place.0[0].doppler.len()), (MAX_DOPPLERS, 257));
        assert_eq!(Place::parse(&place.text()), Some(place.clone()));
    }

    #[test]
    fn what_is_no_place_is_told_apart() {
        let twice = Place(vec![cursor("a", 1), cursor("a", 2)]).text();
        let nameless = Place(vec![cursor("", 1)]).text();
        assert_eq!((Place::parse(&twice), Place::parse(&nameless)), (None, None));
        let other =
            v1::FollowRequest { source_ids: vec!["x".to_owned()], after: vec![cursor("a", 1)], ..Default::default() };
        let other = URL_SAFE_NO_PAD.encode(other.encode_to_vec());
        for text in ["", "!", "AAAA", "x y", &other, &"A".repeat(MAX_TEXT + 1)] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }
}
