//! `respond: on-reject`: a peer that refreshes, and a server that answers 405 to UPDATE and 503 to re-INVITE.

use std::{thread, time::Duration};

use st_tests::{
    Family, Sipst,
    agent::{Event, Message, Profile, Refusal, Timer, Update},
};

use crate::plan::{Call, INTERVAL_S, Plan, SOON, config};

const RULES: [&str; 3] = ["action: refresh", "min_se: 2s", "respond: on-reject"];

/// Three intervals and more, a refresh at each half of one.
const ROUNDS: usize = 7;
const HALF: Duration = Duration::from_millis(INTERVAL_S as u64 * 500);

/// The peer calls, and has to refresh by what the server's 200 says.
fn plan(rules: &[&'static str]) -> Plan {
    let timer = Some(Timer { interval_s: INTERVAL_S, refresher: Some("uac") });
    let server = Profile {
        timer,
        update: Update::ListAndRefuse(405),
        refuse: vec![Refusal::new(503); 20],
        ..Profile::plain_server()
    };
    let peer = Profile::strict_peer(INTERVAL_S, "uac");
    Plan { server_calls: false, peer, server, rules: rules.to_vec(), ..Plan::default() }
}

/// Until sipst has read of the call, marked it, and written down what it knows.
fn settles(call: &Call) {
    call.sipst.event("session_started", SOON).unwrap_or_else(|error| panic!("{error:#}\n{}", call.story()));
    thread::sleep(Duration::from_secs(1));
}

/// The peer refreshes; the status of the answer that it gets.
fn refreshes(call: &Call, method: &'static str) -> u16 {
    call.peer.request(method);
    call.peer.answered(method, SOON).unwrap_or_else(|error| panic!("{error:#}\n{}", call.story()))
}

/// What an agent got, copies included.
fn received(call: &Call, method: &str) -> Vec<Message> {
    let message = |record: st_tests::agent::Record| match record.event {
        Event::Received(message) if message.method() == Some(method) => Some(message),
        Event::Received(_) | Event::Sent(_) | Event::Established | Event::Ended { .. } | Event::Fault(_) => None,
    };
    call.server.records().into_iter().filter_map(message).collect()
}

/// The ACKs that the server got are those to its own answers: by the branches of the INVITEs, but for the first one's.
fn the_servers_acks_are_its_own(call: &Call) {
    let invites = received(call, "INVITE");
    let acks = received(call, "ACK");
    for ack in acks.iter().filter(|ack| ack.cseq().map(|cseq| cseq.number) != invites[0].cseq().map(|cseq| cseq.number))
    {
        let of_invite = invites.iter().any(|invite| invite.param("Via", "branch") == ack.param("Via", "branch"));
        assert!(of_invite, "{ack}\n{}", call.story());
    }
}

#[test]
fn f07_f16_a_peer_that_refreshes_keeps_its_call_against_a_server_that_refuses_both_methods() {
    thread::scope(|scope| {
        for (method, attach, family, peer_ends) in [
            ("UPDATE", "tc", Family::V4, false),
            ("UPDATE", "xdp", Family::V6, true),
            ("INVITE", "tc", Family::V6, false),
            ("INVITE", "xdp", Family::V4, false),
        ] {
            scope.spawn(move || {
                let call = Plan { attach, family, ..plan(&RULES) }.start();
                for round in 0..ROUNDS {
                    thread::sleep(HALF);
                    assert_eq!(refreshes(&call, method), 200, "{method} {round}\n{}", call.story());
                }
                call.sipst.event_count("refresh_answered", ROUNDS, SOON).unwrap();
                assert_eq!(call.sipst.count("refresh_rejected"), 0, "{}", call.story());
                if method == "INVITE" {
                    let acked = call.server.wait("ACK to its last refusal", SOON, |records| {
                        let acks = records.iter().filter(|record| record.is_request("ACK")).count();
                        (acks > ROUNDS).then_some(())
                    });
                    assert!(acked.is_ok(), "{}", call.story());
                }
                the_servers_acks_are_its_own(&call);
                let refused = call.server.answers().into_iter().filter(|status| [405, 503].contains(status)).count();
                assert!(refused >= ROUNDS, "{}", call.story());
                if peer_ends {
                    call.peer_hangs_up();
                } else {
                    call.server_hangs_up();
                }
            });
        }
    });
}

#[test]
fn f07_f16_with_never_the_refusal_goes_out_is_told_and_the_call_dies() {
    thread::scope(|scope| {
        for (method, status, attach, family) in [("UPDATE", 405, "tc", Family::V4), ("INVITE", 503, "xdp", Family::V6)]
        {
            scope.spawn(move || {
                let call = Plan { attach, family, ..plan(&["action: refresh", "min_se: 2s"]) }.start();
                thread::sleep(HALF);
                assert_eq!(refreshes(&call, method), status, "{}", call.story());
                let event = call.sipst.event("refresh_rejected", SOON).unwrap();
                assert_eq!((&event["status"], &event["by"]), (&status.into(), &"peer".into()), "{event}");
                let (by_peer, reason) = call.peer.ended(SOON).unwrap();
                assert!(by_peer && reason.contains("timeout"), "{}", call.story());
                assert_eq!(call.sipst.count("refresh_answered"), 0);
                call.clean();
            });
        }
    });
}

#[test]
fn without_the_daemon_the_refusal_goes_out_by_itself_and_with_a_new_one_it_is_answered_again() {
    thread::scope(|scope| {
        for (method, status, attach, family) in [("UPDATE", 405, "tc", Family::V6), ("INVITE", 503, "xdp", Family::V4)]
        {
            scope.spawn(move || {
                let peer = Profile::strict_peer(40, "uac");
                let timer = Some(Timer { interval_s: 40, refresher: Some("uac") });
                let plan = plan(&RULES);
                let server = Profile { timer, ..plan.server.clone() };
                let mut call = Plan { attach, family, peer, server, ..plan }.start();
                settles(&call);
                assert_eq!(refreshes(&call, method), 200, "{}", call.story());
                settles(&call);
                call.sipst.kill().unwrap();
                // At once: the heartbeat is fresh, so that the refusal is held back, and its next copy is not.
                assert_eq!(refreshes(&call, method), status, "{}", call.story());
                call.sipst = Sipst::start(&call.lab.server, &config(attach, &RULES)).unwrap();
                thread::sleep(Duration::from_secs(1));
                assert_eq!(refreshes(&call, method), 200, "{}", call.story());
                the_servers_acks_are_its_own(&call);
                call.server_hangs_up();
            });
        }
    });
}

#[test]
fn a_daemon_that_stands_still_between_holding_and_answering_costs_the_peer_a_copy() {
    let mut call = plan(&RULES).start();
    settles(&call);
    assert_eq!(refreshes(&call, "UPDATE"), 200, "{}", call.story());
    call.sipst.process().signal(rustix::process::Signal::STOP).unwrap();
    assert_eq!(refreshes(&call, "UPDATE"), 405, "{}", call.story());
    call.sipst.process().signal(rustix::process::Signal::CONT).unwrap();
    // What it held back goes out late, and is a copy to the peer.
    thread::sleep(Duration::from_secs(1));
    assert_eq!(refreshes(&call, "UPDATE"), 200, "{}", call.story());
    call.server_hangs_up();
}

#[test]
fn what_changes_the_session_reaches_the_server_and_its_refusal_the_peer() {
    let plan = plan(&RULES);
    let peer = Profile { knows_timers: true, ..plan.peer.clone() };
    let call = Plan { peer, ..plan }.start();
    settles(&call);
    assert_eq!(refreshes(&call, "INVITE"), 200, "{}", call.story());
    call.peer.hold();
    let status = call.peer.answered("INVITE", SOON).unwrap();
    assert_eq!(status, 503, "{}", call.story());
    let event = call.sipst.event("answer_withheld", SOON).unwrap();
    assert!(event["reason"].as_str().is_some_and(|reason| reason.starts_with("changes_session")), "{event}");
    call.server_hangs_up();
}
