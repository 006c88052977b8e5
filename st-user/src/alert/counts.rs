//! What became of the alerts, counted for each receiver: a dead one shows here.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// The counters of one receiver. They only grow, but for `queued`.
#[derive(Debug, Default)]
pub struct SinkCounts {
    /// The receiver: its kind and, without what may be secret, where it is.
    pub name: String,
    /// How many alerts wait for it at present.
    pub queued: AtomicU64,
    /// Alerts that it has taken.
    pub sent: AtomicU64,
    /// Alerts that were given up after all attempts.
    pub failed: AtomicU64,
    /// Alerts that found no room.
    pub dropped: AtomicU64,
    /// Alerts that were not told one by one: said before, or more than a trunk may raise in a minute.
    pub folded: AtomicU64,
}

impl SinkCounts {
    pub(crate) fn new(name: String) -> Arc<Self> {
        Arc::new(Self { name, ..Self::default() })
    }

    /// Counts one in that waits, once `send` has found room for it; else it is dropped, and `slow` is said of the first.
    pub(crate) fn queue(&self, send: impl FnOnce() -> bool, slow: &str) {
        Self::add(&self.queued, 1);
        if !send() {
            self.queued.fetch_sub(1, Relaxed);
            if self.dropped.fetch_add(1, Relaxed) == 0 {
                tracing::warn!("{slow}");
            }
        }
    }

    /// Adds to one of them.
    pub(crate) fn add(counter: &AtomicU64, number: u64) {
        counter.fetch_add(number, Relaxed);
    }
}

/// The counters of all receivers that there are; a clone stays valid when a reload changes these.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Mutex<Vec<Arc<SinkCounts>>>>);

impl Counts {
    /// Those of the receivers that there are now.
    pub fn sinks(&self) -> Vec<Arc<SinkCounts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, sinks: Vec<Arc<SinkCounts>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = sinks;
    }
}
