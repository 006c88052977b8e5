//! Several datagrams as one packet: each is read for itself, its number is kept, and the packet goes on as it was.

use st_ebpf::{
    abi::{self, Counter, Shift, direction, flags, kind, mapped, refused},
    cseq::{Range, State},
    key::DialogKey,
};

use crate::{
    frame::Frame,
    tester::{HASH_KEY, PEER, PEER_V6, Program, Record, Run, SERVER, SERVER_V6, Tester, Verdict, request, response},
};

const WAYS: [Program; 2] = [Program::IngressTc, Program::Egress];
const TOKEN: u64 = 0xfeed_0000_0000_0001;

fn between(program: Program, server: &str, peer: &str) -> Frame {
    if program == Program::Egress { Frame::new(server, peer) } else { Frame::new(peer, server) }
}

/// A message of so many bytes.
fn long(message: &str, len: usize) -> String {
    let fill = len - message.len() - "X-Fill: \r\n".len();
    message.replacen("\r\n", &format!("\r\nX-Fill: {}\r\n", "f".repeat(fill)), 1)
}

/// Messages as one packet: all are made as long as the longest but the last, which stays as it is and may not be the longest.
fn joined(tester: &mut Tester, program: Program, frame: &Frame, messages: &[String]) -> (Run, Vec<String>) {
    let size = messages.iter().map(String::len).max().unwrap() + 16;
    let (last, others) = messages.split_last().unwrap();
    let mut all: Vec<String> = others.iter().map(|message| long(message, size)).collect();
    all.push(last.clone());
    let bytes = frame.with(all.concat().as_bytes());
    let run = tester.run_joined(program, &bytes, size);
    assert!(run.verdict == Verdict::Pass && run.out == bytes, "{program:?}: it goes on as it was");
    (run, all)
}

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8(record.bytes.clone()).unwrap()).collect()
}

fn asks(method: &str, number: u32) -> String {
    request(method, &format!(" {number} {method}"))
}

fn key() -> DialogKey {
    DialogKey::new(HASH_KEY, b"call-1@host", b"srv").unwrap()
}

#[test]
fn each_of_them_is_read_as_a_datagram_of_its_own() {
    let mut tester = Tester::new();
    for program in WAYS {
        for (server, peer) in [(SERVER, PEER), (SERVER_V6, PEER_V6)] {
            let plain = between(program, server, peer);
            let tagged = plain.clone().tags(&[5]);
            for frame in [plain.clone(), tagged, plain.clone().tags(&[5, 6]), Frame { extras: true, ..plain.clone() }] {
                tester.reset();
                let messages = [asks("BYE", 3), response("200 OK", "z9hG4bK1", " 7 INVITE"), asks("INFO", 4)];
                let (run, all) = joined(&mut tester, program, &frame, &messages);
                assert_eq!(texts(&run.records), all, "{program:?} {server}");
                let expected = [(Counter::Seen, 1), (Counter::Sampled, 3), (Counter::Joined, 1)];
                assert_eq!(tester.counters(), expected, "{program:?} {server}");
                for record in &run.records {
                    let header = &record.header;
                    assert_eq!((header.kind, header.reason, header.flags), (kind::MESSAGE, 0, flags::JOINED));
                    let is_out = program == Program::Egress;
                    assert_eq!(header.direction, if is_out { direction::EGRESS } else { direction::INGRESS });
                    let ends = [server, peer].map(|end| end.parse::<std::net::SocketAddr>().unwrap());
                    assert_eq!([header.server, header.peer], ends.map(|end| mapped(end.ip())));
                    assert_eq!([header.server_port, header.peer_port], ends.map(|end| end.port().to_be_bytes()));
                    assert_eq!((header.tos, header.ttl), (0x68, 61));
                    assert_eq!(header.wire_len, header.captured_len);
                }
            }
        }
    }
}

#[test]
fn the_control_what_is_no_joined_packet_is_read_as_one() {
    let mut tester = Tester::new();
    for program in WAYS {
        tester.reset();
        let bytes = between(program, SERVER, PEER).with(asks("BYE", 3).repeat(2).as_bytes());
        let run = tester.run(program, &bytes);
        assert_eq!((run.records.len(), run.records[0].header.flags, tester.counter(Counter::Joined)), (1, 0, 0));
    }
}

#[test]
fn what_is_no_message_of_a_dialogs_costs_no_place_in_the_ring() {
    let mut tester = Tester::new();
    let outside = |method: &str| asks(method, 7).replace(";tag=peer", "");
    for program in WAYS {
        tester.reset();
        let (register, options) = (outside("REGISTER"), outside("OPTIONS"));
        let pong = response("200 OK", "z9hG4bK1", " 7 OPTIONS");
        let junk = ".".repeat(options.len());
        let last = "\r\n\r\n".to_owned();
        let messages = [register, options, pong, asks("BYE", 9), last];
        let (run, all) = joined(&mut tester, program, &between(program, SERVER, PEER), &messages);
        assert_eq!(texts(&run.records), [&all[3][..]], "{program:?}");
        let expected = [
            (Counter::Seen, 1),
            (Counter::Sampled, 1),
            (Counter::Joined, 1),
            (Counter::KeepAlive, 1),
            (Counter::OutsideRequest, 2),
            (Counter::OutsideResponse, 1),
        ];
        for (counter, count) in expected {
            assert_eq!(tester.counter(counter), count, "{program:?} {}", counter.name());
        }
        let run = tester.run_joined(program, &between(program, SERVER, PEER).with(junk.as_bytes()), 100);
        assert!(run.records.is_empty() && tester.counter(Counter::NotSip) > 0);
    }
}

#[test]
fn no_more_are_read_than_the_limit_and_the_rest_counts_as_lost() {
    let mut tester = Tester::new();
    let invite = asks("INVITE", 7);
    for program in WAYS {
        for beyond in [0, 5] {
            tester.reset();
            let count = abi::JOINED as usize + beyond;
            // Too short to be anything but what they begin with.
            let short = &invite.as_bytes()[..24];
            let run =
                tester.run_joined(program, &between(program, SERVER, PEER).with(&short.repeat(count)), short.len());
            assert_eq!(run.verdict, Verdict::Pass);
            let read = Counter::ALL.iter().filter(|counter| {
                matches!(counter, Counter::Sampled | Counter::OutsideRequest | Counter::RingFull | Counter::NotSip)
            });
            let read: u64 = read.map(|counter| tester.counter(*counter)).sum();
            assert_eq!((read, tester.counter(Counter::JoinedUnread)), (abi::JOINED.into(), beyond as u64));
        }
    }
}

#[test]
fn the_servers_numbers_are_kept_and_none_is_rewritten() {
    let mut tester = Tester::new();
    let server = || between(Program::Egress, SERVER, PEER);
    let messages = [asks("INFO", 10), asks("ACK", 77), asks("UPDATE", 11), asks("CANCEL", 78)];
    let (_, _) = joined(&mut tester, Program::Egress, &server(), &messages);
    assert_eq!((tester.latest(key()), tester.counter(Counter::JoinedUnshifted)), (Some(11), 0));
    // As in a full ring.
    while tester.counter(Counter::RingFull) == 0 {
        tester.run_keeping(Program::Egress, &server().with(asks("INFO", 11).as_bytes()));
    }
    tester.run_joined(Program::Egress, &server().with(long(&asks("INFO", 12), 900).repeat(2).as_bytes()), 900);
    assert_eq!(tester.latest(key()), Some(12));
    // The peer's keep none, for anybody can send them.
    tester.reset();
    joined(&mut tester, Program::IngressTc, &between(Program::IngressTc, SERVER, PEER), &messages);
    assert_eq!(tester.latest(key()), None);
}

#[test]
fn a_request_of_sipsts_takes_no_number_that_the_server_has_used_in_one_of_them() {
    let mut tester = Tester::new();
    let state = |number, delta| State { known: true, number, delta };
    for before in [false, true] {
        tester.reset();
        let key = tester.arm(SERVER, "call-1@host", "srv", Shift { word: state(10, 0).to_word(), ..Shift::default() });
        tester.record(TOKEN, key, state(10, 0), false);
        if before {
            let messages = [asks("OPTIONS", 10), asks("INFO", 11)];
            joined(&mut tester, Program::Egress, &between(Program::Egress, SERVER, PEER), &messages);
        }
        let own = asks("UPDATE", 11).replace("z9hG4bK77", &format!("z9hG4bKsipst{TOKEN:016x}"));
        let run = tester.run(Program::Egress, &Frame::new(SERVER, PEER).with(own.as_bytes()));
        if before {
            assert_eq!((run.verdict, run.records[0].header.reason), (Verdict::Take, refused::MOVED));
            assert_eq!(tester.state(key), state(11, 0));
        } else {
            assert_eq!((run.verdict, run.records[0].header.kind), (Verdict::Pass, kind::INJECTED));
        }
    }
}

#[test]
fn what_would_have_another_number_on_the_other_side_is_counted() {
    let mut tester = Tester::new();
    let ranges = [Range { below: 10, delta: 0 }, Range::default(), Range::default(), Range::default()];
    let word = State { known: true, number: 9, delta: 3 }.to_word();
    let key = tester.arm(SERVER, "call-1@host", "srv", Shift { word, ranges, ..Shift::default() });
    let messages = [asks("INFO", 9), asks("INFO", 10), asks("BYE", 11), asks("ACK", 9)];
    joined(&mut tester, Program::Egress, &between(Program::Egress, SERVER, PEER), &messages);
    assert_eq!(tester.counter(Counter::JoinedUnshifted), 2);
    assert_eq!(tester.state(key), State { known: true, number: 11, delta: 3 });
    let answer = |number: u32| response("200 OK", "z9hG4bK1", &format!(" {number} INFO"));
    let messages = [answer(9), answer(13), answer(14), answer(12)];
    joined(&mut tester, Program::IngressTc, &between(Program::IngressTc, SERVER, PEER), &messages);
    assert_eq!(tester.counter(Counter::JoinedUnshifted), 4);
    // The next one by itself goes above them.
    let out = tester.run(Program::Egress, &Frame::new(SERVER, PEER).with(asks("BYE", 12).as_bytes())).out;
    assert!(String::from_utf8_lossy(&out).contains("CSeq: 15 BYE"), "{}", String::from_utf8_lossy(&out));
}

#[test]
fn an_answer_to_sipst_among_them_goes_on_and_is_handed_over_where_its_token_is_known() {
    let mut tester = Tester::new();
    for (program, prefix) in [(Program::IngressTc, "z9hG4bKsipst"), (Program::Egress, "z9hG4bKsipsp")] {
        for known in [true, false] {
            tester.reset();
            if known {
                tester.record(TOKEN, key(), State { known: true, number: 10, delta: 0 }, true);
            }
            let answer = response("200 OK", &format!("{prefix}{TOKEN:016x}"), " 11 UPDATE");
            let messages = [answer, asks("INFO", 12)];
            let (run, all) = joined(&mut tester, program, &between(program, SERVER, PEER), &messages);
            let kinds: Vec<(u8, u64)> = run.records.iter().map(|it| (it.header.kind, it.header.token)).collect();
            if known {
                assert_eq!(kinds, [(kind::ANSWER, TOKEN), (kind::MESSAGE, 0)], "{program:?}");
                assert_eq!(texts(&run.records), all);
            } else {
                assert_eq!(kinds, [(kind::MESSAGE, 0)], "{program:?}");
            }
            assert_eq!((tester.counter(Counter::JoinedAnswer), tester.counter(Counter::AnswerTaken)), (1, 0));
        }
    }
}

#[test]
fn what_looks_like_a_request_of_sipsts_takes_no_number() {
    let mut tester = Tester::new();
    let state = State { known: true, number: 10, delta: 0 };
    let key = tester.arm(SERVER, "call-1@host", "srv", Shift { word: state.to_word(), ..Shift::default() });
    tester.record(TOKEN, key, state, false);
    let own = asks("UPDATE", 11).replace("z9hG4bK77", &format!("z9hG4bKsipst{TOKEN:016x}"));
    let (run, all) =
        joined(&mut tester, Program::Egress, &between(Program::Egress, SERVER, PEER), &[own, asks("CANCEL", 12)]);
    assert_eq!((texts(&run.records), tester.state(key)), (vec![all[1].clone()], state));
}
