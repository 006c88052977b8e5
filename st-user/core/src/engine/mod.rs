//! The engine: from packets and time to events and requests in the server's name.
//!
//! [`dialog`] knows who talks and [`exchange`] what about, [`negotiate`] reads RFC 4028 out of it, [`session`] runs the
//! interval by the moments of [`schedule`], [`refresh`] acts, [`own`] and [`verdict`] follow what was sent. What all
//! sessions have in common is in [`shared`]. Events of the engine itself carry no `call_id`.

mod bounded;
mod dialog;
mod exchange;
mod invite;
pub mod limits;
mod media;
mod negotiate;
mod numbers;
mod own;
mod refresh;
mod schedule;
mod sdp;
mod session;
mod shared;
mod target;
mod timers;
mod verdict;

use std::{collections::HashMap, sync::Arc};

pub use limits::{Limits, Stats};
pub use numbers::RESERVE;

use crate::{
    Command, Direction, EventKind, Output, Packet, Policy, SessionId, Side, Time,
    message::{CSeq, Message, MethodName},
};
use dialog::{Dialog, Ids};
use invite::Invites;
use limits::{MAX_IDENTIFIER, TIMERS_PER_CALL};
use shared::Shared;
use timers::{Key, Timer};

/// Whether anything can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// On a host: refreshes where the policy says so.
    Live,
    /// On a capture: nothing is ever sent; requests of sipst's own in it are recognised by their branch.
    Replay,
}

/// What an [`Engine`] is made from.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// What the operator wants.
    pub policy: Arc<Policy>,
    /// Live or replay.
    pub mode: Mode,
    /// For tokens and random delays; runs with the same seed and input are the same. Secret in a daemon: from the system's
    /// random numbers.
    pub seed: u64,
    /// Bounds.
    pub limits: Limits,
}

/// The protocol, without clock or socket. After every call of a `handle_` method drain [`Engine::poll_output`] until it says
/// [`Output::Timeout`].
pub struct Engine {
    sx: Shared,
    dialogs: HashMap<SessionId, Dialog>,
    index: HashMap<Vec<u8>, SessionId>,
    invites: Invites,
    next: u64,
}

impl Engine {
    /// An engine that has seen nothing.
    pub fn new(config: EngineConfig) -> Self {
        let invites = Invites::new(&config.limits);
        Self { sx: Shared::new(config), dialogs: HashMap::new(), index: HashMap::new(), invites, next: 1 }
    }

    /// Other rules from now on: each is read when its moment comes, moments of running intervals stay.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.sx.policy = policy;
    }

    /// What there is and what was counted; goes through all sessions.
    pub fn stats(&self) -> Stats {
        let [(pending, evicted_pending), (strangers, evicted_strangers)] = self.invites.counts();
        let up = || self.dialogs.values().filter(|dialog| !dialog.is_over());
        Stats {
            sessions: up().count(),
            timed: up().filter(|dialog| dialog.session.agreed.is_some()).count(),
            unsure: up().filter(|dialog| dialog.is_unsure(&self.sx)).count(),
            tombstones: self.dialogs.len() - up().count(),
            pending,
            strangers,
            own_requests: self.dialogs.values().map(|dialog| dialog.own.len()).sum(),
            evicted_pending,
            evicted_strangers,
            ..self.sx.stats
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Output {
        self.sx.poll()
    }

    /// Takes in a packet. Time never goes back: an earlier `now` counts as the latest one.
    pub fn handle_packet(&mut self, now: Time, packet: &Packet<'_>) {
        self.advance(now);
        let Ok(message) = Message::scan(packet.bytes, packet.truncated) else {
            self.sx.stats.unparsable += 1;
            return;
        };
        self.sx.stats.messages += 1;
        if self.read(packet, &message).is_none() {
            self.sx.stats.unidentified += 1;
        }
    }

    /// Runs what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        self.advance(now);
        for _ in 0..TIMERS_PER_CALL {
            let Some(Key { session, timer }) = self.sx.timers.pop(self.sx.now) else { return };
            let sx = &mut self.sx;
            let Some(dialog) = self.dialogs.get_mut(&session) else { continue };
            match timer {
                Timer::Retransmit(token) => dialog.repeat(sx, token),
                Timer::Fallback(token) => dialog.fall_back(sx, token),
                Timer::GiveUp(token) => dialog.own_gives_up(sx, token),
                Timer::Retire(token) => dialog.own_retires(sx, token),
                Timer::Retry => dialog.attempt(sx),
                Timer::Armed => dialog.arm_again(sx),
                Timer::Act => dialog.act(sx),
                Timer::Expiring => dialog.expiring(sx),
                Timer::Expired => dialog.expired(sx),
                Timer::Unanswered => dialog.unanswered(sx),
                Timer::Forget => {
                    if dialog.forget(sx) {
                        self.forget(session);
                    }
                }
            }
        }
    }

    /// Takes in what the driver has to say.
    pub fn handle_command(&mut self, now: Time, command: Command) {
        self.advance(now);
        let sx = &mut self.sx;
        match command {
            Command::Armed { session, result } => {
                if let Some(dialog) = self.dialogs.get_mut(&session) {
                    dialog.armed(sx, result);
                }
            }
            Command::Refused { token, refusal } => {
                if let Some(dialog) = sx.tokens.get(&token).copied().and_then(|session| self.dialogs.get_mut(&session))
                {
                    dialog.own_refused(sx, token, refusal);
                }
            }
            Command::Loss { packets: 0 } => {}
            Command::Loss { packets } => {
                sx.losses += 1;
                sx.stats.lost = sx.stats.lost.saturating_add(packets);
                sx.tell(EventKind::CaptureLoss, format!("packets_lost: {packets}"));
            }
        }
    }

    /// The capture is at its end: tells what it cannot have had.
    pub fn finish(&mut self, now: Time) {
        self.advance(now);
        if self.sx.mode == Mode::Replay && self.dialogs.values().any(|dialog| dialog.lacks_answer(&self.sx)) {
            own::tell_capture_on_host(&mut self.sx);
        }
    }

    fn advance(&mut self, now: Time) {
        self.sx.now = self.sx.now.max(now);
    }

    /// Finds out what a message belongs to; `None` where it does not say.
    fn read(&mut self, packet: &Packet<'_>, message: &Message<'_>) -> Option<()> {
        let (call_id, cseq) = (message.call_id()?, message.cseq()?);
        let (from, to) = (message.from()?.tag?, message.to()?.tag);
        if [call_id, from, to.unwrap_or_default()].iter().any(|id| id.len() > MAX_IDENTIFIER) {
            return None;
        }
        let sender = match packet.direction {
            Direction::Egress => Side::Server,
            Direction::Ingress => Side::Peer,
        };
        // Who sent the request, and whether this is it.
        let (client, is_request) = match message.request_method() {
            Some(method) if method != cseq.method => return None,
            Some(_) => (sender, true),
            None => (sender.other(), false),
        };
        let ids = to.map(|to| match client {
            Side::Server => Ids { call_id, local: from, remote: to },
            Side::Peer => Ids { call_id, local: to, remote: from },
        });
        let session = ids.and_then(|ids| self.index.get(&key(ids)).copied());
        let token = message.top_via().filter(|_| client == Side::Server).and_then(|via| via.our_token());
        if let Some(token) = token {
            self.own(packet, message, token, session, is_request, cseq);
        } else if let Some(dialog) = session.and_then(|session| self.dialogs.get_mut(&session)) {
            if is_request {
                dialog.request(&mut self.sx, packet, message, client, cseq);
            } else {
                dialog.response(&mut self.sx, packet, message, client, cseq);
            }
        } else {
            self.outside(packet, message, client, is_request, ids, call_id, from, cseq);
        }
        Some(())
    }

    /// A request of ours, or the answer to one.
    fn own(
        &mut self,
        packet: &Packet<'_>,
        message: &Message<'_>,
        token: u64,
        session: Option<SessionId>,
        is_request: bool,
        cseq: CSeq,
    ) {
        // The token names the session; in a capture only the dialog does.
        let session = match self.sx.mode {
            Mode::Live => self.sx.tokens.get(&token).copied(),
            Mode::Replay => session,
        };
        match session.and_then(|session| self.dialogs.get_mut(&session)) {
            Some(dialog) if is_request => dialog.own_left(&mut self.sx, packet, token, message, cseq),
            Some(dialog) => dialog.own_answer(&mut self.sx, packet, token, message, cseq),
            None if is_request => {}
            None => self.sx.stats.unknown_answers += 1,
        }
    }

    /// A message of no known dialog.
    #[expect(clippy::too_many_arguments, reason = "what `read` has found out")]
    fn outside(
        &mut self,
        packet: &Packet<'_>,
        message: &Message<'_>,
        client: Side,
        is_request: bool,
        ids: Option<Ids<'_>>,
        call_id: &[u8],
        from: &[u8],
        cseq: CSeq,
    ) {
        let now = self.sx.now;
        let Some(invite) = invite::Key::new(client, call_id, from) else { return };
        match (is_request, ids) {
            (true, None) if cseq.method == MethodName::Invite => {
                let evicted = self.invites.counts()[0].1;
                self.invites.request(now, invite, packet, message, cseq);
                if self.invites.counts()[0].1 > evicted {
                    self.sx.tell_limit("pending", self.sx.limits.pending);
                }
            }
            (true, None) => {}
            (true, Some(ids)) => {
                // An early dialog: the caller's tag is one of the two.
                let (server, peer) = (
                    invite::Key::new(Side::Server, call_id, ids.local),
                    invite::Key::new(Side::Peer, call_id, ids.remote),
                );
                let known =
                    [server, peer].into_iter().flatten().any(|key| self.invites.early(&key, client, message, cseq));
                if !known {
                    self.sx.stats.unknown_dialog += 1;
                }
            }
            (false, _) if cseq.method != MethodName::Invite => {}
            (false, _) => match message.status() {
                Some(..200) => self.invites.provisional(now, &invite, ids.map(|ids| callee(ids, client)), message),
                Some(200..300) => {
                    if let Some(ids) = ids {
                        self.establish(packet, message, client, ids, &invite);
                    }
                }
                Some(300..) => self.invites.turned_down(&invite, message),
                None => {}
            },
        }
    }

    /// A 2xx to an INVITE makes a dialog, one for each tag (forks).
    fn establish(
        &mut self,
        packet: &Packet<'_>,
        message: &Message<'_>,
        caller: Side,
        ids: Ids<'_>,
        invite: &invite::Key,
    ) {
        let Some(pending) = self.invites.answered(invite, message) else {
            self.sx.stats.unknown_dialog += 1;
            return;
        };
        if self.dialogs.len() >= self.sx.limits.sessions {
            self.sx.stats.refused_sessions += 1;
            return self.sx.tell_limit("sessions", self.sx.limits.sessions);
        }
        let mut pending = pending.clone();
        // The same call the other way round: this host passes it on.
        let mirror = self.index.get(&key(Ids { local: ids.remote, remote: ids.local, ..ids })).copied();
        if let Some(mirror) = mirror.and_then(|mirror| self.dialogs.get_mut(&mirror)) {
            mirror.relayed = true;
            pending.relayed = true;
        }
        let id = SessionId(self.next);
        if let Some(dialog) = Dialog::new(&mut self.sx, id, ids, caller, &pending, packet, message) {
            self.next += 1;
            self.index.insert(key(ids), id);
            self.dialogs.insert(id, dialog);
        }
    }

    fn forget(&mut self, session: SessionId) {
        if let Some(dialog) = self.dialogs.remove(&session) {
            let ids = Ids { call_id: &dialog.call_id, local: &dialog.local_tag, remote: &dialog.remote_tag };
            self.index.remove(&key(ids));
        }
    }
}

/// The tag of whoever was called.
fn callee<'a>(ids: Ids<'a>, caller: Side) -> &'a [u8] {
    match caller {
        Side::Server => ids.remote,
        Side::Peer => ids.local,
    }
}

/// What a dialog is found by: its identifiers, each behind its length.
fn key(ids: Ids<'_>) -> Vec<u8> {
    let mut key = Vec::with_capacity(12 + ids.call_id.len() + ids.local.len() + ids.remote.len());
    for id in [ids.call_id, ids.local, ids.remote] {
        key.extend_from_slice(&(id.len() as u32).to_be_bytes());
        key.extend_from_slice(id);
    }
    key
}
