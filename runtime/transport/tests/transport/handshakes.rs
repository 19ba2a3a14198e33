//! What both sides say of a handshake that failed, and that new files are used from the next one on.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use hydrant_transport::{
    AccessConfig, ChannelOptions, Identity, Role, Security, ServiceRoles, TestCerts, TlsFiles, connect, reason,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::support::{ask, ask_headers, grpc_server, grpc_server_with, listener, patiently, until};

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    fn subscriber(&self) -> impl tracing::Subscriber + Send + Sync + use<> {
        let log = self.clone();
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What the client hears, at once or at its first call, and what the server's log says.
async fn failure(server: Security, client: &ChannelOptions) -> (String, String) {
    let log = Log::default();
    let _captured = tracing::subscriber::set_default(log.subscriber());
    let speaks_tls = !matches!(server, Security::Plain);
    let (server, stats) = grpc_server(listener(), server);
    let heard = match patiently(connect(&server.addrs().into(), client)).await {
        Err(error) => reason(&error),
        Ok(channel) => reason(&patiently(ask(&channel, "/peer")).await.unwrap_err()),
    };
    until(|| !speaks_tls || stats.handshake_failed() > 0).await;
    patiently(server.shutdown()).await.unwrap();
    (heard, log.text())
}

fn at(hours: i64) -> SystemTime {
    let distance = Duration::from_secs(3600 * hours.unsigned_abs());
    if hours < 0 { SystemTime::now() - distance } else { SystemTime::now() + distance }
}

/// An identity that trusts us and that we do not trust.
fn stranger(theirs: &TestCerts, ours: &TestCerts) -> Identity {
    Identity::load(&TlsFiles { ca: ours.files("x").ca, ..theirs.files("stranger") }).unwrap()
}

#[tokio::test]
async fn a_server_that_is_not_believed_is_named_with_what_is_wrong() {
    let (ours, theirs) = (TestCerts::new(), TestCerts::named("another authority"));
    let (heard, said) = failure(
        Security::MutualTls(stranger(&theirs, &ours)),
        &ChannelOptions::tls(ours.identity("agent"), "stranger"),
    )
    .await;
    let ca = ours.files("x").ca;
    let expected = format!(
        "the server's certificate CN=stranger, issued by CN=another authority, is not signed by an authority of {}",
        ca.display()
    );
    assert!(heard.starts_with("127.0.0.1:") && heard.ends_with(&expected), "{heard}");
    assert!(said.contains("the peer refused our certificate") && said.contains("(CN=stranger, ends 20"), "{said}");
    assert!(said.contains("it is not signed by an authority that the peer trusts"), "{said}");

    let (heard, said) = failure(
        Security::MutualTls(ours.identity("doppler")),
        &ChannelOptions::tls(ours.identity("agent"), "reverselogproxy"),
    )
    .await;
    assert!(heard.contains("the server's certificate CN=doppler is not for the name reverselogproxy"), "{heard}");
    assert!(heard.ends_with("its names are doppler, localhost, 127.0.0.1"), "{heard}");
    assert!(said.contains("it lacks the name that the peer checks for"), "{said}");
}

#[tokio::test]
async fn a_client_that_is_not_let_in_hears_why_and_so_does_the_log() {
    let (ours, theirs) = (TestCerts::new(), TestCerts::named("another authority"));
    let client = stranger(&theirs, &ours);
    let file = client.files().cert.clone();
    let options = ChannelOptions::tls(client, "doppler");
    let (heard, said) = failure(Security::MutualTls(ours.identity("doppler")), &options).await;
    let expected = format!("the peer refused our certificate {} (CN=stranger, ends ", file.display());
    assert!(heard.contains(&expected), "{heard}");
    assert!(heard.ends_with("it is not signed by an authority that the peer trusts"), "{heard}");
    assert!(
        said.contains("WARN") && said.contains("TLS handshake failed") && said.contains("remote=127.0.0.1:"),
        "{said}"
    );
    assert!(said.contains("the client's certificate CN=stranger, issued by CN=another authority,"), "{said}");
}

/// A certificate can end while its process runs; this one has a second left when it is loaded.
#[tokio::test]
async fn an_expired_certificate_is_told_with_its_date() {
    let certs = TestCerts::new();
    let soon = SystemTime::now() + Duration::from_secs(2);
    let ending = Identity::load(&certs.files_valid("ending", at(-1), soon)).unwrap();
    until(|| SystemTime::now() > soon + Duration::from_secs(1)).await;

    let options = ChannelOptions::tls(certs.identity("agent"), "ending");
    let (heard, said) = failure(Security::MutualTls(ending.clone()), &options).await;
    assert!(heard.contains("the server's certificate CN=ending expired at 20"), "{heard}");
    assert!(said.contains("it is not valid at this time, says its clock"), "{said}");

    let options = ChannelOptions::tls(ending, "doppler");
    let (heard, said) = failure(Security::MutualTls(certs.identity("doppler")), &options).await;
    assert!(
        heard.contains("(CN=ending, ends 20") && heard.ends_with("it is not valid at this time, says its clock"),
        "{heard}"
    );
    assert!(said.contains("the client's certificate CN=ending expired at 20"), "{said}");
}

#[tokio::test]
async fn plain_text_and_tls_recognise_each_other() {
    let certs = TestCerts::new();
    let (heard, said) = failure(Security::MutualTls(certs.identity("doppler")), &ChannelOptions::default()).await;
    assert!(
        heard.contains("speaks TLS, and this side plain text") || heard.contains("it may speak TLS only"),
        "{heard}"
    );
    assert!(said.contains("plain text on a TLS port: gRPC without TLS"), "{said}");

    let options = ChannelOptions::tls(certs.identity("agent"), "doppler");
    let (heard, _) = failure(Security::Plain, &options).await;
    assert!(heard.contains("the server does not speak TLS") || heard.contains("it does not speak TLS"), "{heard}");
}

#[tokio::test]
async fn repeated_failures_are_told_once_and_probes_not_at_all() {
    let certs = TestCerts::new();
    let log = Log::default();
    let _captured = tracing::subscriber::set_default(log.subscriber());
    let (server, stats) = grpc_server(listener(), Security::MutualTls(certs.identity("doppler")));
    drop(TcpStream::connect(server.addrs()).await.unwrap());
    until(|| stats.handshake_failed() == 1).await;
    assert_eq!(log.text().matches("TLS handshake failed").count(), 0, "{}", log.text());
    for failed in 2..5 {
        let mut client = TcpStream::connect(server.addrs()).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        until(|| stats.handshake_failed() == failed).await;
    }
    assert_eq!(log.text().matches("an HTTP request without TLS").count(), 1, "{}", log.text());
    patiently(server.shutdown()).await.unwrap();
}

#[tokio::test]
async fn new_files_serve_new_handshakes_and_old_connections_live_on() {
    let (old, new) = (TestCerts::new(), TestCerts::named("new authority"));
    let files = old.files("doppler");
    let doppler = Identity::load(&files).unwrap();
    let (server, _stats) = grpc_server(listener(), Security::MutualTls(doppler.clone()));
    let address = server.addrs().into();
    let with = |identity| ChannelOptions::tls(identity, "doppler");
    let up = connect(&address, &with(old.identity("agent"))).await.unwrap();
    assert!(ask(&up, "/peer").await.unwrap().starts_with("200"));

    // First the authorities: both, so that clients can be renewed one after the other.
    let bundle = [old.files("x").ca, new.files("x").ca].map(|ca| std::fs::read_to_string(ca).unwrap()).concat();
    let both = new.dir().join("both.pem");
    std::fs::write(&both, &bundle).unwrap();
    std::fs::write(&files.ca, &bundle).unwrap();
    assert!(doppler.reload().unwrap());
    let renewed = Identity::load(&TlsFiles { ca: both, ..new.files("agent") }).unwrap();
    for identity in [old.identity("agent"), renewed.clone()] {
        let channel = connect(&address, &with(identity)).await.unwrap();
        assert!(ask(&channel, "/peer").await.unwrap().starts_with("200"));
    }

    // Then the doppler's own certificate, and the old authority goes.
    let next = new.files("doppler");
    for (to, from) in [(&files.cert, &next.cert), (&files.key, &next.key), (&files.ca, &next.ca)] {
        std::fs::copy(from, to).unwrap();
    }
    assert!(doppler.reload().unwrap());
    let channel = connect(&address, &with(renewed)).await.unwrap();
    assert!(ask(&channel, "/peer").await.unwrap().starts_with("200"));
    let late = TestCerts::named("hydrant test authority");
    connect(&address, &with(late.identity("agent"))).await.unwrap_err();
    assert!(ask(&up, "/peer").await.unwrap().starts_with("200"), "what was up stays up");
}

#[tokio::test]
async fn a_method_is_open_to_its_roles_alone() {
    const SERVICES: &[ServiceRoles] = &[("/peer", &[Role::Operator])];
    let certs = TestCerts::new();
    let config = AccessConfig { enforce: true, ..AccessConfig::default() };
    let access = config.rule("test.grpc", true, SERVICES).unwrap();
    let security = Security::MutualTls(certs.identity("doppler"));
    let (server, _stats) = grpc_server_with(listener(), security, access.clone());
    let address = server.addrs().into();
    let open = async |files: &TlsFiles| {
        let options = ChannelOptions::tls(Identity::load(files).unwrap(), "doppler");
        connect(&address, &options).await.unwrap()
    };
    let operator = open(&certs.files_with_role("o", Role::Operator)).await;
    assert!(ask(&operator, "/peer").await.unwrap().contains("cert=true"));
    let agent = open(&certs.files_with_role("metron", Role::Agent)).await;
    let headers = ask_headers(&agent, "/peer").await;
    assert_eq!(headers["grpc-status"], "7");
    assert!(headers["grpc-message"].to_str().unwrap().contains("role%20agent"), "{headers:?}");
    assert_eq!(access.denied(), 1);
}
