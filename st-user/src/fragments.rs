//! Messages that come in IP fragments, put together from the ring's records of them into one record, as of a whole message.
//! What the server sends and what comes from outside wait apart: no flood displaces the server's own.

use std::{
    mem::offset_of,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use st_core::{
    Time,
    reassembly::{Counts, Fragment, Id, Outcome, PATIENCE, Reassembly},
};
use st_ebpf::abi::{SampleHeader, direction, flags, kind, place};

/// Length of the UDP header, which is a part of the first fragment, but not of its record.
const UDP: usize = 8;

/// A record's header.
const HEADER: usize = size_of::<SampleHeader>();

macro_rules! field {
    ($record:expr, $name:ident) => {
        $record.get(offset_of!(SampleHeader, $name)..).and_then(|rest| rest.first_chunk()).copied()
    };
}

/// What a record is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// No part of a message, or of one that only the flight recorder is shown.
    None,
    /// It waits for others, or cannot be used.
    Kept,
    /// The record of the whole message, which is there now.
    Whole(Vec<u8>),
}

/// What has been lost, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Messages of which a part was never seen here, though the other side got it, or may have.
    pub(crate) unseen: u64,
    /// Messages that came in without a part.
    pub(crate) incomplete: u64,
}

/// The messages that are incomplete so far.
#[derive(Default)]
pub(crate) struct Fragments {
    out: Reassembly<Vec<u8>>,
    come: Reassembly<Vec<u8>>,
    /// How many fragments the programs have let by unread, and when there last were any.
    unread: u64,
    unread_at: Option<Time>,
}

impl Fragments {
    /// Takes a record of the ring. The time is asked for where it is part of a message: hardly any is.
    pub(crate) fn take(&mut self, now: impl FnOnce() -> Time, record: &[u8]) -> Part {
        let [Some([flags]), Some([kind]), Some([direction])] =
            [field!(record, flags), field!(record, kind), field!(record, direction)]
        else {
            return Part::None;
        };
        if record.len() < HEADER
            || flags & flags::FRAGMENT == 0
            || !matches!(kind, kind::MESSAGE | kind::INJECTED | kind::ANSWER)
        {
            return Part::None;
        }
        let Some((id, offset, more, payload)) = part(record, direction) else { return Part::Kept };
        let now = now();
        let reassembly = if direction == direction::EGRESS { &mut self.out } else { &mut self.come };
        let outcome = if offset == 0 {
            let bytes = [&[0; UDP][..], payload].concat();
            reassembly.add(now, &Fragment { id, offset, more, bytes: &bytes }, || record[..HEADER].to_vec())
        } else {
            reassembly.add(now, &Fragment { id, offset, more, bytes: payload }, Vec::new)
        };
        match outcome {
            Outcome::Whole(head, bytes) => whole(head, &bytes, record).map_or(Part::Kept, Part::Whole),
            Outcome::Waits | Outcome::Refused(_) => Part::Kept,
        }
    }

    /// What was given up since the last time. `unread`: how many fragments the programs have let by unread so far.
    pub(crate) fn lost(&mut self, now: Time, unread: u64) -> Lost {
        if unread > self.unread {
            self.unread_at = Some(now);
        }
        self.unread = unread;
        let (out, come) = (self.given_up(direction::EGRESS, now), self.given_up(direction::INGRESS, now));
        // What leaves has left in all its parts. What comes in without one is lost to the server as well, but where parts went by
        // unread: then it may have it.
        let blind = self.unread_at.is_some_and(|at| now.since(at) <= PATIENCE + Duration::from_secs(2));
        let (unseen, incomplete) = if blind { (out + come, 0) } else { (out, come) };
        Lost { unseen, incomplete }
    }

    fn given_up(&mut self, direction: u8, now: Time) -> u64 {
        let reassembly = if direction == direction::EGRESS { &mut self.out } else { &mut self.come };
        reassembly.given_up(now)
    }

    /// What was counted, both ways together.
    pub(crate) fn counts(&self) -> Counts {
        let (a, b) = (self.out.counts(), self.come.counts());
        Counts {
            whole: a.whole + b.whole,
            incomplete: a.incomplete + b.incomplete,
            headless: a.headless + b.headless,
            overlapping: a.overlapping + b.overlapping,
            too_many: a.too_many + b.too_many,
            malformed: a.malformed + b.malformed,
            displaced: a.displaced + b.displaced,
        }
    }

    /// How many messages wait for fragments.
    pub(crate) fn waiting(&self) -> usize {
        self.out.waiting().0 + self.come.waiting().0
    }
}

/// What a record says of its fragment, `None` where that was cut.
fn part(record: &[u8], direction: u8) -> Option<(Id, u16, bool, &[u8])> {
    let [flags] = field!(record, flags)?;
    let captured = u16::from_ne_bytes(field!(record, captured_len)?);
    let payload = record.get(HEADER..)?.get(..usize::from(captured))?;
    let place = u16::from_be_bytes(field!(record, place)?);
    let (server, peer) = (address(field!(record, server)?), address(field!(record, peer)?));
    let (source, destination) = if direction == direction::EGRESS { (server, peer) } else { (peer, server) };
    let identification = u32::from_be_bytes(field!(record, identification)?);
    let id = Id { source, destination, identification, protocol: libc::IPPROTO_UDP as u8 };
    (flags & flags::CUT == 0).then_some((id, place & place::OFFSET, place & place::MORE != 0, payload))
}

/// The record of a whole message: the header of its first fragment, with the time of the last that came.
fn whole(head: Vec<u8>, datagram: &[u8], last: &[u8]) -> Option<Vec<u8>> {
    let length = u16::from_ne_bytes(field!(head, wire_len)?);
    // As the UDP header has it: less than that is no datagram, what stands behind it no part of the message.
    let message = datagram.get(UDP..)?.get(..usize::from(length))?;
    let mut record = head;
    let mut set = |at: usize, bytes: &[u8]| -> Option<()> {
        record.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
        Some(())
    };
    let time: [u8; 8] = field!(last, time_ns)?;
    set(offset_of!(SampleHeader, time_ns), &time)?;
    set(offset_of!(SampleHeader, captured_len), &length.to_ne_bytes())?;
    set(offset_of!(SampleHeader, identification), &[0; 4])?;
    set(offset_of!(SampleHeader, place), &[0; 2])?;
    *record.get_mut(offset_of!(SampleHeader, flags))? &= !flags::FRAGMENT;
    record.extend_from_slice(message);
    Some(record)
}

fn address(ip: [u8; 16]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(ip)).to_canonical()
}

#[cfg(test)]
mod tests {
    use st_core::{Direction, Packet};

    use super::*;
    use crate::ring::{Record, decode};

    const MESSAGE: &[u8] = b"INVITE sip:bob@example.com SIP/2.0\r\n\r\n";

    /// The records of [`MESSAGE`] in fragments: the first holds the UDP header and sixteen bytes.
    fn records(direction: u8, identification: u32) -> [Vec<u8>; 3] {
        let header = SampleHeader {
            time_ns: 5_000,
            cookie: 42,
            wire_len: MESSAGE.len() as u16,
            captured_len: 16,
            server: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1],
            peer: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 2],
            server_port: 5060_u16.to_be_bytes(),
            peer_port: 5080_u16.to_be_bytes(),
            direction,
            tos: 0x60,
            ttl: 64,
            flags: flags::FRAGMENT,
            identification: identification.to_be_bytes(),
            place: place::MORE.to_be_bytes(),
            ..SampleHeader::default()
        };
        let later = |time_ns, begin: usize, end: usize, place: u16| {
            let length = (end - begin) as u16;
            let none = [0; 2];
            let header = SampleHeader { time_ns, wire_len: length, captured_len: length, ..header };
            let header = SampleHeader { server_port: none, peer_port: none, place: place.to_be_bytes(), ..header };
            record(header, &MESSAGE[begin..end])
        };
        let rest = MESSAGE.len();
        [record(header, &MESSAGE[..16]), later(6_000, 16, 32, 3 | place::MORE), later(7_000, 32, rest, 5)]
    }

    fn record(header: SampleHeader, rest: &[u8]) -> Vec<u8> {
        // SAFETY: `repr(C)` without padding: every byte is initialised.
        let bytes: [u8; HEADER] = unsafe { std::mem::transmute(header) };
        [&bytes, rest].concat()
    }

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    /// Takes them in that order; the record that comes of it.
    fn put(fragments: &mut Fragments, parts: &[Vec<u8>; 3], order: [usize; 3]) -> Vec<u8> {
        assert_eq!(fragments.take(|| at(0), &parts[order[0]]), Part::Kept);
        assert_eq!(fragments.take(|| at(0), &parts[order[1]]), Part::Kept);
        let Part::Whole(whole) = fragments.take(|| at(0), &parts[order[2]]) else { panic!("{order:?}") };
        whole
    }

    #[test]
    fn the_record_of_a_whole_message_comes_of_its_parts_in_any_order() {
        let mut fragments = Fragments::default();
        for (direction, expected) in [(direction::EGRESS, Direction::Egress), (direction::INGRESS, Direction::Ingress)]
        {
            let parts = records(direction, 9);
            for (order, last) in [([0, 1, 2], 7_000), ([2, 1, 0], 5_000), ([1, 0, 2], 7_000), ([2, 0, 1], 6_000)] {
                let whole = put(&mut fragments, &parts, order);
                let Some(Record::Seen { time_ns, packet }) = decode(&whole) else { panic!() };
                assert_eq!(time_ns, last, "the message is there when its last part is");
                let Packet { direction, server, peer, tos, ttl, cookie, truncated, bytes, .. } = packet;
                assert_eq!((direction, bytes, truncated, cookie), (expected, MESSAGE, false, 42));
                assert_eq!(
                    (server.to_string(), peer.to_string()),
                    ("192.0.2.1:5060".into(), "198.51.100.2:5080".into())
                );
                assert_eq!((tos, ttl), (0x60, 64));
            }
        }
        assert_eq!((fragments.counts().whole, fragments.waiting()), (8, 0));
    }

    #[test]
    fn what_is_no_part_is_left_alone() {
        let mut fragments = Fragments::default();
        let [first, ..] = records(direction::EGRESS, 9);
        for length in 0..HEADER {
            assert_eq!(fragments.take(|| at(0), &first[..length]), Part::None, "{length}");
        }
        for kind in [kind::REFUSED, kind::HELD, kind::BEFORE, kind::REWRITTEN, kind::TAKEN] {
            let mut other = first.clone();
            other[offset_of!(SampleHeader, kind)] = kind;
            assert_eq!(fragments.take(|| at(0), &other), Part::None, "{kind}");
        }
        let mut whole = first;
        whole[offset_of!(SampleHeader, flags)] = 0;
        assert_eq!(fragments.take(|| at(0), &whole), Part::None);
        assert_eq!(fragments.waiting(), 0);
    }

    #[test]
    fn the_udp_header_says_how_long_the_message_is() {
        for (length, expected) in [(20, Some(20)), (MESSAGE.len(), Some(MESSAGE.len())), (MESSAGE.len() + 1, None)] {
            let mut parts = records(direction::INGRESS, 9);
            let at_length = offset_of!(SampleHeader, wire_len);
            parts[0][at_length..at_length + 2].copy_from_slice(&(length as u16).to_ne_bytes());
            let mut fragments = Fragments::default();
            fragments.take(|| at(0), &parts[0]);
            fragments.take(|| at(0), &parts[1]);
            let whole = fragments.take(|| at(0), &parts[2]);
            let found = if let Part::Whole(record) = &whole { Some(record.len() - HEADER) } else { None };
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_part_that_was_cut_makes_no_message() {
        let mut parts = records(direction::EGRESS, 9);
        parts[1][offset_of!(SampleHeader, flags)] |= flags::CUT;
        let mut fragments = Fragments::default();
        assert!(parts.iter().all(|part| fragments.take(|| at(0), part) == Part::Kept));
        assert_eq!(fragments.lost(at(31), 0), Lost { unseen: 1, incomplete: 0 });
    }

    #[test]
    fn the_servers_that_lack_a_part_went_by_unseen_and_the_peers_only_where_parts_went_by_unread() {
        let mut fragments = Fragments::default();
        for direction in [direction::EGRESS, direction::INGRESS, direction::INGRESS] {
            let identification = fragments.waiting() as u32;
            fragments.take(|| at(0), &records(direction, identification)[0]);
        }
        assert_eq!(fragments.lost(at(30), 7), Lost::default());
        assert_eq!(fragments.lost(at(31), 7), Lost { unseen: 3, incomplete: 0 });
        assert_eq!(fragments.lost(at(32), 7), Lost::default(), "told once");

        let [first, ..] = records(direction::INGRESS, 9);
        fragments.take(|| at(100), &first);
        assert_eq!(fragments.lost(at(131), 7), Lost { unseen: 0, incomplete: 1 });
    }
}
