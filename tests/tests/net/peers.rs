//! The peer is the refresher, and its refreshes come to nothing at the server: what is told of that, and calls that live because
//! sipst takes the role over. Each without it dies.

use std::time::Duration;

use serde_json::Value;
use st_tests::{
    Family, Sipst,
    agent::{Profile, Refusal, Update},
};

use crate::plan::{Call, INTERVAL_S, Plan, SOON, config};

const TAKES_OVER: [&str; 3] = ["action: refresh", "min_se: 2s", "take_over: true"];

/// Turns UPDATE down, and then a re-INVITE.
fn refusing() -> Profile {
    Profile { update: Update::ListAndRefuse(405), refuse: vec![Refusal::new(503)], ..Profile::plain_server() }
}

/// A call whose peer has to refresh.
fn plan(family: Family, attach: &'static str, rules: &[&'static str], server: Profile) -> Plan {
    let peer = Profile::strict_peer(INTERVAL_S, "uas");
    Plan { family, attach, rules: rules.to_vec(), server, peer, ..Plan::default() }
}

fn told(call: &Call, kind: &'static str, method: &str) -> Value {
    let found = call.sipst.event_where(kind, SOON, |event| event["event"] == kind && event["method"] == method);
    found.unwrap_or_else(|error| panic!("{error:#}\n{}", call.story()))
}

/// The peer hangs up because nothing has refreshed the session.
fn dies(call: &Call) {
    let (by_peer, reason) = call.peer.ended(SOON).unwrap();
    assert!(by_peer && reason.contains("Session timeout"), "{reason}\n{}", call.story());
    assert!(call.peer.refreshes().is_empty(), "{}", call.story());
    let ended = call.sipst.event("session_ended", SOON).unwrap();
    assert_eq!(ended["by"], "peer", "{ended}");
}

#[test]
fn f01_a_refresh_that_the_server_turns_down_is_told_with_its_status_and_the_next_call_is_at_risk() {
    std::thread::scope(|scope| {
        for (family, attach) in [(Family::V4, "tc"), (Family::V6, "xdp")] {
            scope.spawn(move || {
                let call = plan(family, attach, &["action: alert"], refusing()).start();
                call.peer.request("UPDATE");
                let event = told(&call, "refresh_rejected", "UPDATE");
                assert_eq!((&event["status"], &event["by"]), (&405.into(), &"peer".into()), "{event}");
                assert_eq!(event["reason"], "server_refuses_refresh: Refused", "{event}");
                call.peer.reinvite();
                assert_eq!(told(&call, "refresh_rejected", "INVITE")["status"], 503);
                assert_eq!(call.sipst.count("at_risk"), 0, "{}", call.story());
                dies(&call);
                for kind in ["refresh_overdue", "refresh_ignored"] {
                    assert_eq!(call.sipst.count(kind), 0, "{}", call.story());
                }
                call.server.call(call.peer.address());
                let risk = call.sipst.event("at_risk", SOON).unwrap();
                let reason = risk["reason"].as_str().unwrap();
                assert!(reason.starts_with("server_refuses_refresh: 503 to INVITE"), "{risk}");
            });
        }
    });
}

#[test]
fn f02_f07_a_refresh_that_never_came_and_one_that_the_server_says_nothing_to_are_told_apart() {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let call = plan(Family::V4, "tc", &["action: alert"], Profile::plain_server()).start();
            let event = call.sipst.event("refresh_overdue", SOON).unwrap();
            assert_eq!(event["by"], "peer", "{event}");
            dies(&call);
            assert_eq!(call.sipst.count("refresh_ignored"), 0, "{}", call.story());
        });
        scope.spawn(|| {
            // It is silent to copies too.
            let server = Profile { update: Update::ListAndIgnore, strict_cseq: false, ..Profile::plain_server() };
            let call = plan(Family::V6, "tc", &["action: alert"], server).start();
            call.peer.request("UPDATE");
            let event = told(&call, "refresh_ignored", "UPDATE");
            assert!(event["reason"].as_str().unwrap().starts_with("server_ignores_refresh: not a word"), "{event}");
            dies(&call);
            assert_eq!(call.sipst.count("refresh_overdue"), 0, "{}", call.story());
        });
    });
}

#[test]
fn f01_with_take_over_the_servers_side_becomes_the_refresher_and_the_call_lives() {
    std::thread::scope(|scope| {
        for (family, attach, update) in [
            (Family::V4, "tc", Update::Accept),
            (Family::V6, "xdp", Update::Accept),
            (Family::V4, "xdp", Update::Unknown),
        ] {
            scope.spawn(move || {
                let plan = plan(family, attach, &TAKES_OVER, refusing());
                let peer = Profile { update, ..plan.peer.clone() };
                let call = Plan { peer, ..plan }.start();
                let quiet = ["refresh_rejected", "refresh_overdue", "refresh_failed", "at_risk", "session_expiring"];
                let first = call.kept_up(INTERVAL_S, &quiet);
                assert_eq!(first["reason"], "take_over", "{first}");
                call.server_hangs_up();
            });
        }
    });
}

#[test]
fn f01_a_role_that_was_taken_over_is_kept_by_the_next_daemon() {
    std::thread::scope(|scope| {
        for (family, attach) in [(Family::V4, "tc"), (Family::V6, "xdp")] {
            scope.spawn(move || {
                let mut plan = plan(family, attach, &TAKES_OVER, refusing());
                plan.peer = Profile::strict_peer(24, "uas");
                let mut call = plan.start();
                call.refreshed(1);
                call.sipst.event("refresh_succeeded", SOON).unwrap();
                // What it knows is written within a moment.
                std::thread::sleep(Duration::from_secs(1));
                call.sipst.kill().unwrap();
                call.sipst = Sipst::start(&call.lab.server, &config(attach, &TAKES_OVER)).unwrap();
                call.refreshed(3);
                call.server_hangs_up();
            });
        }
    });
}
