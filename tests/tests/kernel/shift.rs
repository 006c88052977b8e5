//! The server's numbers on their way out, and back in the responses to them.

use st_ebpf::{
    abi::{Counter, Shift},
    cseq::{RANGES, Range, State},
};

use crate::{
    frame::{Frame, checksum_is_right},
    tester::{INGRESS, PEER, PEER_V6, Program, SERVER, SERVER_V6, Tester, Verdict, request, response},
};

/// A dialog in which numbers up to `number` stay as they are and `delta` is added to higher ones.
pub(crate) fn known(number: u32, delta: u32) -> Shift {
    let mut ranges = [Range::default(); RANGES];
    if delta > 0 {
        ranges[0] = Range { below: number + 1, delta: 0 };
    }
    Shift { word: State { known: true, number, delta }.to_word(), ranges, ..Shift::default() }
}

struct Case {
    description: &'static str,
    /// The highest number before, and the delta for higher ones.
    state: (u32, u32),
    server: &'static str,
    wire: &'static str,
}

const CASES: &[Case] = &[
    Case { description: "one more", state: (2, 1), server: " 3 BYE", wire: " 4 BYE" },
    Case { description: "9 to 10 takes the blank", state: (8, 1), server: " 9 BYE", wire: "10 BYE" },
    Case { description: "99 to 100 takes the blank", state: (98, 1), server: " 99 BYE", wire: "100 BYE" },
    Case { description: "9 to 1000 takes three", state: (8, 991), server: "   9 BYE", wire: "1000 BYE" },
    Case { description: "several blanks, one taken", state: (8, 1), server: "   9 BYE", wire: "  10 BYE" },
    Case { description: "no blank, none needed", state: (40, 7), server: "41 BYE", wire: "48 BYE" },
    Case { description: "a tab is not room, and stays", state: (40, 7), server: "\t41 BYE", wire: "\t48 BYE" },
    Case { description: "zero", state: (0, 5), server: " 0 BYE", wire: " 0 BYE" },
    Case { description: "a number of before", state: (7, 3), server: " 7 BYE", wire: " 7 BYE" },
    Case { description: "ten digits", state: (1_999_999_998, 3), server: " 1999999999 BYE", wire: " 2000000002 BYE" },
];

#[test]
fn a_number_goes_out_shifted_and_comes_back_as_it_was() {
    let mut tester = Tester::new();
    for (server, peer) in [(SERVER, PEER), (SERVER_V6, PEER_V6)] {
        for tags in [&[][..], &[9], &[9, 10]] {
            for extras in [false, true] {
                // An odd offset of the number in the datagram, and an even one.
                for padding in ["", "x"] {
                    for case in CASES {
                        let what = format!("{server} {tags:?} {extras} {padding:?}: {}", case.description);
                        let frame = |from, to| {
                            let mut frame = Frame::new(from, to).tags(tags);
                            frame.extras = extras;
                            frame
                        };
                        let pad = |message: String| {
                            message
                                .replace("Content-Length: 0", &format!("Content-Length: 0{padding}"))
                                .replace("Max-Forwards: 70", &format!("Max-Forwards: 70{padding}"))
                                .replace("received=192.0.2.1", &format!("received=192.0.2.1{padding}"))
                        };
                        tester.reset();
                        tester.arm(server, "call-1@host", "srv", known(case.state.0, case.state.1));
                        let out = pad(request("BYE", case.server));
                        let input = frame(server, peer).with(out.as_bytes());
                        let run = tester.run(Program::Egress, &input);
                        let shifted = pad(request("BYE", case.wire));
                        let expected = frame(server, peer).with(shifted.as_bytes());
                        assert_eq!(run.verdict, Verdict::Pass, "{what}");
                        assert_eq!(String::from_utf8_lossy(&run.out), String::from_utf8_lossy(&expected), "{what}");
                        assert!(checksum_is_right(&run.out), "{what}");
                        assert_eq!(
                            run.records[0].bytes,
                            out.as_bytes(),
                            "{what}: the sample is as the server wrote it"
                        );
                        let changed = u64::from(case.server != case.wire);
                        assert_eq!(tester.counter(Counter::ShiftedOut), changed, "{what}");

                        for program in INGRESS {
                            let back = |cseq| pad(response("200 OK", "z9hG4bK77", cseq));
                            let run = tester.run(program, &frame(peer, server).with(back(case.wire).as_bytes()));
                            let expected = frame(peer, server).with(back(case.server).as_bytes());
                            assert_eq!(
                                String::from_utf8_lossy(&run.out),
                                String::from_utf8_lossy(&expected),
                                "{program:?} {what}"
                            );
                            assert!(checksum_is_right(&run.out), "{program:?} {what}");
                        }
                        assert_eq!(tester.counter(Counter::ShiftedIn), 2 * changed, "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_datagram_without_a_checksum_stays_without_one() {
    let mut tester = Tester::new();
    tester.arm(SERVER, "call-1@host", "srv", known(2, 1));
    let run =
        tester.run(Program::Egress, &Frame::new(SERVER, PEER).no_checksum().with(request("BYE", " 3 BYE").as_bytes()));
    assert_eq!(run.out, Frame::new(SERVER, PEER).no_checksum().with(request("BYE", " 4 BYE").as_bytes()));
    for program in INGRESS {
        let frame =
            |cseq| Frame::new(PEER, SERVER).no_checksum().with(response("200 OK", "z9hG4bK77", cseq).as_bytes());
        assert_eq!(tester.run(program, &frame(" 4 BYE")).out, frame(" 3 BYE"), "{program:?}");
    }
}

#[test]
fn ack_and_cancel_have_the_number_of_their_invite() {
    let mut tester = Tester::new();
    let key = tester.arm(SERVER, "call-1@host", "srv", known(2, 4));
    let mut send = |method: &str, number: &str| {
        let frame = Frame::new(SERVER, PEER).with(request(method, &format!(" {number} {method}")).as_bytes());
        let out = tester.run(Program::Egress, &frame).out;
        let text = String::from_utf8_lossy(&out).into_owned();
        let cseq = text.split("CSeq:").nth(1).unwrap().split("\r\n").next().unwrap().to_owned();
        (cseq, tester.state(key).number)
    };
    assert_eq!(send("INVITE", "3"), (" 7 INVITE".into(), 3));
    assert_eq!(send("CANCEL", "3"), (" 7 CANCEL".into(), 3));
    assert_eq!(send("ACK", "3"), (" 7 ACK".into(), 3));
    assert_eq!(send("ACK", "2"), (" 2 ACK".into(), 3), "a late ACK of before the injection");
    assert_eq!(send("INVITE", "3"), (" 7 INVITE".into(), 3), "a retransmission");
    assert_eq!(send("ACK", "9"), ("13 ACK".into(), 3), "an ACK raises nothing");
    assert_eq!(send("BYE", "4"), (" 8 BYE".into(), 4));
}

#[test]
fn a_number_without_room_makes_the_request_longer_by_four_blanks() {
    let mut tester = Tester::new();
    for (server, peer) in [(SERVER, PEER), (SERVER_V6, PEER_V6)] {
        for tags in [&[][..], &[9], &[9, 10]] {
            for (state, cseq, wire, back) in [
                ((8, 1), "9 BYE", "   10 BYE", "    9 BYE"),
                ((98, 1), "99 BYE", "   100 BYE", "    99 BYE"),
                ((8, 991), "  9 BYE", "   1000 BYE", "      9 BYE"),
                ((8, 99_990), "9 BYE", "99999 BYE", "    9 BYE"),
                ((98, 1), "\t99 BYE", "\t   100 BYE", "\t    99 BYE"),
            ] {
                // An odd offset of the number in the datagram, and an even one; an odd length, and an even one.
                for padding in ["", "x"] {
                    for body in ["", "b"] {
                        for checksum in [true, false] {
                            let pad = |message: String| {
                                message.replace("Max-Forwards: 70", &format!("Max-Forwards: 70{padding}")) + body
                            };
                            let frame = |from, to| {
                                let mut frame = Frame::new(from, to).tags(tags);
                                frame.checksum = checksum;
                                frame
                            };
                            let what = format!("{server} {tags:?} {cseq} {padding:?} {body:?} {checksum}");
                            tester.reset();
                            tester.arm(server, "call-1@host", "srv", known(state.0, state.1));
                            let out = pad(request("BYE", cseq));
                            let run = tester.run(Program::Egress, &frame(server, peer).with(out.as_bytes()));
                            let expected = frame(server, peer).with(pad(request("BYE", wire)).as_bytes());
                            assert_eq!(run.verdict, Verdict::Pass, "{what}");
                            assert_eq!(String::from_utf8_lossy(&run.out), String::from_utf8_lossy(&expected), "{what}");
                            assert!(checksum_is_right(&run.out), "{what}");
                            assert_eq!(run.records[0].bytes, out.as_bytes(), "the sample is the server's: {what}");
                            let counts = [Counter::Lengthened, Counter::ShiftedOut, Counter::ShiftNoRoom];
                            assert_eq!(counts.map(|counter| tester.counter(counter)), [1, 1, 0], "{what}");
                            for program in INGRESS {
                                let answer =
                                    |cseq| frame(peer, server).with(response("200 OK", "z9hG4bK77", cseq).as_bytes());
                                assert_eq!(tester.run(program, &answer(wire)).out, answer(back), "{program:?} {what}");
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_number_without_room_passes_as_it_is_and_is_counted() {
    let mut tester = Tester::new();
    let long = |cseq: &str| request("BYE", cseq) + &"x".repeat(2_048);
    for (state, cseq, message) in [
        ((8, 999_991), "9 BYE", request("BYE", "9 BYE")),
        ((8, 1), "9 BYE", long("9 BYE")),
        ((98, 1), "99 BYE", long("99 BYE")),
        ((8, 991), "  9 BYE", long("  9 BYE")),
    ] {
        tester.reset();
        tester.arm(SERVER, "call-1@host", "srv", known(state.0, state.1));
        let frame = Frame::new(SERVER, PEER).with(message.as_bytes());
        let run = tester.run(Program::Egress, &frame);
        assert_eq!((run.verdict, run.out), (Verdict::Pass, frame), "{cseq}");
        assert_eq!((tester.counter(Counter::ShiftNoRoom), tester.counter(Counter::ShiftedOut)), (1, 0), "{cseq}");
    }
}

#[test]
fn the_first_number_of_a_server_that_had_sent_nothing_is_lifted_above_ours() {
    let mut tester = Tester::new();
    let told_nothing =
        |sent| Shift { word: State { known: false, number: sent, delta: 0 }.to_word(), ..Shift::default() };
    for (sent, server, wire) in [
        (3, " 0 BYE", " 4 BYE"),
        (3, " 2 BYE", " 4 BYE"),
        (3, " 4 BYE", " 4 BYE"),
        (3, " 70000 BYE", " 70000 BYE"),
        (0, " 0 BYE", " 0 BYE"),
    ] {
        tester.reset();
        tester.arm(SERVER, "call-1@host", "srv", told_nothing(sent));
        let run = tester.run(Program::Egress, &Frame::new(SERVER, PEER).with(request("BYE", server).as_bytes()));
        assert_eq!(run.out, Frame::new(SERVER, PEER).with(request("BYE", wire).as_bytes()), "{sent} {server}");
        for program in INGRESS {
            let frame = |cseq| Frame::new(PEER, SERVER).with(response("200 OK", "z9hG4bK77", cseq).as_bytes());
            assert_eq!(tester.run(program, &frame(wire)).out, frame(server), "{program:?} {sent} {server}");
        }
    }
}

#[test]
fn a_number_that_was_ours_is_given_to_nobody() {
    let mut tester = Tester::new();
    for program in INGRESS {
        tester.reset();
        tester.arm(SERVER, "call-1@host", "srv", known(10, 2));
        let frame = Frame::new(PEER, SERVER).with(response("200 OK", "z9hG4bK77", " 11 BYE").as_bytes());
        let run = tester.run(program, &frame);
        assert_eq!((run.verdict, run.out), (Verdict::Pass, frame), "{program:?}");
        assert_eq!(tester.counter(Counter::ShiftNoNumber), 1, "{program:?}");
    }
}

#[test]
fn only_the_dialogs_own_requests_and_responses_are_touched() {
    let mut tester = Tester::new();
    let from_peer = request("BYE", " 3 BYE");
    let cases = [
        ("another Call-ID", request("BYE", " 3 BYE").replace("call-1@", "call-2@")),
        ("another tag of the server's", request("BYE", " 3 BYE").replace("tag=srv", "tag=srw")),
        ("no To tag", request("INVITE", " 3 INVITE").replace(";tag=peer", "")),
        ("no CSeq", request("BYE", " 3 BYE").replace("CSeq", "X-Seq")),
        ("a CSeq that is no number", request("BYE", " x3 BYE")),
        ("a CSeq of eleven digits", request("BYE", " 12345678901 BYE")),
        ("a CSeq above 2^31", request("BYE", " 4000000000 BYE")),
        ("a response of the server's", response("200 OK", "z9hG4bK5", " 3 BYE")),
    ];
    for (description, message) in cases {
        tester.reset();
        tester.arm(SERVER, "call-1@host", "srv", known(2, 1));
        let frame = Frame::new(SERVER, PEER).with(message.as_bytes());
        let run = tester.run(Program::Egress, &frame);
        assert_eq!((run.verdict, run.out), (Verdict::Pass, frame), "{description}");
        assert_eq!(tester.counter(Counter::ShiftedOut), 0, "{description}");
    }
    for program in INGRESS {
        tester.reset();
        tester.arm(SERVER, "call-1@host", "srv", known(2, 1));
        let frame = Frame::new(PEER, SERVER).with(from_peer.as_bytes());
        assert_eq!(tester.run(program, &frame).out, frame, "{program:?}: a request that comes in");
    }
    let mut tester = Tester::new();
    let key = tester.arm("192.0.2.99:5060", "call-1@host", "srv", known(2, 1));
    let frame = Frame::new(SERVER, PEER).with(from_peer.as_bytes());
    assert_eq!(tester.run(Program::Egress, &frame).out, frame, "an address without shifted dialogs");
    assert_eq!(tester.state(key).number, 2);
}

#[test]
fn a_dialog_whose_key_meets_anothers_is_not_shifted() {
    let mut tester = Tester::new();
    let key = tester.collide(SERVER, "call-1@host", "srv", known(2, 1));
    let frame = Frame::new(SERVER, PEER).with(request("BYE", " 3 BYE").as_bytes());
    let run = tester.run(Program::Egress, &frame);
    assert_eq!((run.verdict, run.out), (Verdict::Pass, frame));
    assert_eq!(tester.state(key).number, 2, "nor does its number count");
    for program in INGRESS {
        let frame = Frame::new(PEER, SERVER).with(response("200 OK", "z9hG4bK77", " 4 BYE").as_bytes());
        let run = tester.run(program, &frame);
        assert_eq!((run.verdict, run.out), (Verdict::Pass, frame), "{program:?}");
    }
    assert_eq!((tester.counter(Counter::ShiftedOut), tester.counter(Counter::ShiftedIn)), (0, 0));
}

#[test]
fn identifiers_too_long_for_the_key_are_not_shifted() {
    let long = "c".repeat(300);
    let mut tester = Tester::new();
    tester.arm(SERVER, "call-1@host", "srv", known(2, 1));
    let frame = Frame::new(SERVER, PEER).with(request("BYE", " 3 BYE").replace("call-1@host", &long).as_bytes());
    assert_eq!(tester.run(Program::Egress, &frame).out, frame);
}

#[test]
fn the_key_is_found_however_the_headers_are_written() {
    let mut tester = Tester::new();
    let plain = request("BYE", " 3 BYE");
    for (description, message) in [
        (
            "compact names",
            plain.replace("From:", "f:").replace("To:", "t:").replace("Call-ID:", "i:").replace("Via:", "v:"),
        ),
        ("other case", plain.replace("Call-ID:", "CALL-ID :").replace("CSeq:", "Cseq:").replace("From", "fROM")),
        ("folded", plain.replace(";tag=srv", "\r\n ;tag=srv").replace("Call-ID: ", "Call-ID:\r\n\t")),
        ("bare line feeds", plain.replace("\r\n", "\n")),
        (
            "names and parameters around",
            plain.replace("<sip:server@192.0.2.1>;tag=srv", "\"a;tag=b\" <sip:s;tag=c>;x=1;tag=srv;y"),
        ),
    ] {
        tester.reset();
        tester.arm(SERVER, "call-1@host", "srv", known(2, 1));
        let run = tester.run(Program::Egress, &Frame::new(SERVER, PEER).with(message.as_bytes()));
        let expected = message.replace(" 3 BYE", " 4 BYE");
        assert_eq!(run.out, Frame::new(SERVER, PEER).with(expected.as_bytes()), "{description}");
    }
}
