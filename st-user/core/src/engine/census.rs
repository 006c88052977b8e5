//! Sessions by trunk, state and refresher, and their deadlines: counted anew whenever one has changed, so that nobody
//! goes through all of them to know. A state that time alone changes does so at the moment of one of the session's
//! timers, which changes the session.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    Dialogs, Engine, dialog::Dialog, hash::Fingerprint, packed::Entry, shared::Shared, timers::Timer, view::Standing,
};
use crate::{Policy, SessionId, Side, Time, policy::NO_TRUNK};

/// As what a session is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The trunk's place in the policy; behind the last one: none.
    trunk: u32,
    /// The state's in [`Standing::ALL`].
    state: u8,
    refresher: Option<Side>,
    held: bool,
    /// When the peer may hang up, in seconds; `None`: it is over, or nobody would.
    deadline_s: Option<u64>,
}

impl Place {
    pub(super) const fn trunk(self) -> u32 {
        self.trunk
    }

    /// The same under another trunk.
    pub(super) const fn under(self, trunk: u32) -> Self {
        Self { trunk, ..self }
    }
}

/// So many sessions are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally<'a> {
    /// Their trunk, `default` where none covers them.
    pub trunk: &'a str,
    /// Where they stand.
    pub state: Standing,
    /// Who must refresh.
    pub refresher: Option<Side>,
    /// How many they are.
    pub sessions: usize,
}

/// By the place of a refresher in [`REFRESHERS`].
type ByRefresher = [usize; REFRESHERS.len()];

const REFRESHERS: [Option<Side>; 3] = [None, Some(Side::Server), Some(Side::Peer)];

/// All counts.
#[derive(Default)]
pub(super) struct Census {
    /// Those that have changed and are counted as they were, each once.
    touched: Vec<Fingerprint>,
    /// By trunk and state.
    counts: Vec<[ByRefresher; Standing::ALL.len()]>,
    held: usize,
    /// How many may be hung up in which second.
    deadlines: BTreeMap<u64, usize>,
    /// When the state of those changes that have no timer for it.
    unattended: BTreeSet<(Time, SessionId)>,
}

impl Census {
    /// A dialog is about to be changed.
    pub(super) fn touch(&mut self, key: Fingerprint, dialog: &mut Dialog) {
        if !std::mem::replace(&mut dialog.touched, true) {
            self.touched.push(key);
        }
    }

    /// A dialog is forgotten.
    pub(super) fn gone(&mut self, dialog: &Dialog) {
        if let Some(place) = dialog.counted {
            self.count(place, |count| count.saturating_sub(1));
        }
    }

    fn count(&mut self, place: Place, change: impl Fn(usize) -> usize) {
        let trunk = place.trunk as usize;
        if self.counts.len() <= trunk {
            self.counts.resize(trunk + 1, <_>::default());
        }
        let refresher = REFRESHERS.iter().position(|side| *side == place.refresher).unwrap_or_default();
        let count = &mut self.counts[trunk][usize::from(place.state)][refresher];
        *count = change(*count);
        if place.held {
            self.held = change(self.held);
        }
        if let Some(second) = place.deadline_s {
            let count = self.deadlines.entry(second).or_default();
            *count = change(*count);
            if *count == 0 {
                self.deadlines.remove(&second);
            }
        }
    }

    /// Counts a dialog as what it is now.
    fn recount(&mut self, sx: &Shared, now: Time, dialog: &mut Dialog) {
        dialog.touched = false;
        let place = dialog.place(sx, now, dialog.counted.map(|place| place.trunk));
        if dialog.counted == Some(place) {
            return;
        }
        self.gone(dialog);
        self.count(place, |count| count + 1);
        dialog.counted = Some(place);
    }
}

impl Dialogs {
    /// Counts those that have changed as what they are now. To be called when the engine is at rest.
    pub(super) fn recount(&mut self, sx: &mut Shared, now: Time) {
        let Self { all, census, .. } = self;
        let policy = Arc::clone(&sx.policy);
        while let Some(key) = census.touched.pop() {
            // One that is gone has been taken out of the counts, and none is packed before it is counted.
            if let Some(Entry::Open(dialog)) = all.get_mut(&key) {
                census.recount(sx, now, dialog);
                dialog.keep_alive_as_counted(sx, &policy);
                if let Some(at) = dialog.unattended(sx, now) {
                    census.unattended.insert((at, dialog.id));
                }
            }
        }
    }

    /// Counts all of them anew, under another policy.
    pub(super) fn recount_all(&mut self, sx: &mut Shared) {
        let policy = Arc::clone(&sx.policy);
        let Self { all, census, packing, .. } = self;
        census.counts.clear();
        census.deadlines.clear();
        census.held = 0;
        for entry in all.values_mut() {
            let dialog = match entry {
                Entry::Open(dialog) => dialog,
                Entry::Packed(packed) => {
                    if let Some(place) = packing.recount(packed, &policy) {
                        census.count(place, |count| count + 1);
                    }
                    continue;
                }
            };
            let place = dialog.place(sx, sx.now, None);
            census.count(place, |count| count + 1);
            dialog.counted = Some(place);
            dialog.keep_alive_as_counted(sx, &policy);
        }
    }
}

impl Engine {
    /// Sessions that there are, counted; those that are over and absorb copies too. What is not there is left out. As
    /// of the engine's last moment, or `now` where that is later.
    pub fn census(&mut self, now: Time) -> impl Iterator<Item = Tally<'_>> {
        self.count(now);
        let policy = &self.sx.policy;
        self.dialogs.census.counts.iter().enumerate().flat_map(move |(trunk, states)| {
            let trunk = policy.trunks.get(trunk).map_or(NO_TRUNK, |trunk| &*trunk.name);
            Standing::ALL.into_iter().zip(states).flat_map(move |(state, refreshers)| {
                let tally =
                    move |(refresher, sessions): (_, &usize)| Tally { trunk, state, refresher, sessions: *sessions };
                REFRESHERS.into_iter().zip(refreshers).map(tally).filter(|tally| tally.sessions > 0)
            })
        })
    }

    /// Sessions that an operator has told sipst to keep its hands off.
    pub fn held(&mut self, now: Time) -> usize {
        self.count(now);
        self.dialogs.census.held
    }

    /// The second in which the nearest deadline is that has not passed.
    pub fn next_deadline(&mut self, now: Time) -> Option<Time> {
        self.count(now);
        let (second, _) = self.dialogs.census.deadlines.range(seconds(now)..).next()?;
        Some(Time::from_micros(second.saturating_mul(1_000_000)))
    }

    fn count(&mut self, now: Time) {
        // The engine's own time goes on with packets and timers alone: one that is read later may be of an earlier
        // moment.
        let now = now.max(self.sx.now);
        while let Some((_, session)) = self.dialogs.census.unattended.first().copied().filter(|(at, _)| *at <= now) {
            self.dialogs.census.unattended.pop_first();
            let Dialogs { all, keys, census, packing, .. } = &mut self.dialogs;
            let Some(key) = keys.get(&session).copied() else { continue };
            if let Some(dialog) = all.get_mut(&key).and_then(|entry| packing.open(&mut self.sx, entry)) {
                census.touch(key, dialog);
            }
        }
        self.dialogs.recount(&mut self.sx, now);
    }
}

fn seconds(time: Time) -> u64 {
    time.as_micros() / 1_000_000
}

impl Dialog {
    /// As what it is counted; `trunk`: where that is known.
    fn place(&self, sx: &Shared, now: Time, trunk: Option<u32>) -> Place {
        let state = self.standing(now);
        let over = state == Standing::Ended;
        Place {
            trunk: trunk.unwrap_or_else(|| self.trunk(&sx.policy)),
            state: Standing::ALL.iter().position(|one| *one == state).and_then(|at| u8::try_from(at).ok()).unwrap_or(0),
            refresher: self.session.agreed.map(|agreed| agreed.refresher).filter(|_| !over),
            held: self.held && !over,
            deadline_s: self.session.deadline().filter(|_| !over).map(seconds),
        }
    }

    /// By the rules of the trunk that it is counted under.
    fn keep_alive_as_counted(&mut self, sx: &mut Shared, policy: &Policy) {
        let trunk = self.counted.and_then(|place| policy.trunks.get(place.trunk as usize));
        self.keep_alive(sx, trunk.map_or(&policy.default, |trunk| &trunk.rules));
    }

    fn trunk(&self, policy: &Policy) -> u32 {
        policy.place(self.names.peer.ip(), self.domain())
    }

    /// When its state changes next by time alone, if no timer goes off then.
    fn unattended(&self, sx: &Shared, now: Time) -> Option<Time> {
        if self.is_over() {
            return None;
        }
        let moments = [
            (Timer::Act, self.session.act_at()),
            (Timer::Expiring, self.session.expiring_at()),
            (Timer::Expired, self.session.end()),
        ];
        let (timer, at) = moments.into_iter().find_map(|(timer, at)| Some((timer, at.filter(|at| *at > now)?)))?;
        let attended = sx.timers.of(self.id).iter().any(|(set, one)| *one == timer && *set <= at);
        (!attended).then_some(at)
    }
}
