//! A terminal with somebody at it: tmux, with a shell in it.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{Host, Process};

const SOCKET: &str = "/run/tmux.sock";

/// How long tmux may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A terminal of some size in a host, one at a time; it and what runs in it end when it is dropped.
pub struct Screen<'a> {
    host: &'a Host,
    _server: Process,
}

impl<'a> Screen<'a> {
    /// A shell at a terminal of so many columns and lines.
    pub fn start(host: &'a Host, width: u16, height: u16) -> Result<Self> {
        let mut command = Command::new("tmux");
        // No configuration of anybody's, and no server beside this process.
        command.args(["-S", SOCKET, "-f", "/dev/null", "-D"]);
        command.env("LC_ALL", "C.UTF-8").env("TERM", "xterm-256color").env("SHELL", "/bin/sh").env_remove("TMUX");
        let server = host.spawn(command)?;
        let screen = Self { host, _server: server };
        let (width, height) = (width.to_string(), height.to_string());
        let until = Instant::now() + PATIENCE;
        while let Err(error) = screen.tmux(&["new-session", "-d", "-x", &width, "-y", &height, "/bin/sh"]) {
            if Instant::now() > until {
                return Err(error);
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(screen)
    }

    fn tmux(&self, args: &[&str]) -> Result<String> {
        // `-N`: it starts no server of its own where ours does not listen yet.
        self.host.run("tmux", &[&["-N", "-S", SOCKET], args].concat())
    }

    /// Types a text, and Enter.
    pub fn line(&self, text: &str) -> Result<()> {
        self.text(text)?;
        self.key("Enter")
    }

    /// Types a text.
    pub fn text(&self, text: &str) -> Result<()> {
        self.tmux(&["send-keys", "-l", "--", text]).map(drop)
    }

    /// Presses a key that tmux has a name for.
    pub fn key(&self, name: &str) -> Result<()> {
        self.tmux(&["send-keys", name]).map(drop)
    }

    /// Another size.
    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        self.tmux(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]).map(drop)
    }

    /// What is on it now, colours left out.
    pub fn shows(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The same with what sets colours.
    pub fn shows_colours(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Whether a program has the alternate screen.
    pub fn is_taken(&self) -> Result<bool> {
        Ok(self.tmux(&["display-message", "-p", "#{alternate_on}"])?.trim() == "1")
    }

    /// Waits until `found` finds something on it; an error with what is there where it never does.
    pub fn wait<T>(&self, what: &str, within: Duration, found: impl Fn(&str) -> Option<T>) -> Result<T> {
        let until = Instant::now() + within;
        loop {
            let shown = self.shows().context("the terminal is gone")?;
            if let Some(found) = found(&shown) {
                return Ok(found);
            }
            if Instant::now() > until {
                bail!("no {what} within {within:?}; the screen has:\n{shown}");
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a text is on it.
    pub fn wait_for(&self, text: &str, within: Duration) -> Result<()> {
        self.wait(text, within, |shown| shown.contains(text).then_some(()))
    }
}
