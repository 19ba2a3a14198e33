//! Where servers under test live: certificates, configuration files, child processes.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::task::TaskTracker;
use transport::{ChannelOptions, TestCerts, TlsFiles};

use super::Setup;
use super::sink::Sink;
use crate::procs::{ProcError, Server};
use crate::run::{Peer, RunError, Target, Watched};
use crate::scrape::{self, ScrapeError};
use crate::socket::{Endpoint, Form};

/// Why a scenario could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// A server process.
    #[error(transparent)]
    Server(#[from] ProcError),
    /// A load.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A server's counters.
    #[error(transparent)]
    Scrape(#[from] ScrapeError),
    /// A directory for a buffer could not be made.
    #[error("a directory for the buffer on disk: {0}")]
    Disk(std::io::Error),
    /// A configuration file could not be written.
    #[error("writing {path}: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The receiver of lines could not listen.
    #[error("listening for lines: {0}")]
    Sink(std::io::Error),
    /// This program does not know where it is.
    #[error("this program's own path: {0}")]
    OwnPath(std::io::Error),
    /// A read of a cache.
    #[error("reading the cache: {0}")]
    Read(Box<tonic::Status>),
    /// A read of a cache over HTTP.
    #[error("reading the cache over HTTP: {0}")]
    Rest(std::io::Error),
    /// A server process could not be measured.
    #[error("measuring a server: {0}")]
    Measure(std::io::Error),
}

/// A directory of its own with an authority, and the programs to start.
pub(super) struct Bed {
    certs: TestCerts,
    plain: bool,
    own: PathBuf,
    hydrant: PathBuf,
    tracker: TaskTracker,
}

/// The servers of one load.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) target: Target,
    pub(super) watched: Vec<Watched>,
    running: Vec<Server>,
}

impl Bed {
    pub(super) fn new(setup: &Setup) -> Result<Self, ScenarioError> {
        let own = std::env::current_exe().map_err(ScenarioError::OwnPath)?;
        let hydrant = setup.hydrant.clone().unwrap_or_else(|| own.with_file_name("hydrant"));
        Ok(Self { certs: TestCerts::new(), plain: setup.plain, own, hydrant, tracker: TaskTracker::new() })
    }

    /// Waits for what reads the output of servers that have ended.
    pub(super) async fn close(self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// A relay with this many outputs.
    pub(super) async fn relay(&self, outputs: u32) -> Result<Servers, ScenarioError> {
        let mut args: Vec<OsString> = vec!["relay".into(), "--outputs".into(), outputs.to_string().into()];
        args.extend(["--listen".into(), "127.0.0.1:0".into()]);
        if !self.plain {
            self.certs.files("doppler");
            args.extend(["--tls".into(), self.certs.dir().into()]);
        }
        let relay = self.start("relay", &self.own, &args).await?;
        let grpc = self.peer(relay.addr("relay", "grpc")?, "doppler");
        let watched = vec![Watched { name: "relay".into(), pid: relay.pid(), admin: None, before_groups: |_| true }];
        Ok(Servers {
            target: Target { ingress: grpc.clone(), egress: grpc, socket: None },
            watched,
            running: vec![relay],
        })
    }

    /// One doppler.
    pub(super) async fn doppler(&self, cache: bool) -> Result<Servers, ScenarioError> {
        let doppler = self.role("doppler", &self.doppler_toml(cache)).await?;
        let grpc = self.peer(doppler.addr("doppler", "grpc")?, "doppler");
        let watched = vec![watch_doppler(&doppler)?];
        Ok(Servers {
            target: Target { ingress: grpc.clone(), egress: grpc, socket: None },
            watched,
            running: vec![doppler],
        })
    }

    /// A doppler with its cache and a traffic controller; the latter's gRPC and log-cache ports.
    pub(super) async fn read(&self) -> Result<(Servers, Peer, SocketAddr), ScenarioError> {
        let doppler = self.role("doppler", &self.doppler_toml(true)).await?;
        let grpc = doppler.addr("doppler", "grpc")?;
        let controller = self.role("traffic-controller", &self.controller_toml(&[grpc])).await?;
        let at = |name| controller.addr("traffic_controller", name);
        let (reads, rest) = (self.peer(at("grpc")?, "reverselogproxy"), at("rest")?);
        let watched =
            Watched { name: "traffic-controller".into(), pid: controller.pid(), admin: None, before_groups: |_| false };
        let (peer, watched) = (self.peer(grpc, "doppler"), vec![watch_doppler(&doppler)?, watched]);
        let target = Target { ingress: peer.clone(), egress: peer, socket: None };
        Ok((Servers { target, watched, running: vec![doppler, controller] }, reads, rest))
    }

    /// Agent, so many dopplers and traffic controller, read over gRPC, or over WebSocket in this form.
    pub(super) async fn path(
        &self,
        cache: bool,
        dopplers: u32,
        form: Option<Form>,
    ) -> Result<(Servers, Vec<SocketAddr>), ScenarioError> {
        let mut routers = Vec::new();
        for _ in 0..dopplers {
            routers.push(self.role("doppler", &self.doppler_toml(cache)).await?);
        }
        let addrs = |name| routers.iter().map(|router| router.addr("doppler", name)).collect::<Result<Vec<_>, _>>();
        let (grpc, admins) = (addrs("grpc")?, addrs("admin")?);
        let controller = self.role("traffic-controller", &self.controller_toml(&grpc)).await?;
        let agent = self.role("agent", &self.agent_toml(&grpc)).await?;
        let http = controller.addr("traffic_controller", "http")?;
        let target = Target {
            ingress: self.peer(agent.addr("agent", "grpc")?, "metron"),
            egress: self.peer(controller.addr("traffic_controller", "grpc")?, "reverselogproxy"),
            socket: form.map(|form| Endpoint { addr: http, form }),
        };
        let watch = |server: &Server, role: &str, before_groups| -> Result<Watched, ProcError> {
            let admin = Some(server.addr(role, "admin")?);
            Ok(Watched { name: server.name().to_owned(), pid: server.pid(), admin, before_groups })
        };
        let mut watched = vec![watch(&agent, "agent", |_| true)?];
        for router in &routers {
            watched.push(watch_doppler(router)?);
        }
        watched.push(watch(&controller, "traffic_controller", |_| false)?);
        // In the order in which they can be stopped without a loss.
        let running = [agent].into_iter().chain(routers).chain([controller]).collect();
        Ok((Servers { target, watched, running }, admins))
    }

    /// A receiver of lines.
    pub(super) async fn sink(&self, tls: bool) -> Result<Sink, ScenarioError> {
        let certs = tls.then_some(&self.certs);
        Sink::start(certs, &self.tracker).await.map_err(ScenarioError::Sink)
    }

    /// A doppler, and adapters with a drain to `receiver`, subscribed, that buffers below `disk`; and the admin ports of both.
    pub(super) async fn drained(
        &self,
        receiver: SocketAddr,
        tls: bool,
        disk: Option<&Path>,
    ) -> Result<(Servers, [SocketAddr; 2]), ScenarioError> {
        self.with_adapters(disk, &self.drain_toml(receiver, tls, disk.is_some()), 1).await
    }

    /// A doppler, and adapters with a syslog drain of each of these sources to its address, subscribed; and the admin ports of both.
    pub(super) async fn many_drains(
        &self,
        drains: &[(String, SocketAddr)],
    ) -> Result<(Servers, [SocketAddr; 2]), ScenarioError> {
        let toml = drains.iter().map(|(source, receiver)| {
            format!(
                "[[adapters.drains]]\nname = \"{source}\"\nurl = \"syslog://{receiver}\"\nsources = [\"{source}\"]\nline.framing = \"line-feed\"\n"
            )
        });
        self.with_adapters(None, &toml.collect::<String>(), drains.len() as u64).await
    }

    /// A doppler, and adapters with a drain of all metrics to `url`, subscribed; and the admin ports of both.
    pub(super) async fn metrics_drain(&self, url: &str) -> Result<(Servers, [SocketAddr; 2]), ScenarioError> {
        let toml = format!(
            "[[adapters.drains]]\nname = \"metrics\"\nurl = \"{url}\"\nring = {{ envelopes = 65536, bytes = 67108864 }}\n"
        );
        self.with_adapters(None, &toml, 1).await
    }

    /// A doppler, and adapters with `drains`, once these have that many subscriptions; and the admin ports of both.
    async fn with_adapters(
        &self,
        state_dir: Option<&Path>,
        drains: &str,
        subscriptions: u64,
    ) -> Result<(Servers, [SocketAddr; 2]), ScenarioError> {
        let doppler = self.role("doppler", &self.doppler_toml(false)).await?;
        let grpc = doppler.addr("doppler", "grpc")?;
        let state = state_dir.map_or_else(String::new, |dir| format!("state_dir = '{}'\n", dir.display()));
        let toml = format!(
            "[adapters]\n{state}{}[adapters.admin]\nlisten = \"127.0.0.1:0\"\n[[adapters.dopplers]]\naddresses = [\"{grpc}\"]\n{drains}",
            self.tls_toml("doppler_tls", "adapters")
        );
        let adapters = self.role("adapters", &toml).await?;
        let (at_doppler, admin) = (doppler.addr("doppler", "admin")?, adapters.addr("adapters", "admin")?);
        while scrape::number(at_doppler, "hydrant_subscriptions").await? < subscriptions {
            sleep(Duration::from_millis(20)).await;
        }
        let peer = self.peer(grpc, "doppler");
        let drain = Watched { name: "adapters".into(), pid: adapters.pid(), admin: None, before_groups: |_| false };
        let watched = vec![watch_doppler(&doppler)?, drain];
        let target = Target { ingress: peer.clone(), egress: peer, socket: None };
        Ok((Servers { target, watched, running: vec![doppler, adapters] }, [at_doppler, admin]))
    }

    /// A doppler without its cache and an agent that sums statsd up for a second, over plain text: nothing but datagrams is measured.
    pub(super) async fn statsd(&self, native: bool, sockets: u32) -> Result<(Server, Server), ScenarioError> {
        let doppler = self.role("doppler", &self.doppler_toml(false)).await?;
        let mapping = if native { "native" } else { "classic" };
        let statsd = format!("\nmapping = \"{mapping}\"\nsockets = {sockets}\nflush_interval = \"1s\"\n");
        let toml = self.agent_toml(&[doppler.addr("doppler", "grpc")?]).replacen(
            "[agent.dropsonde]",
            &(statsd + "[agent.dropsonde]"),
            1,
        );
        let agent = self.role("agent", &toml).await?;
        Ok((doppler, agent))
    }

    /// For tasks of a scenario's own, which end before it is closed.
    pub(super) fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// Everything in one process.
    pub(super) async fn up(&self) -> Result<Server, ScenarioError> {
        let any = "listen = \"127.0.0.1:0\"";
        let toml = format!(
            "[agent.grpc]\n{any}\n[agent.statsd]\n{any}\n[agent.dropsonde]\n{any}\n[agent.admin]\n{any}\n\
             [doppler.grpc]\n{any}\n[doppler.cache_grpc]\n{any}\n[doppler.admin]\n{any}\n\
             [traffic_controller.http]\n{any}\n[traffic_controller.grpc]\n{any}\n[traffic_controller.rest]\n{any}\n\
             [traffic_controller.gateway]\n{any}\n[traffic_controller.admin]\n{any}\n[adapters.admin]\n{any}\n"
        );
        self.role("up", &toml).await
    }

    async fn role(&self, role: &str, toml: &str) -> Result<Server, ScenarioError> {
        let path = self.certs.dir().join(format!("{role}.toml"));
        std::fs::write(&path, toml).map_err(|source| ScenarioError::Write { path: path.clone(), source })?;
        let args = [role.into(), "--config".into(), path.into(), "--print-addrs".into()];
        self.start(role, &self.hydrant, &args).await
    }

    async fn start(&self, name: &str, program: &Path, args: &[OsString]) -> Result<Server, ScenarioError> {
        Ok(Server::start(name, program, args, self.certs.dir(), &self.tracker).await?)
    }

    fn peer(&self, addr: SocketAddr, name: &'static str) -> Peer {
        let options = if self.plain {
            ChannelOptions::default()
        } else {
            ChannelOptions::tls(self.certs.identity("loadtest"), name)
        };
        Peer { address: addr.into(), options }
    }

    fn doppler_toml(&self, cache: bool) -> String {
        format!(
            "[doppler.grpc]\nlisten = \"127.0.0.1:0\"\n{}[doppler.cache_grpc]\nlisten = \"127.0.0.1:0\"\n\
             [doppler.cache]\nenabled = {cache}\n[doppler.admin]\nlisten = \"127.0.0.1:0\"\n",
            self.tls_toml("tls", "doppler")
        )
    }

    fn agent_toml(&self, dopplers: &[SocketAddr]) -> String {
        format!(
            "[agent]\n{}[agent.grpc]\nlisten = \"127.0.0.1:0\"\n{}[agent.statsd]\nlisten = \"127.0.0.1:0\"\n[agent.dropsonde]\nlisten = \"127.0.0.1:0\"\n\
             [agent.admin]\nlisten = \"127.0.0.1:0\"\n[[agent.dopplers]]\naddresses = {:?}\n",
            self.tls_toml("doppler_tls", "metron"),
            self.tls_toml("tls", "metron"),
            texts(dopplers)
        )
    }

    fn controller_toml(&self, dopplers: &[SocketAddr]) -> String {
        let any = "listen = \"127.0.0.1:0\"";
        format!(
            "[traffic_controller]\n{}[traffic_controller.grpc]\n{any}\n{}[traffic_controller.http]\n{any}\n\
             [traffic_controller.gateway]\n{any}\n[traffic_controller.rest]\n{any}\n[traffic_controller.admin]\n{any}\n\
             [[traffic_controller.dopplers]]\naddresses = {:?}\n",
            self.tls_toml("doppler_tls", "reverselogproxy"),
            self.tls_toml("tls", "reverselogproxy"),
            texts(dopplers)
        )
    }

    fn drain_toml(&self, receiver: SocketAddr, tls: bool, disk: bool) -> String {
        let (scheme, trust) = if tls {
            let ca = self.certs.files("receiver").ca;
            ("syslog-tls", format!("tls = {{ ca = '{}', server_name = \"receiver\" }}\n", ca.display()))
        } else {
            ("syslog", String::new())
        };
        let buffer =
            if disk { "buffer = \"disk\"\ndisk = { bytes = 4294967296, keep_free_percent = 0 }\n" } else { "" };
        format!(
            "[[adapters.drains]]\nname = \"drain\"\nurl = \"{scheme}://{receiver}\"\n{trust}\
             ring = {{ envelopes = 65536, bytes = 67108864 }}\n{buffer}"
        )
    }

    fn tls_toml(&self, key: &str, name: &str) -> String {
        if self.plain {
            return String::new();
        }
        let TlsFiles { cert, key: private, ca } = self.certs.files(name);
        format!("{key} = {{ cert = '{}', key = '{}', ca = '{}' }}\n", cert.display(), private.display(), ca.display())
    }
}

/// Addresses as TOML has them.
fn texts(addrs: &[SocketAddr]) -> Vec<String> {
    addrs.iter().map(ToString::to_string).collect()
}

/// What a doppler refuses at ingress is missing in every group; the rest it drops for one group at a time.
fn watch_doppler(doppler: &Server) -> Result<Watched, ProcError> {
    let admin = Some(doppler.addr("doppler", "admin")?);
    let before_groups = |reason: &str| matches!(reason, "decode_error" | "oversize" | "too_many");
    Ok(Watched { name: "doppler".into(), pid: doppler.pid(), admin, before_groups })
}

impl Servers {
    /// Stops them in the order of the flow.
    pub(super) async fn stop(self) -> Result<(), ProcError> {
        for server in self.running {
            server.stop().await?;
        }
        Ok(())
    }
}
