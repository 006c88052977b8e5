//! A session in which nothing happens is packed, and nobody notices. That what comes later finds it as it was, every other test here
//! and the world say too: all that last longer than that pack.

use std::time::Duration;

use st_core::{
    Action, Engine, EventKind, Policy, Respond, Rules, SessionId, Side, Time,
    engine::{
        EngineConfig, Limits, Wish,
        limits::{MAX_PACKED, PACKED_PER_CALL, PACKED_PER_MESSAGE},
        record::TEMPLATES,
    },
};

use crate::sim::{Call, Reply, Sim, disk::Disk, manners, rules, sdp};

/// Long enough for nobody to be about to say more.
const QUIET: Duration = Duration::from_secs(11);

/// So many calls at rest.
fn quiet(calls: usize) -> Sim {
    let mut sim = Sim::new(Action::Refresh);
    for number in 0..calls {
        sim.call(&format!("call{number}"), Side::Server, "Session-Expires: 1800;refresher=uac\r\n");
    }
    sim.run(QUIET);
    sim
}

fn packed(sim: &Sim) -> usize {
    sim.engine.stats().packed
}

#[test]
fn a_session_that_was_quiet_for_a_while_is_packed_and_refreshed_when_that_is_due() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, "Session-Expires: 90;refresher=uac\r\n");
    sim.secs(9);
    assert_eq!(packed(&sim), 0, "somebody may go on");
    sim.secs(2);
    assert_eq!((packed(&sim), sim.engine.stats().sessions, sim.engine.stats().timed), (1, 1, 1));
    // At SE/2.
    sim.secs(35);
    assert_eq!((packed(&sim), sim.count(EventKind::RefreshSucceeded)), (0, 1));
    sim.secs(300);
    assert_eq!((sim.count(EventKind::RefreshSucceeded), sim.count(EventKind::SessionExpiring)), (7, 0));
    sim.hang_up(&mut call);
    sim.assert_numbers();
    assert_eq!(sim.count(EventKind::SessionEnded), 1);
}

#[test]
fn where_few_sessions_are_unpacked_one_stays_so_for_a_minute() {
    let mut sim = Sim::new(Action::Refresh);
    let limits = Limits { unpacked: 1, ..sim.config.limits };
    sim.engine = Engine::new(EngineConfig { limits, ..sim.config.clone() });
    sim.call("a", Side::Server, "Session-Expires: 1800;refresher=uac\r\n");
    sim.secs(59);
    assert_eq!(packed(&sim), 0);
    sim.secs(2);
    assert_eq!(packed(&sim), 1);
    for name in ["b", "c"] {
        sim.call(name, Side::Server, "Session-Expires: 1800;refresher=uac\r\n");
    }
    sim.run(QUIET);
    assert_eq!(packed(&sim), 2, "there is room for one of them");
}

#[test]
fn what_is_seen_of_a_session_and_stands_in_its_record_is_the_same_packed_or_not() {
    let mut sim = Sim::new(Action::Refresh);
    sim.call("a", Side::Server, "Session-Expires: 1800;refresher=uac\r\n");
    sim.call("b", Side::Peer, "");
    sim.engine.handle_wish(sim.now, SessionId(2), Wish::Hold).expect("a call that is up");
    sim.settle();
    let all = |sim: &Sim| {
        let mut seen = Vec::new();
        sim.engine.sessions(sim.now, SessionId(0), 10, |view| {
            seen.push(format!("{view:?} {:?}", sim.engine.outlook(sim.now, view.session)));
            true
        });
        seen
    };
    let before = all(&sim);
    assert_eq!((packed(&sim), before.len()), (0, 2));
    sim.run(QUIET);
    assert_eq!((packed(&sim), all(&sim)), (2, before));
    let disk = Disk::whole(&mut sim.engine);
    assert_eq!(packed(&sim), 2, "a record is made of what is packed");
    let (engine, restored) = disk.restore(sim.config.clone());
    assert_eq!(restored.len(), 2);
    let held = |engine: &st_core::Engine| engine.session(sim.now, SessionId(2), |view| view.held);
    assert_eq!((held(&engine), held(&sim.engine)), (Some(true), Some(true)));
}

/// What a session is to an operator, and what is counted.
fn seen(engine: &mut st_core::Engine, now: Time) -> (Vec<String>, Vec<String>, Option<Time>, usize) {
    let mut sessions = Vec::new();
    engine.sessions(now, SessionId(0), 100, |view| {
        sessions.push(format!("{view:?} {:?}", engine.outlook(now, view.session)));
        true
    });
    let tallies = engine.census(now).map(|tally| format!("{tally:?}")).collect();
    (sessions, tallies, engine.next_deadline(now), engine.held(now))
}

#[test]
fn a_session_that_is_taken_back_stays_packed_until_somebody_speaks_or_its_moment_comes() {
    let mut sim = Sim::new(Action::Refresh);
    sim.engine.follow_changes();
    let mut call = sim.call("a", Side::Server, "Session-Expires: 1800;refresher=uac\r\n");
    sim.call("b", Side::Server, "Session-Expires: 90;refresher=uac\r\n");
    sim.call("c", Side::Peer, "");
    sim.secs(1);
    let mut disk = Disk::default();
    disk.write(&mut sim.engine);
    sim.restart(&disk, Duration::from_secs(2));
    assert_eq!((packed(&sim), sim.engine.stats().unsure), (3, 3), "each may be over");
    assert_eq!(sim.flows.len(), 1, "media are watched again");
    sim.engine.follow_on();
    assert_eq!(std::iter::from_fn(|| sim.engine.poll_change()).count(), 1, "what stands there is not written again");
    sim.secs(45);
    assert_eq!((packed(&sim), sim.count(EventKind::RefreshSucceeded)), (2, 1), "its moment has come");
    sim.hang_up(&mut call);
    assert_eq!((packed(&sim), sim.reasons(EventKind::SessionEnded)), (1, vec!["bye".into()]));
    sim.assert_numbers();
}

#[test]
fn what_is_seen_of_a_session_that_is_taken_back_does_not_depend_on_its_being_packed() {
    let mut sim = quiet(3);
    sim.call("open", Side::Peer, "");
    sim.engine.handle_wish(sim.now, SessionId(2), Wish::Hold).expect("a call that is up");
    sim.settle();
    let disk = Disk::whole(&mut sim.engine);
    let (mut asleep, restored) = disk.restore(sim.config.clone());
    let (mut awake, _) = disk.restore(sim.config.clone());
    assert_eq!((restored.len(), asleep.stats().packed), (4, 4));
    // What is asked for in vain changes nothing in them.
    for number in 1..=4 {
        let wish = if number == 2 { Wish::Hold } else { Wish::Release };
        awake.handle_wish(sim.now, SessionId(number), wish).unwrap_err();
    }
    assert_eq!(awake.stats().packed, 0);
    for later in [0, 20, 950, 1_700, 2_000] {
        let now = sim.now + Duration::from_secs(later);
        assert_eq!(seen(&mut asleep, now), seen(&mut awake, now), "after {later} s");
    }
}

#[test]
fn what_was_due_while_nobody_was_there_is_seen_to_though_it_is_packed() {
    for (outage, succeeded) in [(60, 1), (200, 0)] {
        let mut sim = Sim::new(Action::Refresh);
        sim.engine.follow_changes();
        sim.call("a", Side::Server, "Session-Expires: 90;refresher=uac\r\n");
        sim.secs(1);
        let mut disk = Disk::default();
        disk.write(&mut sim.engine);
        sim.restart(&disk, Duration::from_secs(outage));
        sim.secs(1);
        let counts = (sim.count(EventKind::RefreshSucceeded), sim.count(EventKind::SessionExpiring));
        assert_eq!((packed(&sim), counts), (0, (succeeded, 1)), "after {outage} s");
    }
}

#[test]
fn sessions_are_found_though_what_they_have_in_common_is_lost() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = sim.call("a", Side::Server, "Session-Expires: 1800;refresher=uac\r\n");
    let disk = Disk::whole(&mut sim.engine);
    let mut engine = st_core::Engine::new(EngineConfig { seed: 99, ..sim.config.clone() });
    for (key, record) in disk.0.range(TEMPLATES..).chain(disk.0.range(1..TEMPLATES)) {
        engine.restore(*key, record).expect("a record");
    }
    sim.go_on_with(engine);
    assert_eq!((packed(&sim), sim.engine.stats().sessions), (0, 1));
    sim.hang_up(&mut call);
    assert_eq!(sim.reasons(EventKind::SessionEnded), ["bye"]);
}

#[test]
fn what_a_trunks_rules_want_at_once_is_done_of_sessions_that_are_taken_back() {
    let mut sim = quiet(2);
    let disk = Disk::whole(&mut sim.engine);
    let rules = Rules { respond: Respond::OnReject, ..rules(Action::Refresh) };
    sim.config.policy = Policy { default: rules, ..Policy::default() }.into();
    sim.restart(&disk, Duration::from_secs(1));
    assert_eq!((packed(&sim), sim.marks.len()), (0, 2), "they are marked");
}

#[test]
fn a_session_in_which_something_is_under_way_is_not_packed() {
    let mut sim = Sim::new(Action::Refresh);
    sim.usual = Reply::Silence;
    sim.call("a", Side::Server, "Session-Expires: 90;refresher=uac\r\n");
    sim.secs(44);
    assert_eq!(packed(&sim), 1);
    for _ in 0..40 {
        sim.secs(1);
        assert!(!sim.ours().is_empty() && packed(&sim) == 0, "a request of sipst's own is on record");
    }
}

#[test]
fn other_rules_reach_sessions_that_are_packed() {
    let mut sim = quiet(3);
    assert_eq!((packed(&sim), sim.marks.len()), (3, 0));
    let rules = Rules { respond: Respond::OnReject, ..rules(Action::Refresh) };
    sim.set_policy(Policy { default: rules, ..Policy::default() });
    sim.settle();
    assert_eq!((packed(&sim), sim.marks.len()), (0, 3), "they are marked");
    let mut sim = quiet(3);
    sim.set_policy(Policy::default());
    sim.settle();
    let tallies: Vec<_> = sim.engine.census(sim.now).map(|tally| (tally.trunk.to_owned(), tally.sessions)).collect();
    assert_eq!((packed(&sim), tallies), (3, vec![("default".into(), 3)]));
}

#[test]
fn what_is_quiet_is_packed_a_few_at_a_time() {
    let mut sim = quiet(0);
    let calls = PACKED_PER_CALL + 10;
    for number in 0..calls {
        sim.call(&format!("call{number}"), Side::Server, "Session-Expires: 1800;refresher=uac\r\n");
    }
    sim.now = sim.now + QUIET;
    sim.wire(Side::Peer, b"OPTIONS sip:a@192.0.2.10 SIP/2.0\r\n\r\n".to_vec());
    assert_eq!(packed(&sim), PACKED_PER_MESSAGE);
    sim.secs(0);
    assert_eq!(packed(&sim), PACKED_PER_MESSAGE + PACKED_PER_CALL);
    sim.secs(0);
    assert_eq!(packed(&sim), calls);
}

#[test]
fn a_session_that_is_too_long_stays_as_it_is() {
    let mut sim = Sim::new(Action::Refresh);
    let mut call = Call::new("a", Side::Server);
    let long = |side| sdp(side) + &"a=silent\r\n".repeat(790);
    sim.invite(&mut call, &manners(Side::Server, true), &long(Side::Server));
    let extra = manners(Side::Peer, true) + "Session-Expires: 1800;refresher=uac\r\n";
    sim.answer(&call, 200, &extra, &long(Side::Peer));
    sim.ack(&mut call);
    assert!(2 * long(Side::Peer).len() > MAX_PACKED - 1_000);
    sim.run(QUIET);
    assert_eq!((packed(&sim), sim.engine.stats().sessions), (0, 1));
    sim.hang_up(&mut call);
    assert_eq!(sim.count(EventKind::SessionEnded), 1);
}
