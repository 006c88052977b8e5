//! What sipst itself has done to packets: each that it sent, took, held back or rewrote, for whoever keeps or shows them.

use std::net::SocketAddr;

use st_core::{Assist, Datagram, Direction, Packet, Time, message::Message};
use st_ebpf::{
    abi::{CAPTURE, kind},
    scan::{MAX_STEPS, Window},
    timers::{Edit, ITEM, LINE, List, ONLY, Reading, SUPPORTED},
};

use crate::{
    output::printable,
    ring::{self, Record},
};

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A request of sipst's own has left.
    Sent,
    /// A response in the server's name has left, an ACK in the peer's, or what was held back as it was.
    SentBeside,
    /// An answer to a request of sipst's own was taken off the wire.
    TookAnswer,
    /// An ACK of the peer's to a response in the server's name was taken off the wire.
    TookAck,
    /// A refusal of the server's is held back.
    Held,
    /// It is rewritten, and this is what it was.
    Before(Numbers),
    /// This is what it has become.
    Rewritten(Numbers),
    /// An INVITE is made to offer session timers, and this is what it was.
    Unassisted,
    /// This is what it has become.
    Assisted,
}

/// What a number was, and what it has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Before.
    pub before: u32,
    /// After.
    pub after: u32,
}

/// A packet, and what was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// What.
    pub deed: Deed,
    /// When, by the wall clock.
    pub time: Time,
    /// By which interface; 0 where that is not known.
    pub interface: u32,
    /// From there.
    pub from: SocketAddr,
    /// To there.
    pub to: SocketAddr,
    /// TOS or traffic class.
    pub tos: u8,
    /// TTL or hop limit, 0 where it is not known.
    pub ttl: u8,
    /// Whether `bytes` are not all.
    pub truncated: bool,
    /// The message.
    pub bytes: Vec<u8>,
}

impl Sighting {
    /// What a record of the ring shows of sipst's own doing. `wall` turns its time into the wall clock's.
    pub fn of_record(record: &[u8], wall: impl FnOnce(u64) -> Time) -> impl Iterator<Item = Self> {
        let seen = match ring::decode(record) {
            Some(Record::Assisted { time_ns, packet, assist: Assist::Done }) => {
                let before = Self::of_packet(Deed::Unassisted, wall(time_ns), &packet);
                let after = assisted(packet.bytes, packet.direction).map(|bytes| Self {
                    deed: Deed::Assisted,
                    bytes,
                    ..before.clone()
                });
                [Some(before), after]
            }
            Some(
                Record::Seen { time_ns, packet }
                | Record::Joined { time_ns, packet }
                | Record::Held { time_ns, packet }
                | Record::Copy { time_ns, packet },
            ) => [deed(record).map(|deed| Self::of_packet(deed, wall(time_ns), &packet)), None],
            Some(Record::Assisted { .. } | Record::Segment { .. } | Record::Refused { .. }) | None => [None, None],
        };
        seen.into_iter().flatten()
    }

    fn of_packet(deed: Deed, time: Time, packet: &Packet<'_>) -> Self {
        let &Packet { direction, server, peer, interface, tos, ttl, truncated, bytes, .. } = packet;
        // What goes to the server in the peer's name leaves the other way, and is turned round.
        let turned = deed == Deed::Sent && in_the_peers_name(bytes);
        let (from, to) = match direction {
            Direction::Egress if !turned => (server, peer),
            Direction::Egress | Direction::Ingress => (peer, server),
        };
        Self { deed, time, interface, from, to, tos, ttl, truncated, bytes: bytes.to_vec() }
    }

    /// A message that has left from a raw socket, and is no request of sipst's own.
    pub fn of_datagram(time: Time, datagram: &Datagram) -> Self {
        let &Datagram { server, peer, tos, ttl, ref bytes, .. } = datagram;
        // Of these only an ACK is in the peer's name, and turned round.
        let (from, to) = if bytes.starts_with(b"ACK ") { (peer, server) } else { (server, peer) };
        let bytes = bytes.clone();
        Self { deed: Deed::SentBeside, time, interface: 0, from, to, tos, ttl, truncated: false, bytes }
    }

    /// The Call-ID.
    pub fn call_id(&self) -> String {
        let message = Message::scan(&self.bytes, self.truncated).ok();
        let call_id = message.as_ref().and_then(Message::call_id).unwrap_or_default();
        String::from_utf8_lossy(call_id).into_owned()
    }

    /// What was done and to what, in words.
    pub fn words(&self) -> String {
        let message = Message::scan(&self.bytes, self.truncated).ok();
        let cseq = message.as_ref().and_then(Message::cseq);
        let method = self.bytes.split(|byte| *byte == b' ').next().map(String::from_utf8_lossy).unwrap_or_default();
        let status = message.as_ref().and_then(Message::status);
        let what = match (status, &cseq) {
            (Some(status), Some(cseq)) => format!("{status} to {}", cseq.method.name()),
            (Some(status), None) => status.to_string(),
            (None, _) => method.into_owned(),
        };
        let call = printable(&self.call_id());
        let of_number = |number: u32| {
            if cseq.as_ref().is_some_and(|cseq| cseq.number == number) { "CSeq" } else { "a quoted number" }
        };
        match self.deed {
            Deed::Sent => {
                let whose = if in_the_peers_name(&self.bytes) { "the peer's" } else { "the server's" };
                let refresh =
                    if matches!(&*what, "UPDATE" | "INVITE") && whose == "the server's" { "refresh " } else { "" };
                format!("sent {refresh}{what} in {whose} name in call {call}")
            }
            Deed::SentBeside => format!("sent {what} in call {call}"),
            Deed::TookAnswer => format!("took answer {what} in call {call}"),
            Deed::TookAck => format!("took ACK in call {call}: the server has not sent what it is for"),
            Deed::Held => format!("held refusal {what} in call {call}"),
            Deed::Before(Numbers { before, after }) => {
                format!("rewritten: {} {before} -> {after}: as it was, {what} in call {call}", of_number(before))
            }
            Deed::Rewritten(Numbers { before, after }) => {
                format!("rewritten: {} {before} -> {after}: as it is, {what} in call {call}", of_number(after))
            }
            Deed::Unassisted => format!("made to offer session timers: as it was, {what} in call {call}"),
            Deed::Assisted => format!("made to offer session timers: as it is, {what} in call {call}"),
        }
    }
}

/// What was done to the packet of a record.
fn deed(record: &[u8]) -> Option<Deed> {
    let (kind, token) = ring::kind_and_token(record)?;
    let [before, after] = [(token >> 32) as u32, token as u32];
    let numbers = Numbers { before, after };
    Some(match kind {
        kind::INJECTED => Deed::Sent,
        kind::ANSWER => Deed::TookAnswer,
        kind::TAKEN => Deed::TookAck,
        kind::HELD => Deed::Held,
        kind::BEFORE => Deed::Before(numbers),
        kind::REWRITTEN => Deed::Rewritten(numbers),
        _ => return None,
    })
}

/// What st_egress has made of an INVITE of the server's, or the ingress programs of one of the peer's, by the same reading.
fn assisted(bytes: &[u8], direction: Direction) -> Option<Vec<u8>> {
    let mut window = Box::new(Window { bytes: [0; CAPTURE + 16] });
    window.bytes.get_mut(..bytes.len().min(CAPTURE))?.copy_from_slice(bytes.get(..bytes.len().min(CAPTURE))?);
    let list = match direction {
        Direction::Egress => List::Supported,
        Direction::Ingress => List::Require,
    };
    let mut reading = Reading::default();
    reading.begin(bytes.len() as u32, list);
    (0..MAX_STEPS).find(|_| reading.step(&window))?;
    let edit = match list {
        List::Supported => reading.offer(),
        List::Require => reading.soften()?,
    };
    let (at, text, over): (u32, &[u8], usize) = match edit.ok()? {
        Edit::Line(at) => (at, &LINE, 0),
        Edit::Item(at) => (at, &ITEM, 0),
        Edit::Only(at) => (at, &ONLY, 0),
        Edit::Soften(at) => (at, &SUPPORTED, SUPPORTED.len()),
    };
    let (before, rest) = bytes.split_at_checked(at as usize)?;
    Some([before, text, rest.get(over..)?].concat())
}

fn in_the_peers_name(bytes: &[u8]) -> bool {
    let via =
        Message::scan(bytes, false).ok().and_then(|message| message.top_via().map(|via| via.peer_token().is_some()));
    via.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invite_that_was_made_to_offer_timers_is_shown_as_it_left() {
        let invite =
            |more: &str| format!("INVITE sip:b@c SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n{more}\r\nv=0\r\n");
        let cases = [
            (Direction::Egress, "", "Supported: timer\r\n"),
            (Direction::Egress, "k: 100rel\r\n", "k: 100rel,  timer\r\n"),
            (Direction::Egress, "Supported:\r\n", "Supported: timer\r\n"),
            (Direction::Ingress, "require: timer\r\n", "k:       timer\r\n"),
        ];
        for (direction, before, after) in cases {
            let found = assisted(invite(before).as_bytes(), direction).map(|bytes| String::from_utf8(bytes).unwrap());
            assert_eq!(found, Some(invite(after)), "{before}");
        }
        assert_eq!(assisted(invite("Supported: timer\r\n").as_bytes(), Direction::Egress), None);
        assert_eq!(assisted(invite("Require: timer, x\r\n").as_bytes(), Direction::Ingress), None);
    }
}
