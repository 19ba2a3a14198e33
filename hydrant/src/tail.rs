//! `hydrant tail`: what sources log, history first, through the traffic controller.
//!
//! What enters: streams of frames ([`stream`]), one for each 64 sources. What leaves: lines, as far as they are wanted
//! ([`crate::filter`]): history merged ([`history`]), then what comes, both put into order within a window ([`order`]).

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use proto::hydrant::v1::FollowRequest;
use proto::hydrant::v1::follow_client::FollowClient;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use transport::reason;

use self::history::History;
use self::order::Window;
use self::sources::{A_STREAM, Chosen, FOLLOWED, More, Wanted, wanted};
use self::stream::{Client, Event};
use self::view::View;
use crate::cli::{Failure, runtime};
use crate::client::{Controller, MAX, Output};
use crate::filter::{Filter, FilterArgs, Kind};
use crate::overview;
use crate::render::Form;
use crate::token::Bearer;

mod history;
mod order;
pub(crate) mod sources;
pub(crate) mod stream;
mod view;

/// Streams open at most: of a thousand that a traffic controller serves.
const STREAMS: usize = 128;

/// How long lines of several instances wait for each other, where nothing else is said.
pub(crate) const ORDER: Duration = Duration::from_millis(500);

/// Lines that `--tail` keeps of a source at most.
const LAST: u64 = 100_000;

/// Arguments of `hydrant tail`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The sources, by their ids, or by a regular expression between slashes: /^shop-/. One that does not exist yet is waited for
    #[arg(required = true, value_name = "SOURCE|/REGEX/", value_parser = wanted)]
    sources: Vec<Wanted>,
    /// Show what there is and end
    #[arg(long)]
    no_follow: bool,
    /// Show nothing older: a duration such as 10m, or a time such as 2026-11-21T14:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<i64>,
    /// Of each source, begin with its last lines, so many of those that are wanted
    #[arg(long, short = 'n', value_name = "LINES", value_parser = clap::value_parser!(u64).range(..=LAST))]
    tail: Option<u64>,
    /// Put the lines of several instances into the order of their times, as far as they come within so long; 0 shows them as they come
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = window)]
    order: Duration,
    /// What kinds of envelopes to show
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', default_values = ["log", "event"])]
    kinds: Vec<Kind>,
    /// How to show them: text; raw, the lines as they were sent; json, for programs; or template='{time} {source} {message}', with
    /// {time}, {source}, {instance}, {type}, {level}, {message} and {tag.NAME}
    #[arg(long, short, value_name = "FORM", default_value = "text", value_parser = str::parse::<Form>)]
    output: Form,
    /// The same as --output json
    #[arg(long, conflicts_with = "output")]
    json: bool,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    at: Controller,
}

/// A moment as nanoseconds since the Unix epoch.
pub(crate) fn since(text: &str) -> Result<i64, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        return Ok(i64::try_from(now.saturating_sub(ago).as_nanos()).unwrap_or(i64::MAX));
    }
    let time: jiff::Timestamp = text
        .parse()
        .map_err(|_| "write a duration such as 10m or 1h30m, or a time such as 2026-11-21T14:00:00Z".to_owned())?;
    Ok(i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX))
}

fn window(text: &str) -> Result<Duration, String> {
    let most = Duration::from_secs(60);
    match humantime::parse_duration(text) {
        Ok(width) if width <= most => Ok(width),
        _ if text == "0" => Ok(Duration::ZERO),
        Ok(_) => Err("a minute is the longest that lines can wait".to_owned()),
        Err(_) => Err("write a duration such as 500ms, or 0".to_owned()),
    }
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let connection = args.at.connect().await?;
        let form = if args.json { Form::Json } else { args.output };
        let tail = Tail {
            sources: args.sources,
            since: args.since.unwrap_or(0),
            last: args.tail.and_then(|lines| usize::try_from(lines).ok()),
            history_only: args.no_follow,
            order: args.order,
            kinds: args.kinds,
            form,
            filter: args.filter,
        };
        tail.show(connection, Output::new()).await
    })
}

/// What is to be shown.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) sources: Vec<Wanted>,
    /// Nanoseconds since the Unix epoch.
    pub(crate) since: i64,
    pub(crate) last: Option<usize>,
    pub(crate) history_only: bool,
    pub(crate) order: Duration,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) form: Form,
    pub(crate) filter: FilterArgs,
}

impl Tail {
    /// Shows it until there is no more, the reader has gone, or Ctrl-C is pressed.
    pub(crate) async fn show(self, connection: (Channel, Bearer), output: Output) -> Result<(), Failure> {
        let (mut chosen, mut first) = Chosen::new(&self.sources);
        let looks = chosen.looks();
        let mut overview = overview::client(connection.clone());
        if looks {
            let reply = overview::need(&mut overview).await?;
            let more = chosen.more(reply.sources.iter().map(|source| source.source_id.as_str()));
            first.sources.extend(more.sources);
            first.full |= more.full;
            if first.sources.is_empty() && !self.history_only {
                output.notice("no source matches yet; waiting for one");
            }
        }
        let printer = output.printer(self.form, self.filter.highlight());
        let (channel, bearer) = connection;
        let stop = CancellationToken::new();
        let mut following = Following {
            client: FollowClient::with_interceptor(channel, bearer).max_decoding_message_size(MAX),
            request: FollowRequest {
                start_time: self.since,
                envelope_types: self.kinds.iter().map(|kind| kind.wire().into()).collect(),
                history_only: self.history_only,
                ..FollowRequest::default()
            },
            streams: Vec::new(),
            next: 0,
            history: None,
            window: Window::new(self.order),
            filter: Filter::new(self.filter),
            view: View::new(output, printer),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
            _stop: stop.clone().drop_guard(),
        };
        following.add(&first);
        following.history = Some(History::new(following.streams.len(), self.last));
        let (told, more) = mpsc::channel(1);
        if looks && !self.history_only {
            let watch = sources::watch(chosen, overview, told);
            following.tasks.spawn(async move { stop.run_until_cancelled(watch).await });
        }
        following.run(more).await
    }
}

/// A tail while it runs.
struct Following {
    client: Client,
    /// Of every stream, without its sources.
    request: FollowRequest,
    /// Ended ones stay, so that the others keep their numbers.
    streams: Vec<Option<mpsc::Receiver<Event>>>,
    /// Which stream is looked at first, so that none is always last.
    next: usize,
    /// While it lasts.
    history: Option<History>,
    window: Window,
    filter: Filter,
    view: View,
    tasks: TaskTracker,
    stop: CancellationToken,
    _stop: DropGuard,
}

impl Following {
    /// Opens streams of more sources.
    fn add(&mut self, more: &More) {
        if more.full {
            self.view.output.notice(&format!("more sources match than can be followed at once; {FOLLOWED} are"));
        }
        for sources in more.sources.chunks(A_STREAM) {
            if self.streams.len() == STREAMS {
                self.view
                    .output
                    .notice("so many sources have come one by one that no more can be followed; start again");
                return;
            }
            if self.streams.len() > STREAMS {
                return;
            }
            let (events, received) = stream::queue();
            let request = FollowRequest { source_ids: sources.to_vec(), ..self.request.clone() };
            let (reading, stop) = (stream::read(self.client.clone(), request, events), self.stop.clone());
            self.tasks.spawn(async move { stop.run_until_cancelled(reading).await });
            self.streams.push(Some(received));
        }
    }

    async fn run(mut self, mut more: mpsc::Receiver<More>) -> Result<(), Failure> {
        let mut looking = true;
        while !self.is_over() {
            let due = self.window.next();
            tokio::select! {
                (stream, event) = arrival(&mut self.streams, &mut self.next, self.history.as_ref()) => self.take(stream, event)?,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                found = more.recv(), if looking => match found {
                    Some(found) => self.add(&found),
                    None => looking = false,
                },
                _ = tokio::signal::ctrl_c() => {
                    let rest = self.window.rest();
                    self.view.put(&rest);
                    self.view.output.flush();
                    return Err(Failure::Interrupted);
                }
            }
            self.show();
            if !self.view.output.flush() {
                break;
            }
        }
        Ok(())
    }

    /// Whether all of history alone has been shown.
    fn is_over(&self) -> bool {
        self.request.history_only && self.streams.iter().all(Option::is_none)
    }

    fn take(&mut self, stream: usize, event: Option<Event>) -> Result<(), Failure> {
        match event {
            Some(Event::Frame(mut envelopes, gap)) => {
                if let Some(gap) = gap {
                    self.view.gap(&gap);
                }
                envelopes.retain(|envelope| self.filter.admits(envelope));
                let now = Instant::now();
                match &mut self.history {
                    Some(history) => history.push(stream, envelopes),
                    None => envelopes.into_iter().for_each(|envelope| self.window.push(envelope, now)),
                }
            }
            Some(Event::Unreadable) => {
                self.view.output.notice("the traffic controller sent a batch that cannot be read; it was skipped");
            }
            Some(Event::Missing(dopplers)) => self.view.missing(&dopplers),
            Some(Event::Away(_)) if self.request.history_only => {
                let text = "the traffic controller went away before everything was shown; try again";
                return Err(Failure::Failed(anyhow!(text)));
            }
            Some(Event::Away(why)) => {
                // The others are not to wait for it.
                if let Some(history) = &mut self.history {
                    history.over(stream);
                }
                self.view.away(&why);
            }
            Some(Event::Back) => self.view.back(),
            Some(Event::Refused(status)) => {
                return Err(Failure::Failed(anyhow!("the traffic controller refused: {}", reason(&status))));
            }
            Some(Event::Live) | None => {
                if let Some(history) = &mut self.history {
                    history.over(stream);
                }
            }
        }
        Ok(())
    }

    fn show(&mut self) {
        let now = Instant::now();
        let mut past = Vec::new();
        if let Some(history) = &mut self.history {
            // In order of arrival, which is not always that of time.
            history.ready().into_iter().for_each(|envelope| self.window.push(envelope, now));
            if history.is_over() {
                self.history = None;
                past = self.window.rest();
            }
        }
        past.extend(self.window.ready(now));
        self.view.put(&past);
    }
}

/// The next event of any stream that is wanted; `None` of one that has ended. Cancel safe. Never ends without streams.
async fn arrival(
    streams: &mut [Option<mpsc::Receiver<Event>>],
    next: &mut usize,
    history: Option<&History>,
) -> (usize, Option<Event>) {
    poll_fn(|cx| {
        let count = streams.len();
        for i in (0..count).map(|i| (*next + i) % count) {
            if history.is_some_and(|history| !history.wants(i)) {
                continue;
            }
            if let Some(events) = &mut streams[i]
                && let Poll::Ready(event) = events.poll_recv(cx)
            {
                if event.is_none() {
                    streams[i] = None;
                }
                *next = i + 1;
                return Poll::Ready((i, event));
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_takes_durations_and_times() {
        assert_eq!(since("2026-09-21T14:13:20Z"), Ok(1_790_000_000_000_000_000));
        let hour = since("1h").expect("a duration");
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos())
            .expect("in range");
        assert!((now - hour - 3_600_000_000_000).abs() < 60_000_000_000);
        assert!(since("yesterday").expect_err("neither").contains("10m"));
    }

    #[test]
    fn a_window_is_short() {
        assert_eq!((window("0"), window("1s")), (Ok(Duration::ZERO), Ok(Duration::from_secs(1))));
        assert!(window("2m").is_err() && window("soon").is_err());
    }
}
