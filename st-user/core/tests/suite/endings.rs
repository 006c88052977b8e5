//! How a session ends, and when nothing may keep it alive any more.

use std::time::Duration;

use crate::sim::{self, Call, Reply, Sim, manners, sdp};
use st_core::{
    Action, By, Command,
    EventKind::*,
    Policy, Refusal, Rules, Side,
    engine::{Limits, Mode},
};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAS_90: &str = "Session-Expires: 90;refresher=uas\r\n";

#[test]
fn r41_the_servers_bye_ends_the_session_when_it_leaves_and_its_copies_are_no_event() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, UAC_90);
    sim.secs(46);
    let asked = sim.request(&mut call, Side::Server, "BYE", "Reason: SIP;cause=408;text=\"Session timeout\"\r\n", "");
    let ended = sim.last(SessionEnded).clone();
    assert_eq!(ended.by, Some(By::Server));
    assert_eq!(ended.reason.as_deref(), Some("bye: SIP;cause=408;text=\"Session timeout\""));
    let count = sim.events.len();
    for _ in 0..3 {
        let text = call.request(Side::Server, "BYE", asked.0, &asked.1, true, "", "");
        sim.wire(Side::Server, text.into_bytes());
        sim.secs(4);
    }
    sim.respond(&call, Side::Server, &asked, "BYE", 200, "");
    sim.answer(&call, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    sim.secs(300);
    assert_eq!(sim.events.len(), count);
    assert_eq!(sim.engine.stats().tombstones, 0);
    assert_eq!(sim.kernel.disarmed.len(), 1);
    sim.assert_numbers();
}

#[test]
fn the_tombstone_stays_for_as_long_as_copies_can_come() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, UAC_90);
    sim.secs(46);
    sim.hang_up(&mut call);
    sim.secs(31);
    assert_eq!((sim.engine.stats().tombstones, sim.kernel.disarmed.len()), (1, 0));
    sim.secs(2);
    assert_eq!((sim.engine.stats().tombstones, sim.kernel.disarmed.len()), (0, 1));
    assert_eq!(sim.kernel.holds(), (0, 0));
}

#[test]
fn the_peers_bye_counts_when_the_server_takes_it() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, UAC_90);
    let asked = sim.request(&mut call, Side::Peer, "BYE", "", "");
    assert_eq!(sim.count(SessionEnded), 0);
    sim.respond(&call, Side::Peer, &asked, "BYE", 200, "");
    let ended = sim.last(SessionEnded);
    assert_eq!((ended.by, ended.reason.as_deref()), (Some(By::Peer), Some("bye")));
}

#[test]
fn what_a_bye_says_is_told_whoever_sends_it() {
    for side in [Side::Server, Side::Peer] {
        let mut sim = Sim::new(Action::Alert);
        let mut call = sim.call("a", Side::Server, UAC_90);
        let asked = sim.request(&mut call, side, "BYE", "Reason: SIP;cause=408;text=\"Session timeout\"\r\n", "");
        sim.respond(&call, side, &asked, "BYE", 200, "");
        let ended = sim.last(SessionEnded);
        assert_eq!(ended.reason.as_deref(), Some("bye: SIP;cause=408;text=\"Session timeout\""));
        assert_eq!(ended.by, Some(By::from(side)));
    }
}

#[test]
fn a_bye_that_the_server_refuses_ends_nothing() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, UAC_90);
    let asked = sim.request(&mut call, Side::Peer, "BYE", "", "");
    sim.respond(&call, Side::Peer, &asked, "BYE", 403, "");
    sim.secs(46);
    assert_eq!((sim.count(SessionEnded), sim.ours().len()), (0, 1));
}

#[test]
fn a_bye_that_the_server_never_answers_ends_the_session_after_a_transaction() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, UAC_90);
    sim.secs(30);
    let asked = sim.request(&mut call, Side::Peer, "BYE", "", "");
    sim.secs(4);
    let copy = call.request(Side::Peer, "BYE", asked.0, &asked.1, true, "", "");
    sim.wire(Side::Peer, copy.into_bytes());
    sim.secs(27);
    assert_eq!((sim.count(SessionEnded), sim.arms.len()), (0, 0), "and nothing is sent meanwhile");
    sim.secs(2);
    let ended = sim.last(SessionEnded);
    assert_eq!((ended.by, ended.reason.as_deref()), (Some(By::Peer), Some("bye_unanswered")));
}

#[test]
fn a_bye_that_the_server_never_answers_is_told_from_the_requests_beside_it() {
    let mut sim = Sim::new(Action::Alert);
    let mut call = sim.call("a", Side::Server, UAC_90);
    sim.request(&mut call, Side::Peer, "UPDATE", "", "");
    let asked = sim.request(&mut call, Side::Peer, "BYE", "", "");
    sim.secs(4);
    let copy = call.request(Side::Peer, "BYE", asked.0, &asked.1, true, "", "");
    sim.wire(Side::Peer, copy.into_bytes());
    sim.secs(29);
    assert_eq!(sim.last(SessionEnded).reason.as_deref(), Some("bye_unanswered"));
}

#[test]
fn r44_a_reinvite_of_ours_that_meets_the_servers_bye_is_still_acked() {
    for (reply, acks) in [(Reply::Ok, 1), (Reply::Status(487, ""), 1)] {
        let mut sim = Sim::new(Action::Refresh);
        sim.usual = Reply::Rings;
        let mut call = Call::new("a", Side::Server);
        sim.establish(&mut call, UAC_90, false);
        sim.secs(46);
        sim.hang_up(&mut call);
        let invite = sim.ours()[0].clone();
        sim.reply_again(&invite, &reply);
        let ours = sim.seen.iter().filter(|seen| seen.ours).count();
        assert_eq!(ours, 1 + acks, "the re-INVITE and its ACK");
        assert_eq!(sim.count(RefreshSucceeded) + sim.count(RefreshFailed), 0);
        sim.secs(600);
        assert_eq!(sim.kernel.holds(), (0, 0));
        sim.assert_numbers();
    }
}

#[test]
fn a_call_whose_server_is_gone_is_never_refreshed_again() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, UAC_90);
    sim.secs(46);
    sim.refusal = Some(Refusal::ServerGone);
    sim.secs(45);
    assert_eq!(sim.reasons(RefreshFailed), ["server_gone"]);
    sim.refusal = None;
    sim.secs(100);
    assert_eq!(sim.ours().len(), 1);
    assert_eq!((sim.count(SessionExpiring), sim.count(SessionExpired)), (1, 1));
    // Whatever comes later: alerts only.
    sim.reinvite(&mut call, Side::Peer, "", UAS_90);
    sim.secs(60);
    assert_eq!((sim.ours().len(), sim.count(RefreshFailed), sim.count(RefreshOverdue)), (1, 1, 1));
    assert_eq!(sim.last(RefreshOverdue).reason.as_deref(), Some("server_gone"));
}

#[test]
fn f26_a_server_that_answers_481_has_forgotten_the_call() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, UAC_90);
    let asked = sim.request(&mut call, Side::Peer, "INFO", "", "");
    sim.respond(&call, Side::Peer, &asked, "INFO", 481, "");
    sim.secs(46);
    assert_eq!((sim.arms.len(), sim.last(RefreshOverdue).reason.as_deref()), (0, Some("server_lost_dialog")));
}

#[test]
fn a_server_that_forgets_the_call_between_two_attempts_is_not_spoken_for_any_more() {
    let mut sim = Sim::new(Action::Refresh);
    sim.replies = [Reply::Status(503, "Retry-After: 10\r\n")].into();
    let mut call = sim.call("a", Side::Server, UAC_90);
    sim.secs(46);
    assert_eq!(sim.ours().len(), 1);
    let asked = sim.request(&mut call, Side::Peer, "INFO", "", "");
    sim.respond(&call, Side::Peer, &asked, "INFO", 481, "");
    sim.secs(20);
    assert_eq!((sim.ours().len(), sim.reasons(RefreshFailed)), (1, vec!["server_lost_dialog".to_string()]));
}

#[test]
fn other_refusals_of_the_driver_are_told_with_their_reason() {
    for refusal in [
        Refusal::ServerHangs,
        Refusal::Translated,
        Refusal::Unattached,
        Refusal::Identifiers,
        Refusal::MapFull,
        Refusal::TooLong,
        Refusal::Send,
    ] {
        let mut sim = Sim::new(Action::Refresh);
        sim.refusal = Some(refusal);
        sim.call("a", Side::Server, UAC_90);
        sim.secs(89);
        assert_eq!(sim.reasons(RefreshFailed), [refusal.reason()]);
        let mut sim = Sim::new(Action::Refresh);
        sim.refused = Some(refusal);
        sim.call("a", Side::Server, UAC_90);
        sim.secs(89);
        assert_eq!((sim.reasons(RefreshFailed), sim.count(RefreshSent)), (vec![refusal.reason().to_string()], 0));
    }
}

#[test]
fn a_host_that_cannot_send_is_asked_again_four_times_at_most_and_within_the_interval() {
    for (expires, millis) in [
        (UAC_90, [45_000, 47_000, 51_000, 55_875, 60_141]),
        ("Session-Expires: 1800;refresher=uac\r\n", [900_000, 902_000, 906_000, 914_000, 930_000]),
    ] {
        let mut sim = Sim::new(Action::Refresh);
        sim.refusal = Some(Refusal::Send);
        sim.call("a", Side::Server, expires);
        let start = sim.now;
        for (asked, at) in millis.into_iter().enumerate() {
            sim.run((start + Duration::from_millis(at)).since(sim.now) - Duration::from_millis(1));
            assert_eq!(sim.arms.len(), asked, "{expires}{at}");
            assert_eq!(sim.count(RefreshFailed), 0);
            sim.run(Duration::from_millis(1));
            assert_eq!(sim.arms.len(), asked + 1, "{expires}{at}");
        }
        assert_eq!(sim.reasons(RefreshFailed), ["send_failed"]);
    }
}

#[test]
fn a_host_that_cannot_send_for_a_moment_is_asked_again() {
    for refusal in [Refusal::ServerHangs, Refusal::Unattached, Refusal::MapFull, Refusal::Send] {
        let mut sim = Sim::new(Action::Refresh);
        sim.refusal = Some(refusal);
        sim.call("a", Side::Server, UAC_90);
        sim.secs(46);
        assert_eq!((sim.arms.len(), sim.count(RefreshSent)), (1, 0));
        sim.refusal = None;
        sim.secs(10);
        assert_eq!((sim.count(RefreshSucceeded), sim.count(RefreshFailed)), (1, 0));
    }
}

#[test]
fn a_driver_that_does_not_answer_is_asked_again() {
    let mut sim = Sim::new(Action::Refresh);
    sim.call("a", Side::Server, UAC_90);
    sim.deaf = true;
    sim.secs(46);
    assert_eq!(sim.arms.len(), 1);
    sim.deaf = false;
    sim.secs(4);
    assert_eq!((sim.arms.len(), sim.count(RefreshSucceeded)), (2, 1));
}

#[test]
fn past_max_session_nothing_is_refreshed() {
    let policy =
        Policy { default: sim::rules(Action::Refresh), max_session: Duration::from_secs(180), ..Policy::default() };
    let mut sim = Sim::custom(policy, Mode::Live, Limits::default());
    sim.call("a", Side::Server, UAC_90);
    sim.secs(600);
    assert_eq!(sim.ours().len(), 4, "at 45, 90, 135 and 180 s");
    assert_eq!(sim.reasons(RefreshFailed), ["max_session"]);
    assert_eq!(sim.count(SessionExpired), 1);
}

#[test]
fn a_call_that_this_host_passes_on_is_only_observed() {
    // The same INVITE comes in and goes out: Call-ID and From tag are seen both ways.
    let mut sim = Sim::new(Action::Refresh);
    let mut inner = Call::new("a", Side::Peer);
    sim.invite(&mut inner, &manners(Side::Peer, true), &sdp(Side::Peer));
    let mut outer = Call::new("a", Side::Server);
    (outer.local, outer.remote) = (inner.remote.clone(), inner.local.clone());
    sim.invite(&mut outer, &manners(Side::Server, true), &sdp(Side::Server));
    sim.answer(&outer, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    sim.answer(&inner, 200, &(manners(Side::Server, true) + UAC_90), &sdp(Side::Server));
    sim.ack(&mut inner);
    sim.ack(&mut outer);
    sim.secs(200);
    assert_eq!(sim.reasons(SessionStarted), ["relayed", "relayed"]);
    assert_eq!(sim.events.iter().filter(|event| event.kind.is_alert()).count(), 0);
    assert_eq!(sim.arms.len(), 0);
}

#[test]
fn r40_a_second_via_gives_a_relay_away() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = Call::new("a", Side::Server);
    let more = "Via: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1\r\n";
    sim.invite(&mut call, &(manners(Side::Server, true) + more), &sdp(Side::Server));
    sim.answer(&call, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    sim.ack(&mut call);
    sim.secs(200);
    assert_eq!((sim.reasons(RefreshDue), sim.arms.len()), (vec!["relayed".to_string()], 0));
}

#[test]
fn a_dialog_that_is_silent_for_two_days_is_forgotten() {
    let mut sim = Sim::new(Action::Alert);
    sim.call("a", Side::Server, "");
    sim.secs(47 * 3_600);
    assert_eq!(sim.engine.stats().sessions, 1);
    sim.secs(2 * 3_600);
    let stats = sim.engine.stats();
    assert_eq!((stats.sessions, stats.tombstones), (0, 0));
    assert_eq!(sim.reasons(SessionEnded), ["silent"]);
}

#[test]
fn what_no_dialog_knows_is_counted_and_changes_nothing() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = Call::new("a", Side::Server);
    for side in [Side::Server, Side::Peer] {
        let asked = sim.request(&mut call, side, "BYE", "", "");
        sim.respond(&call, side, &asked, "BYE", 200, "");
    }
    sim.answer(&Call { invite: (1, "z9hG4bKx".into()), ..call.clone() }, 200, UAC_90, "");
    assert_eq!(sim.events.len(), 0);
    assert_eq!(sim.engine.stats().unknown_dialog, 3);
    sim.command(Command::Loss { packets: 0 });
    assert_eq!(sim.events.len(), 0);
}

#[test]
fn a_stranger_who_knows_the_tags_cannot_end_a_call_without_the_server() {
    let mut sim = Sim::with(Rules { action: Action::Alert, ..Rules::default() });
    let mut call = sim.call("a", Side::Server, UAC_90);
    let asked = sim.request(&mut call, Side::Peer, "BYE", "", "");
    sim.respond(&call, Side::Peer, &asked, "BYE", 481, "");
    assert_eq!(sim.count(SessionEnded), 1, "481: the server has no such call");
}

#[test]
fn a_stranger_cannot_make_a_call_look_relayed() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
    // The same Call-ID and From tag, coming in.
    let mut spoofed = Call { caller: Side::Peer, ..call.clone() };
    (spoofed.local, spoofed.remote) = ("x".into(), call.local.clone());
    sim.invite(&mut spoofed, &manners(Side::Peer, true), &sdp(Side::Peer));
    sim.answer(&call, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    sim.ack(&mut call);
    sim.secs(46);
    assert_eq!(sim.ours().len(), 1);
}
