//! TCP: which segments reach the ring, and what each record says; connections that cannot be read.

use st_ebpf::abi::{Counter, RING_BYTES, direction, kind, mapped, tcp};

use crate::{
    frame::Frame,
    tester::{INGRESS, PEER, PEER_V6, Program, SERVER, SERVER_V6, Tester, Verdict, request},
};

const ALL: [Program; 3] = [Program::IngressXdp, Program::IngressTc, Program::Egress];
const SEQUENCE: u32 = 0xffff_fffa;
const ACKNOWLEDGED: u32 = 7;
const PSH: u8 = 8;

/// A segment in its frame; `options` in words.
fn segment(frame: &Frame, flags: u8, options: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [frame.from.port().to_be_bytes(), frame.to.port().to_be_bytes()].concat();
    bytes.extend(SEQUENCE.to_be_bytes());
    bytes.extend(ACKNOWLEDGED.to_be_bytes());
    bytes.extend([(5 + options) << 4, flags, 0x10, 0, 0, 0, 0, 0]);
    bytes.extend(vec![1; usize::from(options) * 4]);
    bytes.extend(payload);
    frame.clone().tcp().around(&bytes)
}

/// A frame from one end to the other, as a program sees it.
fn between(program: Program, server: &str, peer: &str) -> Frame {
    if program == Program::Egress { Frame::new(server, peer) } else { Frame::new(peer, server) }
}

#[test]
fn segments_that_carry_something_reach_the_ring_with_where_they_stand() {
    let mut tester = Tester::new();
    let payload = request("BYE", " 3 BYE").repeat(6);
    for program in ALL {
        for (server, peer) in [(SERVER, PEER), (SERVER_V6, PEER_V6)] {
            let plain = between(program, server, peer);
            for (frame, options) in [
                (plain.clone(), 0),
                (plain.clone(), 3),
                (plain.clone().tags(&[5]), 10),
                (plain.clone().tags(&[5, 6]), 0),
                (Frame { extras: true, ..plain.clone() }, 3),
            ] {
                let bytes = segment(&frame, tcp::ACK | PSH, options, payload.as_bytes());
                tester.reset();
                let run = tester.run(program, &bytes);
                assert_eq!((run.verdict, &run.out), (Verdict::Pass, &bytes), "{program:?}");
                assert_eq!(tester.counters(), [(Counter::Seen, 1), (Counter::Segment, 1)], "{program:?} {server}");
                let [record] = &run.records[..] else { panic!("{program:?}: {} records", run.records.len()) };
                assert_eq!(record.bytes, payload.as_bytes());
                let header = &record.header;
                assert_eq!((header.kind, header.reason), (kind::SEGMENT, tcp::ACK));
                assert_eq!(header.token, u64::from(SEQUENCE) << 32 | u64::from(ACKNOWLEDGED));
                let is_out = program == Program::Egress;
                assert_eq!(header.direction, if is_out { direction::EGRESS } else { direction::INGRESS });
                let ends = [server, peer].map(|end| end.parse::<std::net::SocketAddr>().unwrap());
                assert_eq!([header.server, header.peer], ends.map(|end| mapped(end.ip())));
                assert_eq!([header.server_port, header.peer_port], ends.map(|end| end.port().to_be_bytes()));
                assert_eq!((header.tos, header.ttl, header.flags & 1), (0x68, 61, 0));
            }
        }
    }
}

#[test]
fn of_those_without_anything_only_a_beginning_or_an_end_does() {
    let mut tester = Tester::new();
    for program in ALL {
        for (flags, expected) in [
            (tcp::ACK, None),
            (tcp::ACK | PSH, None),
            (tcp::SYN, Some(tcp::SYN)),
            (tcp::SYN | tcp::ACK, Some(tcp::SYN | tcp::ACK)),
            (tcp::FIN | tcp::ACK, Some(tcp::FIN | tcp::ACK)),
            (tcp::RST, Some(tcp::RST)),
        ] {
            // Ethernet fills short frames up.
            for filling in [0, 6] {
                let frame = between(program, SERVER, PEER);
                let bytes = [segment(&frame, flags, 0, b""), vec![0x41; filling]].concat();
                tester.reset();
                let run = tester.run(program, &bytes);
                assert_eq!(run.verdict, Verdict::Pass);
                let seen: Vec<_> = run.records.iter().map(|it| (it.header.reason, it.bytes.len())).collect();
                assert_eq!(
                    seen,
                    expected.map(|flags| (flags, 0)).into_iter().collect::<Vec<_>>(),
                    "{program:?} {flags}"
                );
                let counter = if expected.is_some() { Counter::Segment } else { Counter::SegmentBare };
                assert_eq!(tester.counters(), [(Counter::Seen, 1), (counter, 1)].into_iter().collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn what_comes_in_leaves_the_rings_last_quarter_to_what_goes_out_and_a_full_ring_costs_the_newest() {
    let mut tester = Tester::new();
    for program in INGRESS {
        tester.reset();
        let came = segment(&between(program, SERVER, PEER), tcp::ACK, 0, &[b'x'; 3_000]);
        let left = segment(&between(Program::Egress, SERVER, PEER), tcp::ACK, 0, &[b'x'; 3_000]);
        let mut runs = 0;
        while tester.counter(Counter::SegmentReserved) == 0 {
            tester.run_keeping(program, &came);
            runs += 1;
            assert!(runs < RING_BYTES / 1_000, "{program:?}: the reserve is never reached");
        }
        assert_eq!(tester.counter(Counter::RingFull), 0);
        while tester.counter(Counter::RingFull) == 0 {
            tester.run_keeping(Program::Egress, &left);
            runs += 1;
            assert!(runs < RING_BYTES / 1_000, "{program:?}: the ring never fills");
        }
        let kept = tester.counter(Counter::Segment);
        assert!(kept > u64::from(RING_BYTES) / 3_200, "{program:?}: {kept}");
        assert_eq!(tester.drain().len() as u64, kept);
    }
}

#[test]
fn headers_that_cannot_be_are_counted_and_other_ports_are_not_looked_at() {
    let mut tester = Tester::new();
    for program in ALL {
        let frame = between(program, SERVER, PEER);
        let mut short = segment(&frame, tcp::ACK, 0, b"BYE");
        short[46] = 4 << 4;
        let mut long = segment(&frame, tcp::ACK, 0, b"BYE");
        long[46] = 15 << 4;
        for bytes in [short, long] {
            tester.reset();
            assert!(tester.run(program, &bytes).records.is_empty());
            assert_eq!(tester.counters(), [(Counter::Malformed, 1)], "{program:?}");
        }
        let media = between(program, "192.0.2.1:40000", "198.51.100.7:40002");
        for frame in [media.clone(), media.tags(&[5])] {
            tester.reset();
            let bytes = segment(&frame, tcp::SYN | tcp::ACK, 0, b"");
            assert!(tester.run(program, &bytes).records.is_empty());
            assert_eq!(tester.counters(), [], "{program:?}");
        }
    }
}

#[test]
fn connections_on_ports_that_cannot_be_read_are_counted_when_they_are_made() {
    let mut tester = Tester::new();
    for program in ALL {
        for (server, peer) in [
            ("192.0.2.1:5061", "198.51.100.7:40000"),
            ("192.0.2.1:40000", "198.51.100.7:5061"),
            ("[2001:db8::1]:5061", "[2001:db8:1::7]:40000"),
        ] {
            let plain = between(program, server, peer);
            for frame in [plain.clone(), plain.clone().tags(&[7]), Frame { extras: true, ..plain }] {
                for (flags, made) in
                    [(tcp::SYN, 0), (tcp::SYN | tcp::ACK, 1), (tcp::ACK, 0), (tcp::FIN | tcp::ACK, 0), (tcp::RST, 0)]
                {
                    tester.reset();
                    let bytes = segment(&frame, flags, 2, b"INVITE sip:a@b SIP/2.0\r\n");
                    let run = tester.run(program, &bytes);
                    assert_eq!((run.verdict, run.records.len()), (Verdict::Pass, 0));
                    let expected = [(Counter::OpaqueSegment, 1), (Counter::OpaqueConnection, made)];
                    let expected: Vec<_> = expected.into_iter().filter(|(_, count)| *count > 0).collect();
                    assert_eq!(tester.counters(), expected, "{program:?} {flags}");
                }
            }
        }
    }
}

#[test]
fn over_the_loopback_each_is_seen_once_too() {
    let mut tester = Tester::new();
    let looped = |from: &str, to: &str, flags| {
        let mut bytes = segment(&Frame::new(from, to), flags, 0, b"BYE");
        bytes[..12].fill(0);
        bytes
    };
    let opaque = "192.0.2.1:5061";
    for program in ALL {
        let out = program == Program::Egress;
        for (from, to, seen) in [(SERVER, PEER, out), (PEER, SERVER, !out)] {
            tester.reset();
            let run = tester.run(program, &looped(from, to, tcp::ACK));
            assert_eq!((run.verdict, run.records.len()), (Verdict::Pass, usize::from(seen)), "{program:?} {from}");
            assert_eq!(tester.counter(Counter::Segment), u64::from(seen));
        }
        tester.reset();
        assert!(tester.run(program, &looped(SERVER, "198.51.100.7:5060", tcp::ACK)).records.is_empty());
        assert_eq!(tester.counter(Counter::Loopback), u64::from(out), "{program:?}");
        tester.reset();
        tester.run(program, &looped(opaque, PEER, tcp::SYN | tcp::ACK));
        let counted = [Counter::OpaqueSegment, Counter::OpaqueConnection].map(|counter| tester.counter(counter));
        assert_eq!(counted, [u64::from(out); 2], "{program:?}");
    }
}
