//! Another policy under live calls: what it takes in each of them is done in pieces, so that nothing else waits for that,
//! and nothing is done meanwhile that the new one forbids.

use std::{sync::Arc, time::Duration};

use crate::sim::{Call, Sim, census, manners};
use st_core::{
    Action, EventKind, Matcher, Policy, Respond, Rules, SessionId, Side, Trunk,
    engine::{Limits, Mode},
};

const PEER_REFRESHES: &str = "Session-Expires: 1800;refresher=uas\r\n";

fn answering() -> Rules {
    Rules { action: Action::Refresh, respond: Respond::OnReject, ..Rules::default() }
}

fn of_all(rules: Rules) -> Policy {
    Policy { default: rules, ..Policy::default() }
}

/// So many calls in which the peer has to refresh.
fn calls(sim: &mut Sim, count: usize) -> Vec<Call> {
    let one = |index: usize| {
        let mut call = Call::new(&index.to_string(), Side::Server);
        sim.establish(&mut call, PEER_REFRESHES, true);
        call
    };
    (0..count).map(one).collect()
}

/// Pieces of so many sessions, each followed by a look at what has become of them.
fn walk(sim: &mut Sim, piece: usize, mut look: impl FnMut(&mut Sim)) {
    let mut next = Some(SessionId(0));
    while let Some(from) = next {
        next = sim.engine.handle_policy(sim.now, from, piece);
        sim.settle();
        look(sim);
    }
}

#[test]
fn each_piece_has_the_marks_of_its_own_sessions_follow_and_of_no_others() {
    let mut sim = Sim::with(answering());
    let _calls = calls(&mut sim, 10);
    assert_eq!(sim.marks.len(), 10);
    sim.engine.set_policy(Arc::new(of_all(Rules { respond: Respond::Never, ..answering() })));
    sim.settle();
    let mut marks = vec![sim.marks.len()];
    walk(&mut sim, 3, |sim| marks.push(sim.marks.len()));
    assert_eq!(marks, [10, 7, 4, 1, 0]);
    sim.engine.set_policy(Arc::new(of_all(answering())));
    sim.settle();
    let mut marks = vec![sim.marks.len()];
    walk(&mut sim, 4, |sim| marks.push(sim.marks.len()));
    assert_eq!(marks, [0, 4, 8, 10]);
}

#[test]
fn a_refusal_that_is_held_back_by_a_mark_that_stands_still_goes_out() {
    for (rules, expected) in [(Rules { respond: Respond::Never, ..answering() }, 405), (answering(), 200)] {
        let mut sim = Sim::with(answering());
        let mut call = calls(&mut sim, 1).remove(0);
        sim.secs(900);
        sim.engine.set_policy(Arc::new(of_all(rules)));
        sim.settle();
        assert_eq!(sim.marks.len(), 1);
        let extra = format!("{}Supported: timer\r\nSession-Expires: 1800;refresher=uac\r\n", manners(Side::Peer, true));
        let asked = sim.request(&mut call, Side::Peer, "UPDATE", &extra, "");
        sim.respond(&call, Side::Peer, &asked, "UPDATE", 405, "");
        assert!(sim.responses.last().unwrap().starts_with(&format!("SIP/2.0 {expected} ")), "{:?}", sim.responses);
        assert_eq!(sim.count(EventKind::RefreshAnswered), usize::from(expected == 200));
    }
}

fn named(name: &str) -> Policy {
    let matcher = Matcher { peers: vec!["0.0.0.0/0".parse().expect("a network")], ..Matcher::default() };
    let trunks = vec![Trunk { name: name.into(), matcher, rules: answering() }];
    Policy { trunks, ..Policy::default() }
}

/// How many are counted under which trunk.
fn counted(sim: &mut Sim) -> Vec<(String, usize)> {
    let mut counted = std::collections::BTreeMap::<String, usize>::new();
    for tally in sim.engine.census(sim.now) {
        *counted.entry(tally.trunk.to_owned()).or_default() += tally.sessions;
    }
    counted.into_iter().collect()
}

#[test]
fn each_session_is_counted_once_under_its_trunk_of_before_or_that_of_now() {
    // So many that the simulator does not go through them all the time.
    const CALLS: usize = 60;
    let mut sim = Sim::custom(named("before"), Mode::Live, Limits::default());
    let mut calls = calls(&mut sim, CALLS);
    let number = |trunk: &str, count: usize| (trunk.to_owned(), count);
    assert_eq!(counted(&mut sim), [number("before", CALLS)]);
    sim.engine.set_policy(Arc::new(named("now")));
    sim.settle();
    assert_eq!(counted(&mut sim), [number("before", CALLS)]);
    // What changes is counted as what it is.
    let last = calls.last_mut().unwrap();
    sim.hang_up(last);
    assert_eq!(counted(&mut sim), [number("before", CALLS - 1), number("now", 1)]);
    // Another one, before all have followed the first.
    assert!(sim.engine.handle_policy(sim.now, SessionId(0), 20).is_some());
    sim.settle();
    sim.engine.set_policy(Arc::new(named("after")));
    sim.settle();
    assert_eq!(counted(&mut sim), [number("before", CALLS - 21), number("now", 21)]);
    let mut moved = Vec::new();
    walk(&mut sim, 20, |sim| moved.push(counted(sim)));
    assert_eq!(
        moved,
        [
            vec![number("after", 20), number("before", CALLS - 21), number("now", 1)],
            vec![number("after", 40), number("before", CALLS - 41), number("now", 1)],
            vec![number("after", CALLS)],
        ]
    );
    census::compare(&mut sim.engine, sim.now);
}

#[test]
fn a_flow_is_kept_open_no_more_as_soon_as_a_policy_may_forbid_it() {
    let rules = Rules { action: Action::Refresh, keepalive: Some(Duration::from_secs(30)), ..Rules::default() };
    for (changed, goes_on) in [(Rules { keepalive: None, ..rules.clone() }, false), (rules.clone(), true)] {
        let mut sim = Sim::with(rules.clone());
        let _call = calls(&mut sim, 1);
        sim.secs(100);
        let before = sim.kept_alive.len();
        assert!(before > 0);
        sim.engine.set_policy(Arc::new(of_all(changed)));
        sim.settle();
        sim.secs(100);
        assert_eq!(sim.kept_alive.len(), before, "nobody has looked yet whether it may be");
        walk(&mut sim, 1, |_| {});
        sim.secs(100);
        assert_eq!(sim.kept_alive.len() > before, goes_on);
        assert_eq!(sim.engine.stats().kept_alive, usize::from(goes_on));
    }
}
