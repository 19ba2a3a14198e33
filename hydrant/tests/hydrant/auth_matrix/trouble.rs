//! What each protocol says when those who know cannot be asked, or have been asked too much already; and certificates.

use http::StatusCode;
use traffic_controller::test_platform::{FOREIGN, OTHER_APP};
use transport::{Address, ChannelOptions, ClientTls, ClientTlsFiles, Credentials, Identity, TestCerts};

use super::ask::{grpc, http};
use super::bed::{Bed, By, Caller, Headers, OWN};
use crate::harness::channel;

/// What is asked for; then what it is answered when Cloud Controller fails, and when too much is under way.
const TROUBLE: &str = "
ws   http    /apps/{}/stream             500 429
get  http    /apps/{}/recentlogs         500 429
get  http    /apps/{}/containermetrics   500 429
get  http    /v2/read?log&source_id={}   404 404
get  gateway /v2/read?log&source_id={}   404 404
ws   http    /v2/stream?log&source_id={} 503 429
get  rest    /api/v1/read/{}             404 404
get  http    /api/v1/read/{}             404 404
grpc batched  {}                         Unavailable ResourceExhausted
grpc receiver {}                         Unavailable ResourceExhausted
grpc follow   {}                         Unavailable ResourceExhausted
";

/// The same of a token that UAA cannot be asked about.
const NO_UAA: &str = "
ws   http    /firehose/x                 401
ws   http    /apps/{}/stream             500
get  http    /apps/{}/recentlogs         500
get  http    /v2/read?log&source_id={}   404
get  gateway /v2/read?log                404
ws   http    /v2/stream?log              503
get  rest    /api/v1/read/{}             404
get  rest    /api/v1/meta                404
get  http    /v1/overview                503
post http    /v1/session                 503
grpc batched  {}                         Unavailable
grpc follow   {}                         Unavailable
grpc overview -                          Unavailable
";

const NOT_FOUND: &str = "{\"message\":\"resource not found\",\"error\":\"not_found\"}\n\n";

/// Asks for every line of `table` and compares with its column.
async fn check(bed: &Bed, table: &str, column: usize, source: &str, headers: &Headers) {
    let addrs = bed.up.traffic_controller();
    let to_grpc = channel(addrs.grpc).await;
    for line in table.lines().filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let what = words[2].replace("{}", source);
        if words[0] == "grpc" {
            assert_eq!(grpc(to_grpc.clone(), words[1], &what, headers).await.0, words[3 + column], "{line}");
            continue;
        }
        let addr = match words[1] {
            "http" => addrs.http,
            "gateway" => addrs.gateway,
            _ => addrs.rest,
        };
        let method = if words[0] == "post" { "POST" } else { "GET" };
        let open = http(addr, method, &what, headers, words[0] == "ws").await;
        assert_eq!(open.status().to_string(), words[3 + column], "{line}");
        if what.starts_with("/v2/read") {
            assert_eq!(open.body(), NOT_FOUND, "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn auth_matrix_who_cannot_be_asked_about_is_refused_in_each_protocols_words() {
    let bed = Bed::new(By::Uaa).await;
    let platform = &bed.authority.platform;
    platform.state.said.lock().cloud_controller = Some(StatusCode::INTERNAL_SERVER_ERROR);
    for source in [OWN, FOREIGN] {
        check(&bed, TROUBLE, 0, source, &bed.headers(Caller::Reader)).await;
    }
    // What a caller reads cannot be told, so it is shown nothing.
    let meta = http(bed.up.traffic_controller().rest, "GET", "/api/v1/meta", &bed.headers(Caller::Reader), false).await;
    assert_eq!((meta.status(), meta.body().trim()), (200, "{\"meta\":{}}"));
    platform.state.said.lock().uaa = Some(StatusCode::SERVICE_UNAVAILABLE);
    check(&bed, NO_UAA, 0, OWN, &vec![("authorization", "bearer only-a-name".to_owned())]).await;
    bed.up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn auth_matrix_who_asks_for_too_much_is_refused_in_each_protocols_words() {
    let bed = Bed::with(By::Uaa, "max_caller_lookups = 1", "").await;
    let (platform, addrs) = (&bed.authority.platform, bed.up.traffic_controller());
    platform.state.open.send_replace(false);
    let headers = bed.headers(Caller::Pattern);
    let first = format!("/v2/read?log&source_id={OTHER_APP}");
    let meanwhile = async {
        platform.until_asked("internal", 1).await;
        for source in [OWN, FOREIGN] {
            check(&bed, TROUBLE, 1, source, &headers).await;
        }
        platform.state.open.send_replace(true);
    };
    let ((), waited) = tokio::join!(meanwhile, http(addrs.http, "GET", &first, &headers, false));
    assert_eq!(waited.status(), 200);
    bed.up.shutdown().await.unwrap();
}

/// What is called; then the answers to a certificate, to one with the reader's token, to one with an unknown token, to that reader
/// without, and to nobody.
const CERTIFICATES: &str = "
batched   {own}            OK OK Unauthenticated OK Unauthenticated
batched   {foreign}        OK PermissionDenied Unauthenticated PermissionDenied Unauthenticated
batched   any              OK PermissionDenied Unauthenticated PermissionDenied Unauthenticated
receiver  {own},{foreign}  OK PermissionDenied Unauthenticated PermissionDenied Unauthenticated
follow    {own}            OK OK Unauthenticated OK Unauthenticated
follow    {foreign}        OK PermissionDenied Unauthenticated PermissionDenied Unauthenticated
overview  -                OK OK Unauthenticated OK Unauthenticated
";

#[tokio::test(flavor = "multi_thread")]
async fn auth_matrix_of_certificates() {
    transport::install_crypto_provider();
    let (certs, strangers) = (TestCerts::new(), TestCerts::new());
    let files = certs.files("reverselogproxy");
    let tls = format!(
        "traffic_controller.grpc.tls = {{ cert = {:?}, key = {:?}, ca = {:?} }}\n",
        files.cert, files.key, files.ca
    );
    let ca = ClientTlsFiles { ca: Some(files.ca.clone()), ..ClientTlsFiles::default() };
    for by in super::bed::ALL {
        let bed = Bed::with(by, "", &tls).await;
        let address = Address::from(bed.up.traffic_controller().grpc);
        let to = |credentials: Credentials| {
            transport::channel(&address, &ChannelOptions::tls_to(credentials, "reverselogproxy").unwrap())
        };
        let (with, without) = (to(certs.identity("consumer").into()), to(ClientTls::load(ca.clone()).unwrap().into()));
        let callers = [
            (&with, Caller::Nobody),
            (&with, Caller::Reader),
            (&with, Caller::Unknown),
            (&without, Caller::Reader),
            (&without, Caller::Nobody),
        ];
        for line in CERTIFICATES.lines().filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let what = words[1].replace("{own}", OWN).replace("{foreign}", FOREIGN);
            for ((channel, caller), expected) in callers.iter().zip(&words[2..]) {
                let got = grpc((*channel).clone(), words[0], &what, &bed.headers(*caller)).await.0;
                assert_eq!(got, *expected, "{by:?} {line} {caller:?}");
            }
        }
        // One of another authority gets no connection.
        let theirs = strangers.files("consumer");
        let mixed = transport::TlsFiles { ca: files.ca.clone(), ..theirs };
        let stranger = to(Identity::load(&mixed).unwrap().into());
        let answer = grpc(stranger, "overview", "-", &bed.headers(Caller::Admin)).await.0;
        assert!(["Unavailable", "Cancelled", "Unknown"].contains(&answer.as_str()), "{by:?}: {answer}");
        bed.up.shutdown().await.unwrap();
    }
}
