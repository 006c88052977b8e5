//! The server's refusals of the peer's refreshes: held back whole where the dialog is marked and a daemon lives, and nowhere
//! else; and the ACKs to what is answered in the server's place.

use st_ebpf::{
    abi::{Counter, HELD_BYTES, HOLD_SILENT_NS, Hold, RING_BYTES, direction, holds, kind},
    key::{DialogKey, Whose, branch},
};

use crate::{
    ack::now,
    frame::{Frame, checksum_is_right},
    shift::known,
    tester::{HASH_KEY, INGRESS, PEER, PEER_V6, Program, Run, SERVER, SERVER_V6, Tester, Verdict, request},
};

const ENDS: [(&str, &str); 2] = [(SERVER, PEER), (SERVER_V6, PEER_V6)];
const BRANCH: &str = "z9hG4bK77";
const BOTH: u32 = holds::INVITE | holds::UPDATE;

/// The server's response to a request of the peer's; `more`: further header lines.
fn refusal(status: &str, cseq: &str, more: &str) -> String {
    format!(
        "SIP/2.0 {status}\r\nVia: SIP/2.0/UDP 198.51.100.7:5070;branch={BRANCH};received=198.51.100.7\r\n\
         From: <sip:peer@198.51.100.7>;tag=peer\r\nTo: <sip:server@192.0.2.1>;tag=srv\r\n\
         Call-ID: call-1@host\r\nCSeq: {cseq}\r\n{more}Content-Length: 0\r\n\r\n"
    )
}

/// An ACK in the peer's orientation.
fn ack(branch: &str, number: u32) -> String {
    format!(
        "ACK sip:server@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.7:5070;branch={branch}\r\n\
         From: <sip:peer@198.51.100.7>;tag=peer\r\nTo: <sip:server@192.0.2.1>;tag=srv\r\n\
         Call-ID: call-1@host\r\nCSeq:{number:>3} ACK\r\nContent-Length: 0\r\n\r\n"
    )
}

fn key(tag: &str) -> DialogKey {
    DialogKey::of(HASH_KEY, b"call-1@host", tag.as_bytes(), Whose::Peer).unwrap()
}

fn mark() -> Hold {
    Hold { check: key("peer").check, methods: BOTH, ..Hold::default() }
}

/// The cookie of the socket that a packet seems to come from; each run has another one.
fn cookie(tester: &mut Tester) -> u64 {
    let frame = Frame::new(SERVER, PEER).with(request("INFO", " 3 INFO").as_bytes());
    tester.run(Program::Egress, &frame).records.last().unwrap().header.cookie
}

/// Runs a packet through `st_egress` after `prepare` with that mark on the dialog, whose server's socket is the one that sends it.
fn run(tester: &mut Tester, mark: Option<Hold>, frame: &[u8], prepare: impl Fn(&mut Tester)) -> Run {
    for _ in 0..1_000 {
        tester.reset();
        let before = cookie(tester);
        if let Some(mark) = mark {
            tester.hold(key("peer").map, Hold { cookie: mark.cookie + before + 1, ..mark });
        }
        tester.beat(now());
        prepare(tester);
        let (verdict, out) = tester.run_keeping(Program::Egress, frame);
        let mut records = tester.drain();
        // Those that `prepare` has put there.
        records.retain(|record| record.header.direction == direction::EGRESS);
        // Other programs open sockets meanwhile.
        if cookie(tester) == before + 2 {
            return Run { verdict, out, records };
        }
    }
    panic!("the cookies of this host's sockets are never in order");
}

fn held(run: &Run, text: &str) -> bool {
    let [record] = run.records.as_slice() else { panic!("{:?}", run.records) };
    assert_eq!(record.bytes, text.as_bytes());
    let is_held = record.header.kind == kind::HELD;
    assert_eq!(run.verdict, if is_held { Verdict::Take } else { Verdict::Pass }, "{text}");
    assert!(is_held || record.header.kind == kind::MESSAGE);
    is_held
}

#[test]
fn each_refusal_of_a_refresh_is_held_back_whole_and_every_other_response_leaves() {
    let mut tester = Tester::new();
    for (server, peer) in ENDS {
        for (status, is_refusal) in [
            ("405 Method Not Allowed", true),
            ("420 Bad Extension", true),
            ("488 Not Acceptable Here", true),
            ("500 Server Internal Error", true),
            ("501 Not Implemented", true),
            ("503 Service Unavailable", true),
            ("100 Trying", false),
            ("180 Ringing", false),
            ("200 OK", false),
            ("401 Unauthorized", false),
            ("404 Not Found", false),
            ("407 Proxy Authentication Required", false),
            ("408 Request Timeout", false),
            ("410 Gone", false),
            ("422 Session Interval Too Small", false),
            ("480 Temporarily Unavailable", false),
            ("481 Call Does Not Exist", false),
            ("482 Loop Detected", false),
            ("483 Too Many Hops", false),
            ("484 Address Incomplete", false),
            ("485 Ambiguous", false),
            ("491 Request Pending", false),
            ("504 Timeout", false),
            ("603 Decline", false),
            ("4055 Odd", false),
        ] {
            for method in ["INVITE", "UPDATE"] {
                let text = refusal(status, &format!("7 {method}"), "");
                let run = run(&mut tester, Some(mark()), &Frame::new(server, peer).with(text.as_bytes()), |_| {});
                assert_eq!(held(&run, &text), is_refusal, "{status} {method}");
                assert_eq!(tester.counter(Counter::Held), u64::from(is_refusal), "{status} {method}");
            }
        }
    }
}

#[test]
fn what_may_not_be_held_back_leaves() {
    let mut tester = Tester::new();
    let usual = refusal("503 Service Unavailable", "7 INVITE", "");
    let cases: [(&str, Option<Hold>, String, bool); 13] = [
        ("all is as it must be", Some(mark()), usual.clone(), true),
        ("no mark", None, usual.clone(), false),
        ("another socket's", Some(Hold { cookie: 1_000_000, ..mark() }), usual.clone(), false),
        ("another dialog's mark under the same key", Some(Hold { check: 1, ..mark() }), usual.clone(), false),
        ("only UPDATE is marked", Some(Hold { methods: holds::UPDATE, ..mark() }), usual.clone(), false),
        ("neither is", Some(Hold { methods: 0, ..mark() }), usual.clone(), false),
        ("BYE", Some(mark()), refusal("503 x", "7 BYE", ""), false),
        ("INFO", Some(mark()), refusal("501 x", "7 INFO", ""), false),
        ("a method nobody knows", Some(mark()), refusal("501 x", "7 INVITED", ""), false),
        ("the other side's dialog", Some(mark()), usual.replace("tag=peer", "tag=other"), false),
        ("no number", Some(mark()), usual.replace("CSeq: 7 INVITE", "CSeq: INVITE"), false),
        ("a 500 with Retry-After", Some(mark()), refusal("500 x", "7 UPDATE", "retry-AFTER : 5\r\n"), false),
        ("a 503 with Retry-After", Some(mark()), refusal("503 x", "7 UPDATE", "Retry-After: 5\r\n"), true),
    ];
    for (what, mark, text, expected) in cases {
        let run = run(&mut tester, mark, &Frame::new(SERVER, PEER).with(text.as_bytes()), |_| {});
        assert_eq!(held(&run, &text), expected, "{what}");
        if !expected {
            assert_eq!(run.out, Frame::new(SERVER, PEER).with(text.as_bytes()), "{what}");
        }
    }
}

#[test]
fn nothing_is_held_back_without_a_daemon_that_has_just_given_a_sign_of_life() {
    let mut tester = Tester::new();
    let text = refusal("405 x", "7 UPDATE", "");
    for (beat, expected) in [(None, false), (Some(2 * HOLD_SILENT_NS), false), (Some(HOLD_SILENT_NS / 5), true)] {
        let frame = Frame::new(SERVER, PEER).with(text.as_bytes());
        let run = run(&mut tester, Some(mark()), &frame, |tester| tester.beat(beat.map_or(0, |age| now() - age)));
        assert_eq!(held(&run, &text), expected, "{beat:?}");
    }
}

#[test]
fn a_refusal_leaves_where_the_ring_has_no_room_for_it() {
    let mut tester = Tester::new();
    let text = refusal("405 x", "7 UPDATE", "");
    let frame = Frame::new(SERVER, PEER).with(text.as_bytes());
    let full = run(&mut tester, Some(mark()), &frame, |tester| {
        // The last of the room goes to what is shorter than the refusal.
        for padding in [2_000, 1] {
            let padded = format!("X: {}\r\nContent-Length", "x".repeat(padding));
            let filler = request("INFO", " 3 INFO").replace("Content-Length", &padded);
            let filler = Frame::new(PEER, SERVER).with(filler.as_bytes());
            let before = tester.counter(Counter::RingFull);
            let mut runs = 0;
            while tester.counter(Counter::RingFull) == before {
                tester.run_keeping(Program::IngressXdp, &filler);
                runs += 1;
                assert!(runs < RING_BYTES / 100, "the ring never fills");
            }
        }
        tester.beat(now());
    });
    assert_eq!((full.verdict, &full.out), (Verdict::Pass, &frame));
    assert!(full.records.is_empty());
    assert_eq!(tester.counter(Counter::Held), 0);
    assert!(tester.counter(Counter::RingFull) >= 3, "it is counted as lost");
}

#[test]
fn a_refusal_that_is_no_whole_short_datagram_leaves() {
    let mut tester = Tester::new();
    let pad = |len: usize| {
        let text = refusal("503 x", "7 INVITE", "");
        let pad = "x".repeat(len - text.len() - 5);
        text.replace("Content-Length", &format!("X: {pad}\r\nContent-Length"))
    };
    for (len, expected) in [(HELD_BYTES, true), (HELD_BYTES + 1, false)] {
        let text = pad(len);
        assert_eq!(text.len(), len);
        let run = run(&mut tester, Some(mark()), &Frame::new(SERVER, PEER).with(text.as_bytes()), |_| {});
        assert_eq!(held(&run, &text), expected, "{len}");
    }
    let text = refusal("503 x", "7 INVITE", "");
    for frame in [
        Frame::new(SERVER, PEER).tcp().with(text.as_bytes()),
        Frame::new(SERVER, PEER).fragment(0x2000).with(text.as_bytes()),
        Frame::new(SERVER, PEER).fragment(0x0010).with(text.as_bytes()),
    ] {
        tester.reset();
        let cookie = cookie(&mut tester) + 1;
        tester.hold(key("peer").map, Hold { cookie, ..mark() });
        tester.beat(now());
        let run = tester.run(Program::Egress, &frame);
        assert_eq!(run.verdict, Verdict::Pass);
        assert!(run.records.iter().all(|record| record.header.kind != kind::HELD));
    }
}

#[test]
fn one_that_is_not_held_back_has_its_number_shifted_back_as_always() {
    let mut tester = Tester::new();
    for (status, more) in [("503 x", ""), ("500 x", "Retry-After: 3\r\n"), ("500 x", "")] {
        let text = |number| refusal(status, &format!("{number} UPDATE"), more);
        let frame = |number| Frame::new(SERVER, PEER).with(text(number).as_bytes());
        let prepare = |tester: &mut Tester| {
            tester.arm_of(Whose::Peer, SERVER, "call-1@host", "peer", known(2, 1));
        };
        let passed = run(&mut tester, None, &frame(4), prepare);
        assert_eq!((passed.verdict, &passed.out), (Verdict::Pass, &frame(3)), "{status} {more}");
        assert!(checksum_is_right(&passed.out));
        let taken = run(&mut tester, Some(mark()), &frame(4), prepare);
        assert_eq!(held(&taken, &text(4)), more.is_empty(), "as the server wrote it: {status} {more}");
    }
}

/// The mark of a dialog whose INVITE was answered in the server's name: number 9 at the server, 8 on the wire.
fn answered() -> Hold {
    let branch = branch(HASH_KEY, BRANCH.as_bytes()).unwrap();
    Hold { branch, until_ns: u64::MAX, answered: 9, wire: 8, ..mark() }
}

#[test]
fn the_peers_ack_to_a_2xx_in_the_servers_name_is_taken_and_one_to_the_refusal_is_not() {
    let mut tester = Tester::new();
    for (server, peer) in ENDS {
        for program in INGRESS {
            for shifted in [false, true] {
                for (what, branch, number, verdict, told) in [
                    ("the 2xx's", "z9hG4bK78", 8, Verdict::Take, 8),
                    ("the refusal's", BRANCH, 9, Verdict::Pass, 9),
                    ("another number's", "z9hG4bK78", 7, Verdict::Pass, 7),
                    ("the refusal's, from the wire", BRANCH, 8, Verdict::Pass, if shifted { 9 } else { 8 }),
                    ("a later one's", "z9hG4bK78", 9, Verdict::Pass, if shifted { 10 } else { 9 }),
                ] {
                    tester.reset();
                    tester.hold(key("peer").map, answered());
                    tester.acks_until(u64::MAX);
                    if shifted {
                        tester.arm_of(Whose::Peer, server, "call-1@host", "peer", known(7, 1));
                    }
                    let text = ack(branch, number);
                    let run = tester.run(program, &Frame::new(peer, server).with(text.as_bytes()));
                    let what = format!("{program:?} {server} {shifted} {what}");
                    assert_eq!((run.verdict, run.records.len()), (verdict, 1), "{what}");
                    assert_eq!((run.records[0].header.kind, &*run.records[0].bytes), (kind::MESSAGE, text.as_bytes()));
                    if verdict == Verdict::Pass {
                        assert_eq!(run.out, Frame::new(peer, server).with(ack(branch, told).as_bytes()), "{what}");
                    }
                    assert_eq!(tester.counter(Counter::AckTaken), u64::from(verdict == Verdict::Take), "{what}");
                }
            }
        }
    }
}

#[test]
fn no_ack_is_taken_without_a_mark_that_says_so_or_past_its_time() {
    let mut tester = Tester::new();
    let frame = Frame::new(PEER, SERVER).with(ack("z9hG4bK78", 8).as_bytes());
    for program in INGRESS {
        for (what, until, mark) in [
            ("nothing to be told apart", 0, Some(answered())),
            ("no mark", u64::MAX, None),
            ("past its time", u64::MAX, Some(Hold { until_ns: 1, ..answered() })),
            ("nothing was answered", u64::MAX, Some(Hold { until_ns: 0, ..mark() })),
            ("another dialog's", u64::MAX, Some(Hold { check: 1, ..answered() })),
        ] {
            tester.reset();
            tester.acks_until(until);
            if let Some(mark) = mark {
                tester.hold(key("peer").map, mark);
            }
            let run = tester.run(program, &frame);
            assert_eq!((run.verdict, &run.out, run.records.len()), (Verdict::Pass, &frame, 1), "{program:?} {what}");
        }
    }
    // The heartbeat plays no part: the peer's ACK may come after the daemon's end.
    tester.reset();
    tester.acks_until(u64::MAX);
    tester.hold(key("peer").map, answered());
    assert_eq!(tester.run(Program::IngressTc, &frame).verdict, Verdict::Take);
}

#[test]
fn an_ack_to_the_refusal_in_the_peers_name_is_turned_round_and_the_servers_own_leave() {
    let mut tester = Tester::new();
    let own = request("ACK", " 9 ACK");
    for (server, peer) in ENDS {
        for (what, text, marked, verdict) in [
            ("in the peer's name", ack(BRANCH, 9), true, Verdict::Back),
            ("with another branch", ack("z9hG4bK78", 9), true, Verdict::Pass),
            ("of another number", ack(BRANCH, 8), true, Verdict::Pass),
            ("without a mark", ack(BRANCH, 9), false, Verdict::Pass),
            ("the server's own", own.clone(), true, Verdict::Pass),
        ] {
            tester.reset();
            tester.acks_until(u64::MAX);
            if marked {
                tester.hold(key("peer").map, answered());
            }
            let run = tester.run(Program::Egress, &Frame::new(server, peer).with(text.as_bytes()));
            assert_eq!(run.verdict, verdict, "{server} {what}");
            assert_eq!(run.records.len(), usize::from(verdict == Verdict::Pass), "{server} {what}");
            if verdict == Verdict::Back {
                let frame = Frame::new(server, peer);
                let mut back = Frame { from: frame.to, to: frame.from, ..frame }.with(text.as_bytes());
                let (left, right) = back[..12].split_at_mut(6);
                left.swap_with_slice(right);
                assert_eq!(run.out, back, "{server}");
                assert!(checksum_is_right(&run.out), "{server}");
            }
        }
    }
}
