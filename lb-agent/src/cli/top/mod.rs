//! `lb-agent top`: services and backends on the terminal, the busiest first, and orders by single keys.

mod model;
mod view;

#[cfg(test)]
mod tests;

use std::{
    io::{self, IsTerminal as _, Write},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use self::model::{Action, Sort, Stats, Top};
use super::{CliError, client, write_json};

/// How it begins.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// What comes first
    #[arg(long, value_enum, default_value_t = Sort::Rate)]
    pub sort: Sort,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub every: u64,
    /// Print what is shown once, as JSON, instead of drawing it
    #[arg(long)]
    pub json: bool,
}

/// How soon a key is seen, at the latest.
const GLANCE: Duration = Duration::from_millis(100);

/// What comes from the agent.
enum Told {
    Stats(Box<Stats>),
    Obeyed(Vec<String>),
    Failed(String),
}

/// What is wanted of it.
enum Wish {
    Stats,
    Order(Action),
}

/// Shows and obeys until the reader leaves.
pub(super) fn top(socket: &Path, args: &TopArgs, out: &mut dyn Write) -> Result<(), CliError> {
    if args.json {
        let mut top = Top::new(args.sort);
        top.take(client::stats(socket)?);
        return write_json(&top.lines, out);
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(CliError::NoTerminal);
    }
    // Before the screen changes hands, so that a missing agent is told in the usual way.
    let first: Stats = client::stats(socket)?;
    let mut top = Top::new(args.sort);
    top.take(first);
    let (wishes, told) = asker(socket.to_owned(), Duration::from_secs(args.every));
    let mut terminal = ratatui::try_init()?;
    let outcome = (|| {
        loop {
            while let Ok(told) = told.try_recv() {
                match told {
                    Told::Stats(stats) => top.take(*stats),
                    Told::Obeyed(lines) => top.say(lines.join("; ")),
                    Told::Failed(why) => top.say(why),
                }
            }
            terminal.draw(|frame| view::draw(frame, &mut top))?;
            if !event::poll(GLANCE)? {
                continue;
            }
            let Event::Key(key) = event::read()? else {
                continue;
            };
            if key.kind == KeyEventKind::Release {
                continue;
            }
            match top.press(key) {
                Some(Action::Leave) => return Ok(()),
                Some(action) => {
                    // The asker ends only with this loop.
                    let _ = wishes.send(Wish::Order(action));
                }
                None => {}
            }
        }
    })();
    ratatui::restore();
    outcome
}

/// Asks the agent apart from the screen, which must not wait for it.
fn asker(socket: PathBuf, every: Duration) -> (mpsc::Sender<Wish>, mpsc::Receiver<Told>) {
    let (wishes, inbox) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        loop {
            let wish = match inbox.recv_timeout(every) {
                Ok(wish) => wish,
                Err(mpsc::RecvTimeoutError::Timeout) => Wish::Stats,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            };
            if let Wish::Order(action) = wish {
                let obeyed = match action.order() {
                    Some((page, query)) => client::order(&socket, page, &query),
                    None => Ok(Vec::new()),
                };
                let answer = match obeyed {
                    Ok(lines) => Told::Obeyed(lines),
                    Err(error) => Told::Failed(error.to_string()),
                };
                if tell.send(answer).is_err() {
                    return;
                }
            }
            let answer = match client::stats(&socket) {
                Ok(stats) => Told::Stats(Box::new(stats)),
                Err(error) => Told::Failed(error.to_string()),
            };
            if tell.send(answer).is_err() {
                return;
            }
        }
    });
    (wishes, told)
}
