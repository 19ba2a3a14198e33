//! What is rendered, what is refused, and what is kept apart.

use super::*;

#[test]
fn every_family_has_help_type_and_samples() {
    let telemetry = Telemetry::default();
    telemetry.counter("hydrant_received_envelopes_total", "Envelopes received.", &[]).increment(3);
    let depth = |queue| telemetry.gauge("hydrant_queue_depth_bytes", "Bytes kept alive.", &[("queue", queue)]);
    depth("agent").set(7.0);
    depth("doppler").set(9.5);
    let age = telemetry.histogram("hydrant_batch_age_seconds", "Age of a batch when it leaves.", &[]);
    age.record(0.003);
    age.record(100.0);

    let text = telemetry.render();
    for line in [
        "# HELP hydrant_received_envelopes_total Envelopes received.",
        "# TYPE hydrant_received_envelopes_total counter",
        "hydrant_received_envelopes_total 3",
        "# HELP hydrant_queue_depth_bytes Bytes kept alive.",
        "# TYPE hydrant_queue_depth_bytes gauge",
        "hydrant_queue_depth_bytes{queue=\"agent\"} 7",
        "hydrant_queue_depth_bytes{queue=\"doppler\"} 9.5",
        "# TYPE hydrant_batch_age_seconds histogram",
        "hydrant_batch_age_seconds_bucket{le=\"0.0025\"} 0",
        "hydrant_batch_age_seconds_bucket{le=\"0.005\"} 1",
        "hydrant_batch_age_seconds_bucket{le=\"+Inf\"} 2",
        "hydrant_batch_age_seconds_count 2",
    ] {
        assert!(text.lines().any(|found| found == line), "missing {line:?} in\n{text}");
    }
}

#[test]
fn the_same_name_and_labels_are_one_number() {
    let telemetry = Telemetry::default();
    for _ in 0..2 {
        telemetry.clone().counter("hydrant_x_total", "X.", &[("reason", "a")]).increment(1);
    }
    assert!(telemetry.render().contains("hydrant_x_total{reason=\"a\"} 2\n"));
    assert_eq!(telemetry.families().len(), 1);
}

#[test]
fn two_registries_share_nothing() {
    let (one, other) = (Telemetry::default(), Telemetry::default());
    one.counter("hydrant_x_total", "X.", &[]).increment(5);
    other.counter("hydrant_x_total", "X.", &[]).increment(1);
    assert!(one.render().contains("hydrant_x_total 5\n"));
    assert!(other.render().contains("hydrant_x_total 1\n"));
}

#[test]
fn families_are_listed_by_name_for_the_document() {
    let telemetry = Telemetry::default();
    let _ = telemetry.gauge("hydrant_b", "B.", &[]);
    let _ = telemetry.counter("hydrant_a_total", "A.", &[]);
    let listed: Vec<_> = telemetry.families().iter().map(|family| format!("{} {}", family.name, family.kind)).collect();
    assert_eq!(listed, ["hydrant_a_total counter", "hydrant_b gauge"]);
}

#[test]
fn hooks_run_before_each_rendering() {
    let telemetry = Telemetry::default();
    let gauge = telemetry.gauge("hydrant_renders", "Renderings so far.", &[]);
    telemetry.before_render(move || gauge.increment(1.0));
    telemetry.render();
    assert!(telemetry.render().contains("hydrant_renders 2\n"));
}

#[test]
fn insecure_choices_show() {
    let telemetry = Telemetry::default();
    telemetry.insecure_mode("no_tls");
    assert!(telemetry.render().contains("hydrant_insecure_mode{choice=\"no_tls\"} 1\n"));
}

#[test]
fn label_values_are_escaped() {
    let telemetry = Telemetry::default();
    telemetry.counter("hydrant_x_total", "X.", &[("drain", "a\"b\\c\nd")]).increment(1);
    assert!(telemetry.render().contains("hydrant_x_total{drain=\"a\\\"b\\\\c\\nd\"} 1\n"), "{}", telemetry.render());
}

#[test]
fn bad_names_are_told_what_is_right() {
    let fault = |name, kind, help, labels: &[(&'static str, &str)]| fault(&Family { name, kind, help }, labels);
    assert_eq!(fault("hydrant_x_total", Kind::Counter, "X.", &[("reason", "Any Value")]), None);
    assert_eq!(fault("hydrant_x_bytes", Kind::Gauge, "X.", &[]), None);
    assert_eq!(fault("hydrant_x_seconds", Kind::Histogram, "X.", &[]), None);
    for (name, kind, help, label) in [
        ("hydrant_x", Kind::Counter, "X.", "reason"),
        ("hydrant_x_total", Kind::Gauge, "X.", "reason"),
        ("hydrant_x_count", Kind::Gauge, "X.", "reason"),
        ("hydrant_x", Kind::Histogram, "X.", "reason"),
        ("hydrant_x_ms", Kind::Gauge, "X.", "reason"),
        ("hydrantX_total", Kind::Counter, "X.", "reason"),
        ("hydrant-x_total", Kind::Counter, "X.", "reason"),
        ("", Kind::Gauge, "X.", "reason"),
        ("hydrant_x_total", Kind::Counter, "", "reason"),
        ("hydrant_x_total", Kind::Counter, "X.", "Reason"),
        ("hydrant_x_total", Kind::Counter, "X.", "le"),
        ("hydrant_x_total", Kind::Counter, "X.", "source_id"),
    ] {
        assert!(fault(name, kind, help, &[(label, "v")]).is_some(), "{name} {kind} {help:?} {label}");
    }
}

#[test]
#[should_panic(expected = "a counter ends in _total")]
fn a_bad_name_panics_where_it_is_registered() {
    let _ = Telemetry::default().counter("hydrant_x", "X.", &[]);
}

#[test]
#[should_panic(expected = "is registered as")]
fn one_name_has_one_meaning() {
    let telemetry = Telemetry::default();
    let _ = telemetry.counter("hydrant_x_total", "X.", &[]);
    let _ = telemetry.counter("hydrant_x_total", "Y.", &[]);
}

#[tokio::test(start_paused = true)]
async fn upkeep_folds_samples_until_it_is_told_to_stop() {
    let telemetry = Telemetry::default();
    let stop = CancellationToken::new();
    let samples = telemetry.histogram("hydrant_x_seconds", "X.", &[]);
    samples.record(1.0);
    let told = async {
        tokio::time::sleep(Duration::from_secs(12)).await;
        stop.cancel();
    };
    tokio::join!(telemetry.upkeep(&stop), told);
    assert!(telemetry.render().contains("hydrant_x_seconds_count 1\n"));
}
