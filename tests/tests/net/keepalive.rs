//! `keepalive`: while a call is up, the peer gets empty lines from the server's own address and port; without it, and after the call,
//! none.

use std::time::Duration;

use st_tests::{
    Family,
    agent::{Event, Profile, Record},
};

use crate::plan::{Call, Plan, SOON};

/// So many make it certain that they go on.
const ENOUGH: usize = 3;

fn start(family: Family, attach: &'static str, rules: &[&'static str]) -> Call {
    // A timer that is far away: nothing else leaves meanwhile.
    Plan { family, attach, rules: rules.to_vec(), peer: Profile::strict_peer(1_800, "uac"), ..Plan::default() }.start()
}

/// How many the peer was sent, each from the server to the peer, and the server none.
fn kept_alive(call: &Call) -> usize {
    let (server, peer) = (call.server.address(), call.peer.address());
    let datagrams = call.tap.datagrams().unwrap();
    let empty: Vec<_> = datagrams.iter().filter(|datagram| datagram.payload == b"\r\n\r\n").collect();
    assert!(empty.iter().all(|datagram| (datagram.from, datagram.to) == (server, peer)), "{}", call.story());
    empty.len()
}

fn over(call: &Call) {
    call.server.bye();
    assert_eq!(call.server.answered("BYE", SOON).unwrap(), 200, "{}", call.story());
    call.sipst.event("session_ended", SOON).unwrap();
}

#[test]
fn the_peer_gets_empty_lines_from_the_servers_port_while_the_call_is_up_and_none_after_it() {
    std::thread::scope(|scope| {
        for (family, attach) in [(Family::V4, "tc"), (Family::V6, "xdp")] {
            scope.spawn(move || {
                let call = start(family, attach, &["action: refresh", "min_se: 2s", "keepalive: 5s"]);
                // Each is a message that the strict peer cannot read.
                let enough = |records: &[Record]| {
                    records.iter().filter(|record| matches!(record.event, Event::Fault(_))).count() >= ENOUGH
                };
                call.peer.wait("keep-alives", 2 * SOON, |records| enough(records).then_some(())).unwrap();
                over(&call);
                let sent = kept_alive(&call);
                assert!(sent >= ENOUGH, "{}", call.story());
                std::thread::sleep(Duration::from_secs(12));
                assert_eq!(kept_alive(&call), sent, "{}", call.story());
                assert_eq!(call.peer.faults().len(), sent, "nothing else was odd: {}", call.story());
                assert!(call.server.faults().is_empty() && call.peer.refreshes().is_empty(), "{}", call.story());
            });
        }
        for (family, attach) in [(Family::V6, "tc"), (Family::V4, "xdp")] {
            scope.spawn(move || {
                let call = start(family, attach, &["action: refresh", "min_se: 2s"]);
                std::thread::sleep(Duration::from_secs(12));
                over(&call);
                assert_eq!(kept_alive(&call), 0, "{}", call.story());
                call.clean();
            });
        }
    });
}
