//! Refreshing in the server's name: whether, how and when. One [`Cycle`] goes from the moment at which sipst has to act to
//! the next 2xx, or to the end of the interval.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use st_ebpf::cseq::State;

use super::{
    Mode,
    breach::Terms,
    dialog::Dialog,
    errand::ARM_PATIENCE,
    limits::{MAX_ATTEMPTS, MAX_MOVED, MAX_OWN, MAX_WAITS},
    own::Own,
    reason,
    record::words,
    shared::Shared,
    target::Target,
    timers::Timer,
};
use crate::{
    Action, By, Event, EventKind, Method, Policy, Refusal, Rules, Side, Time, build,
    digest::Answer,
    message::{MethodName, Role},
};

/// When to ask again where the kernel cannot take more numbers for now.
const RANGES_PAUSE: Duration = Duration::from_secs(4);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// Nothing to do, or nothing that can be done.
    #[default]
    Idle,
    /// For its turn ([`super::gate`]).
    Queued,
    /// [`crate::Output::Arm`] is out.
    Arming,
    /// A request is out, with this token.
    Sent(u64),
    /// For [`Timer::Retry`].
    Waiting,
}

/// One try at keeping the session alive.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Cycle {
    /// Which one: what answers an older one decides nothing any more.
    pub(super) serial: u64,
    pub(super) stage: Stage,
    /// Whether the moment to act has come.
    pub(super) active: bool,
    /// When that was, until the first request of the cycle has left.
    #[serde(skip)]
    pub(super) due: Option<Time>,
    /// Whether [`EventKind::RefreshFailed`] was told.
    pub(super) failed: bool,
    /// Why it has not been done yet.
    #[serde(deserialize_with = "words::with_status")]
    pub(super) why: Option<(&'static str, Option<u16>)>,
    /// Requests so far.
    pub(super) attempts: u32,
    /// Whether packets were lost before it began, so that the dialog may be over.
    pub(super) unsure: bool,
    /// Whether another number was tried because of that.
    pub(super) tried_number: bool,
    /// Times that the number had moved.
    moved: u32,
    /// Times that there was a pause for trouble, the peer's or this host's.
    pub(super) waits: u32,
    /// Whether the last UPDATE had no answer: a re-INVITE is next, if there can be one.
    pub(super) prefer_invite: bool,
    /// Whether an UPDATE was turned down.
    pub(super) no_update: bool,
    /// Whether it was told that the server's media are silent.
    pub(super) silent: bool,
    /// When the turn that it waits for would come too late.
    pub(super) turn_ends: Option<Time>,
    /// Whether it was told that the trunk's breaker holds it back.
    pub(super) suspended: bool,
    /// For the next request that leaves, if it has this method and Request-URI.
    pub(super) answers: Option<(MethodName, Vec<u8>, Vec<Answer>)>,
}

impl Cycle {
    /// For [`super::Engine::look_ahead`].
    pub(super) fn glance(&self) -> usize {
        self.serial as usize
            ^ self.attempts as usize
            ^ usize::from(self.why.is_some() ^ self.due.is_some() ^ self.failed)
    }

    /// Whether something is being done, or will be.
    pub(super) const fn is_on(&self) -> bool {
        self.active && !self.failed
    }

    /// A fresh one.
    pub(super) fn after(before: &Self) -> Self {
        Self { serial: before.serial + 1, ..Self::default() }
    }

    /// A fresh one in the same interval, which has its share of requests however often one is begun.
    pub(super) fn anew(before: &Self) -> Self {
        Self { attempts: before.attempts, ..Self::after(before) }
    }
}

impl Dialog {
    /// The moment to act has come.
    pub(super) fn begin(&mut self, sx: &mut Shared) {
        if !self.cycle.active {
            self.cycle.active = true;
            self.cycle.due = Some(sx.now);
            self.cycle.unsure = self.may_be_over(sx);
            self.attempt(sx);
        }
    }

    /// Why nothing may be sent at all, which may have turned out since the cycle began.
    pub(super) fn forbidden(&self, sx: &Shared) -> Option<&'static str> {
        let held = self.held.then_some(reason::HELD);
        held.or_else(|| self.is_out_of_reach(sx))
            .or(self.barred)
            .or(self.relayed.then_some(reason::RELAYED))
            .or_else(|| self.may_be_joined(sx))
    }

    /// Why nothing may be sent just now (R26, R27, R28).
    fn obstacle(&self, sx: &Shared) -> Option<&'static str> {
        if !self.is_confirmed(sx) {
            return Some(reason::NOT_CONFIRMED);
        }
        if let Some(open) = self.exchanges.open(sx.now) {
            return Some(if open.method == MethodName::Invite {
                reason::INVITE_IN_PROGRESS
            } else {
                reason::REQUEST_IN_PROGRESS
            });
        }
        if self.is_inviting() {
            return Some(reason::INVITE_IN_PROGRESS);
        }
        if self.others.is_one_missed(sx.now) {
            return Some(reason::REQUEST_IN_PROGRESS);
        }
        if self.others.is_open(sx.now) && self.session.expiring_at().is_some_and(|last| sx.now < last) {
            return Some(reason::REQUEST_IN_PROGRESS);
        }
        (self.own.len() >= MAX_OWN).then_some(reason::TOO_MANY_REQUESTS)
    }

    /// Sends a refresh, or sees to it that it is tried again.
    pub(super) fn attempt(&mut self, sx: &mut Shared) {
        let cycle = &self.cycle;
        let Some(end) = self.session.end().filter(|_| cycle.active && !cycle.failed && !self.is_over()) else { return };
        if sx.now >= end {
            return;
        }
        let policy = Arc::clone(&sx.policy);
        if sx.now.since(self.started) > policy.max_session {
            return self.bar(sx, reason::MAX_SESSION);
        }
        if sx.mode == Mode::Replay {
            return;
        }
        let Some((_, hop)) = self.way(sx, &policy, self.numbers.fresh()) else { return };
        sx.timers.cancel(self.id, Timer::Retry);
        if !sx.gate.has_leave(self.id) {
            return self.queue(sx, &policy);
        }
        self.cycle.stage = Stage::Arming;
        sx.timers.set(self.id, Timer::Armed, sx.now + ARM_PATIENCE);
        self.arm(sx, Side::Server, hop, self.watched_flows(), false);
    }

    /// [`crate::Command::Armed`]
    pub(super) fn armed(&mut self, sx: &mut Shared, result: Result<State, Refusal>) {
        if result.is_ok() {
            self.follow(sx, Side::Server);
        }
        if self.cycle.stage != Stage::Arming {
            return;
        }
        sx.timers.cancel(self.id, Timer::Armed);
        self.cycle.stage = Stage::Idle;
        let state = match result {
            Ok(state) => {
                if self.numbers.misses(state) {
                    self.others.missed(sx.now);
                }
                self.numbers.reconcile(state)
            }
            Err(refusal) => return self.refused(sx, refusal),
        };
        // A request of the server's from before the entry may have been lost meanwhile: its number is then not known.
        self.cycle.unsure |= self.may_be_over(sx);
        // What had been on its way when the numbers were read may have changed everything.
        if self.session.end().is_none_or(|end| sx.now >= end) {
            return self.leave_queue(sx);
        }
        let policy = Arc::clone(&sx.policy);
        let Some((method, hop)) = self.way(sx, &policy, state) else { return };
        if self.is_silent(sx) {
            return self.hold_back(sx);
        }
        self.cycle.silent = false;
        let (_, rules, _) = self.rules(&policy);
        self.send(sx, rules, method, hop, state);
    }

    /// How a refresh goes with the numbers at `state`: its method and its next hop. `None` where it cannot be just now, or
    /// not at all; what follows from that is seen to.
    fn way(&mut self, sx: &mut Shared, policy: &Policy, state: State) -> Option<(MethodName, SocketAddr)> {
        let (_, rules, peers) = self.rules(policy);
        if let Some(why) = self.forbidden(sx) {
            self.fail(sx, why, None);
        } else if rules.action != Action::Refresh {
            self.fail(sx, reason::POLICY, None);
        } else if let Some(why) = self.obstacle(sx) {
            self.postpone(sx, why);
        } else if self.target.is_none() {
            self.fail(sx, reason::NO_TARGET, None);
        } else if let Some(hop) = self.hop(peers) {
            if self.cycle.attempts >= MAX_ATTEMPTS {
                self.fail(sx, reason::TOO_MANY_ATTEMPTS, self.cycle.why.and_then(|(_, status)| status));
            } else if let Some(method) = self.choose(sx, rules, hop) {
                if self.has_room(sx, state) {
                    return Some((method, hop));
                }
                self.no_room(sx);
            } else {
                self.no_method(sx);
            }
        } else {
            self.fail(sx, reason::NO_HOP, None);
        }
        None
    }

    /// UPDATE or re-INVITE (R21, R22); `None` where neither will do.
    pub(super) fn choose(&self, sx: &Shared, rules: &Rules, hop: SocketAddr) -> Option<MethodName> {
        let ways = sx.ways(hop);
        let no_update = ways.no_update || self.cycle.no_update;
        let update = !no_update
            && match rules.method {
                Method::Auto => self.peer_update == Some(true),
                Method::Update => true,
                Method::Reinvite => false,
            };
        let invite = rules.method != Method::Update && !ways.moves_media && self.replay_is_safe();
        let last_resort = rules.method == Method::Auto && !no_update && self.peer_update.is_none();
        match (update, invite) {
            (true, true) if self.cycle.prefer_invite || ways.silent_update => Some(MethodName::Invite),
            (true, _) => Some(MethodName::Update),
            (false, true) => Some(MethodName::Invite),
            (false, false) => last_resort.then_some(MethodName::Update),
        }
    }

    /// Whether a re-INVITE with the server's last SDP would leave everything as it is (F8, F11, F22).
    fn replay_is_safe(&self) -> bool {
        let Some(server) = self.server_media() else { return false };
        let Some(peer) = self.peer_media() else { return !server.has_image() };
        !server.has_image() && !peer.has_image() && !peer.hold_would_be_lifted_by(&server)
    }

    /// Whether a re-INVITE can follow an UPDATE that has no answer.
    pub(super) fn can_fall_back(&self, sx: &Shared, rules: &Rules, hop: SocketAddr) -> bool {
        rules.method == Method::Auto && !sx.ways(hop).moves_media && self.replay_is_safe()
    }

    /// For good where the server's own requests say so; where it has sent none, its first may be written wider.
    fn no_room(&mut self, sx: &mut Shared) {
        if self.numbers.is_known() {
            self.bar(sx, reason::CSEQ_ROOM);
        } else {
            self.fail(sx, reason::CSEQ_ROOM, None);
        }
    }

    pub(super) fn has_room(&self, sx: &Shared, state: State) -> bool {
        self.numbers.has_room(state, sx.servers.get(&self.names.server).copied())
    }

    fn send(&mut self, sx: &mut Shared, rules: &Rules, method: MethodName, hop: SocketAddr, state: State) {
        let Some(target) = &self.target else { return };
        let (id, now, number) = (self.id, sx.now, state.next_injected());
        let token = sx.token(id);
        let terms = self.terms(sx, rules);
        let answers = self
            .cycle
            .answers
            .clone()
            .filter(|(signed, uri, _)| *signed == method && *uri == target.path().uri)
            .map(|(_, _, answers)| answers)
            .unwrap_or_default();
        let bytes = self.compose(target, method, token, number, terms, &answers);
        let fallback = (method == MethodName::Update && self.can_fall_back(sx, rules, hop)).then(|| self.patience(now));
        self.cycle.stage = Stage::Sent(token);
        self.cycle.attempts += 1;
        let ack = (method == MethodName::Invite).then(|| {
            let token = sx.token(id);
            (token, self.ack_2xx(target, number, token, &answers))
        });
        let mut own = Own::new(token, self.cycle.serial, method, number, hop, terms).with_bytes(bytes, answers);
        if let Some((token, bytes)) = ack {
            own = own.with_ack(token, bytes);
        }
        own.start(sx, id, now, fallback);
        sx.gate.spend(now, id);
        self.inject_first(sx, &own, state);
        self.own.push(own);
    }

    /// What a request of ours says about session timers (R17, R18).
    pub(super) fn terms(&self, sx: &Shared, rules: &Rules) -> Terms {
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        let least = seconds(rules.min_se);
        let min_se = self.min_se.unwrap_or(0).max(least);
        let current = self.session.agreed.map_or_else(|| seconds(rules.session_expires), |agreed| agreed.interval);
        if let Some(assumed) = self.hands_off(sx, rules) {
            return Terms {
                timer: false,
                interval: Some(current.min(assumed).max(min_se)),
                refresher: None,
                min_se: Some(min_se),
            };
        }
        let interval = Some(current.max(min_se));
        Terms { timer: true, interval, refresher: Some(Role::Uac), min_se: Some(min_se) }
    }

    /// A request of ours; a re-INVITE where there is an SDP for it.
    pub(super) fn compose(
        &self,
        target: &Target,
        method: MethodName,
        token: u64,
        number: u32,
        terms: Terms,
        answers: &[Answer],
    ) -> Vec<u8> {
        let (sent_by, own) = (target.sent_by(self.names.server), self.look.own());
        let template = self.template(target.path(), &sent_by, &own);
        let interval_s = terms.interval.unwrap_or_default();
        let (refreshes, min_se) = (terms.timer, terms.min_se);
        let refresh = build::Refresh { cseq: number, token, interval_s, refreshes, min_se, answers };
        match (method, &self.sdp) {
            (MethodName::Invite, Some(sdp)) => build::reinvite(&template, &refresh, &sdp.content_type, &sdp.bytes),
            _ => build::update(&template, &refresh),
        }
    }

    /// How long an UPDATE may be without an answer before a re-INVITE follows.
    pub(super) fn patience(&self, now: Time) -> Duration {
        let left = [self.session.peers_turn(), self.session.deadline(), self.session.end()]
            .into_iter()
            .flatten()
            .map(|at| at.since(now))
            .find(|left| !left.is_zero())
            .unwrap_or_default();
        super::timers::TRANSACTION.min(left / 3)
    }

    /// The driver or the kernel would not send.
    pub(super) fn refused(&mut self, sx: &mut Shared, refusal: Refusal) {
        match refusal {
            Refusal::Moved if self.cycle.moved < MAX_MOVED => {
                self.cycle.moved += 1;
                self.attempt(sx);
            }
            Refusal::Moved => {
                self.cycle.moved = 0;
                self.postpone(sx, refusal.reason());
            }
            Refusal::Ranges => self.later(sx, (refusal.reason(), None), RANGES_PAUSE),
            Refusal::ServerGone | Refusal::Translated | Refusal::Identifiers => self.bar(sx, refusal.reason()),
            // A route that flaps, a queue that is full, a server that is busy: it may pass, and the interval is long.
            Refusal::ServerHangs
            | Refusal::Unattached
            | Refusal::MapFull
            | Refusal::Send
            | Refusal::TcpUnproven
            | Refusal::TcpBusy
                if self.cycle.waits < MAX_WAITS =>
            {
                let left = self.session.end().map(|end| end.since(sx.now)).unwrap_or_default();
                let delay = self.trouble().min(left / 8);
                self.later(sx, (refusal.reason(), None), delay);
            }
            Refusal::ServerHangs
            | Refusal::Unattached
            | Refusal::MapFull
            | Refusal::TooLong
            | Refusal::Send
            | Refusal::TcpUnproven
            | Refusal::TcpBusy
            | Refusal::TcpInPieces
            | Refusal::TcpMixed
            | Refusal::TcpClosed
            | Refusal::TcpNoSocket
            | Refusal::TcpUnattached => {
                self.fail(sx, refusal.reason(), None);
            }
        }
    }

    /// R31: it is put off, not dropped.
    pub(super) fn later(&mut self, sx: &mut Shared, why: (&'static str, Option<u16>), delay: Duration) {
        self.leave_queue(sx);
        self.cycle.stage = Stage::Waiting;
        self.cycle.why = Some(why);
        sx.timers.set(self.id, Timer::Retry, sx.now + delay);
    }

    /// The same for something that is no answer of the peer's: what that was stays what is told in the end.
    fn postpone(&mut self, sx: &mut Shared, why: &'static str) {
        let why = self.cycle.why.filter(|(_, status)| status.is_some()).unwrap_or((why, None));
        self.later(sx, why, self.session.pause());
    }

    /// [`Timer::Armed`]: the driver has not answered.
    pub(super) fn arm_again(&mut self, sx: &mut Shared) {
        if self.cycle.stage == Stage::Arming {
            self.postpone(sx, reason::NO_NUMBERS);
        }
    }

    /// Why nothing is sent in this dialog any more.
    pub(super) fn bar_for(&mut self, reason: &'static str) {
        self.barred = Some(reason);
    }

    /// Nothing is sent in this dialog any more.
    pub(super) fn bar(&mut self, sx: &mut Shared, reason: &'static str) {
        self.bar_for(reason);
        self.fail(sx, reason, None);
    }

    fn no_method(&mut self, sx: &mut Shared) {
        match self.cycle.why {
            Some((why, status @ Some(_))) => self.fail(sx, why, status),
            Some((_, None)) | None => self.fail(sx, reason::NO_METHOD, None),
        }
    }

    /// Nothing is sent any more in this interval.
    pub(super) fn fail(&mut self, sx: &mut Shared, reason: &'static str, status: Option<u16>) {
        if self.cycle.failed {
            return;
        }
        self.cycle.failed = true;
        self.leave_queue(sx);
        self.cycle.stage = Stage::Idle;
        for timer in [Timer::Retry, Timer::Armed] {
            sx.timers.cancel(self.id, timer);
        }
        let method = self.own.last().filter(|own| own.serial == self.cycle.serial).map(|own| own.method.name());
        let reason = Some(reason.into());
        let event = Event { method, status, reason, ..self.due_event(sx, EventKind::RefreshFailed, By::Sipst) };
        self.tell(sx, event);
        self.tell_risk(sx, false);
    }

    /// The interval has run out.
    pub(super) fn give_up(&mut self, sx: &mut Shared) {
        if !self.cycle.active {
            return;
        }
        if sx.mode == Mode::Replay && (self.cycle.attempts == 0 || self.is_partial(sx)) {
            return;
        }
        if matches!(self.cycle.stage, Stage::Sent(_)) {
            self.came_to_nothing(sx);
        }
        let (why, status) = self.cycle.why.unwrap_or((reason::NO_ANSWER, None));
        self.fail(sx, why, status);
        self.hush(sx);
    }
}
