//! What the ring gives up comes again, and idle files cost next to nothing.

use std::fs;
use std::num::NonZeroUsize;

use diode::fair;
use proto::raw::Batch;
use telemetry::Telemetry;

use super::disk::Stat;
use super::*;
use crate::config::TagsConfig;
use crate::gather::Gather;
use crate::metrics::Metrics;
use crate::parcel::Parcel;
use crate::tag::Tagger;

struct Fixture {
    dir: tempfile::TempDir,
    files: Files,
    intake: Intake,
    ring: fair::Reader<Parcel>,
    telemetry: Telemetry,
}

/// An agent's files with a ring of `envelopes`, and whatever is in `dir/logs`.
fn fixture(envelopes: usize, write: impl FnOnce(&std::path::Path)) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    fs::create_dir(&logs).unwrap();
    write(&logs);
    start(dir, envelopes)
}

/// An agent's files, as an earlier run left them.
fn start(dir: tempfile::TempDir, envelopes: usize) -> Fixture {
    let logs = dir.path().join("logs");
    let entry = format!("paths = [\"{}/*.log\"]\nformat = \"plain\"\nstart = \"beginning\"", logs.display());
    let entry: FilesConfig = toml::from_str(&entry).unwrap();
    let reading = FileReadingConfig { state_dir: Some(dir.path().join("state")), ..FileReadingConfig::default() };
    let telemetry = Telemetry::default();
    let some = |value| NonZeroUsize::new(value).unwrap();
    let bounds = fair::Bounds { envelopes: some(envelopes), bytes: some(64 << 20) };
    let (writer, ring) = fair::channel(bounds);
    let intake = Intake::new(Tagger::new(&TagsConfig::default()), writer, Metrics::register(&telemetry), &telemetry);
    let metrics = FilesMetrics::register(&telemetry);
    let files = Files::bind(&[entry], &reading, bounds, intake.of(&telemetry, "files"), metrics).unwrap().unwrap();
    Fixture { dir, files, intake, ring, telemetry }
}

/// A further run, once what had been taken from the ring has left. It has not looked at anything yet.
fn again(fixture: Fixture) -> Fixture {
    let Fixture { dir, mut files, .. } = fixture;
    while let Ok(fate) = files.fates.try_recv() {
        files.reader.settle(fate);
    }
    files.reader.keep();
    drop(files);
    start(dir, 1_000)
}

/// The texts of logs of a source in the ring.
fn texts(ring: &mut fair::Reader<Parcel>, source: &[u8]) -> Vec<String> {
    let mut texts = Vec::new();
    while let Ok(parcel) = ring.try_recv() {
        for (entry, envelope) in parcel.selection.entries().zip(parcel.selection.envelopes()) {
            if parcel.selection.batch().source_id(entry) == source {
                let envelope: proto::v2::Envelope = prost::Message::decode(envelope).unwrap();
                texts.push(String::from_utf8(envelope.payload().to_vec()).unwrap());
            }
        }
    }
    texts
}

#[test]
fn what_the_ring_gives_up_goes_into_it_again_and_is_not_claimed_before() {
    let line = |i: usize| format!("{i} {}", "x".repeat(80));
    let mut fixture = fixture(1_000, |logs| {
        let lines: String = (0..400).map(|i| line(i) + "\n").collect();
        fs::write(logs.join("app.log"), lines).unwrap();
    });
    let (reader, fates) = (&mut fixture.files.reader, &mut fixture.files.fates);
    reader.round(false);
    // Another source comes, of smaller envelopes: what holds most bytes makes room.
    let mut gather = Gather::default();
    for _ in 0..900 {
        gather.envelope("other", "", 1).log(b"y", false);
    }
    let (batch, refused): (Batch, _) = gather.take().unwrap();
    fixture.intake.take((batch, refused));
    let first = texts(&mut fixture.ring, b"app");
    let gone = 400 - first.len();
    assert!((100..400).contains(&gone), "{gone} had to leave");
    let fate = fates.try_recv().unwrap();
    assert!(matches!(fate, Fate::Settled { dropped, .. } if dropped == gone as u64), "{fate:?}");
    reader.settle(fate);
    assert!(!reader.has_room() && reader.is_under_way(), "nothing else before that");
    assert!(
        reader.files.values().all(|file| file.from() == [0, file.decoder.position()]),
        "all is to be read again, until then"
    );
    reader.round(false);
    let mut all = [first, texts(&mut fixture.ring, b"app")].concat();
    reader.settle(fates.try_recv().unwrap());
    all.sort_by_key(|text| text.split(' ').next().unwrap().parse::<usize>().unwrap());
    assert_eq!(all, (0..400).map(line).collect::<Vec<_>>(), "each once");
    assert!(!reader.is_under_way() && reader.files.values().all(|file| file.behind() == 0));
    assert!(fixture.telemetry.render().contains(&format!("hydrant_files_again_total {gone}\n")));
    drop(fixture.dir);
}

#[test]
fn what_is_written_while_a_file_is_taken_for_ended_is_read_as_lines() {
    let mut fixture = fixture(1_000, |logs| fs::write(logs.join("app.log"), "one\n").unwrap());
    let log = fixture.dir.path().join("logs/app.log");
    let reader = &mut fixture.files.reader;
    reader.round(false);
    let (id, mut file) = reader.files.pop_first().unwrap();
    let mut writer = fs::OpenOptions::new().append(true).open(&log).unwrap();
    std::io::Write::write_all(&mut writer, b"two\nthree\nfou").unwrap();
    reader.finish(id, &mut file, Instant::now());
    assert!(!file.is_finished, "it has more than was seen of it");
    reader.files.insert(id, file);
    reader.round(false);
    let mut file = reader.files.remove(&id).unwrap();
    reader.finish(id, &mut file, Instant::now());
    assert!(file.is_finished);
    reader.close_frame();
    assert_eq!(texts(&mut fixture.ring, b"app"), ["one", "two", "three", "fou"]);
}

/// Returns when files that are made are younger than those that are there.
fn tick(dir: &tempfile::TempDir) {
    let made = |name: &str| {
        fs::write(dir.path().join(name), "").unwrap();
        fs::metadata(dir.path().join(name)).unwrap().modified().unwrap()
    };
    let now = made("now");
    while made("later") == now {}
}

/// Looks for files, and reads what there is.
fn look(reader: &mut Reader) {
    reader.next_scan = Instant::now();
    while reader.round(false) == Next::Now {}
}

#[test]
fn a_closed_file_that_was_cut_and_has_less_than_before_is_read() {
    let mut fixture = fixture(1_000, |logs| fs::write(logs.join("app.log"), "a long line of the first\n").unwrap());
    let log = fixture.dir.path().join("logs/app.log");
    look(&mut fixture.files.reader);
    // As one that rests while others are read.
    fixture.files.reader.files.values_mut().for_each(|file| file.fd = None);
    fs::write(&log, "less\n").unwrap();
    // That it begins anew is seen, and then it is read.
    look(&mut fixture.files.reader);
    look(&mut fixture.files.reader);
    assert_eq!(texts(&mut fixture.ring, b"app"), ["a long line of the first", "less"]);
}

#[test]
fn what_was_copied_and_cut_while_a_file_waits_to_be_opened_is_read() {
    let mut fixture = fixture(1_000, |logs| {
        fs::write(logs.join("a.log"), "a\n").unwrap();
        fs::write(logs.join("b.log"), "the first\n").unwrap();
    });
    let logs = fixture.dir.path().join("logs");
    let reader = &mut fixture.files.reader;
    reader.config.max_files = NonZeroUsize::MIN;
    look(reader);
    assert_eq!(reader.files.values().filter(|file| file.waits()).count(), 1);
    for (name, next) in [("b.log.1", "the second, longer\n"), ("b.log.2", "3\n")] {
        fs::copy(logs.join("b.log"), logs.join(name)).unwrap();
        fs::write(logs.join("b.log"), next).unwrap();
        look(reader);
    }
    reader.config.max_files = NonZeroUsize::new(10).unwrap();
    // What was beside it is found when it is read, and read itself then.
    look(reader);
    look(reader);
    let mut lines = texts(&mut fixture.ring, b"b");
    lines.sort();
    assert_eq!(lines, ["3", "the first", "the second, longer"]);
}

#[test]
fn what_an_earlier_run_read_to_its_end_is_not_kept_open_once_more() {
    let mut fixture = fixture(1_000, |logs| fs::write(logs.join("app.log"), "one\n").unwrap());
    let log = fixture.dir.path().join("logs/app.log");
    look(&mut fixture.files.reader);
    fs::rename(&log, log.with_extension("log.1")).unwrap();
    assert_eq!(texts(&mut fixture.ring, b"app"), ["one"]);
    let times = fs::FileTimes::new().set_modified(std::time::SystemTime::now() - Duration::from_secs(60));
    fs::File::options().append(true).open(log.with_extension("log.1")).unwrap().set_times(times).unwrap();
    let mut fixture = again(fixture);
    let reader = &mut fixture.files.reader;
    assert_eq!(reader.resume.len(), 1);
    look(reader);
    assert_eq!(reader.files.values().filter(|file| file.fd.is_some()).count(), 0);
    assert!(texts(&mut fixture.ring, b"app").is_empty(), "nor read again");
}

/// A place was taken and left while no agent ran, and is empty at its next start.
#[test]
fn what_had_a_place_that_is_empty_is_read_when_it_is_taken_again() {
    let mut fixture = fixture(1_000, |logs| fs::write(logs.join("app.log"), "one\n").unwrap());
    let log = fixture.dir.path().join("logs/app.log");
    look(&mut fixture.files.reader);
    fs::remove_file(&log).unwrap();
    assert_eq!(texts(&mut fixture.ring, b"app"), ["one"]);
    fixture.files.reader.settle(fixture.files.fates.try_recv().unwrap());
    while fixture.files.reader.round(true) != Next::Done {}
    let mut fixture = again(fixture);
    assert!(fixture.files.reader.resume.is_empty());
    tick(&fixture.dir);
    fs::write(&log, "two\n").unwrap();
    fs::copy(&log, log.with_extension("log.1")).unwrap();
    fs::write(&log, "3\n").unwrap();
    fs::rename(&log, log.with_extension("log.2")).unwrap();
    tick(&fixture.dir);
    look(&mut fixture.files.reader);
    assert!(fixture.files.reader.files.is_empty());
    tick(&fixture.dir);
    fs::write(&log, "four\n").unwrap();
    look(&mut fixture.files.reader);
    look(&mut fixture.files.reader);
    let mut lines = texts(&mut fixture.ring, b"app");
    lines.sort();
    assert_eq!(lines, ["3", "four", "two"]);
}

#[test]
fn what_has_ended_stays_known_while_an_older_one_is_read() {
    let mut fixture = fixture(1_000, |logs| fs::write(logs.join("app.log"), "one\n").unwrap());
    let log = fixture.dir.path().join("logs/app.log");
    for (i, next) in ["two\n", "three\n"].iter().enumerate() {
        look(&mut fixture.files.reader);
        tick(&fixture.dir);
        fs::rename(&log, log.with_extension(format!("log.{i}"))).unwrap();
        fs::write(&log, next).unwrap();
    }
    let reader = &mut fixture.files.reader;
    look(reader);
    look(reader);
    assert_eq!(texts(&mut fixture.ring, b"app"), ["one", "two", "three"]);
    let second = Stat::at(&log.with_extension("log.1")).unwrap().unwrap();
    let id = reader.by_key[&second.key];
    let mut file = reader.files.remove(&id).unwrap();
    reader.finish(id, &mut file, Instant::now());
    assert!(file.is_finished);
    reader.files.insert(id, file);
    let mut fixture = again(fixture);
    look(&mut fixture.files.reader);
    look(&mut fixture.files.reader);
    assert!(texts(&mut fixture.ring, b"app").is_empty(), "each once");
}

/// What was renamed after a copy of what it had been before is known already, and itself is not.
#[test]
fn a_file_older_than_a_copy_that_was_made_of_it_is_found_beside_that() {
    let mut fixture = fixture(1_000, |logs| fs::write(logs.join("app.log"), "one\n").unwrap());
    let log = fixture.dir.path().join("logs/app.log");
    let aside = |i: u32| log.with_extension(format!("log.{i}"));
    let reader = &mut fixture.files.reader;
    look(reader);
    let (home, real, created) =
        reader.files.values().map(|file| (file.home.clone(), file.real.clone(), file.key.created)).next().unwrap();
    let modified = reader.files.values().map(|file| file.modified).next().unwrap();
    tick(&fixture.dir);
    fs::rename(&log, aside(1)).unwrap();
    fs::write(&log, "two\n").unwrap();
    tick(&fixture.dir);
    fs::copy(&log, aside(2)).unwrap();
    fs::write(&log, "3\n").unwrap();
    // As a look does that was under way when the place was taken.
    reader.find_between(0, &home, &real, (modified, created), Instant::now());
    while reader.round(false) == Next::Now {}
    let mut lines = texts(&mut fixture.ring, b"app");
    let mut fixture = again(fixture);
    fs::rename(&log, aside(3)).unwrap();
    fs::write(&log, "four\n").unwrap();
    assert_eq!(fixture.files.reader.resume.len(), 2);
    look(&mut fixture.files.reader);
    look(&mut fixture.files.reader);
    lines.extend(texts(&mut fixture.ring, b"app"));
    lines.sort();
    assert_eq!(lines, ["3", "four", "one", "two"]);
}

/// A thousand idle files, over what a second of looking at them costs this thread: at most one hundredth of it.
#[test]
fn a_thousand_idle_files_cost_next_to_nothing() {
    let mut fixture = fixture(200_000, |logs| {
        for i in 0..1_000 {
            fs::write(logs.join(format!("{i}.log")), format!("line {i}\n")).unwrap();
        }
    });
    let reader = &mut fixture.files.reader;
    while reader.round(false) == Next::Now {}
    while let Ok(fate) = fixture.files.fates.try_recv() {
        reader.settle(fate);
    }
    assert_eq!(texts(&mut fixture.ring, b"7"), ["line 7"]);
    while let Ok(fate) = fixture.files.fates.try_recv() {
        reader.settle(fate);
    }
    assert_eq!(reader.files.len(), 1_000);
    reader.keep();
    // Nanoseconds on a processor.
    let used = || -> u64 {
        let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    };
    // Looks for new files have a share of their own, kept by the time that they take.
    reader.next_scan = tokio::time::Instant::now() + Duration::from_secs(3_600);
    let (before, rounds) = (used(), 400);
    for _ in 0..rounds {
        assert_eq!(reader.round(false), Next::Wait(Duration::from_millis(250)));
    }
    let micros = (used() - before) / 1_000 / rounds;
    // Files that have been quiet for less than 10 s are looked at four times a second.
    assert!(micros * 4 < 10_000, "{micros} µs a round");
}
