use super::*;

fn frames(window: &mut Window, names: impl IntoIterator<Item = usize>, now: Instant) {
    for name in names {
        window.push(Frame::new(Bytes::from(name.to_string()), String::new(), false, now));
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
    assert_eq!(window.wrote(window.burst(), now), (256, 0));
    assert_eq!(window.reset(), Reset { requeued: 256, uncertain: 0 });
    assert_eq!(unsent(&window), (0..300).collect::<Vec<_>>());
    assert_eq!((window.unsent_bytes(), window.unconfirmed()), (10 + 2 * 90 + 3 * 200, 0));
}

#[test]
fn an_orderly_close_brings_nothing_back() {
    let now = Instant::now();
    let mut window = Window::new(true);
    frames(&mut window, 0..3, now);
    write(&mut window, now);
    assert_eq!(window.closed(), 3);
    assert_eq!(window.reset(), Reset::default());
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

/// Each connection takes one line, and then is reset or closed.
#[test]
fn a_peer_that_ends_after_each_line_gets_every_line_and_few_twice() {
    for orderly in [true, false] {
        let now = Instant::now();
        let mut window = Window::new(true);
        frames(&mut window, 0..50, now);
        let mut received = Vec::new();
        let (mut requeued, mut uncertain) = (0, 0);
        while window.burst() > 0 {
            let written = write(&mut window, now);
            received.push(written[0]);
            if orderly && written.len() == 1 {
                window.closed();
            } else {
                let reset = window.reset();
                (requeued, uncertain) = (requeued + reset.requeued, uncertain + reset.uncertain);
            }
        }
        let repeats = received.len() - 50;
        received.dedup();
        assert_eq!(received, (0..50).collect::<Vec<_>>(), "every line, in order");
        if orderly {
            assert_eq!((repeats, requeued, uncertain), (1, 50, 0));
        } else {
            // Each line had three chances, the first one more in the large write.
            assert_eq!((repeats, uncertain), (101, 50));
        }
    }
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
        window.push(Frame::new(Bytes::from(vec![0; KEPT_BYTES / 8]), String::new(), false, now));
    }
    assert_eq!(window.wrote(40, now), (40, 32));
    assert_eq!(window.unconfirmed(), 8);
    assert_eq!(window.prune_at(), Some(now + KEPT_FOR));
    assert_eq!(window.prune(now + KEPT_FOR - Duration::from_nanos(1)), 0);
    assert_eq!(window.prune(now + KEPT_FOR), 8);
    assert_eq!(window.prune_at(), None);
    window.push(Frame::new(Bytes::from(vec![0; 2 * KEPT_BYTES]), String::new(), false, now));
    window.wrote(1, now);
    assert_eq!(window.unconfirmed(), 1, "the last frame is kept whatever its size");
    assert_eq!(window.reset().requeued, 1);
}

#[test]
fn without_resend_what_was_written_is_uncertain() {
    let now = Instant::now();
    let mut window = Window::new(false);
    frames(&mut window, 0..5, now);
    window.wrote(3, now);
    assert_eq!(window.reset(), Reset { requeued: 0, uncertain: 3 });
    assert_eq!(unsent(&window), [3, 4]);
    assert!(!window.is_careful());
}

#[test]
fn rewritten_frames_are_not_written_for_the_first_time() {
    let now = Instant::now();
    let mut window = Window::new(true);
    frames(&mut window, 0..2, now);
    assert_eq!(window.wrote(1, now), (1, 0));
    window.reset();
    assert_eq!(window.wrote(2, now), (1, 0));
}

#[test]
fn only_frames_older_than_a_time_are_taken() {
    let now = Instant::now();
    let mut window = Window::new(true);
    frames(&mut window, [1], now);
    frames(&mut window, [2], now + Duration::from_secs(1));
    assert!(window.pop_older(now).is_none());
    assert!(window.pop_older(now + Duration::from_secs(1)).is_some());
    assert!(window.pop_older(now + Duration::from_secs(1)).is_none());
    assert!(window.pop().is_some());
    assert!(window.pop().is_none());
    assert_eq!(window.unsent_bytes(), 0);
}
