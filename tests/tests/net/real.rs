//! Real SIP software at either end.

use std::time::Duration;

use st_tests::{
    Family, Lab, Play, Sipp, Sipst, Tap,
    agent::{Agent, Profile},
};

use crate::plan::{INTERVAL_S, SOON, config};

const RULES: &[&str] = &["action: refresh", "min_se: 2s"];
/// How many intervals a call outlives; it has had as many refreshes then at the least.
const INTERVALS: usize = 3;
const HOLD: Duration = Duration::from_secs(INTERVALS as u64 * INTERVAL_S as u64 + 1);
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn sipp_as_server_that_calls_outlives_three_intervals_and_its_bye_gets_200() {
    for (family, attach) in [(Family::V4, "tc"), (Family::V6, "xdp")] {
        let lab = Lab::new().unwrap();
        let mut sipst = Sipst::start(&lab.server, &config(attach, RULES)).unwrap();
        let tap = Tap::start(&lab.peer, "eth0").unwrap();
        let (own, target) = (lab.wire.a.ip(family), (lab.wire.b.ip(family), 5060).into());
        let peer = Agent::start(&lab.peer, target, Profile::strict_peer(INTERVAL_S, "uac")).unwrap();
        let mut server = Sipp::start(&lab.server, Play::server_calls(own, target, HOLD)).unwrap();
        server.succeeds(&lab.server, PATIENCE).unwrap_or_else(|error| panic!("{error}\n{peer}\n{}", sipst.report()));
        assert!(!peer.ended(SOON).unwrap().0, "{peer}");
        assert!(peer.refreshes().len() >= INTERVALS, "{peer}\n{}", sipst.report());
        // SIPp's scenario writes 2; the peer has seen the refreshes between.
        assert_eq!(server.wrote(&lab.server, "BYE"), Some(2));
        let read = peer.requests("BYE")[0].cseq().unwrap().number;
        assert_eq!(usize::try_from(read).unwrap(), 2 + peer.refreshes().len(), "{peer}");
        peer.faultless().unwrap();
        tap.datagrams().unwrap();
        sipst.event("session_ended", SOON).unwrap();
        assert!(sipst.stop().unwrap().success(), "{}", sipst.report());
    }
}

#[test]
fn sipp_as_server_that_is_called_outlives_three_intervals_and_its_bye_gets_200() {
    let lab = Lab::new().unwrap();
    let sipst = Sipst::start(&lab.server, &config("auto", RULES)).unwrap();
    let own = lab.wire.a.v4;
    let mut server = Sipp::start(&lab.server, Play::server_is_called(own, HOLD, INTERVAL_S)).unwrap();
    let profile = Profile::strict_peer(INTERVAL_S, "uas");
    let peer = Agent::start(&lab.peer, (lab.wire.b.v4, 5060).into(), profile).unwrap();
    peer.call((own, 5060).into());
    server.succeeds(&lab.server, PATIENCE).unwrap_or_else(|error| panic!("{error}\n{peer}\n{}", sipst.report()));
    assert!(!peer.ended(SOON).unwrap().0, "{peer}");
    assert!(peer.refreshes().len() >= INTERVALS, "{peer}\n{}", sipst.report());
    peer.faultless().unwrap();
}

#[test]
fn sipp_as_peer_takes_updates_and_the_servers_bye() {
    sipp_as_peer(&["action: refresh", "min_se: 2s"], "UPDATE");
}

#[test]
fn sipp_as_peer_takes_reinvites_and_the_servers_bye() {
    sipp_as_peer(&["action: refresh", "min_se: 2s", "method: reinvite"], "INVITE");
}

/// Both ends are SIPp: no line of ours on either side of the wire but sipst.
fn sipp_as_peer(rules: &[&str], method: &str) {
    let lab = Lab::new().unwrap();
    let sipst = Sipst::start(&lab.server, &config("auto", rules)).unwrap();
    let (own, target) = (lab.wire.a.v4, (lab.wire.b.v4, 5060).into());
    let mut peer = Sipp::start(&lab.peer, Play::peer_is_called(lab.wire.b.v4, INTERVAL_S)).unwrap();
    let mut server = Sipp::start(&lab.server, Play::server_calls(own, target, HOLD)).unwrap();
    server.succeeds(&lab.server, PATIENCE).unwrap_or_else(|error| panic!("{error}\n{}", sipst.report()));
    peer.succeeds(&lab.peer, SOON).unwrap_or_else(|error| panic!("{error}\n{}", sipst.report()));
    sipst.event("session_ended", SOON).unwrap();
    let succeeded: Vec<_> = sipst.events().into_iter().filter(|event| event["event"] == "refresh_succeeded").collect();
    assert!(
        succeeded.len() >= INTERVALS && succeeded.iter().all(|event| event["method"] == method),
        "{}",
        sipst.report()
    );
}

#[test]
fn fifty_calls_at_once_all_live() {
    let lab = Lab::new().unwrap();
    let sipst = Sipst::start(&lab.server, &config("auto", RULES)).unwrap();
    let (own, target) = (lab.wire.a.v4, (lab.wire.b.v4, 5060).into());
    let peer = Play::peer_is_called(lab.wire.b.v4, INTERVAL_S).calls(50);
    let server = Play::server_calls(own, target, HOLD).calls(50);
    let mut peer = Sipp::start(&lab.peer, peer).unwrap();
    let mut server = Sipp::start(&lab.server, server).unwrap();
    server.succeeds(&lab.server, PATIENCE).unwrap_or_else(|error| panic!("{error}\n{}", sipst.report()));
    peer.succeeds(&lab.peer, SOON).unwrap_or_else(|error| panic!("{error}\n{}", sipst.report()));
    assert!(sipst.count("refresh_succeeded") >= 50 * INTERVALS, "{}", sipst.report());
    assert_eq!(sipst.count("refresh_failed"), 0, "{}", sipst.report());
}
