//! The log as a process sets it up. One test only: a process has one subscriber.

use std::sync::{Arc, Mutex};

use hydrant_telemetry::{LogConfig, LogSink, LoggingError, init};
use tracing::{info, warn};

#[test]
fn what_a_sink_logs_does_not_come_back_to_it_and_the_log_is_set_up_once() {
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&lines);
    let sink: LogSink = Arc::new(move |line| {
        warn!(target: "sink_test", "The queue is full");
        kept.lock().unwrap().push(line.text);
    });
    let config = LogConfig { filter: "off,sink_test=info".to_owned(), ..LogConfig::default() };
    init(&config, Some(sink)).unwrap();
    info!(target: "sink_test", number = 1, "Heard");
    info!(target: "elsewhere", "Not asked for");
    info!(target: "sink_test", number = 2, "Heard");
    assert_eq!(*lines.lock().unwrap(), ["Heard number=1", "Heard number=2"]);

    let again = init(&LogConfig::default(), None);
    assert!(matches!(again, Err(LoggingError::AlreadySet(_))), "{again:?}");
}
