//! mTLS: who has a certificate of the doppler's authority may subscribe and send, others may not (contract: loggregator v2 §9.2).

use proto::v2::Envelope;
use transport::{ChannelOptions, Identity, TestCerts, TlsFiles, install_crypto_provider};

use crate::client::{Doppler, Producer, channel, logs, payloads, request, subscribe};

#[tokio::test]
async fn a_certificate_of_the_authority_is_let_in_and_others_are_not() {
    install_crypto_provider();
    let (certs, strangers) = (TestCerts::new(), TestCerts::new());
    let doppler = Doppler::with(|config| config.grpc.tls = Some(certs.files("doppler"))).await;
    let connect = |options: &ChannelOptions| channel(doppler.addr(), options);
    let wanted = || request("", "", vec![logs("")]);

    let ours = ChannelOptions::tls(certs.identity("reverselogproxy"), "doppler");
    let mut subscriber = subscribe(connect(&ours), wanted()).await.unwrap();
    let producer = Producer::open(connect(&ChannelOptions::tls(certs.identity("metron"), "doppler")));
    producer.send(vec![Envelope::log("a", "in confidence")]).await;
    producer.finish().await.unwrap();
    assert_eq!(payloads(&subscriber.take(1).await), ["in confidence"]);

    // Trusts the doppler, and shows a certificate of somebody else's authority.
    let shown = strangers.files("reverselogproxy");
    let mixed = TlsFiles { ca: certs.files("reverselogproxy").ca, ..shown };
    let stranger = ChannelOptions::tls(Identity::load(&mixed).unwrap(), "doppler");
    // The doppler under another name than it has; and no TLS at all.
    let misled = ChannelOptions::tls(certs.identity("reverselogproxy"), "metron");
    for options in [stranger, misled, ChannelOptions::default()] {
        assert!(subscribe(connect(&options), wanted()).await.is_err());
    }
    assert_eq!(doppler.numbers().await.get("hydrant_subscriptions"), 1);
}
