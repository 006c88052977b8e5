//! Sessions by trunk, state and refresher, and their deadlines: counted anew whenever one has changed, so that nobody
//! goes through all of them to know. A state that time alone changes does so at the moment of one of the session's
//! timers, which changes the session.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    Dialogs, Engine, dialog::Dialog, hash::Fingerprint, packed::Entry, shared::Shared, timers::Timer, view::Standing,
};
use crate::{Policy, Rules, SessionId, Side, Time, policy::NO_TRUNK};

/// As what a session is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// By which policy ([`Shared::policy_number`]).
    policy: u16,
    /// The trunk's place in that; behind the last one: none.
    trunk: u32,
    /// Where its name is counted.
    slot: u32,
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
}

/// The same, whoever counts and by whichever policy.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Counted {
    state: u8,
    refresher: Option<Side>,
    held: bool,
    deadline_s: Option<u64>,
}

impl Counted {
    pub(super) fn of(dialog: &Dialog, now: Time) -> Self {
        let state = dialog.standing(now);
        let over = state == Standing::Ended;
        Self {
            state: Standing::ALL.iter().position(|one| *one == state).and_then(|at| u8::try_from(at).ok()).unwrap_or(0),
            refresher: dialog.session.agreed.map(|agreed| agreed.refresher).filter(|_| !over),
            held: dialog.held && !over,
            deadline_s: dialog.session.deadline().filter(|_| !over).map(seconds),
        }
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
    /// By the name of a trunk and state. After a change of the policy there are sessions for a while that are counted by
    /// the one before.
    counts: Vec<(Arc<str>, [ByRefresher; Standing::ALL.len()])>,
    /// Where the trunks of the policy are counted, and behind them those sessions that none covers.
    slots: Vec<u32>,
    held: usize,
    /// How many may be hung up in which second.
    deadlines: BTreeMap<u64, usize>,
    /// When the state of those changes that have no timer for it.
    unattended: BTreeSet<(Time, SessionId)>,
}

impl Census {
    /// Takes the trunks of another policy. Sessions are counted by it when they next change, or are touched.
    pub(super) fn follow(&mut self, policy: &Policy) {
        let names = || policy.trunks.iter().map(|trunk| &*trunk.name).chain([NO_TRUNK]);
        let mut places: HashMap<Arc<str>, Option<u32>> = names().map(|name| (name.into(), None)).collect();
        let mut free = Vec::new();
        for (slot, (name, counts)) in (0..).zip(&self.counts) {
            match places.get_mut(name) {
                Some(place) => *place = Some(slot),
                None if counts.iter().flatten().all(|count| *count == 0) => free.push(slot),
                None => {}
            }
        }
        self.slots.clear();
        for name in names() {
            let known = places.get(name).copied().flatten();
            let slot =
                known.or_else(|| free.pop()).unwrap_or_else(|| u32::try_from(self.counts.len()).unwrap_or(u32::MAX));
            if known.is_none() {
                let name: Arc<str> = name.into();
                let fresh = (Arc::clone(&name), <_>::default());
                match self.counts.get_mut(slot as usize) {
                    Some(counts) => *counts = fresh,
                    None => self.counts.push(fresh),
                }
                places.insert(name, Some(slot));
            }
            self.slots.push(slot);
        }
    }

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
        let refresher = REFRESHERS.iter().position(|side| *side == place.refresher).unwrap_or_default();
        if let Some((_, states)) = self.counts.get_mut(place.slot as usize) {
            let count = &mut states[usize::from(place.state)][refresher];
            *count = change(*count);
        }
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
        let place = self.place(sx, now, dialog);
        if dialog.counted == Some(place) {
            return;
        }
        self.gone(dialog);
        self.count(place, |count| count + 1);
        dialog.counted = Some(place);
    }

    /// As what a dialog is to be counted.
    fn place(&self, sx: &Shared, now: Time, dialog: &Dialog) -> Place {
        let known = dialog.counted.filter(|place| place.policy == sx.policy_number);
        let trunk = known.map_or_else(|| trunk_of(dialog.rules(&sx.policy).1, &sx.policy), |place| place.trunk);
        self.at(sx, trunk, Counted::of(dialog, now))
    }

    /// The same of one that is under these rules.
    pub(super) fn placed(&self, sx: &Shared, rules: &Rules, counted: Counted) -> Place {
        let state = counted.state.min(Standing::ALL.len() as u8 - 1);
        self.at(sx, trunk_of(rules, &sx.policy), Counted { state, ..counted })
    }

    fn at(&self, sx: &Shared, trunk: u32, counted: Counted) -> Place {
        let Counted { state, refresher, held, deadline_s } = counted;
        let slot = self.slots.get(trunk as usize).copied().unwrap_or_default();
        Place { policy: sx.policy_number, trunk, slot, state, refresher, held, deadline_s }
    }

    /// One that is packed is counted from now on.
    pub(super) fn add(&mut self, place: Place, session: SessionId, unattended: Option<Time>) {
        self.count(place, |count| count + 1);
        self.unattended.extend(unattended.map(|at| (at, session)));
    }
}

/// The place of the trunk with these rules; behind the last one: none.
pub(super) fn trunk_of(rules: &Rules, policy: &Policy) -> u32 {
    let at = policy.trunks.iter().position(|trunk| std::ptr::eq(&trunk.rules, rules));
    u32::try_from(at.unwrap_or(policy.trunks.len())).unwrap_or(u32::MAX)
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
                if let Some(at) = dialog.unattended(sx.timers.of(dialog.id), now) {
                    census.unattended.insert((at, dialog.id));
                }
            }
        }
    }
}

impl Engine {
    /// Sessions that there are, counted; those that are over and absorb copies too. What is not there is left out. As
    /// of the engine's last moment, or `now` where that is later. Until [`Engine::handle_policy`] has gone through all of
    /// them, there are some under the trunks of the policy before.
    pub fn census(&mut self, now: Time) -> impl Iterator<Item = Tally<'_>> {
        self.count(now);
        self.dialogs.census.counts.iter().flat_map(move |(trunk, states)| {
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
            let Some(key) = keys.get(session) else { continue };
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
    /// By the rules of the trunk that it is counted under.
    fn keep_alive_as_counted(&mut self, sx: &mut Shared, policy: &Policy) {
        let trunk = self.counted.and_then(|place| policy.trunks.get(place.trunk as usize));
        self.keep_alive(sx, trunk.map_or(&policy.default, |trunk| &trunk.rules));
    }

    /// When its state changes next by time alone, if no timer goes off then.
    pub(super) fn unattended(&self, timers: &[(Time, Timer)], now: Time) -> Option<Time> {
        if self.is_over() {
            return None;
        }
        let moments = [
            (Timer::Act, self.session.act_at()),
            (Timer::Expiring, self.session.expiring_at()),
            (Timer::Expired, self.session.end()),
        ];
        let (timer, at) = moments.into_iter().find_map(|(timer, at)| Some((timer, at.filter(|at| *at > now)?)))?;
        let attended = timers.iter().any(|(set, one)| *one == timer && *set <= at);
        (!attended).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Matcher, Trunk};

    #[test]
    fn names_that_are_no_more_take_no_room() {
        let named = |name: String| Trunk { name, matcher: Matcher::default(), rules: Rules::default() };
        let mut census = Census::default();
        for number in 0..100 {
            let trunks = (0..3).map(|trunk| named(format!("{number} {trunk}"))).collect();
            census.follow(&Policy { trunks, ..Policy::default() });
            assert_eq!(census.slots.len(), 4);
            let names: Vec<&str> = census.slots.iter().map(|slot| &*census.counts[*slot as usize].0).collect();
            assert_eq!(
                names,
                [0, 1, 2, 3].map(|trunk| if trunk < 3 { format!("{number} {trunk}") } else { NO_TRUNK.into() })
            );
        }
        // Those of now, and what is left of those before.
        assert_eq!(census.counts.len(), 4);
    }
}
