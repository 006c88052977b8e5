//! A refresh waits for its turn, and what comes of it tells whether others are worth a try.

use std::{net::SocketAddr, sync::Arc};

use super::{
    breaker::BREAKER_DIALOGS,
    dialog::Dialog,
    gate::{Cause, Request},
    own::Own,
    reason,
    refresh::Stage,
    shared::Shared,
    timers::Timer,
};
use crate::{By, Event, EventKind, Output, Policy, message::MethodName};

impl Dialog {
    /// Queues for leave to send. The turn ends with the peer's deadline: a refresh that comes later would take the place of one
    /// that still helps. Once that is over, with the interval, which some peers wait for.
    pub(super) fn queue(&mut self, sx: &mut Shared, policy: &Policy) {
        let ends = || [self.session.deadline(), self.session.end()].into_iter().flatten().find(|by| *by > sx.now);
        let Some(by) = self.cycle.turn_ends.or_else(ends) else { return };
        if by <= sx.now {
            // It had been put off.
            return self.comes_too_late(sx);
        }
        self.cycle.turn_ends = Some(by);
        let (trunk, rules, _) = self.rules(policy);
        self.cycle.stage = Stage::Queued;
        sx.timers.set(self.id, Timer::TooLate, by);
        let (rate, overall) = (rules.refresh_rate, policy.refresh_rate);
        sx.gate.join(sx.now, Request { session: self.id, trunk, rate, overall, by, proven: self.proven });
    }

    /// After a restart: nobody has kept its place.
    pub(super) fn queue_again(&mut self, sx: &mut Shared) {
        if self.cycle.stage == Stage::Queued {
            self.cycle.turn_ends = None;
            let policy = Arc::clone(&sx.policy);
            self.queue(sx, &policy);
        }
    }

    /// Waits no longer, and gives back the leave that it has.
    pub(super) fn leave_queue(&mut self, sx: &mut Shared) {
        self.cycle.turn_ends = None;
        sx.timers.cancel(self.id, Timer::TooLate);
        sx.gate.leave(sx.now, self.id);
    }

    /// Its turn has come.
    pub(super) fn has_turn(&mut self, sx: &mut Shared) {
        if self.is_hanging_up() {
            return self.may_hang_up(sx);
        }
        self.cycle.turn_ends = None;
        sx.timers.cancel(self.id, Timer::TooLate);
        if self.cycle.stage == Stage::Queued {
            self.cycle.stage = Stage::Idle;
            self.attempt(sx);
        }
        if self.cycle.stage != Stage::Arming {
            self.leave_queue(sx);
        }
    }

    /// The queue is full: it asks again, for as long as its turn would last.
    pub(super) fn is_displaced(&mut self, sx: &mut Shared) {
        if self.is_hanging_up() {
            return self.hang_up_later(sx);
        }
        if self.cycle.stage == Stage::Queued {
            self.cycle.stage = Stage::Waiting;
            self.cycle.why = Some((reason::RATE_LIMITED, None));
            sx.timers.set(self.id, Timer::Retry, sx.now + self.session.pause());
        }
    }

    /// The trunk's breaker holds it back: this is as if there were no refreshing on the trunk.
    pub(super) fn is_suspended(&mut self, sx: &mut Shared) {
        if sx.gate.cause(sx.now, self.id) == Some(Cause::Breaker) && !std::mem::replace(&mut self.cycle.suspended, true)
        {
            let reason = Some(reason::BREAKER_OPEN.into());
            let event = Event { reason, ..self.due_event(sx, EventKind::RefreshOverdue, By::Server) };
            self.tell(sx, event);
        }
    }

    /// Why it waits for its turn; `None` where it does not.
    pub(super) fn waits_for(&self, sx: &Shared) -> Option<&'static str> {
        match sx.gate.cause(sx.now, self.id) {
            Some(Cause::Rate) => Some(reason::RATE_LIMITED),
            Some(Cause::Breaker) => Some(reason::BREAKER_OPEN),
            None => self.is_put_off().then_some(reason::RATE_LIMITED),
        }
    }

    fn is_put_off(&self) -> bool {
        self.cycle.stage == Stage::Waiting && self.cycle.why == Some((reason::RATE_LIMITED, None))
    }

    /// [`Timer::TooLate`]
    pub(super) fn comes_too_late(&mut self, sx: &mut Shared) {
        if let Some(why) = self.waits_for(sx) {
            sx.stats.too_late += 1;
            self.fail(sx, why, self.cycle.why.and_then(|(_, status)| status));
        }
    }

    /// A request that it had leave for has not left the host.
    pub(super) fn give_back(&self, sx: &mut Shared) {
        let policy = Arc::clone(&sx.policy);
        sx.gate.give_back(sx.now, self.rules(&policy).0, self.id);
    }

    // What came of it.

    /// A refresh of ours was answered by a 2xx.
    pub(super) fn came_through(&mut self, sx: &mut Shared) {
        self.proven = true;
        let policy = Arc::clone(&sx.policy);
        let trunk = self.rules(&policy).0;
        if sx.gate.succeeded(trunk) {
            tell(sx, trunk, EventKind::BreakerClosed, None);
        }
    }

    /// A refresh of ours had no answer, or one that says that whoever is there is in trouble.
    pub(super) fn came_to_nothing(&mut self, sx: &mut Shared) {
        if self.proven || sx.mode == super::Mode::Replay {
            return;
        }
        let policy = Arc::clone(&sx.policy);
        let trunk = self.rules(&policy).0;
        if sx.gate.failed(sx.now, trunk, self.id) {
            let why = format!("{}: of {BREAKER_DIALOGS} calls", reason::FIRST_REFRESHES_FAILED);
            tell(sx, trunk, EventKind::BreakerOpened, Some(why));
        }
    }

    /// A refresh of ours got this final response, which is no 2xx.
    pub(super) fn weigh(&mut self, sx: &mut Shared, method: MethodName, hop: SocketAddr, status: u16) {
        let update = method == MethodName::Update;
        match status {
            // F7: the method is not known, and another one follows.
            501 if update => {}
            // It may only have disliked the number; it is sent again at once.
            500 | 503 | 504 if self.cycle.unsure && !self.cycle.tried_number => {}
            // A proxy has waited in vain.
            408 if update && self.falls_back(sx, hop) => {}
            408 | 500..=599 => self.came_to_nothing(sx),
            // It is tried again as it is.
            401 | 407 | 422 | 491 => {}
            _ => self.says_nothing(sx),
        }
    }

    /// The peer has no such dialog, which says nothing of others.
    pub(super) fn concerns_itself(&mut self, sx: &mut Shared) {
        let policy = Arc::clone(&sx.policy);
        sx.gate.forget(sx.now, self.rules(&policy).0, self.id);
    }

    /// Whether a re-INVITE follows an UPDATE of ours that comes to nothing.
    pub(super) fn falls_back(&self, sx: &Shared, hop: SocketAddr) -> bool {
        let policy = Arc::clone(&sx.policy);
        self.can_fall_back(sx, self.rules(&policy).1, hop)
    }

    /// The dialog is over. Where nobody has said anything to a refresh of ours though it had time enough, that came to nothing:
    /// many peers hang up before it would be given up.
    pub(super) fn parts(&mut self, sx: &mut Shared) {
        self.leave_queue(sx);
        let of_cycle = |own: &Own| own.serial == self.cycle.serial && own.is_unheard();
        if self.cycle.active && self.own.iter().any(of_cycle) {
            self.came_to_nothing(sx);
        }
        self.says_nothing(sx);
    }

    /// What came of it says nothing of the trunk.
    fn says_nothing(&self, sx: &mut Shared) {
        let policy = Arc::clone(&sx.policy);
        sx.gate.passes(sx.now, self.rules(&policy).0, self.id);
    }
}

/// Tells what concerns a whole trunk.
fn tell(sx: &mut Shared, trunk: &str, kind: EventKind, reason: Option<String>) {
    let event = Event { trunk: Some(trunk.into()), reason: reason.map(Into::into), ..Event::new(sx.now, kind) };
    sx.output(Output::Event(event));
}
