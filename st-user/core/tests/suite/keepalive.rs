//! `keepalive`: empty lines hold the flow between server and peer open while calls are up, and at no other time.

use std::{sync::Arc, time::Duration};

use crate::sim::{self, Call, SERVERS_COOKIE, Sim, disk::Disk, manners, sdp};
use st_core::{
    Action, KeepAlive, Matcher, OnMoved, Policy, Rules, SessionId, Side, Trunk,
    engine::{Limits, Mode, Wish},
};

const PERIOD: u64 = 30;

fn rules(action: Action) -> Rules {
    Rules { action, keepalive: Some(Duration::from_secs(PERIOD)), ..Rules::default() }
}

fn sim() -> Sim {
    Sim::with(rules(Action::Refresh))
}

/// How many were sent while so many seconds passed.
fn during(sim: &mut Sim, seconds: u64) -> usize {
    let before = sim.kept_alive.len();
    sim.secs(seconds);
    sim.kept_alive.len() - before
}

const OTHER: &str = "203.0.113.66:5060";

/// A call that comes from this address.
fn calls_from(sim: &mut Sim, name: &str, peer: &str) -> Call {
    let mut call = Call::new(name, Side::Peer);
    let (branch, number) = (call.branch(), call.next(Side::Peer));
    call.invite = (number, branch.clone());
    let invite =
        call.request(Side::Peer, "INVITE", number, &branch, false, &manners(Side::Peer, true), &sdp(Side::Peer));
    sim.wire_from(peer, invite.into_bytes());
    sim.answer(&call, 200, &manners(Side::Server, true), &sdp(Side::Server));
    sim.ack(&mut call);
    call
}

/// The rules of all calls from now on, and what follows from them.
fn rule(sim: &mut Sim, rules: Rules) {
    sim.set_policy(Policy { default: rules, ..Policy::default() });
    sim.settle();
}

#[test]
fn one_is_sent_each_period_from_the_servers_address_while_a_call_is_up_and_none_after_its_end() {
    for caller in [Side::Server, Side::Peer] {
        let mut sim = sim();
        assert_eq!(during(&mut sim, 100), 0, "no call");
        let mut call = Call::new("a", caller);
        sim.invite(&mut call, "", "");
        sim.answer(&call, 200, "", "");
        assert_eq!(during(&mut sim, 25), 0, "not confirmed");
        sim.ack(&mut call);
        assert!(during(&mut sim, PERIOD) <= 2);
        assert_eq!(during(&mut sim, 10 * PERIOD), 10);
        let (_, first) = sim.kept_alive[0];
        let KeepAlive { server, peer, cookie, tos, ttl } = first;
        assert_eq!((server.to_string(), peer.to_string()), (sim::text::SERVER.into(), sim::text::PEER.into()));
        assert_eq!((cookie, tos, ttl), (SERVERS_COOKIE, 0x60, 64), "as the server's own");
        assert!(sim.kept_alive.iter().all(|(_, sent)| *sent == first));
        let apart: Vec<_> = sim.kept_alive.windows(2).map(|two| two[1].0.since(two[0].0)).collect();
        assert!(apart.iter().all(|apart| *apart == Duration::from_secs(PERIOD)), "{apart:?}");
        let stats = sim.engine.stats();
        assert_eq!((stats.kept_alive, stats.keepalives), (1, sim.kept_alive.len() as u64));
        sim.hang_up(&mut call);
        assert_eq!(during(&mut sim, 1_000), 0);
        assert_eq!(sim.engine.stats().kept_alive, 0);
        assert!(sim.injected.is_empty() && sim.arms.is_empty());
    }
}

#[test]
fn none_is_sent_where_nothing_is_sent_at_all() {
    let none = Rules { keepalive: None, ..rules(Action::Refresh) };
    for rules in [rules(Action::Observe), rules(Action::Alert), none] {
        let mut sim = Sim::with(rules);
        sim.call("a", Side::Server, "");
        assert_eq!(during(&mut sim, 1_000), 0);
    }
    let policy = Policy { default: rules(Action::Refresh), ..Policy::default() };
    let mut sim = Sim::custom(policy, Mode::Replay, Limits::default());
    sim.call("a", Side::Server, "");
    assert_eq!(during(&mut sim, 1_000), 0, "replay");
}

#[test]
fn calls_that_an_operator_holds_or_that_are_passed_on_keep_nothing_open() {
    let mut sim = sim();
    sim.call("a", Side::Server, "");
    assert!(during(&mut sim, PERIOD) > 0);
    sim.engine.handle_wish(sim.now, SessionId(1), Wish::Hold).unwrap();
    sim.settle();
    assert_eq!((during(&mut sim, 1_000), sim.engine.stats().kept_alive), (0, 0));
    sim.engine.handle_wish(sim.now, SessionId(1), Wish::Release).unwrap();
    sim.settle();
    assert!(during(&mut sim, PERIOD) > 0);

    // The same call, the other way round.
    let mut out = Call::new("b", Side::Server);
    let mut back = Call::new("b", Side::Peer);
    back.local.clone_from(&out.remote);
    back.remote.clone_from(&out.local);
    let mut sim = self::sim();
    sim.establish(&mut out, "", true);
    sim.establish(&mut back, "", true);
    assert_eq!((during(&mut sim, 1_000), sim.engine.stats().kept_alive), (0, 0));
}

#[test]
fn what_the_server_sends_itself_puts_it_off_and_what_the_peer_sends_does_not() {
    let mut sim = sim();
    let mut call = sim.call("a", Side::Server, "");
    sim.secs(PERIOD);
    for (side, sent) in [(Side::Server, 0), (Side::Peer, 10)] {
        // The peer's are answered by nobody: an answer would leave.
        sim.request(&mut call, side, "INFO", "", "");
        let before = sim.kept_alive.len();
        for _ in 0..30 {
            sim.secs(PERIOD / 3);
            sim.request(&mut call, side, "INFO", "", "");
        }
        let kept = sim.kept_alive.len() - before;
        assert!((sent..=sent + usize::from(sent > 0)).contains(&kept), "{side:?}: {kept}");
    }
}

#[test]
fn a_flow_has_one_for_all_its_calls_and_the_last_one_ends_it() {
    let mut sim = sim();
    let mut calls: Vec<Call> = (0..20).map(|one| sim.call(&format!("c{one}"), Side::Server, "")).collect();
    sim.secs(PERIOD);
    assert_eq!(during(&mut sim, 10 * PERIOD), 10);
    assert_eq!(sim.engine.stats().kept_alive, 1);
    let mut last = calls.pop().unwrap();
    for mut call in calls {
        sim.hang_up(&mut call);
    }
    sim.secs(PERIOD);
    assert_eq!(during(&mut sim, 10 * PERIOD), 10);
    sim.hang_up(&mut last);
    assert_eq!(during(&mut sim, 10 * PERIOD), 0);
}

#[test]
fn the_least_of_the_periods_of_its_calls_counts() {
    let own = "own.example";
    let often = Rules { keepalive: Some(Duration::from_secs(10)), ..rules(Action::Refresh) };
    let matcher = Matcher { domains: vec![st_core::DomainPattern::new(own).unwrap()], ..Matcher::default() };
    let trunks = vec![Trunk { name: "own".into(), matcher, rules: often }];
    let policy = Policy { trunks, default: rules(Action::Refresh), ..Policy::default() };
    let mut sim = Sim::custom(policy, Mode::Live, Limits::default());
    sim.call("a", Side::Server, "");
    sim.secs(PERIOD);
    assert_eq!(during(&mut sim, 60), 2);
    let mut other = Call::new("b", Side::Server);
    other.domain = own;
    sim.establish(&mut other, "", true);
    sim.secs(10);
    assert_eq!((during(&mut sim, 60), sim.engine.stats().kept_alive), (6, 1));
    sim.hang_up(&mut other);
    sim.secs(PERIOD);
    assert_eq!(during(&mut sim, 60), 2);
}

#[test]
fn it_follows_the_rules_under_a_call_that_is_up() {
    let off = Rules { keepalive: None, ..rules(Action::Refresh) };
    let mut sim = Sim::with(off.clone());
    sim.call("a", Side::Server, "");
    assert_eq!(during(&mut sim, 100), 0);
    rule(&mut sim, rules(Action::Refresh));
    sim.secs(PERIOD);
    assert_eq!(during(&mut sim, 5 * PERIOD), 5);
    // What else the rules say is nothing to it.
    rule(&mut sim, Rules { on_moved: OnMoved::TellServer, ..rules(Action::Refresh) });
    assert_eq!(during(&mut sim, 5 * PERIOD), 5);
    for none in [off, rules(Action::Alert)] {
        rule(&mut sim, none);
        assert_eq!((during(&mut sim, 1_000), sim.engine.stats().kept_alive), (0, 0));
        rule(&mut sim, rules(Action::Refresh));
        assert!(during(&mut sim, PERIOD) > 0);
    }
}

#[test]
fn the_next_daemon_goes_on_with_it_at_a_time_of_its_own() {
    let mut sim = sim();
    let mut call = sim.call("a", Side::Server, "");
    sim.secs(3 * PERIOD);
    let disk = Disk::whole(&mut sim.engine);
    let before = sim.kept_alive.len();
    sim.restart(&disk, Duration::from_secs(10 * PERIOD));
    assert_eq!(sim.kept_alive.len(), before, "not what was missed");
    sim.secs(PERIOD);
    assert_eq!(during(&mut sim, 5 * PERIOD), 5);
    sim.hang_up(&mut call);
    assert_eq!(during(&mut sim, 1_000), 0);
}

#[test]
fn a_flow_beyond_the_limit_of_keepalives_is_not_kept_open_until_there_is_room() {
    let policy = Policy { default: rules(Action::Refresh), ..Policy::default() };
    let mut sim = Sim::custom(policy.clone(), Mode::Live, Limits { keepalives: 0, ..Limits::default() });
    let mut call = sim.call("a", Side::Server, "");
    sim.request(&mut call, Side::Server, "INFO", "", "");
    assert_eq!(during(&mut sim, 1_000), 0);
    let stats = sim.engine.stats();
    assert_eq!((stats.kept_alive, stats.refused_keepalives), (0, 1), "counted once");

    let mut sim = Sim::custom(policy, Mode::Live, Limits { keepalives: 1, ..Limits::default() });
    let mut first = sim.call("a", Side::Server, "");
    sim.call("b", Side::Server, "");
    assert_eq!(sim.engine.stats().refused_keepalives, 0, "the same flow");
    let mut other = calls_from(&mut sim, "c", OTHER);
    assert_eq!((sim.engine.stats().kept_alive, sim.engine.stats().refused_keepalives), (1, 1));
    sim.secs(5 * PERIOD);
    assert!(!sim.kept_alive.is_empty() && sim.kept_alive.iter().all(|(_, sent)| sent.peer != OTHER.parse().unwrap()));
    sim.hang_up(&mut first);
    let mut second = Call::new("b", Side::Server);
    second.number += 2;
    sim.hang_up(&mut second);
    sim.request(&mut other, Side::Peer, "INFO", "", "");
    assert_eq!((sim.engine.stats().kept_alive, sim.engine.stats().refused_keepalives), (1, 1));
    sim.kept_alive.clear();
    sim.secs(5 * PERIOD);
    assert!(!sim.kept_alive.is_empty() && sim.kept_alive.iter().all(|(_, sent)| sent.peer == OTHER.parse().unwrap()));
}

#[test]
fn what_begins_at_one_moment_is_spread_over_the_period() {
    let mut sim = Sim::with(Rules { keepalive: None, ..rules(Action::Refresh) });
    for one in 1..=40 {
        calls_from(&mut sim, &format!("c{one}"), &format!("203.0.113.{one}:5060"));
    }
    rule(&mut sim, rules(Action::Refresh));
    let halves = |sim: &mut Sim| [during(sim, PERIOD / 2), during(sim, PERIOD / 2)];
    let spread = |[first, second]: [usize; 2]| first > 8 && second > 8 && first + second >= 40;
    let reloaded = halves(&mut sim);
    assert!(spread(reloaded), "{reloaded:?}");
    let disk = Disk::whole(&mut sim.engine);
    sim.config.policy = Arc::new(Policy { default: rules(Action::Refresh), ..Policy::default() });
    sim.restart(&disk, Duration::from_secs(10 * PERIOD));
    let restarted = halves(&mut sim);
    assert!(spread(restarted), "{restarted:?}");
}
