//! `respond: on-reject`: the server turns a refresh of the peer's down, and sipst answers it in the server's name.

use std::time::Duration;

use crate::sim::{self, Call, Reply, Sim, disk::Disk, manners, sdp};
use st_core::{
    Action, Command,
    EventKind::*,
    Method, Policy, Refusal, Respond, Rules, SessionId, Side,
    engine::{Limits, Mode, Wish},
    message::{HeaderName, Message, MethodName, Role},
};

const UAC_1800: &str = "Supported: timer\r\nSession-Expires: 1800;refresher=uac\r\n";

fn rules() -> Rules {
    Rules { action: Action::Refresh, respond: Respond::OnReject, ..Rules::default() }
}

/// A call of 1800 s in which the peer has to refresh.
fn call(rules: Rules, caller: Side) -> (Sim, Call) {
    let mut sim = Sim::with(rules);
    let mut call = Call::new("a", caller);
    let expires = if caller == Side::Server { "uas" } else { "uac" };
    sim.establish(&mut call, &format!("Session-Expires: 1800;refresher={expires}\r\n"), true);
    (sim, call)
}

/// The peer sends a refresh, and the server turns it down.
fn refused(sim: &mut Sim, call: &mut Call, method: &str, extra: &str, body: &str, status: u16) -> (u32, String) {
    let extra = format!("{}{extra}", manners(Side::Peer, true));
    let asked = sim.request(call, Side::Peer, method, &extra, body);
    sim.respond(call, Side::Peer, &asked, method, status, "");
    asked
}

fn refreshes(sim: &mut Sim, call: &mut Call, method: &str, status: u16) -> (u32, String) {
    let body = if method == "INVITE" { sdp(Side::Peer) } else { String::new() };
    refused(sim, call, method, UAC_1800, &body, status)
}

/// The peer ACKs a 2xx, by a branch of its own.
fn ack(sim: &mut Sim, call: &mut Call, number: u32) {
    let branch = call.branch();
    let text = call.request(Side::Peer, "ACK", number, &branch, true, "", "");
    sim.wire(Side::Peer, text.into_bytes());
}

/// Statuses of what the peer got in answer to requests with this number.
fn statuses(sim: &Sim, asked: &(u32, String)) -> Vec<u16> {
    let read = |text: &String| {
        let message = Message::scan(text.as_bytes(), false).expect("SIP");
        let branch = message.top_via().and_then(|via| via.branch).expect("a branch").to_vec();
        (branch == asked.1.as_bytes()).then(|| message.status().expect("a status"))
    };
    sim.responses.iter().filter_map(read).collect()
}

#[test]
fn f07_a_refusal_of_an_update_gives_way_to_a_200_and_the_session_goes_on() {
    for caller in [Side::Server, Side::Peer] {
        for status in [405, 420, 488, 500, 501, 503] {
            let (mut sim, mut call) = call(rules(), caller);
            for _ in 0..4 {
                sim.secs(900);
                let asked = refreshes(&mut sim, &mut call, "UPDATE", status);
                assert_eq!(statuses(&sim, &asked), [200], "{status}: {:?}", sim.kinds());
            }
            let text = sim.responses.last().unwrap().clone();
            let answer = Message::scan(text.as_bytes(), false).unwrap();
            assert_eq!(answer.cseq().map(|cseq| cseq.number), Some(call.peer_number - 1));
            assert_eq!(answer.to().and_then(|to| to.tag), Some(call.local.as_bytes()));
            assert_eq!(answer.contact().map(|contact| contact.uri), Some(&b"sip:server@192.0.2.10:5060"[..]));
            let expires = answer.session_expires().unwrap().unwrap();
            assert_eq!((expires.interval_s, expires.refresher), (1_800, Some(Role::Uac)));
            assert!(answer.requires(b"timer") && text.ends_with("Content-Length: 0\r\n\r\n"), "{text}");
            assert_eq!((sim.count(RefreshAnswered), sim.count(SessionRefreshed)), (4, 4));
            assert_eq!(sim.last(RefreshAnswered).status, Some(status));
            for never in [RefreshRejected, RefreshOverdue, SessionExpiring, SessionExpired, NegotiationFault] {
                assert_eq!(sim.count(never), 0, "{never:?}");
            }
            let later = sim.events.iter().filter(|event| event.kind != TimerNegotiated);
            assert_eq!(later.map(|event| event.breaches.len()).sum::<usize>(), 0, "{:?}", sim.events);
            sim.hang_up(&mut call);
            sim.assert_numbers();
            assert!(sim.marks.is_empty() && sim.ours().is_empty());
        }
    }
}

#[test]
fn f07_an_update_that_repeats_the_offer_is_answered_with_the_servers_own_sdp() {
    for caller in [Side::Server, Side::Peer] {
        let (mut sim, mut call) = call(rules(), caller);
        for round in 1..=4 {
            sim.secs(900);
            let offer = sdp(Side::Peer).replace("7 7", &format!("7 {}", 7 + round));
            let asked = refused(&mut sim, &mut call, "UPDATE", UAC_1800, &offer, 405);
            assert_eq!(statuses(&sim, &asked), [200], "{:?}", sim.kinds());
            let text = sim.responses.last().unwrap();
            assert!(text.ends_with(&format!("\r\n\r\n{}", sdp(Side::Server))), "{text}");
            assert!(text.contains("Content-Type: application/sdp\r\n"), "{text}");
            let answer = Message::scan(text.as_bytes(), false).unwrap();
            let expires = answer.session_expires().unwrap().unwrap();
            assert_eq!((expires.interval_s, expires.refresher), (1_800, Some(Role::Uac)));
        }
        // One that offers nothing is answered by nothing.
        let asked = refreshes(&mut sim, &mut call, "UPDATE", 405);
        assert_eq!(statuses(&sim, &asked), [200]);
        assert!(sim.responses.last().unwrap().ends_with("Content-Length: 0\r\n\r\n"));
        assert_eq!((sim.count(RefreshAnswered), sim.count(SessionRefreshed)), (5, 5));
        assert_eq!(sim.count(NegotiationFault) + sim.count(RefreshRejected) + sim.count(SessionExpired), 0);
        sim.secs(60);
        assert!(sim.taken.is_empty() && sim.acks.is_empty(), "nothing of it is ACKed");
        sim.hang_up(&mut call);
        sim.assert_numbers();
    }
}

#[test]
fn f16_a_refusal_of_a_reinvite_gives_way_to_the_servers_own_sdp_and_both_acks_go_where_they_belong() {
    for caller in [Side::Server, Side::Peer] {
        for status in [405, 420, 488, 500, 501, 503] {
            let (mut sim, mut call) = call(rules(), caller);
            for round in 1..=4 {
                sim.secs(900);
                // A peer may count its own version up though nothing changes.
                let offer = sdp(Side::Peer).replace("7 7", &format!("7 {}", 7 + round));
                let asked = refused(&mut sim, &mut call, "INVITE", UAC_1800, &offer, status);
                assert_eq!(statuses(&sim, &asked), [200], "{status}: {:?}", sim.kinds());
                assert!(sim.responses.last().unwrap().ends_with(&format!("\r\n\r\n{}", sdp(Side::Server))));
                assert_eq!(sim.acks.len(), round - 1, "the server's transaction waits for the peer's ACK");
                ack(&mut sim, &mut call, asked.0);
                assert_eq!((sim.taken.len(), sim.acks.len()), (round, round));
                let bytes = sim.acks[round - 1].clone();
                let hop = Message::scan(bytes.as_bytes(), false).unwrap();
                assert_eq!(
                    (hop.cseq().map(|cseq| cseq.number), hop.request_method()),
                    (Some(asked.0), Some(MethodName::Ack))
                );
                assert_eq!(hop.top_via().and_then(|via| via.branch), Some(asked.1.as_bytes()), "R33");
                assert_eq!(hop.request_uri(), Some(&b"sip:server@192.0.2.10:5060"[..]));
                assert_eq!(hop.to().and_then(|to| to.tag), Some(call.local.as_bytes()));
            }
            assert_eq!((sim.count(RefreshAnswered), sim.count(SessionRefreshed)), (4, 4));
            assert_eq!(sim.count(NegotiationFault) + sim.count(RefreshRejected) + sim.count(SessionExpired), 0);
            sim.secs(100);
            assert_eq!(
                sim.responses.iter().filter(|text| text.starts_with("SIP/2.0 200")).count(),
                4 + usize::from(caller == Side::Peer)
            );
            sim.hang_up(&mut call);
            sim.assert_numbers();
        }
    }
}

#[test]
fn with_never_or_without_refresh_the_refusal_goes_out_and_the_session_runs_out() {
    for rules in [Rules { respond: Respond::Never, ..rules() }, Rules { action: Action::Alert, ..rules() }] {
        for (method, status) in [("UPDATE", 405), ("INVITE", 503)] {
            let (mut sim, mut call) = call(rules.clone(), Side::Server);
            sim.secs(900);
            let asked = refreshes(&mut sim, &mut call, method, status);
            assert_eq!(statuses(&sim, &asked), [status]);
            sim.secs(901);
            assert_eq!((sim.count(RefreshRejected), sim.count(SessionExpired)), (1, 1), "{:?}", sim.kinds());
            assert_eq!(sim.count(RefreshAnswered) + sim.count(AnswerWithheld), 0);
            assert!(sim.marks.is_empty());
        }
    }
    let policy = Policy { default: rules(), ..Policy::default() };
    let mut sim = Sim::custom(policy, Mode::Replay, Limits::default());
    let mut call = Call::new("a", Side::Server);
    sim.establish(&mut call, "Session-Expires: 1800;refresher=uas\r\n", true);
    assert!(sim.marks.is_empty(), "a capture is only looked at");
}

#[test]
fn in_a_call_that_an_operator_holds_the_refusal_goes_out_until_it_is_released() {
    let (mut sim, mut call) = call(rules(), Side::Server);
    let session = SessionId(1);
    sim.secs(900);
    for (wish, expected) in [(Wish::Hold, 405), (Wish::Release, 200)] {
        sim.engine.handle_wish(sim.now, session, wish).unwrap();
        sim.settle();
        assert_eq!(sim.marks.is_empty(), wish == Wish::Hold);
        let asked = refreshes(&mut sim, &mut call, "UPDATE", 405);
        assert_eq!(statuses(&sim, &asked), [expected]);
    }
}

#[test]
fn the_truth_goes_out_as_it_is() {
    for status in [401, 404, 407, 408, 410, 422, 480, 481, 482, 483, 484, 485, 491, 500, 504] {
        for method in ["UPDATE", "INVITE"] {
            let (mut sim, mut call) = call(rules(), Side::Server);
            sim.secs(900);
            let body = if method == "INVITE" { sdp(Side::Peer) } else { String::new() };
            let asked = sim.request(&mut call, Side::Peer, method, &(manners(Side::Peer, true) + UAC_1800), &body);
            let more = if status == 500 { "Retry-After: 5\r\n" } else { "" };
            sim.respond(&call, Side::Peer, &asked, method, status, more);
            assert_eq!(statuses(&sim, &asked), [status], "{method}");
            assert_eq!(sim.count(RefreshAnswered), 0, "{method} {status}");
        }
    }
}

#[test]
fn what_changes_anything_or_is_no_refresh_is_the_servers_alone() {
    let moved = sdp(Side::Peer).replace("6000", "6002");
    let held = sdp(Side::Peer) + "a=sendonly\r\n";
    let codec = sdp(Side::Peer).replace("RTP/AVP 0 8", "RTP/AVP 9");
    let contact = manners(Side::Peer, true).replace("20:5060", "20:5099");
    for (what, method, extra, body, reason) in [
        ("media elsewhere", "INVITE", "", &*moved, "another offer than before"),
        ("hold", "INVITE", "", &*held, "another offer than before"),
        ("another codec", "INVITE", "", &*codec, "another offer than before"),
        ("no offer", "INVITE", "", "", "no offer"),
        ("media elsewhere by UPDATE", "UPDATE", "", &*moved, "another offer than before"),
        ("hold by UPDATE", "UPDATE", "", &*held, "another offer than before"),
        (
            "a multipart body",
            "INVITE",
            "Content-Type: multipart/mixed\r\n",
            &*sdp(Side::Peer),
            "an offer that cannot be read",
        ),
        (
            "preconditions",
            "INVITE",
            "Require: timer, precondition\r\n",
            &*sdp(Side::Peer),
            "it requires more than timers",
        ),
    ] {
        let (mut sim, mut call) = call(rules(), Side::Server);
        sim.secs(900);
        let before = sim.responses.len();
        let asked = refused(&mut sim, &mut call, method, &format!("{UAC_1800}{extra}"), body, 488);
        assert_eq!(statuses(&sim, &asked), [488], "{what}");
        assert_eq!(sim.responses.len(), before + 1);
        let event = sim.last(AnswerWithheld);
        assert_eq!(
            (event.reason.as_deref(), event.status),
            (Some(&*format!("changes_session: {reason}")), Some(488)),
            "{what}"
        );
        assert_eq!((sim.count(RefreshAnswered), sim.taken.len()), (0, 0), "{what}");
        // Byte for byte what the server wrote.
        let via = format!("SIP/2.0/UDP 198.51.100.20:5060;rport=5060;branch={}", asked.1);
        let own = call.response(Side::Server, 488, method, asked.0, &via, "", "");
        assert_eq!(sim.responses.last(), Some(&own), "{what}");
    }
    for method in ["UPDATE", "INVITE"] {
        let (mut sim, mut call) = call(rules(), Side::Server);
        sim.secs(900);
        let body = if method == "INVITE" { sdp(Side::Peer) } else { String::new() };
        let asked = sim.request(&mut call, Side::Peer, method, &(contact.clone() + UAC_1800), &body);
        sim.respond(&call, Side::Peer, &asked, method, 405, "");
        assert_eq!(statuses(&sim, &asked), [405]);
        assert_eq!(sim.last(AnswerWithheld).reason.as_deref(), Some("changes_session: another Contact"));
    }
}

#[test]
fn f11_no_sdp_is_sent_that_would_lift_the_peers_hold() {
    let (mut sim, mut call) = call(rules(), Side::Server);
    // The server has accepted a hold, and says in its answer what a plain one says: it would go on sending.
    let held = sdp(Side::Peer) + "a=sendonly\r\n";
    let asked = sim.request(&mut call, Side::Peer, "INVITE", &(manners(Side::Peer, true) + UAC_1800), &held);
    sim.respond_with(&call, Side::Peer, &asked, "INVITE", 200, &manners(Side::Server, false), &sdp(Side::Server));
    ack(&mut sim, &mut call, asked.0);
    sim.secs(800);
    let asked = refused(&mut sim, &mut call, "INVITE", UAC_1800, &held, 503);
    assert_eq!(statuses(&sim, &asked), [503]);
    let reason = "changes_session: the server's session description does not answer it";
    assert_eq!(sim.last(AnswerWithheld).reason.as_deref(), Some(reason));
    // With the right answer it is a refresh as any.
    let asked = sim.request(&mut call, Side::Peer, "INVITE", &(manners(Side::Peer, true) + UAC_1800), &held);
    let answer = sdp(Side::Server) + "a=recvonly\r\n";
    sim.respond_with(&call, Side::Peer, &asked, "INVITE", 200, &manners(Side::Server, false), &answer);
    ack(&mut sim, &mut call, asked.0);
    sim.secs(10);
    let asked = refused(&mut sim, &mut call, "INVITE", UAC_1800, &held, 503);
    assert_eq!(statuses(&sim, &asked), [200]);
    assert!(sim.responses.last().unwrap().ends_with("a=recvonly\r\n"));
}

#[test]
fn r37_the_200_to_a_reinvite_comes_again_until_its_ack_and_no_longer_than_a_transaction() {
    let (mut sim, mut call) = call(rules(), Side::Server);
    sim.secs(900);
    let asked = refreshes(&mut sim, &mut call, "INVITE", 503);
    // T1, doubled up to T2.
    sim.run(Duration::from_millis(3_600));
    assert_eq!(statuses(&sim, &asked).len(), 4);
    // The server repeats its refusal, and the peer its request: neither changes anything.
    sim.respond(&call, Side::Peer, &asked, "INVITE", 503, "");
    assert_eq!((statuses(&sim, &asked), sim.acks.len()), (vec![200; 4], 0));
    let copy = call.request(Side::Peer, "INVITE", asked.0, &asked.1, true, UAC_1800, &sdp(Side::Peer));
    sim.wire(Side::Peer, copy.into_bytes());
    assert_eq!(statuses(&sim, &asked), [200; 5]);
    ack(&mut sim, &mut call, asked.0);
    assert_eq!((sim.acks.len(), sim.engine.is_inviting()), (1, false));
    // The server has not had it.
    sim.respond(&call, Side::Peer, &asked, "INVITE", 503, "");
    assert_eq!(sim.acks.len(), 2);
    sim.secs(60);
    assert_eq!((statuses(&sim, &asked).len(), sim.count(RefreshAnswered)), (5, 1));

    sim.secs(800);
    let asked = refreshes(&mut sim, &mut call, "INVITE", 503);
    assert!(sim.engine.is_inviting(), "the end waits for it");
    sim.secs(100);
    assert_eq!(statuses(&sim, &asked).len(), 11, "RFC 3261, section 13.3.1.4");
    assert_eq!(sim.reasons(NegotiationFault), ["answer_not_acked"]);
    assert_eq!(sim.acks.len(), 2, "nobody has seen the peer take it");
}

#[test]
fn a_copy_of_an_update_gets_the_same_200_and_a_copy_of_the_refusal_nothing() {
    let (mut sim, mut call) = call(rules(), Side::Server);
    sim.secs(900);
    let asked = refreshes(&mut sim, &mut call, "UPDATE", 405);
    let copy = call.request(Side::Peer, "UPDATE", asked.0, &asked.1, true, UAC_1800, "");
    sim.wire(Side::Peer, copy.into_bytes());
    sim.respond(&call, Side::Peer, &asked, "UPDATE", 405, "");
    assert_eq!((statuses(&sim, &asked), sim.count(RefreshAnswered)), (vec![200; 2], 1));
    sim.secs(60);
    assert_eq!(statuses(&sim, &asked).len(), 2);
}

#[test]
fn r29_while_a_request_of_sipsts_or_the_peers_is_under_way_the_peer_is_told_to_wait() {
    // sipst's own re-INVITE is out: the server is the refresher, and the peer refreshes all the same.
    let mut sim = Sim::with(rules());
    sim.replies = [sim::Reply::Rings].into();
    let mut call = Call::new("a", Side::Server);
    sim.establish(&mut call, "Session-Expires: 1800;refresher=uac\r\n", false);
    sim.secs(905);
    assert_eq!(sim.methods(), [MethodName::Invite]);
    let asked = refreshes(&mut sim, &mut call, "INVITE", 503);
    assert_eq!(statuses(&sim, &asked), [491]);
    assert_eq!(sim.last(AnswerWithheld).reason.as_deref(), Some("declined: 491"));
    // The peer ACKs that hop by hop, which is the ACK that the server waits for.
    let text = call.request(Side::Peer, "ACK", asked.0, &asked.1, true, "", "");
    sim.wire(Side::Peer, text.into_bytes());
    assert!(sim.taken.is_empty() && sim.acks.is_empty());
    sim.respond(&call, Side::Peer, &asked, "INVITE", 503, "");
    assert_eq!(statuses(&sim, &asked), [491, 491], "a copy gets the same");
    // No offer goes with an UPDATE (R28), unless it has one.
    let asked = refreshes(&mut sim, &mut call, "UPDATE", 405);
    assert_eq!(statuses(&sim, &asked), [200]);
    let asked = refused(&mut sim, &mut call, "UPDATE", UAC_1800, &sdp(Side::Peer), 405);
    assert_eq!(statuses(&sim, &asked), [491], "RFC 3311, section 5.2");

    // Another INVITE of the peer's waits for the server.
    let (mut sim, mut call) = self::call(rules(), Side::Server);
    sim.secs(1);
    let extra = manners(Side::Peer, true) + UAC_1800;
    let first = sim.request(&mut call, Side::Peer, "INVITE", &extra, &sdp(Side::Peer));
    sim.respond(&call, Side::Peer, &first, "INVITE", 180, "");
    let asked = refreshes(&mut sim, &mut call, "INVITE", 503);
    assert_eq!(statuses(&sim, &asked), [500]);
    assert!(sim.responses.last().unwrap().contains("Retry-After: 2\r\n"));
    let asked = refused(&mut sim, &mut call, "UPDATE", UAC_1800, &sdp(Side::Peer), 405);
    assert_eq!(statuses(&sim, &asked), [500], "its first offer has no answer");
    let asked = refreshes(&mut sim, &mut call, "UPDATE", 405);
    assert_eq!(statuses(&sim, &asked), [200]);
}

#[test]
fn a_refusal_goes_out_where_the_answer_to_the_request_before_may_have_gone_by_unseen() {
    for rings in [false, true] {
        let (mut sim, mut call) = call(rules(), Side::Server);
        sim.secs(1);
        let method = if rings { "INVITE" } else { "UPDATE" };
        let extra = manners(Side::Peer, true) + UAC_1800;
        let body = if rings { sdp(Side::Peer) } else { String::new() };
        let first = sim.request(&mut call, Side::Peer, method, &extra, &body);
        if rings {
            sim.respond(&call, Side::Peer, &first, method, 180, "");
            sim.command(Command::Loss { packets: 1 });
        }
        let asked = refreshes(&mut sim, &mut call, method, 405);
        assert_eq!(statuses(&sim, &asked), [405], "{method}: as without sipst");
        assert_eq!(sim.last(AnswerWithheld).reason.as_deref(), Some("request_in_progress"));
        assert_eq!(sim.count(RefreshAnswered), 0);
        sim.secs(190);
        let asked = refreshes(&mut sim, &mut call, method, 405);
        assert_eq!(statuses(&sim, &asked), [200], "{method}: nobody waits for that any more");
    }
}

#[test]
fn nothing_is_answered_while_the_server_itself_asks() {
    let (mut sim, mut call) = call(rules(), Side::Server);
    sim.secs(900);
    let asked = sim.request(&mut call, Side::Server, "INVITE", &manners(Side::Server, false), &sdp(Side::Server));
    let own = refreshes(&mut sim, &mut call, "UPDATE", 405);
    assert_eq!(statuses(&sim, &own), [405]);
    assert_eq!(sim.last(AnswerWithheld).reason.as_deref(), Some("invite_in_progress"));
    sim.respond_with(&call, Side::Server, &asked, "INVITE", 200, &manners(Side::Peer, true), &sdp(Side::Peer));
    let own = refreshes(&mut sim, &mut call, "UPDATE", 405);
    assert_eq!(statuses(&sim, &own), [405], "R27: until its ACK");
    let branch = call.branch();
    let text = call.request(Side::Server, "ACK", asked.0, &branch, true, "", "");
    sim.wire(Side::Server, text.into_bytes());
    let own = refreshes(&mut sim, &mut call, "UPDATE", 405);
    assert_eq!(statuses(&sim, &own), [200]);
}

#[test]
fn a_strangers_request_is_not_answered() {
    let (mut sim, mut call) = call(rules(), Side::Server);
    sim.secs(900);
    let (branch, number) = (call.branch(), call.next(Side::Peer));
    let text = call.request(Side::Peer, "UPDATE", number, &branch, true, &(manners(Side::Peer, true) + UAC_1800), "");
    sim.wire_from("203.0.113.66:5060", text.into_bytes());
    sim.respond(&call, Side::Peer, &(number, branch.clone()), "UPDATE", 405, "");
    assert_eq!(statuses(&sim, &(number, branch)), [405]);
    assert_eq!(sim.last(AnswerWithheld).reason.as_deref(), Some("not_the_peer"));
    assert_eq!(sim.count(SessionRefreshed), 0);
}

#[test]
fn a_call_that_its_server_has_lost_is_not_kept_alive() {
    // It said so.
    let (mut sim, mut call) = call(rules(), Side::Server);
    let asked = sim.request(&mut call, Side::Peer, "OPTIONS", "", "");
    sim.respond(&call, Side::Peer, &asked, "OPTIONS", 481, "");
    let asked = refreshes(&mut sim, &mut call, "UPDATE", 405);
    assert_eq!(statuses(&sim, &asked), [405]);
    assert_eq!(sim.last(AnswerWithheld).reason.as_deref(), Some("server_lost_dialog"));

    // Its media have stopped for an interval, though nobody holds.
    let (mut sim, mut call) = self::call(rules(), Side::Server);
    sim.secs(10);
    sim.rtp("192.0.2.10:4000");
    for (seconds, expected) in [(890, 200), (1_000, 405)] {
        sim.secs(seconds);
        let asked = refreshes(&mut sim, &mut call, "UPDATE", 405);
        assert_eq!(statuses(&sim, &asked), [expected]);
    }
    assert_eq!(sim.last(AnswerWithheld).reason.as_deref(), Some("media_silent"));
    sim.rtp("192.0.2.10:4000");
    let asked = refreshes(&mut sim, &mut call, "UPDATE", 405);
    assert_eq!(statuses(&sim, &asked), [200]);

    // It is too old.
    let policy = Policy { default: rules(), max_session: Duration::from_secs(1_000), ..Policy::default() };
    let mut sim = Sim::custom(policy, Mode::Live, Limits::default());
    let mut call = Call::new("a", Side::Server);
    sim.establish(&mut call, "Session-Expires: 1800;refresher=uas\r\n", true);
    sim.secs(1_001);
    let asked = refreshes(&mut sim, &mut call, "UPDATE", 405);
    assert_eq!(statuses(&sim, &asked), [405]);
    assert_eq!(sim.last(AnswerWithheld).reason.as_deref(), Some("max_session"));
}

#[test]
fn an_answer_that_cannot_leave_lets_the_servers_own_go() {
    for refusal in Refusal::ALL {
        let (mut sim, mut call) = call(rules(), Side::Server);
        sim.secs(900);
        sim.unsendable = Some(refusal);
        let asked = refreshes(&mut sim, &mut call, "INVITE", 503);
        assert!(statuses(&sim, &asked).is_empty());
        assert_eq!(sim.last(AnswerWithheld).reason.as_deref(), Some(refusal.reason()));
        assert_eq!(sim.count(RefreshAnswered), 0);
        // What could not leave comes again: by then it can.
        sim.unsendable = None;
        sim.respond(&call, Side::Peer, &asked, "INVITE", 503, "");
        assert_eq!(statuses(&sim, &asked), [200], "{refusal}");
    }
}

#[test]
fn an_answer_that_was_not_seen_leaving_is_sent_again_and_counts_then() {
    let (mut sim, mut call) = call(rules(), Side::Server);
    sim.secs(900);
    sim.unseen = true;
    let asked = refreshes(&mut sim, &mut call, "UPDATE", 405);
    assert_eq!((statuses(&sim, &asked), sim.count(SessionRefreshed)), (vec![200], 0));
    sim.unseen = false;
    sim.secs(1);
    assert_eq!((statuses(&sim, &asked), sim.count(SessionRefreshed)), (vec![200, 200], 1));
    sim.secs(60);
    assert_eq!(statuses(&sim, &asked).len(), 2);
}

#[test]
fn with_a_stale_heartbeat_the_refusal_goes_out_by_itself() {
    let (mut sim, mut call) = call(rules(), Side::Server);
    sim.secs(900);
    sim.stale = true;
    let asked = refreshes(&mut sim, &mut call, "UPDATE", 405);
    assert_eq!(statuses(&sim, &asked), [405]);
    assert_eq!((sim.count(RefreshRejected), sim.count(AnswerWithheld)), (1, 0));
}

#[test]
fn a_new_daemon_marks_its_calls_again_and_goes_on() {
    for method in ["UPDATE", "INVITE"] {
        let (mut sim, mut call) = call(rules(), Side::Server);
        let mut disk = Disk::whole(&mut sim.engine);
        sim.secs(900);
        let first = refreshes(&mut sim, &mut call, method, 503);
        disk.write(&mut sim.engine);
        sim.restart(&disk, Duration::from_secs(1));
        assert_eq!(sim.marks.len(), 1);
        // The server's copies of what was answered by the one before: they are no news to the peer.
        sim.respond(&call, Side::Peer, &first, method, 503, "");
        assert_eq!(statuses(&sim, &first), [200, 503]);
        sim.secs(900);
        let asked = refreshes(&mut sim, &mut call, method, 503);
        assert_eq!(statuses(&sim, &asked), [200], "{method}: {:?}", sim.kinds());
        assert_eq!((sim.count(SessionRefreshed), sim.count(RefreshRejected)), (2, 0));
    }
}

#[test]
fn r09_a_peer_that_hands_the_refreshing_on_gets_it_and_sipst_refreshes() {
    let (mut sim, mut call) = call(rules(), Side::Server);
    sim.secs(900);
    let extra = "Supported: timer\r\nSession-Expires: 600;refresher=uas\r\n";
    let asked = refused(&mut sim, &mut call, "UPDATE", extra, "", 405);
    assert_eq!(statuses(&sim, &asked), [200]);
    let text = sim.responses.last().unwrap().clone();
    assert!(text.contains("Session-Expires: 600;refresher=uas\r\n"), "{text}");
    sim.expires = "Session-Expires: 600;refresher=uac\r\n";
    sim.secs(301);
    assert_eq!(sim.methods(), [MethodName::Update]);
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn r42_an_interval_below_the_floor_is_the_servers_to_answer() {
    let (mut sim, mut call) = call(rules(), Side::Server);
    let asked = refused(&mut sim, &mut call, "UPDATE", "Supported: timer\r\nSession-Expires: 20\r\n", "", 405);
    assert_eq!(statuses(&sim, &asked), [405]);
    assert_eq!(sim.last(AnswerWithheld).reason.as_deref(), Some("interval_below_floor"));
}

#[test]
fn the_answer_goes_the_way_of_the_servers_own_with_its_headers() {
    let (mut sim, mut call) = call(rules(), Side::Server);
    sim.secs(900);
    let routed = "Record-Route: <sip:p1.example;lr>\r\nRecord-Route: <sip:p2.example;lr>\r\n";
    let extra = format!("{}{UAC_1800}{routed}", manners(Side::Peer, true));
    let asked = sim.request(&mut call, Side::Peer, "UPDATE", &extra, "");
    let vias = format!(
        "SIP/2.0/UDP 198.51.100.20:5060;received=198.51.100.20;branch={}\r\nVia: SIP/2.0/UDP 10.0.0.7;branch=z9hG4bKx",
        asked.1
    );
    let refusal = call.response(Side::Server, 405, "UPDATE", asked.0, &vias, "Allow: INVITE\r\n", "");
    sim.wire(Side::Server, refusal.clone().into_bytes());
    let text = sim.responses.last().unwrap();
    let (answer, refusal) =
        (Message::scan(text.as_bytes(), false).unwrap(), Message::scan(refusal.as_bytes(), false).unwrap());
    for header in [HeaderName::Via, HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq] {
        assert!(answer.lines(header).eq(refusal.lines(header)), "{text}");
    }
    assert_eq!(answer.record_routes().collect::<Vec<_>>(), [b"<sip:p1.example;lr>", b"<sip:p2.example;lr>"]);
    assert!(answer.supports(b"timer") && !text.contains("User-Agent"), "{text}");
}

#[test]
fn after_a_loss_a_new_version_may_hide_a_change_until_the_next_offer_is_settled() {
    for method in ["INVITE", "UPDATE"] {
        let (mut sim, mut call) = call(rules(), Side::Server);
        sim.command(Command::Loss { packets: 1 });
        let newer = sdp(Side::Peer).replace("7 7", "7 8");
        let asked = refused(&mut sim, &mut call, method, UAC_1800, &newer, 503);
        assert_eq!(statuses(&sim, &asked), [503]);
        assert_eq!(sim.last(AnswerWithheld).reason.as_deref(), Some("packets_lost"));
        // The same bytes: no version was left out.
        let asked = refused(&mut sim, &mut call, method, UAC_1800, &sdp(Side::Peer), 503);
        assert_eq!(statuses(&sim, &asked), [200]);
        if method == "INVITE" {
            ack(&mut sim, &mut call, asked.0);
        }
        let asked = refused(&mut sim, &mut call, method, UAC_1800, &newer, 503);
        assert_eq!(statuses(&sim, &asked), [200]);
    }
}

#[test]
fn r33_a_refusal_that_the_peer_has_acked_goes_out_again_as_it_is() {
    let (mut sim, mut call) = call(rules(), Side::Server);
    sim.secs(900);
    // The refusal itself went by unseen, and the ACK to it never reached the server.
    let asked = sim.request(&mut call, Side::Peer, "INVITE", &(manners(Side::Peer, true) + UAC_1800), &sdp(Side::Peer));
    let text = call.request(Side::Peer, "ACK", asked.0, &asked.1, true, "", "");
    sim.wire(Side::Peer, text.into_bytes());
    sim.respond(&call, Side::Peer, &asked, "INVITE", 503, "");
    assert_eq!(statuses(&sim, &asked), [503], "a 200 would say something else than the peer has heard");
    assert_eq!((sim.count(RefreshAnswered), sim.count(SessionRefreshed)), (0, 0));
}

#[test]
fn what_only_sipst_was_told_is_nothing_that_the_server_has_taken() {
    let elsewhere = manners(Side::Peer, true).replace("20:5060", "20:5099");
    let moved = sdp(Side::Peer).replace("6000", "6002");
    let usual = manners(Side::Peer, true);
    // The peer's answer to a refresh of sipst's, and what it asks for next, by which method it gets 405 and by which 200.
    for (method, contact, sdp_now, refused, answered) in [
        (Method::Update, &elsewhere, sdp(Side::Peer), vec!["UPDATE", "INVITE"], vec![]),
        (Method::Reinvite, &elsewhere, sdp(Side::Peer), vec!["UPDATE", "INVITE"], vec![]),
        (Method::Reinvite, &usual, moved, vec!["INVITE"], vec!["UPDATE"]),
    ] {
        let mut sim = Sim::with(Rules { take_over: true, method, ..rules() });
        let body = if method == Method::Reinvite { sdp_now.clone() } else { String::new() };
        let says = format!("{contact}Session-Expires: 1800;refresher=uas\r\n");
        sim.usual = Reply::OkWith(says, body);
        let mut call = Call::new("a", Side::Server);
        sim.engine.follow_changes();
        sim.establish(&mut call, "Session-Expires: 1800;refresher=uas\r\n", true);
        sim.secs(721);
        assert_eq!(sim.ours().len(), 1);
        for restarted in [false, true] {
            if restarted {
                let mut disk = Disk::default();
                disk.write(&mut sim.engine);
                sim.restart(&disk, Duration::from_secs(1));
            }
            for (methods, status) in [(&refused, 405), (&answered, 200)] {
                for method in methods {
                    let body = if *method == "INVITE" { sdp_now.clone() } else { String::new() };
                    let asked = sim.request(&mut call, Side::Peer, method, &format!("{contact}{UAC_1800}"), &body);
                    sim.respond(&call, Side::Peer, &asked, method, 405, "");
                    assert_eq!(statuses(&sim, &asked), [status], "{method} {contact} {restarted}");
                    if *method == "INVITE" {
                        let text = call.request(Side::Peer, "ACK", asked.0, &asked.1, true, "", "");
                        sim.wire(Side::Peer, text.into_bytes());
                    }
                }
            }
        }
        // Once the server has taken it, it is a refresh as any.
        let extra = format!("{contact}{UAC_1800}");
        let asked = sim.request(&mut call, Side::Peer, "INVITE", &extra, &sdp_now);
        let answer = manners(Side::Server, false) + UAC_1800;
        sim.respond_with(&call, Side::Peer, &asked, "INVITE", 200, &answer, &sdp(Side::Server));
        ack(&mut sim, &mut call, asked.0);
        let asked = sim.request(&mut call, Side::Peer, "UPDATE", &extra, "");
        sim.respond(&call, Side::Peer, &asked, "UPDATE", 405, "");
        assert_eq!(statuses(&sim, &asked), [200]);
    }
}

#[test]
fn where_a_refusal_was_read_too_late_and_let_out_its_copies_are_too() {
    for (method, late) in [("INVITE", true), ("INVITE", false), ("UPDATE", true)] {
        let (mut sim, mut call) = call(rules(), Side::Server);
        sim.secs(900);
        let body = if method == "INVITE" { sdp(Side::Peer) } else { String::new() };
        let asked = sim.request(&mut call, Side::Peer, method, &(manners(Side::Peer, true) + UAC_1800), &body);
        if late {
            let via = format!("SIP/2.0/UDP 198.51.100.20:5060;rport=5060;branch={}", asked.1);
            let refusal = call.response(Side::Server, 503, method, asked.0, &via, "", "");
            sim.held_too_long(refusal.as_bytes());
        }
        sim.respond(&call, Side::Peer, &asked, method, 503, "");
        let expected = if late { 503 } else { 200 };
        assert_eq!(statuses(&sim, &asked), [expected], "{method}");
        // The next request is another one.
        let asked = refreshes(&mut sim, &mut call, "UPDATE", 405);
        assert_eq!(statuses(&sim, &asked), [200]);
    }
}
