//! The main job: a call outlives three intervals of its peer though its server knows nothing of session timers, and the
//! server's own BYE is then accepted. Either role, either method, either family, either way in.

use st_tests::{
    Family,
    agent::{Enforce, Profile, Update},
};

use crate::plan::{INTERVAL_S, Plan, SOON};

/// A call lives through three intervals and ends as the server wants it.
fn lives(plan: Plan, method: &str) {
    let call = plan.start();
    call.refreshed(3);
    // A number of the server's own between: shifted out, and its answer shifted back.
    call.server.request("INFO");
    assert_eq!(call.server.answered("INFO", SOON).unwrap(), 200, "{}", call.story());
    call.refreshed(7);
    let refreshes = call.peer.refreshes();
    assert!(refreshes.iter().all(|request| request.method() == Some(method)), "{}", call.story());
    for refresh in &refreshes {
        assert_eq!(refresh.session_expires(), Some((INTERVAL_S, Some("uac"))), "{}", call.story());
        assert!(refresh.lists("Supported", "timer"), "{}", call.story());
        assert_eq!(refresh.body.is_empty(), method == "UPDATE");
    }
    for (kind, by) in [("session_started", None), ("timer_negotiated", None), ("session_refreshed", Some("sipst"))] {
        let event = call.sipst.event(kind, SOON).unwrap();
        assert_eq!(event["trunk"], "carrier", "{event}");
        assert_eq!(event["server"], call.server.address().to_string(), "{event}");
        assert_eq!(event["peer"], call.peer.address().to_string(), "{event}");
        assert!(by.is_none_or(|by| event["by"] == by), "{event}");
    }
    for kind in ["refresh_failed", "negotiation_fault", "capture_loss", "session_expired"] {
        assert_eq!(call.sipst.count(kind), 0, "{}", call.story());
    }
    call.server_hangs_up();
    assert!(call.peer_answers().iter().all(|status| *status == 200), "{}", call.story());
}

/// A peer that does not know UPDATE.
fn no_update(profile: Profile) -> Profile {
    Profile { update: Update::Unknown, ..profile }
}

macro_rules! lives {
    ($($name:ident: $plan:expr, $family:ident, $attach:literal, $method:literal;)*) => {$(
        #[test]
        fn $name() {
            let plan: Plan = $plan;
            let peer = if $method == "INVITE" { no_update(plan.peer.clone()) } else { plan.peer.clone() };
            lives(Plan { family: Family::$family, attach: $attach, peer, ..plan }, $method);
        }
    )*};
}

lives! {
    server_calls_update_v4_tc: Plan::default(), V4, "tc", "UPDATE";
    server_calls_update_v4_xdp: Plan::default(), V4, "xdp", "UPDATE";
    server_calls_update_v6_tc: Plan::default(), V6, "tc", "UPDATE";
    server_calls_update_v6_xdp: Plan::default(), V6, "xdp", "UPDATE";
    server_calls_reinvite_v4_tc: Plan::default(), V4, "tc", "INVITE";
    server_calls_reinvite_v4_xdp: Plan::default(), V4, "xdp", "INVITE";
    server_calls_reinvite_v6_tc: Plan::default(), V6, "tc", "INVITE";
    server_calls_reinvite_v6_xdp: Plan::default(), V6, "xdp", "INVITE";
    peer_calls_update_v4_tc: Plan::peer_calls(), V4, "tc", "UPDATE";
    peer_calls_update_v4_xdp: Plan::peer_calls(), V4, "xdp", "UPDATE";
    peer_calls_update_v6_tc: Plan::peer_calls(), V6, "tc", "UPDATE";
    peer_calls_update_v6_xdp: Plan::peer_calls(), V6, "xdp", "UPDATE";
    peer_calls_reinvite_v4_tc: Plan::peer_calls(), V4, "tc", "INVITE";
    peer_calls_reinvite_v4_xdp: Plan::peer_calls(), V4, "xdp", "INVITE";
    peer_calls_reinvite_v6_tc: Plan::peer_calls(), V6, "tc", "INVITE";
    peer_calls_reinvite_v6_xdp: Plan::peer_calls(), V6, "xdp", "INVITE";
}

#[test]
fn r38_a_peer_that_hangs_up_before_expiry_is_refreshed_before_that() {
    let peer = Profile { enforce: Enforce::Before, ..Profile::strict_peer(10, "uac") };
    let call = Plan { peer, ..Plan::default() }.start();
    call.refreshed(3);
    call.server_hangs_up();
}

#[test]
fn a_trunk_that_wants_reinvites_gets_them_though_the_peer_takes_updates() {
    let rules = vec!["action: refresh", "min_se: 2s", "method: reinvite"];
    let call = Plan { rules, ..Plan::default() }.start();
    call.refreshed(2);
    assert!(call.peer.refreshes().iter().all(|request| request.method() == Some("INVITE")), "{}", call.story());
    call.server_hangs_up();
}

#[test]
fn the_peer_may_hang_up_too_and_the_server_hears_of_it() {
    let call = Plan::default().start();
    call.refreshed(1);
    call.peer.bye();
    assert_eq!(call.peer.answered("BYE", SOON).unwrap(), 200);
    let event = call.sipst.event("session_ended", SOON).unwrap();
    assert_eq!(event["by"], "peer", "{event}");
    call.clean();
}

#[test]
fn r15_the_peers_own_reinvite_starts_the_interval_anew() {
    let peer = no_update(Profile::strict_peer(10, "uac"));
    let call = Plan { peer, ..Plan::default() }.start();
    call.refreshed(1);
    call.peer.reinvite();
    assert_eq!(call.peer.answered("INVITE", SOON).unwrap(), 200, "{}", call.story());
    let event = call.sipst.event_where("refresh by the peer", SOON, |event| {
        event["event"] == "session_refreshed" && event["by"] == "peer"
    });
    event.unwrap();
    call.refreshed(3);
    call.server_hangs_up();
}
