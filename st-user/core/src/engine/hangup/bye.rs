//! The BYE in the one side's name and that in the other's: numbers, copies and what is answered to them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use st_ebpf::cseq::{MAX_NUMBER, State};

use super::PAUSE;
use crate::{
    By, Event, EventKind, Packet, Refusal, Side, Time, build,
    digest::{self, Answer},
    engine::{
        dialog::Dialog,
        errand::{ARM_PATIENCE, Errand, path_to_server},
        limits::{MAX_MOVED, MAX_WAITS},
        reason,
        shared::Shared,
        timers::{REARM, T1, T2, TRANSACTION, Timer},
    },
    message::{Message, MethodName},
};

/// By practice (R39).
const CAUSE: &[u8] = b"SIP;cause=408;text=\"Session timeout\"";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The one before it has not left yet.
    Pending,
    /// [`crate::Output::Arm`] is out.
    Arming,
    /// It could not be sent, and is tried again.
    Retrying,
    /// [`crate::Output::Inject`] is out; it was not seen leaving.
    Sent,
    /// It has left, and has no final response.
    Open,
    /// A final response, the end of patience, or it cannot be sent.
    Done,
}

/// A BYE of ours.
#[derive(Clone, Debug)]
pub(super) struct Bye {
    /// In whose name.
    pub(super) whose: Side,
    pub(super) progress: Progress,
    pub(super) hop: SocketAddr,
    pub(super) token: u64,
    bytes: Vec<u8>,
    /// When it was sent first.
    sent: Time,
    /// Until the next copy.
    wait: Duration,
    answers: Vec<Answer>,
    /// Whether any number of it has left.
    pub(super) left: bool,
}

impl Bye {
    pub(super) fn new(whose: Side, hop: SocketAddr) -> Self {
        Self {
            whose,
            progress: Progress::Pending,
            hop,
            token: 0,
            bytes: Vec::new(),
            sent: Time::from_micros(0),
            wait: T1,
            answers: Vec::new(),
            left: false,
        }
    }

    /// Whom it goes to, for people.
    const fn to(&self) -> &'static str {
        match self.whose {
            Side::Server => "to the peer",
            Side::Peer => "to the server",
        }
    }
}

impl Dialog {
    pub(super) fn arm_bye(&self, sx: &mut Shared, whose: Side, hop: SocketAddr) {
        self.arm(sx, whose, hop, self.watched_flows(), true);
        sx.timers.set(self.id, Timer::HangUp, sx.now + ARM_PATIENCE);
    }

    /// [`crate::Command::Armed`]; whether it was about this.
    pub(in crate::engine) fn bye_armed(
        &mut self,
        sx: &mut Shared,
        whose: Side,
        result: Result<State, Refusal>,
    ) -> bool {
        let Some(hangup) = &mut self.hangup else { return false };
        let Some(at) = hangup.byes.iter().position(|bye| bye.whose == whose && bye.progress == Progress::Arming) else {
            return false;
        };
        let has_begun = hangup.has_begun();
        if result.is_ok() {
            self.follow(sx, whose);
        }
        if !has_begun {
            // What had been on its way when the numbers were read may have changed everything.
            if self.is_over() {
                self.retire_hangup(sx);
                return true;
            }
            if let Err(doubt) = self.speaks_against(sx) {
                self.doubt(sx, doubt);
                return true;
            }
        }
        let state = result.map(|state| match whose {
            Side::Server => self.numbers.reconcile(state),
            Side::Peer => self.peer_numbers.reconcile(state),
        });
        match state {
            Err(refusal) => self.cannot_send_bye(sx, at, refusal),
            // No number of that side's has to have room behind it.
            Ok(state) if state.next_injected() > MAX_NUMBER => {
                self.bye_is_done(sx, at, Some((reason::CSEQ_ROOM, None)))
            }
            Ok(state) => self.send_bye(sx, at, state),
        }
        true
    }

    fn send_bye(&mut self, sx: &mut Shared, at: usize, state: State) {
        let token = sx.token(self.id);
        let Some(bye) = self.hangup.as_ref().and_then(|hangup| hangup.byes.get(at)) else { return };
        let Some(bytes) = self.compose_bye(bye, token, state.next_injected()) else {
            sx.retire(token);
            return self.bye_is_done(sx, at, Some((reason::NO_TARGET, None)));
        };
        if bye.whose == Side::Server {
            sx.gate.spend(sx.now, self.id);
        }
        let now = sx.now;
        if let Some(bye) = self.hangup.as_mut().and_then(|hangup| hangup.byes.get_mut(at)) {
            (bye.token, bye.bytes, bye.sent, bye.wait) = (token, bytes, now, T1);
            bye.progress = Progress::Sent;
        }
        sx.timers.set(self.id, Timer::Retransmit(token), now + T1);
        sx.timers.set(self.id, Timer::GiveUp(token), now + TRANSACTION);
        self.inject_bye(sx, at, Some(state));
    }

    fn compose_bye(&self, bye: &Bye, token: u64, number: u32) -> Option<Vec<u8>> {
        let (target, contact) = (self.target.as_ref()?, self.look.contact()?);
        Some(match bye.whose {
            Side::Server => {
                let (sent_by, own) = (target.sent_by(self.names.server), self.look.own());
                let template = self.template(target.path(), &sent_by, &own);
                build::bye(&template, bye.whose, number, token, CAUSE, &bye.answers)
            }
            Side::Peer => {
                let (path, sent_by) = (path_to_server(contact), bye.hop.to_string());
                let template = self.peers_template(&path, sent_by.as_bytes(), None);
                build::bye(&template, bye.whose, number, token, CAUSE, &[])
            }
        })
    }

    fn inject_bye(&self, sx: &mut Shared, at: usize, commit: Option<State>) {
        let Some(bye) = self.hangup.as_ref().and_then(|hangup| hangup.byes.get(at)) else { return };
        let Bye { whose, hop, token, bytes, .. } = bye;
        self.send_out(sx, &Errand { whose: *whose, hop: *hop, token: *token, bytes }, commit, None);
    }

    /// The driver cannot, or the kernel would not.
    fn cannot_send_bye(&mut self, sx: &mut Shared, at: usize, refusal: Refusal) {
        let Some(hangup) = &mut self.hangup else { return };
        let has_begun = hangup.has_begun();
        let Some(bye) = hangup.byes.get_mut(at) else { return };
        if refusal == Refusal::ServerGone && bye.whose == Side::Peer {
            // It has forgotten the call: there is nobody to tell.
            return self.bye_is_done(sx, at, None);
        }
        let passes = matches!(
            refusal,
            Refusal::Moved
                | Refusal::Ranges
                | Refusal::Unattached
                | Refusal::MapFull
                | Refusal::Send
                | Refusal::ServerHangs
                | Refusal::TcpBusy
        );
        let most = if refusal == Refusal::Moved { MAX_MOVED } else { MAX_WAITS };
        if !passes || hangup.tries >= most {
            return self.bye_is_done(sx, at, Some((refusal.reason(), None)));
        }
        hangup.tries += 1;
        let pause = if refusal == Refusal::Moved { REARM } else { PAUSE };
        if has_begun {
            bye.progress = Progress::Retrying;
            sx.timers.set(self.id, Timer::HangUp, sx.now + pause);
        } else {
            self.call_off(sx, sx.now + pause);
        }
    }

    /// Timer::HangUp, while the BYEs are on their way.
    pub(super) fn go_on_hanging_up(&mut self, sx: &mut Shared) {
        if self.is_about_to_go(sx) {
            return;
        }
        let Some(hangup) = &mut self.hangup else { return };
        let mut again = Vec::new();
        let mut unarmed = None;
        for (at, bye) in hangup.byes.iter_mut().enumerate() {
            match bye.progress {
                Progress::Arming => unarmed = Some(at),
                Progress::Retrying => {
                    bye.progress = Progress::Arming;
                    again.push((bye.whose, bye.hop));
                }
                Progress::Pending | Progress::Sent | Progress::Open | Progress::Done => {}
            }
        }
        if let Some(at) = unarmed {
            return self.bye_is_done(sx, at, Some((reason::NO_NUMBERS, None)));
        }
        for (whose, hop) in again {
            self.arm_bye(sx, whose, hop);
        }
    }

    // What comes of it.

    fn bye_at(&self, token: u64) -> Option<usize> {
        self.hangup.as_ref()?.byes.iter().position(|bye| bye.token == token && token != 0)
    }

    /// A BYE of ours that has left, or the answer to one.
    pub(in crate::engine) fn bye_heard(
        &mut self,
        sx: &mut Shared,
        packet: &Packet<'_>,
        token: u64,
        message: &Message<'_>,
    ) {
        let Some(at) = self.bye_at(token) else {
            sx.stats.unknown_answers += u64::from(message.status().is_some());
            return;
        };
        let Some(bye) = self.hangup.as_mut().and_then(|hangup| hangup.byes.get_mut(at)) else { return };
        let (whose, hop) = (bye.whose, bye.hop);
        let Some(status) = message.status() else { return self.bye_left(sx, at) };
        match whose {
            // R43
            Side::Server if hop.ip() != packet.peer.ip() => {
                sx.stats.foreign_answers += 1;
                return;
            }
            Side::Server => self.hear_answer(sx, message),
            Side::Peer => {
                (self.heard, self.server_heard) = (sx.now, sx.now);
                sx.hear_server(self.names.server);
            }
        }
        self.bye_left(sx, at);
        let Some(bye) = self.hangup.as_mut().and_then(|hangup| hangup.byes.get_mut(at)) else { return };
        if bye.progress != Progress::Open {
            return;
        }
        match status {
            ..200 => bye.wait = T2,
            200..300 | 481 => self.bye_is_done(sx, at, None),
            401 | 407 if whose == Side::Server && bye.answers.is_empty() => {
                self.bye_is_challenged(sx, at, message, status)
            }
            401 | 407 => self.bye_is_done(sx, at, Some((reason::CHALLENGED, Some(status)))),
            300.. => self.bye_is_done(sx, at, Some((reason::REFUSED, Some(status)))),
        }
    }

    /// It was seen leaving, for the first time or again. The dialog is over once there is no side left that waits for its own.
    fn bye_left(&mut self, sx: &mut Shared, at: usize) {
        let Some(bye) = self.hangup.as_mut().and_then(|hangup| hangup.byes.get_mut(at)) else { return };
        if bye.progress != Progress::Sent {
            return;
        }
        bye.progress = Progress::Open;
        let (first, to) = (!std::mem::replace(&mut bye.left, true), bye.to());
        let instead = self.hangup.as_ref().is_some_and(|hangup| hangup.instead);
        let why = if instead { reason::BYE_REFUSED } else { reason::EXPIRED };
        if first {
            let event = Event {
                by: Some(By::Sipst),
                method: Some(MethodName::Bye.name()),
                reason: Some(format!("{why}: {to}").into()),
                ..self.timed_event(sx, EventKind::ByeSent)
            };
            self.tell(sx, event);
        }
        self.next_bye(sx);
        self.is_hung_up(sx);
    }

    /// Whether all that is to be sent has left, which is the end of the dialog.
    fn is_hung_up(&mut self, sx: &mut Shared) {
        let Some(hangup) = &self.hangup else { return };
        let waits = |bye: &Bye| !bye.left && bye.progress != Progress::Done;
        if hangup.byes.iter().any(|bye| bye.left) && !hangup.byes.iter().any(waits) {
            self.end(sx, Some(By::Sipst), reason::EXPIRED.into());
        }
    }

    /// A challenge is answered once, with the next number.
    fn bye_is_challenged(&mut self, sx: &mut Shared, at: usize, message: &Message<'_>, status: u16) {
        let policy = Arc::clone(&sx.policy);
        let uri = self.target.as_ref().map(|target| target.path().uri.clone()).unwrap_or_default();
        let cnonce = sx.word();
        let request = digest::Request { method: MethodName::Bye, uri: &uri, cnonce: &cnonce };
        let credentials = self.rules(&policy).1.credentials.as_ref();
        let answers = credentials.and_then(|credentials| digest::answers(message, &request, credentials).ok());
        let Some(answers) = answers else {
            return self.bye_is_done(sx, at, Some((reason::CHALLENGED, Some(status))));
        };
        let Some(bye) = self.hangup.as_mut().and_then(|hangup| hangup.byes.get_mut(at)) else { return };
        let (whose, hop, token) = (bye.whose, bye.hop, std::mem::take(&mut bye.token));
        (bye.answers, bye.progress) = (answers, Progress::Arming);
        self.retire_bye(sx, token);
        self.arm_bye(sx, whose, hop);
    }

    /// Nothing more is done about it; `why` it did not come to a good end.
    fn bye_is_done(&mut self, sx: &mut Shared, at: usize, why: Option<(&'static str, Option<u16>)>) {
        let Some(bye) = self.hangup.as_mut().and_then(|hangup| hangup.byes.get_mut(at)) else { return };
        bye.progress = Progress::Done;
        let (token, to) = (bye.token, bye.to());
        for timer in [Timer::Retransmit, Timer::GiveUp] {
            sx.timers.cancel(self.id, timer(token));
        }
        if let Some((why, status)) = why {
            self.say_not_hung_up(sx, why, to, status);
        }
        self.next_bye(sx);
        self.is_hung_up(sx);
        if self.hangup.as_ref().is_some_and(|hangup| hangup.byes.iter().all(|bye| bye.progress == Progress::Done)) {
            sx.gate.leave(sx.now, self.id);
            sx.timers.cancel(self.id, Timer::HangUp);
        }
    }

    /// [`crate::Command::Refused`]; whether it was about this.
    pub(in crate::engine) fn bye_refused(&mut self, sx: &mut Shared, token: u64, refusal: Refusal) -> bool {
        let Some(at) = self.bye_at(token) else { return false };
        let Some(bye) = self.hangup.as_mut().and_then(|hangup| hangup.byes.get_mut(at)) else { return false };
        // A copy that did not leave: the next one may.
        if bye.progress == Progress::Sent {
            (bye.token, bye.progress) = (0, Progress::Arming);
            self.retire_bye(sx, token);
            self.cannot_send_bye(sx, at, refusal);
        }
        true
    }

    /// [`Timer::Retransmit`], where it is about this.
    pub(in crate::engine) fn repeat_bye(&mut self, sx: &mut Shared, token: u64) {
        if self.streamed.is_some() {
            return;
        }
        let Some(at) = self.bye_at(token) else { return };
        let Some(bye) = self.hangup.as_mut().and_then(|hangup| hangup.byes.get_mut(at)) else { return };
        if !matches!(bye.progress, Progress::Sent | Progress::Open) {
            return;
        }
        // R37
        bye.wait = (bye.wait * 2).min(T2);
        sx.timers.set(self.id, Timer::Retransmit(token), sx.now + bye.wait);
        self.inject_bye(sx, at, None);
    }

    /// [`Timer::GiveUp`], likewise.
    pub(in crate::engine) fn bye_gives_up(&mut self, sx: &mut Shared, token: u64) {
        if let Some(at) = self.bye_at(token) {
            self.bye_is_done(sx, at, Some((reason::NO_ANSWER, None)));
        }
    }

    pub(super) fn retire_bye(&self, sx: &mut Shared, token: u64) {
        for timer in [Timer::Retransmit, Timer::GiveUp] {
            sx.timers.cancel(self.id, timer(token));
        }
        sx.retire(token);
    }
}
