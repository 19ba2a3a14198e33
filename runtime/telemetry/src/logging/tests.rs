//! What each format writes, what a sink gets, and what it never gets.

use std::io;
use std::sync::Mutex;

use tracing::subscriber::with_default;
use tracing::{debug, error, info, warn};

use super::*;

/// A writer that keeps what is written.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(config: &LogConfig, sink: Option<LogSink>, say: impl FnOnce()) -> String {
    let page = Page::default();
    let writer = page.clone();
    with_default(subscriber(config, false, move || writer.clone(), sink).unwrap(), say);
    page.text()
}

fn lines() -> (LogSink, Arc<Mutex<Vec<LogLine>>>) {
    let kept: Arc<Mutex<Vec<LogLine>>> = Arc::default();
    let sink = Arc::clone(&kept);
    (Arc::new(move |line| sink.lock().unwrap().push(line)), kept)
}

#[test]
fn text_is_one_plain_line_per_event_at_the_level_asked_for() {
    let text = logged(&LogConfig::default(), None, || {
        warn!(port = 8082, "Stream closed");
        debug!("not asked for");
    });
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("WARN") && text.contains("Stream closed port=8082"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colour unless asked: {text:?}");
}

#[test]
fn json_is_one_object_per_event() {
    let config = LogConfig { format: LogFormat::Json, ..LogConfig::default() };
    let text = logged(&config, None, || info!(answer = 42, "Listening"));
    let object: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
    assert_eq!(object["level"], "INFO");
    assert_eq!(object["fields"]["message"], "Listening");
    assert_eq!(object["fields"]["answer"], 42);
}

#[test]
fn filters_follow_modules_and_mistakes_are_told() {
    let config = LogConfig { filter: "warn,noisy=off".to_owned(), ..LogConfig::default() };
    let text = logged(&config, None, || {
        info!("too low");
        error!(target: "noisy", "silenced");
        error!(target: "other", "heard");
    });
    assert!(text.contains("heard") && !text.contains("silenced") && !text.contains("too low"), "{text}");

    let config = LogConfig { filter: "doppler=loud".to_owned(), ..LogConfig::default() };
    let error = subscriber(&config, false, io::sink, None).err().unwrap().to_string();
    assert!(error.starts_with("log.filter \"doppler=loud\": ") && error.contains("such as \"info\""), "{error}");
}

#[test]
fn a_sink_gets_message_then_fields() {
    let (sink, kept) = lines();
    let before = SystemTime::now();
    logged(&LogConfig::default(), Some(sink), || {
        let cause = io::Error::other("gone");
        error!(%cause, count = 3, name = "a b", error = &cause as &dyn std::error::Error, "Stream closed");
        info!(only = true);
        debug!("below the filter");
    });
    let kept = kept.lock().unwrap();
    assert_eq!(kept.len(), 2);
    assert_eq!(kept[0].text, "Stream closed cause=gone count=3 name=\"a b\" error=gone");
    assert_eq!((kept[0].level, kept[0].target), (Level::ERROR, module_path!()));
    assert!(kept[0].time >= before);
    assert_eq!(kept[1].text, "only=true");
}

#[test]
fn a_sink_that_panics_does_not_silence_those_after_it() {
    let (sink, kept) = lines();
    let fragile: LogSink = Arc::new(move |line: LogLine| {
        assert!(!line.text.contains("poison"), "a sink that breaks");
        sink(line);
    });
    logged(&LogConfig::default(), Some(fragile), || {
        let broken = std::panic::catch_unwind(|| info!("poison"));
        assert!(broken.is_err());
        info!("after");
    });
    assert_eq!(kept.lock().unwrap().len(), 1);
}

#[test]
fn configuration_has_two_formats() {
    let config: LogConfig = toml::from_str("format = \"json\"").unwrap();
    assert_eq!(config, LogConfig { filter: "info".to_owned(), format: LogFormat::Json });
    let error = toml::from_str::<LogConfig>("format = \"xml\"").unwrap_err().to_string();
    assert!(error.contains("text") && error.contains("json"), "{error}");
    assert!(toml::from_str::<LogConfig>("level = \"info\"").is_err());
}
