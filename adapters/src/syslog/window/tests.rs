//! Tests of `window`.

use super::*;

fn frames(window: &mut Window, names: impl IntoIterator<Item = usize>, now: Instant) {
    for name in names {
        window.push(Frame::new(Bytes::from(name.to_string()), "".into(), false, now));
    }
}

fn unsent(window: &Window) -> Vec<usize> {
    window.unsent().iter().map(|frame| std::str::from_utf8(&frame.bytes).unwrap().parse().unwrap()).collect()
}

/// Writes what the window asks for, and returns it.
fn write(window: &mut Window, now: Instant) -> Vec<usize> {
    let burst = window.burst();
    let written = unsent(window)[..burst].to_vec();
    window.wrote(burst, now);
    written
}

#[test]
fn what_was_written_comes_back_in_order_before_what_was_not() {
    let now = Instant::now();
    let mut window = Window::new(true);
    frames(&mut window, 0..300, now);
    assert_eq!(window.wrote(window.burst(), now), Wrote { first: 256, ..Wrote::default() });
    assert_eq!(window.reset(), 0);
    assert_eq!(unsent(&window), (0..300).collect::<Vec<_>>());
    assert_eq!((window.unsent_bytes(), window.unconfirmed()), (10 + 2 * 90 + 3 * 200, 256));
}

#[test]
fn an_orderly_close_brings_nothing_back() {
    let now = Instant::now();
    let mut window = Window::new(true);
    frames(&mut window, 0..3, now);
    write(&mut window, now);
    assert_eq!(window.closed(), 3);
    assert_eq!((window.reset(), window.unconfirmed()), (0, 0));
    assert!(!window.is_careful(), "nothing was lost");
}

#[test]
fn after_a_reset_bursts_start_at_one_and_grow_in_pauses() {
    let now = Instant::now();
    let mut window = Window::new(true);
    frames(&mut window, 0..400, now);
    write(&mut window, now);
    window.reset();
    let mut bursts = Vec::new();
    while window.is_careful() {
        bursts.push(write(&mut window, now).len());
        window.quiet();
    }
    assert_eq!(bursts, [1, 4, 16, 64]);
    assert_eq!(window.burst(), 256);
}

/// Each connection takes one line, then is closed; what it had not read by then breaks it.
#[test]
fn a_peer_that_closes_after_each_line_gets_every_line_and_one_twice() {
    let now = Instant::now();
    let mut window = Window::new(true);
    frames(&mut window, 0..50, now);
    let mut received = Vec::new();
    while window.burst() > 0 {
        let written = write(&mut window, now);
        received.push(written[0]);
        if written.len() == 1 {
            window.closed();
        } else {
            window.reset();
        }
    }
    assert_eq!(received.len(), 51);
    received.dedup();
    assert_eq!(received, (0..50).collect::<Vec<_>>(), "every line, in order");
}

#[test]
fn a_line_that_meets_nothing_but_resets_stays_until_it_is_given_up() {
    let now = Instant::now();
    let mut window = Window::new(true);
    frames(&mut window, 0..3, now);
    for _ in 0..100 {
        write(&mut window, now);
        window.reset();
    }
    assert_eq!(unsent(&window), [0, 1, 2]);
    let given_up = window.pop().unwrap();
    assert!(given_up.was_written());
    assert_eq!(window.unconfirmed(), 2);
    assert_eq!(write(&mut window, now), [1]);
}

/// The peer reads one line of each connection and resets it after the pause that followed the line.
#[test]
fn a_peer_that_resets_late_gets_every_line_too() {
    let now = Instant::now();
    let mut window = Window::new(true);
    frames(&mut window, 0..20, now);
    let mut received: Vec<usize> = Vec::new();
    while window.burst() > 0 || window.unconfirmed() > 0 {
        received.push(write(&mut window, now)[0]);
        window.quiet();
        write(&mut window, now);
        window.reset();
        assert!(received.len() < 200, "no progress: {received:?}");
    }
    received.dedup();
    assert_eq!(received, (0..20).collect::<Vec<_>>());
}

#[test]
fn the_window_is_bounded_in_bytes_and_time() {
    let now = Instant::now();
    let mut window = Window::new(true);
    for _ in 0..40 {
        window.push(Frame::new(Bytes::from(vec![0; KEPT_BYTES / 8]), "".into(), false, now));
    }
    assert_eq!(window.wrote(40, now), Wrote { first: 40, again: 0, let_go: 32 });
    assert_eq!(window.unconfirmed(), 8);
    assert_eq!(window.prune_at(), Some(now + KEPT_FOR));
    assert_eq!(window.prune(now + KEPT_FOR - Duration::from_nanos(1)), 0);
    assert_eq!(window.prune(now + KEPT_FOR), 8);
    assert_eq!(window.prune_at(), None);
    window.push(Frame::new(Bytes::from(vec![0; 2 * KEPT_BYTES]), "".into(), false, now));
    window.wrote(1, now);
    assert_eq!(window.unconfirmed(), 1, "the last frame is kept whatever its size");
    assert_eq!((window.reset(), window.unsent().len()), (0, 1));
}

#[test]
fn without_resend_what_was_written_is_uncertain() {
    let now = Instant::now();
    let mut window = Window::new(false);
    frames(&mut window, 0..5, now);
    window.wrote(3, now);
    assert_eq!((window.reset(), window.unconfirmed()), (3, 0));
    assert_eq!(unsent(&window), [3, 4]);
    assert!(!window.is_careful());
}

#[test]
fn rewritten_frames_are_not_written_for_the_first_time() {
    let now = Instant::now();
    let mut window = Window::new(true);
    frames(&mut window, 0..2, now);
    assert_eq!(window.wrote(1, now).first, 1);
    window.reset();
    assert_eq!(window.wrote(2, now), Wrote { first: 1, again: 1, let_go: 0 });
    assert_eq!(window.unconfirmed(), 2);
}

#[test]
fn only_frames_that_waited_too_long_are_taken() {
    let now = Instant::now();
    let mut window = Window::new(true);
    frames(&mut window, [1, 2, 3], now);
    for (frame, seconds) in window.unsent.iter_mut().zip([Some(1), None, Some(1)]) {
        frame.expires = seconds.map(|seconds| now + Duration::from_secs(seconds));
    }
    assert!(window.pop_expired(now + Duration::from_secs(1)).is_none());
    assert!(window.pop_expired(now + Duration::from_secs(2)).is_some());
    assert!(
        window.pop_expired(now + Duration::from_secs(2)).is_none(),
        "this one waits for ever, and others behind it"
    );
    assert!(window.pop().is_some() && window.pop().is_some() && window.pop().is_none());
    assert_eq!(window.unsent_bytes(), 0);
}

#[test]
fn the_place_is_that_of_the_first_frame_that_has_one() {
    let now = Instant::now();
    let mut window = Window::new(true);
    assert_eq!(window.place(), None);
    frames(&mut window, [1, 2, 3], now);
    assert_eq!(window.place(), None);
    for (frame, place) in window.unsent.iter_mut().zip([None, Some(7), Some(8)]) {
        frame.place = place;
    }
    assert_eq!(window.place(), Some(7));
    window.wrote(2, now);
    assert_eq!(window.place(), Some(7), "written is not yet delivered");
    window.closed();
    assert_eq!(window.place(), Some(8));
}
