//! The server's requests other than INVITE, UPDATE and BYE, as far as a refresh has to wait for them: were the peer to see
//! ours first, a copy of an earlier one that was lost on its way would come with too low a number (R25).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    hash::Fingerprint,
    limits::MAX_OTHERS,
    timers::{T1, T2},
};
use crate::{Time, message::MethodName};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Other {
    method: MethodName,
    branch: Option<Fingerprint>,
    heard: Time,
    /// After which the next copy comes if there is no answer (R37).
    gap: Duration,
}

/// Those of one dialog that may still be without an answer. Not every answer is seen, so a request counts as answered too
/// once its next copy is overdue.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Others {
    all: Vec<Other>,
    /// When it was found out that one had gone by unseen. Not on record.
    #[serde(skip)]
    missed: Option<Time>,
}

impl Others {
    /// For [`super::Engine::look_ahead`].
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Takes in a request with what stands for its branch, or a copy of it; whether an older one had to go.
    pub(super) fn asked(&mut self, now: Time, method: MethodName, branch: Option<Fingerprint>) -> bool {
        if let Some(known) = self.find(branch, method) {
            let known = &mut self.all[known];
            known.heard = now;
            known.gap = (known.gap * 2).min(T2);
            return false;
        }
        let full = self.all.len() >= MAX_OTHERS;
        if full {
            self.all.remove(0);
        }
        self.all.push(Other { method, branch, heard: now, gap: T1 });
        full
    }

    /// A request was sent that was not seen: how often already, and which, is not known. Its next copy will be seen.
    pub(super) fn missed(&mut self, now: Time) {
        self.missed = Some(now);
    }

    /// Whether all of this stands in a record.
    pub(super) const fn is_on_record(&self) -> bool {
        self.missed.is_none()
    }

    /// Takes in a final response; whether it is one to any of them.
    pub(super) fn answered(&mut self, method: MethodName, branch: impl FnOnce() -> Option<Fingerprint>) -> bool {
        if self.all.is_empty() {
            return false;
        }
        let known = self.find(branch(), method);
        known.map(|known| self.all.remove(known)).is_some()
    }

    /// Whether a copy of one may still come.
    pub(super) fn is_open(&self, now: Time) -> bool {
        self.all.iter().any(|other| is_due(now, other.heard, other.gap))
    }

    /// The same of one that went by unseen: it may be any, a BYE or an INVITE too.
    pub(super) fn is_one_missed(&self, now: Time) -> bool {
        self.missed.is_some_and(|heard| is_due(now, heard, T2))
    }

    fn find(&self, branch: Option<Fingerprint>, method: MethodName) -> Option<usize> {
        self.all.iter().position(|other| other.method == method && other.branch == branch)
    }
}

/// Whether the next copy of a request that was heard then is not overdue.
fn is_due(now: Time, heard: Time, gap: Duration) -> bool {
    now.since(heard) < gap + gap / 2
}
