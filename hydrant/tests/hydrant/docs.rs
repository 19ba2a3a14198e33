//! The documents tell the truth about what can be checked by machine.

use std::path::PathBuf;

use hydrant::Config;

use crate::harness::{Process, get, pipeline};

fn document(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_toml_block_is_a_configuration() {
    let mut checked = 0;
    for name in ["README.md", "docs/agent.md", "docs/configuration.md", "docs/drains.md", "docs/operating.md"] {
        for block in document(name).split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            match toml::from_str::<Config>(block) {
                // What needs a feature can be read without it, and is checked with it.
                Ok(_) if block.contains("nats://") && !cfg!(feature = "nats") => {}
                Ok(config) => {
                    config.adapters.check().unwrap_or_else(|error| panic!("{name}:\n{block}\n{error}"));
                    config.agent.check().unwrap_or_else(|error| panic!("{name}:\n{block}\n{error}"));
                }
                Err(error) => panic!("{name}:\n{block}\n{error}"),
            }
            checked += 1;
        }
    }
    assert!(checked >= 3, "only {checked} blocks were checked");
}

/// `docs/cli.md` names every command.
#[tokio::test]
async fn every_command_is_documented() {
    let (help, _, _) = crate::commands::run(&["--help"]).await;
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<&str> =
        names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect();
    assert!(names.len() > 15, "{help}");
    let document = document("docs/cli.md");
    let heads: Vec<&str> = document.lines().filter(|line| line.starts_with("## ")).collect();
    for name in names {
        let named = |head: &&str| head.split([' ', ',']).any(|word| word == name);
        assert!(heads.iter().any(named), "docs/cli.md does not name {name}");
    }
}

/// `docs/metrics.md` lists every family of every role, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_documented() {
    let up = pipeline("").await;
    let document = document("docs/metrics.md");
    let documented: std::collections::BTreeSet<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split('`').next())
        .map(|name| name.split('{').next().unwrap_or(name))
        .collect();
    let mut served = std::collections::BTreeSet::new();
    let node = Process::start("log-cache", JUMP).await;
    let roles = [up.agent().admin, up.doppler().admin, up.traffic_controller().admin, up.adapters().admin];
    for admin in roles.into_iter().chain([node.addr("admin")]) {
        let page = get(admin, "/metrics").await.body;
        served
            .extend(page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next().map(str::to_owned)));
    }
    let missing: Vec<&String> = served.iter().filter(|name| !documented.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "docs/metrics.md does not list {missing:?}");
    let unknown: Vec<&&str> = documented
        .iter()
        .filter(|name| name.starts_with("hydrant_") && !served.contains(**name) && !CONDITIONAL.contains(name))
        .collect();
    assert!(unknown.is_empty(), "docs/metrics.md lists {unknown:?}, which no role has");
    up.shutdown().await.unwrap();
}

/// A node with another.
const JUMP: &str =
    "log_cache.cluster = { placement = \"jump\", nodes = [\"127.0.0.1:1\", \"127.0.0.1:2\"], node_index = 0 }\n";

/// Families that appear only under a configuration that this pipeline does not have: TLS, an insecure choice, a drain.
const CONDITIONAL: [&str; 7] = [
    "hydrant_insecure_mode",
    "hydrant_certificate_not_after_timestamp_seconds",
    "hydrant_certificate_reload_failed",
    "hydrant_certificate_reloads_total",
    "hydrant_drain_delivered_envelopes_total",
    "hydrant_drain_dropped_envelopes_total",
    "hydrant_drain_state",
];
