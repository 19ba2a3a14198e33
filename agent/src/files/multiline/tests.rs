//! What the presets keep together, and that nothing is lost whatever they do.

use proptest::prelude::*;

use super::*;

/// The events of a stream, that of its end included.
fn events(preset: Preset, max: usize, lines: &[&str]) -> Vec<String> {
    let mut events = Vec::new();
    let mut stream = Lines::new(preset, max);
    for (i, text) in lines.iter().enumerate() {
        let line = Event { from: i as u64, timestamp: 0, text: text.as_bytes(), attrs: &[] };
        stream.push(line, |event| events.push(String::from_utf8(event.text.to_vec()).unwrap()));
    }
    stream.flush(|event| events.push(String::from_utf8(event.text.to_vec()).unwrap()));
    events
}

/// Events are written with a line of `--` between them.
fn holds(preset: Preset, text: &str) {
    let expected: Vec<String> = text.split("\n--\n").map(str::to_owned).collect();
    let lines: Vec<&str> = text.split('\n').filter(|line| *line != "--").collect();
    assert_eq!(events(preset, 60_000, &lines), expected);
}

#[test]
fn java_traces_are_one_event_with_their_causes() {
    holds(
        Preset::Java,
        "INFO started\n--\njava.lang.IllegalStateException: order 7\n\tat shop.Orders.take(Orders.java:12)\n\tat shop.Main.main(Main.java:3)\n\
         Caused by: java.io.IOException: gone\n\tat shop.Disk.read(Disk.java:9)\n\t... 2 more\n... 1 more\n\
         \tSuppressed: java.lang.Error\n\t\tat a.b(C.java:1)\n--\nINFO next",
    );
}

#[test]
fn python_traces_end_with_the_exception_or_the_last_of_several() {
    holds(
        Preset::Python,
        "ERROR:root:order\n--\nTraceback (most recent call last):\n  File \"shop.py\", line 3, in <module>\n    order()\n\
         KeyError: 7\n\nDuring handling of the above exception, another exception occurred:\n\n\
         Traceback (most recent call last):\n  File \"shop.py\", line 5, in <module>\nValueError: no\n--\nINFO:root:next\n--\n  indented alone\n--\n\
         Traceback (most recent call last):\n  File \"a.py\", line 1\nOSError: x\n--\nTraceback (most recent call last):\n  File \"b.py\"\nOSError: y",
    );
}

#[test]
fn a_group_of_python_exceptions_ends_with_the_first_line_that_is_not_indented() {
    holds(
        Preset::Python,
        "start\n--\n  + Exception Group Traceback (most recent call last):\n  |   File \"a.py\", line 1, in <module>\n  | ExceptionGroup: orders (2 sub-exceptions)\n\
         \x20 +-+---------------- 1 ----------------\n    | Traceback (most recent call last):\n    |   File \"a.py\", line 2\n    | KeyError: 7\n\
         \x20   +---------------- 2 ----------------\n    | OSError: x\n    +------------------------------------\n--\nINFO:root:next\n--\n\
         \x20 + Exception Group Traceback (most recent call last):\n  | ExceptionGroup: a (1 sub-exception)\n    +------------------------------------\n\n\
         During handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File \"a.py\", line 4\nValueError: no\n--\nend",
    );
}

#[test]
fn go_panics_are_one_event_with_all_goroutines() {
    holds(
        Preset::Go,
        "2024/04/05 19:34:38 started\n--\npanic: order 7 [recovered]\n\tpanic: again\n[signal SIGSEGV: segmentation violation code=0x1]\n\n\
         goroutine 1 [running]:\nmain.(*Shop).order(0xc000012345, {0x1, 0x2})\n\t/src/main.go:12 +0x1d\nmain.main()\n\t/src/main.go:3 +0x20\n\
         created by main.start in goroutine 7\n\t/src/main.go:1\n\ngoroutine 18 [select]:\n...additional frames elided...\n\
         rax    0xca\nrip    0x1234\n--\nexit status 2\n--\n2024/04/05 19:34:39 f(x) called",
    );
}

#[test]
fn ruby_traces_are_one_event_in_either_order() {
    holds(
        Preset::Ruby,
        "I, started\n--\nshop.rb:12:in 'order': no (RuntimeError)\n\tfrom shop.rb:3:in 'main'\n\tfrom shop.rb:1:in '<main>'\n--\n\
         E, failed: no\napp/models/shop.rb:12:in `order'\napp/main.rb:1:in `<main>'\n--\n\
         Traceback (most recent call last):\n\t1: from shop.rb:1:in `<main>'\nshop.rb:12:in `order': no (RuntimeError)\n--\nI, next",
    );
}

#[test]
fn an_event_is_bounded_and_what_is_over_begins_another() {
    let many = ["  at x"; MAX_LINES + 10];
    let lines: Vec<usize> =
        events(Preset::Java, 1 << 20, &many).iter().map(|event| event.split('\n').count()).collect();
    assert_eq!(lines, [MAX_LINES, 10]);
    let long: Vec<usize> =
        events(Preset::Java, 20, &["x", " 3456789", " 3456789", " 345"]).iter().map(String::len).collect();
    assert_eq!(long, [19, 4]);
}

#[test]
fn lines_that_nothing_can_follow_do_not_wait() {
    for preset in [Preset::Python, Preset::Go] {
        let mut stream = Lines::new(preset, 100);
        let mut given = 0;
        stream.push(Event { from: 3, timestamp: 0, text: b"INFO", attrs: &[] }, |_| given += 1);
        assert_eq!((given, stream.from()), (1, None));
    }
    let mut stream = Lines::new(Preset::Java, 100);
    stream.push(Event { from: 3, timestamp: 0, text: b"INFO", attrs: &[] }, |_| panic!("a frame may follow"));
    assert_eq!(stream.from(), Some(3));
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("Traceback (most recent call last):".to_owned()),
        Just("  + Exception Group Traceback (most recent call last):".to_owned()),
        Just("During handling of the above exception, another exception occurred:".to_owned()),
        Just("panic: x".to_owned()),
        Just("goroutine 1 [running]:".to_owned()),
        Just("main.main()".to_owned()),
        Just("Caused by: x".to_owned()),
        Just("a.rb:1:in `x'".to_owned()),
        Just("a.rb:1:in `x': y (Z)".to_owned()),
        "[ \tx]{0,12}",
    ]
}

proptest! {
    /// Whatever the lines, the bound and the times of silence: the events are the lines, each once, in their order, and none is longer than
    /// the bound, but for a line that is so itself.
    #[test]
    fn no_line_is_lost(lines in prop::collection::vec((line(), any::<bool>()), 0..60), max in 1_usize..80, which in 0..4) {
        let preset = [Preset::Java, Preset::Python, Preset::Go, Preset::Ruby][usize::try_from(which).unwrap()];
        let mut stream = Lines::new(preset, max);
        let mut events: Vec<(u64, Vec<u8>)> = Vec::new();
        for (i, (text, silence)) in lines.iter().enumerate() {
            let line = Event { from: i as u64, timestamp: 0, text: text.as_bytes(), attrs: &[] };
            stream.push(line, |event| events.push((event.from, event.text.to_vec())));
            if *silence {
                stream.flush(|event| events.push((event.from, event.text.to_vec())));
                prop_assert_eq!(stream.from(), None);
            }
        }
        stream.flush(|event| events.push((event.from, event.text.to_vec())));
        let mut next = 0;
        for (from, text) in &events {
            prop_assert_eq!(*from, next as u64);
            let parts: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
            for part in &parts {
                prop_assert_eq!(*part, lines[next].0.as_bytes());
                next += 1;
            }
            prop_assert!(parts.len() == 1 || text.len() <= max);
        }
        prop_assert_eq!(next, lines.len());
    }
}
