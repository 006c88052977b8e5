//! How far a long replay is, on the terminal of whoever waits for it.

use std::{
    io::{self, IsTerminal as _, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is over sooner needs none.
const LONG: Duration = Duration::from_millis(500);

/// What a packet takes of a capture beside its own bytes.
const HEADER: usize = 16;

/// A bar on stderr, or nothing; copies are of the same bar.
#[derive(Clone, Debug, Default)]
pub struct Progress(Option<Bar>);

#[derive(Clone, Debug)]
struct Bar {
    bar: ProgressBar,
    began: Instant,
    shown: Arc<AtomicBool>,
}

impl Progress {
    /// A bar where stderr is a terminal, once it takes long.
    pub fn on_a_terminal() -> Self {
        let terminal = io::stderr().is_terminal();
        Self(terminal.then(|| Bar {
            bar: ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()),
            began: Instant::now(),
            shown: Arc::default(),
        }))
    }

    /// A file is about to be read so many times.
    pub(super) fn begins(&self, file: &Path, times: u64) {
        let Some(Bar { bar, .. }) = &self.0 else { return };
        // Of what is no regular file the length is not known.
        let length = file.metadata().ok().filter(|meta| meta.is_file()).map(|meta| meta.len().saturating_mul(times));
        let template = match length {
            Some(length) => {
                bar.set_length(length);
                "reading {bar:30} {percent}% {bytes} of {total_bytes}, {eta} left"
            }
            None => "reading {spinner} {bytes}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("#>."));
        }
    }

    /// A packet of so many bytes has been read.
    pub(super) fn read(&self, bytes: usize) {
        let Some(Bar { bar, began, shown }) = &self.0 else { return };
        bar.inc((bytes + HEADER) as u64);
        if !shown.load(Relaxed) && began.elapsed() >= LONG {
            shown.store(true, Relaxed);
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    /// All is read.
    pub(super) fn ends(&self) {
        if let Some(Bar { bar, .. }) = &self.0 {
            bar.finish_and_clear();
        }
    }

    /// What is written while the bar stands there: it steps aside for that.
    pub fn beside<W: Write>(&self, out: W) -> Beside<W> {
        Beside { progress: self.clone(), out }
    }
}

/// See [`Progress::beside`].
#[derive(Debug)]
pub struct Beside<W> {
    progress: Progress,
    out: W,
}

impl<W: Write> Write for Beside<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self { progress, out } = self;
        match &progress.0 {
            Some(Bar { bar, shown, .. }) if shown.load(Relaxed) => bar.suspend(|| out.write(bytes)),
            Some(_) | None => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
