//! `hydrant top`: the pipeline while it runs, on a whole screen.
//!
//! What enters: keys, an overview a second, and what the pipeline tells of losses. What leaves: screens ([`draw`]) of what is known
//! ([`model`]). The terminal is given back as it was, whatever happens.

use std::io::{self, IsTerminal};
use std::time::Duration;

use anyhow::{Context, anyhow};
use crossterm::event::{Event as Input, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};
use proto::hydrant::v1::follow_client::FollowClient;
use proto::hydrant::v1::{FollowRequest, OverviewReply};
use proto::loss::SOURCE;
use ratatui::DefaultTerminal;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use transport::reason;

use self::model::{Key, Model, Wish};
use crate::cli::{Failure, runtime};
use crate::client::{Controller, MAX, Output};
use crate::filter::{FilterArgs, Kind};
use crate::ledger::Ledger;
use crate::overview::{self, Client};
use crate::render::Form;
use crate::signal::Signals;
use crate::tail::sources::Wanted;
use crate::tail::stream::{self, Event};
use crate::tail::{ORDER, Tail};
use crate::token::Bearer;

mod draw;
mod model;
mod rows;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long a look at the keyboard waits, and with it the end.
const KEYS: Duration = Duration::from_millis(100);
/// Lines of the past that a tail begins with.
const LAST: usize = 200;

/// Arguments of `hydrant top`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    at: Controller,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let text = "top draws on a terminal; `hydrant status` and `hydrant sources` print the same";
        return Err(Failure::Wrong(anyhow!(text)));
    }
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let connection = args.at.connect().await?;
        let first = overview::need(&mut overview::client(connection.clone())).await?;
        Top::new(connection, args.at.server.to_string(), first)?.run().await
    });
    runtime.shutdown_background();
    outcome
}

/// The terminal while it is ours.
struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    /// Takes it. A panic gives it back before it says anything.
    fn take() -> anyhow::Result<Self> {
        Ok(Self { terminal: ratatui::try_init().context("cannot draw on this terminal")? })
    }

    /// Lets lines be written, still key by key.
    fn leave(&mut self) -> io::Result<()> {
        execute!(io::stdout(), LeaveAlternateScreen)?;
        self.terminal.show_cursor()
    }

    /// Draws again.
    fn enter(&mut self) -> io::Result<()> {
        execute!(io::stdout(), EnterAlternateScreen)?;
        self.terminal.hide_cursor()?;
        self.terminal.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

struct Top {
    connection: (Channel, Bearer),
    server: String,
    model: Model,
    ledger: Ledger,
    colour: bool,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Top {
    fn new(connection: (Channel, Bearer), server: String, first: OverviewReply) -> Result<Self, Failure> {
        let mut model = Model::new();
        model.update(Ok(first));
        let colour = Output::new().colour;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        Ok(Self { connection, server, model, ledger: Ledger::default(), colour, tasks, stop })
    }

    async fn run(mut self) -> Result<(), Failure> {
        let signals = Signals::listen().context("cannot listen for signals")?;
        let stop = self.stop.clone();
        let _stop = stop.clone().drop_guard();
        self.tasks.spawn(signals.cancel(|| (), Duration::ZERO, stop.clone()));
        let mut screen = Screen::take()?;
        let (told, mut answers) = mpsc::channel(1);
        let looking = look(overview::client(self.connection.clone()), told);
        let looked = stop.clone();
        self.tasks.spawn(async move { looked.run_until_cancelled(looking).await });
        let mut losses = Some(self.follow_losses());
        let mut keys = keys(&self.tasks, stop.clone());
        loop {
            let (model, server, colour) = (&mut self.model, &self.server, self.colour);
            screen
                .terminal
                .draw(|frame| draw::draw(frame, model, server, colour))
                .context("cannot draw on this terminal")?;
            let pressed = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                answer = answers.recv() => {
                    if let Some(answer) = answer {
                        self.model.update(answer);
                    }
                    continue;
                }
                event = next(&mut losses) => {
                    if !self.learn(event) {
                        losses = None;
                    }
                    continue;
                }
                pressed = keys.recv() => pressed,
            };
            // Another size is drawn by itself.
            let Some(pressed) = pressed else { return Ok(()) };
            let Some(key) = pressed else { continue };
            let height = screen.terminal.size().map_or(0, |size| size.height);
            match self.model.press(key, draw::visible(height)) {
                Wish::Nothing => {}
                Wish::Quit => return Ok(()),
                Wish::Tail(source) => {
                    screen.leave().context("cannot leave the screen")?;
                    self.tail(source, &mut keys).await;
                    screen.enter().context("cannot draw on this terminal")?;
                }
            }
        }
    }

    /// Shows what a source logs until somebody has seen enough.
    async fn tail(&self, source: String, keys: &mut mpsc::Receiver<Option<Key>>) {
        let mut output = Output::new();
        output.raw = true;
        output.notice(&format!("tailing {}; q goes back", crate::render::safe(&source)));
        let tail = Tail {
            sources: vec![Wanted::Id(source)],
            since: 0,
            last: Some(LAST),
            history_only: false,
            order: ORDER,
            kinds: vec![Kind::All],
            form: Form::Text,
            filter: FilterArgs::default(),
        };
        let enough = async {
            loop {
                match keys.recv().await {
                    None | Some(Some(Key::Char('q') | Key::Escape | Key::Interrupt)) => return,
                    Some(_) => {}
                }
            }
        };
        let shown = async {
            if let Err(Failure::Failed(error) | Failure::Wrong(error)) =
                tail.show(self.connection.clone(), output).await
            {
                let mut output = Output::new();
                output.raw = true;
                output.notice(&format!("{error:#}; q goes back"));
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = enough => {}
            () = self.stop.cancelled() => {}
            () = shown => {}
        }
    }

    /// Reads on and on what the pipeline tells of losses.
    fn follow_losses(&self) -> mpsc::Receiver<Event> {
        let (channel, bearer) = self.connection.clone();
        let client = FollowClient::with_interceptor(channel, bearer).max_decoding_message_size(MAX);
        let request = FollowRequest {
            source_ids: vec![SOURCE.to_owned()],
            envelope_types: vec![Kind::Counter.wire().into()],
            ..FollowRequest::default()
        };
        let (events, received) = stream::queue();
        let (reading, stop) = (stream::read(client, request, events), self.stop.clone());
        self.tasks.spawn(async move { stop.run_until_cancelled(reading).await });
        received
    }

    /// Takes up what was told. False when there will be no more.
    fn learn(&mut self, event: Option<Event>) -> bool {
        match event {
            Some(Event::Frame(envelopes, _)) => {
                envelopes.iter().for_each(|envelope| self.ledger.add(envelope));
                let lost = self.ledger.by_source();
                self.model.lost = Some(lost.into_iter().map(|(source, lost)| (source.to_owned(), lost)).collect());
                true
            }
            Some(Event::Refused(_)) | None => {
                self.model.lost = None;
                false
            }
            Some(_) => true,
        }
    }
}

/// The next event; never comes where there are none.
async fn next(events: &mut Option<mpsc::Receiver<Event>>) -> Option<Event> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

/// Asks every second, until nobody listens.
async fn look(mut client: Client, told: mpsc::Sender<Result<OverviewReply, String>>) {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    loop {
        tick.tick().await;
        let answer = overview::get(&mut client).await.map_err(|status| reason(&status));
        if told.send(answer).await.is_err() {
            return;
        }
    }
}

/// Keys as they are pressed; `None` for another size of the terminal. Ends when there is no keyboard any more.
fn keys(tasks: &TaskTracker, stop: CancellationToken) -> mpsc::Receiver<Option<Key>> {
    let (pressed, keys) = mpsc::channel(16);
    tasks.spawn_blocking(move || {
        while !stop.is_cancelled() {
            let event = match crossterm::event::poll(KEYS) {
                Ok(false) => continue,
                Ok(true) => crossterm::event::read(),
                Err(error) => Err(error),
            };
            let key = match event {
                Ok(Input::Key(event)) if event.kind != KeyEventKind::Release => key(event).map(Some),
                Ok(Input::Resize(..)) => Some(None),
                Ok(_) => None,
                Err(_) => return,
            };
            if let Some(key) = key
                && pressed.blocking_send(key).is_err()
            {
                return;
            }
        }
    });
    keys
}

fn key(event: KeyEvent) -> Option<Key> {
    if event.modifiers.contains(KeyModifiers::CONTROL) {
        return (event.code == KeyCode::Char('c')).then_some(Key::Interrupt);
    }
    Some(match event.code {
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Left | KeyCode::BackTab => Key::Left,
        KeyCode::Right | KeyCode::Tab => Key::Right,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Char(char) => Key::Char(char),
        _ => return None,
    })
}
