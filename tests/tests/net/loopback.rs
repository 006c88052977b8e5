//! Server and peer on one host, over the loopback.

use st_tests::{
    Host, Sipst,
    agent::{Agent, Profile},
};

use crate::plan::{SOON, config};

/// A strict peer's interval: the call is refreshed three times.
const INTERVAL_S: u32 = 4;

#[test]
fn a_call_over_the_loopback_is_seen_once_and_kept_up_from_the_side_of_the_named_port() {
    let host = Host::new("both").unwrap();
    let rules = ["action: refresh", "min_se: 2s"];
    let config = config("auto", &rules).replace("[eth0]", "[lo]").replace("\"10.0.0.0/8\"", "\"127.0.0.0/8\"");
    let mut sipst = Sipst::start(&host, &config).unwrap();
    let peer = Agent::start(&host, "127.0.0.1:5080".parse().unwrap(), Profile::strict_peer(INTERVAL_S, "uac")).unwrap();
    let server = Agent::start(&host, "127.0.0.1:5060".parse().unwrap(), Profile::plain_server()).unwrap();
    server.call(peer.address());
    server.established(SOON).unwrap();
    let told = |what: &str| format!("{what}\n{peer}\n{server}\n{}", sipst.report());
    assert!(peer.refreshed(3, SOON * 2).is_ok(), "{}", told("three refreshes"));
    server.bye();
    assert_eq!(server.answered("BYE", SOON).unwrap(), 200, "{}", told("BYE"));
    assert!(peer.faults().is_empty() && server.faults().is_empty(), "{}", told("faults"));
    sipst.event("session_ended", SOON).unwrap();
    assert_eq!(sipst.count("session_started"), 1, "{}", told("once"));
    assert!(sipst.stop().unwrap().success());
}

#[test]
fn the_same_call_without_sipst_dies() {
    let host = Host::new("both").unwrap();
    let peer = Agent::start(&host, "127.0.0.1:5080".parse().unwrap(), Profile::strict_peer(2, "uac")).unwrap();
    let server = Agent::start(&host, "127.0.0.1:5060".parse().unwrap(), Profile::plain_server()).unwrap();
    server.call(peer.address());
    server.established(SOON).unwrap();
    let (by_peer, _) = peer.ended(SOON).unwrap();
    assert!(by_peer, "{peer}\n{server}");
}
