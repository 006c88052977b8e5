//! UDP of other ports that begins as SIP does: looked at where the operator wants it, and only there.

use st_ebpf::abi::Counter;

use crate::{
    frame::{Frame, checksum_is_right},
    shift::known,
    tester::{Program, Tester, Verdict, request, response},
};

const SERVER: &str = "192.0.2.1:15060";
const PEER: &str = "198.51.100.7:40002";
const SERVER_V6: &str = "[2001:db8::1]:15060";
const PEER_V6: &str = "[2001:db8:1::7]:40002";
const PROGRAMS: [Program; 3] = [Program::IngressXdp, Program::IngressTc, Program::Egress];

fn facing(program: Program, v6: bool) -> Frame {
    let (server, peer) = if v6 { (SERVER_V6, PEER_V6) } else { (SERVER, PEER) };
    if program == Program::Egress { Frame::new(server, peer) } else { Frame::new(peer, server) }
}

#[test]
fn what_begins_as_sip_is_read_on_whatever_port_and_only_where_that_is_asked_for() {
    for any in [false, true] {
        let mut tester = if any { Tester::any_port() } else { Tester::new() };
        for program in PROGRAMS {
            for v6 in [false, true] {
                for extras in [false, true] {
                    for message in [
                        request("REFER", " 3 REFER"),
                        request("BYE", " 3 BYE"),
                        response("200 OK", "z9hG4bK77", " 3 BYE"),
                    ] {
                        let what = format!("{any} {program:?} {v6} {extras}: {message}");
                        tester.reset();
                        let mut frame = facing(program, v6);
                        frame.extras = extras;
                        let run = tester.run(program, &frame.with(message.as_bytes()));
                        assert_eq!((run.verdict, run.records.len()), (Verdict::Pass, usize::from(any)), "{what}");
                        if any {
                            assert_eq!(run.records[0].bytes, message.as_bytes(), "{what}");
                        } else {
                            assert!(tester.counters().is_empty(), "{what}: {:?}", tester.counters());
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn what_begins_otherwise_is_let_by_uncounted() {
    let mut tester = Tester::any_port();
    let rtp = [0x80_u8; 172];
    let cases: [&[u8]; 12] = [
        &rtp,
        b"",
        b"\r\n\r\n",
        b"BYE",
        b"BYES sip:a SIP/2.0\r\n",
        b"ACK\tsip:a SIP/2.0\r\n",
        b"M-SEARCH * HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\n",
        b"SIP/3.0 200 OK\r\n",
        b"bye sip:a SIP/2.0\r\n",
        b"FOO sip:a SIP/2.0\r\n",
        &[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42],
    ];
    for program in PROGRAMS {
        for v6 in [false, true] {
            for case in cases {
                let what = format!("{program:?} {v6} {}", String::from_utf8_lossy(case));
                tester.reset();
                let frame = facing(program, v6).with(case);
                let run = tester.run(program, &frame);
                assert_eq!((run.verdict, run.records.len()), (Verdict::Pass, 0), "{what}");
                assert!(tester.counters().is_empty() && run.out == frame, "{what}: {:?}", tester.counters());
            }
        }
    }
}

#[test]
fn media_are_seen_all_the_same() {
    let mut tester = Tester::any_port();
    tester.watch("192.0.2.1:40000");
    let frame = Frame::new("192.0.2.1:40000", "198.51.100.7:40002").with(&[0x80; 172]);
    tester.run(Program::Egress, &frame);
    assert!(tester.left("192.0.2.1:40000").is_some_and(|at| at > 0));
}

#[test]
fn numbers_are_shifted_there_too_both_ways() {
    let mut tester = Tester::any_port();
    tester.arm(SERVER, "call-1@host", "srv", known(2, 1));
    let out = |cseq| facing(Program::Egress, false).with(request("BYE", cseq).as_bytes());
    let run = tester.run(Program::Egress, &out(" 3 BYE"));
    assert!(run.out == out(" 4 BYE") && checksum_is_right(&run.out));
    for program in [Program::IngressXdp, Program::IngressTc] {
        let back = |cseq| facing(program, false).with(response("200 OK", "z9hG4bK77", cseq).as_bytes());
        assert!(tester.run(program, &back(" 4 BYE")).out == back(" 3 BYE"), "{program:?}");
    }
    assert_eq!((tester.counter(Counter::ShiftedOut), tester.counter(Counter::ShiftedIn)), (1, 2));
}
