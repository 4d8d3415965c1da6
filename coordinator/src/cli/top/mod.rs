//! `spotsweep top`: sweeps, trials, workers and events on the full screen, live.
//!
//! Owns the loop: keys and news into the [`model`], the model through the [`view`] onto the terminal. The terminal is put
//! back whatever ends it. Must not decide what is shown.

mod ask;
mod keys;
mod layout;
mod model;
mod paint;
#[cfg(test)]
mod tests;
mod view;

use super::{
    client::ReadArgs,
    error::{CliError, Ending, Outcome, stdout_error},
    interrupts::Interrupts,
};
use crate::{
    driver::machine_time_us,
    error::{Code, Problem},
};
use ask::{Asker, Followed};
use clap::Args;
use model::{Effect, Model, News, Wanted};
use ratatui::{
    DefaultTerminal,
    crossterm::{
        event::{self, Event},
        execute,
        terminal::{BeginSynchronizedUpdate, EndSynchronizedUpdate},
    },
};
use std::{
    io::{IsTerminal as _, stdout},
    time::Duration,
};
use tokio::sync::{mpsc, watch};

const EXAMPLES: &str = "Examples:
  spotsweep top
  spotsweep top --coordinator http://127.0.0.1:7077
  spotsweep top --dir sweeps/fashion-ladder

Keys: arrows or j k move, enter goes in, esc goes back, / filters, s sorts, ? shows the others, q quits.";

/// Between two looks at the clock, for what is told in seconds.
const TICK: Duration = Duration::from_secs(1);
/// News and keys that wait to be shown.
const QUEUE: usize = 256;

/// Options of `top`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TopArgs {
    /// Where to look.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// Runs it.
///
/// # Errors
/// If there is no terminal, nobody answers at the beginning, or the terminal goes away.
pub(crate) async fn run(args: TopArgs) -> Outcome {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if !stdout().is_terminal() || !std::io::stdin().is_terminal() || dumb {
        let problem = Problem::new(Code::BadRequest, "top fills the screen of a terminal, and here is none");
        return Err(problem
            .hint("`spotsweep watch` and `spotsweep ls` print plain lines; over ssh, a terminal comes with `ssh -t`")
            .into());
    }
    let (source, read) = args.read.find(None).await?;
    let place = match (&read.dir, &read.coordinator.coordinator) {
        (Some(dir), _) => dir.display().to_string(),
        (None, url) => url.clone().unwrap_or_default(),
    };
    let mut stop = Interrupts::listen()?;
    let (say, mut news) = mpsc::channel(QUEUE);
    let (want, wanted) = watch::channel(Wanted::default());
    let (order, orders) = mpsc::channel(ask::QUEUE);
    let asker = Asker {
        source: source.clone(),
        read: read.clone(),
        wanted,
        orders,
        news: say.clone(),
        curve: Followed::default(),
    };
    tokio::spawn(asker.run());
    tokio::spawn(ask::events(source, read, say));

    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut screen = Screen::enter()?;
    let mut keys = read_keys()?;
    let size = screen.terminal.size().map_err(|error| stdout_error(&error))?;
    let mut model = Model::new(&place, (size.width, size.height), machine_time_us());
    let mut tick = tokio::time::interval(TICK);
    loop {
        model.now_us = machine_time_us();
        screen.draw(&mut model, colour)?;
        let _same = want.send_if_modified(|wanted| {
            let now = model.wanted();
            let changed = *wanted != now;
            *wanted = now;
            changed
        });
        let effect = tokio::select! {
            () = stop.next() => Some(Effect::Interrupt),
            event = keys.recv() => match event {
                Some(Event::Key(key)) => model.key(key),
                Some(Event::Resize(width, height)) => {
                    model.size = (width, height);
                    model.settle();
                    None
                }
                Some(Event::FocusGained | Event::FocusLost | Event::Mouse(_) | Event::Paste(_)) => None,
                // The terminal is gone.
                None => Some(Effect::Interrupt),
            },
            told = news.recv() => {
                model.told(told.ok_or_else(asker_gone)?);
                // What came together is drawn together.
                while let Ok(more) = news.try_recv() {
                    model.told(more);
                }
                None
            }
            _ = tick.tick() => None,
        };
        let is_refused = match effect {
            None => false,
            Some(Effect::Quit) => return Ok(Ending::Well),
            Some(Effect::Interrupt) => return Ok(Ending::Interrupted),
            Some(Effect::Change(change, target)) => order.try_send((change, target)).is_err(),
        };
        if is_refused {
            model.told(News::Refused("the last order is still on its way".to_owned()));
        }
    }
}

fn asker_gone() -> CliError {
    Problem::new(Code::Internal, "nobody asks the coordinator any more").into()
}

/// The terminal as it is while this runs; put back when dropped, and by a hook when something panics.
struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    fn enter() -> Result<Self, CliError> {
        let terminal = ratatui::try_init().map_err(|error| {
            // It may have come half the way.
            let _gone = ratatui::try_restore();
            stdout_error(&error)
        })?;
        Ok(Self { terminal })
    }

    /// Draws what has changed, at once.
    fn draw(&mut self, model: &mut Model, colour: bool) -> Result<(), CliError> {
        let drawn = execute!(stdout(), BeginSynchronizedUpdate)
            .and_then(|()| {
                self.terminal.draw(|frame| {
                    let area = frame.area();
                    if model.size != (area.width, area.height) {
                        model.size = (area.width, area.height);
                        model.settle();
                    }
                    view::draw(model, colour, frame.buffer_mut());
                })
            })
            .map(|_| ())
            .and_then(|()| execute!(stdout(), EndSynchronizedUpdate));
        drawn.map_err(|error| stdout_error(&error))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing to be done about a terminal that is gone.
        let _gone = self.terminal.show_cursor();
        let _gone = ratatui::try_restore();
    }
}

/// Keys and sizes, read on a thread of their own, which ends with the process.
fn read_keys() -> Result<mpsc::Receiver<Event>, Problem> {
    let (send, keys) = mpsc::channel(QUEUE);
    let read = move || {
        while let Ok(event) = event::read() {
            if send.blocking_send(event).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("keys".to_owned())
        .spawn(read)
        .map_err(|error| Problem::internal(&error))?;
    Ok(keys)
}
