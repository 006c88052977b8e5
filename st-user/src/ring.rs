//! Records of the ring buffer, read into what the engine takes.

use std::{
    mem::offset_of,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use st_core::{Assist, Direction, LetBe, Packet, Refusal, Transport, stream::Tcp};
use st_ebpf::abi::{SampleHeader, assist, direction, flags, kind, refused, tcp};

/// What a record says.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// A message was seen: the server's, the peer's, one of sipst's own that has left, or an answer to it.
    Seen {
        /// `CLOCK_MONOTONIC` nanoseconds.
        time_ns: u64,
        /// The message.
        packet: Packet<'a>,
    },
    /// An INVITE was seen that is to be changed as its trunk says; the message as it was.
    Assisted {
        /// `CLOCK_MONOTONIC` nanoseconds.
        time_ns: u64,
        /// The message.
        packet: Packet<'a>,
        /// What became of it.
        assist: Assist,
    },
    /// A message was seen that was one of several datagrams as one packet: it went on as it was, whatever it is.
    Joined {
        /// `CLOCK_MONOTONIC` nanoseconds.
        time_ns: u64,
        /// The message.
        packet: Packet<'a>,
    },
    /// A refusal of the server's was taken off the wire.
    Held {
        /// `CLOCK_MONOTONIC` nanoseconds.
        time_ns: u64,
        /// The message.
        packet: Packet<'a>,
    },
    /// What only the flight recorder is shown: a message before and after it is rewritten, or one that was taken and told of before.
    Copy {
        /// `CLOCK_MONOTONIC` nanoseconds.
        time_ns: u64,
        /// The message.
        packet: Packet<'a>,
    },
    /// A TCP segment was seen, or a piece of one.
    Segment {
        /// `CLOCK_MONOTONIC` nanoseconds.
        time_ns: u64,
        /// What it carries.
        packet: Packet<'a>,
        /// Where that stands in its direction.
        tcp: Tcp,
    },
    /// A request of sipst's own was dropped.
    Refused {
        /// Its token.
        token: u64,
        /// Why.
        refusal: Refusal,
    },
}

/// Reads one record, `None` where it is none: too short, or of a kind or direction that is not known.
pub fn decode(record: &[u8]) -> Option<Record<'_>> {
    let (header, rest) = record.split_at_checked(size_of::<SampleHeader>())?;
    macro_rules! field {
        ($name:ident: $type:ty) => {
            <$type>::from_ne_bytes(bytes_at(header, offset_of!(SampleHeader, $name))?)
        };
    }
    macro_rules! bytes {
        ($name:ident) => {
            bytes_at(header, offset_of!(SampleHeader, $name))?
        };
    }
    let kind = field!(kind: u8);
    let injected_by_us = match kind {
        kind::REFUSED => {
            return Some(Record::Refused { token: field!(token: u64), refusal: refusal(field!(reason: u8)) });
        }
        kind::MESSAGE | kind::INJECTED | kind::ANSWER | kind::HELD => kind == kind::INJECTED,
        kind::BEFORE | kind::REWRITTEN | kind::TAKEN | kind::SEGMENT => false,
        _ => return None,
    };
    let direction = match field!(direction: u8) {
        direction::INGRESS => Direction::Ingress,
        direction::EGRESS => Direction::Egress,
        _ => return None,
    };
    let captured = usize::from(field!(captured_len: u16));
    let bytes = rest.get(..captured)?;
    let packet = Packet {
        direction,
        server: address(bytes!(server), bytes!(server_port)),
        peer: address(bytes!(peer), bytes!(peer_port)),
        transport: if kind == kind::SEGMENT || field!(flags: u8) & flags::STREAM != 0 {
            Transport::Tcp
        } else {
            Transport::Udp
        },
        interface: field!(ifindex: u32),
        tos: field!(tos: u8),
        ttl: field!(ttl: u8),
        // The raw socket that sent it is no server's.
        cookie: if injected_by_us { 0 } else { field!(cookie: u64) },
        truncated: field!(flags: u8) & (flags::CUT | flags::FRAGMENT) != 0
            || captured < usize::from(field!(wire_len: u16)),
        bytes,
    };
    let time_ns = field!(time_ns: u64);
    let joined = field!(flags: u8) & flags::JOINED != 0;
    let flags = field!(reason: u8);
    Some(match (kind, assisted(field!(reason: u8))) {
        (kind::HELD, _) => Record::Held { time_ns, packet },
        (kind::SEGMENT, _) => {
            let has = |bit: u8| flags & bit != 0;
            let sequence = (field!(token: u64) >> 32) as u32;
            let (syn, ack, fin, rst) = (has(tcp::SYN), has(tcp::ACK), has(tcp::FIN), has(tcp::RST));
            Record::Segment { time_ns, packet, tcp: Tcp { sequence, syn, ack, fin, rst } }
        }
        (kind::BEFORE | kind::REWRITTEN | kind::TAKEN, _) => Record::Copy { time_ns, packet },
        (kind::MESSAGE | kind::ANSWER, _) if joined => Record::Joined { time_ns, packet },
        (kind::MESSAGE, Some(assist)) => Record::Assisted { time_ns, packet, assist },
        _ => Record::Seen { time_ns, packet },
    })
}

/// What kind of record it is, and its token.
pub(crate) fn kind_and_token(record: &[u8]) -> Option<(u8, u64)> {
    let [kind] = bytes_at(record, offset_of!(SampleHeader, kind))?;
    Some((kind, u64::from_ne_bytes(bytes_at(record, offset_of!(SampleHeader, token))?)))
}

/// What became of an INVITE; `None` where nothing was to become of it.
fn assisted(reason: u8) -> Option<Assist> {
    Some(match reason {
        assist::DONE => Assist::Done,
        assist::OWN => Assist::LetBe(LetBe::Own),
        assist::UNCLEAR => Assist::LetBe(LetBe::Unclear),
        assist::OTHERS => Assist::LetBe(LetBe::Others),
        assist::TOO_LONG => Assist::LetBe(LetBe::TooLong),
        assist::RELAYED => Assist::LetBe(LetBe::Relayed),
        assist::ASLEEP => Assist::LetBe(LetBe::Asleep),
        _ => return None,
    })
}

fn bytes_at<const N: usize>(header: &[u8], offset: usize) -> Option<[u8; N]> {
    header.get(offset..)?.first_chunk().copied()
}

fn address(ip: [u8; 16], port: [u8; 2]) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(ip)).to_canonical(), u16::from_be_bytes(port))
}

fn refusal(reason: u8) -> Refusal {
    match reason {
        refused::MOVED => Refusal::Moved,
        refused::RANGES_FULL => Refusal::Ranges,
        // refused::UNKNOWN_TOKEN, refused::NO_ENTRY, and what a newer program may say.
        _ => Refusal::Send,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(header: SampleHeader, rest: &[u8]) -> Vec<u8> {
        // SAFETY: `repr(C)` without padding: every byte is initialised.
        let bytes: [u8; size_of::<SampleHeader>()] = unsafe { std::mem::transmute(header) };
        [&bytes, rest].concat()
    }

    pub(crate) fn header() -> SampleHeader {
        SampleHeader {
            time_ns: 7_000,
            cookie: 42,
            token: 9,
            ifindex: 3,
            wire_len: 5,
            captured_len: 5,
            server: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1],
            peer: [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
            server_port: 5060_u16.to_be_bytes(),
            peer_port: 5080_u16.to_be_bytes(),
            direction: direction::EGRESS,
            kind: kind::MESSAGE,
            tos: 0x60,
            ttl: 64,
            ..SampleHeader::default()
        }
    }

    #[test]
    fn a_message_comes_with_its_addresses_and_its_time() {
        let bytes = record(header(), b"BYE s");
        let Some(Record::Seen { time_ns, packet }) = decode(&bytes) else { panic!() };
        assert_eq!(time_ns, 7_000);
        assert_eq!(packet.server, "192.0.2.1:5060".parse().unwrap());
        assert_eq!(packet.peer, "[2001:db8::2]:5080".parse().unwrap());
        assert_eq!((packet.direction, packet.interface, packet.tos, packet.ttl), (Direction::Egress, 3, 0x60, 64));
        assert_eq!((packet.cookie, packet.truncated, packet.bytes), (42, false, &b"BYE s"[..]));
    }

    #[test]
    fn a_segment_comes_with_where_it_stands() {
        let token = 0xffff_fff0_0000_0007;
        let reason = tcp::SYN | tcp::FIN | tcp::ACK;
        let bytes = record(SampleHeader { kind: kind::SEGMENT, token, reason, ..header() }, b"BYE s");
        let Some(Record::Segment { time_ns, packet, tcp }) = decode(&bytes) else { panic!() };
        assert_eq!((time_ns, packet.transport, packet.bytes), (7_000, Transport::Tcp, &b"BYE s"[..]));
        assert_eq!(tcp, Tcp { sequence: 0xffff_fff0, syn: true, ack: true, fin: true, rst: false });
    }

    #[test]
    fn a_refusal_that_is_held_back_is_told_as_that() {
        let bytes = record(SampleHeader { kind: kind::HELD, ..header() }, b"BYE s");
        let Some(Record::Held { time_ns, packet }) = decode(&bytes) else { panic!() };
        assert_eq!((time_ns, packet.cookie, packet.bytes), (7_000, 42, &b"BYE s"[..]));
    }

    #[test]
    fn what_only_a_recorder_is_shown_is_no_message_of_the_engines() {
        for kind in [kind::BEFORE, kind::REWRITTEN, kind::TAKEN] {
            let bytes = record(SampleHeader { kind, ..header() }, b"BYE s");
            assert!(matches!(decode(&bytes), Some(Record::Copy { time_ns: 7_000, .. })));
            assert_eq!(kind_and_token(&bytes), Some((kind, 9)));
        }
    }

    #[test]
    fn one_of_several_datagrams_as_one_packet_is_told_as_that() {
        for kind in [kind::MESSAGE, kind::ANSWER] {
            let bytes = record(SampleHeader { kind, flags: flags::JOINED, ..header() }, b"BYE s");
            let Some(Record::Joined { time_ns, packet }) = decode(&bytes) else { panic!() };
            assert_eq!((time_ns, packet.cookie, packet.truncated, packet.bytes), (7_000, 42, false, &b"BYE s"[..]));
        }
    }

    #[test]
    fn an_invite_comes_with_what_became_of_it() {
        let reasons = [
            (assist::DONE, Some(Assist::Done)),
            (assist::OWN, Some(Assist::LetBe(LetBe::Own))),
            (assist::UNCLEAR, Some(Assist::LetBe(LetBe::Unclear))),
            (assist::OTHERS, Some(Assist::LetBe(LetBe::Others))),
            (assist::TOO_LONG, Some(Assist::LetBe(LetBe::TooLong))),
            (assist::RELAYED, Some(Assist::LetBe(LetBe::Relayed))),
            (assist::ASLEEP, Some(Assist::LetBe(LetBe::Asleep))),
            (0, None),
            (refused::MOVED, None),
            (99, None),
        ];
        for (reason, expected) in reasons {
            let bytes = record(SampleHeader { reason, ..header() }, b"BYE s");
            let found = match decode(&bytes) {
                Some(Record::Assisted { assist, packet, .. }) => Some((assist, packet)),
                Some(Record::Seen { packet, .. }) => {
                    assert_eq!(packet.bytes, b"BYE s");
                    None
                }
                _ => panic!(),
            };
            assert_eq!(found.map(|(assist, _)| assist), expected, "{reason}");
        }
    }

    #[test]
    fn what_stands_behind_the_captured_bytes_is_no_part_of_the_message() {
        let bytes = record(header(), b"BYE sxxxx");
        let Some(Record::Seen { packet, .. }) = decode(&bytes) else { panic!() };
        assert_eq!(packet.bytes, b"BYE s");
    }

    #[test]
    fn a_message_that_is_cut_says_so() {
        for header in [
            SampleHeader { flags: flags::CUT, ..header() },
            SampleHeader { flags: flags::FRAGMENT, ..header() },
            SampleHeader { wire_len: 6, ..header() },
        ] {
            let bytes = record(header, b"BYE s");
            assert!(matches!(decode(&bytes), Some(Record::Seen { packet: Packet { truncated: true, .. }, .. })));
        }
    }

    #[test]
    fn a_request_of_our_own_has_no_servers_cookie() {
        let bytes = record(SampleHeader { kind: kind::INJECTED, ..header() }, b"BYE s");
        assert!(matches!(decode(&bytes), Some(Record::Seen { packet: Packet { cookie: 0, .. }, .. })));
    }

    #[test]
    fn a_refused_request_comes_with_its_token_and_the_reason() {
        let reasons = [
            (refused::UNKNOWN_TOKEN, Refusal::Send),
            (refused::NO_ENTRY, Refusal::Send),
            (refused::MOVED, Refusal::Moved),
            (refused::RANGES_FULL, Refusal::Ranges),
            (77, Refusal::Send),
        ];
        for (reason, expected) in reasons {
            let header = SampleHeader { kind: kind::REFUSED, reason, captured_len: 0, ..header() };
            let bytes = record(header, b"");
            assert!(matches!(decode(&bytes), Some(Record::Refused { token: 9, refusal }) if refusal == expected));
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let whole = record(header(), b"BYE s");
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_none(), "{length} bytes");
        }
        assert!(decode(&record(SampleHeader { kind: 99, ..header() }, b"BYE s")).is_none());
        assert!(decode(&record(SampleHeader { direction: 2, ..header() }, b"BYE s")).is_none());
        assert!(decode(&record(SampleHeader { captured_len: u16::MAX, ..header() }, b"BYE s")).is_none());
    }
}
