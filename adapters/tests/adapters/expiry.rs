//! F42: a receiver's certificate expires while a drain is connected to it.

use std::time::{Duration, SystemTime};

use hydrant_adapters::DrainTls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;
use transport::{TestCerts, TlsFiles};

use crate::drains::until;
use crate::support::{Rig, check_laws, line, lines, number, receiver};
use crate::tls::{over_tls, server_of};

#[tokio::test]
async fn f42_a_certificate_that_expires_ends_no_connection_and_is_named_at_the_next() {
    let certs = TestCerts::new();
    let now = SystemTime::now();
    let expires = now + Duration::from_secs(3);
    let files = certs.files_valid("receiver", now - Duration::from_secs(60), expires);
    let (listener, addr) = receiver().await;
    let tls = DrainTls { ca: Some(files.ca.clone()), server_name: Some("receiver".to_owned()), ..DrainTls::default() };
    let rig = Rig::start(addr, "", |config| over_tls(config, addr, tls)).await;
    let accept = async |files: &TlsFiles| {
        let (stream, _) = listener.accept().await.unwrap();
        TlsAcceptor::from(server_of(files)).accept(stream).await
    };
    rig.send(&lines(0..1)).await;
    let mut stream = accept(&files).await.unwrap();
    assert_eq!(line(&mut stream).await, Some(0));
    // Its last second passes; the clock of certificates has whole ones.
    let passed = expires + Duration::from_secs(1);
    sleep_until(Instant::now() + passed.duration_since(SystemTime::now()).unwrap()).await;
    rig.send(&lines(1..2)).await;
    assert_eq!(line(&mut stream).await, Some(1), "a running connection lives on");
    stream.shutdown().await.unwrap();
    drop(stream);
    rig.send(&lines(2..3)).await;
    let asked = Instant::now();
    assert!(accept(&files).await.is_err(), "the drain goes no further with it");
    let admin = rig.adapters.addrs().admin;
    let told = until(admin, "test", |drain| drain["last_error"]["text"].is_string()).await;
    let delay = asked.elapsed();
    assert!(told["last_error"]["text"].as_str().unwrap().contains("expired"), "{told}");
    assert!(delay < Duration::from_secs(1), "it was told after {delay:?}");
    // The receiver gets a new one; nothing was lost meanwhile.
    let renewed = certs.files("receiver");
    let mut stream = loop {
        if let Ok(stream) = accept(&renewed).await {
            break stream;
        }
    };
    assert_eq!(line(&mut stream).await, Some(2));
    println!("{{\"id\":\"F42\",\"issued\":3,\"unique\":3,\"duplicates\":0,\"told_ms\":{}}}", delay.as_millis());
    let farewell = async {
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        stream.shutdown().await.unwrap();
    };
    let ((), (_, telemetry)) = tokio::join!(farewell, rig.shutdown());
    assert_eq!(number(&telemetry, "hydrant_link_requeued_total{link=\"drain\"}"), 0);
    check_laws(&telemetry);
}
