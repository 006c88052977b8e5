//! Where the peer is the refresher: `take_over`, and what is told at once where its refreshes are known to come to nothing.

use std::time::Duration;

use crate::sim::{self, Call, Reply, Sim, disk::Disk, manners, sdp};
use st_core::{
    Action, By, Command,
    EventKind::*,
    Matcher, Policy, Rules, SessionId, Side, Trunk,
    engine::{HABIT_AGE, Limits, Mode, Wish},
    message::MethodName,
};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAS_90: &str = "Session-Expires: 90;refresher=uas\r\n";
const UAS_1800: &str = "Session-Expires: 1800;refresher=uas\r\n";

fn rules() -> Rules {
    Rules { action: Action::Refresh, take_over: true, ..Rules::default() }
}

/// Seconds from the beginning to each refresh of sipst's.
fn moments(sim: &Sim) -> Vec<u64> {
    sim.ours().iter().map(|seen| seen.at.since(sim.events[0].time).as_secs()).collect()
}

/// The peer's refresh, and what the server answers.
fn refused(sim: &mut Sim, call: &mut Call, method: &str, status: u16) {
    let body = if method == "INVITE" { sdp(Side::Peer) } else { String::new() };
    let asked = sim.request(call, Side::Peer, method, &(manners(Side::Peer, true) + UAC_90), &body);
    sim.respond(call, Side::Peer, &asked, method, status, "");
    if method == "INVITE" {
        let ack = call.request(Side::Peer, "ACK", asked.0, &asked.1, true, "", "");
        sim.wire(Side::Peer, ack.into_bytes());
    }
}

#[test]
fn f01_the_role_is_taken_over_before_the_peers_own_attempt_and_the_call_outlives_three_intervals() {
    for caller in [Side::Server, Side::Peer] {
        for update in [true, false] {
            let mut sim = Sim::with(rules());
            // From another call it is known that the server writes a space, so that there is room.
            sim.call("other", Side::Server, "");
            let expires = if caller == Side::Server { UAS_90 } else { UAC_90 };
            let mut call = Call::new("a", caller);
            sim.establish(&mut call, expires, update);
            assert_eq!(sim.last(TimerNegotiated).refresher, Some(Side::Peer));
            sim.secs(6);
            let due = sim.last(RefreshDue);
            assert_eq!((due.by, due.reason.as_deref()), (Some(By::Sipst), Some("take_over")));
            assert_eq!(sim.last(TimerNegotiated).refresher, Some(Side::Server));
            sim.secs(300);
            assert_eq!(moments(&sim), [5, 50, 95, 140, 185, 230, 275], "{caller:?} {update}");
            let method = if update { MethodName::Update } else { MethodName::Invite };
            assert_eq!(sim.methods()[0], method);
            for line in ["Supported: timer\r\n", "Session-Expires: 90;refresher=uac\r\n", "Min-SE: 90\r\n"] {
                assert!(sim.ours()[0].text.contains(line), "{line} is missing in\n{}", sim.ours()[0].text);
            }
            assert!(sim.events.iter().all(|event| !event.kind.is_alert()), "{:?}", sim.kinds());
            let breaches: Vec<_> = sim.events.iter().flat_map(|event| &event.breaches).map(|one| one.reason).collect();
            assert!(!breaches.contains(&"role_flipped") && !breaches.contains(&"both_refresh"), "it was on purpose");
            sim.hang_up(&mut call);
            sim.assert_numbers();
        }
    }
}

#[test]
fn it_is_taken_at_two_fifths_of_a_long_interval_and_a_transaction_ahead_of_the_peer_in_a_short_one() {
    for (seconds, at) in [(1_800, 720), (300, 110), (120, 20)] {
        let mut sim = Sim::with(rules());
        sim.call("a", Side::Server, &format!("Session-Expires: {seconds};refresher=uas\r\n"));
        sim.secs(seconds / 2);
        assert_eq!(moments(&sim)[0], at, "{seconds}");
    }
}

#[test]
fn r19_a_peer_that_keeps_the_role_is_refreshed_again_before_its_own_attempt_each_time() {
    let mut sim = Sim::with(rules());
    sim.expires = UAS_90;
    let mut call = sim.call("a", Side::Server, UAS_90);
    sim.secs(200);
    assert_eq!(moments(&sim), [5, 41, 77, 113, 149, 185]);
    assert_eq!(sim.count(RefreshOverdue) + sim.count(SessionExpiring) + sim.count(AtRisk), 0);
    let breaches: Vec<_> = sim.events.iter().flat_map(|event| &event.breaches).map(|breach| breach.reason).collect();
    assert_eq!(breaches, ["refresher_overridden"], "by the peer");
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn the_peers_refresh_is_not_overdue_while_sipst_is_at_it() {
    let mut sim = Sim::with(Rules { interval_floor: Duration::from_secs(90), ..rules() });
    sim.usual = Reply::Silence;
    sim.call("a", Side::Server, "Session-Expires: 120;refresher=uas\r\n");
    sim.secs(95);
    assert!(!moments(&sim).is_empty());
    assert_eq!(sim.count(RefreshOverdue), 0, "{:?}", sim.kinds());
}

#[test]
fn r26_the_role_is_not_taken_over_before_the_ack() {
    let mut sim = Sim::with(Rules { interval_floor: Duration::from_secs(4), ..rules() });
    let mut call = Call::new("a", Side::Peer);
    sim.invite(&mut call, &(manners(Side::Peer, true) + "Supported: timer\r\n"), &sdp(Side::Peer));
    let expires = "Session-Expires: 60;refresher=uac\r\n";
    sim.answer(&call, 200, &(manners(Side::Server, true) + expires), &sdp(Side::Server));
    sim.secs(10);
    assert_eq!((sim.count(RefreshDue), sim.arms.len()), (1, 0));
    sim.ack(&mut call);
    sim.secs(2);
    assert_eq!(sim.ours().len(), 1, "R31: put off, not dropped");
}

#[test]
fn without_take_over_or_refresh_or_where_the_server_refreshes_nothing_of_it_is_sent() {
    for (rules, expires, sent) in [
        (Rules { take_over: false, ..rules() }, UAS_90, vec![]),
        (Rules { action: Action::Alert, ..rules() }, UAS_90, vec![]),
        (Rules { action: Action::Observe, ..rules() }, UAS_90, vec![]),
        (rules(), UAC_90, vec![45]),
        (rules(), "", vec![]),
    ] {
        let mut sim = Sim::with(rules);
        sim.call("a", Side::Server, expires);
        sim.secs(60);
        assert_eq!(moments(&sim), sent, "{expires}");
    }
}

#[test]
fn a_refresh_of_the_peers_that_is_early_goes_before() {
    let mut sim = Sim::with(rules());
    let mut call = sim.call("a", Side::Server, UAS_1800);
    sim.secs(718);
    let asked = sim.request(&mut call, Side::Peer, "UPDATE", UAC_90, "");
    sim.secs(5);
    assert_eq!(sim.arms.len(), 0);
    sim.respond(&call, Side::Peer, &asked, "UPDATE", 200, "Session-Expires: 1800;refresher=uac\r\n");
    sim.secs(700);
    assert_eq!(sim.arms.len(), 0);
    sim.secs(30);
    assert_eq!(moments(&sim), [723 + 720]);
}

#[test]
fn f01_where_the_server_turns_an_early_refresh_of_the_peers_down_the_role_is_taken_at_once() {
    for method in ["UPDATE", "INVITE"] {
        let mut sim = Sim::with(rules());
        sim.expires = "Session-Expires: 1800;refresher=uac\r\n";
        let mut call = sim.call("a", Side::Server, UAS_1800);
        sim.secs(100);
        refused(&mut sim, &mut call, method, 503);
        sim.secs(2);
        assert_eq!(sim.ours().len(), 1, "{method}");
        assert_eq!((sim.count(RefreshRejected), sim.last(TimerNegotiated).refresher), (1, Some(Side::Server)));
        sim.hang_up(&mut call);
        sim.assert_numbers();
    }
}

#[test]
fn a_call_that_may_be_over_is_asked_at_the_last_moment_before_the_peer() {
    let mut sim = Sim::with(rules());
    sim.call("a", Side::Server, UAS_90);
    sim.command(Command::Loss { packets: 1 });
    sim.secs(35);
    assert_eq!(sim.arms.len(), 0);
    sim.secs(2);
    assert_eq!(moments(&sim), [36]);
}

#[test]
fn what_stands_in_the_way_of_a_refresh_stands_in_the_way_of_this_one() {
    let mut sim = Sim::with(rules());
    let mut call = sim.call("a", Side::Server, UAS_1800);
    sim.secs(715);
    let asked = sim.request(&mut call, Side::Server, "INVITE", &manners(Side::Server, true), &sdp(Side::Server));
    sim.respond(&call, Side::Server, &asked, "INVITE", 180, "");
    sim.secs(30);
    assert_eq!(sim.arms.len(), 0, "R27");
    sim.respond(&call, Side::Server, &asked, "INVITE", 488, "");
    let ack = call.request(Side::Server, "ACK", asked.0, &asked.1, true, "", "");
    sim.wire(Side::Server, ack.into_bytes());
    sim.secs(2);
    assert_eq!(sim.ours().len(), 1);
    sim.assert_numbers();
}

#[test]
fn f07_an_update_without_an_answer_is_followed_by_a_reinvite_before_the_peer_refreshes() {
    let mut sim = Sim::with(rules());
    sim.usual = Reply::OkToInvite;
    sim.call("a", Side::Server, UAS_90);
    sim.secs(45);
    assert_eq!(sim.methods(), [MethodName::Update, MethodName::Invite]);
    assert_eq!(sim.last(TimerNegotiated).refresher, Some(Side::Server));
}

#[test]
fn f01_a_server_that_is_known_to_refuse_puts_the_next_call_at_risk_when_it_is_agreed_who_refreshes() {
    for (action, method, status, reason) in [
        (Action::Alert, "UPDATE", 405, "server_refuses_refresh: 405 to UPDATE, in this call or another"),
        (Action::Refresh, "INVITE", 503, "server_refuses_refresh: 503 to INVITE, in this call or another"),
    ] {
        let mut sim = Sim::new(action);
        let mut call = sim.call("a", Side::Server, UAS_90);
        assert_eq!(sim.count(AtRisk), 0);
        refused(&mut sim, &mut call, method, status);
        sim.hang_up(&mut call);
        sim.call("b", Side::Server, UAC_90);
        assert_eq!(sim.count(AtRisk), 0, "here it is the server");
        let mut call = sim.call("c", Side::Peer, UAC_90);
        let event = sim.last(AtRisk).clone();
        assert_eq!((event.by, event.reason.as_deref()), (Some(By::Peer), Some(reason)));
        assert!(event.deadline.is_some() && event.interval_s == Some(90) && event.call_id().unwrap() == "c@example");
        // Once is enough.
        refused(&mut sim, &mut call, method, status);
        sim.reinvite(&mut call, Side::Server, "", UAS_90);
        assert_eq!(sim.count(AtRisk), 1);
    }
}

#[test]
fn what_is_known_of_a_server_is_forgotten_when_it_takes_one_and_after_a_day() {
    let mut sim = Sim::new(Action::Alert);
    let mut call = sim.call("a", Side::Server, UAS_90);
    refused(&mut sim, &mut call, "INVITE", 503);
    sim.call("b", Side::Server, UAS_90);
    assert_eq!(sim.count(AtRisk), 1);
    sim.reinvite(&mut call, Side::Peer, UAC_90, UAC_90);
    sim.call("c", Side::Server, UAS_90);
    assert_eq!(sim.count(AtRisk), 1, "it has taken one");
    // A refused UPDATE is followed by a re-INVITE, which this server takes.
    refused(&mut sim, &mut call, "UPDATE", 405);
    sim.reinvite(&mut call, Side::Peer, UAC_90, UAC_90);
    sim.call("d", Side::Server, UAS_90);
    assert_eq!(sim.count(AtRisk), 1);
    // To take an UPDATE says nothing of re-INVITEs.
    refused(&mut sim, &mut call, "INVITE", 503);
    let asked = sim.request(&mut call, Side::Peer, "UPDATE", UAC_90, "");
    sim.respond(&call, Side::Peer, &asked, "UPDATE", 200, UAC_90);
    sim.call("e", Side::Server, UAS_90);
    assert_eq!(sim.count(AtRisk), 2);
    sim.run(HABIT_AGE);
    sim.call("f", Side::Server, UAS_90);
    assert_eq!(sim.reasons(AtRisk).last().map(String::as_str), Some("refreshes_not_seen"), "they all went silent");
    assert!(
        sim.events.iter().filter(|event| event.kind == AtRisk).all(|event| event.call_id().unwrap() != "c@example")
    );
}

#[test]
fn a_refusal_that_speaks_of_one_call_alone_says_nothing_of_others() {
    for status in [404, 410, 480, 481, 482, 485, 491, 401, 422, 487] {
        let mut sim = Sim::new(Action::Alert);
        let mut call = sim.call("a", Side::Server, UAS_90);
        refused(&mut sim, &mut call, "INVITE", status);
        sim.call("b", Side::Server, UAS_90);
        assert_eq!(sim.count(AtRisk), 0, "{status}");
    }
}

#[test]
fn f26_a_server_that_is_silent_to_the_copies_of_a_refresh_is_known_for_that() {
    for copies in [0, 1] {
        let mut sim = Sim::new(Action::Alert);
        let mut call = sim.call("a", Side::Server, UAS_90);
        let asked = sim.request(&mut call, Side::Peer, "UPDATE", UAC_90, "");
        for _ in 0..copies {
            let copy = call.request(Side::Peer, "UPDATE", asked.0, &asked.1, true, UAC_90, "");
            sim.wire(Side::Peer, copy.into_bytes());
        }
        sim.secs(9);
        assert_eq!(sim.count(RefreshIgnored), 1);
        sim.call("b", Side::Server, UAS_90);
        assert_eq!(sim.reasons(AtRisk), vec!["server_ignores_refresh"; copies], "a single one can be a stranger's");
    }
}

#[test]
fn f02_a_peer_whose_refreshes_do_not_arrive_puts_its_next_call_at_risk_and_no_other_peers() {
    let mut sim = Sim::new(Action::Alert);
    let mut call = sim.call("a", Side::Server, UAS_90);
    sim.secs(55);
    assert_eq!(sim.last(RefreshOverdue).by, Some(By::Peer));
    sim.call("b", Side::Server, UAS_90);
    assert_eq!(sim.reasons(AtRisk), ["refreshes_not_seen"]);
    // There it is.
    sim.reinvite(&mut call, Side::Peer, UAC_90, UAC_90);
    sim.call("c", Side::Server, UAS_90);
    assert_eq!(sim.count(AtRisk), 1);
    // Where packets were lost, it may have come.
    sim.secs(50);
    sim.command(Command::Loss { packets: 1 });
    sim.secs(35);
    sim.call("d", Side::Server, UAS_90);
    assert_eq!(sim.count(AtRisk), 1, "{:?}", sim.kinds());
}

#[test]
fn what_is_known_is_known_of_a_trunk_and_outlives_the_daemon() {
    let trunk = |name: &str, net: &str| Trunk {
        name: name.into(),
        matcher: Matcher { peers: vec![net.parse().unwrap()], domains: vec![] },
        rules: sim::rules(Action::Alert),
    };
    let policy = Policy { trunks: vec![trunk("a", "198.51.100.0/24")], ..Policy::default() };
    let mut sim = Sim::custom(policy, Mode::Live, Limits::default());
    sim.engine.follow_changes();
    let mut call = sim.call("a", Side::Server, UAS_90);
    refused(&mut sim, &mut call, "INVITE", 503);
    sim.hang_up(&mut call);
    let mut disk = Disk::default();
    disk.write(&mut sim.engine);
    sim.restart(&disk, Duration::from_secs(1));
    sim.call("b", Side::Server, UAS_90);
    assert_eq!(sim.reasons(AtRisk), ["server_refuses_refresh"]);
    // The same server for another trunk.
    sim.set_policy(Policy { trunks: vec![trunk("b", "0.0.0.0/0")], ..Policy::default() });
    sim.call("c", Side::Server, UAS_90);
    assert_eq!(sim.count(AtRisk), 1);
}

#[test]
fn what_is_known_of_servers_and_peers_beyond_the_limit_is_forgotten_and_counted() {
    let limits = Limits { remembered: 1, ..Limits::default() };
    let policy = Policy { default: sim::rules(Action::Alert), ..Policy::default() };
    let mut sim = Sim::custom(policy, Mode::Live, limits);
    let mut call = sim.call("a", Side::Server, UAS_90);
    refused(&mut sim, &mut call, "INVITE", 503);
    let before = sim.engine.stats().evicted_remembered;
    sim.call("b", Side::Server, UAS_90);
    sim.secs(60);
    assert_eq!(sim.engine.stats().evicted_remembered, before + 1, "the silence of b has taken its place");
    sim.call("c", Side::Server, UAS_90);
    assert_eq!(sim.reasons(AtRisk), ["server_refuses_refresh", "refreshes_not_seen"]);
}

#[test]
fn where_sipst_takes_the_role_over_the_risk_is_told_only_if_that_fails() {
    let mut sim = Sim::with(rules());
    let mut call = sim.call("a", Side::Server, UAS_90);
    refused(&mut sim, &mut call, "UPDATE", 405);
    sim.secs(2);
    assert_eq!(sim.last(TimerNegotiated).refresher, Some(Side::Server));
    sim.call("b", Side::Server, UAS_90);
    sim.secs(10);
    assert_eq!((sim.count(AtRisk), sim.count(RefreshFailed)), (0, 0));
    sim.usual = Reply::Status(403, "");
    sim.call("c", Side::Server, UAS_90);
    sim.secs(10);
    assert_eq!(
        (sim.reasons(RefreshFailed), sim.reasons(AtRisk)),
        (vec!["refused".into()], vec!["server_refuses_refresh".into()])
    );
    assert_eq!(sim.last(AtRisk).call_id().as_deref(), Some("c@example"));
    sim.secs(30);
    assert_eq!(sim.last(RefreshFailed).by, Some(By::Sipst));
}

#[test]
fn a_role_that_is_being_taken_over_goes_on_after_a_restart() {
    let mut sim = Sim::with(rules());
    sim.engine.follow_changes();
    let mut call = sim.call("a", Side::Server, UAS_90);
    let mut disk = Disk::default();
    disk.write(&mut sim.engine);
    sim.restart(&disk, Duration::from_secs(8));
    sim.secs(30);
    assert_eq!(sim.ours().len(), 1, "it came too late for 5 s, and in time for the peer");
    assert_eq!(sim.last(TimerNegotiated).refresher, Some(Side::Server));
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn a_capture_shows_when_the_role_would_be_taken_over_and_nothing_is_sent() {
    let mut sim = Sim::new(Action::Alert);
    let mut call = sim.call("a", Side::Server, UAS_90);
    sim.secs(45);
    sim.reinvite(&mut call, Side::Peer, UAC_90, UAC_90);
    let policy = Policy { default: rules(), ..Policy::default() };
    let mut replay = Sim::custom(policy, Mode::Replay, Limits::default());
    replay.replay(&sim.tape.clone());
    assert_eq!((replay.reasons(RefreshDue), replay.injected.len()), (vec!["take_over".into()], 0));
    assert!(replay.events.iter().all(|event| !event.kind.is_alert()), "{:?}", replay.kinds());
}

/// Seconds from an UPDATE of sipst's that has no answer to the re-INVITE that follows.
fn fallback(sim: &mut Sim) -> u128 {
    let (update, invite) = (sim.ours()[0].clone(), sim.ours()[1].clone());
    assert_eq!((update.method, invite.method), (MethodName::Update, MethodName::Invite));
    invite.at.since(update.at).as_millis()
}

#[test]
fn f07_an_update_before_the_peers_own_refresh_leaves_a_third_of_the_time_until_that() {
    let mut sim = Sim::with(rules());
    sim.usual = Reply::OkToInvite;
    sim.call("a", Side::Server, "Session-Expires: 300;refresher=uas\r\n");
    sim.secs(149);
    // At 110 s, 40 s before the peer's.
    assert_eq!(fallback(&mut sim), 13_333);
    // Where the server is the refresher, what counts is when the peer hangs up.
    let mut sim = Sim::new(Action::Refresh);
    sim.usual = Reply::OkToInvite;
    sim.call("a", Side::Server, UAC_90);
    sim.secs(5);
    sim.engine.handle_wish(sim.now, SessionId(1), Wish::Refresh).expect("a refresh");
    sim.settle();
    sim.secs(30);
    assert_eq!(fallback(&mut sim), 18_333, "a third of 55 s");
}
