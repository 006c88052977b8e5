//! Looking ahead: several messages are read before the first of them is handled, and what each of them will be handled with is fetched
//! into the processor's cache, for all of them at once. Most of a message's time is waiting for that memory, one piece after the
//! other. Nothing else comes of it: what is looked at is not changed.

use std::{hint::black_box, ops::BitXor, time::Duration};

use super::{
    Dialogs, Engine,
    dialog::Dialog,
    exchange::Exchange,
    hash::Fingerprint,
    heard::{Heard, Named},
    invite,
    limits::LOOK_AHEAD,
    packed::{Entry, Packed},
    target::Target,
};
use crate::{
    Assist, Packet, Time,
    message::{Message, MethodName, ScanError},
};

/// How many of the sessions are looked at beside these whose moments come next, and of those that are soon to be packed.
const FALLS_DUE: usize = 4;

/// How soon that is.
const NEAR: Duration = Duration::from_millis(10);

/// The length of a piece of the cache, in bytes, on most processors.
const LINE: usize = 64;

/// A packet that [`Engine::read`] has read.
pub struct Read<'a> {
    packet: Packet<'a>,
    scanned: Result<Message<'a>, ScanError>,
    named: Option<Named<'a>>,
    /// What its dialog is found by, where it names one.
    key: Option<Fingerprint>,
    /// What its INVITE is found by, where it is one, or the response to one.
    invite: Option<invite::Key>,
}

impl<'a> Read<'a> {
    pub(super) fn packet(&self) -> &Packet<'a> {
        &self.packet
    }

    /// Whether it is a message.
    pub(super) fn is_message(&self) -> bool {
        self.scanned.is_ok()
    }

    /// What its dialog is found by, where it names one.
    pub(super) fn key(&self) -> Option<Fingerprint> {
        self.key
    }

    /// What its INVITE is found by, where it is one, or the response to one.
    pub(super) fn invite(&self) -> Option<invite::Key> {
        self.invite
    }

    /// Whether what it belongs to may be over by it, or become something else.
    fn ends(&self) -> bool {
        let status = self.scanned.as_ref().ok().and_then(Message::status);
        match self.named.map(|named| named.cseq.method) {
            Some(MethodName::Bye) => true,
            Some(MethodName::Invite) => status.is_some_and(|status| status >= 200),
            _ => false,
        }
    }

    pub(super) fn heard(&'a self, assist: Option<Assist>) -> Option<Heard<'a>> {
        let message = self.scanned.as_ref().ok()?;
        Some(Heard { packet: &self.packet, message, named: self.named?, assist })
    }
}

/// What a message belongs to.
#[derive(Clone, Copy)]
enum Found<'e> {
    Nothing,
    Open(&'e Dialog),
    Packed(&'e Packed),
    Pending(&'e invite::Pending),
}

impl<'e> Found<'e> {
    fn of(entry: &'e Entry) -> Self {
        match entry {
            Entry::Open(dialog) => Self::Open(dialog),
            Entry::Packed(packed) => Self::Packed(packed),
        }
    }
}

impl Engine {
    /// Reads a packet, so that it can be handed over by [`Engine::handle_read`], to this engine and no other. What happens meanwhile
    /// does not matter.
    pub fn read<'a>(&self, packet: Packet<'a>) -> Read<'a> {
        let scanned = Message::scan(packet.bytes, packet.truncated);
        let named = scanned.as_ref().ok().and_then(|message| Named::read(packet.direction, message));
        let key = named.and_then(|named| named.ids).map(|ids| self.key(ids));
        let invite = named.filter(|named| named.cseq.method == MethodName::Invite).map(|named| {
            let Named { client, call_id, from, .. } = named;
            invite::Key::new(self.sx.secret, client, call_id, from)
        });
        Read { packet, scanned, named, key, invite }
    }

    /// Fetches what these will be handled with, or the first [`LOOK_AHEAD`] of them.
    pub fn look_ahead<'r, 'b: 'r>(&self, read: impl IntoIterator<Item = &'r Read<'b>>) {
        // One step for all of them after the other: where the next step leads is only known when this one's memory is there.
        let mut found = [(Found::Nothing, false); LOOK_AHEAD + 2 * FALLS_DUE];
        let messages = read.into_iter().take(LOOK_AHEAD).map(|read| (self.find(read), read.ends()));
        for (found, one) in found.iter_mut().zip(messages.chain(self.falls_due().map(|found| (found, true)))) {
            *found = one;
        }
        let glance = |(found, _): &(Found<'_>, bool)| match found {
            Found::Nothing => 0,
            Found::Open(dialog) => dialog.glance(),
            Found::Packed(packed) => packed.glance(),
            Found::Pending(pending) => pending.glance(),
        };
        let parts = |(found, ends): &(Found<'_>, bool)| match found {
            Found::Nothing | Found::Packed(_) => 0,
            Found::Open(dialog) => dialog.glance_at_parts(*ends) ^ self.sx.timers.glance(dialog.id),
            Found::Pending(pending) => pending.glance_at_parts(*ends),
        };
        black_box(found.iter().map(glance).fold(0, BitXor::bitxor));
        black_box(found.iter().map(parts).fold(0, BitXor::bitxor));
    }

    /// Takes in a packet that was read, as [`Engine::handle_packet`] does.
    pub fn handle_read(&mut self, now: Time, read: &Read<'_>) {
        self.take_in(now, read, None);
    }

    /// What its first moments come for while these are handled, and what is looked at to be packed.
    fn falls_due(&self) -> impl Iterator<Item = Found<'_>> {
        let (sx, Dialogs { all, keys, packing, .. }) = (&self.sx, &self.dialogs);
        let until = sx.now + NEAR;
        let due = sx.timers.queued(until).take(FALLS_DUE).chain(packing.looked_at(sx, until).take(FALLS_DUE));
        due.filter_map(|session| all.get(&keys.get(session)?)).map(Found::of)
    }

    fn find(&self, read: &Read<'_>) -> Found<'_> {
        if let Some(entry) = read.key.and_then(|key| self.dialogs.all.get(&key)) {
            return Found::of(entry);
        }
        let pending = read.invite.and_then(|key| self.invites.find(&key));
        pending.map_or(Found::Nothing, Found::Pending)
    }
}

/// Something of each piece of the cache that these bytes lie in.
pub(super) fn of_each_line(bytes: &[u8]) -> usize {
    bytes.iter().step_by(LINE).chain(bytes.last()).map(|byte| usize::from(*byte)).sum()
}

/// Something of the first one.
pub(super) fn of_first_line(bytes: &[u8]) -> usize {
    bytes.first().map_or(0, |byte| usize::from(*byte))
}

impl Dialog {
    /// Something of each piece of the cache that a message changes.
    fn glance(&self) -> usize {
        let moments = [self.heard, self.server_heard].map(|at| at.as_micros() as usize);
        let lengths = [self.domain.len(), self.own.len(), self.from.len(), self.to.len(), self.others.len()];
        let flags = [
            self.sdp.is_some(),
            self.peer_sdp.is_some(),
            self.target.as_ref().is_some_and(Target::glance),
            self.evidence.is_some(),
            self.responding.is_some(),
            self.barred.is_some(),
            self.streamed.is_some(),
            self.parting.is_some(),
            self.keeps.is_some(),
            self.media_read,
            self.listed,
            self.touched,
            self.is_over(),
        ];
        let flags = flags.iter().map(|flag| usize::from(*flag)).sum::<usize>();
        moments[0]
            ^ moments[1]
            ^ lengths.iter().sum::<usize>()
            ^ flags
            ^ self.cookie as usize
            ^ self.session.glance()
            ^ self.cycle.glance()
    }

    /// The same of what hangs on it. `ends`: it may be over now, and gives back what it keeps.
    fn glance_at_parts(&self, ends: bool) -> usize {
        let names = usize::from(self.names.peer.port());
        let exchanges = self.exchanges.all().iter().map(Exchange::glance).fold(0, BitXor::bitxor);
        let target = self.target.as_ref().map_or(0, |target| of_first_line(target.uri()));
        let parts = names ^ exchanges ^ target ^ self.look.glance() ^ of_first_line(self.domain.as_bytes());
        if !ends {
            return parts;
        }
        let sdp = self.sdp.as_ref().map_or(0, |sdp| of_first_line(&sdp.content_type) ^ of_first_line(&sdp.bytes));
        let peer_sdp = self.peer_sdp.as_ref().map_or(0, |sdp| of_first_line(sdp));
        let target = self.target.as_ref().map_or(0, Target::glance_at_routes);
        let evidence = self.evidence.as_ref().map_or(0, |evidence| evidence.flows().len());
        parts ^ sdp ^ peer_sdp ^ target ^ evidence ^ of_first_line(&self.from) ^ of_first_line(&self.to)
    }
}
