//! How fast refreshes leave: who has to wait, in which order, and what becomes of those that wait in vain.

use std::{collections::BTreeMap, time::Duration};

use crate::sim::{self, Call, Reply, Sim, disk::Disk};
use st_core::{
    Action, DomainPattern, Event,
    EventKind::*,
    Matcher, Method, Policy, Rate, Refusal, Rules, Side, Time, Trunk,
    engine::{Limits, Mode},
    message::MethodName,
};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAC_120: &str = "Session-Expires: 120;refresher=uac\r\n";
const UAC_1800: &str = "Session-Expires: 1800;refresher=uac\r\n";

/// Two trunks, each with that rate, and that of both together.
fn policy(each: u32, all: u32) -> Policy {
    let rules = Rules { refresh_rate: Rate::new(each).expect("a rate"), ..sim::rules(Action::Refresh) };
    let trunk = |name: &str| Trunk {
        name: name.into(),
        matcher: Matcher { peers: vec![], domains: vec![DomainPattern::new(name).expect("a domain")] },
        rules: rules.clone(),
    };
    Policy {
        trunks: vec![trunk("a.example"), trunk("b.example")],
        default: rules.clone(),
        refresh_rate: Rate::new(all).expect("a rate"),
        ..Policy::default()
    }
}

fn with(each: u32, all: u32) -> Sim {
    Sim::custom(policy(each, all), Mode::Live, Limits::default())
}

/// So many calls of that interval.
fn calls(sim: &mut Sim, name: &str, count: usize, domain: &'static str, expires: &str) -> Vec<Call> {
    let call = |number: usize| Call { domain, ..Call::new(&format!("{name}{number}"), Side::Server) };
    let mut calls: Vec<Call> = (0..count).map(call).collect();
    calls.iter_mut().for_each(|call| sim.establish(call, expires, true));
    calls
}

/// The calls that got a refresh of sipst's, in the order in which these left.
fn order(sim: &Sim) -> Vec<String> {
    let name = |text: &str| {
        text.split("Call-ID: ").nth(1).and_then(|rest| rest.split('@').next()).expect("a Call-ID").to_string()
    };
    sim.ours().iter().map(|seen| name(&seen.text)).collect()
}

/// The most of `times`, which are in order, in any second.
fn most_in_a_second(times: &[Time]) -> usize {
    let within =
        |(at, from): (usize, &Time)| times[at..].partition_point(|at| at.since(*from) < Duration::from_secs(1));
    times.iter().enumerate().map(within).max().unwrap_or(0)
}

#[test]
fn no_more_refreshes_leave_in_a_second_than_the_rate_of_their_trunk_and_of_all_together() {
    let mut sim = with(5, 8);
    sim.expires = UAC_1800;
    calls(&mut sim, "a", 40, "a.example", UAC_1800);
    calls(&mut sim, "b", 10, "b.example", UAC_1800);
    sim.secs(901);
    let mut times: BTreeMap<&str, Vec<Time>> = BTreeMap::new();
    assert!((8..=16).contains(&sim.ours().len()), "it has begun: {}", sim.ours().len());
    sim.secs(12);
    for seen in sim.ours() {
        let trunk = if seen.text.contains("a.example") { "a" } else { "b" };
        times.entry(trunk).or_default().push(seen.at);
        times.entry("all").or_default().push(seen.at);
    }
    assert_eq!(times["all"].len(), 50, "all have left in the end");
    assert_eq!(most_in_a_second(&times["all"]), 8);
    assert_eq!(most_in_a_second(&times["a"]), 5);
    assert!(most_in_a_second(&times["b"]) <= 5);
    let stats = sim.engine.stats();
    assert_eq!((sim.count(RefreshSucceeded), sim.count(RefreshFailed), stats.too_late), (50, 0, 0));
    assert!(stats.delayed >= 48 && stats.waiting == 0, "{stats:?}");
    sim.assert_numbers();
}

#[test]
fn who_waits_goes_in_the_order_of_deadlines_and_a_newcomer_with_less_time_goes_first() {
    let mut sim = with(1, 100);
    sim.expires = UAC_1800;
    calls(&mut sim, "long", 4, "a.example", UAC_1800);
    sim.secs(840);
    calls(&mut sim, "short", 3, "a.example", UAC_120);
    sim.run(Duration::from_millis(2_500));
    calls(&mut sim, "newcomer", 1, "a.example", UAC_120);
    sim.secs(70);
    assert_eq!(order(&sim), ["short0", "short1", "short2", "newcomer0", "long0", "long1", "long2", "long3"]);
}

#[test]
fn a_trunk_that_has_to_wait_holds_up_no_other() {
    let mut sim = with(1, 100);
    sim.expires = UAC_1800;
    calls(&mut sim, "a", 10, "a.example", UAC_1800);
    sim.secs(2);
    calls(&mut sim, "b", 1, "b.example", UAC_1800);
    sim.secs(900);
    assert_eq!(order(&sim)[..4], ["a0", "a1", "a2", "b0"]);
}

#[test]
fn a_refresh_whose_turn_does_not_come_before_the_peers_deadline_is_told_and_takes_nobodys_place() {
    let mut sim = with(1, 100);
    let calls = calls(&mut sim, "a", 30, "a.example", UAC_90);
    let deadline = sim.now + Duration::from_secs(60);
    sim.secs(70);
    let sent = sim.ours().len();
    assert!((14..=16).contains(&sent), "{sent} in the 15 s from half the interval to the deadline");
    assert!(sim.ours().iter().all(|seen| seen.at < deadline), "later ones would help nobody");
    let failed: Vec<&Event> = sim.events.iter().filter(|event| event.kind == RefreshFailed).collect();
    assert_eq!(failed.len(), calls.len() - sent);
    for event in failed {
        assert_eq!((event.time, event.reason.as_deref()), (deadline, Some("rate_limited")));
    }
    let expiring = sim.reasons(SessionExpiring);
    assert!(expiring.len() > 20 && expiring.iter().all(|reason| reason == "rate_limited"), "{expiring:?}");
    assert_eq!(sim.engine.stats().too_late as usize, calls.len() - sent);
    sim.secs(20);
    assert_eq!(sim.reasons(RefreshFailed).len(), calls.len() - sent, "once each");
}

#[test]
fn copies_ack_and_cancel_wait_for_nobody() {
    // A 200 without its ACK ends a call (R44), and copies are what a lossy network needs.
    for reply in [Reply::Ok, Reply::Silence, Reply::Rings] {
        let mut policy = policy(1, 1);
        policy.trunks[0].rules.method = Method::Reinvite;
        let mut sim = Sim::custom(policy, Mode::Live, Limits::default());
        sim.expires = UAC_1800;
        calls(&mut sim, "a", 100, "a.example", UAC_1800);
        sim.secs(899);
        sim.replies.push_back(reply.clone());
        sim.secs(1);
        let after = |method, copy| {
            let first = sim.ours()[0];
            let found = sim.seen.iter().find(|seen| {
                seen.ours
                    && seen.method == method
                    && seen.copy == copy
                    && seen.number == first.number
                    && seen.at >= first.at
            });
            found.map(|seen| seen.at.since(first.at))
        };
        match reply {
            Reply::Ok => assert_eq!(after(MethodName::Ack, false), Some(Duration::ZERO)),
            Reply::Silence => {
                sim.secs(2);
                let first = sim.ours()[0].branch.clone();
                let copies = sim.seen.iter().filter(|seen| seen.branch == first).count();
                assert_eq!(copies, 3, "at 0, 0.5 and 1.5 s");
            }
            Reply::Rings
            | Reply::OkWith(..)
            | Reply::Status(..)
            | Reply::OkToInvite
            | Reply::Foreign
            | Reply::ForeignRings => {
                sim.secs(33);
                let cancel = sim.seen.iter().find(|seen| seen.method == MethodName::Cancel).expect("a CANCEL");
                assert_eq!(cancel.at.since(sim.ours()[0].at), Duration::from_secs(32));
            }
        }
        assert!(sim.engine.stats().waiting > 0, "others wait");
    }
}

#[test]
fn what_does_not_leave_takes_nobodys_turn() {
    for refusal in [Refusal::ServerGone, Refusal::Unattached, Refusal::Ranges] {
        let mut sim = with(1, 1);
        sim.expires = UAC_1800;
        calls(&mut sim, "a", 5, "a.example", UAC_1800);
        sim.refusal = Some(refusal);
        sim.secs(900);
        assert_eq!((sim.arms.len(), sim.ours().len()), (5, 0), "{refusal}: all were asked for at once");
        sim.refusal = None;
        calls(&mut sim, "b", 1, "b.example", UAC_1800);
        sim.secs(900);
        assert_eq!(order(&sim).last().map(String::as_str), Some("b0"), "{refusal}");
    }
}

#[test]
fn a_number_that_moved_is_sent_in_the_same_turn() {
    let mut sim = with(1, 1);
    sim.expires = UAC_1800;
    calls(&mut sim, "a", 1, "a.example", UAC_1800);
    sim.refused = Some(Refusal::Moved);
    sim.secs(900);
    assert_eq!(sim.injected.len(), 17, "asked for again at once, though only one may leave in a second");
    sim.refused = None;
    sim.secs(10);
    assert_eq!(sim.ours().len(), 1);
}

#[test]
fn a_call_that_ends_while_it_waits_is_left_alone_and_leaves_its_turn_to_others() {
    let mut sim = with(1, 1);
    sim.expires = UAC_1800;
    let mut all = calls(&mut sim, "a", 4, "a.example", UAC_1800);
    sim.secs(900);
    assert_eq!((order(&sim), sim.engine.stats().waiting), (vec!["a0".to_string()], 3));
    sim.hang_up(&mut all[1]);
    sim.reinvite(&mut all[2], Side::Server, "", UAC_1800);
    assert_eq!(sim.engine.stats().waiting, 1);
    sim.secs(1);
    assert_eq!(order(&sim), ["a0", "a3"]);
    sim.secs(100);
    assert_eq!((sim.ours().len(), sim.count(RefreshFailed)), (2, 0));
    sim.assert_numbers();
}

#[test]
fn a_full_queue_puts_off_the_one_with_the_most_time_and_loses_none() {
    let mut sim = Sim::custom(policy(1, 1), Mode::Live, Limits { waiting: 2, ..Limits::default() });
    sim.expires = UAC_1800;
    calls(&mut sim, "long", 5, "a.example", UAC_1800);
    sim.secs(840);
    calls(&mut sim, "short", 3, "a.example", UAC_120);
    sim.secs(60);
    assert!(sim.engine.stats().waiting <= 2, "no more than the limit");
    sim.secs(60);
    assert_eq!(order(&sim)[..3], ["short0", "short1", "short2"]);
    let stats = sim.engine.stats();
    assert!(stats.evicted_waiting > 0, "{stats:?}");
    assert_eq!((sim.ours().len(), sim.count(RefreshFailed)), (8, 0), "{:?}", order(&sim));
    // Where there is no time left, that is told all the same.
    let mut sim = Sim::custom(policy(1, 1), Mode::Live, Limits { waiting: 0, ..Limits::default() });
    calls(&mut sim, "a", 1, "a.example", UAC_90);
    sim.secs(89);
    assert_eq!((sim.ours().len(), sim.reasons(RefreshFailed)), (0, vec!["rate_limited".to_string()]));
}

#[test]
fn a_herd_that_is_due_in_one_second_is_spread_by_the_rate_and_none_is_late_or_lost() {
    const HERD: usize = 2_000;
    // No more may wait than fall due in a tenth of it.
    let mut sim = Sim::custom(policy(200, 200), Mode::Live, Limits { waiting: HERD / 10, ..Limits::default() });
    sim.expires = UAC_1800;
    for number in 0..HERD {
        let mut call = Call { domain: "a.example", ..Call::new(&format!("a{number}"), Side::Server) };
        sim.establish(&mut call, UAC_1800, true);
        if number % 2 == 1 {
            sim.run(Duration::from_millis(1));
        }
    }
    let last = sim.now;
    sim.secs(1_000);
    let ours = sim.ours();
    let times: Vec<Time> = ours.iter().map(|seen| seen.at).collect();
    assert_eq!(ours.len(), HERD, "each leaves, and once");
    let most = most_in_a_second(&times);
    assert!(most <= 220, "{most}");
    let due = last + Duration::from_secs(900);
    let took = times.iter().map(|at| at.since(due)).max().expect("refreshes");
    assert!(took <= Duration::from_secs(20), "no slower than the rate, but for those that ask again: {took:?}");
    let stats = sim.engine.stats();
    assert!(stats.evicted_waiting > 0 && stats.waiting == 0, "{stats:?}");
    assert_eq!((sim.count(RefreshSucceeded), sim.count(RefreshFailed), stats.too_late), (HERD, 0, 0));
}

#[test]
fn other_rates_hold_for_those_who_wait_already() {
    let mut sim = with(1, 1);
    sim.expires = UAC_1800;
    calls(&mut sim, "a", 15, "a.example", UAC_1800);
    sim.secs(900);
    assert_eq!(sim.ours().len(), 1);
    let mut off = policy(1, 1);
    off.refresh_rate = Rate::OFF;
    off.trunks.iter_mut().for_each(|trunk| trunk.rules.refresh_rate = Rate::OFF);
    sim.set_policy(off);
    sim.secs(0);
    assert_eq!(sim.ours().len(), 15, "without a rate nobody waits");
    assert_eq!(sim.count(RefreshFailed), 0);
}

#[test]
fn a_trunk_that_is_no_more_lets_nobody_wait() {
    let mut sim = with(1, 1);
    sim.expires = UAC_1800;
    calls(&mut sim, "a", 3, "a.example", UAC_1800);
    sim.secs(900);
    let alert = Policy { refresh_rate: Rate::OFF, ..Policy::default() };
    sim.set_policy(alert);
    sim.secs(1);
    assert_eq!((sim.ours().len(), sim.reasons(RefreshFailed)), (1, vec!["policy".to_string(); 2]));
    assert_eq!(sim.engine.stats().waiting, 0);
}

#[test]
fn who_waits_when_the_daemon_dies_waits_again() {
    let mut sim = with(1, 1);
    sim.engine.follow_changes();
    calls(&mut sim, "a", 3, "a.example", UAC_90);
    sim.run(Duration::from_millis(45_500));
    assert_eq!((sim.ours().len(), sim.engine.stats().waiting), (1, 2));
    let mut disk = Disk::default();
    disk.write(&mut sim.engine);
    sim.restart(&disk, Duration::from_millis(200));
    assert_eq!((sim.ours().len(), sim.engine.stats().waiting), (2, 1), "a new daemon's first turn comes at once");
    sim.secs(2);
    assert_eq!((sim.ours().len(), sim.engine.stats().waiting), (3, 0));
    assert_eq!((sim.count(RefreshSucceeded), sim.count(RefreshFailed)), (3, 0));
}

#[test]
fn who_waited_past_the_peers_deadline_while_no_daemon_was_there_still_has_the_rest_of_the_interval() {
    let mut sim = with(1, 1);
    sim.engine.follow_changes();
    calls(&mut sim, "a", 3, "a.example", UAC_90);
    sim.run(Duration::from_millis(45_500));
    let mut disk = Disk::default();
    disk.write(&mut sim.engine);
    sim.restart(&disk, Duration::from_secs(38));
    sim.secs(3);
    assert_eq!((sim.ours().len(), sim.count(RefreshSucceeded), sim.count(RefreshFailed)), (3, 3, 0));
}
