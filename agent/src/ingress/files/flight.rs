//! What has left a file for the ring and has not left that for a doppler. Pure.
//!
//! What enters: where in a file the envelopes of a frame begin, and which frames are gone. What leaves: up to where all is gone.

use std::collections::VecDeque;

/// Of one stream of one file: its frames, in their order.
#[derive(Debug, Default)]
pub(super) struct Flight(VecDeque<Part>);

#[derive(Debug)]
struct Part {
    frame: u64,
    from: u64,
    is_gone: bool,
}

impl Flight {
    /// A frame has envelopes of this stream, the first of which begins at `from`. Of several of one frame the first counts.
    pub(super) fn add(&mut self, frame: u64, from: u64) {
        if self.0.back().is_none_or(|part| part.frame < frame) {
            self.0.push_back(Part { frame, from, is_gone: false });
        }
    }

    /// A frame is gone. Nothing happens where it has none of this stream.
    pub(super) fn settle(&mut self, frame: u64) {
        // Frames are numbered as they are added.
        if let Ok(at) = self.0.binary_search_by_key(&frame, |part| part.frame) {
            self.0[at].is_gone = true;
        }
        while self.0.front().is_some_and(|part| part.is_gone) {
            self.0.pop_front();
        }
    }

    /// Where the first envelope begins that is not gone.
    pub(super) fn from(&self) -> Option<u64> {
        self.0.front().map(|part| part.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_frame_that_is_there_says_where_to_go_on() {
        let mut flight = Flight::default();
        assert_eq!(flight.from(), None);
        flight.add(3, 0);
        flight.add(5, 100);
        flight.add(6, 200);
        flight.add(6, 300);
        flight.settle(5);
        assert_eq!(flight.from(), Some(0), "another frame is before it");
        flight.settle(4);
        flight.settle(3);
        assert_eq!(flight.from(), Some(200));
        flight.settle(6);
        flight.settle(6);
        assert_eq!(flight.from(), None);
    }
}
