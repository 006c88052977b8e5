//! Whether the daemon lives, and whether it does what it is there for: published by its loop, read by whoever asks.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::clock::monotonic_ns;

/// How old the last turn of the loop may be; at rest there is one each second.
const TURN: Duration = Duration::from_secs(5);

/// What the loop says of itself.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// When packets and deadlines were last both worked on, `CLOCK_MONOTONIC` nanoseconds; 0: never.
    turned_ns: AtomicU64,
    /// What is amiss; nothing has been said until the daemon reads.
    amiss: Mutex<Option<Vec<String>>>,
}

impl Health {
    /// Packets and deadlines were worked on.
    pub(crate) fn turned(&self) {
        self.turned_ns.store(monotonic_ns(), Relaxed);
    }

    /// It reads, and this is amiss.
    pub(crate) fn publish(&self, amiss: Vec<String>) {
        *self.amiss.lock().unwrap_or_else(PoisonError::into_inner) = Some(amiss);
    }

    /// Whether the loop turns.
    ///
    /// # Errors
    /// It does not, and since when.
    pub(crate) fn lives(&self) -> Result<(), Vec<String>> {
        let turned = self.turned_ns.load(Relaxed);
        let ago = Duration::from_nanos(monotonic_ns().saturating_sub(turned));
        match turned {
            0 => Err(vec!["the daemon's loop has not begun".into()]),
            _ if ago > TURN => Err(vec![format!("the daemon's loop last turned {} s ago", ago.as_secs())]),
            _ => Ok(()),
        }
    }

    /// Whether it does what it is there for.
    ///
    /// # Errors
    /// It does not, and why.
    pub(crate) fn ready(&self) -> Result<(), Vec<String>> {
        self.lives()?;
        let amiss = self.amiss.lock().unwrap_or_else(PoisonError::into_inner);
        match &*amiss {
            None => Err(vec!["what an earlier run has left is being gone through".into()]),
            Some(amiss) if !amiss.is_empty() => Err(amiss.clone()),
            Some(_) => Ok(()),
        }
    }
}
