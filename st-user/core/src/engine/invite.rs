//! INVITEs that have no final response yet. What a stranger sends counts once the server answers; until then it lies in a
//! table of its own, where a flood can only displace other strangers.

use std::{net::SocketAddr, time::Duration};

use super::{
    bounded::Bounded,
    limits::{Limits, MAX_INVITE, MAX_TRIES},
    numbers::Numbers,
    sdp::Said,
    timers::TRANSACTION,
};
use crate::{
    Packet, Side, Time,
    message::{Body, CSeq, Message, MethodName},
};

/// How long an INVITE may be silent before it is forgotten (RFC 3261, section 16.6: timer C is more than three minutes,
/// and a call that rings on is announced every minute).
pub(super) const SILENCE: Duration = Duration::from_secs(300);

/// Call-ID and caller's tag, and which side called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    caller: Side,
    call_id: Box<[u8]>,
    tag: Box<[u8]>,
}

impl Key {
    pub(super) fn new(caller: Side, call_id: &[u8], tag: &[u8]) -> Self {
        Self { caller, call_id: call_id.into(), tag: tag.into() }
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
    number: u32,
    branch: Option<Vec<u8>>,
    pub(super) server: SocketAddr,
    pub(super) peer: SocketAddr,
    /// Cookie of the server's socket, where the server called.
    pub(super) cookie: u64,
    pub(super) tos: u8,
    pub(super) ttl: u8,
}

impl Invite {
    /// Whether this is the request that a response names.
    pub(super) fn is_answered_by(&self, response: &Message<'_>) -> bool {
        self.branch.is_some() && response.top_via().and_then(|via| via.branch) == self.branch.as_deref()
    }

    pub(super) fn new(packet: &Packet<'_>, message: &Message<'_>, cseq: CSeq) -> Self {
        Self {
            bytes: packet.bytes[..packet.bytes.len().min(MAX_INVITE)].to_vec(),
            truncated: packet.truncated || packet.bytes.len() > MAX_INVITE,
            number: cseq.number,
            branch: message.top_via().and_then(|via| via.branch).map(<[u8]>::to_vec),
            server: packet.server,
            peer: packet.peer,
            cookie: packet.cookie,
            tos: packet.tos,
            ttl: packet.ttl,
        }
    }
}

/// What went on around the INVITEs of one call before the 2xx.
#[derive(Clone, Debug, Default)]
pub(super) struct Early {
    /// The server's own numbers.
    pub(super) numbers: Numbers,
    /// This host passes the call on: it is no end of it.
    pub(super) relayed: bool,
    /// The last session description in a provisional response, and the tag of whoever sent it.
    pub(super) said: Option<(Vec<u8>, Said)>,
    /// The INVITE that made the dialog was not seen.
    pub(super) mid_call: bool,
    /// Offers went to and fro: which SDP the server sent last is not known.
    pub(super) disturbed: bool,
}

/// A call that is being set up.
#[derive(Clone, Debug)]
struct Pending {
    /// The tries of the caller, oldest first: after a challenge, say.
    tries: Vec<Invite>,
    early: Early,
    heard: Time,
}

/// All of them.
pub(super) struct Invites {
    known: Bounded<Key, Pending>,
    strangers: Bounded<Key, Pending>,
    /// Those that have had a 2xx: others may follow from other forks.
    answered: Bounded<Key, Pending>,
}

impl Invites {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            known: Bounded::new(limits.pending),
            strangers: Bounded::new(limits.strangers),
            answered: Bounded::new(limits.pending),
        }
    }

    /// Numbers of INVITEs here, and of those that had to go: known ones, then strangers'.
    pub(super) fn counts(&self) -> [(usize, u64); 2] {
        [(self.known.len(), self.known.evicted()), (self.strangers.len(), self.strangers.evicted())]
    }

    /// Takes in an INVITE without a To tag.
    pub(super) fn request(&mut self, now: Time, key: Key, packet: &Packet<'_>, message: &Message<'_>, cseq: CSeq) {
        self.expire(now);
        // It came in before it leaves; the other way round anybody could have sent it.
        let mirror = self.get_mut(&key.mirrored()).filter(|_| key.caller == Side::Server);
        let relayed = mirror.map(|mirror| mirror.early.relayed = true).is_some();
        let home = if self.known.get(&key).is_some() || key.caller == Side::Server {
            &mut self.known
        } else {
            &mut self.strangers
        };
        let before = home.remove(&key).or_else(|| self.answered.remove(&key));
        let mut pending = before.unwrap_or(Pending { tries: Vec::new(), early: Early::default(), heard: now });
        pending.heard = now;
        if key.caller == Side::Server {
            pending.early.numbers.saw(cseq);
            pending.early.relayed |= relayed || message.via_count() > 1;
        }
        // Else it is a copy, or the same by another way: a proxy has forked it.
        if pending.tries.iter().all(|known| known.number != cseq.number) {
            if pending.tries.len() >= MAX_TRIES {
                pending.tries.remove(0);
            }
            pending.tries.push(Invite::new(packet, message, cseq));
        }
        home.insert(key, pending);
    }

    /// Takes in a provisional response.
    pub(super) fn provisional(&mut self, now: Time, key: &Key, tag: Option<&[u8]>, response: &Message<'_>) {
        if let Some(stranger) = self.strangers.remove(key) {
            self.known.insert(key.clone(), stranger);
        }
        let Some(pending) = self.known.get_mut(key) else { return };
        pending.heard = now;
        let said = Said::by(response);
        if let Some(tag) = tag.filter(|_| said != Said::Nothing) {
            pending.early.said = Some((tag.to_vec(), said));
        }
        // Keeps its place among the youngest.
        self.known.touch_existing(key);
    }

    /// Takes in a request of an early dialog; `false` where there is none.
    pub(super) fn early(&mut self, key: &Key, sender: Side, message: &Message<'_>, cseq: CSeq) -> bool {
        let Some(Pending { early, .. }) = self.get_mut(key) else { return false };
        if sender == Side::Server {
            early.numbers.saw(cseq);
        }
        let offers = matches!(cseq.method, MethodName::Update | MethodName::Prack) && message.body() != Body::None;
        early.disturbed |= offers;
        true
    }

    /// The INVITE that a 2xx belongs to.
    pub(super) fn answered(&mut self, now: Time, key: &Key, cseq: CSeq) -> Option<(Invite, Early)> {
        let pending = self.get_mut(key)?;
        let invite = pending.tries.iter().find(|invite| invite.number == cseq.number)?.clone();
        let early = pending.early.clone();
        if let Some(pending) = self.known.remove(key).or_else(|| self.strangers.remove(key)) {
            self.expire(now);
            self.answered.insert(key.clone(), Pending { heard: now, ..pending });
        }
        Some((invite, early))
    }

    /// Takes away the INVITE that a final response turns down.
    pub(super) fn turned_down(&mut self, key: &Key, response: &Message<'_>) {
        let branch = response.top_via().and_then(|via| via.branch);
        let Some(pending) = self.get_mut(key) else { return };
        pending.tries.retain(|invite| invite.branch.as_deref() != branch);
        if pending.tries.is_empty() {
            self.known.remove(key);
            self.strangers.remove(key);
            self.answered.remove(key);
        }
    }

    fn get_mut(&mut self, key: &Key) -> Option<&mut Pending> {
        [&mut self.known, &mut self.strangers, &mut self.answered].into_iter().find_map(|table| table.get_mut(key))
    }

    fn expire(&mut self, now: Time) {
        for (table, silence) in
            [(&mut self.known, SILENCE), (&mut self.strangers, SILENCE), (&mut self.answered, TRANSACTION)]
        {
            let is_old = |pending: &Pending| now.since(pending.heard) > silence;
            while let Some(key) = table.oldest().filter(|(_, pending)| is_old(pending)).map(|(key, _)| key.clone()) {
                table.remove(&key);
            }
        }
    }
}
