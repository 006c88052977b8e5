//! Without sipst: the laboratory is true to life, and a call that nobody refreshes dies.

use std::time::Duration;

use st_tests::{
    Family, Lab, Play, Sipp, Tap,
    agent::{Agent, Profile},
};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn without_sipst_the_peer_hangs_up_at_expiry() {
    dies(false);
}

#[test]
fn without_sipst_a_call_whose_messages_take_fragments_dies_too() {
    dies(true);
}

fn dies(ice: bool) {
    for family in [Family::V4, Family::V6] {
        let lab = Lab::new().unwrap();
        let tap = Tap::start(&lab.peer, "eth0").unwrap();
        let peer = Agent::start(
            &lab.peer,
            (lab.wire.b.ip(family), 5060).into(),
            Profile { ice, ..Profile::strict_peer(4, "uac") },
        )
        .unwrap();
        let server = Profile { ice, ..Profile::plain_server() };
        let server = Agent::start(&lab.server, (lab.wire.a.ip(family), 5060).into(), server).unwrap();
        server.call(peer.address());
        server.established(SOON).unwrap();
        let (by_peer, reason) = peer.ended(SOON).unwrap();
        assert!(by_peer && reason.contains("Session timeout"), "{peer}");
        assert!(!server.ended(SOON).unwrap().0);
        assert_eq!(peer.answered("BYE", SOON).unwrap(), 200);
        server.faultless().unwrap();
        peer.faultless().unwrap();
        tap.wait(if ice { 3 } else { 6 }, SOON).unwrap();
    }
}

#[test]
fn without_sipst_a_real_servers_call_dies_too() {
    let lab = Lab::new().unwrap();
    let (own, target) = (lab.wire.a.v4, (lab.wire.b.v4, 5060).into());
    let peer = Agent::start(&lab.peer, target, Profile::strict_peer(4, "uac")).unwrap();
    let hold = Duration::from_secs(12);
    let mut server = Sipp::start(&lab.server, Play::server_calls(own, target, hold)).unwrap();
    let (by_peer, reason) = peer.ended(SOON).unwrap();
    assert!(by_peer && reason.contains("Session timeout"), "{peer}");
    assert!(!server.ended_well(SOON).unwrap(), "SIPp expected no BYE");
    peer.faultless().unwrap();
}

#[test]
fn sipp_and_the_agents_agree_on_a_call_that_is_hung_up_in_time() {
    let lab = Lab::new().unwrap();
    let (own, target) = (lab.wire.a.v4, (lab.wire.b.v4, 5060).into());
    let hold = Duration::from_secs(1);
    {
        let peer = Agent::start(&lab.peer, target, Profile::strict_peer(4, "uac")).unwrap();
        let mut server = Sipp::start(&lab.server, Play::server_calls(own, target, hold)).unwrap();
        server.succeeds(&lab.server, SOON).unwrap();
        assert!(!peer.ended(SOON).unwrap().0);
        peer.faultless().unwrap();
    }
    {
        let mut server = Sipp::start(&lab.server, Play::server_is_called(own, hold, 4)).unwrap();
        let peer = Agent::start(&lab.peer, target, Profile::strict_peer(4, "uas")).unwrap();
        peer.call((lab.wire.a.v4, 5060).into());
        server.succeeds(&lab.server, SOON).unwrap();
        assert!(!peer.ended(SOON).unwrap().0);
        peer.faultless().unwrap();
    }
    let mut peer = Sipp::start(&lab.peer, Play::peer_is_called(lab.wire.b.v4, 4)).unwrap();
    let server = Agent::start(&lab.server, (lab.wire.a.v4, 5060).into(), Profile::plain_server()).unwrap();
    server.call(target);
    server.established(SOON).unwrap();
    for method in ["UPDATE", "INVITE", "UPDATE"] {
        server.request(method);
        assert_eq!(server.answered(method, SOON).unwrap(), 200);
    }
    server.bye();
    assert_eq!(server.answered("BYE", SOON).unwrap(), 200);
    peer.succeeds(&lab.peer, SOON).unwrap();
    server.faultless().unwrap();
}

#[test]
fn the_strict_peer_refuses_equal_and_lower_numbers() {
    let lab = Lab::new().unwrap();
    let peer = Agent::start(&lab.peer, (lab.wire.b.v4, 5060).into(), Profile::strict_peer(60, "uac")).unwrap();
    let server = Agent::start(&lab.server, (lab.wire.a.v4, 5060).into(), Profile::plain_server()).unwrap();
    server.call(peer.address());
    server.established(SOON).unwrap();
    for number in [0, 1] {
        server.request_with_number("OPTIONS", number);
        assert_eq!(server.answered("OPTIONS", SOON).unwrap(), 500);
    }
    server.request("OPTIONS");
    assert_eq!(server.answered("OPTIONS", SOON).unwrap(), 200);
}
