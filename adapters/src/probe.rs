//! Tries a drain: one line goes to its destination on a connection of its own, and what became of it is said.
//!
//! A drain enters, checked; a report leaves, with the step that failed and why. It takes no more than some twenty seconds.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use prost::Message;
use proto::v2;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::config::DrainConfig;
use crate::drains::{Form, Headers, Prepared};
use crate::outcome::Outcome;
use crate::push::drain::now_ns;
use crate::syslog::client::{End, Link};
use crate::syslog::config::{DrainUrl, Options};
use crate::syslog::encode::{Encoder, Parts};
use crate::syslog::trust::Trust;
use crate::syslog::window::{Frame, Window};

/// For the line to be written and answered.
const WITHIN: Duration = Duration::from_secs(20);
/// For news from a receiver that does not answer.
const SETTLE: Duration = Duration::from_secs(1);
/// The text of the line.
const TEXT: &str = "hydrant drain test: this line was sent to see whether it arrives";

/// Sends one line.
pub(crate) async fn run(prepared: Prepared) -> Value {
    let begun = Instant::now();
    let outcome = send(prepared).await;
    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    match outcome {
        Ok(said) => json!({ "ok": true, "said": said, "took_ms": ms }),
        Err((step, error)) => json!({ "ok": false, "step": step, "error": error.to_string(), "took_ms": ms }),
    }
}

async fn send(prepared: Prepared) -> Result<String, (&'static str, io::Error)> {
    let Prepared { config, mut trust, form, policy, .. } = prepared;
    let style = match form {
        Form::Lines(style) => style,
        Form::Requests(headers, lanes) => return post(&config, headers, lanes).await.map(str::to_owned),
        Form::Page(_) => return Ok("the address is free for a page".to_owned()),
        #[cfg(feature = "nats")]
        Form::Nats(place) => return store(&config, *place).await,
    };
    // Whatever kinds the drain wants, it is a log that is sent.
    let options = Options { metadata: config.url.options.metadata, ..Options::default() };
    let encoder = Encoder::new(&options, &config.hostname, config.metadata, style);
    let frame = line(encoder, &config.sources).map_err(|error| ("line", error))?;
    let opened = Link::open(&config.url, trust.as_mut(), 0, policy.as_deref()).await;
    let mut link = opened.map_err(|error| ("connect", error))?;
    let mut window = Window::new(false);
    window.push(frame);
    let mut written = 0;
    let wrote = timeout(WITHIN, link.write(window.unsent(), 1, &mut written)).await;
    let late = || io::Error::new(io::ErrorKind::TimedOut, "the receiver did not take the line within 20 s");
    wrote.unwrap_or_else(|_| Err(late())).map_err(|error| ("write", error))?;
    if link.answers() {
        return Ok("the receiver answered that it took the line".to_owned());
    }
    // A receiver that cannot make sense of what it is sent closes, or resets.
    match timeout(SETTLE, link.ended()).await {
        Ok(End::Broken(error)) => return Err(("read", error)),
        Ok(End::Closed) => {
            return Ok("the line was written, and the receiver closed the connection in the orderly way".to_owned());
        }
        Err(_) => {}
    }
    match link.settle(SETTLE).await {
        End::Closed => Ok("the line was written, and the receiver's machine acknowledged it".to_owned()),
        End::Broken(error) if error.kind() == io::ErrorKind::TimedOut => {
            Ok("the line was written; the receiver did not close with us, and cannot say whether it read it".to_owned())
        }
        End::Broken(error) => Err(("read", error)),
    }
}

/// Stores one line in a stream.
#[cfg(feature = "nats")]
async fn store(
    config: &DrainConfig,
    mut place: crate::nats::place::Place,
) -> Result<String, (&'static str, io::Error)> {
    use crate::nats::session::{Session, Verdict};
    let mut session = Session::open(&mut place, 0).await.map_err(|error| ("connect", io::Error::other(error)))?;
    let source_id = config.sources.first().map_or("hydrant", String::as_str);
    let now = now_ns();
    let line = v2::Envelope::log(source_id, TEXT).at(now).instance("0").tag("source_type", "LGR").encode_to_vec();
    let subject = proto::subject::subject(&place.prefix, proto::raw::Kind::Log, source_id.as_bytes(), b"0");
    let id = format!("{}-test-{now:x}", crate::metrics::label(&config.name));
    let stored = timeout(WITHIN, async {
        session.publish(0, &subject, &id, line.into()).await?;
        session.answer().await
    });
    let late = || io::Error::new(io::ErrorKind::TimedOut, "the stream did not answer within 20 s");
    match stored.await.map_err(|_| ("write", late()))?.map_err(|error| ("write", io::Error::other(error)))?.1 {
        Verdict::Stored { sequence, .. } => {
            Ok(format!("the stream {} has it as message {sequence}, under {subject}", place.stream))
        }
        Verdict::Never(_, text) => Err(("write", io::Error::other(text))),
        Verdict::NotNow { error, .. } => Err(("write", io::Error::other(error))),
    }
}

/// Sends one value of a gauge; where metrics are not sent, a log or a span.
async fn post(
    config: &DrainConfig,
    headers: Headers,
    lanes: Vec<(DrainUrl, Option<Trust>)>,
) -> Result<&'static str, (&'static str, io::Error)> {
    let now = now_ns();
    let mut maker = config.maker();
    let tries = [
        (
            v2::Envelope::gauge("hydrant", "hydrant_drain_test", 1.0, ""),
            "the receiver answered that it took the value 1 of the gauge hydrant_drain_test",
        ),
        (v2::Envelope::log("hydrant", TEXT), "the receiver answered that it took the line"),
        (
            v2::Envelope::timer("hydrant", "hydrant_drain_test", now, now)
                .tag("trace_id", "00000000000000000000000000000001")
                .tag("span_id", "0000000000000001"),
            "the receiver answered that it took the span hydrant_drain_test",
        ),
    ];
    let said = tries.into_iter().find_map(|(envelope, said)| {
        let kept = maker.put(&envelope.at(now).instance("0").encode_to_vec(), now) == Outcome::Kept;
        kept.then_some(said)
    });
    let mut made = lanes.into_iter().zip(maker.flush(now, true).0);
    let made = made.find_map(|(to, requests)| Some((to, requests.into_iter().next()?)));
    let (Some(said), Some(((destination, mut trust), request))) = (said, made) else {
        return Err(("request", io::Error::other("nothing came of a gauge, a log and a span, a defect of hydrant")));
    };
    let mut link = Link::open(&destination, trust.as_mut(), 0, None).await.map_err(|error| ("connect", error))?;
    let taken = request.make(&mut link, &destination, &headers).await.map_err(|error| ("write", error))?;
    match taken.rejected {
        0 => Ok(said),
        _ => Err(("write", io::Error::other(format!("the destination rejected it: {}", taken.said)))),
    }
}

/// The line, as a log of the drain's first source.
fn line(mut encoder: Encoder, sources: &[String]) -> io::Result<Frame> {
    let source_id = sources.first().map_or("hydrant", String::as_str);
    let envelope =
        v2::Envelope::log(source_id, TEXT).at(now_ns()).instance("0").tag("source_type", "LGR").encode_to_vec();
    let (mut spare, mut out) = (Vec::new(), BytesMut::new());
    let parts = Parts::read(&envelope, &mut spare).map_err(io::Error::other)?;
    encoder.encode(&parts, &mut out).map_err(io::Error::other)?;
    Ok(Frame::new(out.freeze(), Arc::from(source_id), false, Instant::now()))
}
