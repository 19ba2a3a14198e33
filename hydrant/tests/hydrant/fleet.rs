//! Separate processes over mutual TLS: agents, dopplers that come and go, traffic controllers; a load whose every line is accounted for.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;
use transport::{Address, ChannelOptions, Identity, TlsFiles};

use crate::harness::{Process, metrics, sum, until};

#[path = "fleet/certificates.rs"]
mod certificates;
#[path = "fleet/load.rs"]
pub(crate) mod load;
#[path = "fleet/membership.rs"]
mod membership;
#[path = "fleet/partition.rs"]
mod partition;
#[path = "fleet/restarts.rs"]
mod restarts;
#[path = "fleet/zones.rs"]
mod zones;

/// Certificates made by `hydrant certs init`.
pub(crate) struct Certs(TempDir);

impl Certs {
    pub(crate) fn make() -> Self {
        transport::install_crypto_provider();
        let dir = tempfile::tempdir().unwrap();
        let made = Command::new(env!("CARGO_BIN_EXE_hydrant"))
            .args(["certs", "init", "--dir"])
            .arg(dir.path().join("certs"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self(dir)
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.0.path().join("certs")
    }

    pub(crate) fn files(&self, role: &str) -> TlsFiles {
        let dir = self.dir();
        TlsFiles { cert: dir.join(format!("{role}.pem")), key: dir.join(format!("{role}.key")), ca: dir.join("ca.pem") }
    }

    /// The table of a role's files, inline.
    pub(crate) fn toml(&self, role: &str) -> String {
        let TlsFiles { cert, key, ca } = self.files(role);
        format!("{{ cert = '{}', key = '{}', ca = '{}' }}", cert.display(), key.display(), ca.display())
    }

    /// A channel that shows the certificate of `role` to a server of the name.
    pub(crate) async fn channel(&self, addr: SocketAddr, role: &str, name: &'static str) -> tonic::transport::Channel {
        let identity = Identity::load(&self.files(role)).unwrap();
        transport::connect(&Address::from(addr), &ChannelOptions::tls(identity, name)).await.unwrap()
    }
}

/// A doppler at `listen`, over mutual TLS.
pub(crate) async fn doppler(certs: &Certs, listen: &str) -> Process {
    doppler_with(certs, listen, "").await
}

/// The same with `more` configuration.
pub(crate) async fn doppler_with(certs: &Certs, listen: &str, more: &str) -> Process {
    let config = format!(
        "doppler.grpc.tls = {}\ndoppler.grpc.access.enforce = true\ndoppler.flush_timeout = \"10s\"\n{more}\n",
        certs.toml("doppler")
    );
    Process::start_with("doppler", &config, &[("HYDRANT_DOPPLER__GRPC__LISTEN", listen.to_owned())]).await
}

/// An agent that knows `dopplers` (the inside of its `[[agent.dopplers]]` entries), with `more` configuration.
pub(crate) async fn agent(certs: &Certs, dopplers: &[String], more: &str) -> Process {
    let mut config =
        format!("agent.grpc.tls = {}\nagent.doppler_tls = {}\n{more}\n", certs.toml("agent"), certs.toml("agent"));
    for entry in dopplers {
        config.push_str(&format!("[[agent.dopplers]]\n{entry}\n"));
    }
    Process::start("agent", &config).await
}

/// A traffic controller that knows `dopplers`.
pub(crate) async fn controller(certs: &Certs, dopplers: &[String]) -> Process {
    let mut config = format!(
        "traffic_controller.grpc.tls = {}\ntraffic_controller.doppler_tls = {}\n",
        certs.toml("traffic-controller"),
        certs.toml("traffic-controller")
    );
    for entry in dopplers {
        config.push_str(&format!("[[traffic_controller.dopplers]]\n{entry}\n"));
    }
    Process::start("traffic-controller", &config).await
}

/// An entry that lists addresses.
pub(crate) fn listed<'a>(dopplers: impl IntoIterator<Item = &'a Process>) -> String {
    let addresses: Vec<String> = dopplers.into_iter().map(|doppler| format!("\"{}\"", doppler.addr("grpc"))).collect();
    format!("addresses = [{}]", addresses.join(", "))
}

/// Waits until an agent is connected to so many dopplers.
pub(crate) async fn linked(agent: &Process, dopplers: u64) {
    until(agent.addr("admin"), |metrics| sum(metrics, "hydrant_links", "") == dopplers).await;
}

/// Waits until a doppler has so many subscriptions.
pub(crate) async fn subscribed(doppler: &Process, subscriptions: u64) {
    until(doppler.addr("admin"), |metrics| sum(metrics, "hydrant_subscriptions", "") == subscriptions).await;
}

/// What of a family all of `processes` have counted.
pub(crate) async fn counted(processes: &[Process], family: &str) -> u64 {
    let mut all = 0;
    for process in processes {
        all += sum(&metrics(process.addr("admin")).await, family, "");
    }
    all
}
