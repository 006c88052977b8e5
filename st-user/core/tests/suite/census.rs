//! Sessions are counted as they change. That the counts are right whatever happens, every other test here and the world
//! say too: each compares them with a walk through all sessions whenever the engine is at rest.

use std::time::Duration;

use proptest::prelude::*;
use st_core::{Action, EventKind, Matcher, Policy, Side, Trunk, engine::Wish};

use crate::sim::{Reply, Sim, census, rules};

fn trunk(name: &str, peers: &str, action: Action) -> Trunk {
    let matcher = Matcher { peers: vec![peers.parse().expect("a network")], ..Matcher::default() };
    Trunk { name: name.into(), matcher, rules: rules(action) }
}

/// What is counted, in words.
fn counted(sim: &mut Sim) -> Vec<String> {
    let now = sim.now;
    let word = |side: Option<Side>| side.map_or("nobody".into(), |side| side.to_string());
    sim.engine
        .census(now)
        .map(|tally| format!("{} {} {} {}", tally.sessions, tally.trunk, tally.state.name(), word(tally.refresher)))
        .collect()
}

#[test]
fn a_session_is_counted_where_it_stands_from_its_start_to_its_end() {
    let mut sim = Sim::new(Action::Alert);
    assert!(counted(&mut sim).is_empty());
    assert_eq!(sim.engine.next_deadline(sim.now), None);
    let mut call = sim.call("a", Side::Server, "Session-Expires: 90;refresher=uac\r\n");
    let began = sim.now;
    assert_eq!(counted(&mut sim), ["1 default running server"]);
    let deadline = sim.engine.next_deadline(sim.now).unwrap();
    assert_eq!(deadline.since(began).as_secs(), 60);
    sim.call("b", Side::Server, "");
    assert_eq!(counted(&mut sim), ["1 default untimed nobody", "1 default running server"]);
    sim.run(Duration::from_secs(46));
    assert_eq!(counted(&mut sim), ["1 default untimed nobody", "1 default overdue server"]);
    sim.run(Duration::from_secs(10));
    assert_eq!(counted(&mut sim), ["1 default untimed nobody", "1 default expiring server"]);
    sim.run(Duration::from_secs(40));
    assert_eq!(counted(&mut sim), ["1 default untimed nobody", "1 default expired server"]);
    assert_eq!(sim.engine.next_deadline(sim.now), None);
    sim.hang_up(&mut call);
    assert_eq!(counted(&mut sim), ["1 default untimed nobody", "1 default ended nobody"]);
    sim.run(Duration::from_secs(120));
    assert_eq!(counted(&mut sim), ["1 default untimed nobody"]);
}

#[test]
fn another_policy_counts_all_sessions_anew() {
    let mut sim = Sim::new(Action::Alert);
    sim.call("a", Side::Server, "Session-Expires: 90;refresher=uac\r\n");
    sim.call("b", Side::Server, "Session-Expires: 90;refresher=uas\r\n");
    let trunks = vec![trunk("none", "192.0.2.255/32", Action::Alert), trunk("all", "0.0.0.0/0", Action::Alert)];
    sim.set_policy(Policy { trunks, ..Policy::default() });
    sim.settle();
    assert_eq!(counted(&mut sim), ["1 all running server", "1 all running peer"]);
    sim.set_policy(Policy::default());
    sim.settle();
    assert_eq!(counted(&mut sim), ["1 default running server", "1 default running peer"]);
}

#[test]
fn the_first_request_of_a_refresh_tells_how_late_it_left() {
    let mut sim = Sim::new(Action::Refresh);
    sim.call("a", Side::Server, "Session-Expires: 90;refresher=uac\r\n");
    sim.run(Duration::from_secs(50));
    let sent: Vec<_> = sim.events.iter().filter(|event| event.kind == EventKind::RefreshSent).collect();
    assert!(!sent.is_empty() && sent[0].lag.is_some_and(|lag| lag < Duration::from_secs(1)), "{sent:?}");
    assert!(sim.events.iter().all(|event| event.kind == EventKind::RefreshSent || event.lag.is_none()));
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    Call { by: Side, expires: Option<(u32, bool)> },
    Run(u64),
    HangUp(usize),
    Wish(usize, Wish),
    Policy(Action, bool),
    Replies(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let side = prop_oneof![Just(Side::Server), Just(Side::Peer)];
    let expires = proptest::option::of((1_u32..400, any::<bool>()));
    let wish = prop_oneof![Just(Wish::Refresh), Just(Wish::Hold), Just(Wish::Release)];
    let action = prop_oneof![Just(Action::Observe), Just(Action::Alert), Just(Action::Refresh)];
    let step = prop_oneof![
        4 => (side, expires).prop_map(|(by, expires)| Step::Call { by, expires }),
        6 => (1_u64..200).prop_map(Step::Run),
        2 => (0_usize..8).prop_map(Step::HangUp),
        3 => (0_usize..8, wish).prop_map(|(which, wish)| Step::Wish(which, wish)),
        1 => (action, any::<bool>()).prop_map(|(action, trunks)| Step::Policy(action, trunks)),
        1 => any::<bool>().prop_map(Step::Replies),
    ];
    prop::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn counts_are_what_a_walk_finds_whatever_happens(steps in steps()) {
        let mut sim = Sim::new(Action::Refresh);
        let mut calls = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Call { by, expires } => {
                    let role = |uac: bool| if uac { "uac" } else { "uas" };
                    let expires = expires
                        .map(|(seconds, uac)| format!("Session-Expires: {seconds};refresher={}\r\n", role(uac)));
                    calls.push(sim.call(&number.to_string(), by, &expires.unwrap_or_default()));
                }
                Step::Run(seconds) => sim.run(Duration::from_secs(seconds)),
                Step::HangUp(which) => if let Some(call) = calls.get_mut(which) {
                    sim.hang_up(call);
                },
                Step::Wish(which, wish) => {
                    let now = sim.now;
                    let _ = sim.engine.handle_wish(now, st_core::SessionId(which as u64), wish);
                    sim.settle();
                }
                Step::Policy(action, trunks) => {
                    let trunks = if trunks { vec![trunk("all", "0.0.0.0/0", action)] } else { Vec::new() };
                    let policy = Policy { trunks, default: rules(action), ..Policy::default() };
                    sim.set_policy(policy);
                    sim.settle();
                }
                Step::Replies(well) => sim.usual = if well { Reply::Ok } else { Reply::Silence },
            }
            // A moment in which nothing is due.
            sim.run(Duration::from_millis(1));
            census::compare(&mut sim.engine, sim.now);
        }
    }
}
