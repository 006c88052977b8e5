//! What sipst sends to the server in the peer's name: it is turned round, its answer is taken, and the peer's own numbers are
//! shifted by it.

use st_ebpf::{
    abi::{Ack, Counter, Shift, direction, kind, refused},
    cseq::State,
    key::{DialogKey, Whose},
};

use crate::{
    ack::{expected, now, ready},
    frame::{Frame, checksum_is_right},
    shift::known,
    take::icmp,
    tester::{INGRESS, PEER, PEER_V6, Program, SERVER, SERVER_V6, Tester, Verdict},
};

const TOKEN: u64 = 0x0123_4567_89ab_cdef;
const BRANCH: &str = "z9hG4bKsipsp0123456789abcdef";
const ENDS: [(&str, &str); 2] = [(SERVER, PEER), (SERVER_V6, PEER_V6)];

/// A request of the peer's inside a dialog; `cseq` is all between the colon and the line's end.
fn request(method: &str, branch: &str, cseq: &str) -> String {
    format!(
        "{method} sip:server@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.7:5070;branch={branch}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:peer@198.51.100.7>;tag=peer\r\nTo: <sip:server@192.0.2.1>;tag=srv\r\n\
         Call-ID: call-1@host\r\nCSeq:{cseq}\r\nContent-Length: 0\r\n\r\n"
    )
}

/// The server's response to it.
fn response(status: &str, branch: &str, cseq: &str) -> String {
    let request = request("X", branch, cseq);
    format!("SIP/2.0 {status}\r\n{}", request.split_once("\r\n").unwrap().1.replace("Max-Forwards: 70\r\n", ""))
}

fn arm(tester: &mut Tester, server: &str, shift: Shift) -> DialogKey {
    tester.arm_of(Whose::Peer, server, "call-1@host", "peer", shift)
}

fn state(number: u32, delta: u32) -> State {
    State { known: true, number, delta }
}

#[test]
fn a_number_of_the_peers_comes_in_shifted_and_goes_back_as_it_was() {
    let mut tester = Tester::new();
    for (server, peer) in ENDS {
        for padding in ["", "x"] {
            for (number, delta, own, told) in [
                (2, 1, " 3 BYE", " 4 BYE"),
                (8, 1, " 9 BYE", "10 BYE"),
                (98, 1, "  99 BYE", " 100 BYE"),
                (40, 7, "41 BYE", "48 BYE"),
                (7, 3, " 7 BYE", " 7 BYE"),
                (0, 5, " 0 BYE", " 0 BYE"),
                (1_999_999_998, 3, " 1999999999 BYE", " 2000000002 BYE"),
            ] {
                let pad = |text: String| {
                    let pad = |head: &str, text: String| text.replace(head, &format!("{head}{padding}"));
                    pad("Content-Length: 0", pad("branch=z9hG4bK77", text))
                };
                for program in INGRESS {
                    tester.reset();
                    let key = arm(&mut tester, server, known(number, delta));
                    let frame = |cseq| Frame::new(peer, server).with(pad(request("BYE", "z9hG4bK77", cseq)).as_bytes());
                    let run = tester.run(program, &frame(own));
                    let what = format!("{program:?} {server} {own}");
                    assert_eq!((run.verdict, &run.out), (Verdict::Pass, &frame(told)), "{what}");
                    assert!(checksum_is_right(&run.out), "{what}");
                    assert_eq!(run.records[0].bytes, pad(request("BYE", "z9hG4bK77", own)).as_bytes(), "{what}");
                    let highest = own.trim().trim_end_matches(" BYE").parse::<u32>().unwrap().max(number);
                    assert_eq!(tester.state(key), state(highest, delta), "{what}");

                    let frame =
                        |cseq| Frame::new(server, peer).with(pad(response("200 OK", "z9hG4bK77", cseq)).as_bytes());
                    let run = tester.run(Program::Egress, &frame(told));
                    assert_eq!((run.verdict, &run.out), (Verdict::Pass, &frame(own)), "{what}");
                    assert!(checksum_is_right(&run.out), "{what}");
                    let changed = u64::from(own != told);
                    assert_eq!([Counter::ShiftedOut, Counter::ShiftedIn].map(|one| tester.counter(one)), [changed; 2]);
                }
            }
        }
    }
}

#[test]
fn a_number_that_has_no_room_comes_in_as_it_is_and_no_packet_grows() {
    let mut tester = Tester::new();
    for program in INGRESS {
        tester.reset();
        arm(&mut tester, SERVER, known(8, 1));
        let frame = Frame::new(PEER, SERVER).with(request("BYE", "z9hG4bK77", "9 BYE").as_bytes());
        let run = tester.run(program, &frame);
        assert_eq!((run.verdict, &run.out), (Verdict::Pass, &frame), "{program:?}");
        assert_eq!((tester.counter(Counter::ShiftNoRoom), tester.counter(Counter::Lengthened)), (1, 0), "{program:?}");
    }
}

#[test]
fn the_peers_ack_and_cancel_have_the_number_of_their_invite() {
    let mut tester = Tester::new();
    for program in INGRESS {
        tester.reset();
        let key = arm(&mut tester, SERVER, known(2, 4));
        for (method, own, told) in [("INVITE", 3, 7), ("CANCEL", 3, 7), ("ACK", 3, 7), ("ACK", 9, 13), ("ACK", 2, 2)] {
            let frame = |number| request(method, "z9hG4bK77", &format!(" {number:>2} {method}"));
            let run = tester.run(program, &Frame::new(PEER, SERVER).with(frame(own).as_bytes()));
            assert_eq!(run.out, Frame::new(PEER, SERVER).with(frame(told).as_bytes()), "{program:?} {method} {own}");
            assert_eq!(tester.state(key), state(3, 4), "{program:?} {method} {own}");
        }
    }
}

#[test]
fn what_quotes_a_number_of_the_peers_follows_it() {
    let mut tester = Tester::new();
    let with = |text: String, header: &str| text.replace("Content-Length:", &format!("{header}\r\nContent-Length:"));
    for program in INGRESS {
        for (method, own, told) in [
            ("PRACK", "RAck: 7  4 INVITE", "RAck: 7  6 INVITE"),
            ("SUBSCRIBE", "Event: refer;id=4", "Event: refer;id=6"),
        ] {
            tester.reset();
            arm(&mut tester, SERVER, known(3, 2));
            let frame = |header, number| {
                let text = request(method, "z9hG4bK77", &format!(" {number} {method}"));
                Frame::new(PEER, SERVER).with(with(text, header).as_bytes())
            };
            assert_eq!(tester.run(program, &frame(own, 5)).out, frame(told, 7), "{program:?} {method}");
        }
    }
    // The server's NOTIFY, whose own number is shifted by another map.
    tester.reset();
    arm(&mut tester, SERVER, known(3, 2));
    tester.arm(SERVER, "call-1@host", "srv", known(10, 9));
    let frame = |header, number| {
        let text = crate::tester::request("NOTIFY", &format!(" {number} NOTIFY"));
        Frame::new(SERVER, PEER).with(with(text, header).as_bytes())
    };
    let run = tester.run(Program::Egress, &frame("Event: refer;id=6", 11));
    assert_eq!(String::from_utf8_lossy(&run.out), String::from_utf8_lossy(&frame("Event: refer;id=4", 20)));
}

#[test]
fn neither_sides_numbers_are_the_others() {
    let mut tester = Tester::new();
    let peers = Frame::new(PEER, SERVER).with(request("BYE", "z9hG4bK77", " 3 BYE").as_bytes());
    let servers = Frame::new(SERVER, PEER).with(crate::tester::request("BYE", " 3 BYE").as_bytes());
    for program in INGRESS {
        // Under the other one's tag, even.
        for (whose, tag) in [(Whose::Server, "srv"), (Whose::Server, "peer"), (Whose::Peer, "srv")] {
            tester.reset();
            tester.arm_of(whose, SERVER, "call-1@host", tag, known(2, 1));
            assert_eq!(tester.run(program, &peers).out, peers, "{program:?} {whose:?} {tag}");
        }
    }
    tester.reset();
    arm(&mut tester, SERVER, known(2, 1));
    assert_eq!(tester.run(Program::Egress, &servers).out, servers);
    let answer = Frame::new(PEER, SERVER).with(crate::tester::response("200 OK", "z9hG4bK77", " 4 BYE").as_bytes());
    for program in INGRESS {
        assert_eq!(tester.run(program, &answer).out, answer, "{program:?}");
    }
}

/// As it leaves the daemon: from the server to the peer.
fn told(server: &str, peer: &str, number: u32) -> (Vec<u8>, Vec<u8>) {
    let text = request("INVITE", BRANCH, &format!(" {number} INVITE"));
    (Frame::new(server, peer).with(text.as_bytes()), expected(&Frame::new(server, peer), text.as_bytes()))
}

#[test]
fn a_request_in_the_peers_name_commits_its_number_and_is_turned_round_whole() {
    let mut tester = Tester::new();
    for (server, peer) in ENDS {
        for (tags, extras) in [(&[][..], false), (&[7], false), (&[7, 8], true)] {
            tester.reset();
            let key = arm(&mut tester, server, known(10, 0));
            tester.record(TOKEN, key, state(10, 0), false);
            let text = request("INVITE", BRANCH, " 11 INVITE");
            let mut frame = Frame::new(server, peer).tags(tags);
            frame.extras = extras;
            let mut back = Frame { from: frame.to, to: frame.from, ..frame.clone() }.with(text.as_bytes());
            let (left, right) = back[..12].split_at_mut(6);
            left.swap_with_slice(right);
            for counter in [Counter::Committed, Counter::Repeated] {
                let run = tester.run(Program::Egress, &frame.with(text.as_bytes()));
                assert_eq!((run.verdict, &run.out), (Verdict::Back, &back), "{server} {tags:?}");
                assert!(checksum_is_right(&run.out), "{server} {tags:?}");
                let [record] = run.records.as_slice() else { panic!("{:?}", run.records) };
                assert_eq!((record.header.kind, record.header.token), (kind::INJECTED, TOKEN));
                assert_eq!((tester.counter(counter), tester.state(key)), (1, state(10, 1)));
            }
            // The peer's next one goes above it.
            for program in INGRESS {
                let bye = |number| {
                    Frame::new(peer, server).with(request("BYE", "z9hG4bK77", &format!(" {number} BYE")).as_bytes())
                };
                assert_eq!(tester.run(program, &bye(11)).out, bye(12), "{program:?} {server}");
            }
        }
    }
}

#[test]
fn a_request_in_the_peers_name_for_another_state_or_off_the_record_goes_nowhere() {
    let mut tester = Tester::new();
    let (frame, _) = told(SERVER, PEER, 11);
    let run = tester.run(Program::Egress, &frame);
    assert_eq!((run.verdict, run.records[0].header.reason), (Verdict::Take, refused::UNKNOWN_TOKEN));
    let key = arm(&mut tester, SERVER, known(11, 0));
    tester.record(TOKEN, key, state(10, 0), false);
    let run = tester.run(Program::Egress, &frame);
    assert_eq!((run.verdict, run.records[0].header.reason), (Verdict::Take, refused::MOVED), "the peer has moved on");
    assert_eq!(tester.state(key), state(11, 0));
    let broken = String::from_utf8_lossy(&frame).replace("0123456789abcdef", "0123456789abcdeX");
    let text = broken.split_once("INVITE").map(|(_, text)| format!("INVITE{text}")).unwrap();
    let run = tester.run(Program::Egress, &Frame::new(SERVER, PEER).with(text.as_bytes()));
    assert_eq!((run.verdict, run.records[0].header.reason), (Verdict::Take, refused::UNKNOWN_TOKEN));
}

#[test]
fn it_comes_in_as_it_is_and_unsampled_and_what_only_looks_like_it_is_a_request_of_the_peers() {
    let mut tester = Tester::new();
    for program in INGRESS {
        for on_record in [true, false] {
            tester.reset();
            let key = arm(&mut tester, SERVER, known(10, 1));
            if on_record {
                tester.record(TOKEN, key, State::default(), true);
            }
            let frame = |number| request("INVITE", BRANCH, &format!(" {number} INVITE"));
            let run = tester.run(program, &Frame::new(PEER, SERVER).with(frame(11).as_bytes()));
            assert_eq!(run.verdict, Verdict::Pass, "{program:?}");
            assert_eq!(run.records.len(), usize::from(!on_record), "{program:?}");
            let at = if on_record { 11 } else { 12 };
            assert_eq!(run.out, Frame::new(PEER, SERVER).with(frame(at).as_bytes()), "{program:?} {on_record}");
        }
    }
}

#[test]
fn the_servers_answer_never_leaves_whatever_the_token_says() {
    let mut tester = Tester::new();
    for status in ["100 Trying", "200 OK", "488 Not Acceptable Here"] {
        for on_record in [true, false] {
            tester.reset();
            if on_record {
                tester.record(TOKEN, DialogKey { map: 1, check: 2 }, State::default(), true);
            }
            let text = response(status, BRANCH, " 11 INVITE");
            let run = tester.run(Program::Egress, &Frame::new(SERVER, PEER).with(text.as_bytes()));
            assert_eq!((run.verdict, run.records.len()), (Verdict::Take, usize::from(on_record)), "{status}");
            if on_record {
                let header = run.records[0].header;
                assert_eq!(
                    (header.kind, header.token, &run.records[0].bytes[..]),
                    (kind::ANSWER, TOKEN, text.as_bytes())
                );
            }
            let counter = if on_record { Counter::AnswerTaken } else { Counter::AnswerUnknown };
            assert_eq!(tester.counter(counter), 1, "{status}");
        }
    }
}

#[test]
fn an_icmp_error_of_this_hosts_about_it_does_not_leave_and_others_do() {
    let mut tester = Tester::new();
    for (v6, (server, peer)) in [false, true].into_iter().zip(ENDS) {
        let kind = if v6 { 1 } else { 3 };
        for (branch, verdict) in
            [(BRANCH, Verdict::Take), ("z9hG4bKsipst0123456789abcdef", Verdict::Pass), ("z9hG4bK77", Verdict::Pass)]
        {
            tester.reset();
            let quoted = Frame::new(peer, server).with(request("INVITE", branch, " 11 INVITE").as_bytes());
            let run = tester.run(Program::Egress, &icmp(v6, kind, &quoted, 500));
            assert_eq!((run.verdict, run.records.len()), (verdict, 0), "{v6} {branch}");
            assert_eq!(tester.counter(Counter::IcmpTaken), u64::from(verdict == Verdict::Take), "{v6} {branch}");
        }
    }
}

#[test]
fn an_answer_to_another_sipst_on_the_peers_host_leaves() {
    let mut tester = Tester::new();
    for branch in ["z9hG4bKsipst0123456789abcdef", "z9hG4bKsips", "z9hG4bKsipsq0123456789abcdef"] {
        let frame = Frame::new(SERVER, PEER).with(response("200 OK", branch, " 11 UPDATE").as_bytes());
        let run = tester.run(Program::Egress, &frame);
        assert_eq!((run.verdict, &run.out), (Verdict::Pass, &frame), "{branch}");
    }
}

#[test]
fn the_servers_2xx_becomes_its_ack_where_the_daemon_is_silent_and_only_there() {
    let mut tester = Tester::new();
    for (server, peer) in ENDS {
        for len in [1, 2, 333, 334, 1400] {
            let message = vec![b'a'; len];
            let (from, to): (std::net::SocketAddr, std::net::SocketAddr) =
                (server.parse().unwrap(), peer.parse().unwrap());
            // Its headers are the peer's.
            let headers = ready(peer, server, &message);
            let ends = ready(server, peer, &message);
            let ack = Ack { headers: headers.headers, checksum: headers.checksum, ..ends };
            assert_eq!((from.port().to_be_bytes(), to.port().to_be_bytes()), (ack.server_port, ack.peer_port));
            for (silent, status, verdict) in [
                (true, "200 OK", Verdict::Back),
                (false, "200 OK", Verdict::Take),
                (true, "488 Not Acceptable Here", Verdict::Take),
                (true, "100 Trying", Verdict::Take),
            ] {
                tester.reset();
                if !silent {
                    tester.beat(now());
                }
                tester.record(TOKEN, DialogKey { map: 1, check: 2 }, State::default(), true);
                tester.keep(TOKEN, ack);
                let frame = Frame::new(server, peer);
                let run = tester.run(Program::Egress, &frame.with(response(status, BRANCH, " 11 INVITE").as_bytes()));
                let back = verdict == Verdict::Back;
                let expected_records = 1 + usize::from(back);
                let case = format!("{server} {len} {silent} {status}");
                assert_eq!((run.verdict, run.records.len()), (verdict, expected_records), "{case}");
                if back {
                    let shown = &run.records[1];
                    assert_eq!((shown.header.kind, shown.header.token), (kind::INJECTED, TOKEN), "{case}");
                    assert_eq!((shown.header.direction, &shown.bytes), (direction::EGRESS, &message), "{case}");
                    assert_eq!(run.out, expected(&frame, &message), "{server} {len}");
                    assert!(checksum_is_right(&run.out), "{server} {len}");
                }
            }
        }
    }
}
