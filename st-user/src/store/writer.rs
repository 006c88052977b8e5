//! The thread that writes: whoever has something to be written never waits for the disk.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use st_core::engine::record::Change;

use super::file::{About, StateFile, StoreError};
use crate::output::chain;

/// How many batches wait while one is written.
pub(super) const WAITING: usize = 2;

/// How often it is tried again where nothing can be kept.
const AGAIN: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(10) };

/// What is to be written at once.
pub(super) struct Batch {
    pub(super) about: About,
    /// In place of all that is there.
    pub(super) fresh: bool,
    pub(super) changes: Vec<Change>,
}

/// What the two sides know together.
#[derive(Default)]
struct Shared {
    /// Batches that were handed over and are not done with.
    pending: AtomicUsize,
    /// Batches that were written, and the bytes of records in them.
    written: AtomicUsize,
    bytes: AtomicU64,
    /// Times that writing has failed.
    failures: AtomicU64,
    /// Why writing has failed, until somebody asks.
    failed: Mutex<Option<String>>,
    /// Whether there is a file to write to.
    has_file: AtomicBool,
}

/// The other end of it.
pub(super) struct Writer {
    batches: SyncSender<Batch>,
    shared: Arc<Shared>,
    done: Receiver<()>,
}

impl Writer {
    /// Starts the thread; without a file it looks for one now and then.
    pub(super) fn start(dir: PathBuf, file: Option<StateFile>) -> io::Result<Self> {
        let (batches, queue) = sync_channel(WAITING);
        let (finished, done) = channel();
        let shared = Arc::new(Shared { has_file: file.is_some().into(), ..Shared::default() });
        let inner = Inner { dir, file, shared: Arc::clone(&shared), _finished: finished };
        thread::Builder::new().name("store".into()).spawn(move || inner.run(&queue))?;
        Ok(Self { batches, shared, done })
    }

    /// Batches that were handed over and are not done with: no more than [`WAITING`] may be.
    pub(super) fn pending(&self) -> usize {
        self.shared.pending.load(SeqCst)
    }

    /// How many were written so far.
    pub(super) fn written(&self) -> usize {
        self.shared.written.load(SeqCst)
    }

    /// Bytes of records that were written so far, and times that it has failed.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.shared.bytes.load(SeqCst), self.shared.failures.load(SeqCst))
    }

    /// Hands one over. False, and it is lost: as many as may wait do.
    pub(super) fn send(&self, batch: Batch) -> bool {
        self.shared.pending.fetch_add(1, SeqCst);
        let sent = self.batches.try_send(batch).is_ok();
        if !sent {
            self.shared.pending.fetch_sub(1, SeqCst);
        }
        sent
    }

    /// Why nothing can be written, once for each time.
    pub(super) fn failure(&self) -> Option<String> {
        self.shared.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether there is a file to write to, and nothing left of what was handed over.
    pub(super) fn is_ready(&self) -> bool {
        self.pending() == 0 && self.shared.has_file.load(SeqCst)
    }

    /// Lets it finish what it has, for at most `wait`. False: it has not.
    pub(super) fn finish(self, wait: Duration) -> bool {
        drop(self.batches);
        self.done.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected)
    }
}

struct Inner {
    dir: PathBuf,
    file: Option<StateFile>,
    shared: Arc<Shared>,
    /// Its drop tells the end.
    _finished: Sender<()>,
}

impl Inner {
    fn run(mut self, queue: &Receiver<Batch>) {
        loop {
            let batch = if self.file.is_some() {
                queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                queue.recv_timeout(AGAIN)
            };
            match batch {
                Ok(batch) => {
                    self.write(&batch);
                    self.shared.pending.fetch_sub(1, SeqCst);
                }
                Err(RecvTimeoutError::Timeout) => self.look_again(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn write(&mut self, Batch { about, fresh, changes }: &Batch) {
        // What was handed over before the failure was known is written anew with all else.
        let Some(file) = &mut self.file else { return };
        match file.write(about, *fresh, changes) {
            Ok(bytes) => {
                self.shared.bytes.fetch_add(bytes, SeqCst);
                self.shared.written.fetch_add(1, SeqCst);
            }
            Err(error) => {
                self.shared.failures.fetch_add(1, SeqCst);
                // After a failure redb writes no more until the file is opened anew. The directory's lock goes with it.
                self.file = None;
                self.shared.has_file.store(false, SeqCst);
                *self.shared.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(chain(&error));
            }
        }
    }

    fn look_again(&mut self) {
        let opened = StateFile::open(&self.dir).or_else(|error| {
            let StoreError::Unreadable { word, .. } = error else { return Err(error) };
            StateFile::set_aside(&self.dir, word).and_then(|_| StateFile::open(&self.dir))
        });
        match opened {
            Ok((file, _)) => {
                self.file = Some(file);
                self.shared.has_file.store(true, SeqCst);
            }
            Err(error) => tracing::debug!(error = chain(&error), "the state directory still cannot be used"),
        }
    }
}
