//! Tests of the set of dopplers.

use super::*;

#[derive(Debug, serde::Deserialize)]
struct Config {
    dopplers: Vec<DopplerSet>,
}

fn texts(dopplers: &Dopplers) -> Vec<String> {
    dopplers.current().iter().map(Address::to_string).collect()
}

#[test]
fn entries_join_in_the_order_written_each_address_once() {
    let config: Config = toml::from_str(
        "[[dopplers]]\nzone = \"z1\"\naddresses = [\"a:1\", \"b:2\"]\n[[dopplers]]\nzone = \"z2\"\naddresses = [\"a:1\", \"c:3\"]\n",
    )
    .unwrap();
    let dopplers = Dopplers::new(&config.dopplers).unwrap();
    assert_eq!(texts(&dopplers), ["a:1", "b:2", "c:3"]);
    let zones: Vec<_> = dopplers.members().iter().map(|doppler| doppler.zone.clone().unwrap().to_string()).collect();
    assert_eq!(zones, ["z1", "z1", "z2"]);
}

#[test]
fn configuration_names_the_entry_that_is_wrong() {
    let error = |text: &str| toml::from_str::<Config>(text).unwrap_err().to_string();
    let wrong = error("[[dopplers]]\naddresses = [\"a\"]\n");
    assert!(wrong.contains("line 2") && wrong.contains("as in \"a:8082\""), "{wrong}");
    assert!(error("[[dopplers]]\naddress = [\"a:1\"]\n").contains("addresses"));
    for both in
        ["addresses = [\"a:1\"]\ndns = \"b:1\"", "file = \"x\"\ndns = \"b:1\"", "zone = \"z\"", "addresses = []"]
    {
        assert!(error(&format!("[[dopplers]]\n{both}\n")).contains("exactly one of"), "{both}");
    }
    assert!(error("[[dopplers]]\naddresses = [\"a:1\"]\nzone = \"\"\n").contains("`zone` is empty"));
    assert!(error("[[dopplers]]\ndns = \"b:1\"\nrefresh = \"0s\"\n").contains("a duration of zero"));
}

#[test]
fn an_entry_is_written_as_it_is_read() {
    let set = DopplerSet { zone: Some("z1".to_owned()), ..DopplerSet::of(["a:1".parse::<Address>().unwrap()]) };
    let text = toml::to_string(&set).unwrap();
    assert_eq!(toml::from_str::<DopplerSet>(&text).unwrap(), set);
    assert!(!text.contains("dns"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_fixed_set_never_changes() {
    let mut dopplers = Dopplers::fixed([]);
    assert!(dopplers.current().is_empty() && dopplers.is_never());
    assert!(tokio::time::timeout(Duration::from_secs(3600), dopplers.changed()).await.is_err());
}

#[test]
fn a_file_that_is_wrong_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dopplers");
    let of_file = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Dopplers::new(&[DopplerSet { file: Some(path.clone()), ..DopplerSet::default() }])
    };
    assert_eq!(texts(&of_file("# ours\n\na:1 # first\n  b:2\na:1\n").unwrap()), ["a:1", "b:2"]);
    let error = of_file("a:1\nb\n").unwrap_err().to_string();
    assert!(error.contains("dopplers, line 2: \"b\" has no port"), "{error}");
    assert!(of_file("# nobody\n").unwrap_err().to_string().contains("names no doppler"));
    std::fs::remove_file(&path).unwrap();
    let missing = Dopplers::new(&[DopplerSet { file: Some(path.clone()), ..DopplerSet::default() }]);
    assert!(missing.unwrap_err().to_string().contains("one host:port a line"));
}

#[test]
fn five_hundred_are_used_and_a_thousand_are_the_most() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dopplers");
    for (named, used) in [(500, 500), (1000, 1000), (1001, 1000), (5000, 1000)] {
        let text: String = (0..named).map(|i| format!("10.0.{}.{}:8082\n", i / 256, i % 256)).collect();
        std::fs::write(&path, text).unwrap();
        let set = DopplerSet { file: Some(path.clone()), ..DopplerSet::default() };
        assert_eq!(Dopplers::new(&[set]).unwrap().current().len(), used);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_is_read_again_and_a_bad_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dopplers");
    std::fs::write(&path, "a:1\n").unwrap();
    let set = DopplerSet { file: Some(path.clone()), zone: Some("z".to_owned()), ..DopplerSet::default() };
    let mut dopplers = Dopplers::new(&[set]).unwrap();
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    dopplers.refresh(&tracker, &stop);

    std::fs::write(&path, "a:1\nb:2\n").unwrap();
    assert_eq!(dopplers.changed().await.len(), 2);
    for bad in ["", "# nothing\n", "garbage\u{0}\n", "a:1\nb\n"] {
        std::fs::write(&path, bad).unwrap();
        let before = dopplers.failures();
        while dopplers.failures() == before {
            tokio::time::advance(Duration::from_secs(1)).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(texts(&dopplers), ["a:1", "b:2"]);
    }
    std::fs::write(&path, "c:3\n").unwrap();
    assert_eq!(&*dopplers.changed().await, ["c:3".parse().unwrap()]);
    stop.cancel();
    tracker.close();
    tracker.wait().await;
}

#[tokio::test]
async fn a_name_is_looked_up_at_once_and_one_without_an_answer_leaves_the_set_empty() {
    let set = |name: &str| DopplerSet { dns: Some(name.parse().unwrap()), ..DopplerSet::default() };
    let mut known = Dopplers::new(&[set("localhost:8082")]).unwrap();
    let unknown = Dopplers::new(&[set("no-such-host.invalid:8082")]).unwrap();
    assert!(known.current().is_empty() && !known.is_never());
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    known.refresh(&tracker, &stop);
    unknown.refresh(&tracker, &stop);
    let found = known.changed().await;
    assert!(found.iter().any(|address| address.to_string() == "127.0.0.1:8082"), "{found:?}");
    while unknown.failures() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(unknown.current().is_empty());
    stop.cancel();
}
