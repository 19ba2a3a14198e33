//! A NATS server of its own for a test, and an independent client that looks into it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// A server on loopback with JetStream on disk. It ends with this.
pub(crate) struct NatsServer {
    pub(crate) addr: SocketAddr,
    /// Goes before the address in the URLs of the judge: `user:password@`.
    pub(crate) login: String,
    dir: TempDir,
    process: Option<Child>,
}

impl NatsServer {
    /// Starts one with `more` in its configuration.
    pub(crate) async fn start(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("js").display().to_string();
        let jetstream = format!("jetstream {{ store_dir: {store:?}, max_file_store: 4GB, max_memory_store: 256MB }}");
        Self::start_in(dir, &format!("{jetstream}\n{more}")).await
    }

    /// Starts one that has no streams.
    pub(crate) async fn without_jetstream() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), "").await
    }

    async fn start_in(dir: TempDir, more: &str) -> Self {
        let addr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = format!("listen: \"{addr}\"\n{more}\n");
        std::fs::write(dir.path().join("nats.conf"), text).unwrap();
        let mut server = Self { addr, login: String::new(), dir, process: None };
        server.again().await;
        server
    }

    /// Starts it after it was killed, with what it has on disk.
    pub(crate) async fn again(&mut self) {
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let process = Command::new(tool("bin/nats-server"))
            .arg("-c")
            .arg(self.dir.path().join("nats.conf"))
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.process = Some(process);
        // Nobody listens yet while it starts.
        while TcpStream::connect(self.addr).await.is_err() {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {}", self.log());
            tokio::task::yield_now().await;
        }
    }

    /// Ends it without a word, as a crash does.
    pub(crate) async fn kill(&mut self) {
        self.process.take().unwrap().kill().await.unwrap();
    }

    /// Stops it for the time being: what is sent to it stays with the kernel.
    pub(crate) fn freeze(&self) {
        let pid = self.process.as_ref().unwrap().id().unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Asks the judge; returns what it prints, each line as JSON.
    pub(crate) async fn judge(&self, arguments: &[&str], input: &str) -> Vec<serde_json::Value> {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../adapters/tests/adapters/nats/judge.py");
        let mut judge = Command::new(tool("venv/bin/python"))
            .arg(script)
            .arg(format!("nats://{}{}", self.login, self.addr))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = judge.stdin.take().unwrap();
        let (wrote, output) = tokio::join!(
            async {
                let wrote = stdin.write_all(input.as_bytes()).await;
                drop(stdin);
                wrote
            },
            judge.wait_with_output()
        );
        let output = output.unwrap();
        assert!(
            output.status.success() && wrote.is_ok(),
            "{arguments:?}: is nats-py there? run scripts/tools\n{}",
            self.log()
        );
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The numbers at the ends of the lines in a stream, in its order.
    pub(crate) async fn numbers(&self, stream: &str) -> Vec<u64> {
        serde_json::from_value(self.judge(&["numbers", stream], "").await.remove(0)).unwrap()
    }

    /// What is told of a stream.
    pub(crate) async fn info(&self, stream: &str) -> serde_json::Value {
        self.judge(&["info", stream], "").await.remove(0)
    }
}

/// A tool that `scripts/tools` fetches.
fn tool(path: &str) -> PathBuf {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    let tool = std::env::var_os("HYDRANT_TOOLS").map_or(workspace, PathBuf::from).join(path);
    assert!(tool.exists(), "{} is missing: run scripts/tools", tool.display());
    tool
}
