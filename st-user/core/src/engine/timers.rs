//! The engine's timers in one ordered structure. Ties fall in the order of the keys, so that runs repeat.

use std::collections::{BTreeSet, HashMap};

use crate::{SessionId, Time};

/// SIP's T1 (RFC 3261, section 17.1.1.1).
pub(super) const T1: std::time::Duration = std::time::Duration::from_millis(500);

/// SIP's T2: the longest time between two copies of a request other than INVITE.
pub(super) const T2: std::time::Duration = std::time::Duration::from_secs(4);

/// 64*T1: how long a transaction can last, and how long copies of a final response can come in.
pub const TRANSACTION: std::time::Duration = std::time::Duration::from_secs(32);

/// R31: how soon something is tried again that cannot be done right now.
pub(super) const REARM: std::time::Duration = std::time::Duration::from_secs(1);

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Timer {
    /// When to send a request of ours again.
    Retransmit(u64),
    /// When to stop waiting for an UPDATE of ours and send a re-INVITE beside it.
    Fallback(u64),
    /// When to give a request of ours up, or to cancel it.
    GiveUp(u64),
    /// When no answer to a request of ours can come any more.
    Retire(u64),
    /// When a refresh that could not be sent, or was turned down, is tried again.
    Retry,
    /// When the driver's answer to [`crate::Output::Arm`] is not waited for any longer.
    Armed,
    /// When somebody has to act.
    Act,
    /// When the peer may soon hang up.
    Expiring,
    /// When the interval has run out.
    Expired,
    /// When a BYE of the peer's that the server lets unanswered ends the dialog all the same.
    Unanswered,
    /// When a dialog that nobody speaks in any more is forgotten, or a tombstone is taken away.
    Forget,
}

/// A session's timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) session: SessionId,
    pub(super) timer: Timer,
}

/// All that are running.
#[derive(Debug, Default)]
pub(super) struct Timers {
    ordered: BTreeSet<(Time, Key)>,
    running: HashMap<Key, Time>,
}

impl Timers {
    /// Starts a timer, or moves it.
    pub(super) fn set(&mut self, session: SessionId, timer: Timer, at: Time) {
        let key = Key { session, timer };
        if let Some(before) = self.running.insert(key, at) {
            self.ordered.remove(&(before, key));
        }
        self.ordered.insert((at, key));
    }

    /// Stops a timer, if it runs.
    pub(super) fn cancel(&mut self, session: SessionId, timer: Timer) {
        let key = Key { session, timer };
        if let Some(at) = self.running.remove(&key) {
            self.ordered.remove(&(at, key));
        }
    }

    /// When the first one is due.
    pub(super) fn next(&self) -> Option<Time> {
        self.ordered.first().map(|(at, _)| *at)
    }

    /// Takes the first one that is due by `now`.
    pub(super) fn pop(&mut self, now: Time) -> Option<Key> {
        let first = *self.ordered.first().filter(|(at, _)| *at <= now)?;
        self.ordered.remove(&first);
        self.running.remove(&first.1);
        Some(first.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_that_is_moved_fires_once_and_ties_keep_their_order() {
        let at = Time::from_micros;
        let mut timers = Timers::default();
        timers.set(SessionId(2), Timer::Act, at(5));
        timers.set(SessionId(1), Timer::Act, at(9));
        timers.set(SessionId(1), Timer::Act, at(5));
        timers.set(SessionId(3), Timer::Act, at(1));
        timers.cancel(SessionId(3), Timer::Act);
        assert_eq!(timers.next(), Some(at(5)));
        assert_eq!(timers.pop(at(4)), None);
        assert_eq!(timers.pop(at(5)).map(|key| key.session), Some(SessionId(1)));
        assert_eq!(timers.pop(at(5)).map(|key| key.session), Some(SessionId(2)));
        assert_eq!(timers.pop(at(99)), None);
    }
}
