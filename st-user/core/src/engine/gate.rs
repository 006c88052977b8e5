//! When a refresh may leave: the rates of the whole and of each trunk, and each trunk's circuit breaker. Who has to wait waits
//! in the order of deadlines.
//!
//! A dialog joins, gets leave to send one request when its turn comes, and spends the leave or gives it back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{breaker::Breaker, hash::Table, pace::Pace};
use crate::{Policy, Rate, SessionId, Time};

/// Whoever wants to send a refresh.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) session: SessionId,
    pub(super) trunk: &'a str,
    /// The trunk's.
    pub(super) rate: Rate,
    /// That of all trunks together.
    pub(super) overall: Rate,
    /// When its turn comes too late.
    pub(super) by: Time,
    /// Whether a refresh of sipst's has succeeded in the dialog before: the breaker does not concern it.
    pub(super) proven: bool,
}

/// Why a dialog waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Rate,
    Breaker,
}

/// A place in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    by: Time,
    session: SessionId,
}

#[derive(Debug)]
struct Waiting {
    trunk: Arc<str>,
    place: Place,
    since: Time,
}

/// The queues of one trunk.
#[derive(Debug)]
struct Lane {
    pace: Pace,
    breaker: Breaker,
    /// Those that the breaker does not hold back.
    free: BTreeSet<Place>,
    /// The others.
    held: BTreeSet<Place>,
}

#[derive(Debug)]
pub(super) struct Gate {
    /// How many may wait.
    limit: usize,
    pace: Pace,
    lanes: BTreeMap<Arc<str>, Lane>,
    waiting: Table<SessionId, Waiting>,
    /// Those that have leave, and whose trunk's it is.
    leaves: Table<SessionId, Arc<str>>,
    /// What [`Gate::next`] said, as long as nothing has changed.
    next: Option<Option<Time>>,
    /// Those that had to go for others.
    displaced: Vec<SessionId>,
    /// Those that an open breaker was found to hold back.
    suspended: Vec<SessionId>,
    counts: Counts,
}

/// What is counted; see [`super::Stats`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) delayed: u64,
    pub(super) evicted: u64,
    pub(super) opened: u64,
    pub(super) probes: u64,
}

impl Lane {
    fn new(rate: Rate) -> Self {
        Self { pace: Pace::new(rate), breaker: Breaker::default(), free: BTreeSet::new(), held: BTreeSet::new() }
    }

    fn is_idle(&self) -> bool {
        self.free.is_empty() && self.held.is_empty()
    }

    /// Whose turn is next, as far as this trunk is concerned.
    fn first(&self, now: Time) -> Option<Place> {
        if self.pace.ready() > now {
            return None;
        }
        let held = self.held.first().filter(|_| self.breaker.ready() <= now);
        [self.free.first(), held].into_iter().flatten().min().copied()
    }

    /// When the next one's turn comes, as far as this trunk is concerned.
    fn next(&self) -> Option<Time> {
        let free = self.free.first().map(|_| self.pace.ready());
        let held = self.held.first().map(|_| self.pace.ready().max(self.breaker.ready()));
        [free, held].into_iter().flatten().min()
    }

    /// When the first turn ends of those that the breaker holds back.
    fn earliest(&self) -> Option<Time> {
        self.held.first().map(|place| place.by)
    }
}

impl Gate {
    pub(super) fn new(limit: usize, overall: Rate) -> Self {
        Self {
            limit,
            pace: Pace::new(overall),
            lanes: BTreeMap::new(),
            waiting: Table::default(),
            leaves: Table::default(),
            next: None,
            displaced: Vec::new(),
            suspended: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Takes a dialog into the queue. Where that is full, whoever's turn could come latest has to go.
    pub(super) fn join(&mut self, now: Time, request: Request<'_>) {
        let Request { session, trunk, rate, overall, by, proven } = request;
        self.leave(now, session);
        self.next = None;
        self.pace.set(overall);
        let place = Place { by, session };
        if self.waiting.len() >= self.limit {
            let last =
                self.lanes.values().flat_map(|lane| [lane.free.last(), lane.held.last()]).flatten().max().copied();
            let out = last.filter(|last| *last > place);
            self.counts.evicted += 1;
            self.displaced.push(out.unwrap_or(place).session);
            match out {
                Some(out) => self.take_out(out.session),
                None => return,
            };
        }
        let trunk = self.lanes.get_key_value(trunk).map_or_else(|| trunk.into(), |(name, _)| Arc::clone(name));
        let lane = self.lanes.entry(Arc::clone(&trunk)).or_insert_with(|| Lane::new(rate));
        lane.pace.set(rate);
        if proven || lane.breaker.is_probe(session) {
            lane.free.insert(place);
        } else {
            lane.held.insert(place);
            lane.breaker.hurry(now, by);
            if lane.breaker.is_open() {
                self.suspended.push(session);
            }
        }
        self.waiting.insert(session, Waiting { trunk, place, since: now });
    }

    /// Gives the next one leave whose turn has come.
    pub(super) fn release(&mut self, now: Time) -> Option<SessionId> {
        if self.waiting.is_empty() || self.pace.ready() > now {
            return None;
        }
        let Place { session, .. } = self.lanes.values().filter_map(|lane| lane.first(now)).min()?;
        self.next = None;
        let Waiting { trunk, place, since } = self.waiting.remove(&session)?;
        self.counts.delayed += u64::from(now > since);
        self.pace.grant();
        if let Some(lane) = self.lanes.get_mut(&trunk) {
            lane.pace.grant();
            if lane.held.remove(&place) {
                let earliest = lane.earliest();
                self.counts.probes += u64::from(lane.breaker.tries(now, session, earliest));
            } else {
                lane.free.remove(&place);
            }
        }
        self.leaves.insert(session, trunk);
        Some(session)
    }

    /// Takes a dialog out of its queue. Whether it was in one.
    fn take_out(&mut self, session: SessionId) -> bool {
        let Some(Waiting { trunk, place, .. }) = self.waiting.remove(&session) else { return false };
        self.next = None;
        if let Some(lane) = self.lanes.get_mut(&trunk) {
            let _ = lane.free.remove(&place) || lane.held.remove(&place);
        }
        true
    }

    pub(super) fn has_leave(&self, session: SessionId) -> bool {
        self.leaves.contains_key(&session)
    }

    /// The request leaves.
    pub(super) fn spend(&mut self, now: Time, session: SessionId) {
        let Some(trunk) = self.leaves.remove(&session) else { return };
        self.next = None;
        self.pace.leaves(now);
        if let Some(lane) = self.lanes.get_mut(&trunk) {
            lane.pace.leaves(now);
        }
    }

    /// The dialog waits no longer, and sends nothing now: its leave is another one's.
    pub(super) fn leave(&mut self, now: Time, session: SessionId) {
        if !self.take_out(session)
            && let Some(trunk) = self.leaves.remove(&session)
        {
            self.next = None;
            self.pace.take_back();
            if let Some(lane) = self.lanes.get_mut(&trunk) {
                lane.pace.take_back();
                lane.breaker.passes(now, session);
            }
        }
    }

    /// What it was given leave for did not leave the host.
    pub(super) fn give_back(&mut self, now: Time, trunk: &str, session: SessionId) {
        self.next = None;
        self.pace.give_back();
        if let Some(lane) = self.lanes.get_mut(trunk) {
            lane.pace.give_back();
            lane.breaker.passes(now, session);
        }
    }

    /// When the next one's turn comes.
    pub(super) fn next(&mut self) -> Option<Time> {
        if self.waiting.is_empty() {
            return None;
        }
        let (pace, lanes) = (&self.pace, &self.lanes);
        *self.next.get_or_insert_with(|| Some(lanes.values().filter_map(Lane::next).min()?.max(pace.ready())))
    }

    /// Why a dialog waits; `None` where it does not, or may go yet in this very moment.
    pub(super) fn cause(&self, now: Time, session: SessionId) -> Option<Cause> {
        let waiting = self.waiting.get(&session)?;
        let lane = self.lanes.get(&waiting.trunk)?;
        let held = lane.breaker.is_open() && lane.held.contains(&waiting.place);
        if held { Some(Cause::Breaker) } else { (waiting.since < now).then_some(Cause::Rate) }
    }

    /// One that had to go for another since this was asked last.
    pub(super) fn displaced(&mut self) -> Option<SessionId> {
        self.displaced.pop()
    }

    /// One that an open breaker was found to hold back since this was asked last; it may have gone on meanwhile.
    pub(super) fn suspended(&mut self) -> Option<SessionId> {
        self.suspended.pop()
    }

    // What becomes of refreshes.

    /// One had no answer, or a 5xx, in a dialog that was never refreshed before. Whether that opens the trunk's breaker.
    pub(super) fn failed(&mut self, now: Time, trunk: &str, session: SessionId) -> bool {
        self.next = None;
        let Some(lane) = self.lanes.get_mut(trunk) else { return false };
        let earliest = lane.earliest();
        let opens = lane.breaker.failed(now, session, earliest);
        if opens {
            let held: Vec<SessionId> = lane.held.iter().map(|place| place.session).collect();
            self.suspended.extend(held);
            self.counts.opened += 1;
        }
        opens
    }

    /// One succeeded. Whether that closes the trunk's breaker.
    pub(super) fn succeeded(&mut self, trunk: &str) -> bool {
        self.next = None;
        self.lanes.get_mut(trunk).is_some_and(|lane| lane.breaker.succeeded())
    }

    /// One was turned down in a way that says nothing of the trunk.
    pub(super) fn passes(&mut self, now: Time, trunk: &str, session: SessionId) {
        self.next = None;
        if let Some(lane) = self.lanes.get_mut(trunk) {
            lane.breaker.passes(now, session);
        }
    }

    /// The peer has no such dialog.
    pub(super) fn forget(&mut self, now: Time, trunk: &str, session: SessionId) {
        self.passes(now, trunk, session);
        if let Some(lane) = self.lanes.get_mut(trunk) {
            lane.breaker.forget(session);
        }
    }

    /// Takes up the rates of another policy, and forgets trunks that there are no longer.
    pub(super) fn follow(&mut self, policy: &Policy) {
        self.next = None;
        self.pace.set(policy.refresh_rate);
        self.lanes.retain(|name, lane| {
            let rules = policy.rules(name);
            lane.pace.set(rules.map_or(Rate::OFF, |rules| rules.refresh_rate));
            rules.is_some() || !lane.is_idle()
        });
    }

    /// Whether nobody waits, nor is to be told anything.
    pub(super) fn is_at_rest(&self) -> bool {
        self.waiting.is_empty() && self.displaced.is_empty() && self.suspended.is_empty()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn open_breakers(&self) -> usize {
        self.lanes.values().filter(|lane| lane.breaker.is_open()).count()
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }
}
