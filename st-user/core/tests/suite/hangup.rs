//! `on_expired: bye`: who has expired, says nothing and sends no media is hung up on, on both sides, and nobody else ever.

use std::time::Duration;

use crate::sim::{self, Call, Reply, Sim, Step, disk::Disk, manners, sdp};
use st_core::{
    Action, Command, Credentials,
    EventKind::*,
    OnExpired, Policy, Rate, Refusal, Rules, SessionId, Side,
    engine::{Limits, Mode, Wish, record::Unrecorded},
    message::{HeaderName, Message, MethodName},
};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAS_90: &str = "Session-Expires: 90;refresher=uas\r\n";
/// Where the server's SDP says that its media are.
const FLOW: &str = "192.0.2.10:4000";
/// An interval and the grace: 32 s.
const QUIET: u64 = 90 + 32;

fn rules() -> Rules {
    Rules { action: Action::Refresh, on_expired: OnExpired::Bye, ..Rules::default() }
}

/// RTP both ways for so long.
fn talk(sim: &mut Sim, seconds: u64) {
    for _ in 0..seconds {
        sim.rtp(FLOW);
        sim.rtp_in(FLOW);
        sim.secs(1);
    }
}

/// A call whose peer has to refresh and does not, and which has died after ten seconds of RTP; it is not over yet.
fn dead(rules: Rules) -> (Sim, Call) {
    let mut sim = Sim::with(rules);
    let call = sim.call("a", Side::Server, UAS_90);
    talk(&mut sim, 10);
    (sim, call)
}

/// No BYE to either side.
const NONE: [Vec<u32>; 2] = [Vec::new(), Vec::new()];

/// Methods and numbers of what sipst sent to each side to end calls, copies left out.
fn byes(sim: &Sim) -> [Vec<u32>; 2] {
    let is_bye = |seen: &&sim::Seen| seen.ours && !seen.copy && seen.method == MethodName::Bye;
    [&sim.seen, &sim.told].map(|all| all.iter().filter(is_bye).map(|seen| seen.number).collect())
}

fn none(sim: &Sim, what: &str) {
    assert_eq!(byes(sim), NONE, "{what}: {:?}", sim.kinds());
    assert!(sim.injected.iter().all(|inject| !inject.bytes.starts_with(b"BYE")), "{what}");
    assert_eq!(sim.count(ByeSent), 0, "{what}");
}

#[test]
fn a_call_that_an_operator_holds_is_not_hung_up() {
    let (mut sim, _) = dead(rules());
    sim.engine.handle_wish(sim.now, SessionId(1), Wish::Hold).unwrap();
    sim.settle();
    sim.secs(2 * QUIET);
    none(&sim, "held");
    assert_eq!(sim.count(SessionExpired), 1);
}

#[test]
fn r39_a_call_in_which_nobody_is_left_is_hung_up_on_both_sides_with_the_next_number_of_each() {
    for (caller, expires) in
        [(Side::Server, UAS_90), (Side::Server, UAC_90), (Side::Peer, UAS_90), (Side::Peer, UAC_90)]
    {
        let mut sim = Sim::with(rules());
        sim.usual = Reply::Silence;
        let mut call = sim.call("a", caller, expires);
        for side in [Side::Server, Side::Peer] {
            let asked = sim.request(&mut call, side, "INFO", "", "");
            sim.respond(&call, side, &asked, "INFO", 200, "");
        }
        talk(&mut sim, 10);
        sim.secs(QUIET - 11);
        none(&sim, "too early");
        let ours = u32::try_from(sim.ours().len()).unwrap();
        sim.secs(2);
        let what = format!("{caller:?} {expires}: {:?}", sim.kinds());
        assert_eq!(byes(&sim), [vec![call.number + ours], vec![call.peer_number]], "{what}");
        sim.assert_numbers();
        for (bye, from, to, host) in [
            (sim.seen.last().unwrap(), &call.local, &call.remote, "192.0.2.10:5060"),
            (sim.told.last().unwrap(), &call.remote, &call.local, "198.51.100.20:5060"),
        ] {
            let bye = Message::scan(bye.text.as_bytes(), false).unwrap();
            assert_eq!(bye.from().and_then(|from| from.tag), Some(from.as_bytes()), "{what}");
            assert_eq!(bye.to().and_then(|to| to.tag), Some(to.as_bytes()), "{what}");
            assert_eq!(bye.top_via().map(|via| via.sent_by), Some(host.as_bytes()), "{what}");
            let reason = bye.first(HeaderName::Reason);
            assert_eq!(reason, Some(&b"SIP;cause=408;text=\"Session timeout\""[..]), "{what}");
        }
        assert_eq!(sim.reasons(ByeSent), ["expired", "expired"], "{what}");
        assert_eq!((sim.reasons(SessionEnded), sim.count(ByeFailed)), (vec!["expired".into()], 0), "{what}");
        assert_eq!(sim.count(SessionExpired), 1, "{what}");
        assert!(sim.flows.is_empty(), "{what}");
        let injected = sim.injected.len();
        sim.secs(700);
        assert_eq!((sim.kernel.holds(), sim.injected.len()), ((0, 0), injected), "{what}");
    }
}

#[test]
fn a_long_interval_has_a_tenth_of_it_for_peers_that_wait_longer() {
    let mut sim = Sim::with(rules());
    sim.call("a", Side::Server, "Session-Expires: 1800;refresher=uas\r\n");
    talk(&mut sim, 10);
    sim.secs(1_800 + 180 - 11);
    none(&sim, "too early");
    sim.secs(2);
    assert_eq!(byes(&sim).map(|byes| byes.len()), [1, 1]);
}

#[test]
fn the_default_is_an_alert_and_a_rule_that_lacks_what_it_needs_sends_nothing() {
    for rules in [
        Rules { on_expired: OnExpired::Alert, ..rules() },
        Rules { media_evidence: false, ..rules() },
        Rules { action: Action::Alert, ..rules() },
        Rules { action: Action::Observe, ..rules() },
    ] {
        let (mut sim, _) = dead(rules.clone());
        sim.secs(3_000);
        none(&sim, &format!("{rules:?}"));
        assert!(sim.arms.is_empty() && sim.kernel.holds() == (0, 0));
        assert_eq!(sim.count(SessionExpired), usize::from(rules.action != Action::Observe));
        assert_eq!((sim.count(ByeFailed), sim.count(ExpiredMediaFlowing)), (0, 0));
    }
}

#[test]
fn f24_media_either_way_are_an_event_of_their_own_and_nothing_is_sent_as_long_as_they_flow() {
    for (left, came) in [(true, true), (true, false), (false, true)] {
        for on_expired in [OnExpired::Alert, OnExpired::Bye] {
            // The server is the refresher: so its media are watched whatever the rule.
            let mut sim = Sim::with(Rules { on_expired, ..rules() });
            sim.usual = Reply::Silence;
            sim.call("a", Side::Server, UAC_90);
            talk(&mut sim, 10);
            for _ in 0..600 {
                if left {
                    sim.rtp(FLOW);
                }
                if came {
                    sim.rtp_in(FLOW);
                }
                sim.secs(1);
            }
            none(&sim, "media flow");
            assert_eq!((sim.count(ExpiredMediaFlowing), sim.count(SessionExpired)), (1, 1), "told once");
            sim.secs(58);
            none(&sim, "for less than 60 s nothing was seen");
            sim.secs(3);
            let expected = usize::from(on_expired == OnExpired::Bye);
            assert_eq!(byes(&sim).map(|byes| byes.len()), [expected, expected], "{left} {came} {on_expired:?}");
        }
    }
}

/// One side asks for a direction of the media, and the other agrees.
fn direction(sim: &mut Sim, call: &mut Call, side: Side, asked: &str, answered: &str) {
    let with = |side, attribute| format!("{}{attribute}\r\n", sdp(side));
    let request = sim.request(call, side, "INVITE", &manners(side, true), &with(side, asked));
    let other = side.other();
    let headers = manners(other, true) + UAS_90;
    sim.respond_with(call, side, &request, "INVITE", 200, &headers, &with(other, answered));
    let branch = call.branch();
    let ack = call.request(side, "ACK", request.0, &branch, true, "", "");
    sim.wire(side, ack.into_bytes());
}

#[test]
fn f11_on_hold_silence_is_nothing_whoever_holds_and_however() {
    for (side, asked, answered) in [
        (Side::Peer, "a=sendonly", "a=recvonly"),
        (Side::Server, "a=sendonly", "a=recvonly"),
        (Side::Peer, "a=inactive", "a=inactive"),
        (Side::Server, "a=inactive", "a=inactive"),
        // An older way, and an answer that does not say what it should.
        (Side::Peer, "c=IN IP4 0.0.0.0", "a=sendrecv"),
        (Side::Peer, "a=sendonly", "a=sendrecv"),
    ] {
        let (mut sim, mut call) = dead(rules());
        direction(&mut sim, &mut call, side, asked, answered);
        sim.usual = Reply::Silence;
        sim.secs(3_000);
        none(&sim, asked);
        assert_eq!(sim.reasons(ByeFailed), ["on_hold"], "{side:?} {asked}: told once");
    }
}

#[test]
fn media_that_were_not_seen_both_ways_or_may_go_elsewhere_prove_nothing() {
    let without = |left: bool, came: bool, lines: &str| {
        let mut sim = Sim::with(rules());
        let mut call = Call::new("a", Side::Server);
        sim.invite(&mut call, &manners(Side::Server, true), &format!("{}{lines}", sdp(Side::Server)));
        sim.answer(&call, 200, &(manners(Side::Peer, true) + UAS_90), &format!("{}{lines}", sdp(Side::Peer)));
        sim.ack(&mut call);
        if left {
            sim.rtp(FLOW);
        }
        if came {
            sim.rtp_in(FLOW);
        }
        sim.secs(3_000);
        none(&sim, lines);
        assert_eq!(sim.reasons(ByeFailed), ["media_unknown"], "{left} {came} {lines}");
    };
    for (left, came) in [(false, false), (true, false), (false, true)] {
        without(left, came, "");
    }
    for lines in ["a=ice-ufrag:x\r\n", "c=IN IP4 media.example\r\n", "m=image 4002 udptl t38\r\n"] {
        without(true, true, lines);
    }
    // Nobody has said where they go.
    let mut sim = Sim::with(rules());
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, true), "");
    sim.answer(&call, 200, &(manners(Side::Peer, true) + UAS_90), "");
    sim.ack(&mut call);
    sim.secs(3_000);
    none(&sim, "no SDP");
    assert_eq!(sim.reasons(ByeFailed), ["media_unknown"]);
}

#[test]
fn any_sign_of_life_of_either_side_puts_it_off_by_a_whole_interval() {
    for side in [Side::Server, Side::Peer] {
        for answered in [true, false] {
            let (mut sim, mut call) = dead(rules());
            for _ in 0..20 {
                sim.secs(QUIET - 30);
                let asked = sim.request(&mut call, side, "OPTIONS", "", "");
                if answered {
                    sim.respond(&call, side, &asked, "OPTIONS", 200, "");
                }
            }
            none(&sim, "it speaks");
            assert_eq!(sim.count(SessionExpired), 1);
            sim.secs(QUIET - 1);
            none(&sim, "not yet");
            sim.secs(2);
            assert_eq!(byes(&sim).map(|byes| byes.len()), [1, 1], "{side:?} {answered}");
            sim.assert_numbers();
        }
    }
}

#[test]
fn a_refresh_that_comes_late_is_a_refresh() {
    for side in [Side::Server, Side::Peer] {
        let (mut sim, mut call) = dead(rules());
        sim.secs(QUIET - 12);
        sim.reinvite(&mut call, side, "", UAS_90);
        sim.secs(QUIET - 1);
        none(&sim, "it was refreshed");
        assert_eq!(sim.count(SessionRefreshed), 1);
    }
}

#[test]
fn a_call_that_is_refreshed_and_silent_is_left_alone() {
    let mut sim = Sim::with(Rules { media_evidence: true, ..rules() });
    let mut call = sim.call("a", Side::Server, UAS_90);
    talk(&mut sim, 10);
    for _ in 0..20 {
        sim.secs(60);
        sim.reinvite(&mut call, Side::Peer, "", UAC_90);
    }
    none(&sim, "the peer refreshes");
    assert_eq!((sim.count(SessionExpired), sim.count(ByeFailed)), (0, 0));
}

#[test]
fn whoever_hangs_up_in_time_does_so_alone() {
    for side in [Side::Server, Side::Peer] {
        let (mut sim, mut call) = dead(rules());
        sim.secs(QUIET - 12);
        let asked = sim.request(&mut call, side, "BYE", "", "");
        sim.respond(&call, side, &asked, "BYE", 200, "");
        sim.secs(1_000);
        none(&sim, "it is over");
        assert_eq!(sim.reasons(SessionEnded), ["bye"]);
        assert_eq!(sim.kernel.holds(), (0, 0));
    }
}

#[test]
fn what_the_server_sends_in_the_very_moment_is_a_sign_of_life() {
    for step in [Step::BeforeRead, Step::AfterRead, Step::BeforeCommit] {
        let (mut sim, mut call) = dead(rules());
        sim.secs(QUIET - 12);
        sim.interject = Some((step, call.clone()));
        call.number += 1;
        sim.secs(4);
        assert!(sim.interject.is_none(), "{step:?}");
        assert_eq!(byes(&sim), NONE, "{step:?}: {:?}", sim.kinds());
        sim.secs(QUIET - 8);
        assert_eq!(byes(&sim), NONE, "{step:?}");
        sim.secs(10);
        assert_eq!(byes(&sim).map(|byes| byes.len()), [1, 1], "{step:?}: {:?}", sim.kinds());
        sim.assert_numbers();
    }
}

#[test]
fn once_one_side_is_hung_up_on_the_other_is_whatever_comes() {
    let (mut sim, call) = dead(rules());
    sim.peer_interjects = Some(call.clone());
    sim.secs(QUIET - 9);
    assert!(sim.peer_interjects.is_none());
    sim.secs(5);
    // Above the peer's own request, whose number had moved the count.
    assert_eq!(byes(&sim)[1], [call.peer_number + 1], "{:?}", sim.kinds());
    assert_eq!((sim.reasons(SessionEnded), sim.count(ByeSent)), (vec!["expired".into()], 2));
    sim.assert_numbers();
    sim.secs(700);
    assert_eq!(sim.kernel.holds(), (0, 0));
}

#[test]
fn after_lost_packets_a_blind_moment_or_a_restart_it_is_looked_anew_for_as_long_as_it_takes() {
    // A refresh may have been among what was lost: an interval later there would have been another.
    let (mut sim, _) = dead(rules());
    sim.secs(QUIET - 12);
    sim.command(Command::Loss { packets: 1 });
    sim.secs(QUIET - 1);
    none(&sim, "packets were lost");
    sim.secs(2);
    assert_eq!(byes(&sim).map(|byes| byes.len()), [1, 1]);

    let (mut sim, _) = dead(rules());
    sim.secs(QUIET - 12);
    sim.command(Command::Blind);
    sim.secs(59);
    none(&sim, "media may have gone by unseen");
    sim.secs(2);
    assert_eq!(byes(&sim).map(|byes| byes.len()), [1, 1]);

    for before in [100, 30] {
        let (mut sim, _) = dead(rules());
        sim.engine.follow_changes();
        let mut disk = Disk::default();
        sim.secs(before);
        disk.write(&mut sim.engine);
        sim.restart(&disk, Duration::from_secs(5));
        sim.secs(QUIET - 1);
        if before == 100 {
            none(&sim, "nobody was there");
            sim.secs(2);
            assert_eq!(byes(&sim).map(|byes| byes.len()), [1, 1], "{:?}", sim.kinds());
        } else {
            none(&sim, "that the media had flowed both ways was not known to the one before");
            sim.secs(1_000);
            none(&sim, "and is not known now");
            assert_eq!(sim.reasons(ByeFailed), ["media_unknown"]);
        }
    }
}

#[test]
fn a_call_that_is_passed_on_is_never_hung_up_nor_one_that_is_known_in_part() {
    let (mut sim, mut call) = dead(rules());
    let (branch, number) = (call.branch(), call.next(Side::Server));
    let info =
        call.request(Side::Server, "INFO", number, &branch, true, "Via: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKx\r\n", "");
    sim.wire(Side::Server, info.into_bytes());
    sim.secs(3_000);
    none(&sim, "relayed");

    let mut sim = Sim::with(rules());
    let mut call = Call::new("a", Side::Peer);
    sim.reinvite(&mut call, Side::Peer, "", UAC_90);
    talk(&mut sim, 10);
    sim.secs(3_000);
    none(&sim, "mid-call");
    assert_eq!(sim.reasons(ByeFailed), ["mid_call"]);
}

#[test]
fn a_side_that_has_forgotten_the_call_needs_no_bye() {
    // The peer has answered 481 to a refresh.
    let mut sim = Sim::with(rules());
    sim.usual = Reply::Status(481, "");
    sim.call("a", Side::Server, UAC_90);
    talk(&mut sim, 10);
    sim.secs(45 + QUIET);
    assert_eq!(byes(&sim).map(|byes| byes.len()), [0, 1], "{:?}", sim.kinds());
    // The server one to a request of the peer's.
    let (mut sim, mut call) = dead(rules());
    let asked = sim.request(&mut call, Side::Peer, "INFO", "", "");
    sim.respond(&call, Side::Peer, &asked, "INFO", 481, "");
    sim.secs(QUIET + 1);
    assert_eq!(byes(&sim).map(|byes| byes.len()), [1, 0], "{:?}", sim.kinds());
    // Its socket is gone.
    let (mut sim, _) = dead(rules());
    sim.peer_refusal = Some(Refusal::ServerGone);
    sim.secs(QUIET);
    assert_eq!(byes(&sim).map(|byes| byes.len()), [1, 0]);
    assert_eq!((sim.count(ByeFailed), sim.reasons(SessionEnded)), (0, vec!["expired".into()]));
    assert!(sim.arms.iter().all(|arm| arm.ends));
}

#[test]
fn where_it_cannot_be_sent_it_is_told_and_not_for_ever_tried() {
    for refusal in Refusal::ALL {
        let (mut sim, mut call) = dead(rules());
        sim.refusal = Some(refusal);
        sim.secs(1_000);
        none(&sim, refusal.reason());
        let told = sim.reasons(ByeFailed);
        let expected = if refusal == Refusal::ServerGone { 1 } else { 2 };
        assert_eq!(told, vec![refusal.reason(); expected], "{refusal}");
        assert_eq!(sim.count(SessionEnded), 0, "{refusal}");
        let arms = sim.arms.len();
        assert!(arms < 40, "{refusal}: {arms}");
        sim.secs(1_000);
        assert_eq!(sim.arms.len(), arms, "{refusal}");
        sim.refusal = None;
        sim.hang_up(&mut call);
        sim.secs(700);
        assert_eq!(sim.kernel.holds(), (0, 0), "{refusal}");
    }
    let (mut sim, _) = dead(rules());
    sim.deaf = true;
    sim.secs(1_000);
    none(&sim, "the driver says nothing");
    assert_eq!(sim.reasons(ByeFailed), ["no_numbers", "no_numbers"]);
}

#[test]
fn a_host_that_cannot_send_for_a_moment_hangs_up_later() {
    let (mut sim, _) = dead(rules());
    sim.refused = Some(Refusal::Send);
    sim.secs(QUIET - 9);
    assert_eq!(byes(&sim), NONE);
    sim.refused = None;
    sim.secs(12);
    assert_eq!(byes(&sim).map(|byes| byes.len()), [1, 1], "{:?}", sim.kinds());
    assert_eq!(sim.count(ByeFailed), 0);
    sim.assert_numbers();
}

#[test]
fn r37_a_bye_without_an_answer_is_sent_again_for_a_transaction_and_the_call_is_over_all_the_same() {
    let (mut sim, _) = dead(rules());
    sim.bye_replies = [Reply::Silence].into();
    sim.server_bye_replies = [Reply::Silence].into();
    sim.secs(QUIET - 9);
    assert_eq!(sim.reasons(SessionEnded), ["expired"]);
    sim.secs(40);
    for all in [&sim.seen, &sim.told] {
        let copies: Vec<_> = all.iter().filter(|seen| seen.method == MethodName::Bye).collect();
        // RFC 3261, timer E: after 0.5, 1.5, 3.5 s, and every 4 s from then on.
        assert_eq!(copies.len(), 11);
        assert!(copies.iter().all(|copy| copy.text == copies[0].text));
    }
    let told: Vec<_> = sim.events.iter().filter(|event| event.kind == ByeFailed).collect();
    let reasons: Vec<_> = told.iter().filter_map(|event| event.reason.as_deref()).collect();
    assert_eq!(reasons, ["no_answer: to the peer", "no_answer: to the server"]);
    sim.secs(700);
    assert_eq!(sim.kernel.holds(), (0, 0));
    sim.assert_numbers();
}

#[test]
fn answers_are_good_bad_or_strangers() {
    for (status, failed) in [(200, 0), (481, 0), (408, 1), (500, 1), (603, 1), (302, 1)] {
        let (mut sim, _) = dead(rules());
        sim.bye_replies = [Reply::Status(status, "")].into();
        sim.server_bye_replies = [Reply::Status(status, "")].into();
        sim.secs(QUIET);
        assert_eq!(byes(&sim).map(|byes| byes.len()), [1, 1], "{status}");
        assert_eq!(sim.reasons(ByeFailed), vec!["refused"; failed * 2], "{status}");
        if failed > 0 {
            assert_eq!(sim.last(ByeFailed).status, Some(status));
        }
        assert_eq!(sim.reasons(SessionEnded), ["expired"]);
        let sent = sim.injected.len();
        sim.secs(60);
        assert_eq!(sim.injected.len(), sent, "{status}: no copies");
    }
    let (mut sim, _) = dead(rules());
    sim.bye_replies = [Reply::Foreign].into();
    sim.secs(QUIET + 60);
    assert_eq!((sim.engine.stats().foreign_answers, sim.reasons(ByeFailed)), (1, vec!["no_answer".into()]));
}

#[test]
fn f17_a_challenge_to_the_bye_is_answered_once_with_the_next_number() {
    let challenge = Reply::Status(407, "Proxy-Authenticate: Digest realm=\"r\", nonce=\"n\"\r\n");
    let credentials = Some(Credentials { username: "u".into(), password: "p".into() });
    for (credentials, replies, sent, failed) in [
        (credentials.clone(), vec![challenge.clone()], 2, 0),
        (credentials, vec![challenge.clone(), challenge.clone()], 2, 1),
        (None, vec![challenge], 1, 1),
    ] {
        let (mut sim, call) = dead(Rules { credentials, ..rules() });
        sim.bye_replies = replies.into();
        sim.secs(QUIET);
        let expected: Vec<u32> = (call.number..call.number + sent).collect();
        assert_eq!(byes(&sim)[0], expected);
        assert_eq!(sim.seen.last().unwrap().text.contains("\r\nProxy-Authorization: Digest"), sent == 2);
        assert_eq!(sim.reasons(ByeFailed), vec!["challenged"; failed]);
        assert_eq!((sim.count(SessionEnded), sim.count(ByeSent)), (1, 2));
        sim.assert_numbers();
        sim.secs(700);
        assert_eq!(sim.kernel.holds(), (0, 0));
    }
}

#[test]
fn byes_leave_no_faster_than_refreshes_and_one_whose_media_come_back_meanwhile_is_let_be() {
    let rules = Rules { refresh_rate: Rate::new(1).unwrap(), ..rules() };
    let mut sim = Sim::with(rules);
    let calls: Vec<Call> = (0..5).map(|number| sim.call(&number.to_string(), Side::Server, UAS_90)).collect();
    talk(&mut sim, 10);
    sim.secs(QUIET - 9);
    let before = byes(&sim)[0].len();
    assert!((1..5).contains(&before), "{before}");
    sim.rtp(FLOW);
    sim.secs(20);
    assert_eq!(byes(&sim).map(|byes| byes.len()), [before, before], "they share the flow");
    sim.secs(60);
    assert_eq!(byes(&sim).map(|byes| byes.len()), [5, 5]);
    let times: Vec<_> = sim.seen.iter().filter(|seen| seen.method == MethodName::Bye).map(|seen| seen.at).collect();
    assert!(times.windows(2).all(|two| two[1].since(two[0]) >= Duration::from_secs(1)), "{times:?}");
    assert_eq!(sim.count(SessionEnded), calls.len());
}

#[test]
fn a_full_queue_puts_it_off() {
    let rules = Rules { refresh_rate: Rate::new(1).unwrap(), ..rules() };
    let policy = Policy { default: rules, ..Policy::default() };
    let mut sim = Sim::custom(policy, Mode::Live, Limits { waiting: 1, ..Limits::default() });
    (0..5).for_each(|number| drop(sim.call(&number.to_string(), Side::Server, UAS_90)));
    talk(&mut sim, 10);
    sim.secs(QUIET + 120);
    assert_eq!(byes(&sim).map(|byes| byes.len()), [5, 5]);
    assert_eq!((sim.count(SessionEnded), sim.count(ByeFailed)), (5, 0));
}

#[test]
fn other_rules_hold_from_the_moment_that_they_are_given() {
    let (mut sim, _) = dead(rules());
    sim.secs(QUIET - 12);
    let alert = Policy { default: Rules { on_expired: OnExpired::Alert, ..rules() }, ..Policy::default() };
    sim.set_policy(alert);
    sim.secs(1_000);
    none(&sim, "nobody asks for it any more");
    assert_eq!(sim.count(ByeFailed), 0);
}

#[test]
fn a_capture_is_only_read_and_a_bye_of_sipsts_in_it_ends_the_call() {
    let (mut sim, _) = dead(rules());
    sim.secs(QUIET);
    let tape = sim.tape.clone();
    let policy = Policy { default: rules(), ..Policy::default() };
    let mut replay = Sim::custom(policy, Mode::Replay, Limits::default());
    replay.replay(&tape);
    assert!(replay.arms.is_empty() && replay.injected.is_empty());
    assert_eq!(replay.reasons(SessionEnded), ["expired"]);
    let by = replay.last(SessionEnded).by;
    assert_eq!(by, Some(st_core::By::Sipst));
}

#[test]
fn a_bye_that_left_in_the_last_moment_of_a_daemon_is_not_taken_for_a_refresh() {
    let (mut sim, _) = dead(rules());
    sim.engine.follow_changes();
    let mut disk = Disk::default();
    sim.secs(QUIET - 12);
    disk.write(&mut sim.engine);
    let (engine, restored) = disk.restore(sim.config.clone());
    sim.go_on_with(engine);
    let unrecorded = Unrecorded { token: 7, number: 2, at: sim.now, reinvite: None };
    assert!(!sim.engine.adopt(restored[0].session, unrecorded));
    sim.settle();
    sim.secs(60);
    assert!(sim.ours().is_empty(), "no UPDATE under the BYE's branch");
}

#[test]
fn a_bye_that_only_looks_like_one_of_sipsts_ends_nothing() {
    let mut sim = Sim::with(rules());
    let mut call = sim.call("a", Side::Server, UAC_90);
    sim.secs(46);
    let token = sim.ours()[0].branch.clone();
    let guessed = ["z9hG4bKsipst0123456789abcdef", "z9hG4bKsipsp0123456789abcdef"].map(str::to_owned);
    for branch in guessed.iter().chain([&token]) {
        // From outside: the server answers 481 or nothing, for its numbers are wrong.
        let number = call.next(Side::Peer);
        let bye = call.request(Side::Peer, "BYE", number, branch, true, "", "");
        sim.wire_from("203.0.113.66:5060", bye.into_bytes());
        // And answers to none that was sent.
        let via = format!("SIP/2.0/UDP 192.0.2.10:5060;branch={branch}");
        let answer = call.response(Side::Peer, 200, "BYE", 9, &via, "", "");
        sim.wire_from("198.51.100.20:5060", answer.into_bytes());
    }
    sim.secs(300);
    assert_eq!((sim.count(SessionEnded), sim.count(ByeSent)), (0, 0), "{:?}", sim.kinds());
    assert!(sim.count(RefreshSucceeded) > 3);
}
