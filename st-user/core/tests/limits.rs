//! Bounds: what is refused or forgotten when they are reached, and that floods displace only strangers.

mod sim;

use sim::{Call, Sim, manners, sdp};
use st_core::{
    Action,
    EventKind::*,
    Policy, Side,
    engine::{Limits, Mode},
};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAS_90: &str = "Session-Expires: 90;refresher=uas\r\n";

fn limited(limits: Limits) -> Sim {
    Sim::custom(Policy { default: sim::rules(Action::Refresh), ..Policy::default() }, Mode::Live, limits)
}

/// An INVITE of a stranger's.
fn knock(sim: &mut Sim, number: u32) -> Call {
    let mut call = Call::new(&format!("s{number}"), Side::Peer);
    sim.invite(&mut call, &manners(Side::Peer, true), &sdp(Side::Peer));
    call
}

#[test]
fn sessions_beyond_the_limit_are_refused_counted_and_told_once_a_minute() {
    let mut sim = limited(Limits { sessions: 2, ..Limits::default() });
    let mut first = sim.call("a", Side::Server, UAC_90);
    for name in ["b", "c", "d", "e"] {
        sim.call(name, Side::Server, UAC_90);
    }
    let stats = sim.engine.stats();
    assert_eq!((stats.sessions, stats.refused_sessions), (2, 3));
    assert_eq!(sim.reasons(CaptureLoss), ["limit"]);
    sim.secs(40);
    sim.hang_up(&mut first);
    sim.secs(40);
    sim.call("f", Side::Server, UAC_90);
    assert_eq!(sim.engine.stats().sessions, 2, "there is room again");
}

#[test]
fn a_flood_of_strangers_displaces_neither_the_servers_calls_nor_those_that_it_answered() {
    let mut sim = limited(Limits { strangers: 8, pending: 8, ..Limits::default() });
    let mut out = Call::new("out", Side::Server);
    sim.invite(&mut out, &manners(Side::Server, true), &sdp(Side::Server));
    let mut rings = knock(&mut sim, 0);
    sim.answer(&rings, 180, "", "");
    for number in 1..1_000 {
        knock(&mut sim, number);
    }
    let stats = sim.engine.stats();
    assert_eq!((stats.strangers, stats.pending, stats.evicted_pending), (8, 2, 0));
    assert_eq!(stats.evicted_strangers, 999 - 8);
    assert_eq!(sim.events.len(), 0, "a flood is no event");
    sim.answer(&out, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    sim.ack(&mut out);
    sim.answer(&rings, 200, &(manners(Side::Server, true) + UAS_90), &sdp(Side::Server));
    sim.ack(&mut rings);
    assert_eq!((sim.count(SessionStarted), sim.engine.stats().sessions), (2, 2));
}

#[test]
fn a_flood_of_requests_of_unknown_dialogs_displaces_no_call_and_is_bounded() {
    let mut sim = limited(Limits { strangers: 8, ..Limits::default() });
    let mut known = sim.call("known", Side::Server, UAC_90);
    for number in 0..100 {
        let mut call = Call::new(&format!("unknown{number}"), Side::Peer);
        sim.request(&mut call, Side::Peer, "INVITE", UAC_90, "");
    }
    let stats = sim.engine.stats();
    assert_eq!((stats.sessions, stats.evicted_strangers, stats.unknown_dialog), (1, 100 - 8, 100));
    sim.reinvite(&mut known, Side::Server, "", UAC_90);
    assert_eq!((sim.count(SessionStarted), sim.count(SessionRefreshed)), (1, 1));
}

#[test]
fn pending_invites_beyond_the_limit_displace_the_one_that_was_silent_longest() {
    let mut sim = limited(Limits { pending: 2, ..Limits::default() });
    let mut calls: Vec<Call> = ["a", "b", "c"].map(|name| Call::new(name, Side::Server)).into();
    for call in &mut calls {
        sim.invite(call, &manners(Side::Server, true), &sdp(Side::Server));
    }
    assert_eq!(sim.reasons(CaptureLoss), ["limit"]);
    for call in &calls {
        sim.answer(call, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    }
    assert_eq!((sim.count(SessionStarted), sim.engine.stats().evicted_pending), (2, 1));
}

#[test]
fn pending_invites_are_forgotten_in_time() {
    let mut sim = limited(Limits::default());
    for number in 0..20 {
        knock(&mut sim, number);
    }
    sim.secs(400);
    knock(&mut sim, 99);
    assert_eq!(sim.engine.stats().strangers, 1);
}

#[test]
fn nothing_is_remembered_with_a_limit_of_nothing() {
    let mut sim = limited(Limits { sessions: 0, pending: 0, strangers: 0, remembered: 0 });
    sim.call("a", Side::Server, UAC_90);
    sim.call("b", Side::Peer, UAS_90);
    sim.secs(100);
    assert_eq!(sim.count(SessionStarted), 0);
}

#[test]
fn identifiers_and_invites_that_are_too_long_are_survived() {
    let mut sim = limited(Limits::default());
    sim.call(&"x".repeat(600), Side::Server, UAC_90);
    assert_eq!(sim.count(SessionStarted), 0);
    assert!(sim.engine.stats().unidentified >= 3);
    // An INVITE with more than is kept: its SDP counts as cut off, so there is no re-INVITE, but there is an UPDATE.
    let mut call = Call::new("long", Side::Server);
    let padding = format!("X-Padding: {}\r\n", "y".repeat(20_000));
    sim.invite(&mut call, &(manners(Side::Server, true) + &padding), &sdp(Side::Server));
    sim.answer(&call, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    sim.ack(&mut call);
    sim.secs(46);
    assert_eq!(sim.ours().len(), 1);
}

#[test]
fn a_peer_that_opens_requests_without_end_neither_blocks_a_refresh_nor_displaces_the_servers() {
    let mut sim = limited(Limits::default());
    let mut call = sim.call("a", Side::Server, UAC_90);
    for _ in 0..100 {
        sim.request(&mut call, Side::Peer, "UPDATE", "", &sdp(Side::Peer));
    }
    sim.secs(46);
    assert_eq!(sim.ours().len(), 1, "the server said nothing to any of them");
    let asked = sim.request(&mut call, Side::Server, "UPDATE", "", "");
    for _ in 0..100 {
        sim.request(&mut call, Side::Peer, "UPDATE", "", &sdp(Side::Peer));
    }
    sim.respond(&call, Side::Server, &asked, "UPDATE", 200, UAC_90);
    assert_eq!(sim.last(SessionRefreshed).by, Some(st_core::By::Server));
}

#[test]
fn answered_invites_take_no_room_from_those_that_ring() {
    let mut sim = limited(Limits { pending: 2, ..Limits::default() });
    for number in 0..20 {
        sim.call(&format!("c{number}"), Side::Server, UAC_90);
    }
    let stats = sim.engine.stats();
    assert_eq!((stats.sessions, stats.pending, stats.evicted_pending, sim.count(CaptureLoss)), (20, 0, 0, 0));
}
