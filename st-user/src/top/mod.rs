//! `sipst top`: the calls on a terminal, those first that die soonest.
//!
//! [`state`] is what is shown and what keys do to it, with time as an argument; [`draw`] turns it into cells; [`source`] asks the
//! daemon, by a thread of its own; [`terminal`] brings the three together and puts the terminal back as it was.

mod detail;
mod draw;
mod look;
mod source;
mod state;
mod terminal;
#[cfg(test)]
mod tests;

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;
use ratatui::{buffer::Buffer, crossterm::terminal::size, layout::Rect};

use crate::control::{SOCKET, command::UsageError, protocol::MAX_ORDERED};
use look::Look;
use source::Source;
use state::Screen;

/// How many calls are asked for where nothing is said.
const LIMIT: usize = 500;

/// The frame of `--once` where neither a terminal nor the environment has a size.
const FRAME: (u16, u16) = (80, 24);

/// The most columns and lines of a frame that the environment can ask for.
const MAX_FRAME: u16 = 1_000;

/// What `sipst top` is told.
#[derive(Clone, Debug, Args)]
pub(crate) struct TopArgs {
    /// The daemon's control socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
    /// Only calls that have these words in their Call-ID, trunk, state or one of their addresses.
    #[arg(long, value_name = "WORDS", default_value = "")]
    filter: String,
    /// How many calls at most.
    #[arg(long, value_name = "N", default_value_t = LIMIT, value_parser = limit)]
    limit: usize,
    /// Print one frame as text and end; on no terminal it has COLUMNS and LINES, or 80 by 24.
    #[arg(long)]
    once: bool,
    /// No colours; so does the variable NO_COLOR.
    #[arg(long)]
    no_color: bool,
    /// Bars and marks of ASCII characters alone; so it is where the locale has no UTF-8.
    #[arg(long)]
    ascii: bool,
}

impl TopArgs {
    /// Shows the calls until somebody ends it.
    ///
    /// # Errors
    /// There is no daemon, or none that may be asked; or there is no terminal.
    pub(crate) fn execute(self) -> Result<()> {
        let terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
        if !self.once && !terminal {
            return Err(UsageError(
                "stdin or stdout is no terminal: `sipst top --once` prints one frame, `sipst sessions` a list".into(),
            )
            .into());
        }
        let look = Look { colour: !self.no_color && !has("NO_COLOR"), unicode: !self.ascii && is_unicode() };
        let mut screen = Screen::new(self.limit, &self.filter);
        // Before anything is drawn: where there is no daemon, that is all there is to say.
        let mut source = Source::new(self.socket);
        let first = source.ask(&screen.wanted())?;
        screen.take(Ok(first), Duration::ZERO);
        if self.once {
            return once(&mut screen, look);
        }
        terminal::run(screen, look, source)
    }
}

/// One frame, as lines without colours.
fn once(screen: &mut Screen, look: Look) -> Result<()> {
    let given = |name: &str| env::var(name).ok()?.parse().ok().filter(|size| (1..=MAX_FRAME).contains(size));
    let of_terminal = io::stdout().is_terminal().then(|| size().ok()).flatten();
    let (width, height) =
        of_terminal.unwrap_or_else(|| (given("COLUMNS").unwrap_or(FRAME.0), given("LINES").unwrap_or(FRAME.1)));
    let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
    draw::draw(screen, Duration::ZERO, Look { colour: false, ..look }, &mut buffer);
    let mut out = io::stdout().lock();
    out.write_all(look::text(&buffer).as_bytes()).and_then(|()| out.flush()).context("cannot write to stdout")
}

/// Whether a variable is set to anything.
fn has(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// Whether the locale says so; the kernel's own console has few glyphs, whatever it says.
fn is_unicode() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find(|name| has(name)).and_then(|name| env::var(name).ok());
    let utf8 = locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    });
    utf8 && env::var("TERM").is_ok_and(|terminal| terminal != "linux")
}

fn limit(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MAX_ORDERED).contains(number));
    number.ok_or_else(|| format!("write a number from 1 to {MAX_ORDERED}"))
}
