//! What follows when the peer turns a refresh down, or says nothing.

use std::time::Duration;

use crate::sim::{self, Reply, Sim, manners, sdp};
use st_core::{
    Action, Command, Credentials, Event, EventKind,
    EventKind::*,
    Method, Refusal, Rules, Side,
    message::{HeaderName, Message, MethodName},
};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAC_1800: &str = "Session-Expires: 1800;refresher=uac\r\n";

fn refused(sim: &Sim) -> (&str, Option<u16>) {
    let Event { reason, status, .. } = sim.last(RefreshFailed);
    (reason.as_deref().unwrap_or(""), *status)
}

/// A call with an interval of 1800 s, its first refresh at 900 s answered like that.
fn turned_down(rules: Rules, update: bool, replies: &[Reply]) -> (Sim, sim::Call) {
    let mut sim = Sim::with(Rules { action: Action::Refresh, ..rules });
    sim.expires = UAC_1800;
    sim.replies = replies.iter().cloned().collect();
    let mut call = sim::Call::new("a", Side::Server);
    sim.establish(&mut call, UAC_1800, update);
    sim.secs(900);
    (sim, call)
}

fn credentials() -> Rules {
    let credentials = Credentials { username: "line1".into(), password: "secret".into() };
    Rules { credentials: Some(credentials), ..Rules::default() }
}

const CHALLENGE: Reply =
    Reply::Status(407, "Proxy-Authenticate: Digest realm=\"carrier\", nonce=\"n1\", algorithm=MD5, qop=\"auth\"\r\n");

#[test]
fn f17_a_challenge_is_answered_once_with_the_next_number() {
    let (mut sim, mut call) = turned_down(credentials(), true, &[CHALLENGE]);
    assert_eq!(sim.count(RefreshSucceeded), 1);
    let [first, second] = sim.ours()[..] else { panic!("{:?}", sim.ours()) };
    assert_eq!(second.number, first.number + 1);
    assert_ne!(second.branch, first.branch);
    assert!(!first.text.contains("Proxy-Authorization"));
    assert!(second.text.contains("Proxy-Authorization: Digest"), "{}", second.text);
    assert!(second.text.contains("username=\"line1\"") && second.text.contains("uri=\"sip:peer@198.51.100.20:5060\""));
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn f17_the_ack_of_a_challenged_reinvite_carries_the_same_credentials() {
    let (sim, _) = turned_down(credentials(), false, &[CHALLENGE]);
    let acks: Vec<_> = sim.seen.iter().filter(|seen| seen.ours && seen.method == MethodName::Ack).collect();
    let [failure, success] = acks[..] else { panic!("{acks:?}") };
    assert_eq!(failure.branch, sim.ours()[0].branch, "R33");
    assert_ne!(success.branch, sim.ours()[1].branch, "R32");
    assert!(success.text.contains("Proxy-Authorization: Digest"));
}

#[test]
fn f17_a_second_challenge_or_one_without_credentials_is_told() {
    let (sim, _) = turned_down(credentials(), true, &[CHALLENGE, CHALLENGE, CHALLENGE]);
    assert_eq!((sim.ours().len(), refused(&sim)), (2, ("challenged", Some(407))));
    let (sim, _) = turned_down(Rules::default(), true, &[CHALLENGE]);
    assert_eq!((sim.ours().len(), refused(&sim)), (1, ("challenged", Some(407))));
    let (sim, _) = turned_down(credentials(), true, &[Reply::Status(401, "WWW-Authenticate: Basic realm=\"x\"\r\n")]);
    assert_eq!((sim.ours().len(), refused(&sim)), (1, ("challenged", Some(401))));
}

#[test]
fn r36_a_422_is_obeyed_once_for_each_value() {
    let longer = Reply::Status(422, "Min-SE: 3600\r\n");
    let (mut sim, mut call) = turned_down(Rules::default(), true, std::slice::from_ref(&longer));
    assert_eq!(sim.count(RefreshSucceeded), 1);
    assert!(sim.ours()[1].text.contains("Session-Expires: 3600;refresher=uac\r\nMin-SE: 3600\r\n"));
    sim.secs(900);
    assert!(sim.ours()[2].text.contains("Min-SE: 3600\r\n"), "R17: it is remembered");
    sim.hang_up(&mut call);
    sim.assert_numbers();
    let (sim, _) = turned_down(Rules::default(), true, &[longer.clone(), longer]);
    assert_eq!((sim.ours().len(), refused(&sim)), (2, ("refused", Some(422))));
    let (sim, _) = turned_down(Rules::default(), true, &[Reply::Status(422, "")]);
    assert_eq!((sim.ours().len(), refused(&sim)), (1, ("refused", Some(422))));
}

#[test]
fn r30_a_491_is_followed_by_a_random_wait_in_the_band_of_the_side_that_owns_the_call_id() {
    for (caller, low, high) in [(Side::Server, 2_100, 4_000), (Side::Peer, 0, 2_000)] {
        let mut waits = Vec::new();
        for seed_call in 0..20 {
            let mut sim = Sim::new(Action::Refresh);
            sim.expires = "Session-Expires: 900;refresher=uac\r\n";
            sim.replies.extend(vec![Reply::Status(491, ""); 1 + seed_call % 14]);
            let refresher = if caller == Side::Server { "uac" } else { "uas" };
            sim.call("other", Side::Server, "");
            sim.call("a", caller, &format!("Session-Expires: 900;refresher={refresher}\r\n"));
            sim.secs(700);
            let ours = sim.ours();
            let wait = ours[ours.len() - 1].at.since(ours[ours.len() - 2].at).as_millis();
            waits.push(wait);
            assert!((low..=high).contains(&wait) && wait.is_multiple_of(10), "{wait} ms");
        }
        waits.sort_unstable();
        waits.dedup();
        assert!(waits.len() > 5, "{waits:?}");
    }
}

#[test]
fn f16_a_peer_in_trouble_is_asked_again_inside_the_interval() {
    for status in [500, 503, 504] {
        let (mut sim, _) = turned_down(Rules::default(), true, &[Reply::Status(status, "Retry-After: 30 (busy)\r\n")]);
        sim.secs(29);
        assert_eq!(sim.ours().len(), 1);
        sim.secs(2);
        assert_eq!((sim.ours().len(), sim.count(RefreshSucceeded), sim.count(RefreshFailed)), (2, 1, 0));
        let (mut sim, _) = turned_down(Rules::default(), true, &vec![Reply::Status(status, ""); 3]);
        sim.secs(60);
        let at: Vec<_> = sim.ours().iter().map(|seen| seen.at).collect();
        let waits: Vec<_> = at.windows(2).map(|pair| pair[1].since(pair[0]).as_secs()).collect();
        assert_eq!(waits, [2, 4, 8]);
        sim.assert_numbers();
    }
}

#[test]
fn f16_a_retry_after_beyond_the_interval_is_cut_to_fit() {
    let (mut sim, _) = turned_down(Rules::default(), true, &[Reply::Status(503, "Retry-After: 4000000000\r\n")]);
    sim.secs(899);
    assert_eq!(sim.count(RefreshSucceeded), 1);
}

#[test]
fn r42_a_peer_that_stays_in_trouble_gets_no_more_than_sixteen_requests_an_interval() {
    let mut sim = Sim::new(Action::Refresh);
    sim.usual = Reply::Status(491, "");
    sim.call("a", Side::Server, UAC_1800);
    sim.secs(1799);
    assert_eq!((sim.ours().len(), refused(&sim)), (16, ("too_many_attempts", Some(491))));
    assert_eq!(sim.count(RefreshFailed), 1);
}

#[test]
fn f07_an_update_that_is_not_implemented_is_followed_by_a_reinvite_and_not_tried_again_there() {
    for status in [405, 501] {
        let (mut sim, _) = turned_down(Rules::default(), true, &[Reply::Status(status, "")]);
        assert_eq!(sim.methods(), [MethodName::Update, MethodName::Invite]);
        assert_eq!(sim.count(RefreshSucceeded), 1);
        sim.secs(900);
        assert_eq!(sim.methods()[2..], [MethodName::Invite]);
        sim.call("b", Side::Server, UAC_1800);
        sim.secs(900);
        assert_eq!(sim.methods().iter().filter(|method| **method == MethodName::Update).count(), 1, "the same peer");
        sim.assert_numbers();
    }
}

#[test]
fn f07_that_update_is_not_implemented_is_learnt_from_a_late_answer_too() {
    let (mut sim, _) = turned_down(Rules::default(), true, &[Reply::Silence, Reply::Silence, Reply::Ok]);
    sim.secs(33);
    assert_eq!(sim.methods(), [MethodName::Update, MethodName::Invite]);
    let update = sim.ours()[0].clone();
    sim.reply_again(&update, &Reply::Status(501, ""));
    sim.secs(32);
    assert_eq!(sim.methods()[2..], [MethodName::Invite], "after the re-INVITE it would be UPDATE's turn");
}

#[test]
fn r35_an_update_that_is_refused_otherwise_is_followed_by_one_reinvite() {
    for status in [403, 415, 488, 606] {
        let (sim, _) = turned_down(Rules::default(), true, &[Reply::Status(status, "")]);
        assert_eq!(sim.methods(), [MethodName::Update, MethodName::Invite], "{status}");
        assert_eq!(sim.count(RefreshSucceeded), 1);
        let (mut sim, _) = turned_down(Rules::default(), true, &[Reply::Status(status, ""), Reply::Status(status, "")]);
        sim.secs(800);
        assert_eq!((sim.ours().len(), refused(&sim)), (2, ("refused", Some(status))));
        let (sim, _) =
            turned_down(Rules { method: Method::Update, ..Rules::default() }, true, &[Reply::Status(status, "")]);
        assert_eq!((sim.ours().len(), refused(&sim)), (1, ("refused", Some(status))));
        let (sim, _) = turned_down(Rules::default(), false, &[Reply::Status(status, "")]);
        assert_eq!((sim.methods(), refused(&sim)), (vec![MethodName::Invite], ("refused", Some(status))));
    }
}

#[test]
fn a_redirection_is_never_followed() {
    for status in [300, 302] {
        let (mut sim, _) =
            turned_down(Rules::default(), true, &[Reply::Status(status, "Contact: <sip:evil@203.0.113.66>\r\n")]);
        sim.secs(20);
        assert_eq!((sim.ours().len(), refused(&sim)), (1, ("refused", Some(status))));
        assert_eq!(sim.last(RefreshFailed).method, Some("UPDATE"));
        // R15: whatever came before it, a 2xx extends.
        let update = sim.ours()[0].clone();
        sim.reply_again(&update, &Reply::Ok);
        assert_eq!((sim.count(RefreshSucceeded), sim.count(SessionRefreshed)), (1, 1));
    }
}

#[test]
fn r34_f15_a_481_is_definite_and_nobody_hangs_up() {
    let (mut sim, _) = turned_down(Rules::default(), true, &[Reply::Status(481, "")]);
    sim.secs(1_000);
    assert_eq!((sim.ours().len(), refused(&sim)), (1, ("peer_lost_dialog", Some(481))));
    assert_eq!(sim.count(SessionEnded), 0, "F15: nobody hung up");
    assert_eq!(sim.count(SessionExpired), 1);
}

#[test]
fn f07_r37_an_update_without_an_answer_is_sent_again_and_followed_by_a_reinvite_in_time() {
    let (mut sim, mut call) = turned_down(Rules::default(), true, &[Reply::Silence]);
    sim.secs(31);
    assert_eq!(sim.methods(), [MethodName::Update]);
    let copies: Vec<_> =
        sim.seen.iter().filter(|seen| seen.ours).map(|seen| seen.at.since(sim.ours()[0].at).as_millis()).collect();
    assert_eq!(copies[..6], [0, 500, 1_500, 3_500, 7_500, 11_500], "R37: T1 to T2");
    sim.secs(2);
    assert_eq!(sim.methods(), [MethodName::Update, MethodName::Invite]);
    assert_eq!(sim.count(RefreshSucceeded), 1);
    for _ in 0..2 {
        sim.secs(900);
        assert_eq!(sim.methods().last(), Some(&MethodName::Invite), "remembered");
    }
    assert_eq!(sim.ours().len(), 4);
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn f21_with_little_time_left_the_reinvite_follows_sooner() {
    let mut sim = Sim::new(Action::Refresh);
    sim.replies.push_back(Reply::Silence);
    sim.call("a", Side::Server, UAC_90);
    // The deadline is at 60 s, the UPDATE at 45 s.
    sim.secs(49);
    assert_eq!(sim.methods(), [MethodName::Update]);
    sim.secs(2);
    assert_eq!(sim.methods(), [MethodName::Update, MethodName::Invite]);
}

#[test]
fn r37_an_update_that_no_reinvite_can_follow_is_given_its_whole_transaction() {
    let only_update = Rules { method: Method::Update, action: Action::Refresh, ..Rules::default() };
    for (rules, body) in [(only_update, sdp(Side::Server)), (sim::rules(Action::Refresh), String::new())] {
        let mut sim = Sim::with(rules);
        sim.usual = Reply::Silence;
        let mut call = sim::Call::new("a", Side::Server);
        sim.invite(&mut call, &manners(Side::Server, true), &body);
        sim.answer(&call, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
        sim.ack(&mut call);
        // From 45 s on, with the deadline at 60 s.
        sim.secs(76);
        assert_eq!(sim.methods(), [MethodName::Update]);
        sim.secs(1);
        assert_eq!(sim.methods(), [MethodName::Update; 2]);
    }
}

#[test]
fn a_late_answer_to_an_update_that_was_given_up_counts() {
    let (mut sim, _) = turned_down(Rules::default(), true, &[Reply::Silence, Reply::Silence]);
    sim.secs(33);
    assert_eq!(sim.methods(), [MethodName::Update, MethodName::Invite]);
    let update = sim.ours()[0].clone();
    sim.reply_again(&update, &Reply::Ok);
    assert_eq!(sim.last(RefreshSucceeded).method, Some("UPDATE"));
    assert_eq!(sim.count(SessionRefreshed), 1);
    sim.secs(840);
    assert_eq!(sim.count(RefreshFailed), 0, "the re-INVITE's silence decides nothing any more");
}

#[test]
fn r39_silence_is_tried_again_until_the_interval_is_over_then_told_and_nobody_hangs_up() {
    let mut sim = Sim::new(Action::Refresh);
    sim.usual = Reply::Silence;
    sim.call("a", Side::Server, "Session-Expires: 300;refresher=uac\r\n");
    sim.secs(299);
    assert_eq!(sim.methods()[..3], [MethodName::Update, MethodName::Invite, MethodName::Update]);
    assert_eq!(sim.count(RefreshFailed), 0);
    sim.secs(2);
    assert_eq!(refused(&sim), ("no_answer", None));
    let tail: Vec<EventKind> = sim.kinds().into_iter().filter(|kind| kind.is_alert()).collect();
    assert_eq!(tail, [SessionExpiring, RefreshFailed, SessionExpired]);
    let count = sim.seen.len();
    sim.secs(600);
    assert_eq!(sim.seen.len(), count, "nothing after that");
    sim.assert_numbers();
}

#[test]
fn a_408_is_followed_by_the_other_method() {
    let (mut sim, _) = turned_down(Rules::default(), true, &[Reply::Status(408, "")]);
    sim.secs(5);
    assert_eq!(sim.methods(), [MethodName::Update, MethodName::Invite]);
    assert_eq!(sim.count(RefreshSucceeded), 1);
}

#[test]
fn r17_the_min_se_of_a_422_that_comes_after_the_fallback_is_remembered() {
    let mut sim = Sim::new(Action::Refresh);
    sim.replies = [Reply::Silence, Reply::Status(491, "")].into_iter().collect();
    sim.call("a", Side::Server, UAC_90);
    sim.secs(51);
    assert_eq!(sim.methods(), [MethodName::Update, MethodName::Invite]);
    let update = sim.ours()[0].clone();
    sim.reply_again(&update, &Reply::Status(422, "Min-SE: 120\r\n"));
    sim.secs(5);
    assert!(sim.ours()[2].text.contains("Session-Expires: 120;refresher=uac\r\nMin-SE: 120\r\n"));
}

#[test]
fn f23_a_reinvite_that_rings_for_ever_is_cancelled_and_a_late_2xx_is_still_acked() {
    let (mut sim, mut call) = turned_down(Rules::default(), false, &[Reply::Rings]);
    let invite = sim.ours()[0].clone();
    sim.secs(31);
    assert_eq!(sim.seen.iter().filter(|seen| seen.ours).count(), 1, "R37: a provisional response ends the copies");
    sim.secs(2);
    let cancel = sim.seen.last().unwrap().clone();
    assert_eq!((cancel.method, &cancel.branch, cancel.number), (MethodName::Cancel, &invite.branch, invite.number));
    sim.reply_again(&invite, &Reply::Ok);
    let ack = sim.seen.last().unwrap();
    assert_eq!((ack.method, ack.number), (MethodName::Ack, invite.number));
    assert_eq!(sim.count(RefreshSucceeded), 1);
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn a_failure_names_the_method_that_was_tried_in_its_interval() {
    let floor = Duration::from_secs(4);
    let mut sim =
        Sim::with(Rules { interval_floor: floor, min_se: floor, action: Action::Refresh, ..Rules::default() });
    sim.expires = "Session-Expires: 20;refresher=uac\r\n";
    sim.call("a", Side::Server, sim.expires);
    sim.secs(11);
    assert_eq!(sim.count(RefreshSucceeded), 1);
    sim.refusal = Some(Refusal::ServerGone);
    sim.secs(10);
    assert_eq!((refused(&sim), sim.last(RefreshFailed).method), (("server_gone", None), None));
}

#[test]
fn r33_a_cancelled_reinvite_is_acked_and_something_else_is_tried() {
    let (mut sim, _) = turned_down(Rules::default(), false, &[Reply::Rings]);
    let invite = sim.ours()[0].clone();
    sim.secs(33);
    sim.reply_again(&invite, &Reply::Status(487, ""));
    let ack = sim.seen.last().unwrap();
    assert_eq!((ack.method, &ack.branch), (MethodName::Ack, &invite.branch), "R33");
    // The 200 to the CANCEL comes again: the INVITE is over all the same.
    let cancel = sim.seen.iter().find(|seen| seen.method == MethodName::Cancel).unwrap().clone();
    sim.reply_again(&cancel, &Reply::Status(200, ""));
    assert!(!sim.engine.is_inviting());
    sim.secs(5);
    assert_eq!(sim.count(RefreshSucceeded), 1);
}

#[test]
fn r32_f13_every_copy_of_the_2xx_is_acked_alike_for_as_long_as_copies_can_come() {
    let (mut sim, _) = turned_down(Rules::default(), false, &[]);
    let invite = sim.ours()[0].clone();
    for wait in [0, 1, 2, 4, 4, 4, 4, 4, 4] {
        sim.secs(wait);
        sim.reply_again(&invite, &Reply::Ok);
    }
    let acks: Vec<_> = sim.seen.iter().filter(|seen| seen.method == MethodName::Ack && seen.ours).collect();
    assert_eq!(acks.len(), 10);
    assert!(acks.iter().all(|ack| ack.text == acks[0].text && ack.number == invite.number), "R32");
    assert_eq!((sim.count(RefreshSucceeded), sim.count(SessionRefreshed)), (1, 1));
    sim.secs(40);
    assert_eq!(sim.kernel.holds().0, 0, "both tokens are off the record");
}

#[test]
fn r43_answers_count_only_from_where_the_request_went() {
    let (sim, _) = turned_down(Rules::default(), true, &[Reply::Foreign]);
    assert_eq!((sim.count(RefreshSucceeded), sim.engine.stats().foreign_answers), (0, 1));
}

#[test]
fn r44_a_2xx_to_a_reinvite_is_acked_wherever_it_comes_from_and_the_ack_goes_to_the_hop() {
    let (sim, _) = turned_down(Rules::default(), false, &[Reply::Foreign]);
    assert_eq!((sim.count(RefreshSucceeded), sim.engine.stats().foreign_answers), (0, 1));
    let acks: Vec<_> = sim.seen.iter().filter(|seen| seen.method == MethodName::Ack && seen.ours).collect();
    assert_eq!(acks.len(), 1, "all that the peer sees comes by the hop");
}

#[test]
fn r43_a_provisional_response_from_elsewhere_is_not_acked() {
    let (mut sim, _) = turned_down(Rules::default(), false, &[Reply::Silence]);
    let invite = sim.ours()[0].clone();
    sim.reply_again(&invite, &Reply::ForeignRings);
    assert_eq!(sim.engine.stats().foreign_answers, 1);
    assert!(sim.seen.iter().all(|seen| seen.method != MethodName::Ack || !seen.ours));
}

#[test]
fn an_answer_that_names_another_method_than_its_request_is_counted_and_nothing_else() {
    let (mut sim, _) = turned_down(Rules::default(), false, &[Reply::Silence]);
    let mut wrong = sim.ours()[0].clone();
    wrong.text = wrong.text.replace(" INVITE\r\n", " UPDATE\r\n");
    sim.reply_again(&wrong, &Reply::Ok);
    assert_eq!((sim.count(RefreshSucceeded), sim.engine.stats().unknown_answers), (0, 1));
    // An ACK has no answer.
    let invite = sim.ours()[0].clone();
    sim.reply_again(&invite, &Reply::Ok);
    let ack = sim.seen.last().expect("the ACK").clone();
    assert_eq!(ack.method, MethodName::Ack);
    sim.reply_again(&ack, &Reply::Ok);
    assert_eq!((sim.count(RefreshSucceeded), sim.engine.stats().unknown_answers), (1, 2));
}

#[test]
fn a_copy_that_cannot_be_sent_leaves_its_request_on_record() {
    let (mut sim, _) = turned_down(Rules::default(), true, &[Reply::Silence]);
    let update = sim.ours()[0].clone();
    sim.refused = Some(Refusal::Send);
    sim.secs(2);
    sim.reply_again(&update, &Reply::Ok);
    assert_eq!((sim.ours().len(), sim.count(RefreshSucceeded)), (1, 1));
}

#[test]
fn a_refresh_that_the_kernel_drops_is_not_one_that_left() {
    let (mut sim, _) = turned_down(Rules::default(), true, &[Reply::Silence]);
    // Of a token that is none of this dialog's.
    sim.command(Command::Refused { token: 5, refusal: Refusal::ServerGone });
    let update = sim.ours()[0].clone();
    sim.reply_again(&update, &Reply::Ok);
    assert_eq!((sim.count(RefreshSucceeded), sim.count(RefreshFailed)), (1, 0));
}

#[test]
fn an_answer_to_a_token_that_nobody_knows_is_counted() {
    let (mut sim, _) = turned_down(Rules::default(), true, &[Reply::Silence]);
    let mut guessed = sim.ours()[0].clone();
    guessed.text = guessed.text.replace(&guessed.branch, "z9hG4bKsipst0123456789abcdef");
    sim.reply_again(&guessed, &Reply::Ok);
    assert_eq!((sim.count(RefreshSucceeded), sim.engine.stats().unknown_answers), (0, 1));
}

/// The peer's headers and its answer to a re-INVITE: each kind of answer that is not where its media were.
fn moves() -> Vec<(&'static str, String, String)> {
    let (headers, body) = (manners(Side::Peer, false), sdp(Side::Peer));
    let other = |what, answer: String| (what, headers.clone(), answer);
    vec![
        other("port", body.replace("6000", "6002")),
        other("address", body.replace("c=IN IP4 198.51.100.20", "c=IN IP4 198.51.100.99")),
        other("codec", body.replace("RTP/AVP 0 8", "RTP/AVP 9")),
        other("direction", body.clone() + "a=sendonly\r\n"),
        other(
            "crypto",
            body.clone() + "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\n",
        ),
        other("fingerprint", body.clone() + "a=fingerprint:sha-256 AA:BB\r\n"),
        other("ICE", body.clone() + "a=ice-ufrag:F7gI\r\na=ice-pwd:x9cml/YzichV2+XlhiMu8g\r\n"),
        ("Contact", headers.replace("20:5060", "20:5099"), body.clone()),
    ]
}

#[test]
fn f09_an_answer_that_moves_the_media_is_told_and_no_reinvite_goes_there_again() {
    for (what, headers, body) in moves() {
        let (mut sim, _) = turned_down(Rules::default(), false, &[Reply::OkWith(headers + UAC_1800, body)]);
        assert_eq!(sim.reasons(NegotiationFault), ["answer_moved_media"], "{what}");
        assert_eq!(sim.count(RefreshSucceeded), 1, "{what}");
        sim.secs(900);
        assert_eq!((sim.ours().len(), refused(&sim)), (1, ("no_method", None)), "{what}");
        // Nor in any other call with it.
        let mut other = sim::Call::new("b", Side::Server);
        sim.establish(&mut other, UAC_1800, false);
        sim.secs(901);
        assert_eq!((sim.ours().len(), refused(&sim)), (1, ("no_method", None)), "{what}");
    }
}

#[test]
fn f10_an_answer_of_which_not_all_can_be_read_bars_reinvites_until_both_sides_say_it_whole() {
    let multipart = "Content-Type: multipart/mixed;boundary=x\r\n".to_string();
    let long = "x".repeat(8_192);
    for (what, extra, body) in [
        ("multipart", multipart, sdp(Side::Peer)),
        ("cut", "l: 9999\r\n".into(), sdp(Side::Peer)),
        ("too long", String::new(), format!("{}a={long}\r\n", sdp(Side::Peer))),
    ] {
        let headers = manners(Side::Peer, false) + UAC_1800 + &extra;
        let (mut sim, mut call) = turned_down(Rules::default(), false, &[Reply::OkWith(headers, body)]);
        assert_eq!((sim.count(RefreshSucceeded), sim.count(NegotiationFault)), (1, 0), "{what}");
        sim.secs(900);
        assert_eq!((sim.ours().len(), refused(&sim)), (1, ("no_method", None)), "{what}");
        // A whole one of each side's.
        let asked = sim.request(&mut call, Side::Server, "INVITE", &manners(Side::Server, false), &sdp(Side::Server));
        let answer = manners(Side::Peer, false) + UAC_1800;
        sim.respond_with(&call, Side::Server, &asked, "INVITE", 200, &answer, &sdp(Side::Peer));
        let branch = call.branch();
        let text = call.request(Side::Server, "ACK", asked.0, &branch, true, "", "");
        sim.wire(Side::Server, text.into_bytes());
        sim.secs(1_200);
        assert_eq!((sim.ours().len(), sim.count(RefreshSucceeded)), (2, 2), "{what}");
        sim.assert_numbers();
    }
}

#[test]
fn f22_f11_where_a_reinvite_would_disturb_the_media_only_update_is_used() {
    let held = sdp(Side::Peer) + "a=sendonly\r\n";
    let fax = sdp(Side::Peer).replace("m=audio 6000 RTP/AVP 0 8", "m=image 6000 udptl t38");
    for body in [held, fax] {
        let mut sim = Sim::new(Action::Refresh);
        let mut call = sim::Call::new("a", Side::Server);
        sim.establish(&mut call, UAC_1800, false);
        let asked = sim.request(&mut call, Side::Peer, "INVITE", &manners(Side::Peer, false), &body);
        sim.respond_with(&call, Side::Peer, &asked, "INVITE", 200, &manners(Side::Server, false), &sdp(Side::Server));
        let text = call.request(Side::Peer, "ACK", asked.0, "z9hG4bKack", true, "", "");
        sim.wire(Side::Peer, text.into_bytes());
        sim.secs(901);
        assert_eq!((sim.ours().len(), refused(&sim)), (0, ("no_method", None)), "{body}");
    }
}

#[test]
fn f08_the_sdp_in_force_is_replayed_and_a_refused_offer_is_not() {
    for (status, replayed) in [(488, sdp(Side::Server)), (200, sdp(Side::Server).replace("4000", "4444"))] {
        let mut sim = Sim::new(Action::Refresh);
        let mut call = sim::Call::new("a", Side::Server);
        sim.establish(&mut call, UAC_1800, false);
        let offer = sdp(Side::Server).replace("4000", "4444");
        let asked = sim.request(&mut call, Side::Server, "INVITE", &manners(Side::Server, false), &offer);
        let answer = if status == 200 { sdp(Side::Peer) } else { String::new() };
        sim.respond_with(&call, Side::Server, &asked, "INVITE", status, &manners(Side::Peer, false), &answer);
        let branch = if status == 200 { "z9hG4bKack".into() } else { asked.1.clone() };
        let text = call.request(Side::Server, "ACK", asked.0, &branch, true, "", "");
        sim.wire(Side::Server, text.into_bytes());
        sim.secs(901);
        assert!(sim.ours()[0].text.ends_with(&format!("\r\n\r\n{replayed}")), "{status}");
    }
}

#[test]
fn f10_without_a_whole_sdp_of_the_servers_there_is_no_reinvite() {
    let multipart = "Content-Type: multipart/mixed;boundary=x\r\n";
    for (extra, body) in [(multipart, sdp(Side::Server)), ("", String::new())] {
        let mut sim = Sim::new(Action::Refresh);
        let mut call = sim::Call::new("a", Side::Server);
        sim.invite(&mut call, &(manners(Side::Server, false) + extra), &body);
        sim.answer(&call, 200, &(manners(Side::Peer, false) + UAC_1800), &sdp(Side::Peer));
        let text = call.request(Side::Server, "ACK", 1, "z9hG4bKack", true, "", "");
        sim.wire(Side::Server, text.into_bytes());
        sim.secs(901);
        assert_eq!((sim.ours().len(), refused(&sim)), (0, ("no_method", None)));
    }
}

#[test]
fn the_answer_in_the_ack_to_an_offer_in_the_2xx_is_the_servers_last_sdp() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim::Call::new("a", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, false), "");
    sim.answer(&call, 200, &(manners(Side::Peer, false) + UAC_1800), &sdp(Side::Peer));
    let text = call.request(Side::Server, "ACK", 1, "z9hG4bKack", true, "", &sdp(Side::Server));
    sim.wire(Side::Server, text.into_bytes());
    sim.secs(901);
    assert!(sim.ours()[0].text.ends_with(&sdp(Side::Server)));
    assert_eq!(sim.count(RefreshSucceeded), 1);
}

#[test]
fn method_update_never_sends_a_reinvite_and_method_reinvite_never_an_update() {
    let (mut sim, _) = turned_down(Rules { method: Method::Reinvite, ..Rules::default() }, true, &[]);
    assert_eq!(sim.methods(), [MethodName::Invite]);
    sim.usual = Reply::Silence;
    sim.secs(1_800);
    assert!(sim.methods().iter().all(|method| *method == MethodName::Invite));
    let (mut sim, _) =
        turned_down(Rules { method: Method::Update, ..Rules::default() }, false, &vec![Reply::Silence; 9]);
    sim.secs(890);
    assert!(sim.methods().len() > 1 && sim.methods().iter().all(|method| *method == MethodName::Update));
}

#[test]
fn a_refresh_of_the_servers_own_meanwhile_ends_the_attempt() {
    let mut sim = Sim::new(Action::Refresh);
    sim.usual = Reply::Status(503, "Retry-After: 20\r\n");
    let mut call = sim.call("a", Side::Server, UAC_1800);
    sim.secs(905);
    let asked = sim.request(&mut call, Side::Server, "UPDATE", "", "");
    sim.respond(&call, Side::Server, &asked, "UPDATE", 200, UAC_1800);
    sim.secs(890);
    assert_eq!(sim.ours().len(), 1);
    sim.assert_numbers();
}

#[test]
fn what_is_sent_reads_back_as_it_was_meant() {
    let (sim, _) = turned_down(Rules { min_se: Duration::from_secs(120), ..Rules::default() }, true, &[]);
    let text = sim.ours()[0].text.clone();
    let message = Message::scan(text.as_bytes(), false).unwrap();
    assert_eq!(message.min_se(), Some(120));
    assert_eq!(message.session_expires().unwrap().unwrap().interval_s, 1800);
    assert_eq!(message.lines(HeaderName::Supported).count(), 1);
}
