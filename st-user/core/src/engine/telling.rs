//! F9, `on_moved: tell-server`: the peer's answer to a re-INVITE of ours has moved its media or its Contact, which only sipst has
//! heard. The server is told by a re-INVITE in the peer's name. Its answer comes to sipst; where that moves the server's media
//! in turn, or is none, an alert says so and nothing more is done.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use st_ebpf::cseq::State;

use super::{
    Mode,
    dialog::Dialog,
    errand::{ARM_PATIENCE, Errand, path_to_server},
    media::Media,
    reason,
    sdp::Said,
    shared::Shared,
    timers::{REARM, T1, TRANSACTION, Timer},
};
use crate::{
    Action, By, Event, EventKind, OnMoved, ReadyAck, Refusal, Side, Time, build,
    message::{CSeq, Message, MethodName},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// For a transaction to end, or for a number.
    Waiting,
    /// [`crate::Output::Arm`] is out.
    Arming,
    /// No response yet.
    Calling,
    /// A provisional one.
    Proceeding,
    /// A CANCEL is out.
    Cancelling,
    /// A final response, or the end of patience: copies may still come.
    Done,
}

/// What is told, and how far that has come.
#[derive(Clone, Debug)]
pub(super) struct Telling {
    stage: Stage,
    /// Where the peer is, as the server sees it.
    hop: SocketAddr,
    /// The peer's answer.
    offer: Vec<u8>,
    /// Since when it is to be told.
    since: Time,
    invite: Option<Invite>,
}

/// The re-INVITE.
#[derive(Clone, Debug)]
struct Invite {
    token: u64,
    bytes: Vec<u8>,
    ack: ReadyAck,
    sent: Time,
    /// Until the next copy.
    wait: Duration,
    /// Whether it was seen leaving.
    left: bool,
    /// Whether its 2xx was taken in.
    accepted: bool,
    /// When its final response came.
    finished: Option<Time>,
}

impl Telling {
    /// Whether a final response is still waited for.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Calling | Stage::Proceeding | Stage::Cancelling)
    }
}

impl Dialog {
    /// The peer's answer, which came from `hop`, has moved its media or its Contact.
    pub(super) fn tell_server(&mut self, sx: &mut Shared, hop: SocketAddr) {
        let policy = Arc::clone(&sx.policy);
        if sx.mode == Mode::Replay || self.rules(&policy).1.on_moved != OnMoved::TellServer || self.is_over() {
            return;
        }
        let Some(offer) = self.peer_sdp.clone() else { return self.untold(sx, reason::NO_SDP) };
        if self.telling.as_ref().is_some_and(|telling| telling.stage != Stage::Done) {
            return self.untold(sx, reason::INVITE_IN_PROGRESS);
        }
        self.retire_telling(sx);
        self.telling = Some(Box::new(Telling { stage: Stage::Waiting, hop, offer, since: sx.now, invite: None }));
        self.try_to_tell(sx);
    }

    /// Why the server cannot be told at all.
    fn untellable(&self, sx: &Shared) -> Option<&'static str> {
        let (_, rules, _) = self.rules(&sx.policy);
        if let Some(why) = self.forbidden(sx) {
            Some(why)
        } else if self.streamed.is_some() {
            Some(reason::OVER_TCP)
        } else if rules.action != Action::Refresh || rules.on_moved != OnMoved::TellServer {
            // It may have been changed since the refresh left.
            Some(reason::POLICY)
        } else if self.target.is_none() || self.look.contact().is_none() {
            Some(reason::NO_TARGET)
        } else if self.mid_call && !self.peer_numbers.is_known() {
            Some(reason::MID_CALL)
        } else {
            None
        }
    }

    /// Asks for the numbers, once no transaction of either side's is open.
    fn try_to_tell(&mut self, sx: &mut Shared) {
        let Some(telling) = self.telling.as_ref().filter(|_| !self.is_over()) else { return self.retire_telling(sx) };
        let (hop, since) = (telling.hop, telling.since);
        if let Some(why) = self.untellable(sx) {
            return self.untold(sx, why);
        }
        if let Some(why) = self.in_the_way(sx) {
            return if sx.now.since(since) >= TRANSACTION { self.untold(sx, why) } else { self.tell_later(sx) };
        }
        self.enter(sx, Stage::Arming, ARM_PATIENCE);
        self.arm(sx, Side::Peer, hop, Vec::new(), false);
    }

    /// A transaction that a re-INVITE in the peer's name would come into.
    fn in_the_way(&self, sx: &Shared) -> Option<&'static str> {
        if self.exchanges.open(sx.now).is_some() || self.is_inviting() {
            return Some(reason::INVITE_IN_PROGRESS);
        }
        (self.others.is_open(sx.now) || self.others.is_one_missed(sx.now) || self.own.iter().any(|own| own.is_open()))
            .then_some(reason::REQUEST_IN_PROGRESS)
    }

    fn tell_later(&mut self, sx: &mut Shared) {
        self.enter(sx, Stage::Waiting, REARM);
    }

    fn enter(&mut self, sx: &mut Shared, stage: Stage, patience: Duration) {
        if let Some(telling) = &mut self.telling {
            telling.stage = stage;
            sx.timers.set(self.id, Timer::Tell, sx.now + patience);
        }
    }

    /// [`crate::Command::Armed`], for the peer's numbers.
    pub(super) fn peer_armed(&mut self, sx: &mut Shared, result: Result<State, Refusal>) {
        if result.is_ok() {
            self.follow(sx, Side::Peer);
        }
        if self.telling.as_ref().is_none_or(|telling| telling.stage != Stage::Arming) {
            return;
        }
        let state = match result {
            Ok(state) => self.peer_numbers.reconcile(state),
            Err(refusal) => return self.untold(sx, refusal.reason()),
        };
        // What had been on its way when the numbers were read may have changed everything.
        if self.is_over() {
            return self.retire_telling(sx);
        }
        if let Some(why) = self.untellable(sx) {
            self.untold(sx, why);
        } else if self.in_the_way(sx).is_some() {
            self.tell_later(sx);
        } else if !self.peer_numbers.has_room(state, None) {
            self.untold(sx, reason::CSEQ_ROOM);
        } else {
            self.tell_now(sx, state);
        }
    }

    fn tell_now(&mut self, sx: &mut Shared, state: State) {
        let (Some(telling), Some(target), Some(contact)) = (&self.telling, &self.target, self.look.contact()) else {
            return;
        };
        let hop = telling.hop;
        let (token, ack_token) = (sx.token(self.id), sx.token(self.id));
        let path = path_to_server(contact);
        let (sent_by, own) = (hop.to_string(), [b"<", target.remote(), b">"].concat());
        let template = self.peers_template(&path, sent_by.as_bytes(), Some(&own));
        let number = state.next_injected();
        // Without Session-Expires a server that has timers would end its own.
        let interval_s = self.session.agreed.filter(|_| self.session.knows_timers()).map(|agreed| agreed.interval);
        let bytes = build::peers_reinvite(&template, number, token, interval_s, &telling.offer);
        let ack = ReadyAck { token: ack_token, bytes: build::peers_ack_2xx(&template, number, ack_token) };
        self.tell_by(sx, Some(state), Some(ack.clone()), token, hop, &bytes);
        if let Some(telling) = &mut self.telling {
            let sent = sx.now;
            telling.invite =
                Some(Invite { token, bytes, ack, sent, wait: T1, left: false, accepted: false, finished: None });
        }
        self.enter(sx, Stage::Calling, T1);
    }

    /// Asks for a message to be sent to the server.
    fn tell_by(
        &self,
        sx: &mut Shared,
        commit: Option<State>,
        ack: Option<ReadyAck>,
        token: u64,
        hop: SocketAddr,
        bytes: &[u8],
    ) {
        self.send_out(sx, &Errand { whose: Side::Peer, hop, token, bytes }, commit, ack);
    }

    /// It was seen leaving.
    pub(super) fn peers_left(&mut self, token: u64) {
        if let Some(invite) = self.telling.as_mut().and_then(|telling| telling.invite.as_mut()) {
            invite.left |= invite.token == token;
        }
    }

    /// [`crate::Command::Refused`]; whether it was about this.
    pub(super) fn peers_refused(&mut self, sx: &mut Shared, token: u64, refusal: Refusal) -> bool {
        let Some(telling) = &mut self.telling else { return false };
        let Some(invite) = telling.invite.as_ref().filter(|invite| invite.token == token || invite.ack.token == token)
        else {
            return false;
        };
        // An ACK or a copy that did not leave: what it answers comes again.
        if invite.left || invite.token != token {
            return true;
        }
        let (since, tokens) = (telling.since, [invite.token, invite.ack.token]);
        telling.invite = None;
        tokens.into_iter().for_each(|token| sx.retire(token));
        let passes = matches!(refusal, Refusal::Moved | Refusal::Ranges) && sx.now.since(since) < TRANSACTION;
        if passes {
            self.tell_later(sx);
        } else {
            self.untold(sx, refusal.reason());
        }
        true
    }

    /// The server's answer.
    pub(super) fn peers_answer(&mut self, sx: &mut Shared, token: u64, message: &Message<'_>, cseq: CSeq) {
        let (now, id) = (sx.now, self.id);
        let Some(telling) = self.telling.as_mut() else { return };
        let (stage, hop) = (telling.stage, telling.hop);
        let Some(invite) = telling.invite.as_mut().filter(|invite| invite.token == token) else { return };
        let Some(status) = message.status().filter(|_| cseq.method == MethodName::Invite) else { return };
        self.server_heard = now;
        sx.hear_server(self.names.server);
        invite.left = true;
        match status {
            ..200 => {
                if stage == Stage::Calling {
                    self.enter(sx, Stage::Proceeding, TRANSACTION);
                }
            }
            200..300 => {
                let ack = invite.ack.clone();
                let first = !std::mem::replace(&mut invite.accepted, true);
                let finished = *invite.finished.get_or_insert(now);
                // Copies may come for a transaction's time, and stragglers, but not for ever.
                telling.stage = Stage::Done;
                sx.timers.set(id, Timer::Tell, (now + TRANSACTION).min(finished + TRANSACTION * 2));
                self.tell_by(sx, None, None, ack.token, hop, &ack.bytes);
                if first && !self.is_over() {
                    self.server_was_told(sx, message, status);
                }
            }
            300.. => {
                let ack = message.to().and_then(|to| build::ack_failure(&invite.bytes, to.value));
                if let Some(ack) = ack {
                    self.tell_by(sx, None, None, token, hop, &ack);
                }
                if stage == Stage::Done {
                    return;
                }
                self.enter(sx, Stage::Done, TRANSACTION);
                if status == 481 {
                    self.barred.get_or_insert(reason::SERVER_LOST_DIALOG);
                }
                self.say_untold(sx, &format!("{}, {status}", reason::REFUSED));
            }
        }
    }

    /// The server has taken it in.
    fn server_was_told(&mut self, sx: &mut Shared, message: &Message<'_>, status: u16) {
        self.look.saw(&mut sx.own_headers, message);
        self.session.saw_server(message);
        self.heard_by_server(MethodName::Invite);
        let event = Event {
            by: Some(By::Sipst),
            method: Some(MethodName::Invite.name()),
            status: Some(status),
            ..self.event(sx, EventKind::ServerTold)
        };
        self.tell(sx, event);
        let stays = match Said::by(message) {
            Said::Nothing => true,
            Said::Unclear => false,
            Said::Sdp(answer) => {
                let peer = self.peer_sdp.as_ref().and_then(|sdp| Media::read(sdp));
                let beside = |sdp| {
                    let media = Media::read(sdp)?;
                    Some(peer.as_ref().map_or(media.clone(), |peer| media.within(peer)))
                };
                let before = self.sdp.as_ref().and_then(|sdp| beside(&sdp.bytes));
                let stays = before.zip(beside(&answer.bytes)).is_some_and(|(before, now)| before.stays_in(&now));
                (self.sdp, self.media_read) = (Some(answer), false);
                stays
            }
        };
        if !stays {
            // The peer has not heard of it, and is not told: each could move at each other's word for ever.
            (self.sdp, self.media_read) = (None, false);
            self.fault(sx, reason::SERVER_MOVED_MEDIA, "the peer does not know");
        }
        self.watch(sx);
    }

    /// The server is not told, and no more is tried.
    fn untold(&mut self, sx: &mut Shared, why: &str) {
        self.retire_telling(sx);
        self.say_untold(sx, why);
    }

    fn say_untold(&mut self, sx: &mut Shared, why: &str) {
        if !self.is_over() {
            self.fault(sx, reason::SERVER_NOT_TOLD, why);
        }
    }

    /// [`Timer::Tell`]
    pub(super) fn tell_timer(&mut self, sx: &mut Shared) {
        let over = self.is_over();
        let Some(telling) = &mut self.telling else { return };
        let hop = telling.hop;
        match (telling.stage, telling.invite.as_mut()) {
            (Stage::Waiting, _) => self.try_to_tell(sx),
            (Stage::Arming, _) => self.untold(sx, reason::NO_NUMBERS),
            (Stage::Calling, Some(invite)) if !over && sx.now.since(invite.sent) < TRANSACTION => {
                invite.wait *= 2;
                let left = TRANSACTION.saturating_sub(sx.now.since(invite.sent));
                let (wait, token, bytes) = (invite.wait.min(left), invite.token, invite.bytes.clone());
                self.tell_by(sx, None, None, token, hop, &bytes);
                self.enter(sx, Stage::Calling, wait);
            }
            (Stage::Proceeding, Some(invite)) if !over => {
                let (token, cancel) = (invite.token, build::cancel(&invite.bytes));
                if let Some(cancel) = cancel {
                    self.tell_by(sx, None, None, token, hop, &cancel);
                }
                self.enter(sx, Stage::Cancelling, TRANSACTION);
            }
            (Stage::Calling | Stage::Proceeding | Stage::Cancelling, _) => {
                // A 2xx may still come, and has to be ACKed.
                self.enter(sx, Stage::Done, TRANSACTION);
                self.say_untold(sx, reason::NO_ANSWER);
            }
            (Stage::Done, _) => self.retire_telling(sx),
        }
    }

    /// Takes it off the record.
    pub(super) fn retire_telling(&mut self, sx: &mut Shared) {
        let Some(telling) = self.telling.take() else { return };
        sx.timers.cancel(self.id, Timer::Tell);
        if let Some(invite) = telling.invite {
            [invite.token, invite.ack.token].into_iter().for_each(|token| sx.retire(token));
        }
    }

    /// The dialog is over: what was not sent yet is not sent any more.
    pub(super) fn stop_telling(&mut self, sx: &mut Shared) {
        if self.telling.as_ref().is_some_and(|telling| telling.invite.is_none()) {
            self.retire_telling(sx);
        }
    }
}
