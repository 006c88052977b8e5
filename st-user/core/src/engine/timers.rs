//! The engine's timers in one ordered structure. Ties fall in the order of the keys, so that runs repeat.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::hash::Table;
use crate::{SessionId, Time};

/// SIP's T1 (RFC 3261, section 17.1.1.1).
pub(super) const T1: std::time::Duration = std::time::Duration::from_millis(500);

/// SIP's T2: the longest time between two copies of a request other than INVITE.
pub(super) const T2: std::time::Duration = std::time::Duration::from_secs(4);

/// 64*T1: how long a transaction can last, and how long copies of a final response can come in.
pub const TRANSACTION: std::time::Duration = std::time::Duration::from_secs(32);

/// R31: how soon something is tried again that cannot be done right now.
pub(super) const REARM: std::time::Duration = std::time::Duration::from_secs(1);

/// By how much what does not matter to the moment may come later, and how many come together then: each is to be done and to be written,
/// and what falls due waits for them.
const TOGETHER: std::time::Duration = std::time::Duration::from_secs(4);
const AT_ONCE: u32 = 16;

/// What an interval sets beside the deadlines of requests of ours.
pub(super) const OF_INTERVAL: [Timer; 8] = [
    Timer::Act,
    Timer::Expiring,
    Timer::Expired,
    Timer::Retry,
    Timer::Armed,
    Timer::Ignored,
    Timer::TakeOver,
    Timer::HangUp,
];

/// Moments for what need not be done to the moment: several have one, so that whoever is waiting is woken up once, and what they change
/// is written at once.
#[derive(Debug, Default)]
pub(super) struct Together {
    latest: Option<Time>,
    count: u32,
}

impl Together {
    /// That moment, or a little later.
    pub(super) fn not_before(&mut self, at: Time) -> Time {
        let step = u64::try_from(TOGETHER.as_micros()).unwrap_or(u64::MAX);
        let later = Time::from_micros(at.as_micros().div_ceil(step).saturating_mul(step));
        if self.latest != Some(later) {
            *self = Self { latest: Some(later), count: 0 };
        }
        self.count = self.count.saturating_add(1);
        // Of many each comes at its own.
        if self.count > AT_ONCE { at } else { later }
    }
}

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
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
    /// When the turn of a refresh that waits for it would come too late.
    TooLate,
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
    /// When what the server has to be told is tried, sent again or given up.
    Tell,
    /// When a refresh of the peer's has had no word of the server's for too long.
    Ignored,
    /// When to refresh before the peer does, which has to.
    TakeOver,
    /// When an answer in the server's name is sent again for want of its ACK.
    Answer,
    /// When it is looked whether anybody is still in a call that has expired, or what is sent to end it is tried again.
    HangUp,
}

/// A session's timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) session: SessionId,
    pub(super) timer: Timer,
}

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// A timer.
    Timer(Key),
    /// One of a session's whose timers were put away with it ([`Timers::put_away`]).
    Away(SessionId),
}

/// Those of one session.
#[derive(Debug)]
struct Running {
    /// Where it stands in the queue: at its first timer or, until that moment comes, before it.
    queued: Time,
    timers: Vec<(Time, Timer)>,
}

impl Running {
    fn first(&self) -> Option<(Time, Timer)> {
        self.timers.iter().min().copied()
    }
}

/// All that are running. Timers are put off far more often than they go off, so a session moves in the queue only when
/// one of its timers has to go off earlier, or when its turn comes too early.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeSet<(Time, SessionId)>,
    /// What goes into the queue at once, when that is next looked at: [`Timers::put_back`].
    back: Vec<(Time, SessionId)>,
    running: Table<SessionId, Running>,
    /// What [`Timers::next`] said, as long as nothing has changed.
    next: Option<Option<Time>>,
}

impl Timers {
    /// Starts a timer, or moves it.
    pub(super) fn set(&mut self, session: SessionId, timer: Timer, at: Time) {
        self.set_all(session, [(timer, at)]);
    }

    /// Starts or moves several.
    pub(super) fn set_all<const N: usize>(&mut self, session: SessionId, moments: [(Timer, Time); N]) {
        let Some(first) = moments.iter().map(|(_, at)| *at).min() else { return };
        self.next = None;
        let running = self.running.entry(session).or_insert_with(|| {
            self.queue.insert((first, session));
            Running { queued: first, timers: Vec::new() }
        });
        for (timer, at) in moments {
            match running.timers.iter_mut().find(|(_, known)| *known == timer) {
                Some((before, _)) => *before = at,
                None => running.timers.push((at, timer)),
            }
        }
        if first < running.queued {
            self.queue.remove(&(running.queued, session));
            self.queue.insert((first, session));
            running.queued = first;
        }
    }

    /// Stops a timer, if it runs.
    pub(super) fn cancel(&mut self, session: SessionId, timer: Timer) {
        self.cancel_all(session, &[timer]);
    }

    /// Stops those that run.
    pub(super) fn cancel_all(&mut self, session: SessionId, timers: &[Timer]) {
        let Some(running) = self.running.get_mut(&session) else { return };
        // Mostly none of them runs.
        if !running.timers.iter().any(|(_, known)| timers.contains(known)) {
            return;
        }
        self.next = None;
        running.timers.retain(|(_, known)| !timers.contains(known));
        if running.timers.is_empty() {
            self.queue.remove(&(running.queued, session));
            self.running.remove(&session);
        }
    }

    /// Those of a session.
    pub(super) fn of(&self, session: SessionId) -> &[(Time, Timer)] {
        self.running.get(&session).map_or(&[], |running| &running.timers)
    }

    /// Sessions whose turn comes by then, or may come, in that order.
    pub(super) fn queued(&self, until: Time) -> impl Iterator<Item = SessionId> {
        self.queue.iter().take_while(move |(at, _)| *at <= until).map(|(_, session)| *session)
    }

    /// For [`super::Engine::look_ahead`].
    pub(super) fn glance(&self, session: SessionId) -> usize {
        self.of(session).iter().map(|(at, _)| at.as_micros() as usize).fold(0, |one, other| one ^ other)
    }

    /// Takes those of a session out, to be kept elsewhere: all but the moment of the first one goes.
    pub(super) fn put_away(&mut self, session: SessionId) -> Vec<(Time, Timer)> {
        let Some(running) = self.running.remove(&session) else { return Vec::new() };
        self.next = None;
        self.gather();
        self.queue.remove(&(running.queued, session));
        if let Some((at, _)) = running.first() {
            self.queue.insert((at, session));
        }
        running.timers
    }

    /// Takes them back.
    pub(super) fn bring_back(&mut self, session: SessionId, timers: Vec<(Time, Timer)>) {
        if let Some((queued, _)) = timers.iter().min().copied() {
            self.next = None;
            self.gather();
            // It stands there already.
            self.queue.insert((queued, session));
            self.running.insert(session, Running { queued, timers });
        }
    }

    /// A session's were never here, and its first one is due then. Where many are put back, they are sorted once.
    pub(super) fn put_back(&mut self, session: SessionId, first: Option<Time>) {
        self.next = None;
        self.back.extend(first.map(|at| (at, session)));
    }

    fn gather(&mut self) {
        if !self.back.is_empty() {
            let mut back = std::mem::take(&mut self.back).into_iter().collect();
            self.queue.append(&mut back);
        }
    }

    /// Makes room for so many that are put back.
    pub(super) fn reserve(&mut self, more: usize) {
        self.back.reserve(more);
    }

    /// Sessions whose timers were put away, and one of them is due.
    pub(super) fn away(&mut self, now: Time) -> Vec<SessionId> {
        self.gather();
        let due = self.queue.iter().take_while(|(at, _)| *at <= now).map(|(_, session)| *session);
        due.filter(|session| !self.running.contains_key(session)).collect()
    }

    /// Forgets that those of a session are anywhere.
    pub(super) fn lose(&mut self, session: SessionId) {
        self.next = None;
        self.gather();
        self.queue.retain(|(_, one)| *one != session);
    }

    /// When the first one is due.
    pub(super) fn next(&mut self) -> Option<Time> {
        if self.next.is_none() {
            self.next = Some(self.first().map(|(at, _)| at));
        }
        self.next.flatten()
    }

    /// Takes the first one that is due by `now`; one that was put away stays where it is.
    pub(super) fn pop(&mut self, now: Time) -> Option<Due> {
        let (_, due) = self.first().filter(|(at, _)| *at <= now)?;
        if let Due::Timer(key) = due {
            self.cancel(key.session, key.timer);
        }
        Some(due)
    }

    /// The first one; sessions whose turn has come too early are put back.
    fn first(&mut self) -> Option<(Time, Due)> {
        self.gather();
        loop {
            let (queued, session) = *self.queue.first()?;
            let Some(running) = self.running.get_mut(&session) else { return Some((queued, Due::Away(session))) };
            let (at, timer) = running.first()?;
            if at == queued {
                return Some((at, Due::Timer(Key { session, timer })));
            }
            self.queue.pop_first();
            self.queue.insert((at, session));
            running.queued = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Timers {
        fn pop_key(&mut self, now: Time) -> Option<Key> {
            match self.pop(now)? {
                Due::Timer(key) => Some(key),
                Due::Away(session) => panic!("{session:?} is away"),
            }
        }
    }

    #[test]
    fn a_timer_that_is_moved_fires_once_and_ties_keep_their_order() {
        let at = Time::from_micros;
        let mut timers = Timers::default();
        timers.set(SessionId(2), Timer::Act, at(5));
        timers.set(SessionId(1), Timer::Act, at(9));
        timers.set(SessionId(1), Timer::Act, at(5));
        timers.set(SessionId(3), Timer::Act, at(1));
        timers.cancel(SessionId(3), Timer::Act);
        timers.set(SessionId(2), Timer::Expired, at(2));
        timers.set(SessionId(2), Timer::Expired, at(7));
        assert_eq!(timers.next(), Some(at(5)));
        assert_eq!(timers.pop_key(at(4)), None);
        assert_eq!(timers.pop_key(at(5)).map(|key| key.session), Some(SessionId(1)));
        assert_eq!(timers.pop_key(at(5)).map(|key| key.session), Some(SessionId(2)));
        assert_eq!(timers.pop_key(at(6)), None);
        assert_eq!(timers.pop_key(at(99)).map(|key| key.timer), Some(Timer::Expired));
        assert_eq!((timers.pop_key(at(99)), timers.next()), (None, None));
    }

    #[test]
    fn what_need_not_be_done_to_the_moment_is_done_later_and_together_and_never_much_of_it() {
        let at = |millis: u64| Time::from_micros(millis * 1_000);
        let mut together = Together::default();
        let moments: Vec<Time> = [1, 3_999, 4_000, 4_001, 9_000].map(|millis| together.not_before(at(millis))).into();
        assert_eq!(moments, [4_000, 4_000, 4_000, 8_000, 12_000].map(at));
        let moments: Vec<Time> = (20_001..20_101).map(|millis| together.not_before(at(millis))).collect();
        assert_eq!(moments.iter().filter(|moment| **moment == at(24_000)).count(), AT_ONCE as usize);
        assert_eq!(moments.last(), Some(&at(20_100)), "the rest come one by one");
        assert_eq!(together.not_before(at(24_001)), at(28_000));
    }

    #[test]
    fn of_timers_that_are_put_away_the_first_moment_counts_and_nothing_else() {
        let (at, session) = (Time::from_micros, SessionId(1));
        let mut timers = Timers::default();
        timers.set_all(session, [(Timer::Act, at(5)), (Timer::Expired, at(9))]);
        // Put off: it stands in the queue too early.
        timers.set(session, Timer::Act, at(7));
        let away = timers.put_away(session);
        assert_eq!((timers.next(), timers.pop(at(6)), timers.of(session)), (Some(at(7)), None, &[][..]));
        assert_eq!((timers.pop(at(7)), timers.pop(at(7))), (Some(Due::Away(session)), Some(Due::Away(session))));
        timers.bring_back(session, away);
        assert_eq!(timers.pop_key(at(7)).map(|key| key.timer), Some(Timer::Act));
        assert_eq!((timers.pop(at(8)), timers.next()), (None, Some(at(9))));
        timers.put_away(session);
        timers.lose(session);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn of_those_that_are_put_back_the_first_moment_counts_whatever_is_set_meanwhile() {
        let at = Time::from_micros;
        let mut timers = Timers::default();
        timers.put_back(SessionId(1), Some(at(9)));
        timers.set(SessionId(2), Timer::Act, at(8));
        timers.put_back(SessionId(3), Some(at(7)));
        timers.put_back(SessionId(4), None);
        assert_eq!((timers.next(), timers.away(at(8))), (Some(at(7)), vec![SessionId(3)]));
        timers.put_back(SessionId(5), Some(at(6)));
        timers.bring_back(SessionId(5), vec![(at(6), Timer::Act)]);
        assert_eq!(timers.pop_key(at(6)).map(|key| key.session), Some(SessionId(5)));
        timers.lose(SessionId(3));
        assert_eq!(timers.pop_key(at(8)).map(|key| key.session), Some(SessionId(2)));
        assert_eq!(timers.pop(at(9)), Some(Due::Away(SessionId(1))));
    }
}
