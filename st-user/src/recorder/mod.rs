//! The flight recorder: what sipst has done to packets, in pcapng files that replace one another, with the reason of each packet as
//! its comment. A thread of its own writes them; a disk that is full or slow costs packets of the recording and nothing else.

mod file;

use std::{
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    alert::SinkCounts,
    sighting::{Deed, Sighting},
};
use file::Flight;

/// How many packets wait for the disk; past that the newest are dropped and counted.
const QUEUE: usize = 4_096;

/// How many packets that are rewritten wait for what they have become.
const PENDING: usize = 64;

/// How long after a failure a new file is tried.
const AGAIN: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(10) };

/// Where the files are, below the state directory.
const DIRECTORY: &str = "recorder";

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of one file, in bytes.
    pub size: u64,
    /// So many files.
    pub files: usize,
}

/// Keeps packets.
pub struct Recorder {
    packets: SyncSender<Arc<Sighting>>,
    counts: Arc<SinkCounts>,
    done: Receiver<Infallible>,
}

impl Recorder {
    /// Starts the thread. The first file is made with the first packet.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(state_dir: &Path, limits: Limits) -> io::Result<Self> {
        let (packets, queue) = sync_channel(QUEUE);
        let (finished, done) = sync_channel::<Infallible>(0);
        let counts = SinkCounts::new("recorder".into());
        let mut keeper = Keeper {
            dir: state_dir.join(DIRECTORY),
            limits,
            flight: None,
            not_before: None,
            pending: Vec::new(),
            counts: Arc::clone(&counts),
            lost: 0,
        };
        thread::Builder::new().name("recorder".into()).spawn(move || {
            keeper.run(&queue);
            drop(finished);
        })?;
        Ok(Self { packets, counts, done })
    }

    /// Queues a packet.
    pub fn keep(&self, sighting: &Arc<Sighting>) {
        let slow = "the flight recorder does not keep up: the newest packets are not kept";
        self.counts.queue(|| self.packets.try_send(Arc::clone(sighting)).is_ok(), slow);
    }

    /// What became of the packets.
    pub fn counts(&self) -> Arc<SinkCounts> {
        Arc::clone(&self.counts)
    }

    /// Writes what is queued, for at most `wait`.
    pub fn finish(self, wait: Duration) {
        drop(self.packets);
        // Disconnected is what it says when it is done.
        let _ = self.done.recv_timeout(wait);
    }
}

struct Keeper {
    dir: PathBuf,
    limits: Limits,
    flight: Option<Flight>,
    /// Where nothing could be written: when it is tried again.
    not_before: Option<Instant>,
    pending: Vec<Arc<Sighting>>,
    counts: Arc<SinkCounts>,
    /// Packets that could not be written since the last one that was.
    lost: u64,
}

impl Keeper {
    fn run(&mut self, queue: &Receiver<Arc<Sighting>>) {
        loop {
            match queue.recv_timeout(Duration::ZERO) {
                Ok(sighting) => self.take(sighting),
                Err(RecvTimeoutError::Disconnected) => return self.flush(),
                Err(RecvTimeoutError::Timeout) => {
                    // Whoever looks finds all that has happened.
                    self.flush();
                    match queue.recv() {
                        Ok(sighting) => self.take(sighting),
                        Err(_) => return,
                    }
                }
            }
        }
    }

    fn take(&mut self, sighting: Arc<Sighting>) {
        self.counts.queued.fetch_sub(1, Relaxed);
        match sighting.deed {
            Deed::Before(_) => {
                // What could not be rewritten has gone on as it was.
                if self.pending.len() == PENDING {
                    self.pending.remove(0);
                }
                self.pending.push(sighting);
            }
            Deed::Rewritten(numbers) => {
                let before = self.pending.iter().position(|one| {
                    one.deed == Deed::Before(numbers)
                        && (one.time, one.from, one.to) == (sighting.time, sighting.from, sighting.to)
                });
                if let Some(before) = before {
                    let before = self.pending.remove(before);
                    self.write(&before);
                }
                self.write(&sighting);
            }
            Deed::Sent
            | Deed::SentBeside
            | Deed::TookAnswer
            | Deed::TookAck
            | Deed::Held
            | Deed::Unassisted
            | Deed::Assisted => self.write(&sighting),
        }
    }

    fn write(&mut self, sighting: &Sighting) {
        if self.not_before.is_some_and(|at| Instant::now() < at) {
            return self.lose();
        }
        match self.try_write(sighting) {
            Ok(()) => {
                SinkCounts::add(&self.counts.sent, 1);
                self.not_before = None;
                if self.lost > 0 {
                    tracing::warn!(lost = self.lost, "the flight recorder keeps packets again");
                    self.lost = 0;
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    fn try_write(&mut self, sighting: &Sighting) -> io::Result<()> {
        let flight = match self.flight.take() {
            Some(flight) if flight.has_room(self.limits.size) => flight,
            full => {
                if let Some(mut full) = full {
                    full.flush()?;
                }
                Flight::begin(&self.dir, self.limits.files)?
            }
        };
        self.flight.insert(flight).write(sighting)
    }

    fn flush(&mut self) {
        if let Some(Err(error)) = self.flight.as_mut().map(Flight::flush) {
            self.failed(&error);
        }
    }

    /// What was begun is left as it is: what is behind a half packet could not be read.
    fn failed(&mut self, error: &io::Error) {
        if self.lost == 0 {
            tracing::warn!(%error, dir = %self.dir.display(), "the flight recorder cannot write: packets are not kept");
        }
        self.flight = None;
        self.not_before = Some(Instant::now() + AGAIN);
        self.lose();
    }

    fn lose(&mut self) {
        self.lost += 1;
        SinkCounts::add(&self.counts.failed, 1);
    }
}

#[cfg(test)]
mod tests;
