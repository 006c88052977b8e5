//! The 2xx to a re-INVITE of sipst's becomes its ACK where no daemon lives to send one, and only there.

use rustix::time::{ClockId, clock_gettime};
use st_ebpf::{
    abi::{ACK_BYTES, Ack, Counter, SILENT_NS, direction, kind, mapped},
    cseq::State,
    key::DialogKey,
};

use crate::{
    frame::{Frame, checksum_is_right},
    tester::{INGRESS, PEER, PEER_V6, Program, SERVER, SERVER_V6, Tester, Verdict, request, response},
};

const TOKEN: u64 = 0x0123_4567_89ab_cdef;
const BRANCH: &str = "z9hG4bKsipst0123456789abcdef";
const ANY_KEY: DialogKey = DialogKey { map: 1, check: 2 };

pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The ACK that goes from `server` to `peer`, as it is kept ready.
pub(crate) fn ready(server: &str, peer: &str, message: &[u8]) -> Ack {
    let (from, to): (std::net::SocketAddr, std::net::SocketAddr) = (server.parse().unwrap(), peer.parse().unwrap());
    let packet = Frame::new(server, peer).with(message).split_off(14);
    let header_len = packet.len() - message.len();
    let mut ack = Ack {
        token: 77,
        server: mapped(from.ip()),
        peer: mapped(to.ip()),
        server_port: from.port().to_be_bytes(),
        peer_port: to.port().to_be_bytes(),
        orphan: 0,
        header_len: header_len as u32,
        len: message.len() as u32,
        sum: message
            .chunks(2)
            .map(|two| u32::from(u16::from_ne_bytes([two[0], two.get(1).copied().unwrap_or(0)])))
            .sum(),
        checksum: [packet[header_len - 2], packet[header_len - 1]],
        reserved: [0; 6],
        headers: [0; 48],
        message: [0; ACK_BYTES],
    };
    ack.headers[..header_len].copy_from_slice(&packet[..header_len]);
    ack.message[..message.len()].copy_from_slice(message);
    ack
}

/// What leaves: the frame with its two ends' addresses exchanged and the ACK in it.
pub(crate) fn expected(arrived: &Frame, message: &[u8]) -> Vec<u8> {
    let (from, to) = (arrived.to.to_string(), arrived.from.to_string());
    let mut bytes = Frame::new(&from, &to).tags(&arrived.tags).with(message);
    let (left, right) = bytes[..12].split_at_mut(6);
    left.swap_with_slice(right);
    bytes
}

fn answer() -> String {
    response("200 OK", BRANCH, " 12 INVITE")
}

#[test]
fn a_2xx_becomes_its_ack_where_the_daemon_is_silent_and_the_ring_has_it_all_the_same() {
    let mut tester = Tester::new();
    for program in INGRESS {
        for (server, peer) in [(SERVER, PEER), (SERVER_V6, PEER_V6)] {
            for tags in [&[][..], &[7], &[7, 8]] {
                // Longer and shorter than the 2xx, of odd and even length, one byte, and the longest.
                for len in [1, 2, 333, 334, 335, 336, 1000, 1400] {
                    let message = vec![b'a'; len];
                    for body in ["", "v", "v=0", "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\n"] {
                        tester.reset();
                        tester.record(TOKEN, ANY_KEY, State::default(), true);
                        tester.keep(TOKEN, ready(server, peer, &message));
                        let frame = Frame::new(peer, server).tags(tags);
                        let answer = answer() + body;
                        let run = tester.run(program, &frame.with(answer.as_bytes()));
                        let case = format!("{program:?} {server} {tags:?} {len} {body:?}");
                        assert_eq!(run.verdict, Verdict::Back, "{case}");
                        assert_eq!(run.out, expected(&frame, &message), "{case}");
                        assert!(checksum_is_right(&run.out), "{case}");
                        // What TC sends, st_egress sees leave; what XDP sends, nobody does.
                        assert_eq!(run.records.len(), if program == Program::IngressXdp { 2 } else { 1 }, "{case}");
                        if let Some(shown) = run.records.get(1) {
                            assert_eq!((shown.header.kind, shown.header.token), (kind::INJECTED, TOKEN), "{case}");
                            assert_eq!(shown.header.direction, direction::EGRESS, "{case}");
                            assert_eq!(usize::from(shown.header.wire_len), len, "{case}");
                            assert_eq!(shown.bytes, message, "{case}");
                        }
                        assert_eq!((run.records[0].header.kind, run.records[0].header.token), (kind::ANSWER, TOKEN));
                        assert_eq!(run.records[0].bytes, answer.as_bytes(), "{case}");
                        assert_eq!(tester.counter(Counter::AckedHere), 1, "{case}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_copy_gets_the_same_ack() {
    let mut tester = Tester::new();
    for program in INGRESS {
        tester.reset();
        tester.record(TOKEN, ANY_KEY, State::default(), true);
        tester.keep(TOKEN, ready(SERVER, PEER, request("ACK", " 12 ACK").as_bytes()));
        let frame = Frame::new(PEER, SERVER);
        let first = tester.run(program, &frame.with(answer().as_bytes())).out;
        for _ in 0..6 {
            assert_eq!(tester.run(program, &frame.with(answer().as_bytes())).out, first, "{program:?}");
        }
    }
}

#[test]
fn an_orphan_is_acked_whoever_lives() {
    let mut tester = Tester::new();
    for program in INGRESS {
        for (orphan, verdict) in [(0, Verdict::Take), (1, Verdict::Back)] {
            tester.reset();
            tester.beat(now());
            tester.record(TOKEN, ANY_KEY, State::default(), true);
            tester.keep(TOKEN, Ack { orphan, ..ready(SERVER, PEER, b"ACK") });
            let run = tester.run(program, &Frame::new(PEER, SERVER).with(answer().as_bytes()));
            assert_eq!(run.verdict, verdict, "{program:?} {orphan}");
        }
    }
}

#[test]
fn what_needs_no_ack_or_another_gets_none() {
    let mut tester = Tester::new();
    let ack = ready(SERVER, PEER, b"ACK");
    let stranger = "198.51.100.8:5070";
    let other_port = "198.51.100.7:5071";
    for program in INGRESS {
        for (description, from, message, silent, kept) in [
            ("the daemon lives", PEER, answer(), false, true),
            ("no ACK is kept", PEER, answer(), true, false),
            ("a provisional response", PEER, response("183 Progress", BRANCH, " 12 INVITE"), true, true),
            ("a failure", PEER, response("491 Request Pending", BRANCH, " 12 INVITE"), true, true),
            ("from another address", stranger, answer(), true, true),
            ("from another port", other_port, answer(), true, true),
        ] {
            tester.reset();
            if !silent {
                tester.beat(now());
            }
            tester.record(TOKEN, ANY_KEY, State::default(), true);
            if kept {
                tester.keep(TOKEN, ack);
            }
            let frame = Frame::new(from, SERVER).with(message.as_bytes());
            let run = tester.run(program, &frame);
            assert_eq!((run.verdict, run.records.len()), (Verdict::Take, 1), "{program:?}: {description}");
            assert_eq!(tester.counter(Counter::AckedHere), 0, "{program:?}: {description}");
        }
        let mut frame = Frame::new(PEER, SERVER);
        frame.extras = true;
        tester.reset();
        tester.record(TOKEN, ANY_KEY, State::default(), true);
        tester.keep(TOKEN, ack);
        let run = tester.run(program, &frame.with(answer().as_bytes()));
        assert_eq!(run.verdict, Verdict::Take, "{program:?}: IP options");
    }
}

#[test]
fn a_token_that_is_off_the_record_is_not_acked() {
    let mut tester = Tester::new();
    for program in INGRESS {
        tester.reset();
        tester.keep(TOKEN, ready(SERVER, PEER, b"ACK"));
        let run = tester.run(program, &Frame::new(PEER, SERVER).with(answer().as_bytes()));
        assert_eq!((run.verdict, run.records.len()), (Verdict::Take, 0), "{program:?}");
    }
}

#[test]
fn a_daemon_is_silent_after_three_of_its_beats() {
    let mut tester = Tester::new();
    for program in INGRESS {
        for (age, verdict) in [(SILENT_NS / 2, Verdict::Take), (SILENT_NS + 1, Verdict::Back)] {
            tester.reset();
            tester.beat(now() - age);
            tester.record(TOKEN, ANY_KEY, State::default(), true);
            tester.keep(TOKEN, ready(SERVER, PEER, b"ACK"));
            let run = tester.run(program, &Frame::new(PEER, SERVER).with(answer().as_bytes()));
            assert_eq!(run.verdict, verdict, "{program:?} {age}");
        }
    }
}
