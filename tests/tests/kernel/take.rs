//! Answers to sipst's requests, and ICMP errors about them, never reach the server; everything else does.

use st_ebpf::{
    abi::{Counter, RING_BYTES, kind},
    cseq::State,
    key::DialogKey,
};

use crate::{
    frame::Frame,
    tester::{INGRESS, PEER, PEER_V6, Program, SERVER, SERVER_V6, Tester, Verdict, request, response},
};

const TOKEN: u64 = 0x0123_4567_89ab_cdef;
const BRANCH: &str = "z9hG4bKsipst0123456789abcdef";
const ANY_KEY: DialogKey = DialogKey { map: 1, check: 2 };

fn answer() -> Vec<u8> {
    Frame::new(PEER, SERVER).with(response("200 OK", BRANCH, " 12 UPDATE").as_bytes())
}

#[test]
fn a_known_answer_is_taken_and_handed_over() {
    let mut tester = Tester::new();
    for program in INGRESS {
        tester.reset();
        tester.record(TOKEN, ANY_KEY, State::default(), true);
        let run = tester.run(program, &answer());
        assert_eq!(run.verdict, Verdict::Take, "{program:?}");
        let [record] = run.records.as_slice() else { panic!("{program:?}: {:?}", run.records) };
        assert_eq!((record.header.kind, record.header.token), (kind::ANSWER, TOKEN), "{program:?}");
        assert_eq!(record.bytes, response("200 OK", BRANCH, " 12 UPDATE").as_bytes(), "{program:?}");
        assert_eq!(tester.counter(Counter::AnswerTaken), 1, "{program:?}");
    }
}

#[test]
fn an_unknown_or_broken_token_is_taken_all_the_same() {
    let mut tester = Tester::new();
    for program in INGRESS {
        for branch in [BRANCH, "z9hG4bKsipst0123456789abcdeX", "z9hG4bKsipst", "z9hG4bKsipst0123456789abcdef00"] {
            tester.reset();
            let frame = Frame::new(PEER, SERVER).with(response("200 OK", branch, " 12 UPDATE").as_bytes());
            let run = tester.run(program, &frame);
            assert_eq!((run.verdict, run.records.len()), (Verdict::Take, 0), "{program:?} {branch}");
            assert_eq!(tester.counter(Counter::AnswerUnknown), 1, "{program:?} {branch}");
        }
    }
}

#[test]
fn a_known_answer_is_taken_with_the_ring_full() {
    let mut tester = Tester::new();
    for program in INGRESS {
        tester.reset();
        tester.record(TOKEN, ANY_KEY, State::default(), true);
        let mut runs = 0;
        while tester.counter(Counter::RingFull) == 0 {
            assert_eq!(tester.run_keeping(program, &answer()).0, Verdict::Take, "{program:?}");
            runs += 1;
            assert!(runs < RING_BYTES / 100, "{program:?}: the ring never fills");
        }
        assert_eq!(tester.run_keeping(program, &answer()).0, Verdict::Take, "{program:?}");
    }
}

#[test]
fn answers_are_told_over_every_kind_of_packet() {
    let mut tester = Tester::new();
    for program in INGRESS {
        for (server, peer) in [(SERVER, PEER), (SERVER_V6, PEER_V6)] {
            for tags in [&[][..], &[7], &[7, 8]] {
                let mut frame = Frame::new(peer, server).tags(tags);
                for extras in [false, true] {
                    frame.extras = extras;
                    tester.reset();
                    let run = tester.run(program, &frame.with(response("200 OK", BRANCH, " 1 INVITE").as_bytes()));
                    assert_eq!(run.verdict, Verdict::Take, "{program:?} {server} {tags:?} {extras}");
                }
            }
        }
    }
}

#[test]
fn what_only_looks_like_an_answer_passes() {
    let mut tester = Tester::new();
    let nested = response("200 OK", "z9hG4bKproxy", " 12 UPDATE")
        .replace("Call-ID", &format!("Via: SIP/2.0/UDP 192.0.2.1;branch={BRANCH}\r\nCall-ID"));
    let in_list = response("200 OK", &format!("z9hG4bKproxy, SIP/2.0/UDP 192.0.2.1;branch={BRANCH}"), " 12 UPDATE");
    let in_body =
        format!("{}Via: SIP/2.0/UDP 192.0.2.1;branch={BRANCH}\r\n", response("200 OK", "z9hG4bKown", " 12 UPDATE"));
    let in_parameter = response("200 OK", &format!("z9hG4bKown;x={BRANCH}"), " 12 UPDATE");
    let a_request = request("BYE", " 3 BYE").replace("z9hG4bK77", BRANCH);
    for program in INGRESS {
        for (description, message) in [
            ("our branch below the topmost", nested.clone()),
            ("our branch second in a list", in_list.clone()),
            ("our branch in the body", in_body.clone()),
            ("our branch as another parameter", in_parameter.clone()),
            ("a request of another sipst's, coming in", a_request.clone()),
            ("a branch that begins almost like ours", response("200 OK", "z9hG4bKsips0123456789abcdef", " 1 BYE")),
        ] {
            tester.reset();
            tester.record(TOKEN, ANY_KEY, State::default(), true);
            let frame = Frame::new(PEER, SERVER).with(message.as_bytes());
            let run = tester.run(program, &frame);
            assert_eq!((run.verdict, &run.out), (Verdict::Pass, &frame), "{program:?}: {description}");
        }
    }
    let mut tester = Tester::new();
    let frame = Frame::new(SERVER, PEER).with(response("200 OK", BRANCH, " 1 UPDATE").as_bytes());
    let run = tester.run(Program::Egress, &frame);
    assert_eq!((run.verdict, run.out), (Verdict::Pass, frame), "the server answers another sipst's request");
}

/// An ICMP error (`kind`) from the peer that quotes `quoted`, a frame of the server's, up to `quote` bytes of IP.
pub(crate) fn icmp(v6: bool, kind: u8, quoted: &[u8], quote: usize) -> Vec<u8> {
    let ip = &quoted[14..];
    let content = [&[kind, 3, 0, 0, 0, 0, 0, 0], &ip[..quote.min(ip.len())]].concat();
    let mut frame = if v6 { Frame::new(PEER_V6, SERVER_V6) } else { Frame::new(PEER, SERVER) };
    frame.protocol = if v6 { etherparse::ip_number::IPV6_ICMP } else { etherparse::ip_number::ICMP };
    frame.around(&content)
}

#[test]
fn an_icmp_error_about_our_request_is_taken_and_others_pass() {
    let mut tester = Tester::new();
    for program in INGRESS {
        for v6 in [false, true] {
            let sent = if v6 { Frame::new(SERVER_V6, PEER_V6) } else { Frame::new(SERVER, PEER) };
            let ours = sent.with(request("UPDATE", " 3 UPDATE").replace("z9hG4bK77", BRANCH).as_bytes());
            let theirs = sent.with(request("BYE", " 3 BYE").as_bytes());
            let unreachable = if v6 { 1 } else { 3 };
            let echo = if v6 { 129 } else { 0 };
            for (description, frame, verdict) in [
                ("about ours", icmp(v6, unreachable, &ours, 500), Verdict::Take),
                ("about the server's", icmp(v6, unreachable, &theirs, 500), Verdict::Pass),
                ("about ours, quoted too short to know", icmp(v6, unreachable, &ours, 60), Verdict::Pass),
                ("an echo that quotes ours", icmp(v6, echo, &ours, 500), Verdict::Pass),
            ] {
                tester.reset();
                let run = tester.run(program, &frame);
                assert_eq!(run.verdict, verdict, "{program:?} v6 {v6}: {description}");
                let taken = u64::from(verdict == Verdict::Take);
                assert_eq!(tester.counter(Counter::IcmpTaken), taken, "{program:?} v6 {v6}: {description}");
            }
        }
    }
}

/// The first fragment of a datagram, and the one after it.
const FIRST: u16 = 0x2000;
const SECOND: u16 = 320 / 8;

/// A datagram's first fragment of 320 bytes, or what comes after it.
fn fragment(frame: &Frame, fragment: u16, message: &str) -> Vec<u8> {
    let datagram = frame.udp(message.as_bytes());
    let part = if fragment == SECOND { &datagram[320..] } else { &datagram[..320] };
    frame.clone().fragment(fragment).around(part)
}

/// A response that takes two fragments.
fn long(response: &str) -> String {
    response.replace("Content-Length: 0", &format!("Server: {}\r\nContent-Length: 0", "x".repeat(400)))
}

#[test]
fn every_fragment_but_of_an_answer_passes() {
    let mut tester = Tester::new();
    let answer = long(&response("200 OK", BRANCH, " 12 INVITE"));
    let theirs = long(&response("200 OK", "z9hG4bK77", " 12 INVITE"));
    let below = answer.replacen("Via: ", "Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK77\r\nVia: ", 1);
    let asks = long(&request("BYE", " 3 BYE").replace("z9hG4bK77", BRANCH));
    let late = answer.replacen("Via: ", &format!("Server: {}\r\nVia: ", "y".repeat(300)), 1);
    let noise = "x".repeat(800);
    let (v4, v6) = (Frame::new(PEER, SERVER), Frame::new(PEER_V6, SERVER_V6));
    for program in INGRESS {
        for frame in [&v4, &v6] {
            let elsewhere = Frame { to: (frame.to.ip(), 4000).into(), ..frame.clone() };
            for (description, bytes) in [
                ("an answer to the server", fragment(frame, FIRST, &theirs)),
                ("sipst's branch below the topmost", fragment(frame, FIRST, &below)),
                ("a request", fragment(frame, FIRST, &asks)),
                ("no SIP", fragment(frame, FIRST, &noise)),
                ("its branch is in the second", fragment(frame, FIRST, &late)),
                ("not the first", frame.clone().fragment(FIRST | SECOND).with(answer.as_bytes())),
                ("the last", frame.clone().fragment(SECOND).with(answer.as_bytes())),
                ("another port", fragment(&Frame { from: elsewhere.to, ..elsewhere.clone() }, FIRST, &answer)),
                ("no whole UDP header", frame.clone().fragment(FIRST).around(&frame.udp(&[])[..6])),
                ("no payload", frame.clone().fragment(FIRST).around(&frame.udp(&[]))),
            ] {
                tester.reset();
                let run = tester.run(program, &bytes);
                assert_eq!((run.verdict, run.out), (Verdict::Pass, bytes), "{program:?}: {description}");
            }
        }
    }
    let out = fragment(&Frame::new(SERVER, PEER), FIRST, &answer);
    let run = tester.run(Program::Egress, &out);
    assert_eq!((run.verdict, run.out), (Verdict::Pass, out), "the server answers another sipst's request");
}
