//! Calls between ports that the configuration does not name.

use st_tests::agent::Profile;

use crate::plan::{Plan, SOON};

#[test]
fn a_call_between_ports_that_are_not_named_is_kept_up_where_any_port_is_looked_at() {
    for attach in ["tc", "xdp"] {
        let call =
            Plan { attach, ..Plan::default() }.start_with(|config| format!("{config}ports: [9]\nany_port: true\n"));
        call.refreshed(2);
        call.server.request("INFO");
        assert_eq!(call.server.answered("INFO", SOON).unwrap(), 200, "{}", call.story());
        call.server_hangs_up();
    }
}

#[test]
fn the_same_call_is_not_seen_where_it_is_not() {
    let peer = Profile::strict_peer(2, "uac");
    let call = Plan { attach: "tc", peer, ..Plan::default() }.start_with(|config| format!("{config}ports: [9]\n"));
    let (by_peer, _) = call.peer.ended(SOON).unwrap();
    assert!(by_peer, "{}", call.story());
    assert_eq!(call.sipst.count("session_started"), 0, "{}", call.story());
}
