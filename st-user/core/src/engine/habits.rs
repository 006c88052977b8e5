//! What is known of what becomes of refreshes that peers send: which servers turn them down, and whose never arrive. By trunk, for a
//! server may deal with one carrier's otherwise than with another's.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{hash::Fingerprint, reason, session::Turned, shared::Shared};
use crate::{Time, message::MethodName};

/// How long it counts: a server may be a newer one tomorrow, a way another.
pub const HABIT_AGE: Duration = Duration::from_secs(24 * 3600);

/// Of one server with one trunk's peers, or of one peer's way to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Habit {
    /// How the server last turned an UPDATE down, and when.
    update: Option<(Turned, Time)>,
    /// A re-INVITE, likewise.
    invite: Option<(Turned, Time)>,
    /// When a refresh of the peer's was last due and not seen.
    unseen: Option<Time>,
}

impl Habit {
    fn slot(&mut self, method: MethodName) -> &mut Option<(Turned, Time)> {
        if method == MethodName::Update { &mut self.update } else { &mut self.invite }
    }

    /// The word, and what it was.
    fn risk(&self, now: Time) -> Option<(&'static str, String)> {
        let is_fresh = |at: Time| now.since(at) < HABIT_AGE;
        let last = [self.update, self.invite].into_iter().flatten().filter(|(_, at)| is_fresh(*at));
        let turned = last.max_by_key(|(_, at)| *at).map(|(turned, _)| {
            let what = turned.status.map_or("nothing".into(), |status| status.to_string());
            (turned.reason(), format!("{what} to {}, in this call or another", turned.method.name()))
        });
        let unseen = self.unseen.filter(|at| is_fresh(*at));
        turned.or_else(|| unseen.map(|_| (reason::REFRESHES_NOT_SEEN, "in this call or another".into())))
    }
}

/// What a server's and a peer's habits are found by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    pub(super) server: Fingerprint,
    pub(super) peer: Fingerprint,
}

impl Shared {
    /// Whether anything is known of anybody.
    pub(super) fn has_habits(&self) -> bool {
        self.habits.len() > 0
    }

    /// A server has turned a refresh of a peer's down.
    pub(super) fn learn_turned(&mut self, keys: Keys, turned: Turned) {
        let now = self.now;
        self.change(keys.server, |habit| *habit.slot(turned.method) = Some((turned, now)));
    }

    /// It has taken one. Where that is a re-INVITE, a refused UPDATE does no harm: another one follows it.
    pub(super) fn learn_taken(&mut self, keys: Keys, method: MethodName) {
        if self.habits.get(&keys.server).is_none() {
            return;
        }
        self.change(keys.server, |habit| {
            *habit.slot(method) = None;
            if method == MethodName::Invite {
                habit.update = habit.update.filter(|(turned, _)| turned.status.is_none());
            }
        });
    }

    /// A refresh of a peer's was due and was not seen.
    pub(super) fn learn_unseen(&mut self, keys: Keys) {
        let now = self.now;
        self.change(keys.peer, |habit| habit.unseen = Some(now));
    }

    /// One was seen.
    pub(super) fn learn_seen(&mut self, keys: Keys) {
        if self.habits.get(&keys.peer).is_some() {
            self.change(keys.peer, |habit| habit.unseen = None);
        }
    }

    fn change(&mut self, key: Fingerprint, change: impl FnOnce(&mut Habit)) {
        let Some(habit) = self.habits.touch(key, Habit::default) else { return };
        let before = *habit;
        change(habit);
        self.changed |= *habit != before;
        if *habit == Habit::default() {
            self.habits.remove(&key);
        }
    }

    /// Why refreshes of the peer's will come to nothing, as far as that is known: a word, and details.
    pub(super) fn risk(&self, keys: Keys) -> Option<(&'static str, String)> {
        [keys.server, keys.peer].iter().find_map(|key| self.habits.get(key)?.risk(self.now))
    }
}
