//! INVITEs that have no final response yet. What a stranger sends counts once the server answers; until then it lies in a
//! table of its own, where a flood can only displace other strangers.

use std::{
    hash::{BuildHasherDefault, Hash, Hasher},
    net::SocketAddr,
    ops::BitXor,
    sync::Arc,
    time::Duration,
};

use super::{
    ahead::{of_each_line, of_first_line},
    bounded::Bounded,
    hash::{Fingerprint, Plain, Secret},
    heard::{Heard, Named},
    limits::{Limits, MAX_FORKS, MAX_INVITE, MAX_TRIES},
    numbers::Numbers,
    sdp::Said,
    timers::TRANSACTION,
};
use crate::{
    Assist, Side, Time,
    message::{Body, MethodName},
};

/// How long an INVITE may be silent before it is forgotten (RFC 3261, section 16.6: timer C is more than three minutes,
/// and a call that rings on is announced every minute).
pub(super) const SILENCE: Duration = Duration::from_secs(300);

/// Which side called, and what stands for Call-ID and caller's tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    caller: Side,
    call: Fingerprint,
}

impl Key {
    pub(super) fn new(secret: Secret, caller: Side, call_id: &[u8], tag: &[u8]) -> Self {
        Self { caller, call: secret.key([call_id, tag]) }
    }

    fn mirrored(&self) -> Self {
        Self { caller: self.caller.other(), ..*self }
    }
}

impl Hash for Key {
    /// The same for both sides: a call that comes in and leaves is rare.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.call.hash(state);
    }
}

/// They go from one table into another.
type Calls = Bounded<Key, Box<Pending>, BuildHasherDefault<Plain>>;

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
    /// What the kernel programs have made of it.
    pub(super) assist: Option<Assist>,
}

impl Invite {
    /// Whether this is the request whose transaction a response, or the ACK to a failure, names.
    pub(super) fn is_answered_by(&self, heard: &Heard<'_>) -> bool {
        self.branch.is_some() && heard.branch() == self.branch.as_deref()
    }

    /// Whether a copy or a response is of this try. What comes from the peer to the server's own has to name the branch, as any
    /// client demands (RFC 3261, section 17.1.3): who only knows the call's other names makes no dialog and says
    /// nothing in one. What the server says
    /// needs no proof, and a peer's INVITE may come by several ways.
    fn is_tried_by(&self, heard: &Heard<'_>) -> bool {
        let branch = || heard.client == Side::Peer || self.branch.as_deref() == heard.branch();
        self.number == heard.cseq.number && branch()
    }

    pub(super) fn new(heard: &Heard<'_>) -> Self {
        let packet = heard.packet;
        Self {
            bytes: packet.bytes[..packet.bytes.len().min(MAX_INVITE)].to_vec(),
            truncated: packet.truncated || packet.bytes.len() > MAX_INVITE,
            number: heard.cseq.number,
            branch: heard.branch().map(<[u8]>::to_vec),
            server: packet.server,
            peer: packet.peer,
            cookie: packet.cookie,
            tos: packet.tos,
            ttl: packet.ttl,
            assist: heard.assist,
        }
    }
}

/// What went on around the INVITEs of one call before the 2xx.
#[derive(Clone, Debug, Default)]
pub(super) struct Early {
    /// The server's own numbers.
    pub(super) numbers: Numbers,
    /// The peer's.
    pub(super) peer_numbers: Numbers,
    /// This host passes the call on: it is no end of it.
    pub(super) relayed: bool,
    /// The last session description in a provisional response, and the tag of whoever sent it.
    pub(super) said: Option<(Vec<u8>, Said)>,
    /// The INVITE that made the dialog was not seen.
    pub(super) mid_call: bool,
    /// Offers went to and fro: which SDP the server sent last is not known.
    pub(super) disturbed: bool,
    /// The INVITE must have had a 2xx, which went by unseen.
    pub(super) answered_unseen: bool,
    /// The callee's tags of dialogs that the server has left by a BYE: a copy of a 2xx that comes later begins none.
    pub(super) left: Vec<Vec<u8>>,
}

/// A call that is being set up.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    /// The tries of the caller, oldest first: after a challenge, say.
    tries: Vec<Arc<Invite>>,
    early: Early,
    heard: Time,
    /// Dialogs that it has made.
    forks: usize,
}

impl Pending {
    /// For [`super::Engine::look_ahead`].
    pub(super) fn glance(&self) -> usize {
        self.tries.len() ^ self.forks ^ self.early.left.len()
    }

    /// The same of what hangs on it.
    pub(super) fn glance_at_parts(&self, is_answered: bool) -> usize {
        let tries = self.tries.iter().map(|invite| {
            let bytes = if is_answered { of_each_line(&invite.bytes) } else { 0 };
            bytes ^ invite.number as usize ^ invite.branch.as_ref().map_or(0, |branch| of_first_line(branch))
        });
        tries.fold(0, BitXor::bitxor)
    }
}

/// All of them.
pub(super) struct Invites {
    known: Calls,
    strangers: Calls,
    /// Those that have had a 2xx: others may follow from other forks.
    answered: Calls,
    refused_forks: u64,
    evicted_tries: u64,
}

impl Invites {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            known: Bounded::new(limits.pending, BuildHasherDefault::default()),
            strangers: Bounded::new(limits.strangers, BuildHasherDefault::default()),
            answered: Bounded::new(limits.pending, BuildHasherDefault::default()),
            refused_forks: 0,
            evicted_tries: 0,
        }
    }

    /// How many 2xx were not taken in because of [`MAX_FORKS`].
    pub(super) fn refused_forks(&self) -> u64 {
        self.refused_forks
    }

    /// How many INVITEs had to go because of [`MAX_TRIES`].
    pub(super) fn evicted_tries(&self) -> u64 {
        self.evicted_tries
    }

    /// Numbers of INVITEs here, and of those that had to go: known ones, then strangers'.
    pub(super) fn counts(&self) -> [(usize, u64); 2] {
        [(self.known.len(), self.known.evicted()), (self.strangers.len(), self.strangers.evicted())]
    }

    /// Takes in an INVITE without a To tag.
    pub(super) fn request(&mut self, now: Time, key: Key, heard: &Heard<'_>) {
        let (length, cseq) = (super::streamed::length(heard.packet), heard.cseq);
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
        let mut pending = before
            .unwrap_or_else(|| Box::new(Pending { tries: Vec::new(), early: Early::default(), heard: now, forks: 0 }));
        pending.heard = now;
        if key.caller == Side::Server {
            pending.early.numbers.saw(cseq, length);
            pending.early.relayed |= relayed || heard.has_more_vias;
        }
        // Else it is a copy, or the same by another way: a proxy has forked it.
        if let Some(known) = pending.tries.iter_mut().find(|known| known.is_tried_by(heard)) {
            // Which of its copies is answered is not known.
            if heard.assist == Some(Assist::Done) && known.assist != heard.assist {
                Arc::make_mut(known).assist = heard.assist;
            }
        } else {
            if pending.tries.len() >= MAX_TRIES {
                pending.tries.remove(0);
                self.evicted_tries += 1;
            }
            pending.tries.push(Arc::new(Invite::new(heard)));
            pending.early.answered_unseen = false;
        }
        home.insert(key, pending);
    }

    /// Takes in a provisional response of whoever has that tag.
    pub(super) fn provisional(&mut self, now: Time, key: &Key, tag: Option<&[u8]>, heard: &Heard<'_>) {
        let response = heard.message;
        // A 100 is the work of the server's transaction layer, whatever it will make of the call.
        if response.status() != Some(100)
            && let Some(stranger) = self.strangers.remove(key)
        {
            self.known.insert(*key, stranger);
        }
        let tried = |pending: &&mut Box<Pending>| pending.tries.iter().any(|invite| invite.is_tried_by(heard));
        let Some(pending) = self.known.get_mut(key).filter(tried) else { return };
        pending.heard = now;
        let said = Said::by(response);
        if let Some(tag) = tag.filter(|_| said != Said::Nothing) {
            pending.early.said = Some((tag.to_vec(), said));
        }
        // Keeps its place among the youngest.
        self.known.touch_existing(key);
    }

    /// Takes in a request of an early dialog; `false` where there is none, or where it can be none any more: a 2xx has its
    /// ACK, or there is a second INVITE (RFC 3261, section 14), and no 2xx was seen.
    pub(super) fn early(&mut self, key: &Key, heard: &Heard<'_>) -> bool {
        let Heard { packet, message, named: Named { client: sender, cseq, .. }, .. } = *heard;
        let Some(pending) = self.get_mut(key) else { return false };
        let Pending { tries, early, .. } = &mut **pending;
        let acks_2xx = cseq.method == MethodName::Ack && !tries.iter().any(|invite| invite.is_answered_by(heard));
        early.answered_unseen |= acks_2xx || cseq.method == MethodName::Invite;
        if sender == Side::Server {
            early.numbers.saw(cseq, super::streamed::length(packet));
            let callee = heard.ids.map(|ids| ids.callee(key.caller));
            if let Some(callee) = callee.filter(|_| cseq.method == MethodName::Bye && early.left.len() < MAX_FORKS) {
                early.left.push(callee.to_vec());
            }
        } else {
            early.peer_numbers.saw_peers(cseq);
        }
        let offers = matches!(cseq.method, MethodName::Update | MethodName::Prack) && message.body() != Body::None;
        early.disturbed |= offers;
        !early.answered_unseen
    }

    /// The INVITE that a 2xx with a new tag of the callee's belongs to; `None` also where it has made too many dialogs already:
    /// whoever is called can make up tags without end.
    pub(super) fn answered(
        &mut self,
        now: Time,
        key: &Key,
        callee: &[u8],
        answer: &Heard<'_>,
    ) -> Option<(Arc<Invite>, Early)> {
        let pending = self.get_mut(key).filter(|pending| !pending.early.left.iter().any(|left| left == callee))?;
        let invite = pending.tries.iter().find(|invite| invite.is_tried_by(answer))?.clone();
        if pending.forks >= MAX_FORKS {
            self.refused_forks += 1;
            return None;
        }
        pending.forks += 1;
        let early = pending.early.clone();
        if let Some(mut pending) = self.known.remove(key).or_else(|| self.strangers.remove(key)) {
            self.expire(now);
            pending.heard = now;
            self.answered.insert(*key, pending);
        }
        Some((invite, early))
    }

    /// Takes away the INVITE that a final response turns down, and tells which that is.
    pub(super) fn turned_down(&mut self, key: &Key, response: &Heard<'_>) -> Option<Arc<Invite>> {
        let branch = response.branch();
        let pending = self.get_mut(key)?;
        let turned_down = pending.tries.iter().find(|invite| invite.is_answered_by(response)).cloned();
        pending.tries.retain(|invite| invite.branch.as_deref() != branch);
        if pending.tries.is_empty() {
            self.known.remove(key);
            self.strangers.remove(key);
            self.answered.remove(key);
        }
        turned_down
    }

    /// Those of a call.
    pub(super) fn find(&self, key: &Key) -> Option<&Pending> {
        [&self.known, &self.strangers, &self.answered]
            .into_iter()
            .find_map(|table| table.get(key))
            .map(|found| &**found)
    }

    fn get_mut(&mut self, key: &Key) -> Option<&mut Box<Pending>> {
        [&mut self.known, &mut self.strangers, &mut self.answered].into_iter().find_map(|table| table.get_mut(key))
    }

    fn expire(&mut self, now: Time) {
        for (table, silence) in
            [(&mut self.known, SILENCE), (&mut self.strangers, SILENCE), (&mut self.answered, TRANSACTION)]
        {
            while let Some(key) =
                table.oldest().filter(|(_, pending)| now.since(pending.heard) > silence).map(|(key, _)| *key)
            {
                table.remove(&key);
            }
        }
    }
}
