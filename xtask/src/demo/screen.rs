//! The terminal: a timeline of arrows above a bar that empties. Colour and the bar only where there is a terminal.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

const BAR: usize = 36;
const ARROW: usize = 24;

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const CYAN: &str = "36";
const BOLD: &str = "1";
const DIM: &str = "2";

/// Who is at the left end of an arrow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Actor {
    Server,
    Sipst,
}

/// Where all is drawn. A closed pipe is no reason to stop: the exit code still tells.
pub(super) struct Screen {
    terminal: bool,
    colour: bool,
    bar_shown: bool,
}

impl Screen {
    pub(super) fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        Self { terminal, colour: terminal && env::var_os("NO_COLOR").is_none(), bar_shown: false }
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour && !text.is_empty() { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(&mut self, text: &str) {
        self.clear_bar();
        let _ = writeln!(io::stdout(), "{text}");
    }

    pub(super) fn title(&mut self, text: &str) {
        let text = text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n");
        self.line(&format!("\n{text}"));
    }

    pub(super) fn heading(&mut self, text: &str) {
        let text = self.paint(BOLD, text);
        self.line(&format!("\n  {text}"));
    }

    /// A message between the peer, at the right, and the server or sipst, at the left.
    pub(super) fn arrow(&mut self, at: Duration, actor: Actor, to_peer: bool, name: &str, note: &str) {
        let dashes = "─".repeat(ARROW.saturating_sub(name.chars().count()));
        let arrow = if to_peer { format!("── {name} {dashes}▶") } else { format!("◀{dashes} {name} ──") };
        let (who, colour) = match actor {
            Actor::Server => ("server", CYAN),
            Actor::Sipst => ("sipst ", GREEN),
        };
        let colour = if name == "BYE" { YELLOW } else { colour };
        let (time, arrow) =
            (format!("{:>7.2} s", at.as_secs_f64()), self.paint(colour, &format!("{who} {arrow} peer")));
        let (time, note) = (self.paint(DIM, &time), self.paint(DIM, note));
        self.line(format!("  {time}  {arrow}  {note}").trim_end());
    }

    /// What a line of the timeline means.
    pub(super) fn remark(&mut self, text: &str) {
        let text = self.paint(BOLD, text);
        self.line(&format!("             {text}"));
    }

    /// What is left until the peer hangs up.
    pub(super) fn bar(&mut self, left: Duration, of: Duration) {
        if !self.terminal {
            return;
        }
        let share = (left.as_secs_f64() / of.as_secs_f64()).clamp(0.0, 1.0);
        let full = ((share * 100.0).round() as usize * BAR).div_ceil(100);
        let colour = match full * 3 / BAR {
            0 => RED,
            1 => YELLOW,
            _ => GREEN,
        };
        let (full, empty) = ("█".repeat(full), "░".repeat(BAR - full));
        let bar = format!("{}{}", self.paint(colour, &full), self.paint(DIM, &empty));
        let mut out = io::stdout();
        let _ = write!(out, "\r\x1b[K             {bar}  {:.1} s until the peer hangs up", left.as_secs_f64());
        let _ = out.flush();
        self.bar_shown = true;
    }

    pub(super) fn clear_bar(&mut self) {
        if std::mem::take(&mut self.bar_shown) {
            let _ = write!(io::stdout(), "\r\x1b[K");
        }
    }

    pub(super) fn verdict(&mut self, good: bool, what: &str, story: &str) {
        let mark = if good { self.paint(GREEN, "as told") } else { self.paint(RED, "NOT AS TOLD") };
        self.line(&format!("  {what:<14} {story}  [{mark}]"));
    }

    pub(super) fn note(&mut self, text: &str) {
        let text = self.paint(RED, text);
        self.line(&format!("  {text}"));
    }
}
