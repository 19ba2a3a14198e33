//! Lines of every format, as they are cut by reading.

use proto::v2;

use super::super::config::Preset;
use super::*;

fn config(format: Format, multiline: Option<Preset>) -> FilesConfig {
    FilesConfig {
        paths: Vec::new(),
        exclude: Vec::new(),
        format,
        source_id: Some("s".to_owned()),
        instance_id: None,
        start: None,
        multiline,
    }
}

fn decoder(config: &FilesConfig, max: usize, resume: Resume) -> Decoder {
    Decoder::new(config, Labels::of(config, "/f".as_ref(), &[], None), max, resume)
}

/// Stream, text and time of what was gathered, and how much was refused.
fn taken(gather: &mut Gather) -> (Vec<(&'static str, String, i64)>, u64) {
    let Some((batch, refused)) = gather.take() else { return (Vec::new(), 0) };
    let read = |entry| {
        let envelope: v2::Envelope = prost::Message::decode(batch.envelope(entry)).unwrap();
        let Some(v2::envelope::Message::Log(log)) = &envelope.message else { panic!("{envelope:?}") };
        let stream = if log.r#type == 1 { "err" } else { "out" };
        (stream, String::from_utf8(log.payload.to_vec()).unwrap(), envelope.timestamp)
    };
    (batch.entries().iter().map(read).collect(), refused.total())
}

fn texts(gather: &mut Gather) -> Vec<String> {
    taken(gather).0.into_iter().map(|(_, text, _)| text).collect()
}

const T: &str = "1970-01-01T00:00:01Z";

#[test]
fn streams_are_kept_apart_and_parts_wait_for_each_other() {
    let config = config(Format::Cri, None);
    let (mut decoder, mut gather) = (decoder(&config, 100, Resume::default()), Gather::default());
    let file =
        format!("{T} stdout P a\n{T} stderr F e\n{T} stdout F b\n{T} stderr P f\nbroken\n{T} stdout F not whole");
    let mut bad = Vec::new();
    let used = decoder.feed(file.as_bytes(), 9, &mut gather, |line, error| bad.push((line.to_vec(), error)));
    assert_eq!(used, file.len() - format!("{T} stdout F not whole").len());
    assert_eq!(bad, [(b"broken".to_vec(), LineError::Cri(CriError::Time))]);
    let (events, refused) = taken(&mut gather);
    assert_eq!(events, [("err", "e".to_owned(), 1_000_000_000), ("out", "ab".to_owned(), 1_000_000_000)]);
    assert_eq!(refused, 1);
    let err = file.find(" stderr P").unwrap() - T.len();
    assert_eq!(decoder.held_from(), [used as u64, err as u64]);
    assert_eq!(decoder.take_handed(), [Some(0), Some(file.find(" stderr F").unwrap() as u64 - T.len() as u64)]);
    assert_eq!(decoder.take_handed(), [None, None]);
    decoder.finish(&file.as_bytes()[used..], 9, &mut gather, |_, _| panic!("it is whole but for its end"));
    assert_eq!(texts(&mut gather), ["not whole", "f"]);
    assert!(!decoder.holds_some());
    assert_eq!(decoder.position(), file.len() as u64);
}

#[test]
fn who_goes_on_repeats_no_stream() {
    let config = config(Format::Cri, None);
    let file = format!("{T} stdout P a\n{T} stderr F e\n{T} stdout F b\n");
    let cut = file.find(&format!("{T} stdout F")).unwrap();
    let (mut first, mut gather) = (decoder(&config, 100, Resume::default()), Gather::default());
    first.feed(&file.as_bytes()[..cut], 0, &mut gather, |_, _| ());
    assert_eq!(texts(&mut gather), ["e"]);
    let resume = Resume { from: first.held_from(), handed_to: first.held_from() };
    assert_eq!(resume.offset(), 0);
    let mut second = decoder(&config, 100, resume);
    assert_eq!(second.held_from(), resume.from);
    second.feed(file.as_bytes(), 0, &mut gather, |_, _| ());
    assert_eq!(texts(&mut gather), ["ab"]);
    assert_eq!(second.take_counts(), (0, 0), "what is read again had not been handed on");
    let killed = Resume { from: [0; 2], handed_to: first.held_from() };
    let mut third = decoder(&config, 100, killed);
    third.feed(file.as_bytes(), 0, &mut gather, |_, _| ());
    assert_eq!(texts(&mut gather), ["e", "ab"]);
    assert_eq!(third.take_counts(), (0, 1), "it may have arrived");
}

#[test]
fn plain_lines_are_texts_and_long_ones_become_several() {
    let config = config(Format::Plain, None);
    let (mut decoder, mut gather) = (decoder(&config, 4, Resume::default()), Gather::default());
    let used = decoder.feed(b"ab\r\n\nabcd\nabcdefghi\nabcdefgh", 7, &mut gather, |_, _| ());
    assert_eq!(texts(&mut gather), ["ab", "", "abcd", "abcd", "efgh", "i", "abcd"]);
    assert_eq!(used, 24);
    decoder.feed(b"efgh\n", 7, &mut gather, |_, _| ());
    assert_eq!(taken(&mut gather).0, [("out", "efgh".to_owned(), 7)]);
    assert_eq!(decoder.take_counts().0, 2);
}

#[test]
fn traces_are_held_until_something_else_comes_or_nothing_does() {
    let config = config(Format::Cri, Some(Preset::Java));
    let (mut decoder, mut gather) = (decoder(&config, 100, Resume::default()), Gather::default());
    let file = format!("{T} stderr F x\n{T} stdout F o\n{T} stderr F \tat a\n{T} stdout F p\n");
    decoder.feed(file.as_bytes(), 0, &mut gather, |_, _| ());
    assert_eq!(texts(&mut gather), ["o"]);
    assert!(decoder.holds_some());
    decoder.silence(&mut gather);
    assert_eq!(texts(&mut gather), ["p", "x\n\tat a"]);
    assert!(!decoder.holds_some());
}

#[test]
fn a_line_without_end_costs_itself_alone() {
    let config = config(Format::Docker, None);
    let (mut decoder, mut gather) = (decoder(&config, 100, Resume::default()), Gather::default());
    let long = vec![b'x'; MAX_RAW];
    assert_eq!(decoder.feed(&long[1..], 0, &mut gather, |_, _| ()), 0);
    let mut bad = 0;
    assert_eq!(decoder.feed(&long, 0, &mut gather, |_, error| bad += usize::from(error == LineError::Long)), MAX_RAW);
    assert_eq!(decoder.feed(b"more", 0, &mut gather, |_, _| panic!("it is said once")), 4);
    let good = format!("end\n{{\"log\":\"a\\n\",\"stream\":\"stdout\",\"time\":\"{T}\"}}\n");
    assert_eq!(decoder.feed(good.as_bytes(), 0, &mut gather, |_, _| ()), good.len());
    let (events, refused) = taken(&mut gather);
    assert_eq!((events.len(), refused, bad), (1, 1, 1));
}

#[test]
fn a_full_gather_ends_a_feed_and_the_next_goes_on() {
    let config = config(Format::Plain, None);
    let (mut decoder, mut gather) = (decoder(&config, 100, Resume::default()), Gather::default());
    let file = "x\n".repeat(FRAME_ENVELOPES + 1);
    let used = decoder.feed(file.as_bytes(), 0, &mut gather, |_, _| ());
    assert_eq!((used, gather.len()), (2 * FRAME_ENVELOPES, FRAME_ENVELOPES));
    assert_eq!(texts(&mut gather).len(), FRAME_ENVELOPES);
    assert_eq!(decoder.feed(&file.as_bytes()[used..], 0, &mut gather, |_, _| ()), 2);
}
