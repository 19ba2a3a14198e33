//! Tests of `names`.

use proptest::prelude::*;

use super::*;

const RETRO: Naming = Naming::FirehoseExporter { retro_compat: true, enable_delta: true };
const MODERN: Naming = Naming::FirehoseExporter { retro_compat: false, enable_delta: false };

#[test]
fn contract_8_1_retro_compat_names() {
    let name = |purpose, name| RETRO.metric(purpose, "firehose", name, "p-mysql").unwrap();
    for (metric, counter, gauge) in [
        ("ingress", "firehose_counter_event_p_mysql_ingress_total", "firehose_value_metric_p_mysql_ingress"),
        ("a.b-c/d", "firehose_counter_event_p_mysql_a_b_c_d_total", "firehose_value_metric_p_mysql_a_b_c_d"),
        (
            "HTTPRequests.numCPUS",
            "firehose_counter_event_p_mysql_http_requests_num_cpus_total",
            "firehose_value_metric_p_mysql_http_requests_num_cpus",
        ),
        ("x_total", "firehose_counter_event_p_mysql_x_total_total", "firehose_value_metric_p_mysql_x_total"),
    ] {
        assert_eq!(name(Purpose::Counter, metric), counter);
        assert_eq!(name(Purpose::Gauge, metric), gauge);
    }
    assert_eq!(name(Purpose::Delta, "ingress"), "firehose_ingress_delta");
    assert_eq!(RETRO.metric(Purpose::Gauge, "firehose", "x", "").unwrap(), "firehose_value_metric__x");
}

#[test]
fn contract_8_1_container_metrics() {
    for (metric, series) in [
        ("cpu", "firehose_container_metric_cpu_percentage"),
        ("memory", "firehose_container_metric_memory_bytes"),
        ("disk", "firehose_container_metric_disk_bytes"),
        ("memory_quota", "firehose_container_metric_memory_bytes_quota"),
        ("disk_quota", "firehose_container_metric_disk_bytes_quota"),
        ("system_cpu", "firehose_system_cpu"),
    ] {
        assert!(is_container_metric(metric));
        assert_eq!(RETRO.metric(Purpose::Gauge, "firehose", metric, "rep").unwrap(), series);
    }
    assert!(!is_container_metric("syscpu") && !is_container_metric("cpu_entitlement"));
}

#[test]
fn contract_8_1_names_without_retro_compat() {
    let name = |purpose, name| MODERN.metric(purpose, "firehose", name, "rep").unwrap();
    assert_eq!(name(Purpose::Counter, "ingress"), "firehose_ingress_total");
    assert_eq!(name(Purpose::Counter, "ingress_total"), "firehose_ingress_total");
    assert_eq!(name(Purpose::Gauge, "memoryStats.lastGCPauseTimeNS"), "firehose_memory_stats_last_gc_pause_time_ns");
    assert_eq!(name(Purpose::Gauge, "memory"), "firehose_memory");
    let odd = "This_is_-_a-MetricName.Example/-._/._with:0_-._/totals";
    assert_eq!(name(Purpose::Gauge, odd), "firehose_this_is___a_metric_name_example_______with_0_____totals");
}

#[test]
fn plain_names() {
    let name = |purpose, name| Naming::Plain.metric(purpose, "", name, "rep").unwrap();
    assert_eq!(name(Purpose::Counter, "ingress"), "ingress_total");
    assert_eq!(name(Purpose::Counter, "requests.Total"), "requests_total");
    assert_eq!(name(Purpose::Gauge, "memoryStats.lastGCPauseTimeNS"), "memory_stats_last_gc_pause_time_ns");
    assert_eq!(name(Purpose::Gauge, "--a..b--"), "a_b");
    assert_eq!(name(Purpose::Gauge, "utf8Größe"), "utf8_gr_e");
    assert_eq!(name(Purpose::Gauge, "99th"), "_99th");
    assert_eq!(name(Purpose::Timer, "sql"), "sql_duration_seconds");
    assert_eq!(Naming::Plain.metric(Purpose::Gauge, "my-org", "cpu", "").unwrap(), "my_org_cpu");
    assert_eq!(Naming::Plain.metric(Purpose::Gauge, "", "-..", ""), None);
    assert_eq!(Naming::Plain.metric(Purpose::Counter, "", "", ""), None);
}

#[test]
fn contract_8_1_labels() {
    for (key, made) in [
        ("app_id", Some("app_id")),
        ("span-id", Some("span_id")),
        ("a.b/c", Some("a_b_c")),
        ("9th", Some("_9th")),
        ("__name__", None),
        ("--x", None),
        ("", None),
        ("__", None),
        ("_", Some("_")),
        ("é", Some("_")),
    ] {
        assert_eq!(label(key).as_deref(), made, "{key}");
    }
}

proptest! {
    #[test]
    fn names_are_always_valid(name in ".{0,600}", origin in ".{0,20}", namespace in "[a-zA-Z-]{0,9}") {
        for naming in [Naming::Plain, RETRO, MODERN] {
            for purpose in [Purpose::Counter, Purpose::Delta, Purpose::Gauge, Purpose::Timer] {
                if let Some(made) = naming.metric(purpose, &namespace, &name, &origin) {
                    prop_assert!(valid(&made), "{made}");
                }
            }
        }
        if let Some(label) = label(&name) {
            prop_assert!(valid(&label) && label.len() <= MAX_LABEL + 1 && !label.starts_with("__"), "{label}");
        }
    }
}

fn valid(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
