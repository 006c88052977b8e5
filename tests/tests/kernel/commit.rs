//! sipst's own requests: a number is given out by compare-and-swap, or the request does not leave.

use st_ebpf::{
    abi::{Counter, Shift, kind, refused},
    cseq::{Range, State},
};

use crate::{
    frame::Frame,
    tester::{PEER, Program, SERVER, Tester, Verdict, request},
};

const TOKEN: u64 = 0xfeed_0000_0000_0001;

fn ours(token: u64, method: &str, number: u32) -> Vec<u8> {
    let message =
        request(method, &format!(" {number} {method}")).replace("z9hG4bK77", &format!("z9hG4bKsipst{token:016x}"));
    Frame::new(SERVER, PEER).with(message.as_bytes())
}

fn theirs(method: &str, number: u32) -> Vec<u8> {
    Frame::new(SERVER, PEER).with(request(method, &format!("     {number} {method}")).as_bytes())
}

fn wire(frame: &[u8]) -> u32 {
    let text = String::from_utf8_lossy(frame).into_owned();
    text.split("CSeq:").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

fn known(number: u32, delta: u32) -> State {
    State { known: true, number, delta }
}

fn entry(state: State) -> Shift {
    Shift { word: state.to_word(), ..Shift::default() }
}

#[test]
fn a_request_commits_its_number_once_and_its_copies_pass() {
    let mut tester = Tester::new();
    let key = tester.arm(SERVER, "call-1@host", "srv", entry(known(10, 0)));
    tester.record(TOKEN, key, known(10, 0), false);
    for (counter, count) in [(Counter::Committed, 1), (Counter::Repeated, 1), (Counter::Repeated, 2)] {
        let frame = ours(TOKEN, "UPDATE", 11);
        let run = tester.run(Program::Egress, &frame);
        assert_eq!((run.verdict, &run.out), (Verdict::Pass, &frame));
        assert_eq!((run.records[0].header.kind, run.records[0].header.token), (kind::INJECTED, TOKEN));
        assert_eq!(tester.counter(counter), count);
        assert_eq!(tester.state(key), known(10, 1));
    }
    let out = tester.run(Program::Egress, &theirs("BYE", 11)).out;
    assert_eq!(wire(&out), 12, "the server's next number goes above it");
}

#[test]
fn a_request_made_for_another_state_does_not_leave() {
    let mut tester = Tester::new();
    for (description, kernel, expected, reason) in [
        ("the server has moved on", known(11, 0), known(10, 0), refused::MOVED),
        ("another injection came first", known(10, 1), known(10, 0), refused::MOVED),
        ("the server has begun to number", known(0, 0), State { known: false, number: 0, delta: 0 }, refused::MOVED),
    ] {
        tester.reset();
        let key = tester.arm(SERVER, "call-1@host", "srv", entry(kernel));
        tester.record(TOKEN, key, expected, false);
        let run = tester.run(Program::Egress, &ours(TOKEN, "UPDATE", 11));
        assert_eq!(run.verdict, Verdict::Take, "{description}");
        let header = run.records[0].header;
        assert_eq!((header.kind, header.token, header.reason), (kind::REFUSED, TOKEN, reason), "{description}");
        assert_eq!(tester.state(key), kernel, "{description}");
        assert_eq!(tester.counter(Counter::Refused), 1, "{description}");
    }
}

#[test]
fn a_request_that_is_not_on_record_or_has_no_entry_does_not_leave() {
    let mut tester = Tester::new();
    let run = tester.run(Program::Egress, &ours(TOKEN, "UPDATE", 11));
    assert_eq!((run.verdict, run.records[0].header.reason), (Verdict::Take, refused::UNKNOWN_TOKEN));

    let key = tester.arm(SERVER, "call-1@host", "srv", entry(known(10, 0)));
    tester.record(TOKEN, st_ebpf::key::DialogKey { map: key.map ^ 1, ..key }, known(10, 0), false);
    let run = tester.run(Program::Egress, &ours(TOKEN, "UPDATE", 11));
    assert_eq!((run.verdict, run.records[0].header.reason), (Verdict::Take, refused::NO_ENTRY));

    tester.record(TOKEN, st_ebpf::key::DialogKey { check: key.check ^ 1, ..key }, known(10, 0), false);
    let run = tester.run(Program::Egress, &ours(TOKEN, "UPDATE", 11));
    assert_eq!((run.verdict, run.records[0].header.reason), (Verdict::Take, refused::NO_ENTRY));
    assert_eq!(tester.state(key), known(10, 0));
}

#[test]
fn a_broken_token_never_leaves() {
    let mut tester = Tester::new();
    let frame = Frame::new(SERVER, PEER)
        .with(request("UPDATE", " 3 UPDATE").replace("z9hG4bK77", "z9hG4bKsipstXYZ").as_bytes());
    assert_eq!(tester.run(Program::Egress, &frame).verdict, Verdict::Take);
}

#[test]
fn an_ack_on_record_as_committed_passes_and_moves_nothing() {
    let mut tester = Tester::new();
    let key = tester.arm(SERVER, "call-1@host", "srv", entry(known(10, 1)));
    tester.record(TOKEN, key, State::default(), true);
    assert_eq!(tester.run(Program::Egress, &ours(TOKEN, "ACK", 11)).verdict, Verdict::Pass);
    assert_eq!(tester.state(key), known(10, 1));
}

#[test]
fn requests_of_the_servers_that_the_entry_missed_are_taken_in() {
    // The server's 11 and 12 passed before the entry was made, which says 10; the daemon has seen them in the ring.
    let mut tester = Tester::new();
    let key = tester.arm(SERVER, "call-1@host", "srv", entry(known(10, 0)));
    tester.record(TOKEN, key, known(12, 0), false);
    assert_eq!(tester.run(Program::Egress, &ours(TOKEN, "UPDATE", 13)).verdict, Verdict::Pass);
    assert_eq!(tester.state(key), known(12, 1));
    assert_eq!(wire(&tester.run(Program::Egress, &theirs("ACK", 12)).out), 12);
    assert_eq!(wire(&tester.run(Program::Egress, &theirs("BYE", 13)).out), 14);
}

#[test]
fn the_mapping_holds_over_many_injections_between_many_requests() {
    let mut tester = Tester::new();
    let key = tester.arm(SERVER, "call-1@host", "srv", entry(State::default()));
    let mut sent = vec![];
    let mut seen = vec![];
    let mut token = TOKEN;
    let mut number = 5;
    // Three ranges are closed: below the limit.
    for injections in [2, 1, 3, 1] {
        for _ in 0..injections {
            token += 1;
            let state = tester.state(key);
            tester.record(token, key, state, false);
            let frame = ours(token, "UPDATE", state.next_injected());
            assert_eq!(tester.run(Program::Egress, &frame).verdict, Verdict::Pass);
            sent.push(state.next_injected());
        }
        for _ in 0..2 {
            let at = wire(&tester.run(Program::Egress, &theirs("INFO", number)).out);
            sent.push(at);
            seen.push((number, at));
            number += 1;
        }
        for (number, at) in &seen {
            assert_eq!(
                wire(&tester.run(Program::Egress, &theirs("INFO", *number)).out),
                *at,
                "a retransmission of {number}"
            );
        }
    }
    assert!(sent.windows(2).all(|pair| pair[0] < pair[1]), "{sent:?}");
}

#[test]
fn with_all_ranges_young_a_request_waits_and_with_an_old_one_it_leaves() {
    let full = |closed_ns| {
        let range = |below, delta| Range { below, delta };
        Shift {
            ranges: [range(2, 0), range(3, 1), range(4, 2), range(5, 3)],
            closed_ns: [closed_ns; 4],
            ..entry(known(5, 4))
        }
    };
    let mut tester = Tester::new();
    let mut now = std::mem::MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: a place for one timespec.
    let now = unsafe {
        assert_eq!(libc::clock_gettime(libc::CLOCK_MONOTONIC, now.as_mut_ptr()), 0);
        now.assume_init()
    };
    let now = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
    let key = tester.arm(SERVER, "call-1@host", "srv", full(now));
    tester.record(TOKEN, key, known(5, 4), false);
    let run = tester.run(Program::Egress, &ours(TOKEN, "UPDATE", 10));
    assert_eq!((run.verdict, run.records[0].header.reason), (Verdict::Take, refused::RANGES_FULL));
    assert_eq!(tester.state(key), known(5, 4));

    let old = now.saturating_sub(33_000_000_000);
    assert!(old > 0, "this machine has been up for less than 33 seconds");
    let key = tester.arm(SERVER, "call-1@host", "srv", full(old));
    assert_eq!(tester.run(Program::Egress, &ours(TOKEN, "UPDATE", 10)).verdict, Verdict::Pass);
    let shift = tester.shift(key);
    assert_eq!(State::from_word(shift.word), known(5, 5));
    assert_eq!(shift.ranges.map(|range| (range.below, range.delta)), [(3, 1), (4, 2), (5, 3), (6, 4)]);
    assert_eq!(shift.generation % 2, 0);
    for (number, at) in [(2, 3), (3, 5), (4, 7), (5, 9), (6, 11)] {
        assert_eq!(wire(&tester.run(Program::Egress, &theirs("INFO", number)).out), at, "{number}");
    }
}
