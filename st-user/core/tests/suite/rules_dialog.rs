//! Where a session timer comes from and where it does not: early dialogs, races, legs, and what other methods say.

use crate::sim::{Call, Reply, Sim, manners, sdp};
use st_core::{Action, By, EventKind::*, Side, message::MethodName};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAS_90: &str = "Session-Expires: 90;refresher=uas\r\n";

#[test]
fn r01_session_expires_counts_only_in_a_2xx_to_invite_and_update() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &(manners(Side::Server, true) + UAC_90), &sdp(Side::Server));
    sim.answer(&call, 183, UAC_90, &sdp(Side::Peer));
    sim.answer(&call, 200, &manners(Side::Peer, true), &sdp(Side::Peer));
    sim.ack(&mut call);
    for method in ["INFO", "OPTIONS", "MESSAGE", "NOTIFY", "REFER"] {
        for side in [Side::Server, Side::Peer] {
            let asked = sim.request(&mut call, side, method, UAC_90, "");
            sim.respond(&call, side, &asked, method, 200, "Session-Expires: 90;refresher=uac\r\nMin-SE: 3600\r\n");
        }
    }
    let asked = sim.request(&mut call, Side::Server, "UPDATE", UAC_90, "");
    sim.respond(&call, Side::Server, &asked, "UPDATE", 500, UAC_90);
    sim.secs(200);
    assert_eq!((sim.kinds(), sim.arms.len()), (vec![SessionStarted], 0));
}

#[test]
fn r17_the_greatest_min_se_of_the_peers_goes_along_in_our_refreshes() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, "Session-Expires: 300;refresher=uac\r\n");
    for least in ["240", "200"] {
        let asks = format!("Supported: timer\r\nSession-Expires: 300;refresher=uas\r\nMin-SE: {least}\r\n");
        let asked = sim.request(&mut call, Side::Peer, "UPDATE", &asks, "");
        sim.respond(&call, Side::Peer, &asked, "UPDATE", 200, "Session-Expires: 300;refresher=uas\r\n");
    }
    sim.expires = "Session-Expires: 200;refresher=uac\r\n";
    sim.secs(181);
    assert!(sim.ours()[0].text.contains("Session-Expires: 300;refresher=uac\r\nMin-SE: 240\r\n"));
    sim.secs(110);
    assert!(sim.ours()[1].text.contains("Session-Expires: 240;refresher=uac\r\nMin-SE: 240\r\n"), "R18: not below it");
}

#[test]
fn r26_an_early_dialog_is_never_refreshed() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
    sim.answer(&call, 183, "Require: 100rel\r\nRSeq: 1\r\n", &sdp(Side::Peer));
    let asked = sim.request(&mut call, Side::Server, "PRACK", "RAck: 1 1 INVITE\r\n", "");
    sim.respond(&call, Side::Server, &asked, "PRACK", 200, "");
    let asked = sim.request(&mut call, Side::Peer, "UPDATE", &("Supported: timer\r\n".to_string() + UAC_90), "");
    sim.respond(&call, Side::Peer, &asked, "UPDATE", 200, &(manners(Side::Server, true) + UAS_90));
    sim.secs(200);
    assert_eq!((sim.events.len(), sim.arms.len()), (0, 0));
    sim.answer(&call, 200, &(manners(Side::Peer, true) + UAC_90), "");
    sim.ack(&mut call);
    sim.secs(46);
    assert_eq!((sim.count(SessionStarted), sim.ours().len()), (1, 1));
    assert!(sim.ours()[0].number > 2, "above INVITE and PRACK");
    sim.assert_numbers();
}

#[test]
fn r29_nothing_is_answered_in_the_servers_name() {
    let mut sim = Sim::new(Action::Refresh);
    sim.usual = Reply::Silence;
    let mut call = sim.call("a", Side::Server, UAC_90);
    sim.secs(46);
    let injected = sim.injected.len();
    for method in ["UPDATE", "INVITE", "INVITE", "BYE"] {
        sim.request(&mut call, Side::Peer, method, UAC_90, &sdp(Side::Peer));
    }
    assert_eq!(sim.injected.len(), injected, "491 and 500 are the server's own to say");
}

#[test]
fn r37_a_reinvite_is_sent_again_at_doubling_times_until_somebody_answers() {
    let mut sim = Sim::new(Action::Refresh);
    sim.usual = Reply::Silence;
    let mut call = Call::new("a", Side::Server);
    sim.establish(&mut call, "Session-Expires: 1800;refresher=uac\r\n", false);
    sim.secs(900 + 32);
    let copies: Vec<_> = sim.seen.iter().filter(|seen| seen.ours && seen.branch == sim.ours()[0].branch).collect();
    let at: Vec<_> = copies.iter().map(|seen| seen.at.since(copies[0].at).as_millis()).collect();
    assert_eq!(at, [0, 500, 1_500, 3_500, 7_500, 15_500, 31_500]);
    assert!(copies.iter().all(|seen| seen.method == MethodName::Invite && seen.number == copies[0].number));
}

#[test]
fn a_2xx_that_crosses_the_servers_cancel_is_a_session_until_its_bye() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
    sim.answer(&call, 180, "", "");
    let cancel = call.request(Side::Server, "CANCEL", call.invite.0, &call.invite.1, false, "", "");
    sim.wire(Side::Server, cancel.into_bytes());
    sim.answer(&call, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    sim.ack(&mut call);
    sim.hang_up(&mut call);
    sim.secs(200);
    assert_eq!(sim.kinds(), [SessionStarted, TimerNegotiated, SessionEnded]);
    assert_eq!(sim.arms.len(), 0);
    sim.assert_numbers();
}

#[test]
fn a_copy_of_a_2xx_begins_no_session_that_the_server_has_left_before_it_was_seen() {
    for copies_before in [0, 1] {
        let mut sim = Sim::new(Action::Refresh);
        let mut call = Call::new("a", Side::Server);
        sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
        let copy = |sim: &mut Sim| sim.answer(&call, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
        (0..copies_before).for_each(|_| copy(&mut sim));
        let bye = call.request(Side::Server, "BYE", call.invite.0 + 1, "z9hG4bKbye", true, "", "");
        sim.wire(Side::Server, bye.into_bytes());
        copy(&mut sim);
        sim.ack(&mut call);
        sim.secs(200);
        assert_eq!(sim.count(SessionStarted), copies_before, "{copies_before}");
        assert_eq!(sim.arms.len(), 0, "{copies_before}");
    }
}

#[test]
fn a_reinvite_that_its_sender_cancels_delays_the_refresh_and_changes_nothing() {
    for side in [Side::Server, Side::Peer] {
        let mut sim = Sim::new(Action::Refresh);
        let mut call = sim.call("a", Side::Server, UAC_90);
        sim.secs(44);
        let asked = sim.request(&mut call, side, "INVITE", &manners(side, true), &sdp(side));
        sim.respond(&call, side, &asked, "INVITE", 180, "");
        for (method, status) in [("CANCEL", 200), ("INVITE", 487)] {
            if method == "CANCEL" {
                let text = call.request(side, "CANCEL", asked.0, &asked.1, true, "", "");
                sim.wire(side, text.into_bytes());
            }
            sim.respond(&call, side, &asked, method, status, "");
        }
        assert_eq!(sim.arms.len(), 0, "{side:?}");
        let text = call.request(side, "ACK", asked.0, &asked.1, true, "", "");
        sim.wire(side, text.into_bytes());
        sim.secs(4);
        assert_eq!((sim.ours().len(), sim.count(RefreshSucceeded)), (1, 1), "{side:?}");
        sim.hang_up(&mut call);
        sim.assert_numbers();
    }
}

#[test]
fn a_call_that_comes_back_to_this_host_is_only_observed() {
    // A spiral: the server's INVITE comes in again by a proxy, and the same server answers it.
    let mut sim = Sim::new(Action::Refresh);
    let mut out = Call::new("a", Side::Server);
    sim.invite(&mut out, &manners(Side::Server, true), &sdp(Side::Server));
    let mut back = Call { caller: Side::Peer, ..Call::new("a", Side::Peer) };
    (back.local, back.remote, back.peer_number) = (out.remote.clone(), out.local.clone(), out.invite.0);
    sim.invite(&mut back, &manners(Side::Peer, true), &sdp(Side::Peer));
    sim.answer(&back, 200, &(manners(Side::Server, true) + UAC_90), &sdp(Side::Server));
    sim.answer(&out, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    sim.ack(&mut out);
    sim.ack(&mut back);
    sim.secs(200);
    assert_eq!((sim.count(SessionStarted), sim.arms.len()), (2, 0));
    assert_eq!(sim.events.iter().filter(|event| event.kind.is_alert()).count(), 0);
}

#[test]
fn both_legs_of_a_call_through_this_host_are_refreshed_each_by_itself() {
    for same_call_id in [false, true] {
        let mut sim = Sim::new(Action::Refresh);
        let mut inner = sim.call("in", Side::Peer, UAS_90);
        let mut outer = Call { number: 5, ..Call::new("out", Side::Server) };
        if same_call_id {
            outer.call_id.clone_from(&inner.call_id);
        }
        sim.establish(&mut outer, UAC_90, true);
        sim.secs(52);
        let mut refreshed: Vec<_> = sim
            .events
            .iter()
            .filter(|event| event.kind == RefreshSucceeded)
            .map(|event| event.local_tag().map(|tag| tag.into_owned()))
            .collect();
        refreshed.sort();
        assert_eq!(refreshed, [Some("in-local".to_string()), Some("out-local".to_string())], "{same_call_id}");
        sim.hang_up(&mut inner);
        sim.hang_up(&mut outer);
        assert_eq!(sim.count(SessionEnded), 2);
    }
}

#[test]
fn f06_a_2xx_of_the_servers_without_session_expires_starts_no_timer() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = Call::new("a", Side::Peer);
    let asks = "Supported: timer\r\nSession-Expires: 90\r\n";
    sim.invite(&mut call, &(manners(Side::Peer, true) + asks), &sdp(Side::Peer));
    sim.answer(&call, 200, &manners(Side::Server, true), &sdp(Side::Server));
    sim.ack(&mut call);
    sim.secs(200);
    assert_eq!((sim.kinds(), sim.arms.len()), (vec![SessionStarted], 0));
}

#[test]
fn f12_a_reinvite_of_the_servers_during_our_update_is_left_alone_and_nothing_is_sent_beside_it() {
    let mut sim = Sim::new(Action::Refresh);
    sim.replies.push_back(Reply::Silence);
    let mut call = sim.call("a", Side::Server, "Session-Expires: 300;refresher=uac\r\n");
    sim.secs(150);
    assert_eq!(sim.methods(), [MethodName::Update]);
    let update = sim.ours()[0].clone();
    let asked = sim.request(&mut call, Side::Server, "INVITE", &manners(Side::Server, true), &sdp(Side::Server));
    sim.respond(&call, Side::Server, &asked, "INVITE", 180, "");
    sim.secs(60);
    assert_eq!(sim.methods(), [MethodName::Update], "R27: no re-INVITE of ours beside the server's");
    sim.reply_again(&update, &Reply::Status(491, ""));
    let answer = manners(Side::Peer, true) + "Session-Expires: 300;refresher=uac\r\n";
    sim.respond_with(&call, Side::Server, &asked, "INVITE", 200, &answer, &sdp(Side::Peer));
    let text = call.request(Side::Server, "ACK", asked.0, "z9hG4bKack", true, "", "");
    sim.wire(Side::Server, text.into_bytes());
    assert_eq!(sim.last(SessionRefreshed).by, Some(By::Server));
    sim.secs(140);
    assert_eq!(sim.ours().len(), 1, "the server's own has refreshed the session");
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn f18_a_hold_starts_the_interval_anew() {
    for side in [Side::Server, Side::Peer] {
        let mut sim = Sim::new(Action::Refresh);
        let mut call = sim.call("a", Side::Server, UAC_90);
        sim.secs(40);
        let held = sdp(side).replace("o=- 7 7", "o=- 7 8") + "a=sendonly\r\n";
        let asked = sim.request(&mut call, side, "INVITE", &manners(side, true), &held);
        let expires = if side == Side::Server { UAC_90 } else { UAS_90 };
        sim.respond_with(
            &call,
            side,
            &asked,
            "INVITE",
            200,
            &(manners(side.other(), true) + expires),
            &sdp(side.other()),
        );
        let text = call.request(side, "ACK", asked.0, "z9hG4bKack", true, "", "");
        sim.wire(side, text.into_bytes());
        sim.secs(44);
        assert_eq!((sim.ours().len(), sim.last(SessionRefreshed).by), (0, Some(By::from(side))));
        sim.secs(8);
        assert_eq!(sim.ours().len(), 1);
    }
}

#[test]
fn f19_a_timer_that_is_turned_on_in_mid_call_is_followed_by_the_trunks_rules() {
    for (action, refreshes, alerts) in [(Action::Observe, 0, 0), (Action::Alert, 0, 1), (Action::Refresh, 1, 0)] {
        let mut sim = Sim::new(action);
        let mut call = sim.call("a", Side::Server, "");
        sim.secs(100);
        sim.reinvite(&mut call, Side::Peer, UAS_90, UAS_90);
        assert_eq!(sim.last(TimerNegotiated).refresher, Some(Side::Server));
        assert_eq!(sim.count(SessionRefreshed), 0, "there was no interval before");
        sim.secs(52);
        assert_eq!((sim.ours().len(), sim.count(RefreshOverdue)), (refreshes, alerts), "{action:?}");
    }
}
