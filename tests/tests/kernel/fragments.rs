//! Messages in IP fragments: the first is treated as a whole one, those after it share its fate, and all of what is to be seen
//! stands in the ring. What is no SIP passes.

use st_ebpf::{
    abi::{Counter, EARLY_FRAGMENTS, EARLY_PERIOD, FRAGMENT_NS, Shift, assist, direction, flags, kind, mapped, place},
    cseq::State,
    key::{DialogKey, Whose},
};

use crate::{
    ack::{expected, now, ready},
    frame::{Frame, checksum_is_right},
    shift::known,
    tester::{INGRESS, PEER, PEER_V6, Program, Record, SERVER, SERVER_V6, Tester, Verdict, request, response},
};

const TOKEN: u64 = 0x0123_4567_89ab_cdef;
const BRANCH: &str = "z9hG4bKsipst0123456789abcdef";
const PEER_BRANCH: &str = "z9hG4bKsipsp0123456789abcdef";
const ANY_KEY: DialogKey = DialogKey { map: 1, check: 2 };
const ENDS: [(&str, &str); 2] = [(SERVER, PEER), (SERVER_V6, PEER_V6)];
const ALL: [Program; 3] = [Program::IngressXdp, Program::IngressTc, Program::Egress];

/// How much of what IP carries is in each fragment.
const SIZE: usize = 480;

/// The frame from the side that a program sees as the sender.
fn frame(program: Program, (server, peer): (&str, &str)) -> Frame {
    if program == Program::Egress { Frame::new(server, peer) } else { Frame::new(peer, server) }
}

/// A message with a header that makes it take three fragments.
fn long(message: &str) -> String {
    message.replace("Content-Length: 0", &format!("Server: {}\r\nContent-Length: 0", "x".repeat(800)))
}

/// The frames of a message in fragments of [`SIZE`].
fn cut(frame: &Frame, message: &str) -> Vec<Vec<u8>> {
    let datagram = frame.udp(message.as_bytes());
    let count = datagram.len().div_ceil(SIZE);
    assert!(count >= 3, "too short for this test");
    let part = |(index, part): (usize, &[u8])| {
        let more = if index + 1 < count { place::MORE } else { 0 };
        frame.clone().fragment((index * SIZE / 8) as u16 | more).around(part)
    };
    datagram.chunks(SIZE).enumerate().map(part).collect()
}

/// The whole packet that fragments make.
fn whole(frame: &Frame, parts: &[Vec<u8>]) -> Vec<u8> {
    let header = frame.clone().fragment(place::MORE).around(&[]).len();
    let content: Vec<u8> = parts.iter().flat_map(|part| part[header..].to_vec()).collect();
    frame.around(&content)
}

/// What records of fragments hold, put together.
fn held(records: &[Record]) -> String {
    let mut records: Vec<&Record> = records.iter().collect();
    records.sort_by_key(|record| u16::from_be_bytes(record.header.place) & place::OFFSET);
    records.iter().map(|record| String::from_utf8_lossy(&record.bytes).into_owned()).collect()
}

#[test]
fn a_message_in_fragments_stands_in_the_ring_and_passes_as_it_is() {
    let mut tester = Tester::new();
    for program in ALL {
        for ends in ENDS {
            for (extras, tags) in [(false, &[][..]), (true, &[7, 8])] {
                let mut frame = frame(program, ends).tags(tags);
                frame.extras = extras;
                for message in [long(&request("BYE", " 3 BYE")), long(&response("200 OK", "z9hG4bK77", " 3 BYE"))] {
                    tester.reset();
                    let what = format!("{program:?} {ends:?} {extras}");
                    let parts = cut(&frame, &message);
                    let mut records = vec![];
                    for part in &parts {
                        let run = tester.run(program, part);
                        assert_eq!((run.verdict, &run.out), (Verdict::Pass, part), "{what}");
                        records.extend(run.records);
                    }
                    assert_eq!(held(&records), message, "{what}");
                    let sampled = (parts.len() - 1) as u64;
                    let counters = [(Counter::Seen, 1), (Counter::Sampled, 1), (Counter::FragmentSampled, sampled)];
                    assert_eq!(tester.counters(), counters, "{what}");
                    let identification = if ends.0 == SERVER { [0; 4] } else { [0, 0, 0, 9] };
                    let server = ends.0.parse::<std::net::SocketAddr>().unwrap();
                    for (index, record) in records.iter().enumerate() {
                        let header = &record.header;
                        let offset = (index * SIZE / 8) as u16;
                        let more = if index + 1 < parts.len() { place::MORE } else { 0 };
                        assert_eq!(u16::from_be_bytes(header.place), offset | more, "{what}");
                        assert_eq!((header.identification, header.kind), (identification, kind::MESSAGE), "{what}");
                        assert_eq!(header.flags & (flags::FRAGMENT | flags::CUT), flags::FRAGMENT, "{what}");
                        assert_eq!((header.tos, header.ttl, header.server), (0x68, 61, mapped(server.ip())), "{what}");
                        assert_eq!(header.direction, u8::from(program == Program::Egress) * direction::EGRESS);
                    }
                    let first = &records[0].header;
                    assert_eq!(first.server_port, server.port().to_be_bytes(), "{what}");
                    assert_eq!(usize::from(first.wire_len), message.len(), "the whole message's");
                    assert_eq!(records[1].header.server_port, [0; 2], "{what}");
                }
            }
        }
    }
}

#[test]
fn those_that_come_before_the_first_pass_and_stand_in_the_ring_too() {
    let mut tester = Tester::new();
    for program in ALL {
        for ends in ENDS {
            tester.reset();
            let message = long(&request("BYE", " 3 BYE"));
            let parts = cut(&frame(program, ends), &message);
            let mut records = vec![];
            for part in parts.iter().rev() {
                let run = tester.run(program, part);
                assert_eq!((run.verdict, &run.out), (Verdict::Pass, part), "{program:?} {ends:?}");
                records.extend(run.records);
            }
            assert_eq!(held(&records), message, "{program:?} {ends:?}");
            let early = (Counter::FragmentEarly, (parts.len() - 1) as u64);
            assert_eq!(tester.counters(), [(Counter::Seen, 1), (Counter::Sampled, 1), early], "{program:?} {ends:?}");
        }
    }
}

#[test]
fn no_more_of_them_than_the_limit_stand_in_the_ring() {
    let mut tester = Tester::new();
    let part = cut(&frame(Program::IngressTc, ENDS[0]), &long(&request("BYE", " 3 BYE"))).remove(2);
    for _ in 0..10 {
        let period = now() >> EARLY_PERIOD;
        tester.reset().early(period, EARLY_FRAGMENTS - 2);
        let runs = [(); 4].map(|()| tester.run(Program::IngressTc, &part));
        assert!(runs.iter().all(|run| run.verdict == Verdict::Pass && run.out == part));
        if now() >> EARLY_PERIOD == period {
            // On one CPU or two.
            let [early, unread] = [Counter::FragmentEarly, Counter::FragmentUnread].map(|one| tester.counter(one));
            assert!((2..=4).contains(&early) && early + unread == 4, "{early} {unread}");
            if unread == 2 {
                return;
            }
        }
    }
    panic!("there is no limit");
}

#[test]
fn what_is_no_sip_passes_and_is_not_taken_for_a_part_that_came_too_early() {
    let mut tester = Tester::new();
    for program in ALL {
        for ends in ENDS {
            let sip = frame(program, ends);
            let other = Frame { from: (sip.from.ip(), 4_000).into(), to: (sip.to.ip(), 4_001).into(), ..sip.clone() };
            let outside = request("REGISTER", " 1 REGISTER");
            for (description, frame, message) in [
                ("other ports", &other, long(&request("BYE", " 3 BYE"))),
                ("no SIP", &sip, "?".repeat(1_200)),
                ("a message outside dialogs", &sip, long(&outside)),
            ] {
                tester.reset();
                let parts = cut(frame, &message);
                for part in &parts {
                    let run = tester.run(program, part);
                    assert_eq!((run.verdict, &run.out), (Verdict::Pass, part), "{program:?} {description}");
                    assert_eq!(run.records.len(), 0, "{program:?} {description}");
                }
                assert_eq!(tester.counter(Counter::Fragment), parts.len() as u64, "{program:?} {description}");
                assert_eq!(tester.counter(Counter::FragmentEarly), 0, "{program:?} {description}");
            }
        }
    }
}

#[test]
fn a_part_of_another_datagram_does_not_share_its_fate() {
    let mut tester = Tester::new();
    let answer = long(&response("200 OK", BRANCH, " 12 INVITE"));
    for program in INGRESS {
        for ends in ENDS {
            let ours = frame(program, ends);
            let (first, second) = (&cut(&ours, &answer)[0], &cut(&ours, &answer)[1]);
            let elsewhere = ours.from.to_string().replace("::7", "::8").replace("100.7", "100.8");
            let other = cut(&Frame { from: elsewhere.parse().unwrap(), ..ours.clone() }, &answer).remove(1);
            let mut renumbered = second.clone();
            let at = if ends.0 == SERVER { 14 + 5 } else { 14 + 40 + 7 };
            renumbered[at] ^= 1;
            let run = |tester: &mut Tester, frame: &[u8]| tester.run(program, frame).verdict;
            tester.reset();
            assert_eq!(run(&mut tester, first), Verdict::Take, "{program:?}");
            assert_eq!(run(&mut tester, &other), Verdict::Pass, "{program:?}: of another sender's");
            assert_eq!(run(&mut tester, &renumbered), Verdict::Pass, "{program:?}: of another datagram");
            assert_eq!(run(&mut tester, second), Verdict::Take, "{program:?}");
            let out = frame(Program::Egress, ends);
            let out = Frame { from: ours.from, to: ours.to, ..out };
            let out = &cut(&out, &answer)[1];
            assert_eq!(tester.run(Program::Egress, out).verdict, Verdict::Pass, "{program:?}: the other way");
            // Identifications come round.
            tester.age_fragments(FRAGMENT_NS + 1);
            assert_eq!(run(&mut tester, second), Verdict::Pass, "{program:?}: a second later");
        }
    }
}

#[test]
fn a_number_in_the_first_fragment_is_shifted_there_and_back_and_the_datagram_stays_whole() {
    let mut tester = Tester::new();
    for ends in ENDS {
        for (own, wire) in [(" 3 BYE", " 4 BYE"), (" 9 BYE", "10 BYE")] {
            tester.reset();
            let number = own.trim().trim_end_matches(" BYE").parse::<u32>().unwrap() - 1;
            let key = tester.arm(ends.0, "call-1@host", "srv", known(number, 1));
            let out = frame(Program::Egress, ends);
            let message = |cseq| long(&request("BYE", cseq));
            let mut parts = cut(&out, &message(own));
            for part in &mut parts {
                let run = tester.run(Program::Egress, part);
                assert_eq!(run.verdict, Verdict::Pass);
                *part = run.out;
            }
            assert_eq!(parts, cut(&out, &message(wire)), "{ends:?} {own}");
            assert!(checksum_is_right(&whole(&out, &parts)), "{ends:?} {own}");
            assert_eq!(tester.state(key).number, number + 1, "{ends:?} {own}");

            let answer = |cseq| long(&response("200 OK", "z9hG4bK77", cseq));
            for program in INGRESS {
                let back = frame(program, ends);
                let mut parts = cut(&back, &answer(wire));
                for part in &mut parts {
                    *part = tester.run(program, part).out;
                }
                assert_eq!(parts, cut(&back, &answer(own)), "{program:?} {ends:?} {own}");
                assert!(checksum_is_right(&whole(&back, &parts)), "{program:?} {ends:?} {own}");
            }
        }
    }
}

#[test]
fn a_number_without_room_leaves_as_it_is_for_no_fragment_grows() {
    let mut tester = Tester::new();
    tester.arm(SERVER, "call-1@host", "srv", known(8, 1));
    let part = cut(&frame(Program::Egress, ENDS[0]), &long(&request("BYE", "9 BYE"))).remove(0);
    let run = tester.run(Program::Egress, &part);
    assert_eq!((run.verdict, run.out), (Verdict::Pass, part));
    assert_eq!((tester.counter(Counter::ShiftNoRoom), tester.counter(Counter::Lengthened)), (1, 0));
}

#[test]
fn a_header_that_goes_on_behind_the_first_fragment_is_seen_and_not_shifted_and_that_is_counted() {
    let mut tester = Tester::new();
    for method in ["BYE", "INFO", "REFER"] {
        for (before, cut_at) in [("From: ", 0), ("To: ", 0), ("Call-ID: ", 0), ("CSeq:", 0), ("CSeq:", 6)] {
            tester.reset();
            let key = tester.arm(SERVER, "call-1@host", "srv", known(2, 1));
            let text = request(method, &format!(" 3 {method}"));
            // That header, or so many bytes of it, ends where the first fragment does.
            let at = text.find(before).unwrap();
            let pad = SIZE - 8 - at - "X: \r\n".len() - cut_at;
            let text = format!("{}X: {}\r\n{}", &text[..at], "y".repeat(pad), &text[at..]);
            let message = long(&text);
            let parts = cut(&frame(Program::Egress, ENDS[0]), &message);
            let mut records = vec![];
            for part in &parts {
                let run = tester.run(Program::Egress, part);
                assert_eq!((run.verdict, &run.out), (Verdict::Pass, part), "{method} {before}");
                records.extend(run.records);
            }
            assert_eq!(held(&records), message, "{method} {before}");
            assert_eq!(tester.counter(Counter::FragmentUnshifted), 1, "{method} {before}");
            assert_eq!(tester.state(key).number, 2, "{method} {before}");
        }
    }
}

#[test]
fn sipsts_own_leaves_in_all_its_fragments_or_in_none() {
    let mut tester = Tester::new();
    for ends in ENDS {
        for committed in [true, false] {
            tester.reset();
            let key = tester.arm(ends.0, "call-1@host", "srv", known(2, 0));
            let state = State { known: true, number: if committed { 2 } else { 1 }, delta: 0 };
            tester.record(TOKEN, key, state, false);
            let message = long(&request("INVITE", " 3 INVITE").replace("z9hG4bK77", BRANCH));
            let parts = cut(&frame(Program::Egress, ends), &message);
            let mut records = vec![];
            for part in &parts {
                let run = tester.run(Program::Egress, part);
                let verdict = if committed { Verdict::Pass } else { Verdict::Take };
                assert_eq!(run.verdict, verdict, "{ends:?}");
                records.extend(run.records);
            }
            let after = (parts.len() - 1) as u64;
            if committed {
                assert_eq!((held(&records), records[0].header.kind), (message, kind::INJECTED), "{ends:?}");
                assert_eq!((records[0].header.token, tester.state(key).delta), (TOKEN, 1), "{ends:?}");
                assert_eq!(tester.counter(Counter::FragmentSampled), after, "{ends:?}");
            } else {
                assert_eq!((records.len(), records[0].header.kind), (1, kind::REFUSED), "{ends:?}");
                assert_eq!(tester.counter(Counter::FragmentTaken), after, "{ends:?}");
                assert_eq!(tester.counter(Counter::FragmentSampled), 0, "{ends:?}");
            }
        }
    }
}

#[test]
fn one_in_the_peers_name_is_turned_round_in_all_its_fragments() {
    let mut tester = Tester::new();
    for ends in ENDS {
        tester.reset();
        let key = tester.arm_of(Whose::Peer, ends.0, "call-1@host", "srv", Shift::default());
        tester.record(TOKEN, key, State::default(), false);
        let message = long(&request("INVITE", " 1 INVITE").replace("z9hG4bK77", PEER_BRANCH));
        let out = frame(Program::Egress, ends);
        let turned = Frame { from: out.to, to: out.from, ..out.clone() };
        let exchange = |mut part: Vec<u8>| {
            let (left, right) = part[..12].split_at_mut(6);
            left.swap_with_slice(right);
            part
        };
        let back: Vec<_> = cut(&turned, &message).into_iter().map(exchange).collect();
        for (part, back) in cut(&out, &message).iter().zip(&back) {
            let run = tester.run(Program::Egress, part);
            assert_eq!((run.verdict, &run.out), (Verdict::Back, back), "{ends:?}");
            assert!(run.records.iter().all(|record| record.header.flags & flags::FRAGMENT != 0));
        }
        // It comes in, and the daemon has seen it already.
        for program in INGRESS {
            for part in &back {
                let run = tester.run(program, part);
                assert_eq!((run.verdict, run.records.len()), (Verdict::Pass, 0), "{program:?} {ends:?}");
            }
        }
    }
}

#[test]
fn an_answer_is_taken_in_all_its_fragments_and_handed_over_where_its_token_is_known() {
    let mut tester = Tester::new();
    for program in INGRESS {
        for ends in ENDS {
            for known in [true, false] {
                tester.reset();
                if known {
                    tester.record(TOKEN, ANY_KEY, State::default(), true);
                }
                let message = long(&response("200 OK", BRANCH, " 12 INVITE"));
                let mut records = vec![];
                for part in cut(&frame(program, ends), &message) {
                    let run = tester.run(program, &part);
                    assert_eq!(run.verdict, Verdict::Take, "{program:?} {ends:?} {known}");
                    records.extend(run.records);
                }
                assert_eq!(held(&records), if known { message } else { String::new() }, "{program:?} {ends:?}");
                let (taken, unknown) = (tester.counter(Counter::AnswerTaken), tester.counter(Counter::AnswerUnknown));
                assert_eq!((taken, unknown), (u64::from(known), u64::from(!known)), "{program:?} {ends:?}");
            }
        }
    }
}

#[test]
fn the_first_fragment_of_a_2xx_becomes_its_ack_where_the_daemon_is_silent() {
    let mut tester = Tester::new();
    let ack = request("ACK", " 12 ACK");
    for program in INGRESS {
        for ends in ENDS {
            tester.reset();
            tester.record(TOKEN, ANY_KEY, State::default(), true);
            tester.keep(TOKEN, ready(ends.0, ends.1, ack.as_bytes()));
            let arrived = frame(program, ends);
            let message = long(&response("200 OK", BRANCH, " 12 INVITE"));
            let mut records = vec![];
            for (index, part) in cut(&arrived, &message).iter().enumerate() {
                let run = tester.run(program, part);
                if index == 0 {
                    assert_eq!((run.verdict, &run.out), (Verdict::Back, &expected(&arrived, ack.as_bytes())));
                    assert!(checksum_is_right(&run.out), "{program:?} {ends:?}");
                } else {
                    assert_eq!(run.verdict, Verdict::Take, "{program:?} {ends:?}");
                }
                // The ACK stands there too, where nothing else sees it leave.
                let is_part = |record: &Record| record.header.flags & flags::FRAGMENT != 0;
                records.extend(run.records.into_iter().filter(is_part));
            }
            assert_eq!(held(&records), message, "{program:?} {ends:?}");
            assert_eq!(tester.counter(Counter::AckedHere), 1, "{program:?} {ends:?}");
        }
    }
}

#[test]
fn with_the_ring_full_all_passes_and_what_is_missing_is_counted() {
    let mut tester = Tester::new();
    let parts = cut(&frame(Program::Egress, ENDS[0]), &long(&request("BYE", " 3 BYE")));
    let mut runs = 0;
    while tester.counter(Counter::RingFull) == 0 {
        if runs % 100 == 0 {
            assert_eq!(tester.run_keeping(Program::Egress, &parts[0]), (Verdict::Pass, parts[0].clone()));
        }
        assert_eq!(tester.run_keeping(Program::Egress, &parts[1]), (Verdict::Pass, parts[1].clone()));
        runs += 1;
        assert!(runs < 20_000, "the ring never fills");
    }
    // Known ones alone may use the last quarter.
    let early = cut(&frame(Program::IngressTc, ENDS[1]), &long(&request("BYE", " 3 BYE"))).remove(1);
    assert_eq!(tester.run_keeping(Program::IngressTc, &early), (Verdict::Pass, early.clone()));
    assert_eq!((tester.counter(Counter::FragmentEarly), tester.counter(Counter::FragmentUnread)), (0, 1));
}

#[test]
fn an_invite_in_fragments_is_let_be_where_its_trunk_would_have_it_changed() {
    let mut tester = Tester::new();
    for program in ALL {
        tester.reset();
        tester.beat(now());
        tester.assist("198.51.100.0/24", true);
        let invite = request("INVITE", " 1 INVITE").replace(";tag=peer", "");
        let invite = long(&invite.replace("Call-ID", "Require: timer\r\nCall-ID"));
        let parts = cut(&frame(program, ENDS[0]), &invite);
        let run = tester.run(program, &parts[0]);
        assert_eq!((run.verdict, &run.out), (Verdict::Pass, &parts[0]), "{program:?}");
        assert_eq!(run.records[0].header.reason, assist::TOO_LONG, "{program:?}");
    }
}

#[test]
fn a_datagram_with_a_fragment_header_that_is_whole_is_read_as_whole() {
    let mut tester = Tester::new();
    // Neither an offset nor more (RFC 6946).
    let frame = Frame::new(PEER_V6, SERVER_V6).fragment(0x4000);
    for program in INGRESS {
        tester.reset();
        tester.record(TOKEN, ANY_KEY, State::default(), true);
        let answer = response("200 OK", BRANCH, " 12 UPDATE");
        let run = tester.run(program, &frame.with(answer.as_bytes()));
        assert_eq!((run.verdict, run.records.len()), (Verdict::Take, 1), "{program:?}");
        assert_eq!(
            (run.records[0].header.flags & flags::FRAGMENT, run.records[0].bytes.as_slice()),
            (0, answer.as_bytes())
        );
    }
}

#[test]
fn what_fills_a_short_frame_up_is_no_part_of_the_message() {
    let mut tester = Tester::new();
    let message = long(&request("BYE", " 3 BYE"));
    for program in INGRESS {
        for ends in ENDS {
            tester.reset();
            let mut records = vec![];
            for part in cut(&frame(program, ends), &message) {
                records.extend(tester.run(program, &[&part[..], &[0; 13]].concat()).records);
            }
            assert_eq!(held(&records), message, "{program:?} {ends:?}");
        }
    }
}
