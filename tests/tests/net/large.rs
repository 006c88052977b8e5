//! Calls over wires that take jumbo frames: an INVITE with ICE candidates and video is one packet there, of several buffers for XDP.
//! `control` has the same call without sipst.

use st_tests::{
    Family, Lab,
    agent::{Profile, Update},
};

use crate::plan::{Plan, SOON};

const MTU: usize = 9_000;

/// A laboratory whose wire takes jumbo frames.
fn jumbo() -> Lab {
    let lab = Lab::new().unwrap();
    for host in [&lab.server, &lab.peer] {
        host.run("ip", &["link", "set", "eth0", "mtu", &MTU.to_string()]).unwrap();
    }
    lab
}

/// A call that lives by re-INVITEs with the server's whole session description: what was cut could not be offered again.
fn lives(family: Family, attach: &'static str, server_calls: bool) {
    let plan = if server_calls { Plan::default() } else { Plan::peer_calls() };
    let long = |profile: &Profile| Profile { ice: true, update: Update::Unknown, ..profile.clone() };
    let (peer, server) = (long(&plan.peer), long(&plan.server));
    let call = Plan { family, attach, peer, server, ..plan }.start_in(jumbo(), |config| config);
    call.refreshed(1);
    call.server.request_with("INFO", "X-Long", "x".repeat(8_000));
    assert_eq!(call.server.answered("INFO", SOON).unwrap(), 200, "{}", call.story());
    call.refreshed(3);
    for kind in ["refresh_failed", "negotiation_fault", "capture_loss", "session_expired"] {
        assert_eq!(call.sipst.count(kind), 0, "{}", call.story());
    }
    call.server_hangs_up();
    assert!(call.peer_answers().iter().all(|status| *status == 200), "{}", call.story());
    let longest = call.tap.frames().iter().map(|frame| frame.bytes.len()).max();
    assert!(longest.is_some_and(|len| len > 8_000 && len <= 14 + MTU), "one jumbo frame at least: {longest:?}");
    let shown = call.lab.server.run("ip", &["-details", "link", "show", "dev", "eth0"]).unwrap();
    assert_eq!(shown.contains("prog/xdp"), attach == "xdp", "{shown}");
}

#[test]
fn server_calls_v4_xdp() {
    lives(Family::V4, "xdp", true);
}

#[test]
fn peer_calls_v6_xdp() {
    lives(Family::V6, "xdp", false);
}

#[test]
fn peer_calls_v4_tc() {
    lives(Family::V4, "tc", false);
}
