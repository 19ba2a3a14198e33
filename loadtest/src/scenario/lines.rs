//! Lines of statsd over UDP to an agent and on to a doppler: lines a second, what the kernel dropped, processor time of each.

use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep};

use super::bed::{Bed, ScenarioError};
use super::{Mapping, StatsdArgs};
use crate::clock::{Alarm, Clock, nanos};
use crate::procs::Sample;
use crate::report::{Lines, Report};
use crate::scrape;

/// Bursts in a second.
const BURSTS: u64 = 1_000;

/// What the doppler has not received by then it does not.
const LATE: Duration = Duration::from_secs(10);

/// Datagrams that differ: sent again and again, so that each series is seen often.
const DATAGRAMS: u64 = 100;

pub(super) async fn lines(args: &StatsdArgs) -> Result<Report, ScenarioError> {
    let bed = Bed::new(&args.setup)?;
    let native = args.mapping == Mapping::Native;
    let (doppler, agent) = bed.statsd(native, args.sockets.get()).await?;
    let (at_doppler, at_agent) = (doppler.addr("doppler", "admin")?, agent.addr("agent", "admin")?);
    let sample = || Sample::of(agent.pid()).map_err(ScenarioError::Measure);
    let socket = UdpSocket::bind("127.0.0.1:0").await.map_err(ScenarioError::Sink)?;
    socket.connect(agent.addr("agent", "statsd")?).await.map_err(ScenarioError::Sink)?;
    let each = u64::from(args.lines);
    let datagrams: Vec<_> = (0..DATAGRAMS).map(|i| datagram(i, each)).collect();

    let clock = Clock::start();
    let mut alarm = Alarm::new(clock).map_err(ScenarioError::Measure)?;
    let (before, start, began) = (sample()?, clock.now() + nanos(Duration::from_millis(100)), Instant::now());
    let total = args.rate.get().div_ceil(each) * args.seconds;
    let mut sent = 0;
    for burst in 1..=args.seconds * BURSTS {
        alarm.until(start + burst * 1_000_000_000 / BURSTS).await.map_err(ScenarioError::Measure)?;
        while sent < total * burst / (args.seconds * BURSTS) {
            let datagram = &datagrams[(sent % DATAGRAMS) as usize];
            // Over loopback a datagram is in the receiver's buffer, or dropped there and counted.
            socket.send(datagram).await.map_err(ScenarioError::Sink)?;
            sent += 1;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let numbers = async || -> Result<_, ScenarioError> {
        let of_statsd = "{source=\"statsd\"}";
        let read = scrape::number(at_agent, &format!("hydrant_source_datagrams_total{of_statsd}")).await?;
        let kernel = scrape::number(at_agent, &format!("hydrant_source_kernel_drops_total{of_statsd}")).await?;
        let made = scrape::number(at_agent, &format!("hydrant_source_envelopes_total{of_statsd}")).await?;
        let dropped = scrape::drops(at_agent).await?.values().sum::<u64>() - kernel;
        let received = scrape::number(at_doppler, "hydrant_received_envelopes_total{stage=\"doppler\"}").await?;
        Ok((read, kernel, made, dropped, received))
    };
    let (mut now, since) = (numbers().await?, Instant::now());
    while (now.0 + now.1 < sent || now.4 + now.3 < now.2 || (native && now.2 == 0)) && since.elapsed() < LATE {
        // The kernel tells what it dropped with the next datagram.
        socket.send(b"\n").await.map_err(ScenarioError::Sink)?;
        sent += 1;
        sleep(Duration::from_millis(20)).await;
        now = numbers().await?;
    }
    let after = sample()?;
    let (read, kernel, made, dropped, received) = now;
    agent.stop().await?;
    doppler.stop().await?;
    bed.close().await;
    let lines = total * each;
    let mut report = Report::new("statsd");
    report.lines = Some(Lines {
        mapping: if native { "native" } else { "classic" }.to_owned(),
        each,
        seconds,
        lines,
        datagrams: sent,
        read,
        kernel_drops: kernel,
        envelopes: made,
        dropped,
        received,
        cpu_us: (after.cpu - before.cpu).as_secs_f64() * 1e6 / lines as f64,
        peak_rss_bytes: after.peak_rss_bytes,
    });
    Ok(report)
}

/// Counters of a hundred names and three zones, as a client of DogStatsD writes them.
fn datagram(i: u64, lines: u64) -> Vec<u8> {
    let line = |j: u64| format!("shop.orders.n{}:{j}|c|#zone:z{},method:get", (i * lines + j) % 100, j % 3);
    (0..lines).map(line).collect::<Vec<_>>().join("\n").into_bytes()
}
