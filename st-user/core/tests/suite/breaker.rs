//! The circuit breaker of a trunk: what opens it, whom it holds back, how it tries again, and what closes it.

use std::{collections::BTreeSet, time::Duration};

use crate::sim::{self, Call, Reply, Sim};
use st_core::{
    Action, DomainPattern,
    EventKind::*,
    Matcher, Policy, Refusal, Side, Trunk,
    engine::{BREAKER_DIALOGS, Limits, Mode},
};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAC_1800: &str = "Session-Expires: 1800;refresher=uac\r\n";

fn policy() -> Policy {
    let trunk = |name: &str| Trunk {
        name: name.into(),
        matcher: Matcher { peers: vec![], domains: vec![DomainPattern::new(name).expect("a domain")] },
        rules: sim::rules(Action::Refresh),
    };
    Policy { trunks: vec![trunk("a.example"), trunk("b.example")], ..Policy::default() }
}

fn fresh() -> Sim {
    let mut sim = Sim::custom(policy(), Mode::Live, Limits::default());
    sim.expires = UAC_1800;
    sim
}

/// So many calls of trunk `a.example`.
fn calls(sim: &mut Sim, name: &str, count: usize, expires: &str) -> Vec<Call> {
    let call = |number: usize| Call { domain: "a.example", ..Call::new(&format!("{name}{number}"), Side::Server) };
    let mut calls: Vec<Call> = (0..count).map(call).collect();
    calls.iter_mut().for_each(|call| sim.establish(call, expires, true));
    calls
}

/// How many refreshes, copies left out, that call has got.
fn sent(sim: &Sim, call: &Call) -> usize {
    sim.ours().iter().filter(|seen| seen.text.contains(&format!("Call-ID: {}\r\n", call.call_id))).count()
}

/// A trunk whose breaker has just opened, by the calls of the first 900 s.
fn opened(by: Reply) -> Sim {
    let mut sim = fresh();
    sim.usual = by;
    calls(&mut sim, "first", BREAKER_DIALOGS, UAC_1800);
    sim.secs(1_000);
    assert_eq!(sim.count(BreakerOpened), 1, "{:?}", sim.kinds());
    sim
}

#[test]
fn five_calls_whose_first_refresh_has_no_answer_or_a_5xx_open_it_and_four_do_not() {
    for reply in [
        Reply::Silence,
        Reply::Rings,
        Reply::Status(408, ""),
        Reply::Status(500, ""),
        Reply::Status(503, "Retry-After: 10\r\n"),
        Reply::Status(504, ""),
        Reply::Status(502, ""),
    ] {
        for (count, opens) in [(BREAKER_DIALOGS - 1, 0), (BREAKER_DIALOGS, 1), (BREAKER_DIALOGS + 9, 1)] {
            let mut sim = fresh();
            sim.usual = reply.clone();
            calls(&mut sim, "a", count, UAC_1800);
            sim.secs(1_799);
            assert_eq!(sim.count(BreakerOpened), opens, "{reply:?} in {count} calls");
            assert_eq!(sim.engine.stats().open_breakers, opens);
        }
    }
}

#[test]
fn an_open_breaker_is_told_with_its_trunk_and_a_reason() {
    let sim = opened(Reply::Status(503, ""));
    let event = sim.last(BreakerOpened);
    assert!(event.kind.is_alert() && event.names.is_none());
    assert_eq!(event.trunk.as_deref(), Some("a.example"));
    assert_eq!(event.reason.as_deref(), Some("first_refreshes_failed: of 5 calls"));
    assert_eq!(sim.engine.stats().breakers_opened, 1);
}

#[test]
fn answers_that_say_nothing_of_the_trunk_do_not_count() {
    for status in [481, 403, 404, 405, 488, 491, 501, 600, 603] {
        let mut sim = fresh();
        sim.usual = Reply::Status(status, "");
        let calls = calls(&mut sim, "a", 3 * BREAKER_DIALOGS, UAC_1800);
        sim.secs(1_799);
        // 501 to a re-INVITE is a server's failure like others.
        assert_eq!(sim.count(BreakerOpened), usize::from(status == 501), "{status}");
        if status == 481 {
            assert!(calls.iter().all(|call| sent(&sim, call) == 1), "each has ended by itself");
        }
    }
}

#[test]
fn a_call_that_the_peer_has_lost_is_not_held_against_the_trunk_though_it_had_no_answer_before() {
    let mut sim = fresh();
    sim.usual = Reply::Status(503, "Retry-After: 5\r\n");
    calls(&mut sim, "a", BREAKER_DIALOGS - 1, UAC_1800);
    sim.secs(901);
    sim.usual = Reply::Status(481, "");
    sim.secs(10);
    sim.usual = Reply::Status(503, "Retry-After: 800\r\n");
    calls(&mut sim, "b", BREAKER_DIALOGS - 1, UAC_1800);
    sim.secs(905);
    assert_eq!(sim.count(BreakerOpened), 0);
}

#[test]
fn a_peer_that_takes_no_update_and_answers_the_reinvite_opens_nothing() {
    let mut sim = fresh();
    sim.usual = Reply::OkToInvite;
    calls(&mut sim, "a", 3 * BREAKER_DIALOGS, UAC_1800);
    sim.secs(1_000);
    assert_eq!((sim.count(BreakerOpened), sim.count(RefreshSucceeded)), (0, 3 * BREAKER_DIALOGS));
}

#[test]
fn a_success_between_failures_begins_the_count_anew() {
    let mut sim = fresh();
    for round in 0..4 {
        sim.usual = Reply::Status(503, "Retry-After: 60\r\n");
        calls(&mut sim, &format!("a{round}"), BREAKER_DIALOGS - 1, UAC_1800);
        sim.secs(901);
        sim.usual = Reply::Ok;
        sim.secs(100);
    }
    assert_eq!(sim.count(BreakerOpened), 0);
    assert!(sim.count(RefreshSucceeded) >= 4 * (BREAKER_DIALOGS - 1));
}

#[test]
fn peers_that_hang_up_before_a_refresh_is_given_up_count_and_calls_that_just_end_do_not() {
    for (after, opens) in [(15, 1), (2, 0)] {
        let mut sim = fresh();
        sim.usual = Reply::Silence;
        let mut calls = calls(&mut sim, "a", BREAKER_DIALOGS, UAC_90);
        sim.secs(45 + after);
        for call in &mut calls {
            let asked = sim.request(call, Side::Peer, "BYE", "", "");
            sim.respond(call, Side::Peer, &asked, "BYE", 200, "");
        }
        assert_eq!(sim.count(BreakerOpened), opens, "{after} s after the first copy");
    }
}

#[test]
fn what_was_never_refreshed_waits_is_told_and_fails_at_its_deadline() {
    let mut sim = opened(Reply::Silence);
    let calls = calls(&mut sim, "late", 12, UAC_90);
    sim.secs(46);
    let overdue: Vec<_> = sim.events.iter().filter(|event| event.kind == RefreshOverdue).collect();
    assert!(overdue.len() >= 12 && overdue.iter().all(|event| event.reason.as_deref() == Some("breaker_open")));
    let deadline = sim.events.iter().rev().find(|event| event.kind == RefreshOverdue).and_then(|event| event.deadline);
    sim.secs(30);
    let failed: Vec<_> =
        sim.events.iter().filter(|event| event.kind == RefreshFailed && event.deadline == deadline).collect();
    let held: Vec<_> = failed.iter().filter(|event| event.reason.as_deref() == Some("breaker_open")).collect();
    assert!(!held.is_empty() && held.iter().all(|event| Some(event.time) == deadline), "{failed:?}");
    assert!(calls.iter().filter(|call| sent(&sim, call) == 0).count() == held.len());
}

#[test]
fn a_call_that_was_refreshed_before_is_always_tried() {
    let mut sim = fresh();
    let proven = calls(&mut sim, "proven", 1, UAC_1800).remove(0);
    sim.secs(901);
    assert_eq!(sent(&sim, &proven), 1);
    sim.usual = Reply::Silence;
    calls(&mut sim, "a", BREAKER_DIALOGS, UAC_1800);
    sim.secs(890);
    assert_eq!((sim.count(BreakerOpened), sent(&sim, &proven)), (0, 1));
    sim.secs(100);
    assert_eq!(sim.count(BreakerOpened), 1);
    // And what becomes of it neither opens nor closes anything unless it succeeds.
    let before = sent(&sim, &proven);
    assert!(before >= 2, "{before}");
    sim.usual = Reply::Ok;
    sim.secs(700);
    assert_eq!(sim.count(BreakerClosed), 1);
}

#[test]
fn a_proven_call_is_sent_the_moment_it_is_due_though_the_breaker_is_open() {
    let mut sim = fresh();
    let proven = calls(&mut sim, "proven", 1, UAC_1800).remove(0);
    sim.secs(300);
    sim.usual = Reply::Silence;
    sim.replies.extend([Reply::Ok]);
    calls(&mut sim, "a", BREAKER_DIALOGS, UAC_1800);
    sim.secs(1_000);
    assert_eq!((sim.count(BreakerOpened), sent(&sim, &proven)), (1, 1));
    sim.secs(500);
    assert_eq!(sent(&sim, &proven), 2, "at 1,800 s");
}

#[test]
fn an_open_breaker_tries_one_call_at_a_time_and_before_the_earliest_deadline() {
    for (expires, reply, time) in [
        (UAC_1800, Reply::Silence, 1_768),
        (UAC_1800, Reply::Status(503, ""), 1_768),
        (UAC_90, Reply::Silence, 60),
        (UAC_90, Reply::Status(503, ""), 60),
    ] {
        let mut sim = opened(reply.clone());
        let begun = sim.now;
        let calls = calls(&mut sim, "late", 12, expires);
        sim.secs(time);
        let late: Vec<_> =
            sim.ours().into_iter().filter(|seen| seen.at > begun && seen.text.contains("late")).collect();
        let firsts: Vec<_> = {
            let mut known = BTreeSet::new();
            let call_id = |text: &str| text.split("Call-ID: ").nth(1).map(|rest| rest[..8].to_string());
            late.iter().filter(|seen| known.insert(call_id(&seen.text))).collect()
        };
        assert!(!firsts.is_empty(), "one was tried before the earliest deadline: {expires} {reply:?}");
        for pair in firsts.windows(2) {
            assert!(pair[1].at.since(pair[0].at) >= Duration::from_secs(1), "{expires} {reply:?}");
        }
        // One call's requests of one interval are no more than its own; a second is between those of two calls.
        assert!(late.len() <= calls.len() * 16, "{} requests", late.len());
        assert_eq!((sim.count(BreakerOpened), sim.count(BreakerClosed)), (1, 0));
        assert!(sim.engine.stats().probes as usize >= firsts.len());
    }
}

#[test]
fn a_success_closes_it_and_those_who_wait_are_refreshed() {
    let mut sim = opened(Reply::Status(503, ""));
    let calls = calls(&mut sim, "late", 12, UAC_1800);
    // The first five try again now and then, and fail.
    sim.secs(890);
    assert_eq!(sim.count(BreakerClosed), 0);
    sim.usual = Reply::Ok;
    sim.secs(60);
    let closed = sim.last(BreakerClosed);
    assert_eq!((closed.trunk.as_deref(), closed.kind.is_alert()), (Some("a.example"), false));
    assert!(calls.iter().all(|call| sent(&sim, call) == 1), "each once");
    assert_eq!(sim.count(RefreshSucceeded), 12);
    assert_eq!(sim.engine.stats().open_breakers, 0);
    sim.assert_numbers();
}

#[test]
fn the_breaker_of_one_trunk_holds_back_no_other() {
    let mut sim = opened(Reply::Silence);
    let mut other = Call { domain: "b.example", ..Call::new("other", Side::Server) };
    sim.establish(&mut other, UAC_90, true);
    sim.secs(44);
    sim.usual = Reply::Ok;
    sim.secs(1);
    assert_eq!(sent(&sim, &other), 1);
    assert_eq!(sim.count(BreakerClosed), 0, "and its success does not close that of the first");
}

#[test]
fn a_probe_that_cannot_be_sent_or_says_nothing_leaves_its_place_to_the_next() {
    for (refusal, reply) in
        [(Some(Refusal::ServerGone), Reply::Ok), (None, Reply::Status(403, "")), (None, Reply::Status(481, ""))]
    {
        let mut sim = opened(Reply::Silence);
        let calls = calls(&mut sim, "late", 4, UAC_1800);
        sim.secs(899);
        (sim.refusal, sim.usual) = (refusal, reply.clone());
        sim.secs(60);
        let tried = |call: &&Call| sim.arms.iter().any(|arm| arm.call_id == call.call_id.as_bytes());
        assert_eq!(calls.iter().filter(tried).count(), 4, "{refusal:?} {reply:?}: each was tried within a minute");
        assert_eq!(sim.count(BreakerClosed), 0);
    }
}

#[test]
fn a_challenge_to_a_probe_is_answered() {
    let mut sim = opened(Reply::Silence);
    let mut policy = policy();
    let credentials = st_core::Credentials { username: "u".into(), password: "p".into() };
    policy.trunks[0].rules.credentials = Some(credentials);
    sim.set_policy(policy);
    calls(&mut sim, "late", 1, UAC_90);
    sim.usual = Reply::Ok;
    sim.replies.push_back(Reply::Status(401, "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\"\r\n"));
    sim.secs(60);
    assert_eq!(sim.count(BreakerClosed), 1);
}
