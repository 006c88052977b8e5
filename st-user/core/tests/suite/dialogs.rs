//! From an INVITE to its dialogs: whose numbers, whose media, whose tags.

use crate::sim::{Call, Sim, manners, sdp};
use st_core::{Action, EventKind::*, Side, message::MethodName};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAS_90: &str = "Session-Expires: 90;refresher=uas\r\n";

#[test]
fn a_call_that_the_server_refuses_is_no_session() {
    let mut sim = Sim::new(Action::Refresh);
    for caller in [Side::Server, Side::Peer] {
        let mut call = Call::new("a", caller);
        sim.invite(&mut call, &manners(caller, true), &sdp(caller));
        sim.answer(&call, 180, "", "");
        sim.answer(&call, 486, "", "");
        let text = call.request(caller, "ACK", call.invite.0, &call.invite.1, true, "", "");
        sim.wire(caller, text.into_bytes());
    }
    sim.secs(100);
    assert_eq!((sim.events.len(), sim.engine.stats().pending), (0, 0));
}

#[test]
fn an_invite_that_is_tried_again_with_credentials_is_the_same_call() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
    sim.answer(&call, 407, "", "");
    sim.establish(&mut call, UAC_90, true);
    assert_eq!(sim.kinds(), [SessionStarted, TimerNegotiated]);
    sim.secs(46);
    assert_eq!(sim.ours()[0].number, 3, "the INVITEs were 1 and 2");
}

#[test]
fn an_invite_that_comes_by_two_ways_is_one_call() {
    for answered in [0, 1] {
        let mut sim = Sim::new(Action::Alert);
        let mut call = Call::new("a", Side::Peer);
        sim.invite(&mut call, &manners(Side::Peer, true), &sdp(Side::Peer));
        let first = call.invite.clone();
        call.peer_number -= 1;
        sim.invite(&mut call, &manners(Side::Peer, true), &sdp(Side::Peer));
        let ways = [first, call.invite.clone()];
        call.invite = ways[1 - answered].clone();
        sim.answer(&call, 482, "", "");
        call.invite = ways[answered].clone();
        sim.answer(&call, 200, &(manners(Side::Server, true) + UAS_90), &sdp(Side::Server));
        if answered == 0 {
            assert_eq!(sim.kinds(), [SessionStarted, TimerNegotiated]);
        }
    }
}

#[test]
fn a_2xx_that_nobody_asked_for_is_no_session() {
    let mut sim = Sim::new(Action::Refresh);
    for caller in [Side::Server, Side::Peer] {
        let call = Call { invite: (1, "z9hG4bKno".into()), ..Call::new("a", caller) };
        sim.answer(&call, 200, &(manners(caller.other(), true) + UAC_90), &sdp(caller.other()));
    }
    assert_eq!(sim.events.len(), 0);
}

#[test]
fn what_a_stranger_sends_is_no_session_before_the_server_answers() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = Call::new("a", Side::Peer);
    sim.invite(&mut call, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    sim.ack(&mut call);
    sim.request(&mut call, Side::Peer, "BYE", "", "");
    assert_eq!((sim.events.len(), sim.engine.stats().sessions), (0, 0));
}

#[test]
fn f08_the_answer_in_a_provisional_response_is_the_servers_sdp_if_the_2xx_has_none() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = Call::new("a", Side::Peer);
    sim.invite(&mut call, &(manners(Side::Peer, false) + "Supported: timer, 100rel\r\n"), &sdp(Side::Peer));
    sim.answer(&call, 183, "Require: 100rel\r\nRSeq: 1\r\n", &sdp(Side::Server));
    sim.request(&mut call, Side::Peer, "PRACK", "RAck: 1 700 INVITE\r\n", "");
    sim.answer(&call, 200, &(manners(Side::Server, false) + UAS_90), "");
    sim.ack(&mut call);
    sim.secs(52);
    assert_eq!(sim.methods(), [MethodName::Invite]);
    assert!(sim.ours()[0].text.ends_with(&sdp(Side::Server)));
}

#[test]
fn f08_offers_that_went_to_and_fro_before_the_2xx_leave_the_sdp_unknown() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, false), &sdp(Side::Server));
    sim.answer(&call, 183, "Require: 100rel\r\nRSeq: 1\r\n", &sdp(Side::Peer));
    sim.request(&mut call, Side::Server, "PRACK", "RAck: 1 1 INVITE\r\n", &sdp(Side::Server).replace("4000", "4002"));
    sim.answer(&call, 200, &(manners(Side::Peer, false) + UAC_90), "");
    sim.ack(&mut call);
    sim.secs(46);
    assert_eq!(sim.reasons(RefreshFailed), ["no_method"]);
}

#[test]
fn r02_compact_and_folded_headers_bare_line_feeds_and_odd_case_are_the_same_call() {
    let mut sim = Sim::new(Action::Refresh);
    let wire = |sim: &mut Sim, side, text: &str| sim.wire(side, text.as_bytes().to_vec());
    wire(
        &mut sim,
        Side::Peer,
        "INVITE sip:s@192.0.2.10 SIP/2.0\nv: SIP/2.0/UDP 198.51.100.20\n ;branch=z9hG4bKx\nf: <sip:p@carrier.example>;TAG=p1\n\
         t: sip:s@192.0.2.10\ni: odd@call\ncseq:\t7  INVITE\nm: <sip:p@198.51.100.20>\nk: Timer\nAllow: UPDATE\nl: 0\n\n",
    );
    wire(
        &mut sim,
        Side::Server,
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 198.51.100.20;branch=z9hG4bKx\r\nFROM: <sip:p@carrier.example>;tag=p1\r\n\
         To: sip:s@192.0.2.10;tag=s1\r\nCall-Id: odd@call\r\nCSeq: 7 INVITE\r\nContact: <sip:s@192.0.2.10>\r\n\
         SESSION-EXPIRES : 90 ; REFRESHER=UAS\r\nContent-Length: 0\r\n\r\n",
    );
    wire(
        &mut sim,
        Side::Peer,
        "ACK sip:s@192.0.2.10 SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.20;branch=z9hG4bKy\r\n\
         From: <sip:p@carrier.example>;tag=p1\r\nTo: sip:s@192.0.2.10;tag=s1\r\nCall-ID: odd@call\r\nCSeq: 7 ACK\r\n\r\n",
    );
    assert_eq!(
        (sim.last(TimerNegotiated).interval_s, sim.last(TimerNegotiated).refresher),
        (Some(90), Some(Side::Server))
    );
    sim.secs(52);
    let text = &sim.ours()[0].text;
    assert!(text.contains("From: sip:s@192.0.2.10;tag=s1\r\nTo: <sip:p@carrier.example>;TAG=p1\r\n"), "{text}");
    assert_eq!(sim.count(RefreshSucceeded), 1);
}

#[test]
fn branches_from_before_rfc_3261_are_matched_by_method() {
    let mut sim = Sim::new(Action::Alert);
    let mut call = sim.call("a", Side::Server, UAC_90);
    sim.secs(20);
    let number = call.next(Side::Server);
    let text = call.request(Side::Server, "UPDATE", number, "1", true, "", "");
    sim.wire(Side::Server, text.into_bytes());
    sim.respond(&call, Side::Server, &(number, "1".into()), "UPDATE", 200, UAC_90);
    assert_eq!(sim.count(SessionRefreshed), 1);
}

#[test]
fn a_caller_that_does_not_wait_for_answers_has_one_call_with_its_highest_number() {
    // Opal, as captured: three INVITEs before the first 200, and all three are answered with the same tag.
    let mut sim = Sim::new(Action::Refresh);
    let mut call = Call::new("a", Side::Server);
    let mut tries = Vec::new();
    for _ in 0..3 {
        sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
        tries.push(call.invite.clone());
    }
    for invite in tries {
        call.invite = invite;
        sim.answer(&call, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
        sim.ack(&mut call);
    }
    assert_eq!(sim.kinds(), [SessionStarted, TimerNegotiated]);
    sim.secs(46);
    assert_eq!(sim.ours()[0].number, 4);
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn an_invite_that_is_tried_again_after_a_failure_that_went_by_unseen_is_the_same_call() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
    sim.establish(&mut call, UAC_90, true);
    assert_eq!(sim.kinds(), [SessionStarted, TimerNegotiated]);
    sim.secs(46);
    assert_eq!(sim.ours()[0].number, 3);
}

#[test]
fn an_invite_that_comes_by_two_ways_may_be_answered_by_either() {
    for answered in [0, 1] {
        let mut sim = Sim::new(Action::Alert);
        let mut call = Call::new("a", Side::Peer);
        sim.invite(&mut call, &manners(Side::Peer, true), &sdp(Side::Peer));
        let first = call.invite.clone();
        call.peer_number -= 1;
        sim.invite(&mut call, &manners(Side::Peer, true), &sdp(Side::Peer));
        call.invite = [first, call.invite.clone()][answered].clone();
        sim.answer(&call, 200, &(manners(Side::Server, true) + UAS_90), &sdp(Side::Server));
        assert_eq!(sim.kinds(), [SessionStarted, TimerNegotiated], "way {answered}");
    }
}

#[test]
fn r05_forks_that_answer_within_a_transaction_of_the_first_are_dialogs_too() {
    for (seconds, dialogs) in [(32, 2), (33, 1)] {
        let mut sim = Sim::new(Action::Alert);
        let mut one = Call::new("a", Side::Server);
        sim.invite(&mut one, &manners(Side::Server, true), &sdp(Side::Server));
        sim.answer(&one, 180, "", "");
        let two = Call { remote: "other".into(), ..one.clone() };
        sim.secs(40);
        sim.answer(&one, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
        sim.secs(seconds);
        // With another call what is too old is forgotten.
        sim.invite(&mut Call::new("b", Side::Server), &manners(Side::Server, true), &sdp(Side::Server));
        sim.answer(&two, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
        assert_eq!(sim.count(SessionStarted), dialogs, "{seconds} s after the first");
    }
}
