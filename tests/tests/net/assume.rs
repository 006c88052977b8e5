//! A peer that negotiates no session timer and drops calls of a certain age all the same: with `assume_interval` they live, without
//! they die.

use std::time::Duration;

use st_tests::{
    Family, Sipst,
    agent::{Profile, Update},
};

use crate::plan::{Call, Plan, SOON, config};

const AGE: Duration = Duration::from_secs(8);

const HOLDS: [&str; 4] = ["action: refresh", "min_se: 2s", "assume_interval: 8s", "session_expires: 30m"];

fn plan(family: Family, attach: &'static str, rules: &[&'static str], peer: Profile) -> Plan {
    Plan { family, attach, rules: rules.to_vec(), peer, ..Plan::default() }
}

/// The peer hangs up for want of an INVITE or UPDATE.
fn dies(call: &Call) {
    let (by_peer, reason) = call.peer.ended(SOON).unwrap();
    assert!(by_peer && reason.contains("Session timeout"), "{reason}\n{}", call.story());
    assert!(call.peer.refreshes().is_empty(), "{}", call.story());
    let ended = call.sipst.event("session_ended", SOON).unwrap();
    assert_eq!(ended["by"], "peer", "{ended}");
}

#[test]
fn without_it_the_call_dies_at_that_age_and_where_sipst_is_to_alert_it_tells_before() {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let call = plan(Family::V4, "tc", &["action: refresh", "min_se: 2s"], Profile::dropping_peer(AGE)).start();
            dies(&call);
            assert_eq!(call.sipst.count("refresh_due"), 0, "{}", call.story());
        });
        scope.spawn(|| {
            let rules = ["action: alert", "assume_interval: 8s"];
            let call = plan(Family::V6, "xdp", &rules, Profile::dropping_peer(AGE)).start();
            dies(&call);
            let due = call.sipst.event("refresh_due", SOON).unwrap();
            assert_eq!((&due["reason"], &due["by"]), (&"assumed: 8s".into(), &"server".into()), "{due}");
        });
    });
}

#[test]
fn f01_a_call_without_a_timer_outlives_the_age_at_which_its_peer_drops_calls() {
    std::thread::scope(|scope| {
        for (family, attach, update, joins) in [
            (Family::V4, "tc", Update::Accept, false),
            (Family::V6, "xdp", Update::Accept, true),
            (Family::V4, "xdp", Update::Unknown, true),
            (Family::V6, "tc", Update::ListAndRefuse(405), false),
        ] {
            scope.spawn(move || {
                let call =
                    plan(family, attach, &HOLDS, Profile { update, joins, ..Profile::dropping_peer(AGE) }).start();
                let first = call.kept_up(1_800, &["refresh_failed", "session_expiring", "session_expired", "bye_sent"]);
                assert_eq!((&first["reason"], &first["by"]), (&"assumed: 8s".into(), &"sipst".into()), "{first}");
                call.server_hangs_up();
            });
        }
    });
}

#[test]
fn what_is_assumed_is_known_to_the_next_daemon_and_shown_as_such() {
    std::thread::scope(|scope| {
        for (family, attach) in [(Family::V4, "tc"), (Family::V6, "xdp")] {
            scope.spawn(move || {
                let peer = Profile { joins: true, ..Profile::dropping_peer(3 * AGE) };
                let rules = ["action: refresh", "min_se: 2s", "assume_interval: 24s"];
                let mut call = plan(family, attach, &rules, peer).start();
                call.refreshed(1);
                call.sipst.event("refresh_succeeded", SOON).unwrap();
                // What it knows is written within a moment.
                std::thread::sleep(Duration::from_secs(1));
                call.sipst.kill().unwrap();
                call.sipst = Sipst::start(&call.lab.server, &config(attach, &rules)).unwrap();
                let (_, shown, said) = Sipst::command(&call.lab.server, &["sessions"]).unwrap();
                assert!(shown.contains("assumed"), "{shown}{said}\n{}", call.story());
                call.refreshed(3);
                call.server_hangs_up();
            });
        }
    });
}

const HANDS_OFF: [&str; 4] = ["action: refresh", "min_se: 2s", "assume_interval: 8s", "mode: hand-off"];

/// Takes a timer up that is left to it.
fn taking() -> Profile {
    Profile { joins: true, ..Profile::dropping_peer(AGE) }
}

#[test]
fn f01_handed_off_to_a_peer_whose_refreshes_the_server_takes_the_call_lives_by_them() {
    std::thread::scope(|scope| {
        for (family, attach) in [(Family::V4, "tc"), (Family::V6, "xdp")] {
            scope.spawn(move || {
                let age = 3 * AGE;
                let rules = ["action: refresh", "min_se: 2s", "assume_interval: 24s", "mode: hand-off"];
                let peer = Profile { drops_after: Some(age), ..taking() };
                let mut call = plan(family, attach, &rules, peer).start();
                call.refreshed(1);
                let refresh = call.peer.refreshes().remove(0);
                assert_eq!(refresh.session_expires(), Some((24, None)), "{}", call.story());
                assert_eq!(refresh.header("Supported"), None, "{}", call.story());
                std::thread::sleep(Duration::from_secs(1));
                call.sipst.kill().unwrap();
                call.sipst = Sipst::start(&call.lab.server, &config(attach, &rules)).unwrap();
                // Longer than the peer lets a call live that nothing refreshes.
                for _ in 0..8 {
                    call.peer.reinvite();
                    assert_eq!(call.peer.answered("INVITE", SOON).unwrap(), 200, "{}", call.story());
                    std::thread::sleep(age / 7);
                }
                assert_eq!(call.peer.refreshes().len(), 1, "{}", call.story());
                call.server_hangs_up();
            });
        }
    });
}

#[test]
fn f01_handed_off_to_a_peer_whose_refreshes_the_server_turns_down_the_role_is_taken_back() {
    std::thread::scope(|scope| {
        for (family, attach) in [(Family::V4, "xdp"), (Family::V6, "tc")] {
            scope.spawn(move || {
                let mut plan = plan(family, attach, &HANDS_OFF, taking());
                plan.server = Profile { update: Update::ListAndRefuse(405), ..Profile::plain_server() };
                let call = plan.start();
                call.refreshed(1);
                call.peer.request("UPDATE");
                call.sipst.event("refresh_rejected", SOON).unwrap();
                let back = call.sipst.event_where("taken back", SOON, |event| event["reason"] == "taken_back");
                assert_eq!(back.unwrap()["event"], "refresh_due", "{}", call.story());
                call.refreshed(4);
                call.server_hangs_up();
            });
        }
    });
}
