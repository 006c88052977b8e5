//! A circuit breaker for the refreshes of one trunk: where the first refresh of call after call comes to nothing, sipst stops
//! asking, but for one call now and then.

use std::time::Duration;

use super::timers::TRANSACTION;
use crate::{SessionId, Time};

/// How many dialogs whose first refresh came to nothing, with no success between, open it.
pub const BREAKER_DIALOGS: usize = 5;

/// The least time between two probes.
const LEAST: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Default)]
pub(super) struct Breaker {
    /// Those dialogs, while it is closed.
    failed: Vec<SessionId>,
    open: Option<Open>,
}

/// What there is while it is open.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// The dialog that is being tried.
    probe: Option<SessionId>,
    /// When another one may be tried.
    next: Time,
}

impl Breaker {
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// From when on a dialog that was never refreshed may be tried.
    pub(super) fn ready(&self) -> Time {
        self.open.map_or(Time::from_micros(0), |open| open.next)
    }

    pub(super) fn is_probe(&self, session: SessionId) -> bool {
        self.open.is_some_and(|open| open.probe == Some(session))
    }

    /// A dialog waits whose turn ends at `by`: another one is tried before that.
    pub(super) fn hurry(&mut self, now: Time, by: Time) {
        if let Some(open) = &mut self.open {
            open.next = open.next.min(now + pause(now, Some(by)));
        }
    }

    /// A dialog is tried. Of those that go on waiting the first one's turn ends at `earliest`. Whether it is a probe.
    pub(super) fn tries(&mut self, now: Time, session: SessionId, earliest: Option<Time>) -> bool {
        if let Some(open) = &mut self.open {
            *open = Open { probe: Some(session), next: now + pause(now, earliest) };
        }
        self.is_open()
    }

    /// The refresh of a dialog that was never refreshed came to nothing. Whether that opens it.
    pub(super) fn failed(&mut self, now: Time, session: SessionId, earliest: Option<Time>) -> bool {
        let next = now + pause(now, earliest);
        match &mut self.open {
            Some(open) => {
                if open.probe == Some(session) {
                    *open = Open { probe: None, next };
                }
                false
            }
            None => {
                if !self.failed.contains(&session) {
                    self.failed.push(session);
                }
                if self.failed.len() < BREAKER_DIALOGS {
                    return false;
                }
                self.failed.clear();
                self.open = Some(Open { probe: None, next });
                true
            }
        }
    }

    /// A refresh succeeded. Whether that closes it.
    pub(super) fn succeeded(&mut self) -> bool {
        self.failed.clear();
        self.open.take().is_some()
    }

    /// Nothing comes of this dialog's try, good or bad: another one may be tried.
    pub(super) fn passes(&mut self, now: Time, session: SessionId) {
        if let Some(open) = self.open.as_mut().filter(|open| open.probe == Some(session)) {
            *open = Open { probe: None, next: now };
        }
    }

    /// The peer has no such dialog: what was held against the trunk because of it is not any more.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.failed.retain(|failed| *failed != session);
    }
}

/// How long until the next one is tried: a transaction's time, but never so long that the earliest deadline comes first.
fn pause(now: Time, earliest: Option<Time>) -> Duration {
    let half = earliest.map_or(TRANSACTION, |by| by.since(now) / 2);
    half.clamp(LEAST, TRANSACTION)
}
