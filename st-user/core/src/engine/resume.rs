//! Calls whose INVITE was not seen: sipst was started in the middle of them, or the INVITE was lost. They are followed from
//! their next re-INVITE or UPDATE on whose 2xx has Session-Expires. What these two do not tell is not guessed: until the
//! server has sent a request of its own, its numbers and its route are not known, and sipst sends nothing.

use std::net::SocketAddr;

use super::{
    bounded::Bounded,
    dialog::{Dialog, Phase},
    hash::{Fingerprint, Secret},
    heard::Heard,
    invite::{Early, Invite, SILENCE},
    reason,
    shared::Shared,
    target::Target,
};
use crate::{
    Side, Time,
    message::{CSeq, Message, MethodName, Via},
};

/// What stands for a dialog's identifiers, and who asks.
type Key = (Fingerprint, Side);

struct Stray {
    request: Invite,
    method: MethodName,
    early: Early,
    heard: Time,
}

/// Requests inside dialogs that are not known, the last one of each side.
pub(super) struct Strays {
    waiting: Bounded<Key, Stray, Secret>,
}

impl Strays {
    pub(super) fn new(limit: usize, secret: Secret) -> Self {
        Self { waiting: Bounded::new(limit, secret) }
    }

    /// Takes in an INVITE or UPDATE inside a dialog.
    pub(super) fn request(&mut self, now: Time, key: Key, heard: &Heard<'_>) {
        let cseq = heard.cseq;
        while let Some(old) =
            self.waiting.oldest().filter(|(_, stray)| now.since(stray.heard) > SILENCE).map(|(key, _)| *key)
        {
            self.waiting.remove(&old);
        }
        let mut early = Early { mid_call: true, ..Early::default() };
        if key.1 == Side::Server {
            early.numbers.saw(cseq, super::streamed::length(heard.packet));
            early.relayed = heard.has_more_vias;
        }
        let request = Invite::new(heard);
        self.waiting.insert(key, Stray { request, method: cseq.method, early, heard: now });
    }

    /// How many had to go for others.
    pub(super) fn evicted(&self) -> u64 {
        self.waiting.evicted()
    }

    /// The request that a 2xx belongs to.
    pub(super) fn answered(&mut self, key: &Key, answer: &Heard<'_>) -> Option<(Invite, Early)> {
        self.waiting
            .get(key)
            .filter(|stray| stray.method == answer.cseq.method && stray.request.is_answered_by(answer))?;
        self.waiting.remove(key).map(|stray| (stray.request, stray.early))
    }
}

impl Dialog {
    /// Makes a dialog that was just made one that is known in part only. `asked` is the request of `sender`'s.
    pub(super) fn resume(&mut self, to: SocketAddr, asked: &Message<'_>, sender: Side, cseq: CSeq) {
        // The routes of these messages are not the dialog's (R24).
        self.target = None;
        self.barred = Some(reason::MID_CALL);
        self.catch_up(to, asked, asked.top_via(), sender, cseq.method);
    }

    /// Learns from a response what became of an INVITE that was not seen: with an UPDATE alone the dialog may be an early one.
    pub(super) fn overhear(&mut self, sx: &mut Shared, method: MethodName, status: u16) {
        if !self.mid_call || self.phase != Phase::Started || method != MethodName::Invite {
            return;
        }
        match status {
            ..200 => {}
            200..300 => self.phase = Phase::Confirmed,
            300.. => self.end(sx, None, reason::NOT_CONFIRMED.into()),
        }
    }

    /// Learns from a request what was missed.
    pub(super) fn catch_up(
        &mut self,
        to: SocketAddr,
        request: &Message<'_>,
        via: Option<Via<'_>>,
        sender: Side,
        method: MethodName,
    ) {
        if !self.mid_call {
            return;
        }
        // An UPDATE can be one of an early dialog, a second INVITE cannot (RFC 3261, section 14).
        if method == MethodName::Invite && self.phase == Phase::Started {
            self.phase = Phase::Confirmed;
        }
        // An ACK or CANCEL can have a lower number than the server's last one.
        let tells = sender == Side::Server && !matches!(method, MethodName::Ack | MethodName::Cancel);
        if tells && self.target.is_none() && !self.from.is_empty() {
            self.target = Target::learnt(to, request, via);
            if self.target.is_some() && self.barred == Some(reason::MID_CALL) {
                self.barred = None;
            }
        }
    }
}
