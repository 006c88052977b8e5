//! What a side does against RFC 4028: each breach by its name, told once, waking nobody unless the call is at risk.

use crate::sim::{Call, Reply, Sim, manners, sdp};
use st_core::{
    Action, Breach,
    EventKind::{self, *},
    Rules, Side,
};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAS_90: &str = "Session-Expires: 90;refresher=uas\r\n";

/// All breaches that were told, in order.
fn breaches(sim: &Sim) -> Vec<(Side, &'static str)> {
    sim.events.iter().flat_map(|event| &event.breaches).map(|Breach { by, reason }| (*by, *reason)).collect()
}

/// A call whose INVITE and 200 have these header lines.
fn call(caller: Side, asks: &str, answers: &str) -> (Sim, Call) {
    let mut sim = Sim::new(Action::Alert);
    let mut call = Call::new("a", caller);
    sim.invite(&mut call, &(manners(caller, true) + asks), &sdp(caller));
    sim.answer(&call, 200, &(manners(caller.other(), true) + answers), &sdp(caller.other()));
    sim.ack(&mut call);
    (sim, call)
}

fn alerts(sim: &Sim) -> Vec<EventKind> {
    sim.kinds().into_iter().filter(|kind| kind.is_alert()).collect()
}

const TIMER: &str = "Supported: timer\r\n";
const GOOD: &str = "Require: timer\r\nSession-Expires: 90;refresher=uac\r\n";

#[test]
fn a_call_by_the_letter_has_no_breach() {
    for (asks, answers) in [
        ("Supported: timer\r\nSession-Expires: 90;refresher=uac\r\nMin-SE: 90\r\n", GOOD),
        ("Supported: timer\r\nSession-Expires: 1800\r\n", GOOD),
        ("Supported: timer\r\n", "Session-Expires: 1800;refresher=uas\r\n"),
        ("", "Session-Expires: 1800;refresher=uas\r\n"),
        ("", ""),
    ] {
        for caller in [Side::Server, Side::Peer] {
            let (mut sim, mut call) = call(caller, asks, answers);
            sim.secs(20);
            sim.reinvite(&mut call, caller, asks, answers);
            sim.secs(20);
            sim.hang_up(&mut call);
            assert_eq!(breaches(&sim), [], "{caller:?} {asks} {answers}");
        }
    }
}

#[test]
fn r09_f03_a_refresher_that_lists_no_timer_is_a_breach_that_wakes_nobody() {
    let (sim, _) = call(Side::Server, "", GOOD);
    assert_eq!(breaches(&sim), [(Side::Peer, "refresher_without_timer")]);
    assert_eq!(sim.last(TimerNegotiated).breaches.len(), 1, "with the event that tells what was agreed");
    assert_eq!(alerts(&sim), []);
    let (sim, _) = call(Side::Peer, "", GOOD);
    assert_eq!(breaches(&sim), [(Side::Server, "refresher_without_timer")]);
}

#[test]
fn r09_a_2xx_that_names_another_refresher_than_was_asked_for_is_a_breach() {
    for (asked, answered) in [("uac", "uas"), ("uas", "uac")] {
        let asks = format!("{TIMER}Session-Expires: 90;refresher={asked}\r\n");
        let (sim, _) =
            call(Side::Peer, &asks, &format!("Require: timer\r\nSession-Expires: 90;refresher={answered}\r\n"));
        assert_eq!(breaches(&sim), [(Side::Server, "refresher_overridden")]);
    }
}

#[test]
fn r10_a_2xx_with_refresher_uac_and_without_require_timer_is_a_breach() {
    let (sim, _) = call(Side::Server, TIMER, UAC_90);
    assert_eq!(breaches(&sim), [(Side::Peer, "require_timer_missing")]);
    assert_eq!(alerts(&sim), []);
    let (sim, _) = call(Side::Server, TIMER, UAS_90);
    assert_eq!(breaches(&sim), [], "R10: with uas it is only recommended");
}

#[test]
fn r08_a_2xx_that_raises_the_interval_is_a_breach_and_holds() {
    let (sim, _) =
        call(Side::Peer, "Supported: timer\r\nSession-Expires: 1800\r\n", "Session-Expires: 3600;refresher=uas\r\n");
    assert_eq!(breaches(&sim), [(Side::Server, "interval_raised")]);
    assert_eq!(sim.last(TimerNegotiated).interval_s, Some(3600), "R11");
}

#[test]
fn r06_r08_f05_an_interval_below_the_min_se_is_a_breach_and_accepted() {
    let asks = "Supported: timer\r\nSession-Expires: 1800\r\nMin-SE: 600\r\n";
    let (sim, _) = call(Side::Server, asks, "Session-Expires: 300;refresher=uas\r\n");
    assert_eq!(breaches(&sim), [(Side::Peer, "interval_below_min_se")]);
    assert_eq!(sim.last(TimerNegotiated).interval_s, Some(300));
    let asks = "Supported: timer\r\nSession-Expires: 300\r\nMin-SE: 600\r\n";
    let (sim, _) = call(Side::Peer, asks, UAS_90);
    let expected = [(Side::Peer, "request_below_min_se"), (Side::Server, "interval_below_min_se")];
    assert_eq!(breaches(&sim), expected);
}

#[test]
fn r04_an_interval_below_90_s_is_a_breach_and_a_fault_unless_the_floor_is_lower() {
    let short = "Require: timer\r\nSession-Expires: 30;refresher=uac\r\n";
    let (sim, _) = call(Side::Server, TIMER, short);
    assert_eq!(breaches(&sim), [(Side::Peer, "interval_below_90")]);
    assert_eq!(sim.reasons(NegotiationFault), ["interval_below_floor"]);
    let mut sim = Sim::with(Rules { interval_floor: std::time::Duration::from_secs(4), ..Rules::default() });
    sim.call("a", Side::Server, short);
    assert!(breaches(&sim).contains(&(Side::Peer, "interval_below_90")));
    assert_eq!(alerts(&sim), []);
}

#[test]
fn r07_a_422_that_cannot_be_obeyed_is_a_breach_and_with_the_peers_refresh_a_fault() {
    for (refused, told) in [("", "min_se_missing"), ("Min-SE: 90\r\n", "loop_422"), ("Min-SE: 60\r\n", "loop_422")] {
        for (expires, faults) in [(UAS_90, vec![told]), (GOOD, vec![])] {
            let (mut sim, mut call) = call(Side::Server, TIMER, expires);
            let asks = "Supported: timer\r\nSession-Expires: 90\r\n";
            for _ in 0..2 {
                let asked = sim.request(&mut call, Side::Peer, "UPDATE", asks, "");
                sim.respond(&call, Side::Peer, &asked, "UPDATE", 422, refused);
            }
            sim.hang_up(&mut call);
            assert_eq!(breaches(&sim), [(Side::Server, told)], "once");
            assert_eq!(sim.reasons(NegotiationFault), faults);
        }
    }
    let (mut sim, mut call) = call(Side::Server, TIMER, UAS_90);
    let asked = sim.request(&mut call, Side::Peer, "UPDATE", "Session-Expires: 90\r\n", "");
    sim.respond(&call, Side::Peer, &asked, "UPDATE", 422, "Min-SE: 1800\r\n");
    sim.hang_up(&mut call);
    assert_eq!(breaches(&sim), [(Side::Server, "undue_422")], "R7: only where the request lists timer");
    assert_eq!(alerts(&sim), []);
}

#[test]
fn r36_a_422_to_a_refresh_of_sipsts_that_obeyed_it_is_called_a_loop() {
    for (reply, told) in
        [(Reply::Status(422, "Min-SE: 90\r\n"), "loop_422"), (Reply::Status(422, ""), "min_se_missing")]
    {
        let mut sim = Sim::new(Action::Refresh);
        sim.replies.push_back(reply);
        sim.call("a", Side::Server, GOOD);
        sim.secs(46);
        let failed = sim.last(RefreshFailed);
        assert_eq!(
            (failed.reason.as_deref(), &failed.breaches[..]),
            (Some("refused"), &[Breach { by: Side::Peer, reason: told }][..])
        );
    }
}

#[test]
fn f04_a_request_that_takes_the_role_over_is_a_breach() {
    let (mut sim, mut call) = call(Side::Server, TIMER, GOOD);
    sim.reinvite(&mut call, Side::Peer, &(TIMER.to_string() + UAC_90), GOOD);
    assert_eq!(breaches(&sim), [(Side::Peer, "role_flipped")]);
    assert_eq!(sim.last(TimerNegotiated).refresher, Some(Side::Peer), "R11: it holds all the same");
    // To hand it on is allowed.
    sim.reinvite(&mut call, Side::Peer, &(TIMER.to_string() + UAS_90), UAS_90);
    assert_eq!((breaches(&sim).len(), sim.last(TimerNegotiated).refresher), (1, Some(Side::Server)));
}

#[test]
fn f04_both_sides_refreshing_is_a_breach_of_the_one_who_is_not_the_refresher() {
    let (mut sim, mut call) = call(Side::Server, TIMER, GOOD);
    sim.reinvite(&mut call, Side::Server, &(TIMER.to_string() + UAC_90), GOOD);
    assert_eq!(breaches(&sim), []);
    // With another session description it is no refresh.
    let held = sdp(Side::Peer).replace("o=- 7 7", "o=- 7 8");
    let asked = sim.request(&mut call, Side::Peer, "INVITE", &(manners(Side::Peer, true) + TIMER + UAS_90), &held);
    sim.respond_with(
        &call,
        Side::Peer,
        &asked,
        "INVITE",
        200,
        &(manners(Side::Server, true) + UAS_90),
        &sdp(Side::Server),
    );
    assert_eq!(breaches(&sim), []);
    let asked = sim.request(&mut call, Side::Peer, "UPDATE", &(TIMER.to_string() + UAS_90), "");
    sim.respond(&call, Side::Peer, &asked, "UPDATE", 200, UAS_90);
    assert_eq!(breaches(&sim), [(Side::Peer, "both_refresh")]);
    assert_eq!(alerts(&sim), []);
}

#[test]
fn f04_a_peer_that_refreshes_beside_sipst_is_a_breach_too() {
    let mut sim = Sim::new(Action::Refresh);
    sim.expires = GOOD;
    let mut call = sim.call("a", Side::Server, GOOD);
    sim.secs(46);
    let asked = sim.request(&mut call, Side::Peer, "UPDATE", &(TIMER.to_string() + UAS_90), "");
    sim.respond(&call, Side::Peer, &asked, "UPDATE", 200, UAS_90);
    assert_eq!(breaches(&sim), [(Side::Peer, "refresher_without_timer"), (Side::Peer, "both_refresh")]);
}

#[test]
fn breaches_are_in_the_json_of_the_event_that_tells_them_and_nowhere_else() {
    let (sim, _) = call(Side::Server, "", UAC_90);
    let json = serde_json::to_value(sim.last(TimerNegotiated)).unwrap();
    let expected = serde_json::json!([
        { "by": "peer", "reason": "refresher_without_timer" },
        { "by": "peer", "reason": "require_timer_missing" },
    ]);
    assert_eq!(json["breaches"], expected);
    assert!(serde_json::to_value(sim.last(SessionStarted)).unwrap().get("breaches").is_none());
}

/// One side's UPDATE that keeps the peer the refresher.
fn keeps_it_the_peers(sim: &mut Sim, call: &mut Call, side: Side) {
    let role = if side == Side::Peer { "uac" } else { "uas" };
    let expires = format!("Session-Expires: 90;refresher={role}\r\n");
    let asked = sim.request(call, side, "UPDATE", &format!("{TIMER}{expires}"), "");
    let require = if side == Side::Peer { "Require: timer\r\n" } else { "" };
    sim.respond(call, side, &asked, "UPDATE", 200, &format!("{require}{TIMER}{expires}"));
}

#[test]
fn f04_a_server_that_refreshes_beside_the_peer_is_a_breach_and_sipst_in_its_name_is_none() {
    // The peer refreshes, the server does too.
    let (mut sim, mut call) = call(Side::Server, TIMER, UAS_90);
    keeps_it_the_peers(&mut sim, &mut call, Side::Peer);
    assert_eq!(breaches(&sim), []);
    keeps_it_the_peers(&mut sim, &mut call, Side::Server);
    assert_eq!(breaches(&sim), [(Side::Server, "both_refresh")]);
    // sipst does, because the operator wants it, and the peer remains the refresher.
    let mut sim = Sim::with(Rules { action: Action::Refresh, take_over: true, ..Rules::default() });
    sim.expires = UAS_90;
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &(manners(Side::Server, true) + TIMER), &sdp(Side::Server));
    sim.answer(&call, 200, &(manners(Side::Peer, true) + UAS_90), &sdp(Side::Peer));
    sim.ack(&mut call);
    sim.secs(10);
    assert_eq!((sim.ours().len(), sim.last(SessionRefreshed).refresher), (1, Some(Side::Peer)));
    keeps_it_the_peers(&mut sim, &mut call, Side::Peer);
    assert!(!breaches(&sim).iter().any(|(_, reason)| *reason == "both_refresh"), "{:?}", breaches(&sim));
}

#[test]
fn f04_who_refreshed_before_the_role_moved_does_not_count() {
    let (mut sim, mut call) = call(Side::Server, TIMER, UAS_90);
    keeps_it_the_peers(&mut sim, &mut call, Side::Peer);
    // The server takes the role, by what it asks and gets.
    for _ in 0..2 {
        let asked = sim.request(&mut call, Side::Server, "UPDATE", &format!("{TIMER}{UAC_90}"), "");
        sim.respond(&call, Side::Server, &asked, "UPDATE", 200, &format!("{TIMER}{GOOD}"));
    }
    assert!(!breaches(&sim).iter().any(|(_, reason)| *reason == "both_refresh"), "{:?}", breaches(&sim));
}
