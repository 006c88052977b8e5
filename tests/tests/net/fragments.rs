//! Calls whose messages take several IP fragments, either way and in any order: an INVITE of 6 KB with ICE candidates and video makes
//! a session, a re-INVITE as long leaves in fragments and is accepted, and so is what comes back. `control` has the same call
//! without sipst.

use st_tests::{
    Family,
    agent::{Profile, Update},
};

use crate::plan::{INTERVAL_S, Plan, SOON};

/// Longer than any packet on these wires.
const MTU: usize = 1_500;

/// Both ends' session descriptions are long; the peer knows no UPDATE.
fn long(profile: Profile) -> Profile {
    Profile { ice: true, update: Update::Unknown, ..profile }
}

/// A call that lives by re-INVITEs which leave in fragments, and ends as the server wants it. `backwards`: what the peer sends comes in
/// fragments, the last one first.
fn lives(family: Family, attach: &'static str, server_calls: bool, backwards: bool) {
    let plan = if server_calls { Plan::default() } else { Plan::peer_calls() };
    let peer = Profile { backwards, ..long(plan.peer.clone()) };
    let call = Plan { family, attach, peer, server: long(plan.server.clone()), ..plan }.start();
    call.refreshed(2);
    // A number of the server's own, in the first fragment: shifted out, and its answer shifted back.
    call.server.request_with("INFO", "X-Long", "x".repeat(3_000));
    assert_eq!(call.server.answered("INFO", SOON).unwrap(), 200, "{}", call.story());
    call.refreshed(4);
    for refresh in call.peer.refreshes() {
        assert_eq!(refresh.method(), Some("INVITE"), "{}", call.story());
        assert_eq!(refresh.session_expires(), Some((INTERVAL_S, Some("uac"))), "{}", call.story());
        assert!(refresh.body.len() > 5 * MTU / 2 && refresh.body.contains("m=video"), "{}", call.story());
    }
    for kind in ["refresh_failed", "negotiation_fault", "capture_loss", "session_expired"] {
        assert_eq!(call.sipst.count(kind), 0, "{}", call.story());
    }
    call.server_hangs_up();
    assert!(call.peer_answers().iter().all(|status| *status == 200), "{}", call.story());
    assert!(call.tap.frames().iter().all(|frame| frame.bytes.len() <= 14 + MTU), "none was longer than the wire takes");
}

macro_rules! lives {
    ($($name:ident: $family:ident, $attach:literal, $server_calls:literal, $backwards:literal;)*) => {$(
        #[test]
        fn $name() {
            lives(Family::$family, $attach, $server_calls, $backwards);
        }
    )*};
}

lives! {
    server_calls_v4_tc: V4, "tc", true, false;
    server_calls_v6_tc_backwards: V6, "tc", true, true;
    server_calls_v6_xdp: V6, "xdp", true, false;
    peer_calls_v4_tc_backwards: V4, "tc", false, true;
    peer_calls_v4_xdp_backwards: V4, "xdp", false, true;
    peer_calls_v6_tc: V6, "tc", false, false;
}

#[test]
fn a_peer_that_hangs_up_in_fragments_is_heard() {
    let plan = Plan::peer_calls();
    let peer = Profile { backwards: true, ..long(plan.peer.clone()) };
    let call = Plan { attach: "tc", peer, server: long(plan.server.clone()), ..plan }.start();
    call.refreshed(1);
    call.peer.request_with("BYE", "X-Long", "x".repeat(3_000));
    assert_eq!(call.peer.answered("BYE", SOON).unwrap(), 200, "{}", call.story());
    let event = call.sipst.event("session_ended", SOON).unwrap();
    assert_eq!(event["by"], "peer", "{event}");
}
