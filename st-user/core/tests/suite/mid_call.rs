//! sipst was started in the middle of a call: what it cannot know it does not pretend to know.

use crate::sim::{Call, Sim, manners, sdp};
use st_core::{Action, By, EventKind::*, Side, message::MethodName};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAS_90: &str = "Session-Expires: 90;refresher=uas\r\n";

/// A call of which nothing was seen, and in which the server has used its first four numbers.
fn unseen(caller: Side) -> (Sim, Call) {
    (Sim::new(Action::Refresh), Call { number: 5, ..Call::new("a", caller) })
}

#[test]
fn a_reinvite_of_the_servers_tells_all_that_a_refresh_needs() {
    for caller in [Side::Server, Side::Peer] {
        let (mut sim, mut call) = unseen(caller);
        let routes = "Route: <sip:p2.example;lr>, <sip:198.51.100.20;lr>\r\n";
        let asks = manners(Side::Server, true) + routes;
        let asked = sim.request(&mut call, Side::Server, "INVITE", &asks, &sdp(Side::Server));
        let answer = manners(Side::Peer, true) + UAC_90;
        sim.respond_with(&call, Side::Server, &asked, "INVITE", 200, &answer, &sdp(Side::Peer));
        let ack = call.request(Side::Server, "ACK", asked.0, "z9hG4bKack", true, routes, "");
        sim.wire(Side::Server, ack.into_bytes());
        assert_eq!(sim.kinds(), [SessionStarted, TimerNegotiated]);
        let started = sim.last(SessionStarted);
        assert_eq!((started.reason.as_deref(), started.by), (Some("mid_call"), Some(By::Server)));
        assert_eq!(
            (started.local_tag().as_deref(), started.remote_tag().as_deref()),
            (Some("a-local"), Some("a-remote"))
        );
        sim.secs(46);
        let sent = &sim.ours()[0];
        assert_eq!((sent.number, sent.method), (6, MethodName::Update));
        assert!(sent.text.starts_with("UPDATE sip:peer@198.51.100.20:5060 SIP/2.0\r\n"));
        assert!(sent.text.contains("Route: <sip:p2.example;lr>\r\nRoute: <sip:198.51.100.20;lr>\r\n"), "{}", sent.text);
        sim.secs(90);
        assert_eq!((sim.count(RefreshSucceeded), sim.count(SessionExpiring)), (3, 0));
        sim.hang_up(&mut call);
        assert_eq!(sim.last(SessionEnded).by, Some(By::Server));
        sim.assert_numbers();
    }
}

#[test]
fn a_call_whose_2xx_was_lost_is_followed_from_its_next_refresh_on() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = Call::new("a", Side::Peer);
    sim.invite(&mut call, &manners(Side::Peer, true), &sdp(Side::Peer));
    sim.answer(&call, 180, "", "");
    sim.ack(&mut call);
    assert_eq!(sim.kinds(), []);
    let asked = sim.request(&mut call, Side::Peer, "UPDATE", &(manners(Side::Peer, true) + UAC_90), "");
    sim.respond(&call, Side::Peer, &asked, "UPDATE", 200, UAC_90);
    assert_eq!(sim.reasons(SessionStarted), ["mid_call"]);
    assert_eq!(sim.last(TimerNegotiated).refresher, Some(Side::Peer));
}

#[test]
fn a_reinvite_of_the_peers_is_not_enough_until_the_server_sends_something_itself() {
    let (mut sim, mut call) = unseen(Side::Server);
    sim.reinvite(&mut call, Side::Peer, "Record-Route: <sip:10.0.0.9;lr>\r\n", UAS_90);
    assert_eq!((sim.reasons(SessionStarted), sim.last(SessionStarted).by), (vec!["mid_call".into()], Some(By::Peer)));
    sim.secs(85);
    assert_eq!((sim.arms.len(), sim.injected.len()), (0, 0), "neither numbers nor route are known");
    let overdue = sim.last(RefreshOverdue);
    assert_eq!((overdue.by, overdue.reason.as_deref()), (Some(By::Server), Some("mid_call")));
    sim.reinvite(&mut call, Side::Peer, "", UAS_90);
    let asked = sim.request(&mut call, Side::Server, "INFO", "Route: <sip:p2.example;lr>\r\n", "");
    sim.respond(&call, Side::Server, &asked, "INFO", 200, "");
    sim.secs(52);
    assert_eq!((sim.ours().len(), sim.ours()[0].number), (1, 6));
    assert!(sim.ours()[0].text.contains("Route: <sip:p2.example;lr>\r\n"));
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn an_ack_tells_neither_numbers_nor_route() {
    let (mut sim, mut call) = unseen(Side::Server);
    sim.reinvite(&mut call, Side::Peer, "", UAS_90);
    call.invite = (2, "z9hG4bKold".into());
    sim.ack(&mut call);
    sim.secs(85);
    assert_eq!((sim.arms.len(), sim.reasons(RefreshOverdue)), (0, vec!["mid_call".to_string()]));
}

#[test]
fn a_peer_that_refreshes_by_update_is_watched() {
    let (mut sim, mut call) = unseen(Side::Server);
    for _ in 0..3 {
        let asked = sim.request(&mut call, Side::Peer, "UPDATE", UAC_90, "");
        sim.respond(&call, Side::Peer, &asked, "UPDATE", 200, UAC_90);
        sim.secs(40);
    }
    assert_eq!(sim.kinds(), [SessionStarted, TimerNegotiated, SessionRefreshed, SessionRefreshed]);
    sim.secs(20);
    assert_eq!(sim.last(RefreshOverdue).by, Some(By::Peer));
    assert_eq!(sim.arms.len(), 0);
}

#[test]
fn after_an_update_alone_the_dialog_may_be_an_early_one_and_nothing_is_sent() {
    let (mut sim, mut call) = unseen(Side::Server);
    let asked = sim.request(&mut call, Side::Server, "UPDATE", &manners(Side::Server, true), "");
    sim.respond(&call, Side::Server, &asked, "UPDATE", 200, &(manners(Side::Peer, true) + UAC_90));
    sim.secs(95);
    assert_eq!((sim.arms.len(), sim.reasons(RefreshFailed)), (0, vec!["not_confirmed".to_string()]));
    sim.reinvite(&mut call, Side::Peer, "", UAS_90);
    sim.secs(52);
    assert_eq!(sim.ours().len(), 1, "a second INVITE proves that it is none");
    sim.assert_numbers();
}

#[test]
fn an_early_dialog_that_comes_to_nothing_is_over_and_one_that_is_answered_is_refreshed() {
    for (status, refreshes) in [(486, 0), (200, 1)] {
        let (mut sim, mut call) = unseen(Side::Server);
        call.invite = (4, "z9hG4bKunseen".into());
        let asked = sim.request(&mut call, Side::Server, "UPDATE", &manners(Side::Server, true), "");
        sim.respond(&call, Side::Server, &asked, "UPDATE", 200, &(manners(Side::Peer, true) + UAC_90));
        sim.answer(&call, 180, "", "");
        assert_eq!(sim.count(SessionEnded), 0);
        sim.answer(&call, status, "", "");
        sim.ack(&mut call);
        sim.secs(80);
        assert_eq!((sim.ours().len(), sim.count(SessionEnded)), (refreshes, 1 - refreshes));
        assert_eq!(sim.events.iter().filter(|event| event.kind.is_alert()).count(), 0);
        sim.assert_numbers();
    }
}

#[test]
fn without_session_expires_or_a_request_that_was_seen_nothing_is_learnt() {
    let (mut sim, mut call) = unseen(Side::Server);
    sim.reinvite(&mut call, Side::Peer, UAC_90, "");
    let asked = (call.next(Side::Peer), call.branch());
    sim.respond_with(
        &call,
        Side::Peer,
        &asked,
        "INVITE",
        200,
        &(manners(Side::Server, true) + UAS_90),
        &sdp(Side::Server),
    );
    sim.request(&mut call, Side::Peer, "UPDATE", UAC_90, "");
    sim.respond(&call, Side::Peer, &(1, "z9hG4bKother".into()), "UPDATE", 200, UAC_90);
    assert_eq!((sim.events.len(), sim.engine.stats().sessions), (0, 0));
}

#[test]
fn a_call_that_this_host_passes_on_is_seen_to_be_one_in_mid_call_too() {
    let (mut sim, mut call) = unseen(Side::Server);
    sim.reinvite(&mut call, Side::Server, "Via: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1\r\n", UAC_90);
    sim.secs(100);
    assert_eq!((sim.reasons(SessionStarted), sim.arms.len()), (vec!["relayed".to_string()], 0));
}

#[test]
fn after_an_update_a_reinvite_proves_that_the_dialog_is_no_early_one_even_if_it_is_turned_down() {
    let (mut sim, mut call) = unseen(Side::Server);
    let asked = sim.request(&mut call, Side::Server, "UPDATE", &manners(Side::Server, true), "");
    sim.respond(&call, Side::Server, &asked, "UPDATE", 200, &(manners(Side::Peer, true) + UAC_90));
    let asked = sim.request(&mut call, Side::Peer, "INVITE", "", &sdp(Side::Peer));
    sim.respond(&call, Side::Peer, &asked, "INVITE", 488, "");
    let text = call.request(Side::Peer, "ACK", asked.0, &asked.1, true, "", "");
    sim.wire(Side::Peer, text.into_bytes());
    sim.secs(46);
    assert_eq!((sim.count(SessionEnded), sim.ours().len()), (0, 1));
}

#[test]
fn behind_a_strict_router_the_servers_own_request_does_not_show_the_way() {
    let (mut sim, mut call) = unseen(Side::Server);
    sim.reinvite(&mut call, Side::Peer, "", UAS_90);
    sim.request(&mut call, Side::Server, "INFO", "Route: <sip:strict.example>\r\n", "");
    sim.secs(85);
    assert_eq!((sim.arms.len(), sim.reasons(RefreshOverdue)), (0, vec!["mid_call".to_string()]));
}

#[test]
fn a_request_of_an_unknown_dialog_is_forgotten_in_time() {
    for (seconds, sessions) in [(300, 1), (301, 0)] {
        let (mut sim, mut call) = unseen(Side::Server);
        let asked = sim.request(&mut call, Side::Server, "UPDATE", &manners(Side::Server, true), "");
        sim.secs(seconds);
        let mut other = Call::new("other", Side::Peer);
        sim.request(&mut other, Side::Peer, "UPDATE", UAC_90, "");
        sim.respond(&call, Side::Server, &asked, "UPDATE", 200, &(manners(Side::Peer, true) + UAC_90));
        assert_eq!(sim.engine.stats().sessions, sessions, "after {seconds} s");
    }
}
