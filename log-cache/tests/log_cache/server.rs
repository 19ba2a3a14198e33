//! A cache node of its own: what is brought to it by gRPC and by syslog is read from it; who may do what; and a stop.

use log_cache::{Handle, NodeConfig};
use prost::Message;
use proto::hydrant::v1 as hydrant;
use proto::hydrant::v1::follow_client::FollowClient;
use proto::logcache::v1;
use proto::logcache::v1::egress_client::EgressClient;
use proto::logcache::v1::ingress_client::IngressClient;
use proto::v2::{Envelope, EnvelopeBatch};
use telemetry::Telemetry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use transport::{ChannelOptions, Role, TestCerts, TlsFiles, channel};

async fn start(adjust: impl FnOnce(&mut NodeConfig)) -> Handle {
    let mut config = NodeConfig::for_test();
    adjust(&mut config);
    config.bind(&Telemetry::default()).await.unwrap().spawn()
}

fn to(node: &Handle, shown: Option<&TlsFiles>) -> Channel {
    let options = shown.map_or_else(ChannelOptions::default, |files| {
        ChannelOptions::tls(transport::Identity::load(files).unwrap(), "log-cache")
    });
    channel(&node.addrs().grpc.into(), &options)
}

async fn send(channel: Channel, envelope: Envelope) -> Result<(), Status> {
    let envelopes = EnvelopeBatch { batch: vec![envelope] }.encode_to_vec().into();
    IngressClient::new(channel).send(v1::SendRequest { envelopes, local_only: false }).await.map(drop)
}

async fn read(channel: Channel, source_id: &str) -> Result<Vec<Envelope>, Status> {
    let request = v1::ReadRequest { source_id: source_id.to_owned(), ..v1::ReadRequest::default() };
    let answer = EgressClient::new(channel).read(request).await?.into_inner();
    Ok(EnvelopeBatch::decode(answer.envelopes.unwrap()).unwrap().batch)
}

#[tokio::test]
async fn what_comes_by_grpc_and_by_syslog_is_read_in_the_order_of_its_times() {
    let node = start(|_| {}).await;
    send(to(&node, None), Envelope::log("app-1", "by gRPC").at(1_712_345_679_000_000_000).instance("0")).await.unwrap();
    let mut syslog = TcpStream::connect(node.addrs().syslog.unwrap()).await.unwrap();
    syslog.write_all(b"58 <14>1 2024-04-05T19:34:38.5Z h app-1 [APP/0] - - by syslog").await.unwrap();
    syslog.shutdown().await.unwrap();
    syslog.read_to_end(&mut Vec::new()).await.unwrap();
    let texts: Vec<Vec<u8>> =
        read(to(&node, None), "app-1").await.unwrap().iter().map(|envelope| envelope.payload().to_vec()).collect();
    assert_eq!(texts, [&b"by syslog"[..], b"by gRPC"]);

    // A stop ends what follows in form.
    let request = hydrant::FollowRequest { source_ids: vec!["app-1".to_owned()], ..hydrant::FollowRequest::default() };
    let mut follow = FollowClient::new(to(&node, None)).follow(request).await.unwrap().into_inner();
    while !follow.message().await.unwrap().unwrap().live {}
    node.stop();
    assert_eq!(follow.message().await.unwrap(), None);
    drop(follow);
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn roles_are_let_in_to_what_is_theirs() {
    let certs = TestCerts::new();
    let node = start(|config| {
        config.grpc.tls = Some(certs.files("log-cache"));
        config.grpc.access.enforce = true;
    })
    .await;
    let of = |role| certs.files_with_role("peer", role);
    let line = || Envelope::log("app-1", "hello").at(1);
    for (role, writes, reads) in [
        (Role::Agent, true, false),
        (Role::Doppler, true, true),
        (Role::LogCache, true, true),
        (Role::TrafficController, false, true),
        (Role::Consumer, false, false),
    ] {
        let channel = to(&node, Some(&of(role)));
        let code = |outcome: Result<(), Status>| outcome.map_err(|status| status.code());
        let (sent, got) = (send(channel.clone(), line()).await, read(channel, "app-1").await.map(drop));
        let expected = |may: bool| if may { Ok(()) } else { Err(Code::PermissionDenied) };
        assert_eq!((code(sent), code(got)), (expected(writes), expected(reads)), "{role}");
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_key() {
    let refused = |adjust: fn(&mut NodeConfig)| {
        let mut config = NodeConfig::for_test();
        adjust(&mut config);
        config.check().unwrap_err().to_string()
    };
    let error = refused(|config| config.grpc.listen = "0.0.0.0:0".parse().unwrap());
    assert!(error.starts_with("log_cache.grpc.listen: 0.0.0.0:0 can be reached from outside"), "{error}");
    let error = refused(|config| config.syslog.listen = "[::]:0".parse().unwrap());
    assert!(error.starts_with("log_cache.syslog.listen: [::]:0 can be reached from outside"), "{error}");
    let error = refused(|config| config.cache.enabled = false);
    assert!(error.starts_with("log_cache.cache.enabled: "), "{error}");
}
