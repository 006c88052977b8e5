//! INVITEs that have no final response yet. What a stranger sends counts once the server answers; until then it lies in a
//! table of its own, where a flood can only displace other strangers.

use std::{net::SocketAddr, time::Duration};

use super::{
    bounded::Bounded,
    limits::{Limits, MAX_IDENTIFIER, MAX_INVITE},
    numbers::Numbers,
    sdp::Said,
};
use crate::{
    Packet, Side, Time,
    message::{Body, CSeq, Message, MethodName},
};

/// How long an INVITE may be silent before it is forgotten (RFC 3261, section 16.6: timer C is more than three minutes,
/// and a call that rings on is announced every minute).
const SILENCE: Duration = Duration::from_secs(300);

/// Call-ID and caller's tag, and which side called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    caller: Side,
    call_id: Box<[u8]>,
    tag: Box<[u8]>,
}

impl Key {
    pub(super) fn new(caller: Side, call_id: &[u8], tag: &[u8]) -> Option<Self> {
        (call_id.len() <= MAX_IDENTIFIER && tag.len() <= MAX_IDENTIFIER).then(|| Self {
            caller,
            call_id: call_id.into(),
            tag: tag.into(),
        })
    }

    fn mirrored(&self) -> Self {
        Self { caller: self.caller.other(), ..self.clone() }
    }
}

/// One INVITE outside a dialog.
#[derive(Clone, Debug)]
pub(super) struct Invite {
    /// The message; shorter than it was where `truncated`.
    pub(super) bytes: Vec<u8>,
    pub(super) truncated: bool,
    pub(super) branch: Option<Vec<u8>>,
    pub(super) server: SocketAddr,
    pub(super) peer: SocketAddr,
    /// Cookie of the server's socket, where the server called.
    pub(super) cookie: u64,
    /// The server's own numbers so far.
    pub(super) numbers: Numbers,
    /// This host passes the call on: it is no end of it.
    pub(super) relayed: bool,
    /// The last session description in a provisional response, and the tag of whoever sent it.
    pub(super) early: Option<(Vec<u8>, Said)>,
    /// Offers went to and fro before the 2xx: which SDP the server sent last is not known.
    pub(super) disturbed: bool,
    heard: Time,
}

impl Invite {
    /// Whether a response is for it and not for an earlier try of the same caller.
    fn is_answered_by(&self, response: &Message<'_>) -> bool {
        self.branch.as_deref() == response.top_via().and_then(|via| via.branch)
    }
}

/// All of them.
pub(super) struct Invites {
    known: Bounded<Key, Invite>,
    strangers: Bounded<Key, Invite>,
}

impl Invites {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { known: Bounded::new(limits.pending), strangers: Bounded::new(limits.strangers) }
    }

    /// Numbers of INVITEs here, and of those that had to go: known ones, then strangers'.
    pub(super) fn counts(&self) -> [(usize, u64); 2] {
        [(self.known.len(), self.known.evicted()), (self.strangers.len(), self.strangers.evicted())]
    }

    /// Takes in an INVITE without a To tag.
    pub(super) fn request(&mut self, now: Time, key: Key, packet: &Packet<'_>, message: &Message<'_>, cseq: CSeq) {
        self.expire(now);
        let branch = message.top_via().and_then(|via| via.branch).map(<[u8]>::to_vec);
        let before = self.get_mut(&key);
        if let Some(before) = before {
            before.heard = now;
            if branch.is_some() && before.branch == branch {
                return;
            }
        }
        // Another branch: the caller tries again, after a challenge, say.
        let mut numbers = self.get_mut(&key).map(|before| before.numbers).unwrap_or_default();
        if key.caller == Side::Server {
            numbers.saw(cseq);
        }
        let mirror = self.get_mut(&key.mirrored());
        let relayed = (key.caller == Side::Server && message.via_count() > 1) || mirror.is_some();
        if let Some(mirror) = mirror {
            mirror.relayed = true;
        }
        let invite = Invite {
            bytes: packet.bytes[..packet.bytes.len().min(MAX_INVITE)].to_vec(),
            truncated: packet.truncated || packet.bytes.len() > MAX_INVITE,
            branch,
            server: packet.server,
            peer: packet.peer,
            cookie: packet.cookie,
            numbers,
            relayed,
            early: None,
            disturbed: false,
            heard: now,
        };
        self.strangers.remove(&key);
        let answered = self.known.remove(&key).is_some();
        match key.caller {
            Side::Server => self.known.insert(key, invite),
            Side::Peer if answered => self.known.insert(key, invite),
            Side::Peer => self.strangers.insert(key, invite),
        }
    }

    /// Takes in a provisional response.
    pub(super) fn provisional(&mut self, now: Time, key: &Key, tag: Option<&[u8]>, response: &Message<'_>) {
        if let Some(stranger) = self.strangers.remove(key) {
            self.known.insert(key.clone(), stranger);
        }
        let Some(invite) = self.known.get_mut(key) else { return };
        invite.heard = now;
        let said = Said::by(response);
        if let Some(tag) = tag.filter(|_| said != Said::Nothing) {
            invite.early = Some((tag.to_vec(), said));
        }
        // Keeps its place among the youngest.
        self.known.touch_existing(key);
    }

    /// Takes in a request of an early dialog; `false` where there is none. `caller_tag` is the caller's tag.
    pub(super) fn early(&mut self, key: &Key, sender: Side, message: &Message<'_>, cseq: CSeq) -> bool {
        let Some(invite) = self.get_mut(key) else { return false };
        if sender == Side::Server {
            invite.numbers.saw(cseq);
        }
        let offers = matches!(cseq.method, MethodName::Update | MethodName::Prack) && message.body() != Body::None;
        invite.disturbed |= offers;
        true
    }

    /// The INVITE that a 2xx belongs to.
    pub(super) fn answered(&mut self, key: &Key, response: &Message<'_>) -> Option<&Invite> {
        self.get_mut(key).filter(|invite| invite.is_answered_by(response)).map(|invite| &*invite)
    }

    /// Takes away the INVITE that a final response turns down.
    pub(super) fn turned_down(&mut self, key: &Key, response: &Message<'_>) {
        if self.get_mut(key).is_some_and(|invite| invite.is_answered_by(response)) {
            self.known.remove(key);
            self.strangers.remove(key);
        }
    }

    fn get_mut(&mut self, key: &Key) -> Option<&mut Invite> {
        match self.known.get_mut(key) {
            Some(invite) => Some(invite),
            None => self.strangers.get_mut(key),
        }
    }

    fn expire(&mut self, now: Time) {
        for table in [&mut self.known, &mut self.strangers] {
            while let Some(key) =
                table.oldest().filter(|(_, old)| now.since(old.heard) > SILENCE).map(|(key, _)| key.clone())
            {
                table.remove(&key);
            }
        }
    }
}
