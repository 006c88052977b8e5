//! The server's requests on one CPU against sipst's own on another: whatever the order of their steps, no number is given
//! out twice and every one of the server's keeps its place.

use std::{
    collections::BTreeSet,
    sync::{
        Barrier,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    thread,
};

use aya::{
    maps::{HashMap, MapData},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use st_ebpf::{
    abi::{Shift, Token, names},
    cseq::{State, from_wire, to_wire},
    key::DialogKey,
};

use crate::{
    frame::Frame,
    tester::{HASH_KEY, PEER, SERVER, Tester, request},
};

/// How many dialogs are raced through.
const DIALOGS: u32 = 400;
/// How many requests the server sends in each.
const REQUESTS: u32 = 12;
/// How many sipst wants to send: as many as a dialog has ranges for.
const INJECTIONS: u32 = 4;
const FIRST: u32 = 100;

fn call_id(dialog: u32) -> String {
    format!("race-{dialog}@host")
}

fn frame(dialog: u32, method: &str, number: u32, branch: &str) -> Vec<u8> {
    let message = request(method, &format!("     {number} {method}"));
    Frame::new(SERVER, PEER)
        .with(message.replace("call-1@host", &call_id(dialog)).replace("z9hG4bK77", branch).as_bytes())
}

/// Runs a packet through st_egress: the number it leaves with, `None` where it does not leave.
fn send(program: &SchedClassifier, frame: &[u8]) -> Option<u32> {
    let mut out = vec![0; frame.len()];
    let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
    let result = program.test_run(options).unwrap();
    let text = String::from_utf8_lossy(&out);
    let number = text.split("CSeq:").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    (result.return_value == u32::MAX).then_some(number)
}

#[test]
fn a_servers_request_on_another_cpu_between_any_two_steps_of_an_injection() {
    let mut tester = Tester::new();
    let known = State { known: true, number: FIRST, delta: 0 };
    let keys: Vec<DialogKey> = (0..DIALOGS)
        .map(|dialog| tester.arm(SERVER, &call_id(dialog), "srv", Shift { word: known.to_word(), ..Shift::default() }))
        .collect();
    assert_eq!(keys[0], DialogKey::new(HASH_KEY, call_id(0).as_bytes(), b"srv").unwrap());
    let mut ebpf = tester.into_ebpf();
    let shifts: HashMap<MapData, u64, Shift> = ebpf.take_map(names::SHIFTS).unwrap().try_into().unwrap();
    let mut tokens: HashMap<MapData, u64, Token> = ebpf.take_map(names::TOKENS).unwrap().try_into().unwrap();
    let program: &SchedClassifier = ebpf.program(names::EGRESS).unwrap().try_into().unwrap();

    let start = Barrier::new(2);
    let sent = AtomicU32::new(0);
    // Counts sipst's steps, so that the server does not run through all its requests at once.
    let steps = AtomicU32::new(0);
    // Lets the server get a request ahead, if it has one left.
    let let_ahead = || {
        let before = sent.load(SeqCst);
        while before < REQUESTS && sent.load(SeqCst) == before {
            steps.fetch_add(1, SeqCst);
            thread::yield_now();
        }
    };
    let mut lost_races = 0;
    let mut committed_in_race = 0;
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            (0..DIALOGS)
                .map(|dialog| {
                    start.wait();
                    let numbers: Vec<(u32, u32)> = (1..=REQUESTS)
                        .map(|step| {
                            let number = FIRST + step;
                            let wire = send(program, &frame(dialog, "INFO", number, "z9hG4bK77")).unwrap();
                            let seen = steps.load(SeqCst);
                            sent.store(step, SeqCst);
                            while steps.load(SeqCst) == seen {
                                thread::yield_now();
                            }
                            (number, wire)
                        })
                        .collect();
                    start.wait();
                    numbers
                })
                .collect::<Vec<_>>()
        });
        let mut ours = vec![];
        for (dialog, key) in (0..DIALOGS).zip(&keys) {
            sent.store(0, SeqCst);
            start.wait();
            let mut numbers = vec![];
            let mut token = u64::from(dialog) << 32;
            while numbers.len() < INJECTIONS as usize {
                token += 1;
                // Before the state is read, before the token is on record, before the request leaves; or nowhere.
                let pause = token % 4;
                if pause == 1 {
                    let_ahead();
                }
                let state = State::from_word(shifts.get(&key.map, 0).unwrap().word);
                if pause == 2 {
                    let_ahead();
                }
                let expected = Token { dialog: key.map, check: key.check, expected: state.to_word(), committed: 0 };
                tokens.insert(token, expected, 0).unwrap();
                if pause == 3 {
                    let_ahead();
                }
                steps.fetch_add(1, SeqCst);
                let racing = sent.load(SeqCst) < REQUESTS;
                let branch = format!("z9hG4bKsipst{token:016x}");
                match send(program, &frame(dialog, "UPDATE", state.next_injected(), &branch)) {
                    Some(number) => {
                        numbers.push(number);
                        committed_in_race += u32::from(racing);
                    }
                    None => lost_races += 1,
                }
            }
            // The server sends what it has left.
            while sent.load(SeqCst) < REQUESTS {
                let_ahead();
            }
            steps.fetch_add(1, SeqCst);
            start.wait();
            ours.push(numbers);
        }
        let theirs = server.join().unwrap();
        for (dialog, key) in (0..DIALOGS).zip(&keys) {
            let (ours, theirs) = (&ours[dialog as usize], &theirs[dialog as usize]);
            let all: BTreeSet<u32> = ours.iter().copied().chain(theirs.iter().map(|(_, wire)| *wire)).collect();
            assert_eq!(all.len(), ours.len() + theirs.len(), "dialog {dialog}: {ours:?} {theirs:?}");
            let from_first: BTreeSet<u32> = (FIRST + 1..=FIRST + REQUESTS + INJECTIONS).collect();
            assert_eq!(all, from_first, "dialog {dialog}: no number is left out");
            assert!(theirs.is_sorted_by_key(|(_, wire)| *wire), "dialog {dialog}: {theirs:?}");
            let Shift { ranges, word, .. } = shifts.get(&key.map, 0).unwrap();
            let state = State::from_word(word);
            for (number, wire) in theirs {
                assert_eq!(
                    to_wire(&ranges, state.delta, *number),
                    *wire,
                    "dialog {dialog}: a retransmission of {number}"
                );
                assert_eq!(
                    from_wire(&ranges, state.delta, *wire),
                    Some(*number),
                    "dialog {dialog}: the answer to {number}"
                );
            }
        }
    });
    println!("{committed_in_race} injections committed during the race, {lost_races} lost it");
    assert!(lost_races > 0 && committed_in_race > 0, "there was no race: {lost_races} lost, {committed_in_race} won");
}
