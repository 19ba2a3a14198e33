//! Syslog into the cache: readers of the cache find it, subscribers do not get it.

use log_cache::SyslogConfig;
use prost::Message;
use proto::logcache::v1;
use proto::logcache::v1::egress_client::EgressClient;
use proto::v2::{Envelope, EnvelopeBatch};
use telemetry::Telemetry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Doppler, logs};

#[tokio::test]
async fn syslog_goes_into_the_cache_and_to_nobody_else() {
    let doppler = Doppler::with(|config| config.cache_syslog = Some(SyslogConfig::for_test())).await;
    let mut subscriber = doppler.subscribe(vec![logs("")]).await;
    let line = "<14>1 2024-04-05T19:34:38.5Z host app-1 [APP/3] - [tags@47450 a=\"b\"] hello\n";
    let mut stream = TcpStream::connect(doppler.cache_syslog()).await.unwrap();
    stream.write_all(format!("{} {line}", line.len()).as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap(), 0);

    let request = v1::ReadRequest { source_id: "app-1".to_owned(), ..v1::ReadRequest::default() };
    let read = EgressClient::new(doppler.channel()).read(request).await.unwrap().into_inner();
    let stored = Envelope::log("app-1", "hello").at(1_712_345_678_500_000_000).instance("3").tag("a", "b");
    assert_eq!(EnvelopeBatch::decode(read.envelopes.unwrap()).unwrap().batch, [stored]);

    doppler.send([vec![Envelope::log("app-1", "by an agent")]]).await;
    assert_eq!(subscriber.next().await.unwrap().payload(), b"by an agent");
}

#[tokio::test]
async fn syslog_without_a_cache_is_refused() {
    let mut config = doppler::Config::for_test();
    config.cache.enabled = false;
    config.cache_syslog = Some(SyslogConfig::for_test());
    let error = config.bind(&Telemetry::default()).await.unwrap_err().to_string();
    assert!(error.starts_with("doppler.cache_syslog: there is no cache;"), "{error}");
}
