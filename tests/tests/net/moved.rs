//! The peer's answer to a re-INVITE of sipst's moves its media, and the server is told in the peer's name.

use std::{collections::BTreeSet, time::Duration};

use st_tests::{
    Family, Sipst,
    agent::{Event, MEDIA_PORT, Message, Profile, Record, Update},
};

use crate::plan::{Call, Plan, SOON, config};

const RULES: [&str; 3] = ["action: refresh", "min_se: 2s", "on_moved: tell-server"];

/// How long a server sends its 200 again before it gives the call up.
const PATIENCE: Duration = Duration::from_secs(8);

fn plan(interval_s: u32) -> Plan {
    let peer = Profile { update: Update::Unknown, moves: true, ..Profile::strict_peer(interval_s, "uac") };
    Plan { peer, rules: RULES.to_vec(), ..Plan::default() }
}

/// The re-INVITE that the server got.
fn told(call: &Call) -> Message {
    let invite = call.server.refreshed(1, SOON + Duration::from_secs(24));
    invite.unwrap_or_else(|error| panic!("{error:#}\n{}", call.story()))
}

/// A side sends a request, and the other takes its number.
fn asks(call: &Call, peer: bool, method: &'static str) {
    let agent = if peer { &call.peer } else { &call.server };
    agent.request(method);
    assert_eq!(agent.answered(method, SOON).unwrap(), 200, "{method} {peer}\n{}", call.story());
}

fn acks(records: &[Record]) -> BTreeSet<u32> {
    let number = |record: &Record| match &record.event {
        Event::Received(message) => message.cseq().map(|cseq| cseq.number),
        Event::Sent(_) | Event::Established | Event::Ended { .. } | Event::Fault(_) => None,
    };
    records.iter().filter(|record| record.is_request("ACK")).filter_map(number).collect()
}

/// Nothing of what went on between sipst and the server has left the host.
fn stays_here(call: &Call) {
    for datagram in call.tap.datagrams().unwrap() {
        assert!(!String::from_utf8_lossy(&datagram.payload).contains("z9hG4bKsipsp"), "{}", call.story());
    }
}

#[test]
fn f09_the_server_hears_of_moved_media_in_the_peers_name_and_both_sides_numbers_go_on() {
    std::thread::scope(|scope| {
        for (attach, family, peer_ends) in
            [("tc", Family::V4, true), ("xdp", Family::V4, false), ("tc", Family::V6, false), ("xdp", Family::V6, true)]
        {
            scope.spawn(move || {
                let call = Plan { attach, family, ..plan(8) }.start();
                let invite = told(&call);
                assert!(invite.body.contains(&format!("m=audio {} ", MEDIA_PORT + 2)), "{invite}");
                assert_eq!(invite.uri("Contact"), Some(&*format!("sip:peer@{}", call.peer.address())), "{invite}");
                assert!(invite.header("Session-Expires").is_none(), "{invite}");
                let event = call.sipst.event("server_told", SOON).unwrap();
                assert_eq!((&event["status"], &event["by"]), (&200.into(), &"sipst".into()), "{event}");
                let number = invite.cseq().unwrap().number;
                let acked = call.server.wait("ACK", SOON, |records| acks(records).contains(&number).then_some(()));
                acked.unwrap_or_else(|error| panic!("{error:#}\n{}", call.story()));
                asks(&call, true, "INFO");
                asks(&call, false, "INFO");
                // Three intervals and more, by UPDATE from here on.
                call.refreshed(6);
                asks(&call, true, "OPTIONS");
                assert_eq!(call.sipst.count("server_told"), 1, "{}", call.story());
                if peer_ends {
                    call.peer_hangs_up();
                } else {
                    call.server_hangs_up();
                }
                stays_here(&call);
            });
        }
    });
}

#[test]
fn f09_the_default_is_an_alert_and_the_server_hears_nothing() {
    let call = Plan { rules: vec!["action: refresh", "min_se: 2s"], ..plan(8) }.start();
    let fault = call.sipst.event("negotiation_fault", SOON).unwrap();
    assert!(fault["reason"].as_str().is_some_and(|reason| reason.starts_with("answer_moved_media")), "{fault}");
    call.refreshed(3);
    assert!(call.server.refreshes().is_empty(), "{}", call.story());
    call.server_hangs_up();
}

#[test]
fn f09_a_server_that_refuses_keeps_its_call() {
    let server = Profile { refuse: vec![st_tests::agent::Refusal::new(488)], ..Profile::plain_server() };
    let call = Plan { server, ..plan(8) }.start();
    let not_told = call.sipst.event_where("server_not_told", SOON, |event| {
        event["reason"].as_str().is_some_and(|reason| reason == "server_not_told: refused, 488")
    });
    not_told.unwrap();
    call.refreshed(4);
    assert_eq!(call.server.refreshes().len(), 1, "{}", call.story());
    asks(&call, true, "INFO");
    call.server_hangs_up();
    stays_here(&call);
}

#[test]
fn f09_with_no_daemon_or_a_new_one_the_programs_ack_the_servers_200_and_the_numbers_go_on() {
    std::thread::scope(|scope| {
        for (attach, family, again) in [("tc", Family::V4, false), ("xdp", Family::V6, false), ("tc", Family::V6, true)]
        {
            scope.spawn(move || {
                let server =
                    Profile { thinks: Duration::from_secs(1), ack_patience: PATIENCE, ..Profile::plain_server() };
                let mut call = Plan { attach, family, server, ..plan(60) }.start();
                let number = told(&call).cseq().unwrap().number;
                call.sipst.kill().unwrap();
                if again {
                    call.sipst = Sipst::start(&call.lab.server, &config(attach, &RULES)).unwrap();
                }
                let acked = call.server.wait("ACK", PATIENCE, |records| acks(records).contains(&number).then_some(()));
                assert!(acked.is_ok(), "{}", call.story());
                std::thread::sleep(PATIENCE);
                assert!(!call.server.is_over(), "{}", call.story());
                asks(&call, true, "INFO");
                asks(&call, false, "INFO");
                call.peer_hangs_up();
                stays_here(&call);
            });
        }
    });
}
