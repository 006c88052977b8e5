//! Requests of sipst's own: copies, answers, ACK and CANCEL (R32, R33, R37).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use st_ebpf::cseq::State;

use super::{
    Mode,
    breach::Terms,
    dialog::Dialog,
    errand::Errand,
    limits::MAX_OWN,
    reason,
    record::Unrecorded,
    refresh::Stage,
    sdp::Said,
    session::Deal,
    shared::Shared,
    target::Target,
    timers::{T1, T2, TRANSACTION, Timer},
};
use crate::{
    By, Event, EventKind, Packet, ReadyAck, Refusal, SessionId, Side, Time, build,
    digest::Answer,
    message::{CSeq, Message, MethodName},
};

/// A request that has left so often without any answer will have none, more likely than not: after 3.5 s (T1, doubled).
const UNHEARD: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Progress {
    /// No response yet.
    Calling,
    /// A provisional one.
    Proceeding,
    /// A CANCEL is out; whether it still needs copies.
    Cancelling { repeat: bool },
    /// A final response, or the end of patience.
    Done,
}

/// An INVITE or UPDATE of ours.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Own {
    pub(super) token: u64,
    /// The cycle that sent it.
    pub(super) serial: u64,
    pub(super) method: MethodName,
    number: u32,
    hop: SocketAddr,
    /// What it says about session timers.
    pub(super) terms: Terms,
    /// Empty in replay.
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    answers: Vec<Answer>,
    progress: Progress,
    /// How often it was seen leaving.
    left: u32,
    /// When its final response came.
    finished: Option<Time>,
    answered: bool,
    /// The first 2xx was taken in.
    succeeded: bool,
    /// Until the next copy.
    wait: Duration,
    /// The ACK to its 2xx.
    ack: Option<Ack>,
}

/// The ACK to the 2xx of an INVITE of ours: made before the INVITE leaves, so that the driver can see to it that it is
/// sent even if nobody lives to do so.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ack {
    token: u64,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    /// Whether a 2xx has come: from then on every copy gets the same.
    sent: bool,
}

impl Own {
    /// One that was not seen leaving yet.
    pub(super) fn new(token: u64, serial: u64, method: MethodName, number: u32, hop: SocketAddr, terms: Terms) -> Self {
        Self {
            token,
            serial,
            method,
            number,
            hop,
            terms,
            bytes: Vec::new(),
            answers: Vec::new(),
            progress: Progress::Calling,
            left: 0,
            finished: None,
            answered: false,
            succeeded: false,
            wait: T1,
            ack: None,
        }
    }

    /// What is sent, and sent again; not known in replay.
    pub(super) fn with_bytes(self, bytes: Vec<u8>, answers: Vec<Answer>) -> Self {
        Self { bytes, answers, ..self }
    }

    /// Its token, and that of its ACK.
    pub(super) fn tokens(&self) -> impl Iterator<Item = u64> {
        [Some(self.token), self.ack.as_ref().map(|ack| ack.token)].into_iter().flatten()
    }

    /// What a 2xx gets, unless it leads elsewhere.
    pub(super) fn with_ack(self, token: u64, bytes: Vec<u8>) -> Self {
        Self { ack: Some(Ack { token, bytes, sent: false }), ..self }
    }

    /// The ACK as the driver keeps it.
    pub(super) fn ready_ack(&self) -> Option<ReadyAck> {
        self.ack.as_ref().map(|ack| ReadyAck { token: ack.token, bytes: ack.bytes.clone() })
    }

    /// Whether it answers a challenge.
    pub(super) fn is_signed(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Whether nobody has said anything to it though it was sent often enough to be heard.
    pub(super) const fn is_unheard(&self) -> bool {
        !self.answered && self.left >= UNHEARD
    }

    pub(super) const fn hop(&self) -> SocketAddr {
        self.hop
    }

    /// Whether a final response is still waited for.
    pub(super) fn is_open(&self) -> bool {
        self.progress != Progress::Done
    }

    /// Starts the timers of one that left at `at`; after `fallback` something else is tried beside it.
    pub(super) fn start(&self, sx: &mut Shared, session: SessionId, at: Time, fallback: Option<Duration>) {
        sx.timers.set(session, Timer::Retransmit(self.token), at + T1);
        sx.timers.set(session, Timer::GiveUp(self.token), at + TRANSACTION);
        if let Some(after) = fallback {
            sx.timers.set(session, Timer::Fallback(self.token), at + after);
        }
    }

    /// Takes it off the record.
    pub(super) fn retire(self, sx: &mut Shared, session: SessionId) {
        for timer in [Timer::Retransmit, Timer::Fallback, Timer::GiveUp, Timer::Retire] {
            sx.timers.cancel(session, timer(self.token));
        }
        sx.retire(self.token);
        if let Some(ack) = self.ack {
            sx.retire(ack.token);
        }
    }
}

impl Dialog {
    fn own_mut(&mut self, token: u64) -> Option<&mut Own> {
        self.own.iter_mut().find(|own| own.token == token)
    }

    /// Whether an INVITE of ours waits for its final response.
    pub(super) fn is_inviting(&self) -> bool {
        self.own.iter().any(|own| own.method == MethodName::Invite && own.is_open())
            || self.telling.as_ref().is_some_and(|telling| telling.is_open())
    }

    /// Asks for a message to be sent.
    pub(super) fn inject(&self, sx: &mut Shared, token: u64, hop: SocketAddr, bytes: &[u8]) {
        self.send_out(sx, &Errand { whose: Side::Server, hop, token, bytes }, None, None);
    }

    /// Asks for a request of ours to be sent for the first time.
    pub(super) fn inject_first(&self, sx: &mut Shared, own: &Own, state: State) {
        let Own { hop, token, bytes, .. } = own;
        let errand = Errand { whose: Side::Server, hop: *hop, token: *token, bytes };
        self.send_out(sx, &errand, Some(state), own.ready_ack());
    }

    /// A request of ours was seen leaving.
    pub(super) fn own_left(
        &mut self,
        sx: &mut Shared,
        packet: &Packet<'_>,
        token: u64,
        message: &Message<'_>,
        cseq: CSeq,
    ) {
        if !matches!(cseq.method, MethodName::Invite | MethodName::Update) {
            return;
        }
        if let Some(own) = self.own_mut(token).filter(|own| own.left > 0) {
            own.left = own.left.saturating_add(1);
            return;
        }
        if sx.mode == Mode::Replay && self.own_mut(token).is_none() && !self.is_over() {
            self.adopt(sx, packet, token, message, cseq);
        }
        self.tell_left(sx, token);
    }

    /// Replay: a request of ours in a capture is one of ours again.
    fn adopt(&mut self, sx: &mut Shared, packet: &Packet<'_>, token: u64, message: &Message<'_>, cseq: CSeq) {
        if self.own.len() >= MAX_OWN {
            self.own.remove(0).retire(sx, self.id);
        }
        let serial = self.cycle.serial;
        let own = Own::new(token, serial, cseq.method, cseq.number, packet.peer, Terms::of(message));
        sx.tokens.insert(token, self.id);
        sx.timers.set(self.id, Timer::GiveUp(token), sx.now + TRANSACTION);
        self.own.push(own);
        self.cycle.active = true;
        self.cycle.attempts += 1;
        self.cycle.stage = Stage::Sent(token);
    }

    /// A request of ours that left before anybody took it down is one of ours again. False: there is no room for it, or no way
    /// to the peer.
    pub(super) fn take_in(&mut self, sx: &mut Shared, found: Unrecorded) -> bool {
        let Unrecorded { token, number, at, reinvite } = found;
        // No refresh leaves so late: it is a BYE, whose answer nobody needs.
        if self.session.end().is_some_and(|end| at >= end) {
            return false;
        }
        let policy = Arc::clone(&sx.policy);
        let (_, rules, peers) = self.rules(&policy);
        let (Some(target), Some(_)) = (&self.target, self.session.refresher()) else { return false };
        let method = if reinvite.is_some() { MethodName::Invite } else { MethodName::Update };
        let hop = reinvite.as_ref().map(|(hop, _)| *hop).or_else(|| self.hop(peers));
        let Some(hop) = hop.filter(|_| self.own.len() < MAX_OWN) else { return false };
        let terms = self.terms(sx, rules);
        // As it was, but for answers to a challenge.
        let bytes = self.compose(target, method, token, number, terms, &[]);
        let mut own = Own::new(token, self.cycle.serial, method, number, hop, terms).with_bytes(bytes, Vec::new());
        (own.left, own.ack) = (1, reinvite.map(|(_, ReadyAck { token, bytes })| Ack { token, bytes, sent: false }));
        sx.tokens.extend(own.tokens().map(|token| (token, self.id)));
        sx.timers.cancel_all(self.id, &[Timer::Act, Timer::Retry, Timer::Armed]);
        let fallback = method == MethodName::Update && self.can_fall_back(sx, rules, hop);
        own.start(sx, self.id, at, fallback.then(|| self.patience(at)));
        self.own.push(own);
        self.cycle.active = true;
        self.cycle.attempts += 1;
        self.cycle.stage = Stage::Sent(token);
        self.session.missed = true;
        true
    }

    fn tell_left(&mut self, sx: &mut Shared, token: u64) {
        let Some(own) = self.own_mut(token) else { return };
        if own.left > 0 {
            return;
        }
        own.left = 1;
        let (method, signed) = (Some(own.method.name()), own.is_signed());
        if signed {
            // A nonce is not used twice.
            self.cycle.answers = None;
        }
        // Only now: what was under way at the moment to act may have kept the server from refreshing by itself.
        self.session.missed = true;
        let lag = self.cycle.due.take().map(|due| sx.now.since(due));
        let event = Event { method, lag, ..self.due_event(sx, EventKind::RefreshSent, By::Sipst) };
        self.tell(sx, event);
    }

    /// An answer to a request of ours.
    pub(super) fn own_answer(
        &mut self,
        sx: &mut Shared,
        packet: &Packet<'_>,
        token: u64,
        message: &Message<'_>,
        cseq: CSeq,
    ) {
        let (Some(status), id) = (message.status(), self.id) else { return };
        let Some(own) = self.own_mut(token) else {
            sx.stats.unknown_answers += 1;
            return;
        };
        // R43
        if own.hop.ip() != packet.peer.ip() {
            sx.stats.foreign_answers += 1;
            if cseq.method == own.method && status >= 200 {
                // Whoever answers from another address of its own would hang up without an ACK (R44); it goes to the hop.
                self.acknowledge(sx, token, message, status);
            }
            return;
        }
        if cseq.method == MethodName::Cancel {
            if status >= 200 && own.progress == (Progress::Cancelling { repeat: true }) {
                own.progress = Progress::Cancelling { repeat: false };
                sx.timers.cancel(id, Timer::Retransmit(token));
            }
            return;
        }
        if cseq.method != own.method {
            sx.stats.unknown_answers += 1;
            return;
        }
        own.answered = true;
        sx.has_answers = true;
        let first_success = !own.succeeded;
        match status {
            ..200 => {
                if own.progress == Progress::Calling {
                    own.progress = Progress::Proceeding;
                    own.wait = T2;
                    if own.method == MethodName::Invite {
                        sx.timers.cancel(id, Timer::Retransmit(token));
                    }
                }
            }
            200.. => {
                own.progress = Progress::Done;
                own.succeeded |= status < 300;
                for timer in [Timer::Retransmit, Timer::Fallback, Timer::GiveUp] {
                    sx.timers.cancel(id, timer(token));
                }
                // Copies may come for a transaction's time, and stragglers, but not for ever.
                let finished = *own.finished.get_or_insert(sx.now);
                let retire = (sx.now + TRANSACTION).min(finished + TRANSACTION * 2);
                sx.timers.set(id, Timer::Retire(token), sx.retiring.not_before(retire));
            }
        }
        self.hear_answer(sx, message);
        self.tell_left(sx, token);
        if status < 200 {
            return;
        }
        let contact = message.contact().map(|contact| contact.uri);
        let moved = self.target.as_ref().zip(contact).is_some_and(|(target, contact)| target.is_elsewhere(contact));
        if status < 300 && first_success {
            self.hear_aside(message, cseq.method);
        }
        self.acknowledge(sx, token, message, status);
        if self.is_over() {
            return;
        }
        if status < 300 && first_success {
            self.own_succeeded(sx, token, message, status, moved);
        } else if status >= 300 {
            self.turned_down(sx, token, message, status);
        }
    }

    /// Every final response to an INVITE is ACKed, copies too (R32, R33).
    fn acknowledge(&mut self, sx: &mut Shared, token: u64, message: &Message<'_>, status: u16) {
        let Some(at) = self.own.iter().position(|own| own.token == token && own.method == MethodName::Invite) else {
            return;
        };
        let hop = self.own[at].hop;
        if status >= 300 {
            let to = message.to().map(|to| to.value);
            if let Some(ack) = to.and_then(|to| build::ack_failure(&self.own[at].bytes, to)) {
                self.inject(sx, token, hop, &ack);
            }
            return;
        }
        let Some(Ack { token, bytes, sent }) = self.own[at].ack.take() else { return };
        let mut ack = Ack { token, bytes, sent: true };
        if !sent {
            // R24: the ACK goes to where the 2xx says that the peer is now.
            self.redirect(message.contact().map(|contact| contact.uri));
            if let Some(target) = &self.target {
                ack.bytes = self.ack_2xx(target, self.own[at].number, ack.token, &self.own[at].answers);
            }
        }
        self.inject(sx, ack.token, hop, &ack.bytes);
        self.own[at].ack = Some(ack);
    }

    /// The ACK to the 2xx of an INVITE of ours with that number.
    pub(super) fn ack_2xx(&self, target: &Target, number: u32, token: u64, answers: &[Answer]) -> Vec<u8> {
        let (sent_by, own) = (target.sent_by(self.names.server), self.look.own());
        build::ack_2xx(&self.template(target.path(), &sent_by, &own), number, token, answers)
    }

    /// The first 2xx; `moved`: its Contact is not where the peer was.
    fn own_succeeded(&mut self, sx: &mut Shared, token: u64, message: &Message<'_>, status: u16, moved: bool) {
        let Some((method, hop, terms)) = self.own_mut(token).map(|own| (own.method, own.hop, own.terms)) else {
            return;
        };
        let event = Event {
            method: Some(method.name()),
            status: Some(status),
            ..self.due_event(sx, EventKind::RefreshSucceeded, By::Sipst)
        };
        self.tell(sx, event);
        self.came_through(sx);
        if method == MethodName::Update && sx.ways(hop).silent_update {
            sx.remember(hop, |ways| ways.silent_update = false);
        }
        let mut has_moved = false;
        if method == MethodName::Invite {
            if self.cycle.prefer_invite {
                // F7
                sx.remember(hop, |ways| ways.silent_update = true);
            }
            has_moved = self.answer_moves(message) || moved;
            if has_moved {
                sx.remember(hop, |ways| ways.moves_media = true);
                self.fault(sx, reason::ANSWER_MOVED_MEDIA, "no more re-INVITE to this peer");
            }
        }
        self.redirect(message.contact().map(|contact| contact.uri));
        let deal = Deal { sender: Side::Server, by: By::Sipst, answered: false, method, terms, unchanged: true };
        self.agree(sx, message, deal);
        if has_moved {
            self.tell_server(sx, hop);
        }
    }

    /// F9: the peer's answer must leave the media where they are.
    fn answer_moves(&mut self, message: &Message<'_>) -> bool {
        let sdp = match Said::by(message) {
            Said::Sdp(sdp) => sdp,
            Said::Nothing => return false,
            // Where the media are now is not known until somebody says it whole (F10).
            Said::Unclear => {
                (self.sdp, self.peer_sdp, self.media_read) = (None, None, false);
                return false;
            }
        };
        let Some(answer) = self.peer_media_in(&sdp.bytes) else { return false };
        let moved = self.peer_media().is_some_and(|before| !before.stays_in(&answer));
        (self.peer_sdp, self.media_read) = (Some(sdp.bytes), false);
        moved
    }

    /// [`Timer::Retransmit`]
    pub(super) fn repeat(&mut self, sx: &mut Shared, token: u64) {
        let id = self.id;
        if self.streamed.is_some() {
            // The connection sees to it that it arrives.
            return;
        }
        let Some(own) = self.own_mut(token) else { return self.repeat_bye(sx, token) };
        let (hop, bytes) = match own.progress {
            Progress::Calling | Progress::Proceeding => (own.hop, Some(own.bytes.clone())),
            Progress::Cancelling { repeat: true } => (own.hop, build::cancel(&own.bytes)),
            Progress::Cancelling { repeat: false } | Progress::Done => return,
        };
        own.wait *= 2;
        if own.method != MethodName::Invite || own.progress != Progress::Calling {
            own.wait = own.wait.min(T2);
        }
        sx.timers.set(id, Timer::Retransmit(token), sx.now + own.wait);
        if let Some(bytes) = bytes {
            self.inject(sx, token, hop, &bytes);
        }
    }

    /// [`Timer::Fallback`]: the UPDATE is left to itself.
    pub(super) fn fall_back(&mut self, sx: &mut Shared, token: u64) {
        sx.timers.cancel(self.id, Timer::Retransmit(token));
        self.unheard(sx, token);
    }

    /// [`Timer::GiveUp`]
    pub(super) fn own_gives_up(&mut self, sx: &mut Shared, token: u64) {
        let (id, over) = (self.id, self.is_over());
        let Some(own) = self.own_mut(token) else { return self.bye_gives_up(sx, token) };
        sx.timers.cancel(id, Timer::Fallback(token));
        let cancel = own.method == MethodName::Invite && own.progress == Progress::Proceeding && !over;
        if let Some(cancel) = cancel.then(|| build::cancel(&own.bytes)).flatten() {
            let hop = own.hop;
            own.progress = Progress::Cancelling { repeat: true };
            own.wait = T1;
            sx.timers.set(id, Timer::Retransmit(token), sx.now + T1);
            sx.timers.set(id, Timer::GiveUp(token), sx.now + TRANSACTION);
            return self.inject(sx, token, hop, &cancel);
        }
        own.progress = Progress::Done;
        // A request that was sent again had no answer; one that was not had one, which is not in the capture.
        let missing = !own.answered && own.left < 2;
        sx.timers.cancel(id, Timer::Retransmit(token));
        // A 2xx may still come, and has to be ACKed.
        sx.timers.set(id, Timer::Retire(token), sx.now + TRANSACTION);
        if sx.mode == Mode::Replay && missing && !sx.has_answers {
            self.session.partial = true;
            return tell_capture_on_host(sx);
        }
        self.unheard(sx, token);
    }

    /// No answer came: the other method, if there is one.
    pub(super) fn unheard(&mut self, sx: &mut Shared, token: u64) {
        if self.cycle.stage != Stage::Sent(token) {
            return;
        }
        let Some((update, hop)) = self.own_mut(token).map(|own| (own.method == MethodName::Update, own.hop)) else {
            return;
        };
        self.cycle.prefer_invite = update;
        if !update || !self.falls_back(sx, hop) {
            self.came_to_nothing(sx);
        }
        self.cycle.why = Some((reason::NO_ANSWER, None));
        self.cycle.stage = Stage::Idle;
        self.attempt(sx);
    }

    /// [`Timer::Retire`]
    pub(super) fn own_retires(&mut self, sx: &mut Shared, token: u64) {
        if let Some(at) = self.own.iter().position(|own| own.token == token) {
            self.own.remove(at).retire(sx, self.id);
        }
    }

    /// [`crate::Command::Refused`]
    pub(super) fn own_refused(&mut self, sx: &mut Shared, token: u64, refusal: Refusal) {
        // An ACK or a copy that did not leave: what it answers comes again.
        let Some(at) = self.own.iter().position(|own| own.token == token && own.left == 0) else { return };
        self.own.remove(at).retire(sx, self.id);
        if self.cycle.stage == Stage::Sent(token) {
            self.cycle.stage = Stage::Idle;
            self.cycle.attempts = self.cycle.attempts.saturating_sub(1);
            self.give_back(sx);
            self.refused(sx, refusal);
        }
    }

    /// No copies of requests of ours any more.
    pub(super) fn hush(&mut self, sx: &mut Shared) {
        for own in &self.own {
            sx.timers.cancel(self.id, Timer::Retransmit(own.token));
            sx.timers.cancel(self.id, Timer::Fallback(own.token));
        }
    }

    /// Replay: whether a request of ours has no response of any kind in the capture, though it needed no copies.
    pub(super) fn lacks_answer(&self, sx: &Shared) -> bool {
        !sx.has_answers && self.own.iter().any(|own| !own.answered && own.left < 2)
    }
}

/// Once for a whole capture.
pub(super) fn tell_capture_on_host(sx: &mut Shared) {
    if !std::mem::replace(&mut sx.told_capture_on_host, true) {
        let why = "the answers to sipst's own requests are taken off before they can be captured here; capture at the peer's end";
        sx.tell(EventKind::CaptureLoss, format!("{}: {why}", reason::CAPTURE_ON_HOST));
    }
}
