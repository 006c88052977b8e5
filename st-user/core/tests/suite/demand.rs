//! `Require: timer`: a peer that demands session timers and a server that has none come to no call, which is told with the cure.

use crate::sim::{Call, Sim, manners, sdp};
use st_core::{
    Action, By,
    EventKind::*,
    Matcher, Policy, Rules, Side, Trunk,
    engine::{Limits, Mode},
};

const DEMANDS: &str = "Require: 100rel, Timer\r\n";
const LACKS: &str = "Unsupported: timer\r\n";

/// An INVITE with these header lines, turned down with these.
fn turned_down(sim: &mut Sim, name: &str, caller: Side, asks: &str, status: u16, answers: &str) -> Call {
    let mut call = Call::new(name, caller);
    sim.invite(&mut call, &(manners(caller, true) + asks), &sdp(caller));
    sim.answer(&call, status, answers, "");
    call
}

#[test]
fn r03_a_peer_that_takes_no_call_without_timers_is_told_with_the_cure() {
    let mut sim = Sim::new(Action::Alert);
    let call = turned_down(&mut sim, "a", Side::Server, "", 421, DEMANDS);
    // A copy.
    sim.answer(&call, 421, DEMANDS, "");
    let told = sim.last(NegotiationFault);
    let reason = told.reason.as_deref().unwrap();
    assert!(reason.starts_with("timer_demanded: 421 to INVITE; switch session timers on at the server"), "{reason}");
    assert_eq!((told.by, told.status, told.trunk.as_deref()), (Some(By::Peer), Some(421), Some("default")));
    assert_eq!(told.call_id().as_deref(), Some("a@example"));
    assert_eq!((told.local_tag().as_deref(), told.remote_tag().as_deref()), (Some("a-local"), Some("a-remote")));
    assert_eq!(sim.kinds(), [NegotiationFault]);
    assert!(sim.injected.is_empty() && sim.arms.is_empty());
}

#[test]
fn r03_a_server_that_takes_no_call_with_timers_is_told_with_the_cure() {
    // Not every server says what it lacks.
    for answers in [LACKS, ""] {
        let mut sim = Sim::new(Action::Refresh);
        turned_down(&mut sim, "a", Side::Peer, "Require: timer\r\nSession-Expires: 1800\r\n", 420, answers);
        let told = sim.last(NegotiationFault);
        let reason = told.reason.as_deref().unwrap();
        assert!(reason.starts_with("timer_refused: 420 to INVITE; switch session timers on at the server"), "{reason}");
        assert!(reason.ends_with("`Supported: timer` instead of `Require: timer`"), "{reason}");
        assert_eq!((told.by, told.status), (Some(By::Server), Some(420)));
        assert_eq!((told.local_tag().as_deref(), told.remote_tag().as_deref()), (Some("a-local"), Some("a-remote")));
        assert_eq!(sim.kinds(), [NegotiationFault]);
    }
}

#[test]
fn what_is_not_an_answer_to_the_invite_or_says_nothing_of_timers_is_not_told() {
    let mut sim = Sim::new(Action::Alert);
    for (name, caller, asks, status, answers) in [
        ("a", Side::Server, "", 421, "Require: 100rel\r\n"),
        ("b", Side::Server, "", 421, ""),
        ("c", Side::Server, "", 420, LACKS),
        ("d", Side::Server, "", 486, DEMANDS),
        ("e", Side::Peer, "Require: 100rel\r\n", 420, "Unsupported: 100rel\r\n"),
        ("f", Side::Peer, "Require: 100rel\r\n", 420, ""),
        ("g", Side::Peer, "Require: timer, 100rel\r\n", 420, "Unsupported: 100rel\r\n"),
        ("h", Side::Peer, "Require: timer\r\n", 421, DEMANDS),
        ("i", Side::Peer, "Require: timer\r\n", 486, LACKS),
    ] {
        turned_down(&mut sim, name, caller, asks, status, answers);
    }
    // A stranger who has not seen the branch.
    let mut call = Call::new("x", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
    let forged = Call { invite: (call.invite.0, "z9hG4bKguessed".into()), ..call.clone() };
    sim.answer(&forged, 421, DEMANDS, "");
    assert_eq!(sim.kinds(), []);
    let mut sim = Sim::new(Action::Observe);
    turned_down(&mut sim, "a", Side::Server, "", 421, DEMANDS);
    assert_eq!(sim.kinds(), [], "a trunk that is only observed raises no alert");
}

#[test]
fn a_flood_of_them_is_one_alert_a_minute_for_each_trunk_with_their_number() {
    let trunk = Trunk {
        name: "carrier".into(),
        matcher: Matcher { peers: vec!["198.51.100.0/24".parse().unwrap()], domains: vec![] },
        rules: Rules::default(),
    };
    let policy = Policy { trunks: vec![trunk], ..Policy::default() };
    let mut sim = Sim::custom(policy.clone(), Mode::Live, Limits::default());
    for second in 0..121 {
        for caller in [Side::Server, Side::Peer] {
            let (status, answers) = if caller == Side::Server { (421, DEMANDS) } else { (420, LACKS) };
            let name = format!("{second}-{caller}");
            turned_down(&mut sim, &name, caller, "Require: timer\r\n", status, answers);
        }
        sim.secs(1);
    }
    let told: Vec<_> = sim.events.iter().filter_map(|event| event.reason.as_deref()).collect();
    assert_eq!(told.len(), 6, "{told:?}");
    let counted = told.iter().filter(|reason| reason.ends_with("; 59 more such calls since the last time")).count();
    assert_eq!(counted, 4, "{told:?}");
    assert!(sim.events.iter().all(|event| event.trunk.as_deref() == Some("carrier")));

    // In a capture each is told: it is a finding of that call's.
    let tape = sim.tape.clone();
    let mut replay = Sim::custom(policy, Mode::Replay, Limits::default());
    replay.replay(&tape);
    assert_eq!(replay.count(NegotiationFault), 242);
}

#[test]
fn in_a_dialog_it_is_told_once_and_the_dialog_goes_on() {
    let mut sim = Sim::new(Action::Alert);
    let mut call = sim.call("a", Side::Server, "");
    for _ in 0..3 {
        let asked = sim.request(&mut call, Side::Server, "INVITE", &manners(Side::Server, true), &sdp(Side::Server));
        sim.respond(&call, Side::Server, &asked, "INVITE", 421, DEMANDS);
        let asked = sim.request(&mut call, Side::Peer, "UPDATE", "Require: timer\r\n", "");
        sim.respond(&call, Side::Peer, &asked, "UPDATE", 420, LACKS);
    }
    assert_eq!(sim.reasons(NegotiationFault), ["timer_demanded", "timer_refused"]);
    assert_eq!(sim.count(SessionEnded), 0);
    sim.hang_up(&mut call);
}
