//! What the engine knows of its calls, on disk: written behind in batches by a thread of its own, read when a daemon
//! starts. Where that cannot be, the calls go on as ever and an alert says so.

mod ahead;
mod file;
mod sample;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Serialize;
use st_core::{
    Engine, Event, EventKind, Time,
    engine::{
        reason,
        record::{Change, Record},
    },
};

pub use file::{About, MAX_SET_ASIDE, StoreError};
use file::{NAME, StateFile};
use writer::{Batch, WAITING, Writer};

use crate::output::chain;

/// Where state is kept, unless the configuration says otherwise.
pub const STATE_DIR: &str = "/var/lib/sipst";

/// The pause after all that had changed was written, and what it is at least for each record of that: where much changes it has
/// often changed again by then, and is written once.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_PER_RECORD: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How soon a writer that was busy is looked at again.
const BUSY: Duration = Duration::from_millis(20);

/// Records of one batch, at most, and how many bytes of records end one.
const BATCH: usize = 4_096;
const BATCH_BYTES: usize = 4 << 20;

/// How many records are made in one turn: what falls due waits for them.
const TURN: usize = 64;

/// How long the disk may take for a batch before it counts as unusable.
const STUCK: Duration = Duration::from_secs(60);

/// How long the last batches may take when the daemon ends.
const LAST: Duration = Duration::from_secs(5);

/// A state directory that was opened, before anything is written to it.
pub struct Opened {
    dir: PathBuf,
    file: Option<StateFile>,
    /// What an earlier run says of its records.
    pub about: Option<About>,
    /// Whether all that stands in the file was taken from it.
    taken: bool,
    /// What is to be told.
    reports: Vec<String>,
}

impl Opened {
    /// Opens it, or makes it. Never fails: what is wrong is told later.
    pub fn new(dir: &Path) -> Self {
        let mut opened = Self { dir: dir.to_owned(), file: None, about: None, taken: false, reports: Vec::new() };
        match StateFile::open(dir) {
            Ok((file, about)) => (opened.file, opened.about) = (Some(file), about),
            Err(error) => opened.recover(error),
        }
        opened
    }

    /// How many records there are.
    pub fn records(&self) -> usize {
        self.file.as_ref().map_or(0, StateFile::records)
    }

    /// Hands all records to `take`, those of what all sessions have in common and are packed by first, which says whether they are as
    /// they were written. Where one is not, the file is put aside: what was taken is written anew.
    pub fn read(&mut self, mut take: impl FnMut(u64, &[u8]) -> bool) {
        let Some(file) = &self.file else { return };
        match file.read(&mut take) {
            Ok(()) => self.taken = true,
            Err(error) => {
                self.file = None;
                self.recover(error);
            }
        }
    }

    fn recover(&mut self, error: StoreError) {
        let StoreError::Unreadable { word, .. } = &error else {
            return self.reports.push(format!("{}: {}", reason::STATE_UNUSABLE, chain(&error)));
        };
        match StateFile::set_aside(&self.dir, word) {
            Ok(to) => {
                self.reports.push(format!("{}: {}: {}", reason::STATE_SET_ASIDE, to.display(), chain(&error)));
                match StateFile::open(&self.dir) {
                    Ok((file, _)) => self.file = Some(file),
                    Err(error) => self.reports.push(format!("{}: {}", reason::STATE_UNUSABLE, chain(&error))),
                }
            }
            Err(stays) => {
                let (error, stays) = (chain(&error), chain(&stays));
                self.reports.push(format!("{}: {error}; {stays}", reason::STATE_UNUSABLE));
            }
        }
    }

    /// Goes on from here: all that the engine knows and that does not stand there is written, and then what changes; `fresh`: all of
    /// it, in place of what is there.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn follow(self, engine: &mut Engine, fresh: bool) -> io::Result<Store> {
        let keeps = self.file.is_some();
        let fresh = fresh || self.file.as_ref().is_some_and(StateFile::is_outdated);
        let writer = Writer::start(self.dir, self.file)?;
        let store = Store {
            writer: Some(writer),
            keeps,
            fresh,
            told: !keeps,
            written: 0,
            next: Instant::now(),
            round: 0,
            busy_since: None,
            gathered: Gathered::default(),
            reports: self.reports,
        };
        if keeps && self.taken && !fresh {
            engine.follow_on();
        } else if keeps {
            engine.follow_changes();
        }
        Ok(store)
    }
}

/// Hands all records that are kept to `take`, and leaves them as they are; nothing where there are none.
///
/// # Errors
/// They cannot be read, or a daemon keeps them.
pub(crate) fn look_through(dir: &Path, mut take: impl FnMut(u64, &[u8]) -> bool) -> Result<(), StoreError> {
    if !dir.join(NAME).is_file() {
        return Ok(());
    }
    let (file, _) = StateFile::open(dir)?;
    file.read(&mut take)
}

/// Where an engine's changes go.
pub struct Store {
    writer: Option<Writer>,
    /// Whether anything can be written.
    keeps: bool,
    /// Whether the next batch stands for all that there is.
    fresh: bool,
    /// Whether it was told that nothing can be, and nothing was written since.
    told: bool,
    /// Batches that were written when that was last asked.
    written: usize,
    /// When the next batch may go.
    next: Instant,
    /// Records that were handed over since the last pause.
    round: u32,
    /// Since when the writer has not finished a batch.
    busy_since: Option<Instant>,
    /// The beginning of the next batch; empty where the engine has no more changes.
    gathered: Gathered,
    reports: Vec<String>,
}

/// Changes that are not handed over yet.
#[derive(Default)]
struct Gathered {
    changes: Vec<Change>,
    /// Of their records.
    bytes: usize,
}

impl Gathered {
    /// Takes in so many more, until the batch is as large as it may be. Whether it is to grow on.
    fn grow(&mut self, engine: &mut Engine, limit: usize, fresh: bool) -> bool {
        // What takes the place of all that is there is one batch, however large: half of it would be worse than nothing.
        let has_room = |gathered: &Self| fresh || (gathered.changes.len() < BATCH && gathered.bytes < BATCH_BYTES);
        for _ in 0..limit {
            if !has_room(self) {
                return false;
            }
            let Some(change) = engine.poll_change() else { return false };
            self.bytes += change.record.as_ref().map_or(0, Record::size);
            self.changes.push(change);
        }
        has_room(self) && engine.has_changes()
    }
}

impl Store {
    /// Hands over what has changed, if its time has come; what takes long to write out over several turns. To be called when the
    /// engine has nothing more to say.
    pub fn turn(&mut self, engine: &mut Engine, about: impl FnOnce() -> About) {
        let now = Instant::now();
        self.look(engine, now);
        if !self.keeps || now < self.next || !engine.has_changes() {
            return;
        }
        let Some(writer) = self.writer.as_ref().filter(|writer| writer.pending() < WAITING) else {
            self.next = now + BUSY;
            return;
        };
        let grows = self.gathered.grow(engine, TURN, self.fresh);
        if !grows {
            let batch = batch(about(), &mut self.fresh, &mut self.gathered);
            self.round = self.round.saturating_add(u32::try_from(batch.changes.len()).unwrap_or(u32::MAX));
            // There was room, and nobody else sends.
            writer.send(batch);
        }
        self.next = now;
        if !grows && !engine.has_changes() {
            self.next += pause(std::mem::take(&mut self.round));
        }
    }

    /// Whether anything can be written.
    pub(crate) fn keeps(&self) -> bool {
        self.keeps
    }

    /// Batches that were written, bytes of records in them, and times that writing has failed.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let Some(writer) = &self.writer else { return (0, 0, 0) };
        let (bytes, failures) = writer.counts();
        (writer.written() as u64, bytes, failures)
    }

    /// How soon it wants to be called again, if there are changes.
    pub fn due(&self, engine: &Engine) -> Option<Duration> {
        let wants = self.keeps && engine.has_changes();
        wants.then(|| self.next.saturating_duration_since(Instant::now()))
    }

    /// What is to be told, once.
    pub fn events(&mut self, now: Time) -> Vec<Event> {
        let reports = std::mem::take(&mut self.reports);
        let event = |reason: String| Event { reason: Some(reason.into()), ..Event::new(now, EventKind::StateNotKept) };
        reports.into_iter().map(event).collect()
    }

    /// Writes what is left. False: it could not be in time.
    pub fn finish(mut self, engine: &mut Engine, about: &About) -> bool {
        let until = Instant::now() + LAST;
        let Some(writer) = self.writer.take() else { return false };
        while self.keeps && engine.has_changes() && Instant::now() < until {
            if writer.pending() < WAITING {
                self.gathered.grow(engine, usize::MAX, self.fresh);
                writer.send(batch(about.clone(), &mut self.fresh, &mut self.gathered));
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let left = self.keeps && engine.has_changes();
        let finished = writer.finish(until.saturating_duration_since(Instant::now()));
        !self.keeps || (finished && !left)
    }

    fn begin(&mut self, engine: &mut Engine) {
        engine.follow_changes();
        (self.keeps, self.fresh, self.busy_since) = (true, true, None);
    }

    /// Looks how the writer fares.
    fn look(&mut self, engine: &mut Engine, now: Instant) {
        let Some(writer) = &self.writer else { return };
        let written = writer.written();
        if written > self.written && self.told && self.keeps {
            tracing::info!("the state directory can be used again: what is known of the calls is kept");
            self.told = false;
        }
        if written > self.written || writer.pending() == 0 {
            self.busy_since = None;
        } else {
            self.busy_since.get_or_insert(now);
        }
        self.written = written;
        let stuck = self.busy_since.filter(|since| self.keeps && now.duration_since(*since) > STUCK);
        let failure = writer.failure().or_else(|| stuck.map(|_| "the disk does not answer".into()));
        if let Some(why) = failure {
            engine.ignore_changes();
            self.keeps = false;
            self.gathered = Gathered::default();
            if !std::mem::replace(&mut self.told, true) {
                self.reports.push(format!("{}: {why}", reason::STATE_UNUSABLE));
            }
        }
        if !self.keeps && writer.is_ready() {
            self.begin(engine);
        }
    }
}

/// How long to wait after so many records.
fn pause(records: u32) -> Duration {
    PAUSE_PER_RECORD.saturating_mul(records).clamp(PAUSE, LONGEST_PAUSE)
}

fn batch(about: About, fresh: &mut bool, gathered: &mut Gathered) -> Batch {
    Batch { about, fresh: std::mem::take(fresh), changes: std::mem::take(gathered).changes }
}

/// What stands in a state directory, from outside.
#[derive(Debug, Serialize)]
pub struct Kept {
    dir: PathBuf,
    /// Whether a daemon keeps its state there.
    in_use: bool,
    /// Size of the file, in bytes; `None` where there is none.
    file_bytes: Option<u64>,
    /// How long ago it was last written.
    written_s: Option<f64>,
    /// Files that could not be read and were put aside.
    set_aside: Vec<PathBuf>,
}

impl Kept {
    /// Looks at it.
    pub fn look(dir: &Path) -> Self {
        let about = fs::metadata(dir.join(NAME)).ok();
        let written = about.as_ref().and_then(|about| about.modified().ok()?.elapsed().ok());
        Self {
            dir: dir.to_owned(),
            in_use: file::is_in_use(dir),
            file_bytes: about.map(|about| about.len()),
            written_s: written.map(|written| written.as_secs_f64()),
            set_aside: file::set_aside(dir),
        }
    }

    /// One line for people. `runs`: whether a daemon does.
    pub fn line(&self, runs: bool) -> String {
        let dir = self.dir.display();
        let file = match (self.file_bytes, self.written_s) {
            (Some(bytes), Some(seconds)) => format!("{bytes} bytes, written {seconds:.0} s ago"),
            (Some(bytes), None) => format!("{bytes} bytes"),
            (None, _) => "no file".into(),
        };
        match (self.in_use, runs) {
            (true, _) => format!("kept in {dir}: {file}"),
            (false, true) => format!("NOT KEPT in {dir} ({file}): a restart will not know the calls; the log says why"),
            (false, false) => format!("in {dir}: {file}"),
        }
    }

    /// Files that could not be read and were put aside.
    pub fn set_aside(&self) -> &[PathBuf] {
        &self.set_aside
    }
}
