//! A call kept alive: who refreshes, when, by which method.

use crate::sim::{self, Reply, Sim, manners, sdp};
use st_core::{Action, By, EventKind::*, Method, Policy, Rules, Side, message::MethodName};

const UAC_90: &str = "Require: timer\r\nSession-Expires: 90;refresher=uac\r\n";

#[test]
fn f03_a_call_whose_server_knows_no_timers_outlives_three_intervals_and_its_bye_is_good() {
    for caller in [Side::Server, Side::Peer] {
        let mut sim = Sim::new(Action::Refresh);
        // From another call it is known that the server writes a space, so that there is room.
        sim.call("other", Side::Server, "");
        let refresher = if caller == Side::Server { "uac" } else { "uas" };
        let mut call = sim.call("a", caller, &format!("Session-Expires: 90;refresher={refresher}\r\n"));
        sim.secs(300);
        assert_eq!(sim.methods(), [MethodName::Update; 6], "every 45 s");
        assert_eq!(sim.count(RefreshSucceeded), 6);
        assert_eq!(sim.count(SessionExpired) + sim.count(SessionExpiring), 0);
        sim.hang_up(&mut call);
        assert_eq!(sim.kinds().last(), Some(&SessionEnded));
        sim.assert_numbers();
        sim.secs(120);
        assert_eq!(sim.kernel.holds(), (0, 0));
        assert_eq!(sim.kinds().last(), Some(&SessionEnded));
    }
}

#[test]
fn events_of_one_interval_come_in_order() {
    let mut sim = Sim::new(Action::Refresh);
    sim.call("a", Side::Server, UAC_90);
    assert_eq!(sim.kinds(), [SessionStarted, TimerNegotiated]);
    sim.secs(46);
    assert_eq!(sim.kinds()[2..], [RefreshDue, RefreshSent, RefreshSucceeded, SessionRefreshed]);
}

#[test]
fn a_refresh_is_the_servers_own_in_all_but_what_it_asks_for() {
    for caller in [Side::Server, Side::Peer] {
        let mut sim = Sim::new(Action::Refresh);
        let refresher = if caller == Side::Server { "uac" } else { "uas" };
        sim.call("a", caller, &format!("Session-Expires: 90;refresher={refresher}\r\n"));
        sim.secs(52);
        let sent = sim.injected[0].clone();
        let text = String::from_utf8(sent.bytes.clone()).unwrap();
        for line in [
            "UPDATE sip:peer@198.51.100.20:5060 SIP/2.0",
            "Via: SIP/2.0/UDP 192.0.2.10:5060;rport;branch=z9hG4bKsipst",
            "From: \"S\" <sip:server@192.0.2.10>;tag=a-local",
            "To: <sip:peer@carrier.example>;tag=a-remote",
            "Call-ID: a@example",
            "Contact: <sip:server@192.0.2.10:5060>",
            "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO\r\n",
            "User-Agent: plain",
            "Supported: timer",
            "Session-Expires: 90;refresher=uac",
            "Min-SE: 90",
            "Content-Length: 0",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert_eq!((sent.tos, sent.ttl, sent.peer), (0x60, 64, sim::text::PEER.parse().unwrap()));
        assert_eq!(sim.arms[0].cookie, 99, "the socket that made the dialog");
    }
}

#[test]
fn r21_without_update_in_the_peers_allow_a_reinvite_replays_the_servers_sdp() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim::Call::new("a", Side::Server);
    sim.establish(&mut call, UAC_90, false);
    sim.secs(46);
    let methods: Vec<_> = sim.seen.iter().filter(|seen| seen.ours).map(|seen| seen.method).collect();
    assert_eq!(methods, [MethodName::Invite, MethodName::Ack]);
    assert!(sim.ours()[0].text.ends_with(&format!("\r\n\r\n{}", sim::sdp(Side::Server))), "R22: byte for byte");
    let succeeded = sim.last(RefreshSucceeded);
    assert_eq!((succeeded.method, succeeded.status), (Some("INVITE"), Some(200)));
    assert_eq!(sim.last(SessionRefreshed).by, Some(By::Sipst));
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

/// A call with a peer that does not say whether it takes UPDATE.
fn silent_on_update(rules: Rules, server: &str, peer: &str) -> Sim {
    let mut sim = Sim::with(Rules { action: Action::Refresh, ..rules });
    let mut call = sim::Call::new("a", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, true), server);
    sim.answer(&call, 200, &format!("Contact: <sip:peer@198.51.100.20>\r\n{UAC_90}"), peer);
    sim.ack(&mut call);
    sim.secs(46);
    sim
}

#[test]
fn r21_a_peer_that_says_nothing_of_update_gets_one_only_where_no_reinvite_can_be_made() {
    let (server, peer) = (&sdp(Side::Server), &sdp(Side::Peer));
    let fax = &server.replace("m=audio 4000 RTP/AVP 0 8", "m=image 4000 udptl t38");
    let reinvite = || Rules { method: Method::Reinvite, ..Rules::default() };
    for (rules, server, peer, method) in [
        (Rules::default(), &**server, &**peer, Some(MethodName::Invite)),
        // What the peer last said is not known: nothing of it can be disturbed.
        (Rules::default(), server, "", Some(MethodName::Invite)),
        (Rules::default(), fax, "", Some(MethodName::Update)),
        (Rules::default(), "", peer, Some(MethodName::Update)),
        (reinvite(), server, peer, Some(MethodName::Invite)),
        (reinvite(), "", peer, None),
    ] {
        let sim = silent_on_update(rules, server, peer);
        assert_eq!(sim.methods(), Vec::from_iter(method), "{server}/{peer}");
    }
}

#[test]
fn r21_an_update_that_was_a_last_resort_and_turned_down_is_not_tried_again() {
    let mut sim = silent_on_update(Rules::default(), "", "");
    assert_eq!(sim.methods(), [MethodName::Update]);
    sim.usual = Reply::Status(405, "");
    sim.secs(45);
    assert_eq!(sim.methods(), [MethodName::Update; 2]);
    assert_eq!(sim.last(RefreshFailed).status, Some(405));
}

#[test]
fn r03_a_server_that_lists_timer_gets_its_chance_and_loses_it_once_it_has_missed_it() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim::Call::new("a", Side::Server);
    sim.invite(&mut call, &(manners(Side::Server, true) + "Supported: timer\r\n"), &sdp(Side::Server));
    sim.answer(&call, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    sim.ack(&mut call);
    sim.secs(50);
    assert_eq!(sim.ours().len(), 0);
    sim.secs(2);
    assert_eq!(sim.ours().len(), 1, "at 51 s");
    sim.secs(44);
    assert_eq!(sim.ours().len(), 2, "at 45 s after that: it counts as one that never refreshes");
    // It does refresh after all.
    let asked = sim.request(&mut call, Side::Server, "UPDATE", "Session-Expires: 90;refresher=uac\r\n", "");
    sim.respond(&call, Side::Server, &asked, "UPDATE", 200, UAC_90);
    sim.secs(50);
    assert_eq!(sim.ours().len(), 2);
    sim.assert_numbers();
}

#[test]
fn a_server_that_was_busy_when_its_refresh_was_due_has_its_chance_in_the_next_interval() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim::Call::new("a", Side::Server);
    sim.invite(&mut call, &(manners(Side::Server, true) + "Supported: timer\r\n"), &sdp(Side::Server));
    sim.answer(&call, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    sim.ack(&mut call);
    sim.secs(48);
    let asked = sim.request(&mut call, Side::Peer, "INVITE", &manners(Side::Peer, true), &sdp(Side::Peer));
    sim.secs(7);
    assert_eq!((sim.ours().len(), sim.count(RefreshDue)), (0, 1));
    let agreed = manners(Side::Server, true) + "Session-Expires: 90;refresher=uas\r\n";
    sim.respond_with(&call, Side::Peer, &asked, "INVITE", 200, &agreed, &sdp(Side::Server));
    let ack = call.request(Side::Peer, "ACK", asked.0, &asked.1, true, "", "");
    sim.wire(Side::Peer, ack.into_bytes());
    sim.secs(50);
    assert_eq!(sim.ours().len(), 0);
    sim.secs(2);
    assert_eq!(sim.ours().len(), 1, "at 51 s");
}

#[test]
fn a_server_that_refreshes_in_time_is_left_alone() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, UAC_90);
    for _ in 0..4 {
        sim.secs(40);
        let asked = sim.request(&mut call, Side::Server, "UPDATE", "Supported: timer\r\n", "");
        sim.respond(&call, Side::Server, &asked, "UPDATE", 200, UAC_90);
    }
    assert_eq!((sim.arms.len(), sim.count(SessionRefreshed), sim.count(RefreshDue)), (0, 4, 0));
    assert_eq!(sim.last(SessionRefreshed).by, Some(By::Server));
}

#[test]
fn r20_a_refresh_of_the_servers_that_is_under_way_is_waited_for() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, UAC_90);
    sim.secs(44);
    let asked = sim.request(&mut call, Side::Server, "UPDATE", "", "");
    sim.secs(5);
    assert_eq!((sim.arms.len(), sim.count(RefreshDue)), (0, 0));
    sim.respond(&call, Side::Server, &asked, "UPDATE", 200, UAC_90);
    sim.secs(40);
    assert_eq!(sim.arms.len(), 0);
}

#[test]
fn r16_a_repeated_2xx_does_not_restart_the_clock() {
    let mut sim = Sim::new(Action::Refresh);
    let call = sim.call("a", Side::Server, UAC_90);
    sim.secs(20);
    sim.answer(&call, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    assert_eq!(sim.kinds(), [SessionStarted, TimerNegotiated]);
    sim.secs(26);
    assert_eq!(sim.ours().len(), 1);
}

#[test]
fn r15_failures_and_other_methods_leave_the_clock_alone() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, UAC_90);
    sim.secs(20);
    for (side, method, status) in [
        (Side::Server, "INFO", 200),
        (Side::Peer, "OPTIONS", 200),
        (Side::Peer, "UPDATE", 500),
        (Side::Server, "UPDATE", 422),
    ] {
        let asked = sim.request(&mut call, side, method, "", "");
        sim.respond(&call, side, &asked, method, status, UAC_90);
    }
    assert_eq!(sim.kinds(), [SessionStarted, TimerNegotiated]);
    sim.secs(26);
    assert_eq!(sim.ours().len(), 1);
}

#[test]
fn r18_the_interval_is_read_anew_from_every_2xx() {
    let mut sim = Sim::new(Action::Refresh);
    sim.call("a", Side::Server, UAC_90);
    sim.expires = "Session-Expires: 180;refresher=uac\r\n";
    sim.secs(46);
    assert_eq!(sim.last(TimerNegotiated).interval_s, Some(180));
    sim.secs(88);
    assert_eq!(sim.ours().len(), 1);
    sim.secs(2);
    assert!(sim.ours()[1].text.contains("Session-Expires: 180;refresher=uac"));
}

#[test]
fn r19_a_peer_that_takes_the_role_over_is_watched() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, UAC_90);
    sim.expires = "Session-Expires: 90;refresher=uas\r\n";
    sim.secs(46);
    assert_eq!(sim.last(TimerNegotiated).refresher, Some(Side::Peer));
    sim.secs(40);
    assert_eq!(sim.ours().len(), 1);
    sim.reinvite(&mut call, Side::Peer, "", "");
    assert_eq!(sim.last(SessionRefreshed).by, Some(By::Peer));
    sim.secs(60);
    assert_eq!(sim.last(RefreshOverdue).by, Some(By::Peer));
}

#[test]
fn r26_nothing_is_sent_before_the_ack() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim::Call::new("a", Side::Peer);
    sim.invite(&mut call, &(manners(Side::Peer, true) + "Supported: timer\r\n"), &sdp(Side::Peer));
    sim.answer(
        &call,
        200,
        &(manners(Side::Server, true) + "Session-Expires: 90;refresher=uas\r\n"),
        &sdp(Side::Server),
    );
    sim.secs(53);
    assert_eq!((sim.count(RefreshDue), sim.arms.len()), (1, 0));
    sim.ack(&mut call);
    sim.secs(2);
    assert_eq!(sim.ours().len(), 1, "R31: put off, not dropped");
}

#[test]
fn r27_r31_nothing_is_sent_during_an_invite_of_either_side_and_it_is_not_dropped() {
    for side in [Side::Server, Side::Peer] {
        let mut sim = Sim::new(Action::Refresh);
        let mut call = sim.call("a", Side::Server, UAC_90);
        sim.secs(44);
        let asked = sim.request(&mut call, side, "INVITE", &manners(side, true), &sdp(side));
        sim.respond(&call, side, &asked, "INVITE", 180, "");
        sim.secs(10);
        assert_eq!(sim.arms.len(), 0, "{side:?}");
        sim.respond(&call, side, &asked, "INVITE", 488, "");
        sim.secs(10);
        assert_eq!(sim.arms.len(), 0, "{side:?}: not before the ACK");
        let (text, key) = (call.request(side, "ACK", asked.0, &asked.1, true, "", ""), call.key());
        sim.wire(side, text.into_bytes());
        sim.secs(2);
        assert_eq!(sim.ours().len(), 1, "{side:?} {key:?}");
        sim.assert_numbers();
    }
}

#[test]
fn r28_nothing_is_sent_while_an_update_is_open() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, UAC_90);
    sim.secs(44);
    let asked = sim.request(&mut call, Side::Peer, "UPDATE", "", &sdp(Side::Peer));
    sim.secs(6);
    assert_eq!(sim.arms.len(), 0);
    sim.respond(&call, Side::Peer, &asked, "UPDATE", 491, "");
    sim.secs(2);
    assert_eq!(sim.ours().len(), 1);
}

#[test]
fn r24_the_remote_target_follows_the_peers_contact_and_the_routes_stay() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim::Call::new("a", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
    let routes = "Record-Route: <sip:198.51.100.20;lr>, <sip:p2.example;lr>\r\n";
    sim.answer(&call, 200, &(manners(Side::Peer, true) + routes + UAC_90), &sdp(Side::Peer));
    // The server's ACK shows the way.
    let ack = call.request(
        Side::Server,
        "ACK",
        1,
        "z9hG4bKack",
        true,
        "Route: <sip:p2.example;lr>, <sip:198.51.100.20;lr>\r\n",
        "",
    );
    sim.wire(Side::Server, ack.into_bytes());
    let moved = "Contact: <sip:peer@198.51.100.77:5099>\r\n";
    let asked = sim.request(&mut call, Side::Peer, "UPDATE", moved, "");
    sim.respond(&call, Side::Peer, &asked, "UPDATE", 200, "");
    sim.secs(46);
    let sent = &sim.ours()[0].text;
    assert!(sent.starts_with("UPDATE sip:peer@198.51.100.77:5099 SIP/2.0\r\n"), "{sent}");
    assert!(sent.contains("Route: <sip:p2.example;lr>\r\nRoute: <sip:198.51.100.20;lr>\r\n"), "{sent}");
}

#[test]
fn r24_the_ack_goes_to_where_the_2xx_says_that_the_peer_is_now() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim::Call::new("a", Side::Server);
    sim.establish(&mut call, UAC_90, false);
    sim.usual = Reply::OkWith(format!("Contact: <sip:peer@198.51.100.77:5099>\r\n{UAC_90}"), sdp(Side::Peer));
    sim.secs(46);
    let ack = sim.seen.iter().find(|seen| seen.ours && seen.method == MethodName::Ack).unwrap();
    assert!(ack.text.starts_with("ACK sip:peer@198.51.100.77:5099 SIP/2.0\r\n"), "{}", ack.text);
}

#[test]
fn r24_a_reliable_provisional_response_moves_the_target_even_if_a_failure_follows() {
    for asker in [Side::Server, Side::Peer] {
        for (rseq, target) in
            [("Require: 100rel\r\nRSeq: 1\r\n", "sip:peer@198.51.100.77:5099"), ("", "sip:peer@198.51.100.20:5060")]
        {
            let mut sim = Sim::new(Action::Refresh);
            let mut call = sim.call("a", Side::Server, UAC_90);
            let moved = "Contact: <sip:peer@198.51.100.77:5099>\r\n";
            let (asks, answers) = if asker == Side::Peer { (moved, "") } else { ("", moved) };
            let asked = sim.request(&mut call, asker, "INVITE", asks, &sdp(asker));
            sim.respond(&call, asker, &asked, "INVITE", 183, &[rseq, answers].concat());
            sim.respond(&call, asker, &asked, "INVITE", 488, "");
            sim.secs(46);
            let sent = &sim.ours()[0].text;
            assert!(sent.starts_with(&format!("UPDATE {target}")), "{asker:?} {rseq}: {sent}");
        }
    }
}

#[test]
fn r24_a_copy_of_an_older_request_of_the_servers_does_not_move_the_target_back() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, UAC_90);
    let info = call.request(Side::Server, "INFO", call.invite.0 + 1, "z9hG4bKinfo", true, "", "");
    sim.wire(Side::Server, info.clone().into_bytes());
    let moved = "Contact: <sip:peer@198.51.100.77:5099>\r\n";
    let asked = sim.request(&mut call, Side::Peer, "UPDATE", moved, "");
    sim.respond(&call, Side::Peer, &asked, "UPDATE", 200, "");
    // No answer to it was seen, and here is its copy; the copy of the 2xx's ACK likewise.
    sim.wire(Side::Server, info.into_bytes());
    sim.ack(&mut call);
    sim.secs(50);
    let sent = &sim.ours()[0].text;
    assert!(sent.starts_with("UPDATE sip:peer@198.51.100.77:5099 SIP/2.0\r\n"), "{sent}");
}

#[test]
fn f20_the_next_hop_is_where_the_server_sends_itself() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim::Call::new("a", Side::Peer);
    let far = "Contact: <sip:peer@10.9.9.9>\r\nAllow: UPDATE\r\n";
    sim.invite(&mut call, far, &sdp(Side::Peer));
    sim.answer(
        &call,
        200,
        &(manners(Side::Server, true) + "Session-Expires: 90;refresher=uas\r\n"),
        &sdp(Side::Server),
    );
    sim.ack(&mut call);
    let mut other = sim.call("b", Side::Peer, "Session-Expires: 90;refresher=uas\r\n");
    sim.request(&mut other, Side::Server, "INFO", "", "");
    sim.secs(52);
    assert_eq!(
        sim.reasons(RefreshFailed),
        ["next_hop_unknown"],
        "the Contact is elsewhere, and no trunk vouches for it"
    );
    assert_eq!(sim.ours().len(), 1);
    assert!(sim.ours()[0].text.contains("Call-ID: b@example"));
}

#[test]
fn r05_forks_are_dialogs_of_their_own() {
    let mut sim = Sim::new(Action::Refresh);
    let mut one = sim::Call::new("a", Side::Server);
    sim.invite(&mut one, &manners(Side::Server, true), &sdp(Side::Server));
    let mut two = one.clone();
    two.remote = "other".into();
    for (call, expires) in [(&mut one, UAC_90), (&mut two, "Session-Expires: 180;refresher=uac\r\n")] {
        sim.answer(call, 200, &(manners(Side::Peer, true) + expires), &sdp(Side::Peer));
        sim.ack(call);
    }
    assert_eq!(sim.kinds(), [SessionStarted, TimerNegotiated, SessionStarted, TimerNegotiated]);
    sim.request(&mut two, Side::Server, "BYE", "", "");
    assert_eq!(sim.last(SessionEnded).remote_tag().as_deref(), Some("other"));
    sim.secs(46);
    assert_eq!(sim.ours().len(), 1);
    assert!(sim.ours()[0].text.contains("tag=a-remote"));
}

#[test]
fn a_policy_that_changes_holds_from_the_next_moment_on() {
    let mut sim = Sim::new(Action::Observe);
    sim.call("a", Side::Server, UAC_90);
    let policy = Policy { default: sim::rules(Action::Refresh), ..Policy::default() };
    sim.set_policy(policy);
    sim.secs(46);
    assert_eq!(sim.ours().len(), 1);
}

#[test]
fn a_policy_that_no_longer_refreshes_stops_a_refresh_that_waits() {
    let mut sim = Sim::new(Action::Refresh);
    sim.call("a", Side::Server, UAC_90);
    sim.replies.push_back(Reply::Status(503, "Retry-After: 10\r\n"));
    sim.secs(46);
    assert_eq!(sim.ours().len(), 1);
    let policy = Policy { default: sim::rules(Action::Alert), ..Policy::default() };
    sim.set_policy(policy);
    sim.secs(30);
    assert_eq!((sim.ours().len(), sim.reasons(RefreshFailed)), (1, vec!["policy".to_owned()]));
}
