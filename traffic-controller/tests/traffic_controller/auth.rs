//! Who may read what, at every endpoint: by token, by certificate, and not at all.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use proto::hydrant::v1::FollowRequest;
use proto::hydrant::v1::follow_client::FollowClient;
use proto::logcache::v1 as logcache;
use proto::logcache::v1::egress_client::EgressClient as CacheClient;
use proto::v2;
use proto::v2::Envelope;
use proto::v2::egress_client::EgressClient;
use telemetry::Telemetry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use traffic_controller::{AuthorizerConfig, BindError, Config, Handle, token_sha256};
use transport::{ChannelOptions, TestCerts, TlsFiles, channel};

use crate::cache::Cache;
use crate::doppler::Doppler;
use crate::firehose::open;
use crate::http::ask;
use crate::rlp::logs;

/// A tokens file that tests may write again.
struct File(tempfile::TempDir);

/// Reads `my-app` and whatever begins with `shop-`.
const OWN: &str = "hy_own-token";
/// Reads everything.
const ADMIN: &str = "hy_admin-token";
/// Read everything until its time was over.
const EXPIRED: &str = "hy_expired-token";
/// Stands in no file.
const UNKNOWN: &str = "hy_unknown-token";

fn entry(name: &str, token: &str, more: &str) -> String {
    format!("[[tokens]]\nname = \"{name}\"\nsha256 = \"{}\"\n{more}\n", token_sha256(token.as_bytes()))
}

fn own() -> String {
    entry("own", OWN, "sources = [\"my-app\", \"shop-*\"]")
}

fn admin() -> String {
    entry("admin", ADMIN, "scopes = [\"firehose\"]")
}

impl File {
    fn new() -> Self {
        let file = Self(tempfile::tempdir().unwrap());
        let expired = entry("expired", EXPIRED, "scopes = [\"firehose\"]\nexpires = 2001-01-01T00:00:00Z");
        file.write(&(own() + &admin() + &expired));
        file
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("tokens.toml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }
}

fn with_tokens(file: &File) -> Config {
    Config { authorizer: AuthorizerConfig::Tokens, tokens: Some(file.path()), ..Config::for_test() }
}

/// A traffic controller that asks for tokens, with a doppler to subscribe to and a cache that holds a line of two sources.
struct Bed {
    controller: Handle,
    telemetry: Telemetry,
    doppler: Doppler,
    _cache: Cache,
    file: File,
}

impl Bed {
    async fn new() -> Self {
        let (doppler, cache, file) = (Doppler::start(), Cache::start(), File::new());
        cache.put([Envelope::log("my-app", "mine").at(1), Envelope::log("foreign", "not mine").at(2)]);
        let telemetry = Telemetry::default();
        let config = with_tokens(&file).dopplers([doppler.addr, cache.addr]);
        let controller = config.bind(&telemetry).await.unwrap().spawn();
        Self { controller, telemetry, doppler, _cache: cache, file }
    }

    fn http(&self) -> SocketAddr {
        self.controller.addrs().http
    }

    fn rest(&self) -> SocketAddr {
        self.controller.addrs().rest
    }

    fn grpc(&self) -> Channel {
        channel(&self.controller.addrs().grpc.into(), &ChannelOptions::default())
    }

    async fn read(&self, target: &str, token: &str) -> String {
        rest(self.rest(), target, &[("Authorization", &format!("bearer {token}"))]).await
    }
}

/// As [`ask`], but a client that stays until it has its answer, which takes a doppler's time.
pub(crate) async fn rest(addr: SocketAddr, target: &str, headers: &[(&str, &str)]) -> String {
    let mut request = format!("GET {target} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all((request + "\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

pub(crate) fn request<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

pub(crate) fn batched(sources: &[&str]) -> v2::EgressBatchRequest {
    v2::EgressBatchRequest { selectors: sources.iter().map(|source| logs(source)).collect(), ..Default::default() }
}

pub(crate) fn follow(sources: &[&str]) -> FollowRequest {
    FollowRequest { source_ids: sources.iter().map(|source| (*source).to_owned()).collect(), ..Default::default() }
}

/// How a call ends: what a client learns.
pub(crate) fn outcome<T>(result: Result<tonic::Response<T>, tonic::Status>) -> String {
    match result {
        Ok(_) => "OK".to_owned(),
        Err(status) => format!("{:?}", status.code()),
    }
}

async fn attempt(bed: &Bed, what: &str, token: Option<&str>) -> String {
    let header = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&'static str, &str)> = header.iter().map(|header| ("authorization", header.as_str())).collect();
    let (how, which) = what.split_once(' ').unwrap();
    let sources: Vec<&str> = which.split(',').map(|source| if source == "*" { "" } else { source }).collect();
    match how {
        "ws" => match open(bed.http(), which, &headers).await {
            Ok(_) => "101".to_owned(),
            Err(status) => status.as_u16().to_string(),
        },
        "http" | "rest" => {
            let addr = if how == "http" { bed.http() } else { bed.rest() };
            rest(addr, which, &headers).await.split(' ').nth(1).unwrap().to_owned()
        }
        "batched" => outcome(EgressClient::new(bed.grpc()).batched_receiver(request(batched(&sources), token)).await),
        "receiver" => {
            let message = v2::EgressRequest { selectors: batched(&sources).selectors, ..Default::default() };
            outcome(EgressClient::new(bed.grpc()).receiver(request(message, token)).await)
        }
        "read" => {
            let message = logcache::ReadRequest { source_id: sources[0].to_owned(), ..Default::default() };
            outcome(CacheClient::new(bed.grpc()).read(request(message, token)).await)
        }
        "meta" => outcome(CacheClient::new(bed.grpc()).meta(request(Default::default(), token)).await),
        "follow" => outcome(FollowClient::new(bed.grpc()).follow(request(follow(&sources), token)).await),
        other => panic!("{other}"),
    }
}

/// Per line: what is asked for, and the answer without a token, with an unknown one, an expired one, one that reads `my-app` and
/// `shop-*`, and one that reads everything. `foreign` has lines, `nobody` does not exist, nor does `shop-9`.
const MATRIX: &str = "
    ws /firehose/x                     401 401 401 401 101
    ws /firehose/x?filter-type=logs    401 401 401 401 101
    ws /apps/my-app/stream             401 401 401 101 101
    ws /apps/shop-9/stream             401 401 401 101 101
    ws /apps/foreign/stream            401 401 401 404 101
    ws /apps/nobody/stream             401 401 401 404 101
    rest /api/v1/read/my-app           404 404 404 200 200
    rest /api/v1/read/shop-9           404 404 404 200 200
    rest /api/v1/read/foreign          404 404 404 404 200
    rest /api/v1/read/nobody           404 404 404 404 200
    rest /api/v1/meta                  404 404 404 200 200
    rest /api/v1/info                  200 200 200 200 200
    rest /api/v1/labels                404 404 404 200 200
    rest /api/v1/series?match%5B%5D=%7Bsource_id=%22foreign%22%7D 404 404 404 200 200
    rest /api/v1/status/buildinfo      404 404 404 200 200
    rest /api/v1/query?query=x%7Bsource_id=%22my-app%22%7D 404 404 404 200 200
    rest /api/v1/query?query=x%7Bsource_id=%22foreign%22%7D 404 404 404 404 200
    rest /api/v1/query?query=x%7Bsource_id=~%22my-app%7Cforeign%22%7D 404 404 404 404 200
    rest /api/v1/query?query=x%7Bsource_id=%22nobody%22%7D 404 404 404 404 200
    rest /api/v1/query?query=x%7B      404 400 400 400 400
    rest /api/v1/query?query=x         404 400 400 400 400
    rest /api/v1/query?query=1         404 404 404 200 200
    rest /api/v1/rules                  404 404 404 404 404
    http /                             200 200 200 200 200
    http /nothing                      404 404 404 404 404
    batched my-app                     Unauthenticated Unauthenticated Unauthenticated OK OK
    batched my-app,shop-9              Unauthenticated Unauthenticated Unauthenticated OK OK
    batched foreign                    Unauthenticated Unauthenticated Unauthenticated PermissionDenied OK
    batched nobody                     Unauthenticated Unauthenticated Unauthenticated PermissionDenied OK
    batched my-app,foreign             Unauthenticated Unauthenticated Unauthenticated PermissionDenied OK
    batched *                          Unauthenticated Unauthenticated Unauthenticated PermissionDenied OK
    batched my-app,*                   Unauthenticated Unauthenticated Unauthenticated PermissionDenied OK
    receiver my-app                    Unauthenticated Unauthenticated Unauthenticated OK OK
    receiver foreign                   Unauthenticated Unauthenticated Unauthenticated PermissionDenied OK
    receiver *                         Unauthenticated Unauthenticated Unauthenticated PermissionDenied OK
    read my-app                        Unauthenticated Unauthenticated Unauthenticated OK OK
    read foreign                       Unauthenticated Unauthenticated Unauthenticated PermissionDenied OK
    read nobody                        Unauthenticated Unauthenticated Unauthenticated PermissionDenied OK
    meta *                             Unauthenticated Unauthenticated Unauthenticated OK OK
    follow my-app                      Unauthenticated Unauthenticated Unauthenticated OK OK
    follow foreign                     Unauthenticated Unauthenticated Unauthenticated PermissionDenied OK
    follow nobody                      Unauthenticated Unauthenticated Unauthenticated PermissionDenied OK
    follow my-app,foreign              Unauthenticated Unauthenticated Unauthenticated PermissionDenied OK
    follow *                           Unauthenticated Unauthenticated Unauthenticated PermissionDenied OK
";

#[tokio::test]
async fn every_endpoint_asks_every_caller() {
    let bed = Bed::new().await;
    let tokens = [None, Some(UNKNOWN), Some(EXPIRED), Some(OWN), Some(ADMIN)];
    let mut wrong = Vec::new();
    for line in MATRIX.lines().filter(|line| !line.trim().is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let what = words[..2].join(" ");
        for (token, expected) in tokens.iter().zip(&words[2..]) {
            let got = attempt(&bed, &what, *token).await;
            if got != *expected {
                wrong.push(format!("{what} with {token:?}: {got} instead of {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let text = bed.telemetry.render();
    for reason in ["missing", "invalid", "forbidden"] {
        let none = format!("hydrant_unauthorised_requests_total{{reason=\"{reason}\"}} 0\n");
        assert!(text.contains("hydrant_unauthorised_requests_total") && !text.contains(&none), "{reason}");
    }
    for token in [OWN, ADMIN, EXPIRED, UNKNOWN] {
        assert!(!text.contains(token));
    }
}

#[tokio::test]
async fn refusals_are_in_the_words_of_each_contract_and_the_same_for_what_does_not_exist() {
    let bed = Bed::new().await;
    let with = |token: &str| vec![("Authorization".to_owned(), token.to_owned())];
    let ws = async |path: &str, headers: &[(String, String)]| {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let answer = ask(bed.http(), "GET", path, &headers).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(!head.to_ascii_lowercase().contains("access-control-"), "{head}");
        let status = head.split(' ').nth(1).unwrap().to_owned();
        (status, head.to_ascii_lowercase().contains("www-authenticate: basic"), body.to_owned())
    };
    let answer = |status: &str, challenge, body: &str| (status.to_owned(), challenge, body.to_owned());
    let not_provided = answer("401", true, "You are not authorized. authorization not provided");
    let invalid = answer("401", true, "You are not authorized. invalid authorization");
    assert_eq!(ws("/firehose/x", &[]).await, not_provided);
    assert_eq!(ws("/firehose/x?token=hy_admin-token&authorization=hy_admin-token", &[]).await, not_provided);
    for token in [UNKNOWN, EXPIRED, OWN] {
        assert_eq!(ws("/firehose/x", &with(token)).await, invalid, "{token}");
    }
    let stream = "/apps/foreign/stream";
    assert_eq!(ws(stream, &[]).await, answer("401", true, ""));
    assert_eq!(ws(stream, &with(UNKNOWN)).await, answer("401", true, ""));
    assert_eq!(ws(stream, &with(OWN)).await, answer("404", false, ""));
    assert_eq!(ws("/apps/nobody/stream", &with(OWN)).await, answer("404", false, ""));

    let body = |answer: String| answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    assert_eq!(body(ask(bed.rest(), "GET", "/api/v1/read/my-app", &[]).await), "");
    assert_eq!(body(bed.read("/api/v1/read/foreign", OWN).await), "");
    assert_eq!(bed.read("/api/v1/read/foreign", OWN).await, bed.read("/api/v1/read/nobody", OWN).await);
    // What is wrong with a request is told to those who may ask.
    assert!(ask(bed.rest(), "GET", "/api/v1/read/my-app?limit=x", &[]).await.starts_with("HTTP/1.1 404 "));
    assert!(bed.read("/api/v1/read/my-app?limit=x", OWN).await.starts_with("HTTP/1.1 400 "));
    assert!(ask(bed.rest(), "POST", "/api/v1/read/my-app", &[]).await.starts_with("HTTP/1.1 404 "));

    let mut egress = EgressClient::new(bed.grpc());
    let mut texts = Vec::new();
    for sources in [&["foreign"][..], &["nobody"], &["my-app", "foreign"], &[""]] {
        let status = egress.batched_receiver(request(batched(sources), Some(OWN))).await.unwrap_err();
        texts.push((status.code(), status.message().to_owned()));
        let status = FollowClient::new(bed.grpc()).follow(request(follow(sources), Some(OWN))).await.unwrap_err();
        texts.push((status.code(), status.message().to_owned()));
    }
    texts.dedup();
    let text = "the authorization does not cover what was asked for".to_owned();
    assert_eq!(texts, [(Code::PermissionDenied, text)]);
}

#[tokio::test]
async fn what_is_authorised_is_what_is_served() {
    let bed = Bed::new().await;
    let served = ["/api/v1/read/my-app", "/api/v1/read/my%2Dapp", "/api/v1/read/my%2dapp", "/api/v1/read/%6Dy-app"];
    for target in served.into_iter().chain(["/api/v1/read/my-app?source_id=foreign&sourceId=foreign"]) {
        let answer = bed.read(target, OWN).await;
        assert!(answer.contains("\"source_id\":\"my-app\"") && !answer.contains("foreign"), "{target}: {answer}");
    }
    for target in [
        "/api/v1/read/my-app%00",
        "/api/v1/read/%00my-app",
        "/api/v1/read/my-app/../foreign",
        "/api/v1/read/my-app%2F..%2Fforeign",
        "/api/v1/read/foreign/../my-app",
        "/api/v1/read/../read/my-app",
        "/api/v1/read/./my-app",
        "/api/v1/read//my-app",
        "/api/v1/read/MY-APP",
        "/api/v1/read/my%252Dapp",
        "/api/v1/read/my-app/",
        "/api/v1/read/",
        "/api/v1/read",
        "/api/v1//read/my-app",
        "/api/v1/read/f%6Freign",
        "/api/v1/read/foreign%20",
    ] {
        let answer = bed.read(target, OWN).await;
        assert!(answer.starts_with("HTTP/1.1 404 ") && !answer.contains("mine"), "{target}: {answer}");
    }
    // A pattern covers an id that looks like a path, which is still an id: there is nothing under it.
    let answer = bed.read("/api/v1/read/shop-%2F..%2Fforeign", OWN).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"batch\":[]"), "{answer}");
    assert!(bed.read("/api/v1/read/my%ff", OWN).await.starts_with("HTTP/1.1 400 "));
    assert!(bed.read("/api/v1/read/foreign", ADMIN).await.contains("\"source_id\":\"foreign\""));

    for (path, status) in [
        ("/apps/my-app%2F..%2Fforeign/stream", 404),
        ("/apps/foreign%00/stream", 404),
        ("/apps/foreign%2f/stream", 404),
        ("/apps/MY-APP/stream", 404),
        ("/apps/../apps/my-app/stream", 404),
        ("/apps/my-app/../foreign/stream", 404),
        ("/firehose/..%2Fapps%2Fmy-app%2Fstream", 401),
    ] {
        let refused = open(bed.http(), path, &[("authorization", OWN)]).await.unwrap_err();
        assert_eq!(refused.as_u16(), status, "{path}");
    }
}

#[tokio::test]
async fn nothing_of_other_sources_leaks_through_meta_and_selectors() {
    let mut bed = Bed::new().await;
    let meta = bed.read("/api/v1/meta", OWN).await;
    assert!(meta.contains("\"my-app\"") && !meta.contains("foreign"), "{meta}");
    assert!(bed.read("/api/v1/meta", ADMIN).await.contains("\"foreign\""));

    let mut egress = EgressClient::new(bed.grpc());
    let legacy = v2::EgressBatchRequest { legacy_selector: Some(logs("foreign")), ..Default::default() };
    let status = egress.batched_receiver(request(legacy, Some(OWN))).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let both = v2::EgressBatchRequest { legacy_selector: Some(logs("foreign")), ..batched(&["my-app"]) };
    let _stream = egress.batched_receiver(request(both, Some(OWN))).await.unwrap();
    let asked = bed.doppler.stream().await.request;
    assert_eq!((asked.selectors, asked.legacy_selector), (vec![logs("my-app")], None));

    let _stream = open(bed.http(), "/apps/my%2Dapp/stream", &[("authorization", OWN)]).await.unwrap();
    let asked = bed.doppler.stream().await.request;
    assert!(asked.selectors.iter().all(|selector| selector.source_id == "my-app"));
}

#[tokio::test]
async fn a_browser_s_cookie_counts_from_its_own_page_only() {
    let bed = Bed::new().await;
    let cookie = ("cookie", "theme=dark; authorization=bearer%20hy_own-token");
    let own_page = format!("http://{}", bed.http());
    let path = "/apps/my-app/stream";
    open(bed.http(), path, &[cookie]).await.unwrap();
    open(bed.http(), path, &[cookie, ("origin", &own_page)]).await.unwrap();
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        let refused = open(bed.http(), path, &[cookie, ("origin", origin)]).await.unwrap_err();
        assert_eq!(refused.as_u16(), 403, "{origin}");
        // Nozzles name an origin and send the header, which no page can.
        open(bed.http(), path, &[("origin", origin), ("authorization", OWN)]).await.unwrap();
    }
    assert_eq!(open(bed.http(), "/firehose/x", &[cookie]).await.unwrap_err().as_u16(), 401);
    let answer = ask(bed.rest(), "GET", "/api/v1/read/my-app", &[cookie]).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[tokio::test]
async fn a_token_that_is_removed_ends_its_open_streams() {
    let bed = Bed::new().await;
    let mut socket = open(bed.http(), "/apps/my-app/stream", &[("authorization", OWN)]).await.unwrap();
    let mut kept = open(bed.http(), "/firehose/x", &[("authorization", ADMIN)]).await.unwrap();
    let mut egress = EgressClient::new(bed.grpc());
    let mut stream = egress.batched_receiver(request(batched(&["my-app"]), Some(OWN))).await.unwrap().into_inner();
    let mut frames =
        FollowClient::new(bed.grpc()).follow(request(follow(&["my-app"]), Some(OWN))).await.unwrap().into_inner();

    bed.file.write(&admin());
    let close = loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Ping(_) => {}
            other => break other,
        }
    };
    let expired = CloseFrame { code: CloseCode::Policy, reason: "authorization expired".into() };
    assert_eq!(close, Message::Close(Some(expired)));
    let told = (Code::Unauthenticated, "authorization expired");
    let status = stream.message().await.unwrap_err();
    assert_eq!((status.code(), status.message()), told);
    let status = loop {
        if let Err(status) = frames.message().await {
            break status;
        }
    };
    assert_eq!((status.code(), status.message()), told);
    assert_eq!(open(bed.http(), "/apps/my-app/stream", &[("authorization", OWN)]).await.unwrap_err().as_u16(), 401);

    // The other token's stream goes on: the answer to its close is that of a client that goes by itself.
    kept.close(None).await.unwrap();
    let end = loop {
        match kept.next().await.unwrap().unwrap() {
            Message::Close(frame) => break frame,
            _ping => {}
        }
    };
    assert!(end.is_none_or(|frame| frame.code == CloseCode::Normal));
}

/// A channel over TLS that shows no certificate.
pub(crate) async fn without_certificate(addr: SocketAddr, ca: &TlsFiles) -> Channel {
    let connector = TlsConnector::from(Arc::new(client_config(ca, b"h2")));
    let connect = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let name = "reverselogproxy".try_into().unwrap();
            connector.connect(name, TcpStream::connect(addr).await?).await.map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://reverselogproxy").connect_with_connector(connect).await.unwrap()
}

fn client_config(ca: &TlsFiles, alpn: &[u8]) -> rustls::ClientConfig {
    use rustls::pki_types::pem::PemObject;
    transport::install_crypto_provider();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(&ca.ca).unwrap()).unwrap();
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}

#[tokio::test]
async fn over_tls_a_certificate_reads_everything_and_who_has_none_needs_a_token() {
    let (certs, file) = (TestCerts::new(), File::new());
    let mut config = with_tokens(&file);
    config.grpc.tls = Some(certs.files("reverselogproxy"));
    let controller = config.bind(&Telemetry::default()).await.unwrap().spawn();
    let addr = controller.addrs().grpc;
    let known = channel(&addr.into(), &ChannelOptions::tls(certs.identity("nozzle"), "reverselogproxy"));
    let unknown = without_certificate(addr, &certs.files("x")).await;
    let ask = async |channel: &Channel, sources: &[&str], token| {
        outcome(EgressClient::new(channel.clone()).batched_receiver(request(batched(sources), token)).await)
    };
    assert_eq!(ask(&known, &[""], None).await, "OK");
    assert_eq!(
        ask(&known, &["foreign"], Some(OWN)).await,
        "PermissionDenied",
        "a token narrows what a certificate reads"
    );
    assert_eq!(ask(&known, &["my-app"], Some(UNKNOWN)).await, "Unauthenticated");
    assert_eq!(ask(&unknown, &["my-app"], None).await, "Unauthenticated");
    assert_eq!(ask(&unknown, &["my-app"], Some(OWN)).await, "OK");
    assert_eq!(ask(&unknown, &[""], Some(OWN)).await, "PermissionDenied");
    assert_eq!(ask(&unknown, &[""], Some(ADMIN)).await, "OK");
}

#[tokio::test]
async fn http_over_tls_serves_websocket_and_reads() {
    let (certs, file, mut doppler) = (TestCerts::new(), File::new(), Doppler::start());
    let mut config = with_tokens(&file).dopplers([doppler.addr]);
    config.http.tls = Some(certs.server_files("web"));
    config.rest.tls = Some(certs.server_files("rest"));
    // Any address will do, as it is TLS.
    config.http.listen = "0.0.0.0:0".parse().unwrap();
    let controller = config.bind(&Telemetry::default()).await.unwrap().spawn();
    let http = SocketAddr::from(([127, 0, 0, 1], controller.addrs().http.port()));
    let tls = TlsConnector::from(Arc::new(client_config(&certs.files("x"), b"http/1.1")));

    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    let connect = async |cookie_origin: &str| {
        let mut request = format!("wss://localhost:{}/apps/my-app/stream", http.port()).into_client_request().unwrap();
        request.headers_mut().insert("cookie", format!("authorization={OWN}").parse().unwrap());
        request.headers_mut().insert("origin", format!("{cookie_origin}:{}", http.port()).parse().unwrap());
        let socket = TcpStream::connect(http).await.unwrap();
        let stream = tls.connect("localhost".try_into().unwrap(), socket).await.unwrap();
        tokio_tungstenite::client_async(request, stream).await
    };
    assert!(connect("http://localhost").await.is_err(), "the page's own origin begins with https here");
    let (mut client, _) = connect("https://localhost").await.unwrap();
    doppler.stream().await.send(&[Envelope::log("my-app", "over TLS")]).await;
    let payload = loop {
        match client.next().await.unwrap().unwrap() {
            Message::Binary(payload) => break payload,
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    };
    let envelope = proto::events::Envelope::decode(payload).unwrap();
    assert_eq!(envelope.log_message.unwrap().message, b"over TLS".as_slice());
}

#[tokio::test]
async fn what_would_be_open_or_readable_on_the_way_is_refused_with_what_to_do() {
    let (certs, file) = (TestCerts::new(), File::new());
    let telemetry = Telemetry::default();
    let outside: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let error = async |config: Config| match config.bind(&Telemetry::default()).await {
        Ok(_) => panic!("it must not bind"),
        Err(error) => error,
    };

    let mut config = with_tokens(&file);
    config.rest.listen = outside;
    let text = error(config.clone()).await.to_string();
    assert!(text.starts_with("traffic_controller.rest.listen: 0.0.0.0:0 can be reached from other machines"), "{text}");
    assert!(text.contains("set traffic_controller.rest.tls"), "{text}");
    assert!(text.contains("traffic_controller.rest.insecure_plaintext = true"), "{text}");
    config.rest.insecure_plaintext = true;
    config.bind(&telemetry).await.unwrap();
    let choice = "hydrant_insecure_mode{choice=\"traffic_controller.rest.insecure_plaintext\"} 1";
    assert!(telemetry.render().contains(choice));

    // Naming it does not make up for asking nobody.
    let mut config = Config::for_test();
    (config.http.listen, config.http.insecure_plaintext) = (outside, true);
    config.http.tls = Some(certs.server_files("web"));
    assert!(matches!(error(config).await, BindError::Unauthenticated { .. }));

    let config = Config { authorizer: AuthorizerConfig::Tokens, ..Config::for_test() };
    assert!(error(config).await.to_string().contains("set traffic_controller.tokens = "));
    let config = Config { tokens: Some(file.path()), ..Config::for_test() };
    assert!(error(config).await.to_string().contains("set traffic_controller.authorizer = \"tokens\""));
    file.write("[[tokens]]\nname = \"a\"\nsha256 = \"hy_own-token\"\n");
    let text = error(with_tokens(&file)).await.to_string();
    assert!(
        text.starts_with("traffic_controller.tokens: tokens file ") && text.contains(", line 3, column 10: "),
        "{text}"
    );
    assert!(!text.contains(OWN), "{text}");
    std::fs::remove_file(file.path()).unwrap();
    let text = error(with_tokens(&file)).await.to_string();
    assert!(text.contains("tokens.toml: No such file"), "{text}");
}

#[tokio::test]
async fn the_page_tells_strangers_of_no_port_but_those_that_consumers_use() {
    let bed = Bed::new().await;
    let addrs = bed.controller.addrs();
    let page = ask(addrs.http, "GET", "/", &[]).await;
    assert!(page.contains(&addrs.rest.to_string()) && page.contains(&addrs.grpc.to_string()), "{page}");
    assert!(!page.contains(&addrs.admin.to_string()) && !page.contains("on this machine only"), "{page}");
}
