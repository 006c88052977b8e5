//! What an operator sees of the sessions, and what they may ask for in one of them.

use std::sync::Arc;

use serde::Serialize;

use super::{
    Dialogs, Engine,
    dialog::Dialog,
    limits::MAX_ATTEMPTS,
    packed::{Entry, LEAST_QUIET},
    reason,
    refresh::{Cycle, Stage},
    shared::Shared,
    timers::Timer,
};
use crate::{Action, By, Event, EventKind, Names, Policy, SessionId, Side, Time, message::MethodName};

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// No session timer was agreed upon, and none is assumed: it never runs out.
    Untimed,
    /// One was, and it is not acted upon: shorter than `interval_floor`.
    Ignored,
    /// Nobody has to act yet.
    Running,
    /// sipst is refreshing it: its refresh waits for its turn, for a number or for its answer.
    Refreshing,
    /// Somebody should have acted.
    Overdue,
    /// The peer may hang up soon.
    Expiring,
    /// The interval has run out.
    Expired,
    /// It is over, and only copies are waited for.
    Ended,
}

impl Standing {
    /// All of them, in the order of danger.
    pub const ALL: [Self; 8] = [
        Self::Untimed,
        Self::Ignored,
        Self::Running,
        Self::Refreshing,
        Self::Overdue,
        Self::Expiring,
        Self::Expired,
        Self::Ended,
    ];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Untimed => "untimed",
            Self::Ignored => "ignored",
            Self::Running => "running",
            Self::Refreshing => "refreshing",
            Self::Overdue => "overdue",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::Ended => "ended",
        }
    }
}

/// One session.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Which one.
    pub session: SessionId,
    /// Its identifiers and addresses.
    pub names: &'a Arc<Names>,
    /// Its trunk, `default` where none covers it.
    pub trunk: &'a str,
    /// What is done about it.
    pub action: Action,
    /// Where it stands.
    pub state: Standing,
    /// Who called.
    pub caller: Side,
    /// When it began, or was first seen.
    pub started: Time,
    /// When it was last heard of.
    pub heard: Time,
    /// The session interval in seconds.
    pub interval_s: Option<u32>,
    /// What is assumed, in seconds: no timer was negotiated, and the moments are by that.
    pub assumed_s: Option<u32>,
    /// Who must refresh.
    pub refresher: Option<Side>,
    /// When the interval began.
    pub since: Option<Time>,
    /// When somebody has to act, or should have.
    pub act: Option<Time>,
    /// When the peer may hang up.
    pub deadline: Option<Time>,
    /// When the interval runs out.
    pub expires: Option<Time>,
    /// Whether sipst was told to keep its hands off it.
    pub held: bool,
    /// Whether this host only passes it on.
    pub relayed: bool,
    /// Whether its INVITE was not seen.
    pub mid_call: bool,
    /// Whether it may be over without that having been seen.
    pub unsure: bool,
    /// Whether a refresh of sipst's has succeeded in it.
    pub proven: bool,
}

/// Why what an operator asks for is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Denial {
    #[error("there is no such call any more")]
    Gone,
    #[error("the call is over")]
    Over,
    #[error("the call has no session timer that could be refreshed")]
    Untimed,
    #[error("the interval has run out; nothing that is sent now would change that")]
    Expired,
    #[error("the peer has to refresh this call, and sipst never refreshes for the peer")]
    PeerRefreshes,
    #[error("the trunk's `action` is `{0}`: nothing is ever sent there; set `action: refresh` and `sipst reload`")]
    Action(&'static str),
    #[error("sipst was told to keep its hands off this call; `sipst release` ends that")]
    Held,
    #[error("it is being refreshed already")]
    UnderWay,
    /// One of the reasons in events.
    #[error("nothing can be sent in this call: {0}")]
    Barred(&'static str),
    #[error("it is held already")]
    HeldAlready,
    #[error("it is not held")]
    NotHeld,
}

impl Denial {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Over => "over",
            Self::Untimed => "untimed",
            Self::Expired => "expired",
            Self::PeerRefreshes => "peer_refreshes",
            Self::Action(_) => reason::POLICY,
            Self::Held => reason::HELD,
            Self::UnderWay => "under_way",
            Self::Barred(reason) => reason,
            Self::HeldAlready => "held_already",
            Self::NotHeld => "not_held",
        }
    }
}

/// What an operator may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A refresh now, by the same rules as one that is due.
    Refresh,
    /// Nothing more is to be sent in the call.
    Hold,
    /// The end of that.
    Release,
}

impl Engine {
    /// Shows sessions in the order of their age from `from` on, `most` of them or as long as `show` says true. Returns where to
    /// go on; `None` at the end.
    pub fn sessions(
        &self,
        now: Time,
        from: SessionId,
        most: usize,
        mut show: impl FnMut(View<'_>) -> bool,
    ) -> Option<SessionId> {
        let mut rest = self.dialogs.keys.range(from..);
        for _ in 0..most {
            let (session, key) = rest.next()?;
            if self.dialogs.see(&key).is_some_and(|dialog| !show(dialog.view(&self.sx, now))) {
                return Some(SessionId(session.0.saturating_add(1)));
            }
        }
        rest.next().map(|(session, _)| session)
    }

    /// Shows one.
    pub fn session<T>(&self, now: Time, session: SessionId, show: impl FnOnce(View<'_>) -> T) -> Option<T> {
        let dialog = self.dialogs.see(&self.dialogs.keys.get(session)?)?;
        Some(show(dialog.view(&self.sx, now)))
    }

    /// The method by which sipst would refresh a session now, or one of the reasons in events for which it would not.
    pub fn outlook(&self, now: Time, session: SessionId) -> Option<Result<MethodName, &'static str>> {
        let dialog = self.dialogs.see(&self.dialogs.keys.get(session)?)?;
        Some(dialog.outlook(&self.sx, now))
    }

    /// Does what an operator asks for in a session, or says why not.
    ///
    /// # Errors
    /// It cannot be done; nothing has changed.
    pub fn handle_wish(&mut self, now: Time, session: SessionId, wish: Wish) -> Result<(), Denial> {
        self.advance(now);
        let sx = &mut self.sx;
        let dialog = self.dialogs.of(sx, session).ok_or(Denial::Gone)?;
        let done = match wish {
            Wish::Refresh => dialog.refresh_now(sx),
            Wish::Hold => dialog.hold(sx),
            Wish::Release => dialog.release(sx),
        };
        dialog.mark(sx);
        self.give_turns();
        done
    }

    /// After [`Engine::set_policy`]: refreshes that the rules did not allow when they were due are due now, what they assume
    /// begins or ends, and marks, keep-alives and counts follow. Goes through `most` sessions from `from` on, and returns
    /// where to go on; `None` at the end. Sessions that are new need none of that.
    pub fn handle_policy(&mut self, now: Time, from: SessionId, most: usize) -> Option<SessionId> {
        self.advance(now);
        let (mut undone, mut assuming, mut quiet) = (Vec::new(), Vec::new(), Vec::new());
        let Dialogs { all, keys, census, packing, .. } = &mut self.dialogs;
        let mut rest = keys.range(from..);
        for (session, key) in rest.by_ref().take(most) {
            let Some(entry) = all.get_mut(&key) else { continue };
            let was_packed = matches!(entry, Entry::Packed(_));
            let Some(dialog) = packing.open(&mut self.sx, entry) else { continue };
            dialog.mark(&mut self.sx);
            census.touch(key, dialog);
            if dialog.would_assume_anew(&self.sx) {
                assuming.push(session);
            } else if dialog.is_undone(&self.sx) {
                undone.push(session);
            } else if was_packed {
                quiet.push(key);
            }
        }
        let next = rest.next().map(|(session, _)| session);
        drop(rest);
        for session in undone {
            if self.dialogs.of(&mut self.sx, session).is_some() {
                self.sx.timers.set(session, Timer::Act, now);
            }
        }
        for session in assuming {
            if let Some(dialog) = self.dialogs.of(&mut self.sx, session) {
                dialog.assume_anew(&mut self.sx);
            }
        }
        // Or a million of them would be open at once.
        self.dialogs.recount(&mut self.sx, now);
        for key in quiet {
            self.dialogs.pack(&mut self.sx, &key, LEAST_QUIET);
        }
        next
    }
}

impl Dialog {
    fn view<'a>(&'a self, sx: &'a Shared, now: Time) -> View<'a> {
        let (trunk, rules, _) = self.rules(&sx.policy);
        let agreed = self.session.agreed;
        View {
            session: self.id,
            names: &self.names,
            trunk,
            action: if self.relayed { Action::Observe } else { rules.action },
            state: self.standing(now),
            caller: self.caller,
            started: self.started,
            heard: self.heard,
            interval_s: agreed.map(|agreed| agreed.interval),
            assumed_s: self.session.assumed,
            refresher: agreed.map(|agreed| agreed.refresher),
            since: self.session.since(),
            act: self.session.act_at(),
            deadline: self.session.deadline(),
            expires: self.session.end(),
            held: self.held,
            relayed: self.relayed,
            mid_call: self.mid_call,
            unsure: self.may_be_over(sx),
            proven: self.proven,
        }
    }

    pub(super) fn standing(&self, now: Time) -> Standing {
        if self.is_over() {
            return Standing::Ended;
        }
        if self.session.refresher().is_none() {
            return Standing::Untimed;
        }
        let (Some(act), Some(end)) = (self.session.act_at(), self.session.end()) else { return Standing::Ignored };
        let passed = |moment: Option<Time>| moment.is_some_and(|moment| now >= moment);
        if now >= end {
            Standing::Expired
        } else if self.cycle.active && !self.cycle.failed {
            Standing::Refreshing
        } else if passed(self.session.expiring_at()) {
            Standing::Expiring
        } else if now >= act {
            Standing::Overdue
        } else {
            Standing::Running
        }
    }

    /// How a refresh would go now; the numbers are known for certain only when it is armed.
    fn outlook(&self, sx: &Shared, now: Time) -> Result<MethodName, &'static str> {
        let policy: &Policy = &sx.policy;
        let (_, rules, peers) = self.rules(policy);
        if let Some(why) = self.forbidden(sx) {
            return Err(why);
        }
        if rules.action != Action::Refresh {
            return Err(reason::POLICY);
        }
        if now.since(self.started) > policy.max_session {
            return Err(reason::MAX_SESSION);
        }
        if !self.is_confirmed(sx) {
            return Err(reason::NOT_CONFIRMED);
        }
        self.target.as_ref().ok_or(reason::NO_TARGET)?;
        let hop = self.hop(peers).ok_or(reason::NO_HOP)?;
        let method = self.choose(sx, rules, hop).ok_or(reason::NO_METHOD)?;
        if self.has_room(sx, self.numbers.fresh()) { Ok(method) } else { Err(reason::CSEQ_ROOM) }
    }

    fn refresh_now(&mut self, sx: &mut Shared) -> Result<(), Denial> {
        if self.is_over() {
            return Err(Denial::Over);
        }
        let (Some(refresher), Some(end)) = (self.session.refresher(), self.session.end()) else {
            return Err(Denial::Untimed);
        };
        if refresher == Side::Peer {
            return Err(Denial::PeerRefreshes);
        }
        if self.held {
            return Err(Denial::Held);
        }
        match self.action(sx) {
            _ if self.relayed => return Err(Denial::Barred(reason::RELAYED)),
            Action::Observe => return Err(Denial::Action("observe")),
            Action::Alert => return Err(Denial::Action("alert")),
            Action::Refresh => {}
        }
        if sx.now >= end {
            return Err(Denial::Expired);
        }
        if self.cycle.stage != Stage::Idle {
            return Err(Denial::UnderWay);
        }
        self.outlook(sx, sx.now).map_err(Denial::Barred)?;
        if self.cycle.attempts >= MAX_ATTEMPTS {
            return Err(Denial::Barred(reason::TOO_MANY_ATTEMPTS));
        }
        self.cycle = Cycle::anew(&self.cycle);
        let due = self.due_event(sx, EventKind::RefreshDue, By::Sipst);
        self.tell(sx, Event { reason: Some(reason::ASKED_FOR.into()), ..due });
        self.begin(sx);
        Ok(())
    }

    /// What is out goes its way, for an INVITE needs its ACK; nothing new is begun.
    fn hold(&mut self, sx: &mut Shared) -> Result<(), Denial> {
        if self.is_over() {
            return Err(Denial::Over);
        }
        if std::mem::replace(&mut self.held, true) {
            return Err(Denial::HeldAlready);
        }
        self.leave_queue(sx);
        sx.timers.cancel_all(self.id, &[Timer::Retry, Timer::Armed]);
        self.hush(sx);
        if !matches!(self.cycle.stage, Stage::Sent(_)) {
            self.cycle = Cycle::anew(&self.cycle);
        }
        let held = self.timed_event(sx, EventKind::SessionHeld);
        self.tell(sx, held);
        Ok(())
    }

    fn release(&mut self, sx: &mut Shared) -> Result<(), Denial> {
        if !std::mem::take(&mut self.held) {
            return Err(if self.is_over() { Denial::Over } else { Denial::NotHeld });
        }
        let released = self.timed_event(sx, EventKind::SessionReleased);
        self.tell(sx, released);
        if self.is_undone(sx) {
            sx.timers.set(self.id, Timer::Act, sx.now);
        }
        Ok(())
    }

    /// Whether a refresh was due, is not under way, and would be sent if it were due now.
    fn is_undone(&self, sx: &Shared) -> bool {
        let running = |(act, end): (Time, Time)| act <= sx.now && sx.now < end;
        !self.is_over()
            && !self.cycle.active
            && self.session.refresher() == Some(Side::Server)
            && self.session.act_at().zip(self.session.end()).is_some_and(running)
            && self.action(sx) == Action::Refresh
            && self.forbidden(sx).is_none()
    }
}
