//! Who may read what, through the whole pipeline: every endpoint, every kind of caller, sources of its own, of others, and of nobody,
//! for each authorizer. What a caller may not read leaves no trace in any byte that it gets.

use tonic::transport::Channel;
use traffic_controller::test_platform::{FOREIGN, OTHER_APP};

use self::ask::{grpc, http};
use self::bed::{Bed, By, CALLERS, Caller, NOBODY, OWN, leaked};
use crate::harness::channel;

#[path = "auth_matrix/ask.rs"]
mod ask;
#[path = "auth_matrix/bed.rs"]
mod bed;
#[path = "auth_matrix/ends.rs"]
mod ends;
#[path = "auth_matrix/leaks.rs"]
mod leaks;
#[path = "auth_matrix/secrets.rs"]
mod secrets;
#[path = "auth_matrix/trouble.rs"]
mod trouble;

/// Per line: how, where and what is asked for, then the answers to: nobody, an unknown token, one that has ended, one for somebody else,
/// who reads `own`, who reads `own` and `other` by patterns, who reads everything, the reader's cookie from an own page and from a foreign
/// one. `get` is any answer, `ws` a handshake; `nobody` has no line with `foreign` in it, as every such line is asked for it too.
const MATRIX: &str = "
ws   http    /firehose/x                               401 401 401 401 401 401 101 401 403
ws   http    /firehose/x?filter-type=logs              401 401 401 401 401 401 101 401 403
ws   http    /firehose/{own}                           401 401 401 401 401 401 101 401 403
ws   http    /apps/{own}/stream                        401 401 401 401 101 101 101 101 403
ws   http    /apps/{other}/stream                      401 401 401 401 404 101 101 404 403
ws   http    /apps/{foreign}/stream                    401 401 401 401 404 404 101 404 403
get  http    /apps/{own}/stream                        401 401 401 401 400 400 400 400 403
get  http    /apps/{foreign}/stream                    401 401 401 401 404 404 400 404 403
get  http    /apps/{own}/recentlogs                    401 401 401 401 200 200 200 200 403
get  http    /apps/{other}/recentlogs                  401 401 401 401 404 200 200 404 403
get  http    /apps/{foreign}/recentlogs                401 401 401 401 404 404 200 404 403
get  http    /apps/{foreign}/recentlogs?limit=0        401 401 401 401 404 404 200 404 403
get  http    /apps/{own}/containermetrics              401 401 401 401 200 200 200 200 403
get  http    /apps/{foreign}/containermetrics          401 401 401 401 404 404 200 404 403
get  http    /v2/read                                  404 404 404 404 404 404 400 404 404
get  http    /v2/read?log                              404 404 404 404 404 404 200 404 404
get  http    /v2/read?log&source_id=                   404 404 404 404 404 404 200 404 404
get  http    /v2/read?log&source_id={own}              404 404 404 404 200 200 200 200 404
get  http    /v2/read?log&source_id={foreign}          404 404 404 404 404 404 200 404 404
get  http    /v2/read?source_id={foreign}              404 404 404 404 404 404 400 404 404
get  http    /v2/read?log&source_id={own}&source_id={foreign}   404 404 404 404 404 404 200 404 404
get  http    /v2/read?log&source_id={own}&source_id=   404 404 404 404 404 404 200 404 404
get  http    /v2/read?log&source_id={own}&start_time=0 404 404 404 404 200 200 200 200 404
get  http    /v2/read?log&source_id={foreign}&start_time=0      404 404 404 404 404 404 200 404 404
get  http    /v2/read?log&source_id={own}&after=x      404 404 404 404 400 400 400 400 404
get  http    /v2/read?log&source_id={foreign}&after=x  404 404 404 404 404 404 400 404 404
get  http    /v2/read?log&source_id={own};source_id={foreign}   404 404 404 404 404 404 200 404 404
get  http    /v2/read?log&source_id={own}&sourc%65_id={foreign} 404 404 404 404 404 404 200 404 404
post http    /v2/read?log&source_id={own}              404 404 404 404 405 405 405 405 404
post http    /v2/read?log&source_id={foreign}          404 404 404 404 404 404 405 404 404
get  gateway /v2/read?log                              404 404 404 404 404 404 200 404 404
get  gateway /v2/read?log&source_id={own}              404 404 404 404 200 200 200 404 404
get  gateway /v2/read?log&source_id={other}            404 404 404 404 404 200 200 404 404
get  gateway /v2/read?log&source_id={foreign}          404 404 404 404 404 404 200 404 404
get  gateway /v2/read?log&source_id={own}&source_id={foreign}&resume    404 404 404 404 404 404 200 404 404
get  gateway /v2/read?log&source_id={own}&shard_id=a   404 404 404 404 200 200 200 404 404
ws   http    /v2/stream?log                            401 401 401 401 404 404 101 404 403
ws   http    /v2/stream?log&source_id=                 401 401 401 401 404 404 101 404 403
ws   http    /v2/stream?log&source_id={own}            401 401 401 401 101 101 101 101 403
ws   http    /v2/stream?log&source_id={other}          401 401 401 401 404 101 101 404 403
ws   http    /v2/stream?log&source_id={foreign}        401 401 401 401 404 404 101 404 403
ws   http    /v2/stream?log&source_id={own}&source_id={foreign} 401 401 401 401 404 404 101 404 403
ws   http    /v2/stream?log&source_id={own}&start_time=0        401 401 401 401 101 101 101 101 403
ws   http    /v2/stream?log&source_id={foreign}&start_time=0    401 401 401 401 404 404 101 404 403
get  http    /v2/stream?log&source_id={own}            401 401 401 401 400 400 400 400 403
get  http    /v2/stream?log&source_id={foreign}        401 401 401 401 404 404 400 404 403
ws   gateway /v2/stream?log&source_id={own}            401 401 401 401 101 101 101 401 401
ws   gateway /v2/stream?log&source_id={foreign}        401 401 401 401 404 404 101 401 401
get  rest    /api/v1/read/{own}                        404 404 404 404 200 200 200 404 404
get  rest    /api/v1/read/{other}                      404 404 404 404 404 200 200 404 404
get  rest    /api/v1/read/{foreign}                    404 404 404 404 404 404 200 404 404
get  rest    /api/v1/read/{foreign}?limit=x            404 404 404 404 400 400 400 404 404
get  rest    /api/v1/read/{own}?source_id={foreign}    404 404 404 404 200 200 200 404 404
get  rest    /api/v1/read/                             404 404 404 404 404 404 200 404 404
get  rest    /api/v1/meta                              404 404 404 404 200 200 200 404 404
get  rest    /api/v1/meta?local_only=true              404 404 404 404 200 200 200 404 404
get  rest    /api/v1/query?query=x%7Bsource_id=%22{own}%22%7D 404 404 404 404 200 200 200 404 404
get  rest    /api/v1/query?query=x%7Bsource_id=%22{foreign}%22%7D 404 404 404 404 404 404 200 404 404
get  rest    /api/v1/query?query=x%7Bsource_id=~%22{own}%7C{foreign}%22%7D 404 404 404 404 404 404 200 404 404
get  rest    /api/v1/query?query=x                     404 400 400 400 400 400 400 404 404
get  rest    /api/v1/query_range?query=x%7Bsource_id=%22{foreign}%22%7D&start=1&end=2&step=1 404 404 404 404 404 404 200 404 404
get  rest    /api/v1/labels                            404 404 404 404 200 200 200 404 404
get  rest    /api/v1/metadata                          404 404 404 404 200 200 200 404 404
get  http    /api/v1/query?query=x%7Bsource_id=%22{foreign}%22%7D 404 404 404 404 404 404 200 404 404
get  http    /api/v1/label/source_id/values            404 404 404 404 200 200 200 200 404
get  rest    /api/v1/info                              200 200 200 200 200 200 200 200 200
get  http    /api/v1/read/{own}                        404 404 404 404 200 200 200 200 404
get  http    /api/v1/read/{foreign}                    404 404 404 404 404 404 200 404 404
get  http    /api/v1/meta                              404 404 404 404 200 200 200 200 404
get  http    /api/v1/info                              200 200 200 200 200 200 200 200 200
get  http    /v1/overview                              401 401 401 401 200 200 200 200 403
get  http    /v1/overview?source_id={foreign}          401 401 401 401 200 200 200 200 403
post http    /v1/session                               401 401 401 401 204 204 204 401 401
del  http    /v1/session                               204 204 204 204 204 204 204 204 204
get  http    /                                         200 200 200 200 200 200 200 200 200
grpc batched   {own}                      Unauthenticated Unauthenticated Unauthenticated Unauthenticated OK OK OK Unauthenticated Unauthenticated
grpc batched   {other}                    Unauthenticated Unauthenticated Unauthenticated Unauthenticated PermissionDenied OK OK Unauthenticated Unauthenticated
grpc batched   {foreign}                  Unauthenticated Unauthenticated Unauthenticated Unauthenticated PermissionDenied PermissionDenied OK Unauthenticated Unauthenticated
grpc batched   {own},{foreign}            Unauthenticated Unauthenticated Unauthenticated Unauthenticated PermissionDenied PermissionDenied OK Unauthenticated Unauthenticated
grpc batched   any                        Unauthenticated Unauthenticated Unauthenticated Unauthenticated PermissionDenied PermissionDenied OK Unauthenticated Unauthenticated
grpc batched   {own},any                  Unauthenticated Unauthenticated Unauthenticated Unauthenticated PermissionDenied PermissionDenied OK Unauthenticated Unauthenticated
grpc batched   +legacy:{own}              Unauthenticated Unauthenticated Unauthenticated Unauthenticated OK OK OK Unauthenticated Unauthenticated
grpc batched   +legacy:{foreign}          Unauthenticated Unauthenticated Unauthenticated Unauthenticated PermissionDenied PermissionDenied OK Unauthenticated Unauthenticated
grpc batched   +legacy:any                Unauthenticated Unauthenticated Unauthenticated Unauthenticated PermissionDenied PermissionDenied OK Unauthenticated Unauthenticated
grpc batched   {own}+legacy:{foreign}     Unauthenticated Unauthenticated Unauthenticated Unauthenticated OK OK OK Unauthenticated Unauthenticated
grpc receiver  {own}                      Unauthenticated Unauthenticated Unauthenticated Unauthenticated OK OK OK Unauthenticated Unauthenticated
grpc receiver  {own},{foreign}            Unauthenticated Unauthenticated Unauthenticated Unauthenticated PermissionDenied PermissionDenied OK Unauthenticated Unauthenticated
grpc receiver  any                        Unauthenticated Unauthenticated Unauthenticated Unauthenticated PermissionDenied PermissionDenied OK Unauthenticated Unauthenticated
grpc receiver  +legacy:{foreign}          Unauthenticated Unauthenticated Unauthenticated Unauthenticated PermissionDenied PermissionDenied OK Unauthenticated Unauthenticated
grpc follow    {own}                      Unauthenticated Unauthenticated Unauthenticated Unauthenticated OK OK OK Unauthenticated Unauthenticated
grpc follow    {foreign}                  Unauthenticated Unauthenticated Unauthenticated Unauthenticated PermissionDenied PermissionDenied OK Unauthenticated Unauthenticated
grpc follow    {own},{foreign}            Unauthenticated Unauthenticated Unauthenticated Unauthenticated PermissionDenied PermissionDenied OK Unauthenticated Unauthenticated
grpc follow    any                        Unauthenticated Unauthenticated Unauthenticated Unauthenticated PermissionDenied PermissionDenied OK Unauthenticated Unauthenticated
grpc overview  -                          Unauthenticated Unauthenticated Unauthenticated Unauthenticated OK OK OK Unauthenticated Unauthenticated
";

/// The answer to one cell: its status or code, and every byte but the time.
async fn answer(bed: &Bed, grpc_channel: &Channel, line: &[&str], caller: Caller) -> (String, Vec<u8>) {
    let headers = bed.headers(caller);
    let [how, place, what] = line else { panic!("{line:?}") };
    let addrs = bed.up.traffic_controller();
    let addr = match *place {
        "http" => addrs.http,
        "gateway" => addrs.gateway,
        "rest" => addrs.rest,
        call => return grpc(grpc_channel.clone(), call, what, &headers).await,
    };
    let method = match *how {
        "post" => "POST",
        "del" => "DELETE",
        _ => "GET",
    };
    let open = http(addr, method, what, &headers, *how == "ws").await;
    (open.status().to_string(), without_date(&open.bytes))
}

fn without_date(answer: &[u8]) -> Vec<u8> {
    let lines = answer.split_inclusive(|byte| *byte == b'\n');
    lines.filter(|line| !line.to_ascii_lowercase().starts_with(b"date: ")).flatten().copied().collect()
}

fn named(what: &str, foreign: &str) -> String {
    what.replace("{own}", OWN).replace("{other}", OTHER_APP).replace("{foreign}", foreign)
}

async fn every_cell(by: By) {
    let bed = Bed::new(by).await;
    let grpc_channel = channel(bed.up.traffic_controller().grpc).await;
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for line in MATRIX.lines().filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (ask, expected) = words.split_at(3);
        assert_eq!(expected.len(), CALLERS.len(), "{line}");
        for (caller, expected) in CALLERS.into_iter().zip(expected) {
            let what = named(ask[2], FOREIGN);
            let (got, bytes) = answer(&bed, &grpc_channel, &[ask[0], ask[1], &what], caller).await;
            if got != *expected {
                wrong.push(format!("{} by {caller:?}: {got} instead of {expected}", ask.join(" ")));
            }
            if caller == Caller::Admin {
                seen += usize::from(leaked(&bytes).is_some());
                continue;
            }
            if let Some(what) = leaked(&bytes) {
                wrong.push(format!("{} by {caller:?} leaks {what}", ask.join(" ")));
            }
            // What is not there looks just the same. An overview has the time in it.
            if ask[2].contains("{foreign}") && !ask[2].contains("overview") && !ask[2].contains("{own}?") {
                let what = named(ask[2], NOBODY);
                let (_, of_nobody) = answer(&bed, &grpc_channel, &[ask[0], ask[1], &what], caller).await;
                if bytes != of_nobody {
                    wrong.push(format!("{} by {caller:?} tells the foreign from the missing", ask.join(" ")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{by:?}: {wrong:#?}");
    assert!(seen > 5, "who reads everything sees what others must not: {seen} times");
    bed.up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn auth_matrix_of_tokens() {
    every_cell(By::Tokens).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn auth_matrix_of_a_uaa() {
    every_cell(By::Uaa).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn auth_matrix_of_an_openid_provider() {
    every_cell(By::Jwks).await;
}
