//! The daemon is killed between an injected re-INVITE and its 200: a 2xx without an ACK would end the call (R44).

use std::{collections::BTreeSet, os::fd::OwnedFd, time::Duration};

use st_tests::{
    Family, STATE_DIR, Sipst,
    agent::{Event, Profile, Record, Update},
};

use crate::{
    foreign::Hook,
    plan::{Call, Plan, SOON, config},
    recorder::packets,
};

/// How long the peer sends its 200 again before it gives the call up.
const PATIENCE: Duration = Duration::from_secs(9);

/// A call whose peer takes no UPDATE and has had a re-INVITE of sipst's, over which it thinks; and what holds the program that
/// the peer's host has.
fn reinvited(attach: &'static str, family: Family, more: &str) -> (Call, OwnedFd) {
    let peer = Profile {
        update: Update::Unknown,
        thinks: Duration::from_secs(1),
        ack_patience: PATIENCE,
        ..Profile::strict_peer(24, "uac")
    };
    let call = Plan { attach, family, peer, ..Plan::default() }.start_with(|config| config + more);
    // What XDP sends back, a veth hands to its far end only where an XDP program stands there too (drivers/net/veth.c: NAPI is
    // what `veth_xdp_xmit` asks for, which GRO would do for, but `veth_xdp_flush` wakes it for a program's sake alone).
    let link = Hook::PassXdp.attach(&call.lab.peer);
    call.peer.refreshed(1, SOON + Duration::from_secs(12)).unwrap();
    assert!(!call.peer.answers().contains(&500), "{}", call.story());
    (call, link)
}

const RECORDER: &str = "recorder: { size: 1MiB, files: 4 }\n";

/// The numbers of the requests of that method among what an agent went through.
fn numbers(records: &[Record], method: &str) -> BTreeSet<u32> {
    let number = |record: &Record| match &record.event {
        Event::Received(message) => message.cseq().map(|cseq| cseq.number),
        Event::Sent(_) | Event::Established | Event::Ended { .. } | Event::Fault(_) => None,
    };
    records.iter().filter(|record| record.is_request(method)).filter_map(number).collect()
}

/// The peer gets its ACK, the call outlives its patience, and the server's BYE is good.
fn lives(call: &Call) {
    let acked =
        call.peer.wait("ACK to the re-INVITE", PATIENCE, |records| numbers(records, "ACK").contains(&2).then_some(()));
    assert!(acked.is_ok(), "{}", call.story());
    std::thread::sleep(PATIENCE);
    assert!(!call.peer.is_over(), "{}", call.story());
    call.server.bye();
    assert_eq!(call.server.answered("BYE", SOON).unwrap(), 200, "{}", call.story());
    call.clean();
    // On a slow machine there may have been another refresh.
    let records = call.peer.records();
    assert_eq!(numbers(&records, "ACK"), numbers(&records, "INVITE"), "{}", call.story());
}

/// What the programs have done without a daemon stands in the ring.
fn is_recorded_by_the_next_daemon(call: &mut Call, attach: &str) {
    let host = &call.lab.server;
    let config = config(attach, &["action: refresh", "min_se: 2s"]) + RECORDER;
    let mut next = Sipst::start(host, &config).unwrap();
    assert!(next.stop().unwrap().success(), "{}", next.report());
    let files = host.list(format!("{STATE_DIR}/recorder"));
    let file = host.read(format!("{STATE_DIR}/recorder/{}", files.last().unwrap())).unwrap();
    let comments: Vec<String> = packets(&file).into_iter().map(|(comment, _)| comment).collect();
    let has = |words: [&str; 2]| comments.iter().any(|one| one.starts_with(words[0]) && one.contains(words[1]));
    for words in [
        ["took answer 200 to INVITE", ""],
        ["sent ACK in the server's name", ""],
        ["rewritten: CSeq ", ": as it was, BYE"],
        ["rewritten: CSeq ", ": as it is, BYE"],
        ["rewritten: CSeq ", ": as it is, 200 to BYE"],
    ] {
        assert!(has(words), "{words:?}: {files:?} {comments:#?}");
    }
}

#[test]
fn r44_with_no_daemon_at_all_the_programs_ack_the_200() {
    std::thread::scope(|scope| {
        for (attach, family) in [("tc", Family::V4), ("tc", Family::V6), ("xdp", Family::V4), ("xdp", Family::V6)] {
            scope.spawn(move || {
                let (mut call, _link) = reinvited(attach, family, RECORDER);
                call.sipst.kill().unwrap();
                lives(&call);
                is_recorded_by_the_next_daemon(&mut call, attach);
            });
        }
    });
}

#[test]
fn r44_a_new_daemon_that_knows_nothing_of_it_has_the_programs_ack_the_200_at_once() {
    std::thread::scope(|scope| {
        for attach in ["tc", "xdp"] {
            scope.spawn(move || {
                let (mut call, _link) = reinvited(attach, Family::V4, "");
                call.sipst.kill().unwrap();
                call.lab.server.run("rm", &["-r", STATE_DIR]).unwrap();
                let config = config(attach, &["action: refresh", "min_se: 2s"]);
                call.sipst = Sipst::start(&call.lab.server, &config).unwrap();
                lives(&call);
            });
        }
    });
}

#[test]
fn r44_a_new_daemon_that_knows_the_call_acks_the_200_itself_and_refreshes_the_call_again() {
    std::thread::scope(|scope| {
        for (attach, family) in [("tc", Family::V4), ("xdp", Family::V6)] {
            scope.spawn(move || {
                let (mut call, _link) = reinvited(attach, family, "");
                call.sipst.kill().unwrap();
                let config = config(attach, &["action: refresh", "min_se: 2s"]);
                call.sipst = Sipst::start(&call.lab.server, &config).unwrap();
                call.sipst.event("refresh_succeeded", SOON).unwrap();
                // The first one was the earlier daemon's.
                call.refreshed(2);
                call.sipst.event_count("refresh_succeeded", 2, SOON).unwrap();
                call.server_hangs_up();
                let records = call.peer.records();
                assert_eq!(numbers(&records, "ACK"), numbers(&records, "INVITE"), "{}", call.story());
                assert!(call.peer_answers().iter().all(|status| *status == 200), "{}", call.story());
            });
        }
    });
}

#[test]
fn r44_a_daemon_that_stands_still_and_goes_on_harms_nothing() {
    let (mut call, _link) = reinvited("tc", Family::V4, "");
    call.sipst.process().signal(rustix::process::Signal::STOP).unwrap();
    std::thread::sleep(Duration::from_secs(7));
    call.sipst.process().signal(rustix::process::Signal::CONT).unwrap();
    lives(&call);
    call.sipst.event("refresh_succeeded", SOON).unwrap();
}
